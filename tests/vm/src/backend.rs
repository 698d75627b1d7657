//! Tidemark's own host memory on the driver: what it costs, in counts; and that it is memory whatever happens.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use tidemark_winsys::drm::Objects;
use tidemark_winsys::tracker::{Choice, Counters, Method, WriteProtect};
use tidemark_winsys::{Arena, Contents, Costs, Device, DeviceMemory, Leave, Mirror, Traffic, Treatment};

use crate::device::{PAGE, View};

/// Memory of a device, which the CPU reaches.
#[derive(Clone)]
struct Memory(Arc<View>);

// SAFETY: all of a mapping that lives as long as this.
unsafe impl DeviceMemory for Memory {
    fn address(&self) -> *mut u8 {
        self.0.at(0)
    }

    fn len(&self) -> usize {
        self.0.size()
    }
}

/// A mirror, and the memory it mirrors.
struct Mirrored {
    mirror: Mirror,
    memory: Memory,
}

impl Mirrored {
    fn new(arena: &Arena, costs: Option<Costs>, pages: usize) -> Self {
        let memory = Memory(Arc::new(View::anonymous(pages)));
        let device = Device::Mapped(Box::new(memory.clone()));
        let mirror = Mirror::new(arena, costs, device, Contents::Undefined).expect("no host memory");
        Self { mirror, memory }
    }

    fn set(&self, at: usize, value: u8) {
        // SAFETY: the callers stay inside the mirror.
        unsafe { self.mirror.view().add(at).write_volatile(value) }
    }

    fn get(&self, at: usize) -> u8 {
        // SAFETY: as above.
        unsafe { self.mirror.view().add(at).read_volatile() }
    }

    fn flush(&self) -> Traffic {
        self.mirror.flush(0..self.mirror.len())
    }

    fn counters(&self) -> Counters {
        self.mirror.tracker().counters().expect("nothing counts")
    }

    /// Writes to pages, flushes, and looks whether all of it arrived.
    fn round(&self, pages: impl Iterator<Item = usize> + Clone, value: u8) -> Traffic {
        // More than once: only the first may cost something.
        for at in 1..4 {
            pages.clone().for_each(|page| self.set(page * PAGE + at, value));
        }
        let traffic = self.flush();
        for page in pages {
            assert_eq!([1, 3].map(|at| self.memory.0.get(page * PAGE + at)), [value; 2], "page {page}");
        }
        traffic
    }
}

fn arena(method: Option<Method>) -> Arena {
    let tracker = Arc::new(WriteProtect::new().expect("no write-protect tracking"));
    Arena::new(tracker).of_objects(Objects::open(method).expect("no objects"))
}

pub fn mkwrite_faults_once_a_page_and_round() {
    let mirrored = Mirrored::new(&arena(Some(Method::Mkwrite)), None, 64);
    assert_eq!(mirrored.mirror.tracker().name(), "mkwrite");
    for round in 1..=5 {
        let traffic = mirrored.round((0..8).map(|page| page * 4), round);
        assert_eq!((traffic.pages, traffic.bytes), (8, 8 * PAGE as u64));
        let Counters { write_faults, scanned_pages, .. } = mirrored.counters();
        assert_eq!((write_faults, scanned_pages), (8 * u64::from(round), 8 * u64::from(round)));
    }
}

pub fn dirty_bits_fault_not_at_all() {
    let mirrored = Mirrored::new(&arena(Some(Method::DirtyBits)), None, 64);
    assert_eq!(mirrored.mirror.tracker().name(), "dirty-bits");
    mirrored.round(0..16, 1);
    let before = mirrored.counters();
    for round in 2..=6 {
        assert_eq!(mirrored.round(0..8, round).pages, 8);
        let Counters { faults, write_faults, scanned_pages, .. } = mirrored.counters();
        assert_eq!((faults, write_faults), (before.faults, before.write_faults));
        assert_eq!(scanned_pages, before.scanned_pages + 16 * (u64::from(round) - 1));
    }
}

