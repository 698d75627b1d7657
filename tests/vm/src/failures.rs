//! Every way in which a call can fail, and that it fails in this way.

use std::{fs, ptr};

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View};

/// A handle that nobody has.
const NONE: u32 = 0xDEAD;

/// An address where nothing is.
const NOWHERE: usize = PAGE;

pub fn query() {
    let device = Device::open();
    assert_eq!(device.query(uapi::PARAM_VERSION), Ok(uapi::UAPI_VERSION));
    assert_eq!(device.query(uapi::PARAM_PAGE_SIZE), Ok(PAGE as u64));
    let all = uapi::CAP_MKWRITE
        | uapi::CAP_DIRTY_BITS
        | uapi::CAP_DEVICE_MEMORY
        | uapi::CAP_USER_OBJECTS
        | uapi::CAP_COPY;
    assert_eq!(device.query(uapi::PARAM_CAPS), Ok(all));
    assert!(device.query(uapi::PARAM_MAX_OBJECT_SIZE).unwrap() >= 1 << 40);
    assert_eq!(device.query(uapi::PARAM_DEVICE_MEMORY), Ok(8 << 20));
    assert!(device.query(uapi::PARAM_MAX_ELEMENTS).unwrap() >= 1024);
    assert!(device.query(uapi::PARAM_MAX_COPY_SIZE).unwrap() >= 1 << 20);

    assert_eq!(device.query(0), Err(libc::EINVAL));
    assert_eq!(device.query(u32::MAX), Err(libc::EINVAL));
    let mut query = uapi::Query { param: uapi::PARAM_VERSION, pad: 1, value: 0 };
    assert_eq!(device.call(uapi::IOCTL_QUERY, &mut query), Err(libc::EINVAL));
    assert_eq!(device.call_at(uapi::IOCTL_QUERY, NOWHERE), Err(libc::EFAULT));
    // A number that no ioctl has.
    assert_eq!(device.call(uapi::IOCTL_QUERY + 0x20, &mut query), Err(libc::EINVAL));
}

pub fn create_and_close() {
    let device = Device::open();
    let good = uapi::ObjectCreate { size: PAGE as u64, ..Default::default() };
    let max = device.query(uapi::PARAM_MAX_OBJECT_SIZE).unwrap();
    for bad in [
        uapi::ObjectCreate { size: 0, ..good },
        uapi::ObjectCreate { size: PAGE as u64 + 1, ..good },
        uapi::ObjectCreate { size: max + PAGE as u64, ..good },
        uapi::ObjectCreate { size: 1u64.wrapping_neg() & !0xFFF, ..good },
        uapi::ObjectCreate { flags: 1, ..good },
        uapi::ObjectCreate { flags: 1 << 31, ..good },
        uapi::ObjectCreate { placement: 2, ..good },
        uapi::ObjectCreate { tracking: 3, ..good },
    ] {
        assert_eq!(device.call(uapi::IOCTL_OBJECT_CREATE, &mut { bad }), Err(libc::EINVAL), "{bad:?}");
    }

    let handle = device.create(3 * PAGE, uapi::PLACEMENT_DEVICE, uapi::TRACKING_MKWRITE).unwrap();
    assert_ne!(handle, 0);
    let info = device.info(handle).unwrap();
    assert_eq!(info.size, 3 * PAGE as u64);
    assert_eq!((info.placement, info.tracking), (uapi::PLACEMENT_DEVICE, uapi::TRACKING_MKWRITE));
    assert_eq!((info.system_size, info.device_size), (0, 0));
    assert_eq!(device.close(handle), Ok(0));
    assert_eq!(device.close(handle), Err(libc::EINVAL), "closed twice");
    assert_eq!(device.info(handle).unwrap_err(), libc::ENOENT);

    // As large as it gets, which costs nothing.
    let handle = device.create(usize::try_from(max).unwrap(), 0, 0).unwrap();
    assert_eq!(device.close(handle), Ok(0));
}

