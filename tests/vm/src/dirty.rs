//! The pages that a collection reports are those that were written: not one less, and for programs without races not one
//! more. Each scenario is a way in which simpler methods lose writes.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View, errno, knob, now};
use crate::fuzz::Random;

/// The ways of tracking.
pub const BOTH: [u32; 2] = [uapi::TRACKING_MKWRITE, uapi::TRACKING_DIRTY_BITS];

/// A tracked object of 16 pages, and what was found to be wrong.
struct Case {
    device: Device,
    handle: u32,
    view: View,
}

/// What went wrong.
type Wrong = Result<(), String>;

const PAGES: usize = 16;

impl Case {
    fn new(tracking: u32) -> Self {
        let device = Device::open();
        let handle = device.object(PAGES, tracking);
        let view = device.view(handle, 0);
        Self { device, handle, view }
    }

    /// Another view of the same.
    fn again(&self) -> View {
        self.device.view(self.handle, 0)
    }

    fn expect(&self, what: &str, pages: &[usize]) -> Wrong {
        let found = self.device.collect(self.handle);
        if found == pages { Ok(()) } else { Err(format!("{what}: {found:?} instead of {pages:?}")) }
    }
}

/// Runs `child` in a forked process until it ends.
fn forked(child: impl FnOnce()) {
    // SAFETY: the child makes system calls and touches views, neither allocates nor takes a lock, and leaves without
    // running destructors.
    match unsafe { libc::fork() } {
        0 => {
            child();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: a child of ours, and where to put its end.
            let ended = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!((ended, status), (pid, 0));
        }
    }
}

fn rewriting(case: &Case) -> Wrong {
    let view = &case.view;
    case.expect("at first", &[])?;
    (0..PAGES).for_each(|page| assert_eq!(view.get(page * PAGE), 0));
    case.expect("after reading", &[])?;
    for _ in 0..3 {
        view.touch(3);
        view.touch(4);
        view.touch(9);
        case.expect("after writing", &[3, 4, 9])?;
        case.expect("after nothing", &[])?;
        view.get(3 * PAGE);
        case.expect("after reading what was written", &[])?;
    }
    view.set(PAGE - 1, 1);
    view.set(15 * PAGE + PAGE - 1, 1);
    case.expect("at the ends", &[0, 15])
}

/// The textbook's mkwrite loses all that is written after this: the kernel makes dirty PTEs writable by itself.
fn protection(case: &Case) -> Wrong {
    let view = &case.view;
    let size = PAGES * PAGE;
    for _ in 0..3 {
        view.touch(2);
        case.expect("at first", &[2])?;
        view.protect(0, size, libc::PROT_READ);
        view.protect(0, size, libc::PROT_READ | libc::PROT_WRITE);
        case.expect("after a cycle of protection", &[])?;
        view.touch(2);
        case.expect("after writing behind a cycle", &[2])?;
        view.touch(5);
        view.protect(0, size, libc::PROT_READ);
        case.expect("while protected", &[5])?;
        view.protect(0, size, libc::PROT_READ | libc::PROT_WRITE);
        view.touch(5);
        case.expect("after that", &[5])?;
    }
    Ok(())
}

/// Dirty bits of a mapping that is gone.
fn unmapping(case: &Case) -> Wrong {
    for _ in 0..3 {
        let second = case.again();
        second.touch(7);
        second.touch(8);
        drop(second);
        case.expect("after unmapping", &[7, 8])?;
        let second = case.again();
        second.touch(7);
        case.expect("at first", &[7])?;
        second.touch(7);
        drop(second);
        case.expect("after unmapping what was collected", &[7])?;
        case.view.touch(7);
        case.expect("through the view that is left", &[7])?;
    }
    Ok(())
}

/// And of a process that is gone.
fn exiting(case: &Case) -> Wrong {
    for _ in 0..3 {
        case.view.touch(1);
        forked(|| case.view.touch(6));
        case.expect("after a child ended", &[1, 6])?;
        forked(|| case.view.touch(1));
        case.expect("after another wrote what was collected", &[1])?;
        case.view.touch(1);
        case.view.touch(6);
        case.expect("after the parent did", &[1, 6])?;
    }
    Ok(())
}

