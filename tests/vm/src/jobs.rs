//! Copy jobs: their failures, what they copy, and in which order.

use std::mem;

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View, errno, knob, now};

const NOWHERE: u64 = PAGE as u64;

fn region(src: usize, dst: usize, size: usize) -> uapi::Region {
    uapi::Region { src_offset: src as u64, dst_offset: dst as u64, size: size as u64 }
}

fn point(handle: u32, point: u64) -> uapi::Sync {
    uapi::Sync { handle, flags: if point == 0 { 0 } else { uapi::SYNC_TIMELINE }, point }
}

pub fn failures() {
    let device = Device::open();
    let (src, dst) = (device.object(4, 0), device.object(4, 0));
    let regions = [region(0, 0, PAGE)];
    let max = u32::try_from(device.query(uapi::PARAM_MAX_ELEMENTS).unwrap()).unwrap();
    let good =
        uapi::Copy { src, dst, regions: regions.as_ptr() as u64, region_count: 1, ..Default::default() };
    for (bad, error) in [
        (uapi::Copy { flags: 1, ..good }, libc::EINVAL),
        (uapi::Copy { region_count: 0, ..good }, libc::EINVAL),
        (uapi::Copy { region_count: max + 1, ..good }, libc::EINVAL),
        (uapi::Copy { wait_count: max + 1, ..good }, libc::EINVAL),
        (uapi::Copy { signal_count: u32::MAX, ..good }, libc::EINVAL),
        (uapi::Copy { regions: NOWHERE, ..good }, libc::EFAULT),
        (uapi::Copy { wait_count: 1, wait_syncs: NOWHERE, ..good }, libc::EFAULT),
        (uapi::Copy { signal_count: 1, signal_syncs: NOWHERE, ..good }, libc::EFAULT),
    ] {
        assert_eq!(device.call(uapi::IOCTL_COPY, &mut { bad }), Err(error), "{bad:?}");
    }

    let copy = |dst, region| device.copy(src, dst, &[region], &[], &[]);
    for bad in [
        region(0, 0, 0),
        region(4 * PAGE, 0, 1),
        region(4 * PAGE - 1, 0, 2),
        region(0, 4 * PAGE - 1, 2),
        region(usize::MAX, 0, 2),
        region(0, usize::MAX - 1, 2),
        region(0, 0, usize::MAX),
    ] {
        assert_eq!(copy(dst, bad), Err(libc::EINVAL), "{bad:?}");
    }
    assert_eq!(copy(src, region(0, 1, 2)), Err(libc::EINVAL), "overlapping");
    assert_eq!(copy(src, region(1, 0, 2)), Err(libc::EINVAL), "overlapping");
    assert_eq!(copy(src, region(0, 2, 2)), Ok(0));
    let large = usize::try_from(device.query(uapi::PARAM_MAX_COPY_SIZE).unwrap()).unwrap();
    let huge = device.create(2 * large, 0, 0).unwrap();
    let two = [region(0, 0, large), region(large, large, PAGE)];
    assert_eq!(device.copy(huge, huge, &two, &[], &[]), Err(libc::EINVAL));

    let sync = device.syncobj();
    let job = |waits: &[uapi::Sync], signals: &[uapi::Sync]| device.copy(src, dst, &regions, waits, signals);
    for bad in [
        uapi::Sync { handle: sync, flags: 2, point: 0 },
        uapi::Sync { handle: sync, flags: 0, point: 1 },
        uapi::Sync { handle: sync, flags: uapi::SYNC_TIMELINE, point: 0 },
    ] {
        assert_eq!(job(&[bad], &[]), Err(libc::EINVAL));
        assert_eq!(job(&[], &[bad]), Err(libc::EINVAL));
    }
    assert_eq!(job(&[point(0xDEAD, 0)], &[]), Err(libc::ENOENT));
    assert_eq!(job(&[], &[point(0xDEAD, 0)]), Err(libc::ENOENT));
    assert_eq!(job(&[point(sync, 0)], &[]), Err(libc::EINVAL), "no fence yet");
    assert_eq!(job(&[point(sync, 3)], &[]), Err(libc::EINVAL), "no such point yet");
}

