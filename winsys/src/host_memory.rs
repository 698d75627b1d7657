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
//!
//! View and alias are shared anonymous memory, which `mremap(2)` maps a second time when told that its old size is
//! zero. A memfd mapped twice would do too, but it is a file: making it as long as a chunk counts against
//! `RLIMIT_FSIZE` (beyond which the process gets SIGXFSZ, and ends), it costs a descriptor, and whoever has that
//! (a debugger, a child) can truncate it unless it is sealed. Nobody can truncate memory that has no descriptor.
//!
//! Where a kernel driver keeps Tidemark's own contract, an allocation is an object of its [instead](crate::drm): again a
//! view, an alias and a twin.
//!
//! A forked child has the chunks too: their shared pages are its parent's as well, its book-keeping a copy of its
//! own. So it may use what was allocated before the fork, but takes nothing out of those chunks and gives nothing
//! back to them.

use crate::Span;
use crate::drm::{self, Object, Objects};
use crate::kernel;
use crate::mapping::{Mapping, Ours};
use crate::page_size;
use crate::readback_policy::Readback;
use crate::sync::LockExt;
use crate::tracker::{self, Choice, Tracker};
use rustix::mm::{Advice, MapFlags, MremapFlags};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex};

/// Address space asked for per chunk and mapping. Sparse: it costs nothing until it is used.
const CHUNK: usize = 64 << 30;

/// The same where that much is not to be had: the application needs the rest of its address space itself.
const SMALL_CHUNK: usize = 256 << 20;

/// Allocator of host memory. May be used from any thread.
pub struct Arena {
    /// Of all memory that is not an object.
    tracker: Arc<dyn Tracker>,
    objects: Option<Objects>,
    readback: Readback,
    chunks: Mutex<Vec<Arc<Chunk>>>,
}

impl Arena {
    /// An arena whose views `tracker` can watch.
    pub fn new(tracker: Arc<dyn Tracker>) -> Self {
        Self { tracker, objects: None, readback: Readback::Eager, chunks: Mutex::new(Vec::new()) }
    }

    /// The arena for what was asked: of the best that works here, as the log says.
    pub fn select(choice: Choice) -> Self {
        let objects = drm::select(choice);
        let arena = Self::new(tracker::select(choice));
        Self { objects, ..arena }
    }

    /// The same, whose allocations are objects of the kernel driver, as long as there are any to be had.
    pub fn of_objects(self, objects: Objects) -> Self {
        Self { objects: Some(objects), ..self }
    }

    /// The same, whose mirrors read back as `readback` says: eagerly, if the tracker has no other way.
    pub fn reading_back(self, readback: Readback) -> Self {
        if readback == Readback::Lazy
            && let Some(objects) = &self.objects
        {
            log::warn!(
                "memory of {} is read back eagerly: pages of a kernel driver's mappings cannot be held back. \
                 TIDEMARK_TRACKER=write-protect, where the stock kernel tracks, has lazy readback",
                objects.path().display()
            );
        } else if readback == Readback::Lazy && self.tracker.pager().is_none() {
            log::warn!(
                "lazy readback needs write-protect tracking and a process that may have the kernel's own page faults \
                 delivered: reading back eagerly instead (slower where little is read, still right). Let it open \
                 /dev/userfaultfd, give it CAP_SYS_PTRACE, or set vm.unprivileged_userfaultfd to 1; `tidemark doctor` \
                 tells what it has"
            );
        }
        Self { readback, ..self }
    }

    /// How mirrors read back.
    pub(crate) fn readback(&self) -> Readback {
        self.readback
    }

    /// The tracker for memory of others, and for this arena's own where that is not of a kernel driver.
    pub fn tracker(&self) -> &Arc<dyn Tracker> {
        &self.tracker
    }

    /// How this arena's memory is tracked, for the log and the profile.
    pub fn tracking(&self) -> &'static str {
        self.objects.as_ref().map_or(self.tracker.name(), Objects::name)
    }

    /// Allocates at least `size` bytes, rounded up to whole pages. View and twin read as zeros.
    ///
    /// # Errors
    /// `OutOfMemory` when neither the chunks nor the address space have room; otherwise the kernel's refusal.
    pub fn allocate(&self, size: usize) -> io::Result<HostMemory> {
        let len = whole_pages(size)?;
        match self.objects.as_ref().and_then(|objects| objects.allocate(len)) {
            Some(object) => Ok(HostMemory { tracker: object.clone(), pages: Pages::Object(object), len }),
            None => self.allocate_shared(len),
        }
    }

    /// The same, of shared memory in any case.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn allocate_shared(&self, size: usize) -> io::Result<HostMemory> {
        let len = whole_pages(size)?;
        let (chunk, offset) = self.take(len)?;
        Ok(HostMemory { tracker: self.tracker.clone(), pages: Pages::Chunk(chunk, offset), len })
    }

    /// Some of a chunk, and where in there.
    fn take(&self, len: usize) -> io::Result<(Arc<Chunk>, usize)> {
        let mut chunks = self.chunks.hold();
        let here = kernel::address_space();
        for chunk in chunks.iter().filter(|chunk| chunk.home == here) {
            if let Some(offset) = chunk.take(len) {
                return Ok((chunk.clone(), offset));
            }
        }
        let chunk = Arc::new(Chunk::new(len, &*self.tracker)?);
        chunks.push(chunk.clone());
        let offset = chunk.take(len).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((chunk, offset))
    }
}