/// A child that lives on while its parent collects.
fn forking(case: &Case) -> Wrong {
    let (request, ask) = pipe();
    let (answer, tell) = pipe();
    case.view.touch(4);
    // SAFETY: as in `forked`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut page = [0];
        while read(&request, &mut page) == 1 && page[0] != 0xFF {
            case.view.touch(usize::from(page[0]));
            write(&tell, &[1]);
        }
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) }
    }
    let child_writes = |page: u8| {
        write(&ask, &[page]);
        assert_eq!(read(&answer, &mut [0]), 1);
    };
    let result = (|| {
        case.expect("what the parent wrote before", &[4])?;
        for _ in 0..3 {
            child_writes(4);
            case.expect("after the child wrote", &[4])?;
            child_writes(4);
            case.view.touch(5);
            child_writes(11);
            case.expect("after both wrote", &[4, 5, 11])?;
            case.view.touch(4);
            case.expect("after the parent wrote", &[4])?;
        }
        Ok(())
    })();
    write(&ask, &[0xFF]);
    // SAFETY: a child of ours.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    result
}

/// Several mappings, of parts, in one process.
fn mapping_twice(case: &Case) -> Wrong {
    let offset = case.device.offset(case.handle, 0).unwrap();
    let part = View::new(case.device.raw(), offset + 8 * PAGE as u64, 4 * PAGE).unwrap();
    for _ in 0..3 {
        case.view.touch(9);
        part.touch(0);
        part.touch(1);
        case.expect("both", &[8, 9])?;
        part.touch(1);
        case.expect("the second", &[9])?;
        case.view.touch(9);
        case.expect("the first", &[9])?;
    }
    Ok(())
}

/// Mappings of a dma-buf have another file.
fn mapping_a_dma_buf(case: &Case) -> Wrong {
    let buffer = case.device.export(case.handle).unwrap();
    let view = View::new(buffer.as_raw_fd(), 0, PAGES * PAGE).unwrap();
    for _ in 0..3 {
        view.touch(3);
        case.view.touch(12);
        case.expect("through the dma-buf", &[3, 12])?;
        view.touch(3);
        case.expect("again", &[3])?;
    }
    view.touch(3);
    drop(view);
    case.expect("before it was unmapped", &[3])
}

