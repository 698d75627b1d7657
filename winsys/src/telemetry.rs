//! What Tidemark did for a process: counters in a page of shared memory.
//!
//! With a directory given, the page is a file `<pid>.tidemark` in it, so that another process can read it
//! live, and after the application ended, however it ended. Counting is one relaxed addition.

use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Extension of the files.
pub const EXTENSION: &str = "tidemark";

/// First word of a file: name and version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"tidemrk1");

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal;)+) => {
        /// What is counted. Totals since the process first used Tidemark.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[doc = $doc])+ $name,)+ }

        impl Counter {
            /// All of them, in the order of the file.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name for people and machines.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

counters! {
    /// Allocations of emulated memory types.
    Allocations = "allocations";
    /// Their bytes.
    AllocatedBytes = "allocated bytes";
    /// Times the application mapped one.
    Maps = "maps";
    /// Queue submissions, presents and host signals: each a flush.
    Submits = "submits";
    /// Waits that ended, and queries that found work done: each a readback.
    Waits = "waits";
    /// Pages the tracker reported written, or had to suspect.
    PagesWritten = "pages found dirty";
    /// Bytes that had changed in them, and went to the device.
    BytesFlushed = "bytes flushed";
    /// Bytes the device had changed, and that came to the host.
    BytesReadBack = "bytes read back";
    /// Time spent in flushes.
    FlushNanoseconds = "flush ns";
    /// Time spent in readbacks.
    ReadbackNanoseconds = "readback ns";
}

const COUNTERS: usize = Counter::ALL.len();

/// The file's layout. Text fields are zero-padded UTF-8, stored before `magic`.
#[repr(C)]
struct Page {
    magic: AtomicU64,
    values: [AtomicU64; COUNTERS],
    application: [u8; 64],
    device: [u8; 256],
    tracker: [u8; 32],
}

/// This process's counters.
pub struct Profile {
    page: &'static Page,
}

impl Profile {
    /// Counters nobody else sees.
    pub fn private() -> Self {
        Self {
            page: Box::leak(Box::new(Page {
                magic: AtomicU64::new(MAGIC),
                values: [const { AtomicU64::new(0) }; COUNTERS],
                application: [0; 64],
                device: [0; 256],
                tracker: [0; 32],
            })),
        }
    }

    /// Counters in `directory`, for a process that drives `device` and tracks by `tracker`.
    ///
    /// # Errors
    /// The file cannot be created or mapped.
    pub fn shared(directory: &Path, device: &str, tracker: &str) -> io::Result<Self> {
        let path = directory.join(format!("{}.{EXTENSION}", std::process::id()));
        // A process that unloads the driver and loads it again goes on counting where it was.
        let file = rustix::fs::open(
            path,
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )?;
        rustix::fs::ftruncate(&file, size_of::<Page>() as u64)?;
        let page = map(&file, ProtFlags::READ | ProtFlags::WRITE)?;
        let name = std::env::current_exe().ok();
        let name = name.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        // SAFETY: the fields of a live, writable mapping of a whole `Page`; readers look at them only after
        // they have seen `magic`. Raw pointers, since the file may be mapped elsewhere.
        unsafe {
            store_text((&raw mut (*page).application).cast(), 64, &name);
            store_text((&raw mut (*page).device).cast(), 256, device);
            store_text((&raw mut (*page).tracker).cast(), 32, tracker);
        }
        // SAFETY: the mapping is never unmapped; from here on only its atomics are used.
        let page = unsafe { &*page };
        page.magic.store(MAGIC, Ordering::Release);
        Ok(Self { page })
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, amount: u64) {
        self.page.values[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// A counter's value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.page.values[counter as usize].load(Ordering::Relaxed)
    }
}

/// A process's counters, as read from its file.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The process.
    pub pid: u32,
    /// Name of its executable.
    pub application: String,
    /// The device it drives.
    pub device: String,
    /// The tracker it uses.
    pub tracker: String,
    values: [u64; COUNTERS],
}

impl Snapshot {
    /// Reads one file.
    ///
    /// # Errors
    /// `InvalidData` when it is not one of ours, or not ready yet; otherwise the kernel's refusal.
    pub fn read(path: &Path) -> io::Result<Self> {
        let pid = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // A mapping past the end of the file would be a SIGBUS to read.
        if rustix::fs::fstat(&file)?.st_size < i64::try_from(size_of::<Page>()).unwrap_or(i64::MAX) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let page = map(&file, ProtFlags::READ)?;
        // SAFETY: a whole, readable `Page`, of which only atomics are read through the reference; text is
        // copied out by raw reads, and was complete before `magic` was.
        let snapshot = unsafe {
            ((*page).magic.load(Ordering::Acquire) == MAGIC).then(|| Self {
                pid,
                application: load_text((&raw const (*page).application).cast(), 64),
                device: load_text((&raw const (*page).device).cast(), 256),
                tracker: load_text((&raw const (*page).tracker).cast(), 32),
                values: std::array::from_fn(|i| (*page).values[i].load(Ordering::Relaxed)),
            })
        };
        // SAFETY: our own mapping, to which nothing refers any more.
        unsafe { rustix::mm::munmap(page.cast(), size_of::<Page>()) }?;
        snapshot.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads every file in `directory`, ordered by process. Files that are not ours are passed over.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read_all(directory: &Path) -> io::Result<Vec<Self>> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        let mut snapshots: Vec<Self> = paths.iter().filter_map(|path| Self::read(path).ok()).collect();
        snapshots.sort_by_key(|snapshot| snapshot.pid);
        Ok(snapshots)
    }

    /// A counter's value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}

fn map(file: &OwnedFd, protection: ProtFlags) -> io::Result<*mut Page> {
    // SAFETY: a new mapping at an address the kernel chooses.
    let base = unsafe {
        rustix::mm::mmap(ptr::null_mut(), size_of::<Page>(), protection, MapFlags::SHARED, file, 0)
    }?;
    Ok(base.cast())
}

/// # Safety
/// `at` must be valid for writes of `room` bytes.
unsafe fn store_text(at: *mut u8, room: usize, text: &str) {
    let len = text.len().min(room - 1);
    // SAFETY: the caller's promise; the last byte stays a zero.
    unsafe {
        ptr::write_bytes(at, 0, room);
        ptr::copy_nonoverlapping(text.as_ptr(), at, len);
    }
}

/// # Safety
/// `at` must be valid for reads of `room` bytes.
unsafe fn load_text(at: *const u8, room: usize) -> String {
    let mut bytes = vec![0; room];
    // SAFETY: the caller's promise; the vector is as long.
    unsafe { ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), room) };
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(room);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_sees_the_counts_and_the_names() {
        let directory = std::env::temp_dir().join(format!("tidemark-telemetry-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let profile = Profile::shared(&directory, "a device", "compare").unwrap();
        profile.add(Counter::BytesFlushed, 40);
        profile.add(Counter::BytesFlushed, 2);
        std::fs::write(directory.join("1.tidemark"), "not ours").unwrap();
        let snapshots = Snapshot::read_all(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(snapshots.len(), 1);
        assert_eq!(snapshots[0].pid, std::process::id());
        assert_eq!(snapshots[0].get(Counter::BytesFlushed), 42);
        assert_eq!(snapshots[0].get(Counter::Waits), 0);
        assert_eq!((&*snapshots[0].device, &*snapshots[0].tracker), ("a device", "compare"));
    }
}
