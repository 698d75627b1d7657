//! A mirror's device memory, in either of its forms: *mapped*, where the CPU stores byte by byte, or *copied*, where
//! somebody else moves what it is told to.

use super::host::{Host, Places};
use crate::diff;
use std::ops::Range;

/// Device memory as the CPU reaches it. It is used under the mirror's lock, and where readback is lazy by a thread of its
/// own, while a thread of the application waits, wherever that touched a page: so what is done here must not wait for
/// anybody who reads an application's memory.
///
/// # Safety
/// `address` must be valid for reads and writes of `len` bytes as long as this value lives, or until the mirror that
/// owns it is [retired](crate::Mirror::retire). The device, and whoever shares its memory, may access them at any time.
/// It may become another of the same memory only while the mirror is [paused](crate::Mirror::paused).
pub unsafe trait DeviceMemory: Send + Sync {
    /// The first byte.
    fn address(&self) -> *mut u8;

    /// Bytes.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is nothing to do for what follows.
    fn is_coherent(&self) -> bool {
        true
    }

    /// Makes what the device wrote to `range` (bytes) visible to the CPU. Nothing to do where the mapping is coherent.
    fn invalidate(&self, range: Range<usize>) {
        let _ = range;
    }

    /// Makes what the CPU wrote to `range` (bytes) visible to the device. Nothing to do where the mapping is coherent.
    fn flush(&self, range: Range<usize>) {
        let _ = range;
    }
}

/// Device memory that the CPU does not reach: bytes are handed over, and copied there or from there in the order of the
/// calls. All of it under the mirror's lock, and never from a page fault: a mirror of such memory reads back eagerly, so
/// what is done here may wait for the device.
///
/// Copies may still be under way when a call returns. Whoever wants the device to see them has the implementation see to
/// that: it is his to tell when they must have been made.
pub trait CopiedMemory: Send + Sync {
    /// Bytes.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has `ranges` (bytes, ascending) of the device memory become what they are at `source`, and leaves every other byte
    /// alone: the device may be writing those beside. `source` is where the memory's first byte would be. Each byte is
    /// read once, before this returns.
    ///
    /// # Safety
    /// `source` must be valid for reads of `ranges`. Others may write there meanwhile.
    unsafe fn store(&self, ranges: &[Range<usize>], source: *const u8);

    /// Makes `range` (bytes) of the device memory zero, while the device does not use it.
    fn clear(&self, range: Range<usize>);

    /// Shows `take` what `ranges` (bytes, ascending) of the device memory hold, part by part, each with where it begins:
    /// at least what the device had made visible before the call, and all that was stored. Shows nothing where that
    /// cannot be had.
    fn load(&self, ranges: &[Range<usize>], take: &mut dyn FnMut(usize, &[u8]));

    /// Ends all access to the device memory, and waits for what is under way. Nothing else is called afterwards.
    fn retire(&self);
}

/// The device memory of a mirror.
pub enum Device {
    /// The CPU reaches it.
    Mapped(Box<dyn DeviceMemory>),
    /// Somebody else copies.
    Copied(Box<dyn CopiedMemory>),
}

