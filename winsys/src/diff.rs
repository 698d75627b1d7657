//! Byte-exact differences between two copies of memory, taken against a twin.
//!
//! Host and device may write different bytes of one page, even of one word, at the same time. So only bytes
//! that differ from the twin are ever stored: to copy an unchanged neighbour along would undo what the other
//! side wrote there in the meantime.

use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::atomic::{Ordering, compiler_fence};

/// Bytes compared at a time: in the first-level cache, and what the twin's pages are made of.
const BLOCK: usize = 4096;

/// Brings `target` and `twin` up to date with `source`: every byte of `source` that differs from `twin` is
/// stored to both. Returns the number of such bytes.
///
/// Each byte of `source` is loaded once, so that target and twin agree even while others write `source`.
///
/// # Safety
/// All three must be valid for `len` bytes and not overlap. `twin` must be ours alone. `source` and `target`
/// may be accessed by others meanwhile, even other processes and devices: they are touched through raw
/// copies only.
pub(crate) unsafe fn propagate(source: *const u8, twin: *mut u8, target: *mut u8, len: usize) -> usize {
    let mut changed = 0;
    // SAFETY: the caller's promise; what is visited is within `len`.
    unsafe {
        update_blocks(source, twin, len, |at, now, before| {
            changed += store_differences(now, before, target.add(at));
        });
    }
    changed
}

/// Brings `twin` up to date with `source`, each byte of which is loaded once. Before that, calls `visit` with each block
/// that differs: where it is, what it holds now, and what the twin still does.
///
/// # Safety
/// As for [`propagate`].
#[inline]
unsafe fn update_blocks(
    source: *const u8,
    twin: *mut u8,
    len: usize,
    mut visit: impl FnMut(usize, &[u8], &[u8]),
) {
    let mut snapshot = [0u8; BLOCK];
    let mut at = 0;
    while at < len {
        let n = BLOCK.min(len - at);
        let snapshot = &mut snapshot[..n];
        // SAFETY: `at + n <= len`; `snapshot` is ours and as long.
        unsafe { ptr::copy_nonoverlapping(source.add(at), snapshot.as_mut_ptr(), n) };
        source_may_change();
        // SAFETY: `at + n <= len`, and the twin is ours alone.
        let twin = unsafe { slice::from_raw_parts_mut(twin.add(at), n) };
        if snapshot != twin {
            visit(at, snapshot, twin);
            twin.copy_from_slice(snapshot);
        }
        at += n;
    }
}

/// The grain of [`propagate_by_grains`]: no device's cache lines are larger, and its boundaries are theirs.
const GRAIN: usize = 256;

/// [`propagate`] where `target` is reached through something that moves whole lines of it. `before` and `after` are called
/// around the stores to each range of `target` in which there are any: as narrow as lines allow, and for no longer than
/// the stores take, since what others store there meanwhile may get lost.
///
/// # Safety
/// As for [`propagate`].
pub(crate) unsafe fn propagate_by_grains(
    source: *const u8,
    twin: *mut u8,
    target: *mut u8,
    len: usize,
    before: impl Fn(Range<usize>),
    after: impl Fn(Range<usize>),
) -> usize {
    let mut changed = 0;
    let visit = |at: usize, now: &[u8], was: &[u8]| {
        let grains = now.len().div_ceil(GRAIN);
        let differs = |grain: usize| {
            let bytes = grain * GRAIN..now.len().min((grain + 1) * GRAIN);
            now[bytes.clone()] != was[bytes]
        };
        let mut grain = 0;
        while grain < grains {
            let first = grain;
            while grain < grains && differs(grain) {
                grain += 1;
            }
            if first < grain {
                let bytes = first * GRAIN..now.len().min(grain * GRAIN);
                let whole = at + bytes.start..at + bytes.end;
                before(whole.clone());
                // SAFETY: within `len`.
                changed +=
                    unsafe { store_differences(&now[bytes.clone()], &was[bytes], target.add(whole.start)) };
                after(whole);
            }
            grain += 1;
        }
    };
    // SAFETY: the caller's promise.
    unsafe { update_blocks(source, twin, len, visit) };
    changed
}

/// Brings `twin` up to date with `source`, each byte of which is loaded once. Calls `changed` with each run of bytes that
/// differed, in ascending order; what is beside it did not differ, but for a run that begins where it ends. Returns the
/// number of such bytes.
///
/// # Safety
/// As for [`propagate`].
pub(crate) unsafe fn update(
    source: *const u8,
    twin: *mut u8,
    len: usize,
    mut changed: impl FnMut(Range<usize>),
) -> usize {
    let mut total = 0;
    let visit = |at: usize, now: &[u8], was: &[u8]| {
        let mut from = 0;
        while let Some(run) = next_difference(now, was, from) {
            from = run.end;
            total += run.len();
            changed(at + run.start..at + run.end);
        }
    };
    // SAFETY: the caller's promise.
    unsafe { update_blocks(source, twin, len, visit) };
    total
}