/// Each call on a handle that is not there, that is another file's, and on an object that cannot do it.
pub fn lookups() {
    let (device, other) = (Device::open(), Device::open());
    let theirs = (0..8).map(|_| other.object(1, uapi::TRACKING_MKWRITE)).max().unwrap();
    let memory = View::anonymous(1);
    let user = device.user(memory.address(), PAGE, 0).unwrap();
    let mut bytes = [0; 8];
    let region = [uapi::Region { src_offset: 0, dst_offset: 0, size: 8 }];

    for handle in [0, NONE, theirs] {
        assert_eq!(device.info(handle).unwrap_err(), libc::ENOENT);
        assert_eq!(device.offset(handle, 0), Err(libc::ENOENT));
        assert_eq!(device.track(handle, uapi::TRACKING_MKWRITE), Err(libc::ENOENT));
        assert_eq!(device.place(handle, uapi::PLACEMENT_SYSTEM), Err(libc::ENOENT));
        assert_eq!(device.read(handle, 0, &mut bytes), Err(libc::ENOENT));
        assert_eq!(device.write(handle, 0, &bytes), Err(libc::ENOENT));
        assert_eq!(device.copy(handle, user, &region, &[], &[]), Err(libc::ENOENT));
        assert_eq!(device.copy(user, handle, &region, &[], &[]), Err(libc::ENOENT));
        assert_eq!(device.wait(handle, 0, 0), Err(libc::ENOENT));
        assert_eq!(device.export(handle).unwrap_err(), libc::ENOENT);
        let mut counters = uapi::Counters { handle, ..Default::default() };
        assert_eq!(device.call(uapi::IOCTL_COUNTERS, &mut counters), Err(libc::ENOENT));
        let (mut collect, _objects, _ranges) = collection(handle);
        assert_eq!(device.collect_raw(&mut collect), Err(libc::ENOENT));
    }

    assert_eq!(device.offset(user, 0), Err(libc::EOPNOTSUPP));
    assert_eq!(device.track(user, uapi::TRACKING_MKWRITE), Err(libc::EOPNOTSUPP));
    assert_eq!(device.place(user, uapi::PLACEMENT_DEVICE), Err(libc::EOPNOTSUPP));
    assert_eq!(device.read(user, 0, &mut bytes), Err(libc::EOPNOTSUPP));
    assert_eq!(device.write(user, 0, &bytes), Err(libc::EOPNOTSUPP));
    assert_eq!(device.export(user).unwrap_err(), libc::EOPNOTSUPP);
    let (mut collect, _objects, _ranges) = collection(user);
    assert_eq!(device.collect_raw(&mut collect), Err(libc::EOPNOTSUPP));
}

pub fn map() {
    let (device, other) = (Device::open(), Device::open());
    let handle = device.object(4, uapi::TRACKING_MKWRITE);
    assert_eq!(device.offset(handle, 2), Err(libc::EINVAL));
    assert_eq!(device.offset(handle, 1 << 31), Err(libc::EINVAL));
    let (tracked, untracked) = (device.offset(handle, 0).unwrap(), device.offset(handle, 1).unwrap());

    // Parts of either view.
    for offset in [tracked, untracked] {
        drop(View::new(device.raw(), offset, 4 * PAGE).unwrap());
        drop(View::new(device.raw(), offset + 3 * PAGE as u64, PAGE).unwrap());
    }
    let map = |device: &Device, offset: u64, size, flags| {
        View::with(device.raw(), offset, size, libc::PROT_READ | libc::PROT_WRITE, flags).err()
    };
    assert_eq!(map(&other, tracked, PAGE, libc::MAP_SHARED), Some(libc::EACCES), "another file's");
    assert_eq!(map(&device, tracked, PAGE, libc::MAP_PRIVATE), Some(libc::EINVAL));
    let second = tracked + 3 * PAGE as u64;
    assert_eq!(map(&device, second, 2 * PAGE, libc::MAP_SHARED), Some(libc::EINVAL), "of both views");
    assert_eq!(map(&device, untracked, 5 * PAGE, libc::MAP_SHARED), Some(libc::EINVAL), "past the end");
    assert_eq!(map(&device, 0, PAGE, libc::MAP_SHARED), Some(libc::EINVAL));

    // A view keeps what it shows.
    let view = View::new(device.raw(), tracked, 4 * PAGE).unwrap();
    view.set(0, 7);
    device.close(handle).unwrap();
    drop(device);
    assert_eq!((view.get(0), view.get(3 * PAGE)), (7, 0));
    view.set(PAGE, 8);
    assert_eq!(view.get(PAGE), 8);
}

pub fn track() {
    let device = Device::open();
    let handle = device.object(1, uapi::TRACKING_NONE);
    assert_eq!(device.track(handle, 3), Err(libc::EINVAL));
    assert_eq!(device.track(handle, u32::MAX), Err(libc::EINVAL));
    for tracking in [uapi::TRACKING_MKWRITE, uapi::TRACKING_DIRTY_BITS, uapi::TRACKING_NONE] {
        assert_eq!(device.track(handle, tracking), Ok(0));
        assert_eq!(device.info(handle).unwrap().tracking, tracking);
    }
    let mut info = uapi::ObjectInfo { handle, pad: 1, ..Default::default() };
    assert_eq!(device.call(uapi::IOCTL_OBJECT_INFO, &mut info), Err(libc::EINVAL));
    let mut counters = uapi::Counters { handle, pad: 1, ..Default::default() };
    assert_eq!(device.call(uapi::IOCTL_COUNTERS, &mut counters), Err(libc::EINVAL));
    assert_eq!(device.place(handle, 2), Err(libc::EINVAL));
}

