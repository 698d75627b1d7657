//! What Tidemark did for a process: counters in a page of shared memory.
//!
//! With a directory given, the page is a file `<pid>.tidemark` in it, so that another process can read it
//! live, and after the application ended, however it ended. Counting is one relaxed addition.
//!
//! A process that unloads the driver and loads it again goes on counting where it was. A forked child that goes on
//! using its parent's devices counts into its parent's file, since it has the page, too.

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Resource;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Extension of the files.
pub const EXTENSION: &str = "tidemark";

/// First word of a file: name and version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"tidemrk3");

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
    /// Pages copied without asking the tracker, since they are written nearly every time.
    PagesUntracked = "pages untracked";
    /// Times an allocation began to be copied whole, or to be tracked again.
    Switches = "policy switches";
    /// Bytes that had changed in them, and went to the device.
    BytesFlushed = "bytes flushed";
    /// Bytes the device had changed, and that came to the host.
    BytesReadBack = "bytes read back";
    /// Pages brought in when the application touched them, and compared only then.
    PagesFetched = "pages fetched";
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
    /// When the process started, so that a later one of the same number is told apart.
    started: AtomicU64,
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
    /// Counters in `directory`, for a process that drives `device` and tracks by `tracker`.
    ///
    /// # Errors
    /// The file cannot be created, given its space, or mapped.
    pub fn shared(directory: &Path, device: &str, tracker: &str) -> io::Result<Self> {
        Self::since(directory, device, tracker, start_time())
    }

    /// As [`shared`](Self::shared), for a process that started at `started`, if that is known.
    fn since(directory: &Path, device: &str, tracker: &str, started: Option<u64>) -> io::Result<Self> {
        let path = directory.join(format!("{}.{EXTENSION}", std::process::id()));
        let page = match started.and_then(|started| reopen(&path, started)) {
            Some(page) => page,
            None => map(&create(&path)?, ProtFlags::READ | ProtFlags::WRITE)?,
        };
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
        page.started.store(started.unwrap_or(0), Ordering::Relaxed);
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
        let page = map_whole(&file, ProtFlags::READ)?;
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

/// When this process started, in clock ticks since the system did.
fn start_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the executable's name, in parentheses, and may hold anything. The start time is field 22.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// The page of an earlier life of the driver in this process; `None` if the file is not its.
fn reopen(path: &Path, started: u64) -> Option<*mut Page> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let page = map_whole(&file, ProtFlags::READ | ProtFlags::WRITE).ok()?;
    // SAFETY: a whole `Page`, of which only atomics are read.
    let is_ours = unsafe {
        (*page).magic.load(Ordering::Acquire) == MAGIC && (*page).started.load(Ordering::Relaxed) == started
    };
    if !is_ours {
        // SAFETY: our own mapping, to which nothing refers any more.
        let _ = unsafe { rustix::mm::munmap(page.cast(), size_of::<Page>()) };
    }
    is_ours.then_some(page)
}

/// A new file of zeros, in the place of whatever had its name. Its space is taken at once: a store to a mapping that
/// the file system has no room for would be a SIGBUS.
fn create(path: &Path) -> io::Result<OwnedFd> {
    let len = size_of::<Page>() as u64;
    // A file beyond this would be a SIGXFSZ, which ends the process.
    if rustix::process::getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < len) {
        return Err(Errno::FBIG.into());
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    let reserved = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        // Where the file system cannot reserve space, zeros have to take it.
        Err(Errno::OPNOTSUPP) => {
            file.try_clone().and_then(|file| File::from(file).write_all(&[0; size_of::<Page>()]))
        }
        outcome => outcome.map_err(io::Error::from),
    };
    if let Err(error) = reserved {
        let _ = rustix::fs::unlink(path);
        return Err(error);
    }
    Ok(file)
}

/// Maps a file that may not be a whole page of counters.
fn map_whole(file: &OwnedFd, protection: ProtFlags) -> io::Result<*mut Page> {
    // A mapping past the end of the file would be a SIGBUS to read.
    if rustix::fs::fstat(file)?.st_size < i64::try_from(size_of::<Page>()).unwrap_or(i64::MAX) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    map(file, protection)
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
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::char::range;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    /// A folder of one test's own, removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tidemark-telemetry-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    proptest! {
        #[test]
        fn text_comes_back_as_far_as_there_is_room(text in vec(range('\u{1}', char::MAX), 0..40), room in 1..80usize) {
            let text = String::from_iter(text);
            let mut bytes = vec![0xEE; room + 1];
            // SAFETY: there is that much room.
            let loaded = unsafe {
                store_text(bytes.as_mut_ptr(), room, &text);
                load_text(bytes.as_ptr(), room)
            };
            prop_assert_eq!(loaded, String::from_utf8_lossy(&text.as_bytes()[..text.len().min(room - 1)]));
            prop_assert_eq!(&bytes[room - 1..], [0, 0xEE]);
        }
    }

    #[test]
    fn another_reader_sees_the_counts_and_the_names() {
        let folder = Folder::new("reader");
        let profile = Profile::shared(&folder.0, "a device", "compare").unwrap();
        profile.add(Counter::BytesFlushed, 40);
        profile.add(Counter::BytesFlushed, 2);
        std::fs::write(folder.0.join("1.tidemark"), "not ours").unwrap();
        let snapshots = Snapshot::read_all(&folder.0).unwrap();
        assert_eq!(snapshots.len(), 1);
        assert_eq!(snapshots[0].pid, std::process::id());
        assert_eq!(snapshots[0].get(Counter::BytesFlushed), 42);
        assert_eq!(snapshots[0].get(Counter::Waits), 0);
        assert_eq!((&*snapshots[0].device, &*snapshots[0].tracker), ("a device", "compare"));
    }

    #[test]
    fn the_same_process_counts_on_and_another_of_its_number_does_not() {
        let folder = Folder::new("again");
        let started = start_time();
        assert!(started.is_some_and(|ticks| ticks > 0));
        let first = Profile::shared(&folder.0, "a device", "compare").unwrap();
        first.add(Counter::Waits, 1);
        let reloaded = Profile::shared(&folder.0, "a device", "compare").unwrap();
        reloaded.add(Counter::Waits, 1);
        assert_eq!(first.get(Counter::Waits), 2);
        for other in [started.map(|ticks| ticks + 1), None] {
            let other = Profile::since(&folder.0, "a device", "compare", other).unwrap();
            assert_eq!(other.get(Counter::Waits), 0);
        }
        assert_eq!(Snapshot::read_all(&folder.0).unwrap()[0].get(Counter::Waits), 0);
        assert_eq!(first.get(Counter::Waits), 2);
    }

    #[test]
    fn a_file_has_its_space_before_it_is_mapped() {
        let folder = Folder::new("space");
        let file = create(&folder.0.join("1.tidemark")).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert_eq!(usize::try_from(stat.st_size).unwrap(), size_of::<Page>());
        assert!(usize::try_from(stat.st_blocks).unwrap() * 512 >= size_of::<Page>());
    }

    #[test]
    fn a_limit_on_file_sizes_is_an_error_not_a_signal() {
        const FOLDER: &str = "TIDEMARK_TEST_FOLDER";
        if let Some(folder) = std::env::var_os(FOLDER) {
            let error = Profile::shared(Path::new(&folder), "a device", "compare").err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            return;
        }
        let folder = Folder::new("limit");
        let test = "telemetry::tests::a_limit_on_file_sizes_is_an_error_not_a_signal";
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -f 0; exec \"$0\" --exact {test}"))
            .arg(std::env::current_exe().unwrap())
            .env(FOLDER, &folder.0)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }
}
