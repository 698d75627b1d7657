//! Pages that move between system and device memory under views that stay.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, knob};

pub fn contents_move_along() {
    let device = Device::open();
    let handle = device.object(64, uapi::TRACKING_MKWRITE);
    let views = [device.view(handle, 0), device.view(handle, uapi::MMAP_UNTRACKED)];
    for (round, view) in [0, 1, 0, 1].into_iter().enumerate() {
        let value = u8::try_from(round).unwrap() + 1;
        for page in 0..48 {
            views[view].set(page * PAGE + 7, value);
        }
        device.place(handle, uapi::PLACEMENT_DEVICE).unwrap();
        let info = device.info(handle).unwrap();
        assert_eq!((info.system_size, info.device_size), (0, 48 * PAGE as u64));
        assert_eq!(info.placement, uapi::PLACEMENT_DEVICE);

        // Reading and writing through the kernel move nothing.
        let mut byte = [0];
        device.read(handle, 47 * PAGE + 7, &mut byte).unwrap();
        assert_eq!(byte, [value]);
        device.write(handle, 46 * PAGE, &[99]).unwrap();
        assert_eq!(device.info(handle).unwrap().system_size, 0);

        // A touch brings back some, not all.
        let before = device.counters(handle);
        assert_eq!(views[1 - view].get(7), value);
        let moved = device.counters(handle).pages_to_system - before.pages_to_system;
        assert!((2..48).contains(&moved), "{moved} pages for a touch");
        assert!((0..48).all(|page| views[view].get(page * PAGE + 7) == value));
        assert_eq!(views[view].get(46 * PAGE), 99);
        assert_eq!(device.counters(handle).pages_to_device, 48 * (round as u64 + 1));
        device.place(handle, uapi::PLACEMENT_SYSTEM).unwrap();
        assert_eq!(device.info(handle).unwrap().device_size, 0);
    }
}

pub fn memory_of_the_device_ends() {
    let device = Device::open();
    let size = usize::try_from(device.query(uapi::PARAM_DEVICE_MEMORY).unwrap()).unwrap();
    let large = device.object(size / PAGE + 1, uapi::TRACKING_NONE);
    let small = device.object(1, uapi::TRACKING_NONE);
    for page in 0..=size / PAGE {
        device.write(large, page * PAGE, &[1]).unwrap();
    }
    device.write(small, 0, &[2]).unwrap();
    assert_eq!(device.place(large, uapi::PLACEMENT_DEVICE), Err(libc::ENOSPC));
    assert_eq!(device.info(large).unwrap().device_size, 0, "all or nothing");
    assert_eq!(device.place(small, uapi::PLACEMENT_DEVICE), Ok(0), "what was asked for in vain is free");

    // What does not fit any more goes to system memory.
    let wants = device.create(size, uapi::PLACEMENT_DEVICE, uapi::TRACKING_NONE).unwrap();
    for page in 0..size / PAGE {
        device.write(wants, page * PAGE, &[3]).unwrap();
    }
    let info = device.info(wants).unwrap();
    assert_eq!((info.device_size, info.system_size), ((size - PAGE) as u64, PAGE as u64));

    // And closing gives it back.
    device.close(wants).unwrap();
    device.close(large).unwrap();
    let again = device.create(size - PAGE, uapi::PLACEMENT_DEVICE, uapi::TRACKING_NONE).unwrap();
    device.write(again, 0, &vec![1; size - PAGE]).unwrap();
    assert_eq!(device.info(again).unwrap().device_size, (size - PAGE) as u64);
}

/// While one thread's access waits for the device, another maps memory.
pub fn faults_wait_without_mmap_lock() {
    let device = Device::open();
    let handle = device.object(16, uapi::TRACKING_DIRTY_BITS);
    for flags in [0, uapi::MMAP_UNTRACKED] {
        let view = device.view(handle, flags);
        view.set(0, 5);
        device.place(handle, uapi::PLACEMENT_DEVICE).unwrap();
        device.wait(handle, uapi::WAIT_READERS, i64::MAX).unwrap();
        knob("latency_us", 500_000);
        let (begun, mapped) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                begun.store(true, Ordering::SeqCst);
                assert_eq!(view.get(0), 5);
                assert!(mapped.load(Ordering::SeqCst), "the other thread was kept waiting");
            });
            while !begun.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            // Long enough for the access to have begun, and short beside the device's latency.
            thread::sleep(std::time::Duration::from_millis(50));
            drop(crate::device::View::anonymous(1));
            mapped.store(true, Ordering::SeqCst);
        });
        knob("latency_us", 0);
    }
}

/// Threads write and read while the pages go back and forth.
pub fn races() {
    const THREADS: usize = 3;
    let device = Device::open();
    let handle = device.object(THREADS * 20, uapi::TRACKING_DIRTY_BITS);
    let stop = AtomicBool::new(false);
    let written = [const { AtomicU8::new(0) }; THREADS * 20];
    let views = [device.view(handle, 0), device.view(handle, uapi::MMAP_UNTRACKED)];
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let (views, stop, written) = (&views, &stop, &written);
            scope.spawn(move || {
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Neighbours are other threads' pages.
                    let page = i % 20 * THREADS + writer;
                    let old = written[page].load(Ordering::Relaxed);
                    assert_eq!(views[i % 2].get(page * PAGE), old, "page {page}");
                    views[(i + writer) % 2].set(page * PAGE, old.wrapping_add(1));
                    written[page].store(old.wrapping_add(1), Ordering::Relaxed);
                }
            });
        }
        let enough =
            |counters: uapi::Counters| counters.pages_to_device > 200 && counters.pages_to_system > 200;
        while !enough(device.counters(handle)) {
            for placement in [uapi::PLACEMENT_DEVICE, uapi::PLACEMENT_SYSTEM] {
                device.place(handle, placement).unwrap();
                device.collect(handle);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    for (page, written) in written.iter().enumerate() {
        assert_eq!(views[0].get(page * PAGE), written.load(Ordering::Relaxed));
    }
}