/// The first run of bytes, from `from` on, in which two equally long slices differ.
fn next_difference(one: &[u8], other: &[u8], from: usize) -> Option<Range<usize>> {
    const LANE: usize = 64;
    let mut start = from;
    // What is equal is so by the lane, most of the time.
    while start + LANE <= one.len() && one[start..start + LANE] == other[start..start + LANE] {
        start += LANE;
    }
    let differs = |at: &usize| one[*at] != other[*at];
    let start = (start..one.len()).find(differs)?;
    let end = (start..one.len()).find(|at| !differs(at)).unwrap_or(one.len());
    Some(start..end)
}

/// Copies `source` to both `twin` and `target`, loading each byte once.
///
/// # Safety
/// As for [`propagate`].
pub(crate) unsafe fn copy(source: *const u8, twin: *mut u8, target: *mut u8, len: usize) {
    // SAFETY: the caller's promise. The target is filled from the twin, which is ours alone, so that both agree
    // even while others write the source.
    unsafe {
        ptr::copy_nonoverlapping(source, twin, len);
        source_may_change();
        ptr::copy_nonoverlapping(twin, target, len);
    }
}

/// Copies `source` to `target`, whatever both hold.
///
/// # Safety
/// As for [`propagate`].
pub(crate) unsafe fn overwrite(source: *const u8, target: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(source, target, len) };
}

/// Keeps the compiler from loading the source a second time where a copy of it is meant. By the language's rules
/// nobody writes memory that is read in a plain way, so the source would do as well as its copy: LLVM does make two
/// copies of one source out of a copy and a copy of that. Past a fence it must allow for changes to any memory that
/// others can reach. It compiles to nothing.
fn source_may_change() {
    compiler_fence(Ordering::SeqCst);
}

/// Makes `len` bytes zero, storing only where they are not, so that memory never touched stays that way.
///
/// # Safety
/// `target` must be valid for reads and writes of `len` bytes, and nobody may write them meanwhile.
pub(crate) unsafe fn clear(target: *mut u8, len: usize) {
    for at in (0..len).step_by(BLOCK) {
        let n = BLOCK.min(len - at);
        // SAFETY: `at + n <= len`; nobody else writes it, by the caller's promise.
        let block = unsafe { slice::from_raw_parts_mut(target.add(at), n) };
        if block.iter().any(|&byte| byte != 0) {
            block.fill(0);
        }
    }
}

/// Stores to `target` the bytes of `new` that differ from `old`, and no other. Returns their number.
///
/// # Safety
/// `new` and `old` must be equally long, and `target` valid for writes of as many bytes. Others may write the bytes in
/// between at the same time.
unsafe fn store_differences(new: &[u8], old: &[u8], target: *mut u8) -> usize {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512bw") {
        // SAFETY: the caller's promise; the processor has the feature.
        return unsafe { store_by_masks(new, old, target) };
    }
    // SAFETY: the caller's promise.
    unsafe { store_by_words(new, old, target) }
}

/// [`store_differences`] with stores that leave out single bytes: what changes is often the low bytes of words.
///
/// # Safety
/// As there; and the processor must have AVX-512BW.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
unsafe fn store_by_masks(new: &[u8], old: &[u8], target: *mut u8) -> usize {
    use std::arch::x86_64::{_mm512_cmpneq_epi8_mask, _mm512_loadu_epi8, _mm512_mask_storeu_epi8};
    const LANE: usize = 64;
    let lanes = new.len() / LANE * LANE;
    let mut changed = 0;
    for at in (0..lanes).step_by(LANE) {
        // SAFETY: a lane of each of them; only bytes that differ are stored.
        unsafe {
            let value = _mm512_loadu_epi8(new.as_ptr().add(at).cast());
            let mask = _mm512_cmpneq_epi8_mask(value, _mm512_loadu_epi8(old.as_ptr().add(at).cast()));
            if mask != 0 {
                _mm512_mask_storeu_epi8(target.add(at).cast(), mask, value);
                changed += mask.count_ones() as usize;
            }
        }
    }
    // SAFETY: what is left of each of them.
    changed + unsafe { store_by_words(&new[lanes..], &old[lanes..], target.add(lanes)) }
}

