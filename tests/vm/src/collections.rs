//! Collecting in pieces, from many objects, and through signals.

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View};
use crate::dirty::BOTH;

/// Results come in small pieces, and nothing is lost between them.
pub fn continuation() {
    let device = Device::open();
    for tracking in BOTH {
        let handle = device.object(3000, tracking);
        let view = device.view(handle, 0);
        let expected: Vec<usize> = (0..3000).filter(|page| page % 3 != 1).collect();
        for capacity in [1, 2, 7, 512, 513, 4096] {
            expected.iter().for_each(|&page| view.touch(page));
            assert_eq!(device.collect_by(handle, capacity), Ok(expected.clone()), "capacity {capacity}");
            assert_eq!(device.collect_by(handle, capacity), Ok(vec![]));
        }

        // Who stops halfway finds the rest later.
        expected.iter().for_each(|&page| view.touch(page));
        let objects = [uapi::CollectObject { handle, pad: 0, offset: 0, size: 3000 * PAGE as u64 }];
        let mut ranges = [uapi::Range::default(); 10];
        let mut collect = uapi::Collect {
            objects: objects.as_ptr() as u64,
            ranges: ranges.as_mut_ptr() as u64,
            object_count: 1,
            range_capacity: 10,
            ..Default::default()
        };
        assert_eq!(device.collect_raw(&mut collect), Ok(0));
        assert_eq!((collect.range_count, collect.next_object), (10, 0));
        let mut pages: Vec<usize> = ranges
            .iter()
            .flat_map(|range| range.offset as usize / PAGE..(range.offset + range.size) as usize / PAGE)
            .collect();
        pages.extend(device.collect(handle));
        assert_eq!(pages, expected);
    }
}

/// Signals that come in the middle of collections.
pub fn signals() {
    extern "C" fn ignore(_: i32) {}
    // SAFETY: a handler that does nothing, without SA_RESTART; a timer that sends its signal every millisecond.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
    let device = Device::open();
    for tracking in BOTH {
        let handle = device.object(3000, tracking);
        let view = device.view(handle, 0);
        let expected: Vec<usize> = (0..3000).filter(|page| page % 5 != 0).collect();
        for _ in 0..5 {
            expected.iter().for_each(|&page| view.touch(page));
            assert_eq!(device.collect_by(handle, 4096), Ok(expected.clone()));
        }
    }
}

pub fn many_objects() {
    let device = Device::open();
    let handles: Vec<u32> = (0..50).map(|i| device.object(8, BOTH[i % 2])).collect();
    let views: Vec<View> = handles.iter().map(|&handle| device.view(handle, 0)).collect();
    for capacity in [1, 3, 200] {
        for (i, view) in views.iter().enumerate().filter(|(i, _)| i % 5 != 0) {
            view.touch(i % 8);
            view.touch((i + 2) % 8);
        }
        // The first half of each object only.
        let page = PAGE as u64;
        let objects: Vec<_> = handles
            .iter()
            .map(|&handle| uapi::CollectObject { handle, pad: 0, offset: 0, size: 4 * page })
            .collect();
        let mut ranges = vec![uapi::Range::default(); capacity];
        let mut collect = uapi::Collect {
            objects: objects.as_ptr() as u64,
            ranges: ranges.as_mut_ptr() as u64,
            object_count: 50,
            range_capacity: u32::try_from(capacity).unwrap(),
            ..Default::default()
        };
        let mut found = Vec::new();
        while collect.next_object < 50 {
            device.collect_raw(&mut collect).unwrap();
            for range in &ranges[..collect.range_count as usize] {
                found.extend(
                    (range.offset / page..(range.offset + range.size) / page).map(|p| (range.object, p)),
                );
            }
        }
        let written = |i: usize| [i % 8, (i + 2) % 8];
        let mut expected: Vec<(u32, u64)> = (0..50usize)
            .filter(|i| i % 5 != 0)
            .flat_map(|i| written(i).map(|page| (i as u32, page as u64)))
            .filter(|&(_, page)| page < 4)
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "capacity {capacity}");
        for (i, &handle) in handles.iter().enumerate() {
            let mut rest: Vec<usize> =
                written(i).into_iter().filter(|&page| page >= 4 && i % 5 != 0).collect();
            rest.sort_unstable();
            assert_eq!(device.collect(handle), rest, "the second half of object {i}");
        }
    }
}