fn whole_pages(size: usize) -> io::Result<usize> {
    size.max(1).checked_next_multiple_of(page_size()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// One allocation's pages. Freed, and zeroed, when dropped.
pub struct HostMemory {
    tracker: Arc<dyn Tracker>,
    pages: Pages,
    len: usize,
}

/// What the pages are part of.
enum Pages {
    /// A chunk, from this byte of it on.
    Chunk(Arc<Chunk>, usize),
    /// An object of a kernel driver's, which they are all of.
    Object(Arc<Object>),
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
        match &self.pages {
            Pages::Chunk(chunk, offset) => chunk.view.at(*offset),
            Pages::Object(object) => object.view(),
        }
    }

    /// The same bytes, for Tidemark.
    pub fn alias(&self) -> *mut u8 {
        match &self.pages {
            Pages::Chunk(chunk, offset) => chunk.alias.at(*offset),
            Pages::Object(object) => object.alias(),
        }
    }

    /// As many bytes again, for their value as of the last sync.
    pub fn twin(&self) -> *mut u8 {
        match &self.pages {
            Pages::Chunk(chunk, offset) => chunk.twin.at(*offset),
            Pages::Object(object) => object.twin(),
        }
    }

    /// The view's addresses, for the tracker.
    pub fn span(&self) -> Span {
        let start = self.view() as usize;
        start..start + self.len
    }

    /// What watches the view.
    pub fn tracker(&self) -> &Arc<dyn Tracker> {
        &self.tracker
    }

    /// Maps a part (bytes, whole pages) of the view once more, instead of what is at `address`.
    ///
    /// # Errors
    /// The kernel's refusal: what was there may be gone.
    ///
    /// # Safety
    /// The addresses must be the caller's to give away.
    pub(crate) unsafe fn map_at(&self, address: *mut u8, part: Range<usize>) -> io::Result<()> {
        let (alias, flags) = (self.alias().wrapping_add(part.start), MremapFlags::MAYMOVE);
        match &self.pages {
            // SAFETY: an old size of zero leaves the mapping of shared memory as it is, and maps its pages once more, where
            // the caller has given the addresses away.
            Pages::Chunk(..) => unsafe {
                rustix::mm::mremap_fixed(alias.cast(), 0, part.len(), flags, address.cast())?;
                Ok(())
            },
            // SAFETY: the caller's promise.
            Pages::Object(object) => unsafe { object.map_at(address, part) },
        }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        match &self.pages {
            Pages::Chunk(chunk, offset) => chunk.give_back(*offset, self.len),
            // Mappings and handle go with it.
            Pages::Object(_) => {}
        }
    }
}

/// Three mappings of one shape, and which parts of them are free.
struct Chunk {
    /// The address space it was made in.
    home: u32,
    _ours: Ours,
    view: Mapping,
    alias: Mapping,
    twin: Mapping,
    /// Free ranges: offset to length, never adjacent.
    free: Mutex<BTreeMap<usize, usize>>,
}

impl Chunk {
    /// A chunk with room for `least` bytes: [`CHUNK`] if the process may have that much, else [`SMALL_CHUNK`], else
    /// no more than asked for. No sizes in between: the largest that fits would leave the application nothing.
    fn new(least: usize, tracker: &dyn Tracker) -> io::Result<Self> {
        let mut outcome = Self::with_len(CHUNK.max(least), tracker);
        for len in [SMALL_CHUNK.max(least), least] {
            match &outcome {
                Err(error) if is_shortage(error) => outcome = Self::with_len(len, tracker),
                _ => break,
            }
        }
        outcome
    }

    fn with_len(len: usize, tracker: &dyn Tracker) -> io::Result<Self> {
        let alias = Mapping::new(len, MapFlags::SHARED)?;
        let view = alias.again()?;
        let twin = Mapping::new(len, MapFlags::PRIVATE)?;
        if let Err(error) = tracker.attach(view.at(0) as usize..view.at(0) as usize + len) {
            // Not a reason to go without memory: `arm` fails on it, and what cannot be armed counts as written.
            log::warn!("host memory cannot be tracked by {}: {error}", tracker.name());
        }
        let free = Mutex::new(BTreeMap::from([(0, len)]));
        let ours = Ours::new(&alias);
        Ok(Self { home: kernel::address_space(), _ours: ours, view, alias, twin, free })
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
        if self.home != kernel::address_space() {
            // The shared pages are another process's, which may be using them.
            return;
        }
        // Pages go back to the kernel before anyone else can take the range. Punching a hole into one of the shared
        // mappings empties both.
        for (mapping, advice) in [(&self.alias, Advice::LinuxRemove), (&self.twin, Advice::LinuxDontNeed)] {
            // SAFETY: the range was handed out by `take` and its owner is being dropped: nobody reads it, and
            // the next owner expects zeros.
            unsafe {
                if rustix::mm::madvise(mapping.at(offset).cast(), len, advice).is_err() {
                    // An application that uses mlockall(2) keeps its pages, and so do we.
                    ptr::write_bytes(mapping.at(offset), 0, len);
                }
            }
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

/// Whether less address space might do: that of the process, what the kernel commits itself to, or what may be
/// locked are used up.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::{Compare, WriteProtect};
    use std::process::{Command, Stdio};

    fn arena() -> Arena {
        Arena::new(Arc::new(Compare))
    }

    fn chunk_of(memory: &HostMemory) -> &Chunk {
        match &memory.pages {
            Pages::Chunk(chunk, _) => chunk,
            Pages::Object(_) => panic!("not of a chunk"),
        }
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
    fn a_freed_range_reads_as_zeros_even_if_its_pages_are_locked() {
        let arena = arena();
        let memory = arena.allocate(page_size()).unwrap();
        let address = memory.view();
        for at in [memory.alias(), memory.twin()] {
            // SAFETY: inside the live allocation, used by this thread alone.
            unsafe {
                at.write_volatile(1);
                rustix::mm::mlock(at.cast(), page_size()).unwrap();
            }
        }
        drop(memory);
        let memory = arena.allocate(page_size()).unwrap();
        assert_eq!(memory.view(), address);
        // SAFETY: as above.
        assert_eq!(unsafe { [memory.view().read_volatile(), memory.twin().read_volatile()] }, [0, 0]);
    }

    /// Runs `test` of this module in a process of its own, under the shell's `limits`. True in that process.
    fn is_limited(test: &str, limits: &str) -> bool {
        const MARK: &str = "TIDEMARK_TEST_IS_LIMITED";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("{limits}; exec \"$0\" --exact host_memory::tests::{test}"))
            .arg(std::env::current_exe().unwrap())
            .env(MARK, "")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        false
    }

    #[test]
    fn a_limit_on_file_sizes_does_not_matter() {
        if is_limited("a_limit_on_file_sizes_does_not_matter", "ulimit -f 1") {
            let arena = Arena::new(Arc::new(WriteProtect::new().unwrap()));
            let memory = arena.allocate(64 << 20).unwrap();
            // SAFETY: inside the live allocation, used by this thread alone.
            unsafe { memory.view().add(memory.len() - 1).write_volatile(1) };
        }
    }

    #[test]
    fn little_address_space_is_left_to_the_application() {
        if is_limited("little_address_space_is_left_to_the_application", "ulimit -v 4000000") {
            let arena = arena();
            let memory = arena.allocate(1).unwrap();
            assert_eq!(chunk_of(&memory).view.len, SMALL_CHUNK);
            let large = arena.allocate(700 << 20).unwrap();
            assert_eq!(chunk_of(&large).view.len, 700 << 20);
            let error = arena.allocate(1 << 40).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        }
    }

    /// Refuses every mapping.
    struct Refusing(WriteProtect);

    impl Tracker for Refusing {
        fn name(&self) -> &'static str {
            "refusing"
        }

        fn attach(&self, _: Span) -> io::Result<()> {
            Err(io::ErrorKind::InvalidInput.into())
        }

        fn arm(&self, span: Span) -> io::Result<()> {
            self.0.arm(span)
        }

        fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
            self.0.collect(span, written)
        }
    }

    #[test]
    fn memory_that_cannot_be_tracked_is_memory_all_the_same() {
        let arena = Arena::new(Arc::new(Refusing(WriteProtect::new().unwrap())));
        let memory = arena.allocate(1).unwrap();
        assert_eq!(chunk_of(&memory).view.len, CHUNK);
        let error = arena.tracker().arm(memory.span()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_forked_child_leaves_its_parent_s_memory_alone() {
        let arena = arena();
        let memory = arena.allocate(page_size()).unwrap();
        let (view, base) = (memory.view(), chunk_of(&memory).view.base);
        // SAFETY: inside the live allocation, used by this thread alone.
        unsafe { view.write_volatile(1) };
        // SAFETY: the child uses this test's own locks alone, and glibc keeps its allocator usable.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(memory);
            let other = arena.allocate(page_size());
            let is_elsewhere = other.is_ok_and(|other| chunk_of(&other).view.base != base);
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(if is_elsewhere { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: this process's child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 42);
        // SAFETY: as above.
        assert_eq!(unsafe { view.read_volatile() }, 1);
    }
}
