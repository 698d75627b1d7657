//! The stock kernel's dirty-tracking interfaces: thin, typed calls, and the proof that they work here.

pub(crate) mod faults;
pub(crate) mod mappings;

use crate::{Span, page_size};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags};
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tidemark_kmd_uapi::{pagemap, userfaultfd};

/// Why the kernel cannot track writes for us.
#[derive(Debug)]
pub enum Unsupported {
    /// userfaultfd itself is missing or forbidden.
    Userfaultfd(io::Error),
    /// userfaultfd lacks asynchronous write protection of shared memory.
    WriteProtectAsync(io::Error),
    /// `/proc/self/pagemap` cannot be opened.
    Pagemap(io::Error),
    /// The interfaces are there, yet failed on a page of our own.
    Trial(io::Error),
    /// The interfaces are there, yet did not report a write, or reported one that was not.
    Wrong,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Userfaultfd(error) => write!(f, "userfaultfd(2) is not available ({error})"),
            Self::WriteProtectAsync(error) => {
                write!(
                    f,
                    "userfaultfd has no asynchronous write protection, Linux 6.7 and later do ({error})"
                )
            }
            Self::Pagemap(error) => write!(f, "/proc/self/pagemap cannot be opened ({error})"),
            Self::Trial(error) => write!(f, "a trial of userfaultfd and PAGEMAP_SCAN failed ({error})"),
            Self::Wrong => f.write_str("a trial of userfaultfd and PAGEMAP_SCAN gave a wrong answer"),
        }
    }
}

impl std::error::Error for Unsupported {}

/// An ioctl whose argument the kernel reads and may fill, and whose return value counts.
pub(crate) struct Call<'a, T, const OPCODE: u32>(pub(crate) &'a mut T);

// SAFETY: `OPCODE` is defined beside `T` in tidemark-kmd-uapi, where its size field is computed from `T`.
unsafe impl<T, const OPCODE: u32> Ioctl for Call<'_, T, OPCODE> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        Opcode::from(OPCODE)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut *self.0).cast()
    }

    unsafe fn output_from_ptr(returned: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        // Negative values became errors before this point.
        Ok(usize::try_from(returned).unwrap_or(0))
    }
}

/// What creates a userfaultfd: its flags, which `/dev/userfaultfd` takes by value.
struct Create(UserfaultfdFlags);

// SAFETY: the argument is a number; the result is a new descriptor.
unsafe impl Ioctl for Create {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        Opcode::from(userfaultfd::USERFAULTFD_IOC_NEW)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.0.bits() as usize)
    }

    unsafe fn output_from_ptr(returned: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the kernel's new descriptor, which nobody else knows.
        Ok(unsafe { OwnedFd::from_raw_fd(returned) })
    }
}

/// A userfaultfd with asynchronous write protection of shared memory.
pub(crate) struct Userfaultfd {
    pub(crate) fd: OwnedFd,
    /// Whether it also delivers faults on pages that are held back, the kernel's own among them.
    pub(crate) delivers_faults: bool,
}

/// Opens one: the privileged way if the process may, since otherwise a system call that touches a page held back fails
/// with EFAULT instead of waiting for it.
pub(crate) fn open_userfaultfd() -> Result<Userfaultfd, Unsupported> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    let from_device = || -> rustix::io::Result<OwnedFd> {
        let device = rustix::fs::open("/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: creates a descriptor and touches no memory.
        unsafe { rustix::ioctl::ioctl(device, Create(flags)) }
    };
    // SAFETY: creates a descriptor and touches no memory.
    let from_system_call = |flags| unsafe { rustix::mm::userfaultfd(flags) };
    let wanted = userfaultfd::FEATURE_WP_ASYNC
        | userfaultfd::FEATURE_WP_UNPOPULATED
        | userfaultfd::FEATURE_WP_HUGETLBFS_SHMEM;
    let privileged = from_device().or_else(|_| from_system_call(flags));
    if let Ok(fd) = privileged
        && enable(&fd, wanted | userfaultfd::FEATURE_MINOR_SHMEM).is_ok()
    {
        return Ok(Userfaultfd { fd, delivers_faults: true });
    }
    // USER_MODE_ONLY: allowed without privilege, and enough, as asynchronous faults are never delivered.
    let flags = flags | UserfaultfdFlags::from_bits_retain(userfaultfd::USER_MODE_ONLY);
    let fd = from_system_call(flags).map_err(|e| Unsupported::Userfaultfd(e.into()))?;
    enable(&fd, wanted).map_err(Unsupported::WriteProtectAsync)?;
    Ok(Userfaultfd { fd, delivers_faults: false })
}

