//! Host accesses to mapped memory, by each means.

use crate::program::{Means, Pieces, Value};
use std::ffi::c_void;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::thread::JoinHandle;

/// What the kernel copies from and to.
pub(super) struct Scratch {
    file: File,
    reader: PipeReader,
    writer: PipeWriter,
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

impl Scratch {
    pub(super) fn new() -> Result<Self, String> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create("coherency-fuzz", flags).map_err(|error| error.to_string())?;
        let (reader, writer) = std::io::pipe().map_err(failed("pipe"))?;
        Ok(Self { file: file.into(), reader, writer })
    }

    /// Writes `value` to the pieces of what is mapped at `base`.
    ///
    /// # Safety
    /// The pieces must lie inside the mapping, and nobody else may access them now.
    pub(super) unsafe fn write(
        &self,
        base: *mut u8,
        pieces: Pieces,
        means: Means,
        value: Value,
    ) -> Result<(), String> {
        let bytes: Vec<u8> = (0..pieces.len * pieces.count).map(|index| value.at(index)).collect();
        let places = pieces.iter().map(|range| base.wrapping_add(range.start as usize));
        let len = pieces.len as usize;
        if means == Means::File {
            self.file.write_all_at(&bytes, 0).map_err(failed("pwrite"))?;
        }
        for (index, (place, bytes)) in places.zip(bytes.chunks_exact(len)).enumerate() {
            match (means, value) {
                // SAFETY: the caller's promise.
                (Means::Single, _) => unsafe { store(place, bytes) },
                // SAFETY: as above.
                (Means::Bulk, Value::Same(byte)) => unsafe { place.write_bytes(byte, len) },
                // SAFETY: as above; `bytes` is as long.
                (Means::Bulk, _) => unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), len) },
                (Means::File, _) => {
                    let (fd, at) = (self.file.as_raw_fd(), (index * len) as libc::off_t);
                    // SAFETY: as above.
                    expect(len, unsafe { libc::pread(fd, place.cast(), len, at) }, "pread")?;
                }
                (Means::Pipe, _) => {
                    (&self.writer).write_all(bytes).map_err(failed("write"))?;
                    let fd = self.reader.as_raw_fd();
                    // SAFETY: as above.
                    expect(len, unsafe { libc::read(fd, place.cast(), len) }, "read")?;
                }
            }
        }
        Ok(())
    }

    /// Reads the pieces of what is mapped at `base`.
    ///
    /// # Safety
    /// The pieces must lie inside the mapping, and nobody may write them now.
    pub(super) unsafe fn read(
        &self,
        base: *const u8,
        pieces: Pieces,
        means: Means,
    ) -> Result<Vec<u8>, String> {
        let len = pieces.len as usize;
        let mut bytes = vec![0; len * pieces.count as usize];
        let places = pieces.iter().map(|range| base.wrapping_add(range.start as usize));
        for (place, bytes) in places.zip(bytes.chunks_exact_mut(len)) {
            let at: *const c_void = place.cast();
            match means {
                // SAFETY: the caller's promise.
                Means::Single => unsafe { load(place, bytes) },
                // SAFETY: as above; `bytes` is as long.
                Means::Bulk => unsafe { place.copy_to_nonoverlapping(bytes.as_mut_ptr(), len) },
                Means::File => {
                    let fd = self.file.as_raw_fd();
                    // SAFETY: as above.
                    expect(len, unsafe { libc::pwrite(fd, at, len, 0) }, "pwrite")?;
                    self.file.read_exact_at(bytes, 0).map_err(failed("pread"))?;
                }
                Means::Pipe => {
                    let fd = self.writer.as_raw_fd();
                    // SAFETY: as above.
                    expect(len, unsafe { libc::write(fd, at, len) }, "write")?;
                    (&self.reader).read_exact(bytes).map_err(failed("read"))?;
                }
            }
        }
        Ok(bytes)
    }
}

/// What a system call on mapped memory returned must be all of it.
fn expect(wanted: usize, returned: isize, call: &str) -> Result<(), String> {
    if usize::try_from(returned) == Ok(wanted) {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!("{call}(2) of {wanted} bytes at mapped memory returned {returned} (errno: {error})"))
}

/// Stores 1, 2, 4 or 8 bytes at once.
///
/// # Safety
/// `place` must be valid for writes of as many.
unsafe fn store(place: *mut u8, bytes: &[u8]) {
    // SAFETY: the caller's promise; unaligned where it has to be.
    unsafe {
        if let Ok(bytes) = bytes.try_into() {
            write_as(place.cast(), u64::from_ne_bytes(bytes));
        } else if let Ok(bytes) = bytes.try_into() {
            write_as(place.cast(), u32::from_ne_bytes(bytes));
        } else if let Ok(bytes) = bytes.try_into() {
            write_as(place.cast(), u16::from_ne_bytes(bytes));
        } else {
            place.write_volatile(bytes[0]);
        }
    }
}

/// # Safety
/// `place` must be valid for writes, aligned or not.
unsafe fn write_as<T>(place: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { if place.is_aligned() { place.write_volatile(value) } else { place.write_unaligned(value) } }
}

/// Loads 1, 2, 4 or 8 bytes at once.
///
/// # Safety
/// `place` must be valid for reads of as many.
unsafe fn load(place: *const u8, bytes: &mut [u8]) {
    // SAFETY: the caller's promise; unaligned where it has to be.
    unsafe {
        match bytes.len() {
            8 => bytes.copy_from_slice(&read_as::<u64>(place.cast()).to_ne_bytes()),
            4 => bytes.copy_from_slice(&read_as::<u32>(place.cast()).to_ne_bytes()),
            2 => bytes.copy_from_slice(&read_as::<u16>(place.cast()).to_ne_bytes()),
            _ => bytes[0] = place.read_volatile(),
        }
    }
}

/// # Safety
/// `place` must be valid for reads, aligned or not.
unsafe fn read_as<T>(place: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { if place.is_aligned() { place.read_volatile() } else { place.read_unaligned() } }
}

/// Starts threads that write the pieces of what is mapped at `base` in turn, `rounds` times; last with noise of `seed`.
///
/// # Safety
/// The pieces must lie inside the mapping, and nobody else may access them until the threads have ended.
pub(super) unsafe fn spawn(
    base: *mut u8,
    pieces: Pieces,
    threads: u32,
    rounds: u32,
    seed: u32,
) -> Vec<JoinHandle<()>> {
    let base = base as usize;
    let work = move |thread: u32| {
        for round in (0..rounds).rev() {
            let value = Value::Noise(seed.wrapping_sub(round));
            let mine = (0..).zip(pieces.iter()).filter(|(index, _)| index % threads == thread);
            for (index, piece) in mine {
                for (byte, at) in piece.enumerate() {
                    let place = (base + at as usize) as *mut u8;
                    // SAFETY: the caller's promise; a piece of this thread's.
                    unsafe { place.write_volatile(value.at(index * pieces.len + byte as u32)) };
                }
            }
            std::thread::yield_now();
        }
    };
    (0..threads).map(|thread| std::thread::spawn(move || work(thread))).collect()
}