/// A good collection of an object's first page; the vectors are what it points to.
fn collection(handle: u32) -> (uapi::Collect, Vec<uapi::CollectObject>, Vec<uapi::Range>) {
    let objects = vec![uapi::CollectObject { handle, pad: 0, offset: 0, size: PAGE as u64 }];
    let mut ranges = vec![uapi::Range::default(); 4];
    let collect = uapi::Collect {
        objects: objects.as_ptr() as u64,
        ranges: ranges.as_mut_ptr() as u64,
        object_count: 1,
        range_capacity: 4,
        ..Default::default()
    };
    (collect, objects, ranges)
}

pub fn collect() {
    let device = Device::open();
    let handle = device.object(2, uapi::TRACKING_MKWRITE);
    let view = device.view(handle, 0);
    view.touch(0);

    let (good, mut objects, _ranges) = collection(handle);
    let max = u32::try_from(device.query(uapi::PARAM_MAX_ELEMENTS).unwrap()).unwrap();
    for bad in [
        uapi::Collect { flags: 1, ..good },
        uapi::Collect { pad: 1, ..good },
        uapi::Collect { range_capacity: 0, ..good },
        uapi::Collect { object_count: max + 1, ..good },
        uapi::Collect { next_object: 2, ..good },
        uapi::Collect { next_offset: 1, ..good },
    ] {
        assert_eq!(device.collect_raw(&mut { bad }), Err(libc::EINVAL), "{bad:?}");
    }
    assert_eq!(device.collect_raw(&mut uapi::Collect { objects: NOWHERE as u64, ..good }), Err(libc::EFAULT));
    // Nothing to collect is no mistake.
    assert_eq!(device.collect_raw(&mut uapi::Collect { object_count: 0, ..good }), Ok(0));

    let page = PAGE as u64;
    let object = objects[0];
    for bad in [
        uapi::CollectObject { pad: 1, ..object },
        uapi::CollectObject { size: 0, ..object },
        uapi::CollectObject { size: page + 1, ..object },
        uapi::CollectObject { size: 3 * page, ..object },
        uapi::CollectObject { offset: 1, ..object },
        uapi::CollectObject { offset: 2 * page, ..object },
        uapi::CollectObject { offset: page.wrapping_neg(), size: 2 * page, ..object },
    ] {
        objects[0] = bad;
        assert_eq!(device.collect_raw(&mut { good }), Err(libc::EINVAL), "{bad:?}");
    }
    objects[0] = object;
    device.track(handle, uapi::TRACKING_NONE).unwrap();
    assert_eq!(device.collect_raw(&mut { good }), Err(libc::EINVAL), "not tracked");
    device.track(handle, uapi::TRACKING_MKWRITE).unwrap();

    // Where the ranges cannot be stored, what was written stays written: through each method, and again and again.
    for tracking in [uapi::TRACKING_MKWRITE, uapi::TRACKING_DIRTY_BITS] {
        device.track(handle, tracking).unwrap();
        view.touch(0);
        for _ in 0..3 {
            let mut unwritable = uapi::Collect { ranges: NOWHERE as u64, ..good };
            assert_eq!(device.collect_raw(&mut unwritable), Err(libc::EFAULT));
        }
        assert_eq!(device.collect(handle), [0]);
        assert_eq!(device.collect(handle), []);
    }

    // Half of an array that can be stored, half that cannot: what was stored is told, the rest is kept.
    let handle = device.object(2048, uapi::TRACKING_MKWRITE);
    let view = device.view(handle, 0);
    let expected: Vec<usize> = (0..2048).step_by(2).collect();
    expected.iter().for_each(|&page| view.touch(page));
    let array = View::anonymous(8);
    let fits = 4 * PAGE / size_of::<uapi::Range>();
    array.protect(4 * PAGE, 4 * PAGE, libc::PROT_NONE);
    objects[0] = uapi::CollectObject { handle, pad: 0, offset: 0, size: 2048 * page };
    let mut half = uapi::Collect {
        ranges: array.address() as u64,
        range_capacity: 1024,
        objects: objects.as_ptr() as u64,
        ..good
    };
    assert_eq!(device.collect_raw(&mut half), Ok(0));
    assert!(half.range_count > 0 && half.range_count as usize <= fits, "{half:?}");
    let mut seen: Vec<usize> = (0..half.range_count as usize)
        .map(|i| {
            let range = array.at(i * size_of::<uapi::Range>()).cast::<uapi::Range>();
            // SAFETY: the kernel stored it there.
            unsafe { ptr::read_unaligned(range) }.offset as usize / PAGE
        })
        .collect();
    seen.extend(device.collect(handle));
    assert_eq!(seen, expected);
}