/// [`store_differences`] on any processor.
///
/// # Safety
/// As there.
unsafe fn store_by_words(new: &[u8], old: &[u8], target: *mut u8) -> usize {
    let (new_words, new_rest) = new.as_chunks::<8>();
    let (old_words, old_rest) = old.as_chunks::<8>();
    let mut changed = 0;
    for (index, (new, old)) in new_words.iter().zip(old_words).enumerate() {
        // Little-endian: the lowest byte of the number is the first in memory.
        let mut differ = u64::from_le_bytes(*new) ^ u64::from_le_bytes(*old);
        if differ == 0 {
            continue;
        }
        let target = target.wrapping_add(index * 8);
        if !has_zero_byte(differ) {
            // SAFETY: eight bytes of the target, all of which differ.
            unsafe { target.cast::<[u8; 8]>().write_unaligned(*new) };
            changed += 8;
            continue;
        }
        while differ != 0 {
            let byte = differ.trailing_zeros() as usize / 8;
            // SAFETY: a byte of these eight.
            unsafe { target.add(byte).write(new[byte]) };
            changed += 1;
            differ &= !(0xFF << (byte * 8));
        }
    }
    let rest = new_words.len() * 8;
    for (index, (new, old)) in new_rest.iter().zip(old_rest).enumerate() {
        if new != old {
            // SAFETY: one of the last bytes of the target.
            unsafe { target.add(rest + index).write(*new) };
            changed += 1;
        }
    }
    changed
}