/// The kernel on the application's behalf.
fn system_calls(case: &Case) -> Wrong {
    let zero = fs::File::open("/dev/zero").unwrap();
    for _ in 0..3 {
        // SAFETY: the kernel writes to the view, which Rust knows nothing of.
        let count = unsafe { libc::read(zero.as_raw_fd(), case.view.at(5 * PAGE + 100).cast(), 2 * PAGE) };
        assert_eq!(count, 2 * PAGE as isize);
        case.expect("after read(2)", &[5, 6, 7])?;

        let mut local = [7u8; 8];
        let local = libc::iovec { iov_base: local.as_mut_ptr().cast(), iov_len: 8 };
        let remote = libc::iovec { iov_base: case.view.at(9 * PAGE).cast(), iov_len: 8 };
        // SAFETY: as above; the lengths are those of the memory.
        let count =
            unsafe { libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        assert_eq!(count, 8);
        case.expect("after process_vm_writev(2)", &[9])?;

        let (_reader, writer) = pipe();
        // SAFETY: nothing writes to the view meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(case.view.at(0), 2 * PAGE) };
        write(&writer, bytes);
        case.expect("after write(2), which reads", &[])?;
    }
    Ok(())
}

fn moving_the_mapping(mut case: Case) -> Wrong {
    for _ in 0..3 {
        case.view.touch(2);
        case.view = case.view.move_away();
        case.view.touch(3);
        case.expect("after mremap", &[2, 3])?;
        case.view.touch(3);
        case.expect("there", &[3])?;
    }
    Ok(())
}

fn advice(case: &Case) -> Wrong {
    for advice in [libc::MADV_DONTNEED, libc::MADV_COLD, libc::MADV_PAGEOUT] {
        case.view.set(6 * PAGE, 42);
        case.view.advise(advice).unwrap();
        case.expect("after the advice", &[6])?;
        if case.view.get(6 * PAGE) != 42 {
            return Err("contents are lost".into());
        }
        case.expect("after reading", &[])?;
        case.view.touch(6);
        case.expect("after writing", &[6])?;
    }
    Ok(())
}

/// Pages that move to the device and back.
fn placing(case: &Case) -> Wrong {
    for _ in 0..3 {
        case.view.touch(1);
        case.view.touch(10);
        case.device.place(case.handle, uapi::PLACEMENT_DEVICE).unwrap();
        case.expect("written before they were moved", &[1, 10])?;
        case.view.get(PAGE);
        case.expect("brought back to be read", &[])?;
        case.view.touch(1);
        case.view.touch(2);
        case.expect("brought back to be written", &[1, 2])?;
        case.view.touch(2);
        case.device.place(case.handle, uapi::PLACEMENT_DEVICE).unwrap();
        case.device.place(case.handle, uapi::PLACEMENT_SYSTEM).unwrap();
        case.expect("moved twice", &[2])?;
    }
    Ok(())
}

/// What is no write of the application's.
fn untracked(case: &Case) -> Wrong {
    let alias = case.device.view(case.handle, uapi::MMAP_UNTRACKED);
    let source = case.device.object(1, uapi::TRACKING_NONE);
    for round in 1..=3 {
        alias.touch(1);
        alias.set(2 * PAGE, round);
        case.device.write(case.handle, 3 * PAGE, &[round]).unwrap();
        let region = [uapi::Region { src_offset: 0, dst_offset: 4 * PAGE as u64, size: 1 }];
        case.device.write(source, 0, &[round]).unwrap();
        case.device.copy(source, case.handle, &region, &[], &[]).unwrap();
        case.device.wait(case.handle, 0, i64::MAX).unwrap();
        let seen = [2, 3, 4].map(|page: usize| case.view.get(page * PAGE));
        assert_eq!(seen, [round; 3], "the views differ");
        case.expect("after writes that do not count", &[])?;
        case.view.touch(2);
        alias.touch(1);
        case.expect("after one that does", &[2])?;
    }
    alias.touch(5);
    drop(alias);
    case.expect("after the alias went", &[])
}

/// A device writes to a page of the view that was pinned before it was collected.
fn direct_input(tracking: u32) -> Wrong {
    #[repr(C)]
    #[derive(Default)]
    struct Request {
        data: u64,
        key: u32,
        flags: u32,
        opcode: u16,
        priority: u16,
        fd: u32,
        address: u64,
        size: u64,
        offset: i64,
        reserved: [u64; 2],
    }
    let case = Case::new(tracking);
    // Takes 0.6 s to answer, with zeros.
    let disk = rustix::fs::open(
        "/dev/nullb0",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT,
        rustix::fs::Mode::empty(),
    )
    .expect("no disk");
    case.view.set(3 * PAGE, 77);
    case.expect("at first", &[3])?;

    let mut request = Request {
        fd: u32::try_from(disk.as_raw_fd()).unwrap(),
        address: case.view.at(3 * PAGE) as u64,
        size: PAGE as u64,
        ..Default::default()
    };
    let (mut context, mut event) = (0u64, [0u64; 4]);
    let requests = [&raw mut request];
    // SAFETY: the structures of the system calls; the page stays mapped until the answer is here.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_io_setup, 1, &raw mut context), 0);
        assert_eq!(libc::syscall(libc::SYS_io_submit, context, 1, requests.as_ptr()), 1, "{}", errno());
    }
    let result = (|| {
        for _ in 0..3 {
            case.expect("while it is pinned", &[3])?;
        }
        // SAFETY: as above.
        let events = unsafe { libc::syscall(libc::SYS_io_getevents, context, 1, 1, &raw mut event, 0) };
        assert_eq!((events, event[2]), (1, PAGE as u64));
        if case.view.get(3 * PAGE) != 0 {
            return Err("nothing was read".into());
        }
        case.expect("when it has been written", &[3])
    })();
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    // Whoever unpins it may be late.
    let forgotten = (0..100).any(|_| {
        thread::sleep(std::time::Duration::from_millis(10));
        case.device.collect(case.handle).is_empty()
    });
    assert!(forgotten, "it stays written");
    result
}

