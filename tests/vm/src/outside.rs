//! What others do with the driver: buffers of other devices, pins for long, and processes of 32 bits.

use std::arch::asm;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View};

/// A buffer that is no object of the driver's cannot become one.
pub fn foreign_buffers() {
    /// `struct udmabuf_create` and `UDMABUF_CREATE`.
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    const CREATE: u64 = 0x4018_7542;

    // SAFETY: the name is a string that ends, and the descriptor ours.
    let memory =
        unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"buffer".as_ptr(), libc::MFD_ALLOW_SEALING)) };
    // SAFETY: numbers alone.
    let sealed = unsafe {
        libc::ftruncate(memory.as_raw_fd(), 4 * PAGE as i64)
            | libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK)
    };
    assert_eq!(sealed, 0);
    let maker = OpenOptions::new().read(true).write(true).open("/dev/udmabuf").expect("no udmabuf");
    let mut create =
        Create { memfd: memory.as_raw_fd().cast_unsigned(), flags: 0, offset: 0, size: 4 * PAGE as u64 };
    // SAFETY: the argument is a live structure.
    let made = unsafe { libc::ioctl(maker.as_raw_fd(), CREATE as _, &raw mut create) };
    assert!(made >= 0, "no buffer");
    // SAFETY: the call made it for us.
    let buffer = unsafe { OwnedFd::from_raw_fd(made) };

    let device = Device::open();
    assert_eq!(device.import(&buffer), Err(libc::EINVAL));
    // And nothing was taken of it.
    let view = View::new(buffer.as_raw_fd(), 0, PAGE).expect("cannot map the buffer");
    view.set(0, 1);
    drop((buffer, device));
    assert_eq!(view.get(0), 1);
}

/// Pages that somebody could write to for as long as he likes, without any PTE, could never be told from clean ones.
pub fn pins_for_long() {
    let device = Device::open();
    // SAFETY: a structure of zeros is one that asks for nothing special, of the size that the kernel knows.
    let ring = unsafe {
        let mut parameters = [0u64; 15];
        libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr())
    };
    assert!(ring >= 0, "no io_uring");
    // SAFETY: the call made it for us.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring).unwrap()) };
    let register = |view: &View| {
        let vector = libc::iovec { iov_base: view.at(0).cast(), iov_len: PAGE };
        const REGISTER_BUFFERS: u32 = 0;
        // SAFETY: one live vector of live memory.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring.as_raw_fd(),
                REGISTER_BUFFERS,
                &raw const vector,
                1,
            )
        }
    };
    for tracking in [uapi::TRACKING_MKWRITE, uapi::TRACKING_DIRTY_BITS] {
        let handle = device.object(1, tracking);
        for flags in [0, uapi::MMAP_UNTRACKED] {
            let view = device.view(handle, flags);
            view.touch(0);
            assert_eq!(register(&view), -1, "pinned for long");
        }
        device.collect(handle);
        assert_eq!(device.collect(handle), [], "something is left pinned");
    }
    // The kernel would have others' pages.
    assert_eq!(register(&View::anonymous(1)), 0);
}

/// Structures are the same, with addresses in them as well.
pub fn processes_of_32_bits() {
    let device = Device::open();
    // Where such a process could have it.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let low = View::with(-1, 0, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags).expect("no low memory");
    let create = uapi::ObjectCreate {
        size: 8 * PAGE as u64,
        placement: uapi::PLACEMENT_SYSTEM,
        tracking: uapi::TRACKING_MKWRITE,
        ..Default::default()
    };
    let handle = call_32(&device, uapi::IOCTL_OBJECT_CREATE, &low, create).expect("cannot create").handle;
    let offset = uapi::MmapOffset { handle, ..Default::default() };
    let offset = call_32(&device, uapi::IOCTL_MMAP_OFFSET, &low, offset).expect("no offset").offset;
    assert_eq!(offset, device.offset(handle, 0).unwrap());
    let view = View::new(device.raw(), offset, 8 * PAGE).expect("cannot map");
    view.touch(5);

    let (objects, ranges) = (low.at(1024), low.at(2048));
    let object = uapi::CollectObject { handle, pad: 0, offset: 0, size: 8 * PAGE as u64 };
    // SAFETY: aligned places in the low memory, which nobody else uses.
    unsafe { objects.cast::<uapi::CollectObject>().write(object) };
    let collect = uapi::Collect {
        objects: objects as u64,
        ranges: ranges as u64,
        object_count: 1,
        range_capacity: 4,
        ..Default::default()
    };
    let collect = call_32(&device, uapi::IOCTL_COLLECT, &low, collect).expect("cannot collect");
    assert_eq!((collect.range_count, collect.next_object), (1, 1));
    // SAFETY: as above; the kernel stored one range.
    let range = unsafe { ranges.cast::<uapi::Range>().read() };
    assert_eq!(range, uapi::Range { offset: 5 * PAGE as u64, size: PAGE as u64, object: 0, pad: 0 });
    let counters = uapi::Counters { handle, ..Default::default() };
    let counters = call_32(&device, uapi::IOCTL_COUNTERS, &low, counters).expect("no counters");
    assert_eq!(counters, device.counters(handle));
    let bad = uapi::MmapOffset { handle: 77, ..Default::default() };
    assert_eq!(call_32(&device, uapi::IOCTL_MMAP_OFFSET, &low, bad).err(), Some(libc::ENOENT));
}

/// An ioctl as a process of 32 bits makes it; its argument is at the begin of `low`. Returns it as the kernel left it.
fn call_32<T: Copy>(device: &Device, opcode: u32, low: &View, argument: T) -> Result<T, i32> {
    const IOCTL: u32 = 54;
    assert!(size_of::<T>() <= 1024);
    let place = low.at(0).cast::<T>();
    let address = u32::try_from(place as usize).expect("not low");
    let returned: i32;
    // SAFETY: memory of the call's own, aligned to a page; the system call changes that alone, and keeps all registers but
    // the result's. The compiler keeps rbx to itself.
    unsafe {
        ptr::write(place, argument);
        asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) i64::from(device.raw()) => _,
            inlateout("eax") IOCTL => returned,
            in("ecx") opcode,
            in("edx") address,
        );
        if returned < 0 { Err(-returned) } else { Ok(ptr::read(place)) }
    }
}