/// Whether one of the eight bytes is zero: only such a byte borrows without having its top bit set.
fn has_zero_byte(word: u64) -> bool {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    word.wrapping_sub(ONES) & !word & TOPS != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::thread;

    /// The definition, byte by byte.
    fn by_bytes(source: &[u8], twin: &mut [u8], target: &mut [u8]) -> usize {
        let mut changed = 0;
        for i in 0..source.len() {
            if source[i] != twin[i] {
                twin[i] = source[i];
                target[i] = source[i];
                changed += 1;
            }
        }
        changed
    }

    /// Bytes that look random (xorshift), one in so many of them not zero.
    fn noise(seed: u64, len: usize, one_in: u64) -> Vec<u8> {
        let mut state = seed | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if state.is_multiple_of(one_in) { state.to_le_bytes()[5] } else { 0 }
            })
            .collect()
    }

    /// Part of a buffer. What is around it must stay.
    #[derive(Clone, PartialEq)]
    struct Part {
        buffer: Vec<u8>,
        range: Range<usize>,
    }

    impl Part {
        fn bytes(&mut self) -> &mut [u8] {
            &mut self.buffer[self.range.clone()]
        }

        fn pointer(&mut self) -> *mut u8 {
            self.bytes().as_mut_ptr()
        }
    }

    /// A source, a twin and a target, told in few words.
    #[derive(Clone, Debug)]
    struct Case {
        len: usize,
        starts: [usize; 3],
        seed: u32,
        /// How dense the differences are.
        one_in: u64,
    }

    impl Case {
        fn any() -> impl Strategy<Value = Self> {
            let len = prop_oneof![6 => 0..200usize, 1 => BLOCK - 70..BLOCK + 70, 1 => 0..3 * BLOCK];
            let starts = [0..64usize, 0..64, 0..64];
            (len, starts, any::<u32>(), select(&[1, 2, 9, 200]))
                .prop_map(|(len, starts, seed, one_in)| Self { len, starts, seed, one_in })
        }

        fn parts(&self) -> [Part; 3] {
            let part = |index: usize, seed: u64, one_in| {
                let range = self.starts[index]..self.starts[index] + self.len;
                Part { buffer: noise(u64::from(self.seed) * 16 + seed, range.end + 64, one_in), range }
            };
            [part(0, 1, self.one_in), part(1, 7, self.one_in + 1), part(2, 13, 3)]
        }
    }

    proptest! {
        #[test]
        fn propagation_agrees_with_its_definition(case in Case::any()) {
            let [mut source, mut twin, mut target] = case.parts();
            let (mut new_twin, mut new_target) = (twin.clone(), target.clone());
            let expected = by_bytes(source.bytes(), new_twin.bytes(), new_target.bytes());
            // SAFETY: three parts of this length.
            let changed =
                unsafe { propagate(source.pointer(), twin.pointer(), target.pointer(), case.len) };
            prop_assert!((changed, &twin, &target) == (expected, &new_twin, &new_target));

            // By grains.
            let [mut source, mut twin, mut target] = case.parts();
            let pointers = (source.pointer(), twin.pointer(), target.pointer());
            // SAFETY: as above.
            let changed =
                unsafe { propagate_by_grains(pointers.0, pointers.1, pointers.2, case.len, drop, drop) };
            prop_assert!((changed, &twin, &target) == (expected, &new_twin, &new_target));

            // In two steps.
            let [mut source, mut twin, mut target] = case.parts();
            let mut runs = Vec::new();
            // SAFETY: two parts of this length.
            let changed =
                unsafe { update(source.pointer(), twin.pointer(), case.len, |run| runs.push(run)) };
            for run in runs {
                target.bytes()[run.clone()].copy_from_slice(&twin.bytes()[run]);
            }
            prop_assert!((changed, &twin, &target) == (expected, &new_twin, &new_target));

            // By words, too, on processors that have better.
            let [_, mut twin, mut target] = case.parts();
            // SAFETY: the target is as long as the others.
            let changed = unsafe { store_by_words(source.bytes(), twin.bytes(), target.pointer()) };
            prop_assert!((changed, &target) == (expected, &new_target));
        }

        #[test]
        fn copies_and_zeros_end_where_they_should(case in Case::any()) {
            let [mut source, mut twin, mut target] = case.parts();
            let (mut new_twin, mut new_target) = (twin.clone(), target.clone());
            new_twin.bytes().copy_from_slice(source.bytes());
            new_target.bytes().copy_from_slice(source.bytes());
            // SAFETY: three parts of this length.
            unsafe { copy(source.pointer(), twin.pointer(), target.pointer(), case.len) };
            prop_assert!(twin == new_twin && target == new_target);

            new_target.bytes().fill(0);
            // SAFETY: as above.
            unsafe { clear(target.pointer(), case.len) };
            prop_assert!(target == new_target);
        }
    }

    #[test]
    fn leaves_alone_what_the_other_side_wrote() {
        let twin = [0u8; 8];
        let source = [1, 0, 0, 2, 0, 0, 0, 3];
        let mut target = [0, 9, 9, 0, 9, 9, 9, 0];
        // SAFETY: three arrays of eight bytes.
        unsafe { propagate(source.as_ptr(), twin.clone().as_mut_ptr(), target.as_mut_ptr(), 8) };
        assert_eq!(target, [1, 9, 9, 2, 9, 9, 9, 3]);
    }

    #[test]
    fn only_the_lines_around_what_changed_are_moved() {
        let mut source = vec![0u8; 2 * BLOCK + 300];
        for at in [0, 255, 1000, BLOCK - 1, BLOCK, 2 * BLOCK + 299] {
            source[at] = 1;
        }
        let (mut twin, mut target) = (vec![0u8; source.len()], vec![0u8; source.len()]);
        let (before, after) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        // SAFETY: three vectors of this length.
        let changed = unsafe {
            propagate_by_grains(
                source.as_ptr(),
                twin.as_mut_ptr(),
                target.as_mut_ptr(),
                source.len(),
                |range| before.borrow_mut().push(range),
                |range| after.borrow_mut().push(range),
            )
        };
        assert_eq!((changed, &twin, &target), (6, &source, &source));
        let end = 2 * BLOCK;
        let moved = [0..256, 768..1024, BLOCK - 256..BLOCK, BLOCK..BLOCK + 256, end + 256..end + 300];
        assert_eq!(before.into_inner(), moved);
        assert_eq!(after.into_inner(), moved);
    }

    /// Runs `sync` on a page, again and again, while another thread stores to it. What `sync` brought to the target
    /// must be what it brought to the twin.
    fn race(sync: unsafe fn(*const u8, *mut u8, *mut u8, usize)) {
        const LEN: usize = 4096;
        let source: Vec<AtomicU64> = (0..LEN / 8).map(|_| AtomicU64::new(0)).collect();
        let (mut twin, mut target) = (vec![0u8; LEN], vec![0u8; LEN]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1.. {
                    source.iter().for_each(|word| word.store(round, Ordering::Relaxed));
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mut torn = 0;
            for _ in 0..100_000 {
                // SAFETY: three buffers of this length, of which only the source is written by others.
                unsafe { sync(source.as_ptr().cast(), twin.as_mut_ptr(), target.as_mut_ptr(), LEN) };
                torn += usize::from(twin != target);
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(torn, 0);
        });
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "a data race by the language's rules, which know of no memory that devices write"
    )]
    fn target_and_twin_agree_while_others_write_the_source() {
        race(|source, twin, target, len| {
            // SAFETY: what `race` promises.
            unsafe { propagate(source, twin, target, len) };
        });
        race(|source, twin, target, len| {
            // SAFETY: what `race` promises.
            unsafe { copy(source, twin, target, len) };
        });
        race(|source, twin, target, len| {
            let mut runs = Vec::new();
            // SAFETY: what `race` promises.
            unsafe { update(source, twin, len, |run| runs.push(run)) };
            for run in runs {
                // SAFETY: as above: twin and target are nobody else's, and the run is within them.
                unsafe { ptr::copy_nonoverlapping(twin.add(run.start), target.add(run.start), run.len()) };
            }
        });
    }
}
