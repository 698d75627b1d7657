//! Mappings of host memory.

use crate::kernel::mappings::{self, Mappings};
use crate::page_size;
use crate::sync::LockExt;
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::Mutex;

/// A mapping that is unmapped when dropped.
pub(crate) struct Mapping {
    pub(crate) base: *mut u8,
    pub(crate) len: usize,
}

// SAFETY: an address range; what is done with the memory behind it is argued where it is done.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Anonymous memory, `SHARED` or `PRIVATE`.
    pub(crate) fn new(len: usize, sharing: MapFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                sharing | MapFlags::NORESERVE,
            )
        }?;
        Ok(Self { base: base.cast(), len }.without_dump())
    }

    /// Bytes of a file, shared.
    pub(crate) fn of_file(file: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address the kernel chooses.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, file, offset) }?;
        Ok(Self { base: base.cast(), len }.without_dump())
    }

    /// The same pages of shared memory, at another address.
    pub(crate) fn again(&self) -> io::Result<Self> {
        // SAFETY: an old size of zero leaves the old mapping of shared memory as it is, and maps its pages once more
        // at an address the kernel chooses.
        let base = unsafe { rustix::mm::mremap(self.base.cast(), 0, self.len, MremapFlags::MAYMOVE) }?;
        Ok(Self { base: base.cast(), len: self.len }.without_dump())
    }

    /// Leaves the memory out of core dumps, as drivers do with theirs. The kernel would fill every hole in a shared
    /// mapping to dump it: all of a chunk.
    fn without_dump(self) -> Self {
        // SAFETY: our own mapping, whose contents and accessibility stay as they are.
        if let Err(error) = unsafe { rustix::mm::madvise(self.base.cast(), self.len, Advice::LinuxDontDump) }
        {
            log::debug!("core dumps will have {} bytes of host memory: {error}", self.len);
        }
        self
    }

    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        self.base.wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever holds it is dropped only after all that use it.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.len) } {
            log::error!("cannot unmap host memory: {error}");
        }
    }
}

/// A mapping's pages are known as host memory, as long as this lives.
pub(crate) struct Ours(usize);

/// Where mappings of all host memory of the process start.
static OURS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

impl Ours {
    /// Those of `mapping`, which lives at least as long.
    pub(crate) fn new(mapping: &Mapping) -> Self {
        let start = mapping.at(0) as usize;
        OURS.hold().insert(start);
        Self(start)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.hold().remove(&self.0);
    }
}

/// Whether a mapping is of the pages of any host memory, wherever it is.
pub(crate) fn owns(mappings: &Mappings, mapping: &mappings::Mapping) -> bool {
    let Some(place) = &mapping.file else { return false };
    let ours = OURS.hold();
    let mut known = ours.iter().filter_map(|&start| mappings.within(&(start..start + page_size())).ok());
    known.any(|known| known.iter().any(|one| one.file.as_ref().is_some_and(|own| own.file == place.file)))
}
