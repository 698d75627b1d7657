//! Reads and writes of memory that may not be there: through the kernel, which fails where a load or a store would be the
//! process's end.
//!
//! Bytes go by way of a file in memory. They are read by pwrite(2) into it, in half the time of process_vm_readv(2), which
//! looks every page up and holds on to it. They are written by preadv(2) out of it: in single runs, a thousand in a page at
//! worst, which are packed there and scattered by the kernel, in 0.03 us a run.

use super::runs::runs;
use crate::sync::{LockExt, Mutex};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Resource;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

/// Bytes that are moved at a time.
pub(crate) const BLOCK: usize = 16 << 10;

/// Runs that one call scatters.
const RUNS: usize = 256;

/// The way to such memory. May be used from any thread.
pub(crate) struct Access {
    file: OwnedFd,
    /// The file, for us to read and write. Locked while something is in it; who holds the lock may wait for a page of the
    /// application's to come in, and for the device that the bytes go to.
    window: Mutex<Window>,
}

/// The address of a mapping of [`BLOCK`] bytes, which ends with this value.
struct Window(*mut u8);

// SAFETY: an address; what is done with the memory behind it is argued where it is done.
unsafe impl Send for Window {}

impl Window {
    fn new(file: &OwnedFd) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the kernel chooses.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), BLOCK, access, MapFlags::SHARED, file, 0) }?;
        Ok(Self(base.cast()))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which is used while its lock is held alone. It can only succeed.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), BLOCK) };
    }
}

impl Access {
    /// Makes the file. It takes a descriptor.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn new() -> io::Result<Self> {
        // Beyond the limit the process would get a signal.
        let limit = rustix::process::getrlimit(Resource::Fsize).current;
        if limit.is_some_and(|limit| limit < BLOCK as u64) {
            return Err(Errno::FBIG.into());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("tidemark", flags)?;
        rustix::fs::ftruncate(&file, BLOCK as u64)?;
        // Whoever has the descriptor could take the window's pages away.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let window = Mutex::new(Window::new(&file)?);
        Ok(Self { file, window })
    }

    /// Shows `use_bytes` the first of `len` bytes as they are at `address`. At most [`BLOCK`] bytes.
    ///
    /// # Errors
    /// `EFAULT` if not all of them can be read; then it is shown nothing.
    pub(crate) fn read<T>(
        &self,
        address: usize,
        len: usize,
        use_bytes: impl FnOnce(*const u8) -> T,
    ) -> io::Result<T> {
        assert!(len <= BLOCK);
        let window = self.window.hold();
        let mut done = 0;
        while done < len {
            let offset = libc::off_t::try_from(done).map_err(|_| Errno::FBIG)?;
            let from = ptr::with_exposed_provenance(address + done);
            // SAFETY: the kernel reads whatever is at the address, and checks whether it can.
            let written = unsafe { libc::pwrite(self.file.as_raw_fd(), from, len - done, offset) };
            match usize::try_from(written) {
                Ok(0) => return Err(Errno::FAULT.into()),
                Ok(written) => done += written,
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(use_bytes(window.0))
    }

    /// Stores those bytes of `new` to `address` that differ from `old`, and no others. What was stored is in `old`, too,
    /// then. Returns the number of such bytes. At most [`BLOCK`] bytes.
    ///
    /// # Errors
    /// `EFAULT` if not all of them can be written; what was stored before is in `old` all the same.
    pub(crate) fn store_differences(&self, address: usize, new: &[u8], old: &mut [u8]) -> io::Result<usize> {
        assert!(new.len() <= BLOCK && new.len() == old.len());
        let window = self.window.hold();
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; RUNS];
        let (mut changed, mut at) = (0, 0);
        while at < new.len() {
            let (mut count, mut packed) = (0, 0);
            let first = at;
            for run in runs(&new[first..], &old[first..]).take(RUNS) {
                let run = first + run.start..first + run.end;
                let to = window.0.wrapping_add(packed);
                // SAFETY: all runs together are no longer than `new`, and so than the window.
                unsafe { ptr::copy_nonoverlapping(new[run.clone()].as_ptr(), to, run.len()) };
                vectors[count] = libc::iovec {
                    iov_base: ptr::with_exposed_provenance_mut(address + run.start),
                    iov_len: run.len(),
                };
                count += 1;
                packed += run.len();
                at = run.end;
            }
            let whole = packed;
            let outcome = self.scatter(&vectors[..count], packed);
            let mut stored = *outcome.as_ref().unwrap_or(&0);
            changed += stored;
            for vector in &vectors[..count] {
                let start = vector.iov_base as usize - address;
                let part = start..start + vector.iov_len.min(stored);
                stored -= part.len();
                old[part.clone()].copy_from_slice(&new[part]);
            }
            if outcome? < whole {
                return Err(Errno::FAULT.into());
            }
            if count < RUNS {
                break;
            }
        }
        Ok(changed)
    }

    /// Scatters the first `len` bytes of the window. Returns how many of them went.
    fn scatter(&self, vectors: &[libc::iovec], len: usize) -> io::Result<usize> {
        let Ok(count) = i32::try_from(vectors.len()) else { return Ok(0) };
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: the kernel writes to what the vectors name, and checks whether it can. That nobody minds is for whoever
        // made the memory known to us.
        let read = unsafe { libc::preadv(self.file.as_raw_fd(), vectors.as_ptr(), count, 0) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}
