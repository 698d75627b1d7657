//! The strategy of GFXReconstruct's page guard, with its default settings on Linux (its
//! framework/util/page_guard_manager.cpp): the host gets shadow memory without access rights. A fault's handler takes a
//! lock, looks for the mapping from the first to the last, makes one page accessible, and notes whether it was written
//! or read; a page that is read is copied from the device first, and counts as written from then on. A flush walks over
//! all pages of every mapping that saw a fault; each run of written ones becomes read-only, is copied to the device, and
//! loses its access rights again. Writing the capture file is left out.

use crate::contender::{Contender, Part, Region, device_memory};
use rustix::mm::MapFlags;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::sync::{Mutex, Once};
use tidemark_winsys::{LockExt, page_size};

/// All mappings that are guarded. The handler takes this lock, as theirs does: no guarded page is touched under it
/// but in ways its protection allows.
static GUARDED: Mutex<Vec<Guarded>> = Mutex::new(Vec::new());

/// One mapping.
struct Guarded {
    owner: usize,
    shadow: usize,
    device: usize,
    len: usize,
    is_modified: bool,
    written: Vec<bool>,
    read: Vec<bool>,
}

/// The strategy's buffers.
pub(crate) struct PageGuard {
    views: Vec<*mut u8>,
    devices: Vec<*mut u8>,
    _regions: Vec<Region>,
}

impl PageGuard {
    pub(crate) fn new(buffers: usize, len: usize) -> io::Result<Self> {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        let mut guard = Self { views: Vec::new(), devices: Vec::new(), _regions: Vec::new() };
        for _ in 0..buffers {
            let (shadow, device) = (Region::new(len, MapFlags::PRIVATE)?, device_memory(len)?);
            guard.views.push(shadow.base());
            guard.devices.push(device.base());
            guard._regions.extend([shadow, device]);
        }
        let owner = guard.views.as_ptr() as usize;
        let mut guarded = GUARDED.hold();
        for (&shadow, &device) in guard.views.iter().zip(&guard.devices) {
            let pages = len / page_size();
            let (shadow, device) = (shadow as usize, device as usize);
            protect(shadow, len, libc::PROT_NONE);
            let (written, read) = (vec![false; pages], vec![false; pages]);
            guarded.push(Guarded { owner, shadow, device, len, is_modified: false, written, read });
        }
        drop(guarded);
        Ok(guard)
    }
}

impl Drop for PageGuard {
    fn drop(&mut self) {
        let owner = self.views.as_ptr() as usize;
        GUARDED.hold().retain(|guarded| guarded.owner != owner);
    }
}

impl Contender for PageGuard {
    fn views(&self) -> &[*mut u8] {
        &self.views
    }

    fn devices(&self) -> &[*mut u8] {
        &self.devices
    }

    /// It does not know what a batch uses: everything that saw a fault is looked at.
    fn before_batch(&mut self, _used: &[Part], _written: &[Part]) {
        for guarded in GUARDED.hold().iter_mut().filter(|guarded| guarded.is_modified) {
            guarded.flush();
        }
    }

    /// It reads back page by page, when the host reads.
    fn after_wait(&mut self, _written: &[Part]) {}
}

impl Guarded {
    fn flush(&mut self) {
        self.is_modified = false;
        let mut start = None;
        for page in 0..self.written.len() {
            if mem::take(&mut self.written[page]) {
                self.read[page] = false;
                start.get_or_insert(page);
            } else if let Some(start) = start.take() {
                self.flush_run(start, page);
            }
        }
        if let Some(start) = start {
            self.flush_run(start, self.written.len());
        }
    }

    fn flush_run(&self, start: usize, end: usize) {
        let (offset, len) = (start * page_size(), (end - start) * page_size());
        let (shadow, device) = (self.shadow + offset, self.device + offset);
        protect(shadow, len, libc::PROT_READ);
        // SAFETY: both ranges lie in regions of the contender, which lives; the shadow is readable now.
        unsafe { ptr::copy_nonoverlapping(shadow as *const u8, device as *mut u8, len) };
        protect(shadow, len, libc::PROT_NONE);
    }

    /// Lets the host at the page of `address`.
    fn admit(&mut self, address: usize, is_write: bool) {
        self.is_modified = true;
        let page = (address - self.shadow) / page_size();
        let at = self.shadow + page * page_size();
        protect(at, page_size(), libc::PROT_READ | libc::PROT_WRITE);
        if !is_write {
            let from = self.device + page * page_size();
            // SAFETY: as in `flush_run`; the shadow is writable now.
            unsafe { ptr::copy_nonoverlapping(from as *const u8, at as *mut u8, page_size()) };
            self.read[page] = true;
        }
        self.written[page] = true;
    }
}

/// Sets the access rights of part of a shadow. Whenever that takes some away, GFXReconstruct asks whether the signal is
/// blocked; so does this.
fn protect(at: usize, len: usize, protection: c_int) {
    // SAFETY: part of a region of a contender that lives; the mask is only asked for.
    unsafe {
        libc::mprotect(at as *mut c_void, len, protection);
        if protection != libc::PROT_READ | libc::PROT_WRITE {
            let mut blocked = mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, ptr::null(), &raw mut blocked);
            libc::sigismember(&raw const blocked, libc::SIGSEGV);
        }
    }
}

fn install() {
    // SAFETY: the handler has the signature that SA_SIGINFO asks for. It runs on the stack that Rust's runtime has set
    // up for its own.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
    }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's description of a fault.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut guarded = GUARDED.hold();
    match guarded.iter_mut().find(|guarded| (guarded.shadow..guarded.shadow + guarded.len).contains(&address))
    {
        Some(guarded) => guarded.admit(address, is_write(context)),
        // SAFETY: a fault that is not ours happens again when this returns, and then ends the process.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

/// Whether the fault was a write: bit 1 of the page fault's error code.
#[cfg(target_arch = "x86_64")]
fn is_write(context: *mut c_void) -> bool {
    let context: *const libc::ucontext_t = context.cast();
    // SAFETY: the kernel's record of the interrupted thread. The register's number is a small constant.
    let error = unsafe { (*context).uc_mcontext.gregs[libc::REG_ERR.unsigned_abs() as usize] };
    error & 2 != 0
}

/// What GFXReconstruct assumes where it cannot tell.
#[cfg(not(target_arch = "x86_64"))]
fn is_write(_context: *mut c_void) -> bool {
    true
}