/// From and to everywhere, unaligned, against a copy in this process.
pub fn bytes() {
    let device = Device::open();
    let size = 6 * PAGE;
    let pattern = |seed: usize| -> Vec<u8> { (0..size).map(|i| (i * 7 + i / 255 + seed) as u8).collect() };
    for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let src = device.create(size, from, uapi::TRACKING_NONE).unwrap();
        let dst = device.create(size, to, uapi::TRACKING_NONE).unwrap();
        let (source, mut expected) = (pattern(1), vec![0; size]);
        // Pages 2 and 5 of the source do not exist.
        for page in [0, 1, 3, 4] {
            device.write(src, page * PAGE, &source[page * PAGE..(page + 1) * PAGE]).unwrap();
        }
        let zeros = |range: std::ops::Range<usize>| -> Vec<u8> {
            range.map(|i| if matches!(i / PAGE, 2 | 5) { 0 } else { source[i] }).collect()
        };
        let regions = [
            region(0, 1, 10),
            region(4090, 4000, 9000),
            region(5 * PAGE - 3, 100, 6),
            region(17, 5 * PAGE, PAGE),
        ];
        for one in &regions {
            let (src, dst, size) = (one.src_offset as usize, one.dst_offset as usize, one.size as usize);
            expected[dst..dst + size].copy_from_slice(&zeros(src..src + size));
        }
        device.copy(src, dst, &regions, &[], &[]).unwrap();
        device.wait(dst, 0, i64::MAX).unwrap();
        let mut found = vec![1; size];
        device.read(dst, 0, &mut found).unwrap();
        assert!(found == expected, "from {from} to {to}");
        let info = device.info(dst).unwrap();
        assert_eq!(if to == 1 { info.system_size } else { info.device_size }, 0, "pages stay where they are");
    }
}

/// Jobs of two files, one after the other by a timeline; nothing is done early.
pub fn order() {
    let (device, other) = (Device::open(), Device::open());
    let handles = [0; 4].map(|_| device.object(1, 0));
    let theirs = other.import(&device.export(handles[2]).unwrap()).unwrap();
    let last = other.object(1, 0);
    let (timeline, binary) = (device.syncobj(), device.syncobj());
    device.write(handles[0], 0, b"tide").unwrap();
    knob("latency_us", 1_000_000);
    let one = [region(0, 0, 4)];
    device.copy(handles[0], handles[1], &one, &[], &[point(timeline, 4)]).unwrap();
    device
        .copy(handles[1], handles[2], &one, &[point(timeline, 4)], &[point(timeline, 6), point(binary, 0)])
        .unwrap();

    assert_eq!(device.wait(handles[1], 0, 0), Err(libc::ETIME));
    assert_eq!(device.wait(handles[0], 0, 0), Ok(0), "it is only read");
    assert_eq!(device.wait(handles[0], uapi::WAIT_READERS, 0), Err(libc::ETIME));
    assert_eq!(device.wait_syncobj(timeline, 4, 0), Err(libc::ETIME));
    assert_eq!(device.wait_syncobj(timeline, 6, i64::MAX), Ok(0));
    let mut bytes = [0; 4];
    device.read(handles[2], 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"tide");
    assert_eq!(device.wait_syncobj(binary, 0, 0), Ok(0));
    // A point that has been passed is no reason to wait.
    device.copy(handles[0], handles[3], &one, &[point(timeline, 4)], &[]).unwrap();
    device.wait(handles[3], 0, i64::MAX).unwrap();

    // What waits for a file's job when that file is closed, and what it was to wait for.
    other.copy(theirs, last, &one, &[], &[]).unwrap();
    drop(other);
    knob("latency_us", 0);
    device.wait(handles[2], uapi::WAIT_READERS, i64::MAX).unwrap();
}

/// A move runs behind the jobs that use the pages, and jobs behind the move.
pub fn moves_and_jobs() {
    let device = Device::open();
    let (src, dst) = (device.object(4, 0), device.object(4, 0));
    let view = device.view(dst, 0);
    knob("latency_us", 50_000);
    for round in 1..=4 {
        device.write(src, 0, &[round; 2 * PAGE]).unwrap();
        device.copy(src, dst, &[region(0, 0, 2 * PAGE)], &[], &[]).unwrap();
        device.place(dst, uapi::PLACEMENT_DEVICE).unwrap();
        device.copy(dst, dst, &[region(0, 2 * PAGE, 2 * PAGE)], &[], &[]).unwrap();
        device.place(dst, uapi::PLACEMENT_SYSTEM).unwrap();
        assert_eq!((view.get(0), view.get(PAGE)), (round, round));
        device.wait(dst, 0, i64::MAX).unwrap();
        assert_eq!((view.get(2 * PAGE), view.get(4 * PAGE - 1)), (round, round));
    }
    knob("latency_us", 0);
}

extern "C" fn ignore(_: i32) {}

