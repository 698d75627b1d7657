//! The device through its contract: one function a call, which returns what the kernel returned.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::{io, mem, ptr};

use tidemark_kmd_uapi::tidemark_drm as uapi;

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// An error number, as the kernel gave it.
pub type Errno = i32;

fn check(returned: libc::c_int) -> Result<i32, Errno> {
    if returned < 0 { Err(errno()) } else { Ok(returned) }
}

/// The calling thread's last error.
pub fn errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A file of the device: handles are its own.
pub struct Device(File);

/// Ioctls of the DRM core, as far as the tests use them.
mod core {
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct GemClose {
        pub(super) handle: u32,
        pub(super) pad: u32,
    }
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct PrimeHandle {
        pub(super) handle: u32,
        pub(super) flags: u32,
        pub(super) fd: i32,
    }
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct SyncobjCreate {
        pub(super) handle: u32,
        pub(super) flags: u32,
    }
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct SyncobjTimelineWait {
        pub(super) handles: u64,
        pub(super) points: u64,
        pub(super) timeout_ns: i64,
        pub(super) count: u32,
        pub(super) flags: u32,
        pub(super) first_signaled: u32,
        pub(super) pad: u32,
    }
    pub(super) const GEM_CLOSE: u32 = 0x4008_6409;
    pub(super) const PRIME_HANDLE_TO_FD: u32 = 0xC00C_642D;
    pub(super) const PRIME_FD_TO_HANDLE: u32 = 0xC00C_642E;
    pub(super) const SYNCOBJ_CREATE: u32 = 0xC008_64BF;
    pub(super) const SYNCOBJ_TIMELINE_WAIT: u32 = 0xC028_64CA;
}

impl Device {
    /// Opens the render node of the module.
    pub fn open() -> Self {
        Self::open_driver("tidemark")
    }

    /// Opens the render node of any driver.
    pub fn open_driver(driver: &str) -> Self {
        let nodes = fs::read_dir("/sys/class/drm").expect("no DRM here").flatten();
        let node = nodes
            .filter(|node| node.file_name().to_string_lossy().starts_with("renderD"))
            .find(|node| {
                // vgem's has its driver's name itself.
                let device = node.path().join("device");
                [fs::read_link(device.join("driver")), fs::canonicalize(device)]
                    .into_iter()
                    .flatten()
                    .any(|path| path.file_name().is_some_and(|name| name == driver))
            })
            .unwrap_or_else(|| panic!("no render node of {driver}"));
        let path = Path::new("/dev/dri").join(node.file_name());
        Self(OpenOptions::new().read(true).write(true).open(path).expect("cannot open the render node"))
    }

    /// The descriptor.
    pub fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Any ioctl, on any argument.
    pub fn call<T>(&self, opcode: u32, argument: &mut T) -> Result<i32, Errno> {
        self.call_at(opcode, ptr::from_mut(argument) as usize)
    }

    /// Any ioctl, on an argument at any address.
    pub fn call_at(&self, opcode: u32, address: usize) -> Result<i32, Errno> {
        // SAFETY: the kernel checks addresses; the argument of the opcodes used has the size that these encode, or is
        // bad on purpose and then not memory of Rust's.
        check(unsafe { libc::ioctl(self.raw(), u64::from(opcode) as _, address) })
    }

    /// A parameter of the device.
    pub fn query(&self, param: u32) -> Result<u64, Errno> {
        let mut query = uapi::Query { param, ..Default::default() };
        self.call(uapi::IOCTL_QUERY, &mut query).map(|_| query.value)
    }

    /// A new object.
    pub fn create(&self, size: usize, placement: u32, tracking: u32) -> Result<u32, Errno> {
        let mut create = uapi::ObjectCreate { size: size as u64, placement, tracking, ..Default::default() };
        self.call(uapi::IOCTL_OBJECT_CREATE, &mut create).map(|_| create.handle)
    }

    /// An object in system memory, of some pages.
    pub fn object(&self, pages: usize, tracking: u32) -> u32 {
        self.create(pages * PAGE, uapi::PLACEMENT_SYSTEM, tracking).expect("cannot create an object")
    }

    /// An object over memory of this process.
    pub fn user(&self, address: usize, size: usize, flags: u32) -> Result<u32, Errno> {
        let mut user = uapi::ObjectUser { address: address as u64, size: size as u64, flags, handle: 0 };
        self.call(uapi::IOCTL_OBJECT_USER, &mut user).map(|_| user.handle)
    }

    /// Drops a handle.
    pub fn close(&self, handle: u32) -> Result<i32, Errno> {
        self.call(core::GEM_CLOSE, &mut core::GemClose { handle, pad: 0 })
    }

    /// What an object is.
    pub fn info(&self, handle: u32) -> Result<uapi::ObjectInfo, Errno> {
        let mut info = uapi::ObjectInfo { handle, ..Default::default() };
        self.call(uapi::IOCTL_OBJECT_INFO, &mut info).map(|_| info)
    }

    /// What it has cost.
    pub fn counters(&self, handle: u32) -> uapi::Counters {
        let mut counters = uapi::Counters { handle, ..Default::default() };
        self.call(uapi::IOCTL_COUNTERS, &mut counters).expect("no counters");
        counters
    }

