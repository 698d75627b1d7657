//! Placed maps: memory at an address of the application's choice, whole and in part, again and elsewhere.

use ash::vk;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use crate::gpu::{Buffer, Gpu};
use crate::{Failure, Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("placed-map", placed_map),
    ("placed-map-of-a-range", placed_map_of_a_range),
    ("placed-write-then-unmap", placed_write_then_unmap),
    ("placed-map-after-wait", placed_map_after_wait),
    ("placed-map-in-flight", placed_map_in_flight),
    ("placed-bytes-of-both", placed_bytes_of_both),
    ("free-while-placed", free_while_placed),
    ("reserved-addresses", reserved_addresses),
];

/// Bytes of a page: all alignments that drivers ask for divide it.
const PAGE: usize = 65_536;
const PAGES: usize = 8;
const SIZE: u64 = (PAGES * PAGE) as u64;

const NO_PLACED: Outcome = Outcome::Skipped("memory cannot be placed at addresses that stay reserved");
const NO_RANGE: Outcome = Outcome::Skipped("only whole allocations can be placed");

/// Whether memory can be placed at addresses that stay reserved when it is unmapped: without that, other threads might
/// get them.
fn can_place(gpu: &Gpu) -> bool {
    gpu.placed.memory_map_placed == vk::TRUE && gpu.placed.memory_unmap_reserve == vk::TRUE
}

/// Addresses that nobody else gets, for all [`PAGES`] and some more.
struct Room {
    /// A multiple of [`PAGE`].
    start: *mut u8,
    mapping: (*mut c_void, usize),
}

impl Room {
    fn new() -> Result<Self, Failure> {
        let len = (PAGES + 3) * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let start = base.cast::<u8>().map_addr(|address| address.next_multiple_of(PAGE) + PAGE);
        Ok(Self { start, mapping: (base, len) })
    }

    /// Whether the kernel would map something there. If so, the addresses are reserved afterwards.
    fn is_free(&self) -> bool {
        let at: *mut c_void = self.start.cast();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: replaces nothing.
        unsafe { libc::mmap(at, PAGES * PAGE, libc::PROT_NONE, flags, -1, 0) == at }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: what is left in there is the room's own, or nothing.
        unsafe { libc::munmap(self.mapping.0, self.mapping.1) };
    }
}

/// Whether the byte can be read.
fn is_mapped(at: *const u8) -> bool {
    let mut byte = 0u8;
    let to = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let from = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: 1 };
    // SAFETY: reads one byte, if there is one.
    unsafe { libc::process_vm_readv(libc::getpid(), &raw const to, 1, &raw const from, 1, 0) == 1 }
}

/// A mapped buffer, unmapped.
fn unmapped(gpu: &Arc<Gpu>) -> Result<Buffer, Failure> {
    let buffer = gpu.coherent(SIZE)?;
    buffer.unmap();
    Ok(buffer)
}

fn placed_map() -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) {
        return Ok(NO_PLACED);
    }
    let rooms = [Room::new()?, Room::new()?];
    let (from, to) = (unmapped(&gpu)?, unmapped(&gpu)?);
    let copy = gpu.copy(&from, &to)?;
    from.place(rooms[0].start, 0..SIZE)?;
    to.place(rooms[1].start, 0..SIZE)?;
    for round in 1..4 {
        from.write_pattern(round);
        gpu.run(copy)?;
        to.expect_pattern(round)?;
    }
    // A page here and there.
    for page in [1, 2, 5] {
        from.store(page * PAGE + 17, 0xa5);
    }
    gpu.run(copy)?;
    for page in [1, 2, 5] {
        let seen = to.load(page * PAGE + 17);
        if seen != 0xa5 {
            return Err(format!("page {page} has {seen:#04x}").into());
        }
    }
    from.unplace(true)?;
    to.unplace(true)?;
    Ok(Outcome::Passed)
}

fn placed_map_of_a_range() -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) || gpu.placed.memory_map_range_placed == vk::FALSE {
        return Ok(NO_RANGE);
    }
    let room = Room::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    from.fill(1);
    from.unmap();
    for (round, pages) in (2..).zip([3..6, 0..1, 7..8, 0..PAGES]) {
        let bytes = pages.start * PAGE..pages.end * PAGE;
        let at = room.start.wrapping_add(PAGE);
        from.place(at, bytes.start as u64..bytes.end as u64)?;
        if is_mapped(at.wrapping_sub(1)) || !is_mapped(at) {
            return Err("the map is not where it was to be".to_string().into());
        }
        bytes.clone().for_each(|offset| from.store(offset, round));
        gpu.run(copy)?;
        to.expect(|offset| if bytes.contains(&offset) { round } else { 1 })?;
        bytes.clone().for_each(|offset| from.store(offset, 1));
        from.unplace(true)?;
        gpu.run(copy)?;
        to.expect(|_| 1)?;
    }
    Ok(Outcome::Passed)
}