/// By prices that are made up. So few pages are written at a time that none is measured.
pub fn the_policy_goes_by_density() {
    const COSTS: Costs =
        Costs { call: 400.0, look: 1.0, first: 500.0, fault: 700.0, dirty_bit: Some(30.0), copy: 400.0 };
    const PAGES: usize = 64;
    let dense = |round: usize| (0..7).map(move |page| (round * 7 + page) % PAGES);
    let sparse = |round: usize| std::iter::once(round * 5 % PAGES);
    let mirrored = Mirrored::new(&arena(None), Some(COSTS), PAGES);
    let mut switches = 0;
    let mut round = 0;
    let mut value = 0;
    let mut run = |rounds: Range<usize>, is_dense: bool| {
        for number in rounds {
            value = if value == u8::MAX { 1 } else { value + 1 };
            let traffic = if is_dense {
                mirrored.round(dense(number), value)
            } else {
                mirrored.round(sparse(number), value)
            };
            switches += usize::from(traffic.switch.is_some());
            round += 1;
        }
        switches
    };
    let page_by_page = Some(Treatment::ByPage { hot: 0 });
    assert_eq!(mirrored.mirror.treatment(), page_by_page);

    assert_eq!(run(0..40, true), 1);
    assert_eq!(mirrored.mirror.treatment(), Some(Treatment::ByDirtyBits));
    let before = mirrored.counters();
    run(40..60, true);
    let after = mirrored.counters();
    assert_eq!(after.write_faults, before.write_faults, "all pages were written before");
    assert_eq!(after.scanned_pages, before.scanned_pages + 20 * PAGES as u64);

    assert_eq!(run(60..1000, false), 2);
    assert_eq!(mirrored.mirror.treatment(), page_by_page);
    let before = mirrored.counters();
    run(1000..1020, false);
    let after = mirrored.counters();
    assert_eq!(after.write_faults, before.write_faults + 20);
    assert_eq!(after.scanned_pages, before.scanned_pages + 20);

    assert_eq!(run(1020..1300, true), 3);
    assert_eq!(mirrored.mirror.treatment(), Some(Treatment::ByDirtyBits));
}

/// Two buffers of one arena, each as it is used.
pub fn each_buffer_has_its_own_way() {
    let arena = arena(None);
    let costs = Costs::measure(&arena).expect("nothing to measure");
    assert!(costs.dirty_bit.is_some(), "{costs:?}");
    let costs =
        Costs { call: 400.0, look: 1.0, first: 500.0, fault: 700.0, dirty_bit: Some(30.0), copy: 400.0 };
    let [dense, idle] = [0; 2].map(|_| Mirrored::new(&arena, Some(costs), 64));
    for round in 0..40 {
        dense.round((0..7).map(|page| (round * 7 + page) % 64), 1);
        idle.round(std::iter::once(round % 64), 1);
    }
    assert_eq!(dense.mirror.treatment(), Some(Treatment::ByDirtyBits));
    assert_eq!(idle.mirror.treatment(), Some(Treatment::ByPage { hot: 0 }));
}

/// More parts than one call takes, and more ranges than one returns.
pub fn parts() {
    const PAGES: usize = 1000;
    for method in [Method::Mkwrite, Method::DirtyBits] {
        let mirrored = Mirrored::new(&arena(Some(method)), None, PAGES);
        let (base, tracker) = (mirrored.mirror.view() as usize, mirrored.mirror.tracker());
        let spans = |pages: &mut dyn Iterator<Item = usize>| -> Vec<Range<usize>> {
            pages.map(|page| base + page * PAGE..base + (page + 1) * PAGE).collect()
        };
        (0..PAGES).for_each(|page| mirrored.set(page * PAGE, 1));
        let odd = spans(&mut (1..PAGES).step_by(2));
        let mut found = Vec::new();
        tracker.collect_parts(&odd, &mut found).expect("cannot collect");
        assert!(found == odd, "{found:?}");
        found.clear();
        tracker.collect(base..base + PAGES * PAGE, &mut found).expect("cannot collect");
        assert!(found == spans(&mut (0..PAGES).step_by(2)), "{found:?}");
    }
}