/// All of it under the lock of the mirror's state, so that the twin is the caller's alone; and within the memory's length.
impl Device {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Mapped(memory) => memory.len(),
            Self::Copied(memory) => memory.len(),
        }
    }

    /// Brings bytes that the device does not write up to date with the host's, whatever they are.
    pub(super) fn overwrite(&self, host: Places, bytes: Range<usize>) {
        match self {
            Self::Mapped(memory) => {
                let (alias, _, device) = places(host, &**memory, bytes.start);
                // SAFETY: `bytes` is within both. The device does not write these pages, so no byte of its is undone.
                unsafe { diff::overwrite(alias, device, bytes.len()) };
                memory.flush(bytes);
            }
            // SAFETY: the host's bytes are there.
            Self::Copied(memory) => unsafe { memory.store(&[bytes], host.alias) },
        }
    }

    /// Brings what the host wrote, as the twin tells, to the device and the twin, and no other byte. Returns how many that
    /// were. `runs` is for its capacity.
    pub(super) fn propagate(&self, host: Places, bytes: Range<usize>, runs: &mut Vec<Range<usize>>) -> usize {
        match self {
            Self::Mapped(memory) => {
                let (alias, twin, device) = places(host, &**memory, bytes.start);
                if memory.is_coherent() {
                    // SAFETY: `bytes` is within all three, and the twin ours alone.
                    return unsafe { diff::propagate(alias, twin, device, bytes.len()) };
                }
                // What goes out are whole lines: around what changed they must hold what the device wrote.
                let within = |part: Range<usize>| bytes.start + part.start..bytes.start + part.end;
                let before = |part| memory.invalidate(within(part));
                let after = |part| memory.flush(within(part));
                // SAFETY: as above.
                unsafe { diff::propagate_by_grains(alias, twin, device, bytes.len(), before, after) }
            }
            Self::Copied(memory) => {
                let (alias, twin) =
                    (host.alias.wrapping_add(bytes.start), host.twin.wrapping_add(bytes.start));
                runs.clear();
                // SAFETY: `bytes` is within both, and the twin ours alone.
                let changed = unsafe {
                    diff::update(alias, twin, bytes.len(), |run| {
                        runs.push(bytes.start + run.start..bytes.start + run.end);
                    })
                };
                if changed > 0 {
                    // From the twin, so that the two agree even if the host goes on writing.
                    // SAFETY: the twin is as long.
                    unsafe { memory.store(runs, host.twin) };
                }
                changed
            }
        }
    }

    /// Makes host view, twin and device agree on bytes that the device does not write yet.
    pub(super) fn agree(&self, host: Places, bytes: Range<usize>) {
        match self {
            Self::Mapped(memory) => {
                let (alias, twin, device) = places(host, &**memory, bytes.start);
                // SAFETY: `bytes` is within all three, and the twin ours alone.
                unsafe { diff::copy(alias, twin, device, bytes.len()) };
                memory.flush(bytes);
            }
            Self::Copied(memory) => {
                let (alias, twin) =
                    (host.alias.wrapping_add(bytes.start), host.twin.wrapping_add(bytes.start));
                // SAFETY: as above. The device gets what the twin got, even if the host goes on writing.
                unsafe {
                    diff::overwrite(alias, twin, bytes.len());
                    memory.store(&[bytes], host.twin);
                }
            }
        }
    }

    /// Makes bytes that the device does not write yet zero, as view and twin are.
    pub(super) fn clear(&self, bytes: Range<usize>) {
        match self {
            Self::Mapped(memory) => {
                // SAFETY: `bytes` is within it, and the device does not write it.
                unsafe { diff::clear(memory.address().wrapping_add(bytes.start), bytes.len()) };
                memory.flush(bytes);
            }
            Self::Copied(memory) => memory.clear(bytes),
        }
    }

    /// Brings what the device wrote, as the twin tells, to the host view and the twin, and no other byte. Returns how many
    /// that were.
    pub(super) fn fetch(&self, host: &Host, ranges: impl Iterator<Item = Range<usize>>) -> usize {
        let mut changed = 0;
        match self {
            Self::Mapped(memory) => {
                for bytes in ranges {
                    memory.invalidate(bytes.clone());
                    let device = memory.address().wrapping_add(bytes.start);
                    // SAFETY: `bytes` is within it.
                    changed += unsafe { host.take(bytes.start, device, bytes.len()) };
                }
            }
            Self::Copied(memory) => {
                let ranges: Vec<Range<usize>> = ranges.collect();
                if !ranges.is_empty() {
                    memory.load(&ranges, &mut |start, bytes| {
                        // SAFETY: a live slice.
                        changed += unsafe { host.take(start, bytes.as_ptr(), bytes.len()) };
                    });
                }
            }
        }
        changed
    }

    pub(super) fn retire(&self) {
        match self {
            Self::Mapped(_) => {}
            Self::Copied(memory) => memory.retire(),
        }
    }
}

/// The byte `at` in the alias, the twin and the device memory.
fn places(host: Places, device: &dyn DeviceMemory, at: usize) -> (*const u8, *mut u8, *mut u8) {
    (host.alias.wrapping_add(at), host.twin.wrapping_add(at), device.address().wrapping_add(at))
}
