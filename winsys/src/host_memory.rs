//! Host memory: the pages the application maps.
//!
//! An [`Arena`] cuts allocations out of large, sparse chunks, so that an allocation costs neither a file
//! descriptor nor a mapping (the kernel's default limits are 65530 mappings and often 1024 descriptors; an
//! application may well map ten thousand allocations). A chunk is three mappings of the same shape:
//!
//! - the *view*, handed to the application and watched by the tracker;
//! - the *alias*, the same pages mapped a second time and never watched, so that a readback does not look
//!   like an application's write;
//! - the *twin*, private memory for the bytes as of the last sync. Pages never written read as zeros and
//!   occupy nothing.

use crate::page_size;
use crate::sync::LockExt;
use crate::tracker::{Span, Tracker};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::Resource;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::{Arc, Mutex};

/// Address space asked for per chunk and mapping. Sparse: it costs nothing until it is used.
const CHUNK: usize = 64 << 30;

/// Allocator of host memory. May be used from any thread.
pub struct Arena {
    tracker: Arc<dyn Tracker>,
    chunks: Mutex<Vec<Arc<Chunk>>>,
}

impl Arena {
    /// An arena whose views `tracker` can watch.
    pub fn new(tracker: Arc<dyn Tracker>) -> Self {
        Self { tracker, chunks: Mutex::new(Vec::new()) }
    }

    /// The tracker that watches this arena's views.
    pub fn tracker(&self) -> &Arc<dyn Tracker> {
        &self.tracker
    }

    /// Allocates at least `size` bytes, rounded up to whole pages. View and twin read as zeros.
    ///
    /// # Errors
    /// `OutOfMemory` when neither the chunks nor the address space have room; otherwise the kernel's refusal.
    pub fn allocate(&self, size: usize) -> io::Result<HostMemory> {
        let len = size.max(1).checked_next_multiple_of(page_size()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut chunks = self.chunks.hold();
        for chunk in chunks.iter() {
            if let Some(offset) = chunk.take(len) {
                return Ok(HostMemory { chunk: chunk.clone(), offset, len });
            }
        }
        let chunk = Arc::new(Chunk::new(len, &*self.tracker)?);
        chunks.push(chunk.clone());
        let offset = chunk.take(len).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(HostMemory { chunk, offset, len })
    }
}

/// One allocation's pages. Freed, and zeroed, when dropped.
pub struct HostMemory {
    chunk: Arc<Chunk>,
    offset: usize,
    len: usize,
}

impl HostMemory {
    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the application reads and writes.
    pub fn view(&self) -> *mut u8 {
        self.chunk.view.at(self.offset)
    }

    /// The same bytes, for Tidemark.
    pub fn alias(&self) -> *mut u8 {
        self.chunk.alias.at(self.offset)
    }

    /// As many bytes again, for their value as of the last sync.
    pub fn twin(&self) -> *mut u8 {
        self.chunk.twin.at(self.offset)
    }

    /// The view's addresses, for the tracker.
    pub fn span(&self) -> Span {
        let start = self.view() as usize;
        start..start + self.len
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.chunk.give_back(self.offset, self.len);
    }
}

/// Three mappings of one shape, and which parts of them are free.
struct Chunk {
    memfd: OwnedFd,
    view: Mapping,
    alias: Mapping,
    twin: Mapping,
    /// Free ranges: offset to length, never adjacent.
    free: Mutex<BTreeMap<usize, usize>>,
}

impl Chunk {
    /// A chunk with room for `least` bytes: as large as the process's limits allow, up to [`CHUNK`].
    fn new(least: usize, tracker: &dyn Tracker) -> io::Result<Self> {
        let mut len = CHUNK.max(least).min(file_size_limit().max(least));
        loop {
            match Self::with_len(len, tracker) {
                // Address space, overcommit or file size limits: try with less.
                Err(error) if len > least && is_shortage(&error) => len = (len / 2).max(least),
                outcome => return outcome,
            }
        }
    }

    fn with_len(len: usize, tracker: &dyn Tracker) -> io::Result<Self> {
        let len = len.next_multiple_of(page_size());
        let memfd = sealed_memfd(len)?;
        let view = Mapping::shared(&memfd, len)?;
        let alias = Mapping::shared(&memfd, len)?;
        let twin = Mapping::private(len)?;
        tracker.attach(view.at(0) as usize..view.at(0) as usize + len)?;
        Ok(Self { memfd, view, alias, twin, free: Mutex::new(BTreeMap::from([(0, len)])) })
    }

