//! What a view in place must keep, on memory whose lines are told by hand.

use super::*;
use crate::host_memory::{Arena, HostMemory};
use crate::tracker::{Compare, CopyAll, WriteProtect};

const ATOM: usize = 64;
const PAGE: usize = 4096;

/// The host's pages, and the device's bytes, joined by flush and invalidate alone.
struct Lines {
    host: HostMemory,
    device: Arc<Mutex<Vec<u8>>>,
    is_coherent: bool,
}

impl Lines {
    fn bytes(&self, range: Range<usize>) -> *mut u8 {
        assert!(range.start.is_multiple_of(ATOM), "{range:?}");
        assert!(range.end.is_multiple_of(ATOM) || range.end == self.len(), "{range:?}");
        self.host.view().wrapping_add(range.start)
    }
}

// SAFETY: the host's pages live as long as it does.
unsafe impl DeviceMemory for Lines {
    fn address(&self) -> *mut u8 {
        self.host.view()
    }

    fn len(&self) -> usize {
        self.device.hold().len()
    }

    fn is_coherent(&self) -> bool {
        self.is_coherent
    }

    fn invalidate(&self, range: Range<usize>) {
        let bytes = self.bytes(range.clone());
        let device = &self.device.hold()[range];
        // SAFETY: within the host's pages.
        unsafe { bytes.copy_from_nonoverlapping(device.as_ptr(), device.len()) };
    }

    fn flush(&self, range: Range<usize>) {
        let bytes = self.bytes(range.clone());
        let device = &mut self.device.hold()[range];
        // SAFETY: within the host's pages.
        unsafe { bytes.copy_to_nonoverlapping(device.as_mut_ptr(), device.len()) };
    }
}

struct Pair {
    view: InPlace,
    device: Arc<Mutex<Vec<u8>>>,
}

impl Pair {
    /// Memory full of ones.
    fn new(len: usize, tracker: Arc<dyn Tracker>) -> Self {
        // The pages of an arena that watches nothing: whether they are watched is what this is about.
        let host = Arena::new(Arc::new(Compare)).allocate(len).unwrap();
        let device = Arc::new(Mutex::new(vec![1; len]));
        let lines = Lines { host, device: device.clone(), is_coherent: false };
        Self { view: InPlace::new(Box::new(lines), ATOM, &tracker), device }
    }

    fn store(&self, at: usize, value: u8) {
        // SAFETY: within the view.
        unsafe { self.view.view().add(at).write_volatile(value) }
    }

    fn load(&self, at: usize) -> u8 {
        // SAFETY: as above.
        unsafe { self.view.view().add(at).read_volatile() }
    }

    fn device(&self, at: usize) -> u8 {
        self.device.hold()[at]
    }
}

fn trackers() -> [Arc<dyn Tracker>; 4] {
    let write_protect = WriteProtect::new().expect("this kernel has no write-protect tracking");
    [Arc::new(Compare), Arc::new(CopyAll), Arc::new(Blind), Arc::new(write_protect)]
}

/// Sees no write, and says so of none: as the kernel does with some mappings of drivers.
struct Blind;

impl Tracker for Blind {
    fn name(&self) -> &'static str {
        "blind"
    }

    fn collect(&self, _: Span, _: &mut Vec<Span>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_side_finds_what_the_other_wrote() {
    for tracker in trackers() {
        let name = tracker.name();
        // The last page is not the mapping's to its end.
        let pair = Pair::new(3 * PAGE + 100, tracker);
        assert_eq!([pair.load(0), pair.load(3 * PAGE + 99)], [1, 1], "{name}");
        for at in [5, PAGE - 1, 3 * PAGE + 99] {
            pair.store(at, 7);
            pair.view.flush(0..usize::MAX);
            assert_eq!(pair.device(at), 7, "{name}, {at}");
        }
        pair.view.share(0..usize::MAX);
        pair.device.hold()[2 * PAGE] = 9;
        pair.view.readback(0..usize::MAX);
        assert_eq!((pair.load(2 * PAGE), pair.load(5)), (9, 7), "{name}");
    }
}

#[test]
fn other_atoms_keep_what_was_not_flushed_and_what_was_not_read_back() {
    for tracker in trackers() {
        let name = tracker.name();
        let pair = Pair::new(2 * PAGE, tracker);
        pair.view.share(0..usize::MAX);
        pair.store(3, 7);
        pair.device.hold()[ATOM] = 9;
        pair.view.readback(0..usize::MAX);
        assert_eq!((pair.load(3), pair.load(ATOM), pair.device(3)), (7, 9, 7), "{name}");
        pair.device.hold()[ATOM] = 10;
        pair.store(2 * ATOM, 8);
        pair.view.flush(0..usize::MAX);
        assert_eq!((pair.device(2 * ATOM), pair.device(ATOM)), (8, 10), "{name}");
    }
}

#[test]
fn coherent_memory_and_retired_views_are_left_alone() {
    let host = Arena::new(Arc::new(Compare)).allocate(PAGE).unwrap();
    let device = Arc::new(Mutex::new(vec![1; PAGE]));
    let lines = Lines { host, device: device.clone(), is_coherent: true };
    let tracker: Arc<dyn Tracker> = Arc::new(Compare);
    let view = InPlace::new(Box::new(lines), ATOM, &tracker);
    let traffic = [view.flush(0..PAGE), view.share(0..PAGE), view.readback(0..PAGE)];
    assert_eq!((traffic, device.hold()[0]), ([Traffic::default(); 3], 1));

    for tracker in trackers() {
        let pair = Pair::new(PAGE, tracker);
        pair.store(0, 7);
        pair.view.retire();
        pair.view.flush(0..PAGE);
        assert_eq!(pair.device(0), 1);
    }
}