pub fn transfer() {
    let device = Device::open();
    let handle = device.object(2, uapi::TRACKING_MKWRITE);
    let mut bytes = [1; 16];
    for opcode in [uapi::IOCTL_READ, uapi::IOCTL_WRITE] {
        let address = bytes.as_mut_ptr() as u64;
        let good = uapi::Transfer { handle, flags: 0, offset: 0, size: 16, address };
        for bad in [
            uapi::Transfer { flags: 1, ..good },
            uapi::Transfer { offset: 2 * PAGE as u64, ..good },
            uapi::Transfer { offset: 2 * PAGE as u64 - 15, ..good },
            uapi::Transfer { offset: u64::MAX, ..good },
            uapi::Transfer { size: u64::MAX, ..good },
        ] {
            assert_eq!(device.call(opcode, &mut { bad }), Err(libc::EINVAL), "{bad:?}");
        }
        assert_eq!(device.transfer(opcode, handle, 0, NOWHERE, 16), Err(libc::EFAULT));
        assert_eq!(device.transfer(opcode, handle, 0, usize::MAX - 7, 16), Err(libc::EFAULT));
        assert_eq!(device.transfer(opcode, handle, 2 * PAGE, NOWHERE, 0), Ok(0), "nothing");
    }

    // Across pages, on pages that are there and that are not.
    assert_eq!(device.write(handle, PAGE - 3, b"across"), Ok(0));
    let mut read = [9; 8];
    assert_eq!(device.read(handle, PAGE - 4, &mut read), Ok(0));
    assert_eq!(&read, b"\0across\0");
    let view = device.view(handle, 0);
    assert_eq!(view.get(PAGE), b'o');
    assert_eq!(device.collect(handle), [], "nobody wrote through a view");
}

/// Calls fail when memory is short, and leave everything as it was. The limit is that of a control group: Debian's
/// kernels inject no faults.
pub fn memory_runs_out() {
    let group = std::path::Path::new("/sys/fs/cgroup/short");
    fs::create_dir(group).expect("no control groups");
    let limit =
        fs::OpenOptions::new().write(true).open(group.join("memory.max")).expect("no memory controller");
    rustix::io::pwrite(&limit, b"6M", 0).unwrap();
    fs::write(group.join("cgroup.procs"), "0").unwrap();

    let device = Device::open();
    let pages = 4096;
    let (large, source) = (device.object(pages, uapi::TRACKING_MKWRITE), device.object(256, 0));
    // This process's own memory is in the group, too: none is taken from here to the end of the shortage.
    let (bytes, mut read) = (vec![5; PAGE], vec![1; PAGE]);
    let full = (0..pages).find_map(|page| Some((page, device.write(large, page * PAGE, &bytes).err()?)));
    let (first_missing, error) = full.expect("memory does not end");
    assert_eq!(error, libc::ENOMEM);

    // Copying to it, and moving it, which takes as many pages again.
    let region = [uapi::Region { src_offset: 0, dst_offset: (pages / 2 * PAGE) as u64, size: 1 << 20 }];
    assert_eq!(device.copy(source, large, &region, &[], &[]), Err(libc::ENOMEM));
    let before = device.info(large).unwrap();
    assert_eq!(device.place(large, uapi::PLACEMENT_DEVICE), Err(libc::ENOMEM));
    let after = device.info(large).unwrap();
    assert_eq!((after.system_size, after.device_size), (before.system_size, 0));
    for page in 0..first_missing {
        device.read(large, page * PAGE, &mut read).unwrap();
        assert!(read == bytes, "page {page}");
    }

    // And when there is some again, all goes on.
    rustix::io::pwrite(&limit, b"max", 0).unwrap();
    assert_eq!(device.write(large, first_missing * PAGE, &bytes), Ok(0));
    assert_eq!(device.copy(source, large, &region, &[], &[]), Ok(0));
    device.wait(large, 0, i64::MAX).unwrap();
    assert_eq!(device.place(large, uapi::PLACEMENT_DEVICE), Ok(0));
}

pub fn wait() {
    let device = Device::open();
    let handle = device.object(1, uapi::TRACKING_NONE);
    assert_eq!(device.wait(handle, 2, 0), Err(libc::EINVAL));
    assert_eq!(device.wait(handle, uapi::WAIT_READERS, 0), Ok(0), "there is nothing to wait for");
    assert_eq!(device.wait(handle, 0, i64::MAX), Ok(0));
}
