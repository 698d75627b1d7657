//! What outlives what: objects, files, dma-bufs, views, the device and the module.

use std::os::fd::AsRawFd;
use std::{fs, thread};

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View, errno, knob};

pub fn sharing() {
    let (device, other) = (Device::open(), Device::open());
    let handle = device.object(4, uapi::TRACKING_MKWRITE);
    device.write(handle, 0, b"shared").unwrap();
    let buffer = device.export(handle).unwrap();
    // SAFETY: asks for flags.
    assert_ne!(unsafe { libc::fcntl(buffer.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC, 0);
    assert_eq!(device.import(&buffer), Ok(handle), "the same object, the same handle");
    let theirs = other.import(&buffer).unwrap();
    let view = other.view(theirs, 0);
    view.touch(3);
    assert_eq!(device.collect(handle), [3], "tracking is the object's, not the file's");
    device.close(handle).unwrap();
    drop(device);
    assert_eq!(view.get(0), b's');
    drop((view, other));

    // The buffer alone keeps it.
    let third = Device::open();
    let handle = third.import(&buffer).unwrap();
    let mut bytes = [0; 6];
    third.read(handle, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"shared");
}

/// Another device has the pages: they stay in system memory.
pub fn attached() {
    let (device, other) = (Device::open(), Device::open_driver("vgem"));
    let handle = device.object(4, uapi::TRACKING_MKWRITE);
    device.write(handle, 0, &[4]).unwrap();
    device.place(handle, uapi::PLACEMENT_DEVICE).unwrap();
    let theirs = other.import(&device.export(handle).unwrap()).unwrap();
    assert_eq!(device.info(handle).unwrap().device_size, 0, "brought back");
    assert_eq!(device.place(handle, uapi::PLACEMENT_DEVICE), Err(libc::EBUSY));
    other.close(theirs).unwrap();
    drop(other);
    assert_eq!(device.place(handle, uapi::PLACEMENT_DEVICE), Ok(0));
}

/// What `fdinfo` tells, by the names of drm-usage-stats.
pub fn usage() {
    let device = Device::open();
    let (object, copy) = (device.object(4, uapi::TRACKING_NONE), device.object(4, uapi::TRACKING_NONE));
    device.write(object, 0, &vec![1; 4 * PAGE]).unwrap();
    let region = [uapi::Region { src_offset: 0, dst_offset: 0, size: 4 * PAGE as u64 }];
    device.copy(object, copy, &region, &[], &[]).unwrap();
    device.wait(copy, 0, i64::MAX).unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", device.raw())).unwrap();
    let value = |name: &str| {
        let line =
            info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {info}"));
        line.trim().to_owned()
    };
    assert_eq!(value("drm-driver:"), "tidemark");
    assert_ne!(value("drm-engine-copy:"), "0 ns");
    assert_eq!(value("drm-total-memory:"), "32 KiB");
    assert_eq!(value("drm-resident-memory:"), "32 KiB");
}

/// The module stays as long as a view does, without any file.
pub fn module() {
    let device = Device::open();
    let handle = device.object(1, uapi::TRACKING_MKWRITE);
    let view = device.view(handle, 0);
    drop(device);
    let unload = || {
        // SAFETY: a name, and flags.
        let returned =
            unsafe { libc::syscall(libc::SYS_delete_module, c"tidemark".as_ptr(), libc::O_NONBLOCK) };
        if returned == 0 { Ok(()) } else { Err(errno()) }
    };
    assert_eq!(unload(), Err(libc::EAGAIN));
    view.set(0, 3);
    assert_eq!(view.get(0), 3);
    drop(view);
    // What is left to do is done behind our back.
    let unloaded = (0..100).any(|_| {
        thread::sleep(std::time::Duration::from_millis(20));
        unload().is_ok()
    });
    assert!(unloaded, "{}", errno());
    load();
    assert_eq!(Device::open().query(uapi::PARAM_VERSION), Ok(uapi::UAPI_VERSION));
}

fn load() {
    let file = fs::File::open("/modules/tidemark.ko").unwrap();
    // SAFETY: a file, its parameters, and flags.
    let returned =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"heap_mib=8".as_ptr(), 0) };
    assert_eq!(returned, 0, "{}", errno());
}

/// Views stay, calls fail, fences end, and nobody gets SIGBUS.
pub fn unplug() {
    let device = Device::open();
    let handles = [0; 3].map(|_| device.object(20, uapi::TRACKING_MKWRITE));
    let [stays, leaves, target] = handles.map(|handle| device.view(handle, 0));
    stays.set(5, 1);
    leaves.set(5, 2);
    target.set(5, 3);
    let buffer = device.export(handles[0]).unwrap();
    device.place(handles[1], uapi::PLACEMENT_DEVICE).unwrap();
    device.wait(handles[1], uapi::WAIT_READERS, i64::MAX).unwrap();
    let memory = View::anonymous(1);
    let user = device.user(memory.address(), PAGE, 0).unwrap();
    knob("latency_us", 30_000_000);
    let region = [uapi::Region { src_offset: 5, dst_offset: 5, size: 1 }];
    let sync = device.syncobj();
    let signal = uapi::Sync { handle: sync, flags: 0, point: 0 };
    device.copy(handles[0], user, &region, &[], &[signal]).unwrap();
    device.copy(handles[0], handles[2], &region, &[], &[]).unwrap();

    thread::scope(|scope| {
        // One waits for a job, one for a page.
        let waiter = scope.spawn(|| device.wait(handles[2], 0, i64::MAX));
        let toucher = scope.spawn(|| leaves.get(5));
        thread::sleep(std::time::Duration::from_millis(200));
        fs::write("/sys/bus/platform/drivers/tidemark/unbind", "tidemark").unwrap();
        assert_eq!(waiter.join().unwrap(), Err(libc::ENODEV));
        assert_eq!(toucher.join().unwrap(), 0, "what the device had is lost");
    });
    // This waits for the job, which is not run: its fence has signalled.
    drop(memory);

    assert_eq!(device.query(uapi::PARAM_VERSION), Err(libc::ENODEV));
    assert_eq!(device.info(handles[0]).unwrap_err(), libc::ENODEV);
    assert_eq!(device.place(handles[0], uapi::PLACEMENT_DEVICE), Err(libc::ENODEV));
    let mapped = View::new(device.raw(), 0, PAGE);
    assert_eq!(mapped.err(), Some(libc::ENODEV));
    assert_eq!((stays.get(5), target.get(5)), (1, 3));
    stays.set(PAGE, 7);
    stays.set(19 * PAGE, 8);
    leaves.set(19 * PAGE, 9);
    assert_eq!((stays.get(PAGE), leaves.get(19 * PAGE)), (7, 9));
    let view = View::new(buffer.as_raw_fd(), 0, PAGE).unwrap();
    assert_eq!(view.get(5), 1);
    drop((view, buffer, stays, leaves, target, device));

    fs::write("/sys/bus/platform/drivers/tidemark/bind", "tidemark").unwrap();
    let device = Device::open();
    let handle = device.object(1, uapi::TRACKING_MKWRITE);
    device.view(handle, 0).touch(0);
    assert_eq!(device.collect(handle), [0]);
}