/// The application writes, unmaps, and only then submits; it looks elsewhere afterwards.
fn placed_write_then_unmap() -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) {
        return Ok(NO_PLACED);
    }
    let rooms = [Room::new()?, Room::new()?];
    let (from, to) = (unmapped(&gpu)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 1..6 {
        // Every third time it is mapped wherever the driver likes.
        let room = rooms.get(usize::from(round) % 3);
        match room {
            Some(room) => from.place(room.start, 0..SIZE)?,
            None => from.map()?,
        }
        if round > 1 {
            from.expect_pattern(round - 1)?;
        }
        from.write_pattern(round);
        match room {
            Some(_) => from.unplace(true)?,
            None => from.unmap(),
        }
        gpu.run(copy)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// The device writes while nothing is mapped.
fn placed_map_after_wait() -> Verdict {
    read_where_placed(|gpu, copy, place| {
        gpu.run(copy)?;
        place()
    })
}

/// Mapped while a batch that is to write it waits for the host.
fn placed_map_in_flight() -> Verdict {
    read_where_placed(|gpu, copy, place| gpu.run_after(copy, place))
}

/// Reads what a copy wrote where `run` places it.
fn read_where_placed(
    run: impl Fn(&Gpu, vk::CommandBuffer, &dyn Fn() -> Result<(), Failure>) -> Result<(), Failure>,
) -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) {
        return Ok(NO_PLACED);
    }
    let room = Room::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, unmapped(&gpu)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 1..4 {
        from.write_pattern(round);
        run(&gpu, copy, &|| to.place(room.start, 0..SIZE))?;
        to.expect_pattern(round)?;
        to.unplace(true)?;
    }
    Ok(Outcome::Passed)
}

/// The host writes every other byte of pages whose others the device writes, and neither loses any.
fn placed_bytes_of_both() -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) {
        return Ok(NO_PLACED);
    }
    let room = Room::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, unmapped(&gpu)?);
    let regions: Vec<vk::BufferCopy> = (0..SIZE / 8192)
        .map(|piece| vk::BufferCopy { src_offset: piece * 8192, dst_offset: piece * 8192, size: 4 })
        .collect();
    // SAFETY: live buffers.
    let copy = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions)
    })?;
    to.place(room.start, 0..SIZE)?;
    for round in 1..4u8 {
        from.fill(round);
        (0..to.len()).filter(|offset| offset % 8192 >= 4).for_each(|offset| to.store(offset, round | 0x80));
        gpu.run(copy)?;
        to.expect(|offset| if offset % 8192 < 4 { round } else { round | 0x80 })?;
    }
    to.unplace(true)?;
    Ok(Outcome::Passed)
}

/// Memory that is freed while it is placed leaves its addresses, and its pages are somebody else's next.
fn free_while_placed() -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) {
        return Ok(NO_PLACED);
    }
    let mut room = Room::new()?;
    let to = gpu.coherent(SIZE)?;
    for round in 1..6 {
        let from = unmapped(&gpu)?;
        from.place(room.start, 0..SIZE)?;
        from.write_pattern(round);
        let copy = gpu.copy(&from, &to)?;
        gpu.run(copy)?;
        to.expect_pattern(round)?;
        drop(from);
        room = expect_free(room)?;
    }
    Ok(Outcome::Passed)
}

fn reserved_addresses() -> Verdict {
    let gpu = Gpu::placing()?;
    if !can_place(&gpu) {
        return Ok(NO_PLACED);
    }
    let room = Room::new()?;
    let (from, to) = (unmapped(&gpu)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 1..4 {
        from.place(room.start, 0..SIZE)?;
        from.write_pattern(round);
        from.unplace(true)?;
        if room.is_free() {
            return Err("the addresses are not reserved".to_string().into());
        }
        if is_mapped(room.start) {
            return Err("the memory can still be read there".to_string().into());
        }
        gpu.run(copy)?;
        to.expect_pattern(round)?;
    }
    from.place(room.start, 0..SIZE)?;
    from.unplace(false)?;
    expect_free(room)?;
    Ok(Outcome::Passed)
}

/// The kernel gives the addresses away again. Afterwards they are reserved.
fn expect_free(room: Room) -> Result<Room, Failure> {
    if room.is_free() {
        return Ok(room);
    }
    // Whatever is there now is not the room's.
    std::mem::forget(room);
    Err("the addresses are still in use".to_string().into())
}