/// Starts a userfaultfd with all of `features`.
fn enable(fd: &OwnedFd, features: u64) -> io::Result<()> {
    let mut api = userfaultfd::Api { api: userfaultfd::API, features, ioctls: 0 };
    // SAFETY: the argument is a live `struct uffdio_api`.
    unsafe { rustix::ioctl::ioctl(fd, Call::<_, { userfaultfd::UFFDIO_API }>(&mut api)) }?;
    // The kernel clears bits it knows but was not built with.
    if api.features & features != features {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(())
}

/// A number for this process's address space. A forked child, whose address space is a copy, gets another.
///
/// Read from a page that the kernel empties in the child: an allocation's every flush asks, and getpid(2) would take
/// a quarter of the time that a scan of clean pages does. It also holds where a pid repeats in a new pid namespace.
pub(crate) fn address_space() -> u32 {
    static WORD: OnceLock<Option<&AtomicU32>> = OnceLock::new();
    /// The last number given in this address space or those it is a copy of.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let Some(word) = WORD.get_or_init(wiped_on_fork) else { return std::process::id() };
    match word.load(Ordering::Relaxed) {
        0 => {
            let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            // Another thread may have been faster.
            match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => fresh,
                Err(number) => number,
            }
        }
        number => number,
    }
}

/// A word that is zero here, and again in every forked child. `None` where the kernel does not offer that.
fn wiped_on_fork() -> Option<&'static AtomicU32> {
    let len = page_size();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address the kernel chooses.
    let page =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }
            .ok()?;
    // SAFETY: the mapping above, which nothing refers to yet.
    if unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above.
        let _ = unsafe { rustix::mm::munmap(page, len) };
        return None;
    }
    // SAFETY: aligned and zeroed memory, never unmapped, used as an atomic alone.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

/// Opens the process's page map. It describes the address space of the process that opened it.
pub(crate) fn open_pagemap() -> Result<OwnedFd, Unsupported> {
    rustix::fs::open("/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Unsupported::Pagemap(e.into()))
}

/// Puts a mapping under asynchronous write protection. Pages stay writable until they are scanned.
pub(crate) fn register_write_protect(uffd: impl AsFd, region: Span) -> io::Result<()> {
    register(uffd, region, userfaultfd::REGISTER_MODE_WP)
}

/// Ends write protection of a mapping, and whatever else it was registered for.
pub(crate) fn unregister(uffd: impl AsFd, region: Span) -> io::Result<()> {
    let mut range = range_of(region);
    // SAFETY: the argument is a live `struct uffdio_range`; loads and stores mean what they do without userfaultfd.
    unsafe { rustix::ioctl::ioctl(uffd, Call::<_, { userfaultfd::UFFDIO_UNREGISTER }>(&mut range)) }?;
    Ok(())
}

/// Registers a mapping in `mode` as well, for asynchronous write protection at least.
fn register(uffd: impl AsFd, region: Span, mode: u64) -> io::Result<()> {
    let mut register = userfaultfd::Register { range: range_of(region), mode, ioctls: 0 };
    // SAFETY: the argument is a live `struct uffdio_register`; asynchronous write protection does not
    // change what a load or a store of the region means, and other faults only delay it.
    unsafe { rustix::ioctl::ioctl(uffd, Call::<_, { userfaultfd::UFFDIO_REGISTER }>(&mut register)) }?;
    Ok(())
}

fn range_of(span: Span) -> userfaultfd::Range {
    userfaultfd::Range { start: span.start as u64, len: span.len() as u64 }
}

/// What a scan does with the pages it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// Leaves them as they are.
    Look,
    /// Protects them again, each in one step with its report.
    Protect,
}

/// One `PAGEMAP_SCAN` over `span`: the written regions that fitted into `regions`, and the address where the walk
/// stopped.
pub(crate) fn scan(
    pagemap: impl AsFd,
    scan: Scan,
    span: Span,
    regions: &mut [pagemap::PageRegion],
) -> io::Result<(&[pagemap::PageRegion], usize)> {
    let protect = if scan == Scan::Protect { pagemap::SCAN_WP_MATCHING } else { 0 };
    let mut argument = pagemap::ScanArg {
        size: size_of::<pagemap::ScanArg>() as u64,
        flags: protect | pagemap::SCAN_CHECK_WPASYNC,
        start: span.start as u64,
        end: span.end as u64,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        category_mask: pagemap::PAGE_IS_WRITTEN,
        return_mask: pagemap::PAGE_IS_WRITTEN,
        ..Default::default()
    };
    // SAFETY: the argument is a live `struct pm_scan_arg`, whose vector is `regions`, exclusively ours.
    let found =
        unsafe { rustix::ioctl::ioctl(pagemap, Call::<_, { pagemap::PAGEMAP_SCAN }>(&mut argument)) }?;
    let end = usize::try_from(argument.walk_end).unwrap_or(span.end);
    if end <= span.start {
        // A walk that does not move would never end.
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((&regions[..found.min(regions.len())], end))
}

/// The addresses of a region the kernel reported.
pub(crate) fn span_of(region: &pagemap::PageRegion) -> Span {
    // The kernel reports addresses of this process.
    let address = |value| usize::try_from(value).unwrap_or(usize::MAX);
    address(region.start)..address(region.end)
}