/// Threads that write, protect, map, move and fork while another collects: in the end, whoever copied each page when it
/// was reported has all that was written.
fn racing(tracking: u32, milliseconds: u64) -> Wrong {
    const WRITERS: usize = 4;
    // Far more than what a scan takes at once, and some that are written all the time.
    const PAGES: usize = 64;
    let device = Device::open();
    let handle = device.object(WRITERS * PAGES, tracking);
    let stop = AtomicBool::new(false);
    let mut copy = vec![0u8; WRITERS * PAGES];
    let alias = device.view(handle, uapi::MMAP_UNTRACKED);
    let look = |copy: &mut Vec<u8>| {
        for page in device.collect_by(handle, 7).unwrap() {
            copy[page] = alias.get(page * PAGE);
        }
    };

    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (device, stop) = (&device, &stop);
            scope.spawn(move || {
                let offset = device.offset(handle, 0).unwrap() + (writer * PAGES * PAGE) as u64;
                let map = || View::new(device.raw(), offset, PAGES * PAGE).unwrap();
                let mut view = map();
                let mut random = Random(writer as u64 + 1);
                while !stop.load(Ordering::Relaxed) {
                    let page = random.below(PAGES);
                    view.touch(page);
                    match random.below(40) {
                        0 => {
                            view.protect(0, PAGES * PAGE, libc::PROT_READ);
                            view.protect(0, PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE);
                        }
                        1 => view = map(),
                        2 => view = view.move_away(),
                        3 => {
                            let second = map();
                            second.touch(random.below(PAGES));
                        }
                        4 => drop(view.advise(libc::MADV_DONTNEED)),
                        5 => thread::yield_now(),
                        _ => {}
                    }
                }
            });
        }
        let end = now() + i64::try_from(milliseconds).unwrap() * 1_000_000;
        let mut forks = 0;
        while now() < end {
            look(&mut copy);
            forks += 1;
            if forks % 64 == 0 {
                // The child copies page tables while the others write; it touches none itself.
                forked(|| {});
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    look(&mut copy);
    let lost: Vec<_> = (0..WRITERS * PAGES).filter(|&page| alias.get(page * PAGE) != copy[page]).collect();
    if lost.is_empty() { Ok(()) } else { Err(format!("lost what was written last to {lost:?}")) }
}

/// A thread that writes to a page again and again while another collects: each scan may meet a PTE that is just being
/// made.
fn racing_for_a_page(tracking: u32, milliseconds: u64) -> Wrong {
    let case = Case::new(tracking);
    let stop = AtomicBool::new(false);
    let mut copy = [0u8; PAGES];
    let alias = case.device.view(case.handle, uapi::MMAP_UNTRACKED);
    let look = |copy: &mut [u8; PAGES]| {
        for page in case.device.collect(case.handle) {
            copy[page] = alias.get(page * PAGE);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                case.view.touch(0);
            }
        });
        let end = now() + i64::try_from(milliseconds).unwrap() * 1_000_000;
        while now() < end {
            look(&mut copy);
        }
        stop.store(true, Ordering::Relaxed);
    });
    look(&mut copy);
    if alias.get(0) == copy[0] { Ok(()) } else { Err("lost what was written last".into()) }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: made for us just now.
    unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) }
}

fn read(fd: &OwnedFd, into: &mut [u8]) -> usize {
    rustix::io::read(fd, into).unwrap()
}

