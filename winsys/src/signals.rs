//! Signals, which are the application's: no thread of ours takes any.

use std::mem;
use std::ptr;

/// Runs `work` with all signals blocked: a thread inherits what is blocked where it is made, and signals are the
/// application's.
pub fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    let mut all = mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: two places for sets of signals, the first of which is filled before it is read; the second is.
    let is_blocked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) == 0
    };
    let outcome = work();
    if is_blocked {
        // SAFETY: the set that was filled when signals were blocked.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    }
    outcome
}