pub fn placed_views() {
    for method in [Method::Mkwrite, Method::DirtyBits] {
        let mirrored = Mirrored::new(&arena(Some(method)), None, 8);
        mirrored.round(0..8, 1);
        let room = View::anonymous(4);
        mirrored.set(3 * PAGE + 9, 1);
        // SAFETY: the room is the test's own.
        unsafe { mirrored.mirror.place(room.at(0), 2 * PAGE..6 * PAGE) }.expect("cannot place");
        room.set(PAGE + 10, 2);
        room.set(3 * PAGE, 3);
        assert_eq!(mirrored.flush().pages, 2);
        assert_eq!(
            [(3, 9), (3, 10), (5, 0)].map(|(page, at)| mirrored.memory.0.get(page * PAGE + at)),
            [1, 2, 3]
        );
        assert_eq!(mirrored.flush().pages, 0);
        // What the device writes is there, and no write of the host's.
        mirrored.mirror.share(0..8 * PAGE);
        mirrored.memory.0.set(2 * PAGE + 5, 7);
        assert_eq!(mirrored.mirror.readback(0..8 * PAGE).bytes, 1);
        assert_eq!((room.get(5), mirrored.get(2 * PAGE + 5)), (7, 7));
        assert_eq!(mirrored.flush().pages, 0);
        room.set(2 * PAGE, 4);
        assert!(mirrored.mirror.unplace(Leave::Reservation).expect("cannot unplace"));
        assert_eq!(mirrored.flush().pages, 1);
        assert_eq!(mirrored.memory.0.get(4 * PAGE), 4);
    }
}

/// What a child writes counts; what it leaves behind does not.
pub fn forked_children() {
    let arena = arena(Some(Method::Mkwrite));
    let mirrored = Mirrored::new(&arena, None, 4);
    mirrored.round(0..4, 1);
    mirrored.set(0, 5);
    // SAFETY: the child makes system calls, allocates, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        mirrored.set(2 * PAGE, 6);
        let other = Mirrored::new(&arena, None, 1);
        let is_other = other.mirror.tracker().counters().is_none();
        // It would clear what its parent has not seen.
        mirrored.flush();
        drop((other, mirrored));
        // SAFETY: ends the child.
        unsafe { libc::_exit(if is_other { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: this process's child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(mirrored.flush().pages, 2);
    assert_eq!([0, 2].map(|page| mirrored.memory.0.get(page * PAGE)), [5, 6]);
    assert_eq!(mirrored.round(0..4, 7).pages, 4);
}

/// Writes that race with flushes, while the method changes by every flush.
pub fn races() {
    let mirrored = Mirrored::new(&arena(None), None, 64);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0u8;
            while !is_over.load(Ordering::Relaxed) {
                round = round.wrapping_add(1);
                (0..64).step_by(3).for_each(|page| mirrored.set(page * PAGE + usize::from(round), round));
            }
        });
        for method in [Method::DirtyBits, Method::Mkwrite].into_iter().cycle().take(100) {
            mirrored.mirror.tracker().set_method(method).expect("no other method");
            mirrored.flush();
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("the writer failed");
    });
    mirrored.flush();
    for at in (0..64).step_by(3).flat_map(|page| page * PAGE..(page + 1) * PAGE) {
        assert_eq!(mirrored.memory.0.get(at), mirrored.get(at), "byte {at}");
    }
}

/// A device that goes takes no byte along, and the stock kernel has what comes afterwards.
pub fn unplug() {
    let arena = Arena::select(Choice::Auto);
    assert_eq!(arena.tracking(), "mkwrite, dirty-bits");
    let before = Mirrored::new(&arena, None, 4);
    before.round(0..4, 1);
    before.set(PAGE, 9);
    fs::write("/sys/bus/platform/drivers/tidemark/unbind", "tidemark").unwrap();
    before.set(2 * PAGE, 9);
    before.flush();
    assert_eq!([1, 2].map(|page| before.memory.0.get(page * PAGE)), [9; 2]);
    before.round(0..4, 2);

    let after = Mirrored::new(&arena, None, 4);
    assert_eq!(after.mirror.tracker().name(), "write-protect");
    // Pages that were never touched may count as written there.
    after.round(0..4, 3);
    assert_eq!(after.round(1..3, 4).pages, 2);
    drop((before, after, arena));
    assert_eq!(Arena::select(Choice::Mkwrite).tracking(), "write-protect");
    fs::write("/sys/bus/platform/drivers/tidemark/bind", "tidemark").unwrap();
    assert_eq!(Arena::select(Choice::Mkwrite).tracking(), "mkwrite");
}
