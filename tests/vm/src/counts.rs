//! What tracking costs, in faults and pages looked at rather than in time.

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE};

pub fn mkwrite_faults_once_a_round() {
    let device = Device::open();
    let handle = device.object(64, uapi::TRACKING_MKWRITE);
    let view = device.view(handle, 0);
    for round in 1..=5 {
        for _ in 0..3 {
            (0..8).for_each(|page| view.touch(page * 4));
        }
        let counters = device.counters(handle);
        assert_eq!(counters.write_faults, 8 * round, "one for each page in each round");
        assert_eq!(device.collect(handle).len(), 8);
        assert_eq!(device.counters(handle).scanned_pages, 8 * round, "only the pages that were written");
        assert_eq!(device.counters(handle).collected_pages, 8 * round);
    }
    let before = device.counters(handle);
    assert_eq!(device.collect(handle), []);
    assert_eq!(device.counters(handle), before, "a scan of nothing costs nothing");
}

pub fn dirty_bits_do_not_fault() {
    let device = Device::open();
    let handle = device.object(64, uapi::TRACKING_DIRTY_BITS);
    let view = device.view(handle, 0);
    (0..16).for_each(|page| view.touch(page));
    assert_eq!(device.collect(handle).len(), 16);
    let before = device.counters(handle);
    for round in 1..=5 {
        (0..8).for_each(|page| view.touch(page));
        assert_eq!(device.collect(handle), (0..8).collect::<Vec<_>>());
        let counters = device.counters(handle);
        assert_eq!(counters.faults, before.faults);
        assert_eq!(counters.write_faults, before.write_faults, "rewriting faults not at all");
        assert_eq!(
            counters.scanned_pages,
            before.scanned_pages + 16 * round,
            "each page that is mapped writable"
        );
    }
    // What is mapped no more is looked at no more.
    drop(view);
    device.collect(handle);
    let before = device.counters(handle);
    device.collect(handle);
    assert_eq!(device.counters(handle), before);
}

/// A hundred pages of a tebibyte.
pub fn sparse_objects_cost_what_is_there() {
    let device = Device::open();
    for tracking in [uapi::TRACKING_MKWRITE, uapi::TRACKING_DIRTY_BITS] {
        let pages = (1 << 40) / PAGE;
        let handle = device.create(1 << 40, uapi::PLACEMENT_SYSTEM, tracking).unwrap();
        let view = device.view(handle, 0);
        let expected: Vec<usize> = (0..100).map(|i| i * (pages / 100) + i).collect();
        expected.iter().for_each(|&page| view.touch(page));
        let tables = page_tables();
        for round in 1..=3 {
            assert_eq!(device.collect(handle), expected);
            let counters = device.counters(handle);
            assert_eq!(counters.scanned_pages, 100 * round);
            expected.iter().for_each(|&page| view.touch(page));
        }
        assert_eq!(device.info(handle).unwrap().system_size, 100 * PAGE as u64);
        assert_eq!(page_tables(), tables, "scans made page tables");
        device.close(handle).unwrap();
    }
}

/// Kilobytes that this process's page tables take.
fn page_tables() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPTE:")).expect("no VmPTE");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Reading present pages one after the other faults for several at a time.
pub fn neighbours_are_mapped_along() {
    let device = Device::open();
    let handle = device.object(64, uapi::TRACKING_MKWRITE);
    device.write(handle, 0, &vec![1; 64 * PAGE]).unwrap();
    for flags in [0, uapi::MMAP_UNTRACKED] {
        let before = device.counters(handle).faults;
        let view = device.view(handle, flags);
        assert!((0..64).all(|page| view.get(page * PAGE) == 1));
        let faults = device.counters(handle).faults - before;
        assert!(faults <= 8, "{faults} faults for 64 pages");
    }
}
