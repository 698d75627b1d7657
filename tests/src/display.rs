//! Displays without a screen: an X server and a Wayland compositor of a test's own, gone when the guard is.
//!
//! A guard's server also goes when the *thread* that started it ends, so keep it where it was made.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::run::{POLL, check, create, expect_success, program, read, spawn};
use crate::x11::Connection;
use crate::{Picture, Scratch};

/// How long a server may take to come up, and a window to go.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to tidy up after itself before it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// An X server with one screen of 640x480 pixels, and no window manager.
pub struct Xvfb {
    server: Server,
    number: u32,
    connection: Connection,
}

impl Xvfb {
    /// Starts a server on a free display number.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let scratch = Scratch::new();
        let chosen = scratch.file("display");
        let mut command = Command::new(program("Xvfb"));
        command.args(["-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"]);
        command.stdout(create(&chosen));
        let mut server = Server::spawn(command, scratch);
        // It writes the number, with a newline, once clients can connect.
        let number = server.wait_for(|| read(&chosen).strip_suffix('\n').and_then(|line| line.parse().ok()));
        match Connection::open(number) {
            Ok(connection) => Self { server, number, connection },
            Err(error) => panic!("cannot talk to Xvfb :{number}: {error}\n{}", server.log()),
        }
    }

    /// Lets `command` show its windows here.
    pub fn attach(&self, command: &mut Command) {
        command.env("DISPLAY", format!(":{}", self.number));
    }

    /// The whole screen after the last window has gone: what the windows showed last stays there. With
    /// it comes how often something was drawn since the start, which tells the frames of a program from
    /// each other.
    ///
    /// # Panics
    /// When a window does not go, or the server does not answer.
    #[must_use]
    #[track_caller]
    pub fn picture_left(&mut self) -> (u32, Picture) {
        match self.connection.picture_without_windows(READY_LIMIT) {
            Ok(left) => left,
            Err(error) => panic!("no picture of display :{}: {error}\n{}", self.number, self.server.log()),
        }
    }
}

/// A Wayland compositor, Weston, without outputs that anyone sees.
pub struct Weston {
    server: Server,
}

/// The name of the only socket in a runtime directory of its own.
const SOCKET: &str = "tidemark";

impl Weston {
    /// Starts a compositor.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let weston = program("weston");
        // Backends were called by their file names before Weston 12.
        let help = expect_success(Command::new(&weston).arg("--help"), READY_LIMIT).stdout;
        let backend = if help.contains("headless-backend.so") { "headless-backend.so" } else { "headless" };

        let scratch = Scratch::new();
        let socket = scratch.file(SOCKET);
        let mut command = Command::new(weston);
        command
            .args(["--no-config", "--idle-time=0", "--socket", SOCKET])
            .arg(format!("--backend={backend}"));
        command.env("XDG_RUNTIME_DIR", scratch.path()).stdout(Stdio::null());
        let mut server = Server::spawn(command, scratch);
        server.wait_for(|| UnixStream::connect(&socket).ok());
        Self { server }
    }

    /// Lets `command` show its windows here.
    pub fn attach(&self, command: &mut Command) {
        command.env("XDG_RUNTIME_DIR", self.server.scratch.path()).env("WAYLAND_DISPLAY", SOCKET);
    }
}

/// A process that serves until it is told to end.
struct Server {
    child: Child,
    scratch: Scratch,
    name: String,
}

const LOG: &str = "log";

impl Server {
    #[track_caller]
    fn spawn(mut command: Command, scratch: Scratch) -> Self {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        for key in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
            command.env_remove(key);
        }
        command.stdin(Stdio::null()).stderr(create(&scratch.file(LOG)));
        let child = spawn(&mut command, Signal::TERM);
        Self { child, scratch, name }
    }

    /// Waits until `ready` has something.
    #[track_caller]
    fn wait_for<T>(&mut self, ready: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if let Some(found) = ready() {
                return found;
            }
            if let Some(status) = check(&mut self.child) {
                panic!("{} ended with {status} instead of serving\n{}", self.name, self.log());
            }
            assert!(
                Instant::now() < deadline,
                "{} not ready after {READY_LIMIT:?}\n{}",
                self.name,
                self.log()
            );
            thread::sleep(POLL);
        }
    }

    fn log(&self) -> String {
        read(&self.scratch.file(LOG))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first, so that it removes its lock file and sockets. Nothing here panics: a test may be
        // failing.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_x_server_leaves_nothing_behind() {
        let mut server = Xvfb::start();
        let (drawings, picture) = server.picture_left();
        assert_eq!((drawings, picture.size(), picture.distinct_colours()), (0, (640, 480), 1));
        let socket = format!("/tmp/.X11-unix/X{}", server.number);
        assert!(Path::new(&socket).exists());
        let scratch = server.server.scratch.path().to_owned();
        drop(server);
        assert!(!Path::new(&socket).exists(), "{socket} is left");
        assert!(!scratch.exists(), "{} is left", scratch.display());
    }

    #[test]
    fn a_compositor_leaves_nothing_behind() {
        let server = Weston::start();
        let scratch = server.server.scratch.path().to_owned();
        assert!(scratch.join(SOCKET).exists());
        drop(server);
        assert!(!scratch.exists(), "{} is left", scratch.display());
    }
}