/// A signal ends a wait, and the same call goes on.
pub fn interrupted() {
    // SAFETY: a handler that does nothing, installed without SA_RESTART; a timer that sends its signal.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
    }
    let device = Device::open();
    let (src, dst) = (device.object(1, 0), device.object(1, uapi::TRACKING_MKWRITE));
    device.write(src, 0, &[6]).unwrap();
    let view = device.view(dst, 0);
    view.set(1, 1);
    knob("latency_us", 800_000);
    device.copy(src, dst, &[region(0, 0, 1)], &[], &[]).unwrap();
    alarm(50_000);
    let mut wait = uapi::Wait { handle: dst, flags: 0, timeout_ns: now() + 10_000_000_000 };
    assert_eq!(device.call(uapi::IOCTL_WAIT, &mut wait), Err(libc::EINTR));
    assert_eq!(device.call(uapi::IOCTL_WAIT, &mut wait), Ok(0));
    assert_eq!(view.get(0), 6);

    // A touch is no call: it waits through the signal. So does what the kernel touches on behalf of a call.
    device.place(dst, uapi::PLACEMENT_DEVICE).unwrap();
    alarm(50_000);
    assert_eq!(view.get(0), 6);
    device.place(dst, uapi::PLACEMENT_DEVICE).unwrap();
    device.wait(dst, uapi::WAIT_READERS, i64::MAX).unwrap();
    alarm(50_000);
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors; the view is what write(2) reads.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        assert_eq!(libc::write(ends[1], view.at(0).cast(), 2), 2, "{}", errno());
    }
    // A transfer begins anew.
    device.place(dst, uapi::PLACEMENT_DEVICE).unwrap();
    alarm(50_000);
    let mut byte = [0];
    while device.read(dst, 0, &mut byte) == Err(libc::EINTR) {}
    assert_eq!(byte, [6]);
    knob("latency_us", 0);
    assert_eq!(device.collect(dst), [0]);
}

fn alarm(microseconds: i64) {
    let value = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: a timer of this process.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
}

/// Objects over this process's memory.
pub mod user {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    pub fn failures() {
        let device = Device::open();
        let memory = View::anonymous(4);
        let at = memory.address();
        assert_eq!(device.user(at + 1, PAGE, 0), Err(libc::EINVAL));
        assert_eq!(device.user(at, 0, 0), Err(libc::EINVAL));
        assert_eq!(device.user(at, PAGE + 1, 0), Err(libc::EINVAL));
        assert_eq!(device.user(at, PAGE, 4), Err(libc::EINVAL));
        assert_eq!(device.user(usize::MAX & !(PAGE - 1), 2 * PAGE, 0), Err(libc::EFAULT));

        let object = device.object(4, 0);
        // Nothing there, no write allowed, no read allowed.
        let bad = device.user(PAGE, PAGE, 0).unwrap();
        let read_only = device.user(at, 4 * PAGE, uapi::USER_READ_ONLY).unwrap();
        let whole = device.user(at, 4 * PAGE, 0).unwrap();
        let one = [region(0, 0, PAGE)];
        assert_eq!(device.copy(bad, object, &one, &[], &[]), Err(libc::EFAULT));
        assert_eq!(device.copy(object, bad, &one, &[], &[]), Err(libc::EFAULT));
        assert_eq!(device.copy(object, read_only, &one, &[], &[]), Err(libc::EACCES));
        assert_eq!(device.copy(read_only, object, &one, &[], &[]), Ok(0));
        memory.protect(0, PAGE, libc::PROT_READ);
        assert_eq!(device.copy(object, whole, &one, &[], &[]), Err(libc::EFAULT));
        assert_eq!(device.copy(object, whole, &[region(0, PAGE, PAGE)], &[], &[]), Ok(0), "the other pages");
        memory.protect(0, PAGE, libc::PROT_NONE);
        assert_eq!(device.copy(whole, object, &one, &[], &[]), Err(libc::EFAULT));

