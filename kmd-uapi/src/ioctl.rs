//! `_IO`, `_IOR`, `_IOW` and `_IOWR` of the kernel's `include/uapi/asm-generic/ioctl.h`.

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn opcode(direction: u32, group: u8, number: u8, size: usize) -> u32 {
    assert!(size < 1 << 14, "the size field of an opcode has 14 bits");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let size = size as u32;
    // `u32::from` is not const yet; both casts widen.
    let (group, number) = (group as u32, number as u32);
    direction << 30 | size << 16 | group << 8 | number
}

/// The kernel looks at the argument's value alone.
pub(crate) const fn none(group: u8, number: u8) -> u32 {
    opcode(0, group, number, 0)
}

/// Where the numbers of a DRM driver's own ioctls begin.
pub(crate) const DRM_COMMAND_BASE: u8 = 0x40;

/// The kernel fills a `T`.
pub(crate) const fn read<T>(group: u8, number: u8) -> u32 {
    opcode(READ, group, number, size_of::<T>())
}

/// The kernel reads a `T`.
pub(crate) const fn write<T>(group: u8, number: u8) -> u32 {
    opcode(WRITE, group, number, size_of::<T>())
}

/// The kernel reads a `T` and answers in it.
pub(crate) const fn read_write<T>(group: u8, number: u8) -> u32 {
    opcode(READ | WRITE, group, number, size_of::<T>())
}
