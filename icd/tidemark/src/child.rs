//! An application that runs in this command's place: signals meant for it reach it, and its end is waited for.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::ptr;

/// Signals that this process takes note of rather than dies of, while the application runs and until the summary is
/// printed and the temporary files are gone.
const HELD: [libc::c_int; 5] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD];

/// A started application.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    held: SignalSet,
}

impl Running {
    /// Starts it. From here on the signals of [`HELD`] are blocked in this process, and as before in the
    /// application.
    ///
    /// # Errors
    /// The application cannot be started.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // If whoever started this process ignores SIGCHLD, then so does this process, and the kernel would throw
        // the application's exit status away.
        // SAFETY: no handler is involved.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let held = SignalSet::of(&HELD);
        let before = held.block()?;
        // SAFETY: the closure runs in the child between fork and exec and makes one system call; it neither
        // allocates nor takes a lock.
        unsafe { command.pre_exec(move || before.set()) };
        Ok(Self { child: command.spawn()?, held })
    }

    /// Waits for its end, and passes on what asks it to end.
    ///
    /// # Errors
    /// The kernel's refusal to wait.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        loop {
            match self.held.wait()? {
                libc::SIGCHLD => {
                    if let Some(status) = self.child.try_wait()? {
                        return Ok(status);
                    }
                }
                // Sent to this process alone, as a rule.
                signal @ (libc::SIGTERM | libc::SIGHUP) => self.send(signal),
                // SIGINT and SIGQUIT: a terminal sends these to the whole foreground process group. The
                // application has it already, and it is the application's to end or to stay.
                _ => {}
            }
        }
    }

    fn send(&self, signal: libc::c_int) {
        let Ok(pid) = libc::pid_t::try_from(self.child.id()) else { return };
        // SAFETY: sends a signal to a child that has not been waited for: the number is still the child's. That
        // it ended already is no error.
        unsafe { libc::kill(pid, signal) };
    }
}

/// The exit status that stands for how an application ended, as shells have it.
pub(crate) fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[derive(Clone, Copy)]
struct SignalSet(libc::sigset_t);

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet")
    }
}

impl SignalSet {
    fn of(signals: &[libc::c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: initialises the whole set, and then adds valid signals to it.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// Blocks these signals besides those that are blocked already, which it returns.
    fn block(&self) -> io::Result<Self> {
        let mut before = Self::of(&[]);
        // SAFETY: reads one live set and writes the other.
        check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.0, &raw mut before.0) })?;
        Ok(before)
    }

    /// Blocks these signals and no others.
    fn set(&self) -> io::Result<()> {
        // SAFETY: reads a live set.
        check(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) })
    }

    /// Waits for one of these signals, all of which are blocked.
    fn wait(&self) -> io::Result<libc::c_int> {
        let mut signal = 0;
        // SAFETY: reads a live set and writes a live integer.
        check(unsafe { libc::sigwait(&raw const self.0, &raw mut signal) })?;
        Ok(signal)
    }
}

/// The POSIX threads way to report an error.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