    /// Where to map it.
    pub fn offset(&self, handle: u32, flags: u32) -> Result<u64, Errno> {
        let mut offset = uapi::MmapOffset { handle, flags, offset: 0 };
        self.call(uapi::IOCTL_MMAP_OFFSET, &mut offset).map(|_| offset.offset)
    }

    /// Maps all of it.
    pub fn view(&self, handle: u32, flags: u32) -> View {
        let offset = self.offset(handle, flags).expect("no offset");
        let size = self.info(handle).expect("no such object").size;
        View::new(self.raw(), offset, usize::try_from(size).unwrap()).expect("cannot map")
    }

    /// Another method.
    pub fn track(&self, handle: u32, tracking: u32) -> Result<i32, Errno> {
        self.call(uapi::IOCTL_SET_TRACKING, &mut uapi::SetTracking { handle, tracking })
    }

    /// One call of it.
    pub fn collect_raw(&self, collect: &mut uapi::Collect) -> Result<i32, Errno> {
        self.call(uapi::IOCTL_COLLECT, collect)
    }

    /// The pages written in all of an object, in order, through an array with room for so many ranges.
    pub fn collect_by(&self, handle: u32, capacity: u32) -> Result<Vec<usize>, Errno> {
        let size = self.info(handle)?.size;
        let objects = [uapi::CollectObject { handle, pad: 0, offset: 0, size }];
        let mut ranges = vec![uapi::Range::default(); capacity as usize];
        let mut collect = uapi::Collect {
            objects: objects.as_ptr() as u64,
            ranges: ranges.as_mut_ptr() as u64,
            object_count: 1,
            range_capacity: capacity,
            ..Default::default()
        };
        let mut pages = Vec::new();
        while collect.next_object < 1 {
            match self.collect_raw(&mut collect) {
                Ok(_) => {}
                Err(libc::EINTR) => continue,
                Err(error) => return Err(error),
            }
            for range in &ranges[..collect.range_count as usize] {
                assert_eq!((range.object, range.pad), (0, 0));
                let (offset, size) = (range.offset as usize, range.size as usize);
                assert!(size > 0 && offset % PAGE == 0 && size % PAGE == 0, "{range:?}");
                pages.extend(offset / PAGE..(offset + size) / PAGE);
            }
        }
        assert!(pages.is_sorted(), "out of order: {pages:?}");
        Ok(pages)
    }

    /// As above, with room for many.
    pub fn collect(&self, handle: u32) -> Vec<usize> {
        self.collect_by(handle, 256).expect("cannot collect")
    }

    /// Moves it.
    pub fn place(&self, handle: u32, placement: u32) -> Result<i32, Errno> {
        self.call(uapi::IOCTL_PLACE, &mut uapi::Place { handle, placement })
    }

    /// Reads from it.
    pub fn read(&self, handle: u32, offset: usize, into: &mut [u8]) -> Result<i32, Errno> {
        self.transfer(uapi::IOCTL_READ, handle, offset, into.as_mut_ptr() as usize, into.len())
    }

    /// Writes to it.
    pub fn write(&self, handle: u32, offset: usize, from: &[u8]) -> Result<i32, Errno> {
        self.transfer(uapi::IOCTL_WRITE, handle, offset, from.as_ptr() as usize, from.len())
    }

    /// Either.
    pub fn transfer(
        &self,
        opcode: u32,
        handle: u32,
        offset: usize,
        address: usize,
        size: usize,
    ) -> Result<i32, Errno> {
        let mut transfer = uapi::Transfer {
            handle,
            flags: 0,
            offset: offset as u64,
            size: size as u64,
            address: address as u64,
        };
        self.call(opcode, &mut transfer)
    }

    /// Copies regions, after and before syncobjs.
    pub fn copy(
        &self,
        src: u32,
        dst: u32,
        regions: &[uapi::Region],
        waits: &[uapi::Sync],
        signals: &[uapi::Sync],
    ) -> Result<i32, Errno> {
        let mut copy = uapi::Copy {
            src,
            dst,
            regions: regions.as_ptr() as u64,
            wait_syncs: waits.as_ptr() as u64,
            signal_syncs: signals.as_ptr() as u64,
            region_count: u32::try_from(regions.len()).unwrap(),
            wait_count: u32::try_from(waits.len()).unwrap(),
            signal_count: u32::try_from(signals.len()).unwrap(),
            flags: 0,
        };
        self.call(uapi::IOCTL_COPY, &mut copy)
    }

    /// Waits for the device to be done with it, for so long from now on.
    pub fn wait(&self, handle: u32, flags: u32, nanoseconds: i64) -> Result<i32, Errno> {
        let timeout_ns = now().saturating_add(nanoseconds);
        loop {
            match self.call(uapi::IOCTL_WAIT, &mut uapi::Wait { handle, flags, timeout_ns }) {
                Err(libc::EINTR) => {}
                result => return result,
            }
        }
    }