        // Another process, and one without privilege.
        // SAFETY: the child makes system calls alone, and leaves without running destructors.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let foreign = device.copy(read_only, object, &one, &[], &[]) == Err(libc::EACCES);
            // SAFETY: changes the child.
            let nobody = unsafe { libc::setuid(65534) } == 0;
            let refused = device.user(at, PAGE, uapi::USER_UNSYNCHRONIZED) == Err(libc::EPERM);
            let granted = device.user(at, PAGE, 0).is_ok();
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!(foreign && nobody && refused && granted))) }
        }
        let mut status = 0;
        // SAFETY: a child of ours.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
    }

    pub fn follows_the_addresses() {
        let device = Device::open();
        let object = device.object(4, 0);
        let memory = View::anonymous(4);
        for flags in [0, uapi::USER_UNSYNCHRONIZED] {
            let user = device.user(memory.address(), 4 * PAGE, flags).unwrap();
            memory.set(PAGE + 5, 1);
            device.copy(user, object, &[region(PAGE + 5, 0, 1)], &[], &[]).unwrap();
            device.copy(object, user, &[region(0, 3 * PAGE - 1, 2)], &[], &[]).unwrap();
            device.wait(user, 0, i64::MAX).unwrap();
            assert_eq!((memory.get(3 * PAGE - 1), memory.get(3 * PAGE)), (1, 0));

            // Other pages at the same address.
            memory.set(2 * PAGE, 9);
            memory.advise(libc::MADV_DONTNEED).unwrap();
            device.copy(user, object, &[region(2 * PAGE, 0, 1)], &[], &[]).unwrap();
            device.wait(object, 0, i64::MAX).unwrap();
            let mut byte = [7];
            device.read(object, 0, &mut byte).unwrap();
            assert_eq!(byte, [if flags == 0 { 0 } else { 9 }], "flags {flags}");
            assert_eq!(device.counters(user).invalidations > 0, flags == 0);
            device.close(user).unwrap();
        }
    }

    /// Taking pages away waits for the job that uses them.
    pub fn pages_stay_while_a_job_runs() {
        let device = Device::open();
        let object = device.object(1, 0);
        device.write(object, 0, &[5]).unwrap();
        knob("latency_us", 500_000);
        let remove: [fn(View); 4] = [
            drop,
            |view| drop(view.move_away()),
            |view| view.advise(libc::MADV_DONTNEED).map(drop).unwrap(),
            |view| view.protect(0, PAGE, libc::PROT_READ),
        ];
        for remove in remove {
            let memory = View::anonymous(1);
            let user = device.user(memory.address(), PAGE, 0).unwrap();
            device.copy(object, user, &[region(0, 0, 1)], &[], &[]).unwrap();
            assert_eq!(device.wait(user, 0, 0), Err(libc::ETIME));
            remove(memory);
            assert_eq!(device.wait(user, 0, 0), Ok(0), "it did not wait");
            assert!(device.counters(user).invalidations > 0);
        }
        // A process that ends.
        // SAFETY: the child makes system calls alone, and leaves without running destructors.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let memory = View::anonymous(1);
            let done = device
                .user(memory.address(), PAGE, 0)
                .and_then(|user| device.copy(object, user, &[region(0, 0, 1)], &[], &[]));
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        let mut status = 0;
        // SAFETY: a child of ours.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!((status, device.wait(object, uapi::WAIT_READERS, 0)), (0, Ok(0)));
        knob("latency_us", 0);
    }

    /// The parent's page after a fork is the parent's.
    pub fn copy_on_write() {
        let device = Device::open();
        let object = device.object(1, 0);
        let memory = View::anonymous(1);
        memory.set(0, 1);
        let user = device.user(memory.address(), PAGE, 0).unwrap();
        // SAFETY: the child waits to be killed.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            loop {
                // SAFETY: waits.
                unsafe { libc::pause() };
            }
        }
        device.write(object, 0, &[8]).unwrap();
        device.copy(object, user, &[region(0, 1, 1)], &[], &[]).unwrap();
        device.wait(user, 0, i64::MAX).unwrap();
        assert_eq!((memory.get(0), memory.get(1)), (1, 8), "the device wrote the parent's page");
        memory.set(0, 2);
        device.copy(user, object, &[region(0, 0, 2)], &[], &[]).unwrap();
        device.wait(object, 0, i64::MAX).unwrap();
        let mut bytes = [0; 2];
        device.read(object, 0, &mut bytes).unwrap();
        assert_eq!(bytes, [2, 8]);
        // SAFETY: a child of ours.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }

    /// The range may be a view of the device's own, tracked at that.
    pub fn over_a_view() {
        let device = Device::open();
        let (below, source) = (device.object(2, uapi::TRACKING_MKWRITE), device.object(2, 0));
        let view = device.view(below, 0);
        let user = device.user(view.address(), 2 * PAGE, 0).unwrap();
        device.write(source, 0, &[3; PAGE]).unwrap();
        for placement in [uapi::PLACEMENT_SYSTEM, uapi::PLACEMENT_DEVICE, uapi::PLACEMENT_SYSTEM] {
            device.place(below, placement).unwrap();
            device.copy(source, user, &[region(0, 0, PAGE)], &[], &[]).unwrap();
            device.wait(user, 0, i64::MAX).unwrap();
            assert_eq!(view.get(PAGE - 1), 3);
        }
    }

    /// Memory comes and goes while jobs are submitted.
    pub fn races() {
        let device = Device::open();
        let object = device.object(8, 0);
        let memory = View::anonymous(8);
        let user = device.user(memory.address(), 8 * PAGE, 0).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    memory.advise(libc::MADV_DONTNEED).unwrap();
                    memory.touch(3);
                    memory.protect(0, 4 * PAGE, libc::PROT_READ);
                    memory.protect(0, 4 * PAGE, libc::PROT_READ | libc::PROT_WRITE);
                }
            });
            let mut copied = 0;
            while copied < 300 || device.counters(user).invalidations == 0 {
                match device.copy(object, user, &[region(0, 0, 8 * PAGE)], &[], &[]) {
                    Ok(_) => copied += 1,
                    Err(error) => assert!(error == libc::EFAULT || error == libc::EINTR, "{error}"),
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
