//! Byte-exact differences between two copies of memory, taken against a twin.
//!
//! Host and device may write different bytes of one page, even of one word, at the same time. So only bytes
//! that differ from the twin are ever stored: to copy an unchanged neighbour along would undo what the other
//! side wrote there in the meantime.

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
    let mut snapshot = [0u8; BLOCK];
    let mut changed = 0;
    let mut at = 0;
    while at < len {
        let n = BLOCK.min(len - at);
        let snapshot = &mut snapshot[..n];
        // SAFETY: `at + n <= len`; `snapshot` is ours and as long.
        unsafe { ptr::copy_nonoverlapping(source.add(at), snapshot.as_mut_ptr(), n) };
        source_may_change();
        // SAFETY: `at + n <= len`, and the twin is ours alone.
        let twin = unsafe { slice::from_raw_parts_mut(twin.add(at), n) };
        changed += for_each_difference(snapshot, twin, |start, bytes| {
            // SAFETY: `start + bytes.len() <= n`, so inside `target`.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target.add(at + start), bytes.len()) };
        });
        at += n;
    }
    changed
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

/// Calls `store` with each maximal run of bytes in which `new` differs from `old`, and copies it to `old`.
fn for_each_difference(new: &[u8], old: &mut [u8], mut store: impl FnMut(usize, &[u8])) -> usize {
    if new == old {
        return 0;
    }
    let mut changed = 0;
    let mut at = 0;
    loop {
        let start = first(new, old, at, difference);
        if start == new.len() {
            return changed;
        }
        let end = first(new, old, start, equality);
        let run = &new[start..end];
        store(start, run);
        old[start..end].copy_from_slice(run);
        changed += run.len();
        at = end;
    }
}

/// Index of the first byte from `at` on that `marks` singles out, or the length. `marks` sets the top bit, at
/// least, of the lowest such byte of a word, and nothing below it.
fn first(new: &[u8], old: &[u8], mut at: usize, marks: fn(u64) -> u64) -> usize {
    while let (Some(a), Some(b)) = (new[at..].first_chunk(), old[at..].first_chunk()) {
        match marks(u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)) {
            0 => at += 8,
            marked => return at + marked.trailing_zeros() as usize / 8,
        }
    }
    while at < new.len() && marks(u64::from(new[at] ^ old[at])) & 0xFF == 0 {
        at += 1;
    }
    at
}

/// Marks the bytes of an exclusive or that differ: those that are not zero.
fn difference(xor: u64) -> u64 {
    xor
}

/// Marks the bytes of an exclusive or that are equal: those that are zero. Exact up to the lowest one, which is
/// the only one that counts (the borrow of a marked byte may mark the next).
fn equality(xor: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    xor.wrapping_sub(ONES) & !xor & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// A small generator (xorshift), so that a failure repeats.
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

    #[test]
    fn agrees_with_the_definition_at_every_length_alignment_and_density() {
        let lengths = (0..40).chain([4095, 4096, 4097, 3 * 4096 + 5]);
        for (seed, len) in (1..).zip(lengths) {
            for one_in in [1, 2, 9, 200] {
                let source = noise(seed, len, one_in);
                let twin = noise(seed + 7, len, one_in + 1);
                let target = noise(seed + 13, len, 3);
                let (mut twin_a, mut target_a) = (twin.clone(), target.clone());
                let (mut twin_b, mut target_b) = (twin, target);
                let expected = by_bytes(&source, &mut twin_a, &mut target_a);
                // SAFETY: three vectors of this length.
                let changed =
                    unsafe { propagate(source.as_ptr(), twin_b.as_mut_ptr(), target_b.as_mut_ptr(), len) };
                assert_eq!((changed, &twin_b, &target_b), (expected, &twin_a, &target_a));
            }
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
    fn target_and_twin_agree_while_others_write_the_source() {
        race(|source, twin, target, len| {
            // SAFETY: what `race` promises.
            unsafe { propagate(source, twin, target, len) };
        });
        race(|source, twin, target, len| {
            // SAFETY: what `race` promises.
            unsafe { copy(source, twin, target, len) };
        });
    }
}