    /// A dma-buf of it.
    pub fn export(&self, handle: u32) -> Result<OwnedFd, Errno> {
        let flags = u32::try_from(libc::O_CLOEXEC | libc::O_RDWR).unwrap();
        let mut prime = core::PrimeHandle { handle, flags, fd: -1 };
        self.call(core::PRIME_HANDLE_TO_FD, &mut prime)?;
        // SAFETY: the call made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(prime.fd) })
    }

    /// The object of a dma-buf.
    pub fn import(&self, fd: &OwnedFd) -> Result<u32, Errno> {
        let mut prime = core::PrimeHandle { handle: 0, flags: 0, fd: fd.as_raw_fd() };
        self.call(core::PRIME_FD_TO_HANDLE, &mut prime).map(|_| prime.handle)
    }

    /// A syncobj.
    pub fn syncobj(&self) -> u32 {
        let mut create = core::SyncobjCreate::default();
        self.call(core::SYNCOBJ_CREATE, &mut create).expect("cannot create a syncobj");
        create.handle
    }

    /// Waits for a syncobj, a point of which is 0 for a binary one, for so long from now on.
    pub fn wait_syncobj(&self, handle: u32, point: u64, nanoseconds: i64) -> Result<i32, Errno> {
        let mut wait = core::SyncobjTimelineWait {
            handles: ptr::from_ref(&handle) as u64,
            points: ptr::from_ref(&point) as u64,
            timeout_ns: now().saturating_add(nanoseconds),
            count: 1,
            ..Default::default()
        };
        loop {
            match self.call(core::SYNCOBJ_TIMELINE_WAIT, &mut wait) {
                Err(libc::EINTR) => {}
                result => return result,
            }
        }
    }
}

/// The monotonic clock, in nanoseconds.
pub fn now() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that exists, and where to put its time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Memory that is mapped, and unmapped on drop.
pub struct View {
    address: NonNull<u8>,
    size: usize,
}

// SAFETY: it is only touched by volatile accesses.
unsafe impl Send for View {}
// SAFETY: likewise.
unsafe impl Sync for View {}

impl View {
    /// Maps a part of a file, shared.
    pub fn new(fd: i32, offset: u64, size: usize) -> Result<Self, Errno> {
        Self::with(fd, offset, size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)
    }

    /// Anonymous memory.
    pub fn anonymous(pages: usize) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Self::with(-1, 0, pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags).expect("cannot map memory")
    }

    /// Maps what you like.
    pub fn with(fd: i32, offset: u64, size: usize, protection: i32, flags: i32) -> Result<Self, Errno> {
        let offset = i64::try_from(offset).unwrap();
        // SAFETY: at an address of the kernel's choice nothing is replaced.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), size, protection, flags | libc::MAP_NORESERVE, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(Self { address: NonNull::new(address.cast()).expect("mapped at 0"), size })
    }

    /// Where it is.
    pub fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where the byte at an offset is.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.size);
        self.address.as_ptr().wrapping_add(offset)
    }

    /// Writes a byte.
    pub fn set(&self, offset: usize, value: u8) {
        // SAFETY: within the mapping, as `at` checked.
        unsafe { self.at(offset).write_volatile(value) }
    }

    /// Reads a byte.
    pub fn get(&self, offset: usize) -> u8 {
        // SAFETY: within the mapping, as `at` checked.
        unsafe { self.at(offset).read_volatile() }
    }

    /// Writes to a page.
    pub fn touch(&self, page: usize) {
        let value = self.get(page * PAGE).wrapping_add(1);
        self.set(page * PAGE, value);
    }

    /// Changes the protection of some of it.
    pub fn protect(&self, offset: usize, size: usize, protection: i32) {
        assert!(offset + size <= self.size);
        // SAFETY: within the mapping, which only volatile accesses touch.
        let returned = unsafe { libc::mprotect(self.at(offset).cast(), size, protection) };
        assert_eq!(returned, 0, "mprotect: {}", errno());
    }

    /// Moves it to another address.
    pub fn move_away(self) -> Self {
        let target = Self::with(-1, 0, self.size, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
            .expect("cannot map memory");
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both are mappings of ours, which nothing else uses.
        let address = unsafe {
            libc::mremap(self.address.as_ptr().cast(), self.size, self.size, flags, target.address.as_ptr())
        };
        assert_ne!(address, libc::MAP_FAILED, "mremap: {}", errno());
        mem::forget(self);
        target
    }

    /// Lets the kernel forget the pages.
    pub fn advise(&self, advice: i32) -> Result<i32, Errno> {
        // SAFETY: a mapping of ours, which only volatile accesses touch.
        check(unsafe { libc::madvise(self.address.as_ptr().cast(), self.size, advice) })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours, which nothing uses any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.size) };
    }
}

/// A knob of the module, below debugfs.
pub fn knob(name: &str, value: u32) {
    let folder =
        fs::read_dir("/sys/kernel/debug/dri").expect("no debugfs").flatten().map(|entry| entry.path());
    let mut files: Vec<_> = folder.map(|path| path.join(name)).filter(|path| path.exists()).collect();
    files.sort();
    fs::write(files.first().expect("no such knob"), value.to_string()).expect("cannot turn the knob");
}