fn write(fd: &OwnedFd, from: &[u8]) {
    assert_eq!(rustix::io::write(fd, from).unwrap(), from.len());
}

/// Every scenario without races.
type Scenario = (&'static str, fn(u32) -> Wrong);

/// Names scenarios.
macro_rules! scenarios {
    ($($name:ident)*) => { [$((stringify!($name), (|tracking| $name(&Case::new(tracking))) as fn(u32) -> Wrong)),*] };
}

const SCENARIOS: [Scenario; 11] = scenarios! {
    rewriting protection unmapping exiting forking mapping_twice mapping_a_dma_buf system_calls advice placing untracked
};

pub fn exact() {
    let mut wrong = Vec::new();
    for tracking in BOTH {
        for (name, scenario) in SCENARIOS {
            wrong.extend(scenario(tracking).err().map(|error| format!("{name}, method {tracking}: {error}")));
        }
        wrong.extend(moving_the_mapping(Case::new(tracking)).err());
        wrong.extend(direct_input(tracking).err());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

pub fn races() {
    for tracking in BOTH {
        racing(tracking, 2000).unwrap();
        racing_for_a_page(tracking, 500).unwrap();
    }
}

/// Steps that the module leaves out on request, and the scenario that notices.
pub fn controls() {
    const CLEAN: u32 = 1 << 0;
    const PAGE_DIRTY: u32 = 1 << 1;
    const INSTALL: u32 = 1 << 2;
    const PINS: u32 = 1 << 3;
    const VIEW_FILE: u32 = 1 << 4;
    let [mkwrite, dirty_bits] = BOTH;
    let scenario = |name: &str, tracking| {
        let (_, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name).expect("no such scenario");
        scenario(tracking)
    };
    for (omitted, name, tracking) in [
        (CLEAN, "protection", mkwrite),
        (PAGE_DIRTY, "unmapping", dirty_bits),
        (PAGE_DIRTY, "exiting", dirty_bits),
        (PAGE_DIRTY, "advice", dirty_bits),
        (PAGE_DIRTY, "placing", dirty_bits),
        (VIEW_FILE, "mapping_a_dma_buf", dirty_bits),
    ] {
        assert_eq!(scenario(name, tracking), Ok(()), "{name}, before anything is left out");
        knob("omit", omitted);
        let result = scenario(name, tracking);
        knob("omit", 0);
        let error = result.expect_err(name);
        println!("without {omitted:#x}, {name} by {tracking}: {error}");
    }
    knob("omit", PINS);
    let result = direct_input(mkwrite);
    knob("omit", 0);
    println!("without {PINS:#x}: {}", result.expect_err("pinned pages need no care"));
    // Scans that fall between a fault and the PTE that comes of it.
    knob("install_delay_us", 2000);
    let waiting = racing_for_a_page(mkwrite, 300);
    knob("omit", INSTALL);
    let lost = (0..10).any(|_| racing_for_a_page(mkwrite, 300).is_err());
    knob("omit", 0);
    knob("install_delay_us", 0);
    assert_eq!(waiting, Ok(()));
    assert!(lost, "scans that do not wait for PTEs lose nothing");
}

/// From every method to every other, with writes before, between and after.
pub fn switches_lose_nothing() {
    const METHODS: [u32; 3] = [uapi::TRACKING_NONE, uapi::TRACKING_MKWRITE, uapi::TRACKING_DIRTY_BITS];
    for from in METHODS {
        for via in METHODS {
            for to in BOTH {
                let case = Case::new(from);
                for _ in 0..2 {
                    case.device.track(case.handle, from).unwrap();
                    case.view.touch(1);
                    case.view.touch(2);
                    case.device.track(case.handle, via).unwrap();
                    case.view.touch(2);
                    case.view.touch(5);
                    case.device.track(case.handle, to).unwrap();
                    case.expect(&format!("{from} to {via} to {to}"), &[1, 2, 5]).unwrap();
                    case.view.touch(5);
                    case.expect("afterwards", &[5]).unwrap();
                }
            }
        }
    }
}