    fn take(&self, len: usize) -> Option<usize> {
        let mut free = self.free.hold();
        let (offset, room) = free.iter().map(|(&o, &l)| (o, l)).find(|&(_, room)| room >= len)?;
        free.remove(&offset);
        if room > len {
            free.insert(offset + len, room - len);
        }
        Some(offset)
    }

    fn give_back(&self, offset: usize, len: usize) {
        // Pages go back to the kernel before anyone else can take the range.
        let punched = rustix::fs::fallocate(
            &self.memfd,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset as u64,
            len as u64,
        );
        // SAFETY: the range was handed out by `take` and its owner is being dropped: nobody reads it, and
        // the next owner expects zeros.
        let dropped = unsafe { rustix::mm::madvise(self.twin.at(offset).cast(), len, Advice::LinuxDontNeed) };
        if let Err(error) = punched.and(dropped) {
            // Without zeros the range must not be handed out again. It leaks address space and pages.
            log::error!("cannot return {len} bytes of host memory to the kernel: {error}");
            return;
        }
        let mut free = self.free.hold();
        let (mut start, mut end) = (offset, offset + len);
        if let Some((&before, &room)) = free.range(..offset).next_back()
            && before + room == start
        {
            free.remove(&before);
            start = before;
        }
        if let Some(room) = free.remove(&end) {
            end += room;
        }
        free.insert(start, end - start);
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN | libc::EFBIG | libc::EINVAL))
}

/// A file beyond this would raise SIGXFSZ, which is the application's to receive, not ours to cause.
fn file_size_limit() -> usize {
    let limit = rustix::process::getrlimit(Resource::Fsize).current;
    limit.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX) / page_size() * page_size()
}

/// A memfd that can neither shrink nor grow: a tracker would not see that.
fn sealed_memfd(len: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let name = "tidemark-host-memory";
    // NOEXEC_SEAL came with Linux 6.3.
    let memfd = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    rustix::fs::ftruncate(&memfd, len as u64)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd)
}

/// A mapping that is unmapped when dropped.
struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: an address range; what is done with the memory behind it is argued where it is done.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn shared(memfd: &OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                memfd,
                0,
            )
        }?;
        Ok(Self { base: base.cast(), len })
    }

    fn private(len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Ok(Self { base: base.cast(), len })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        self.base.wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the chunk that holds it is dropped only after every allocation in it.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.len) } {
            log::error!("cannot unmap host memory: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::Compare;

    fn arena() -> Arena {
        Arena::new(Arc::new(Compare))
    }

    #[test]
    fn view_and_alias_are_the_same_bytes_and_the_twin_is_not() {
        let arena = arena();
        let memory = arena.allocate(10).unwrap();
        assert_eq!(memory.len(), page_size());
        // SAFETY: inside the live allocation, used by this thread alone.
        unsafe {
            memory.view().add(9).write_volatile(7);
            assert_eq!(memory.alias().add(9).read_volatile(), 7);
            assert_eq!(memory.twin().add(9).read_volatile(), 0);
        }
    }

    #[test]
    fn a_freed_range_is_reused_and_reads_as_zeros() {
        let arena = arena();
        let first = arena.allocate(3 * page_size()).unwrap();
        let second = arena.allocate(page_size()).unwrap();
        let address = first.view();
        // SAFETY: inside the live allocation, used by this thread alone.
        unsafe {
            address.write_volatile(1);
            first.twin().write_volatile(1);
        }
        drop(first);
        let third = arena.allocate(2 * page_size()).unwrap();
        assert_eq!(third.view(), address);
        // SAFETY: as above.
        unsafe {
            assert_eq!(third.view().read_volatile(), 0);
            assert_eq!(third.twin().read_volatile(), 0);
        }
        drop((second, third));
        let free = arena.chunks.hold()[0].free.hold().clone();
        assert_eq!(free.len(), 1, "adjacent free ranges were not joined: {free:?}");
    }

    #[test]
    fn the_file_is_sealed_against_truncation() {
        let arena = arena();
        let memory = arena.allocate(1).unwrap();
        assert!(rustix::fs::ftruncate(&memory.chunk.memfd, 0).is_err());
    }
}
