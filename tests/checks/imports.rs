//! Memory of the application's own, imported by VK_EXT_external_memory_host: the pages are the memory, without any mapping.

use ash::vk::{self, ExternalMemoryHandleTypeFlags as HandleTypes};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;

use crate::gpu::{COPIES, Gpu};
use crate::{Failure, Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("import-host-writes", || with_imports(host_writes)),
    ("import-device-writes", || with_imports(device_writes)),
    ("import-neighbouring-bytes", || with_imports(neighbouring_bytes)),
    ("import-part-of-it", || with_imports(part_of_it)),
    ("import-several-buffers", || with_imports(several_buffers)),
    ("import-mapped", || with_imports(mapped)),
    ("import-kinds-of-memory", || with_imports(kinds_of_memory)),
    ("import-read-only", || with_imports(read_only)),
    ("import-again", || with_imports(again)),
    ("import-again-elsewhere", || with_imports(again_elsewhere)),
    ("import-emptied", || with_imports(emptied)),
    ("import-and-fork", || with_imports(and_fork)),
    ("import-overlapping", || with_imports(overlapping)),
    ("import-dedicated", || with_imports(dedicated)),
    ("import-image", || with_imports(image)),
    ("import-queries", || with_imports(queries)),
];

const PAGE: usize = 4096;
const PAGES: usize = 8;
const SIZE: usize = PAGES * PAGE;

const ALLOCATION: HandleTypes = HandleTypes::HOST_ALLOCATION_EXT;

fn with_imports(check: fn(&Arc<Gpu>) -> Verdict) -> Verdict {
    let gpu = Gpu::new()?;
    if !gpu.has(ash::ext::external_memory_host::NAME) {
        return Ok(Outcome::Skipped("no VK_EXT_external_memory_host"));
    }
    // SAFETY: a live device.
    let found = unsafe {
        gpu.instance
            .get_device_proc_addr(gpu.device.handle(), c"vkGetMemoryHostPointerPropertiesEXT".as_ptr())
    };
    if found.is_none() {
        return Err("no vkGetMemoryHostPointerPropertiesEXT".to_string().into());
    }
    check(&gpu)
}

/// Pages, unmapped at the end.
struct Pages {
    start: *mut u8,
    size: usize,
}

impl Pages {
    /// Anonymous memory, `SHARED` or `PRIVATE`.
    fn new(size: usize, flags: MapFlags) -> Result<Self, Failure> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the kernel chooses.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), size, access, flags) };
        Ok(Self { start: start.map_err(std::io::Error::from)?.cast(), size })
    }

    fn private() -> Result<Self, Failure> {
        Self::new(SIZE, MapFlags::PRIVATE)
    }

    /// A file, from its start on.
    fn of(file: &OwnedFd, access: ProtFlags, flags: MapFlags) -> Result<Self, Failure> {
        // SAFETY: as above.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), SIZE, access, flags, file, 0) };
        Ok(Self { start: start.map_err(std::io::Error::from)?.cast(), size: SIZE })
    }

    fn store(&self, at: usize, value: u8) {
        assert!(at < self.size);
        // SAFETY: inside; volatile, as the device may read it at any time.
        unsafe { self.start.add(at).write_volatile(value) }
    }

    fn load(&self, at: usize) -> u8 {
        assert!(at < self.size);
        // SAFETY: inside; volatile, as the device may write it at any time.
        unsafe { self.start.add(at).read_volatile() }
    }

    fn fill(&self, value: impl Fn(usize) -> u8) {
        (0..self.size).for_each(|at| self.store(at, value(at)));
    }

    fn expect(&self, value: impl Fn(usize) -> u8) -> Result<(), Failure> {
        match (0..self.size).find(|&at| self.load(at) != value(at)) {
            None => Ok(()),
            Some(at) => {
                Err(format!("byte {at} of the pages is {:#04x}, should be {:#04x}", self.load(at), value(at))
                    .into())
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: imports of them are freed first.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.size) };
    }
}

/// An import with a buffer in it, which starts at an offset there.
struct Import {
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    gpu: Arc<Gpu>,
}

impl Import {
    fn new(gpu: &Arc<Gpu>, pages: &Pages) -> Result<Self, Failure> {
        Self::of(gpu, pages, 0..pages.size, false)
    }

    /// A buffer of `range` of the pages, in an import of all of them.
    fn of(
        gpu: &Arc<Gpu>,
        pages: &Pages,
        range: std::ops::Range<usize>,
        is_dedicated: bool,
    ) -> Result<Self, Failure> {
        let buffer = buffer(gpu, range.len())?;
        let memory = match allocate(gpu, pages, buffer, is_dedicated) {
            Ok(memory) => memory,
            Err(failure) => {
                // SAFETY: never used.
                unsafe { gpu.device.destroy_buffer(buffer, None) };
                return Err(failure);
            }
        };
        // SAFETY: the buffer lies inside.
        unsafe { gpu.device.bind_buffer_memory(buffer, memory, range.start as u64) }?;
        Ok(Self { buffer, memory, gpu: gpu.clone() })
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // SAFETY: the checks wait before they drop.
        unsafe {
            self.gpu.device.destroy_buffer(self.buffer, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

/// A buffer for imported memory.
fn buffer(gpu: &Gpu, size: usize) -> Result<vk::Buffer, Failure> {
    let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(ALLOCATION);
    let info = vk::BufferCreateInfo::default().size(size as u64).usage(COPIES).push_next(&mut external);
    // SAFETY: a live device; the caller destroys it.
    Ok(unsafe { gpu.device.create_buffer(&info, None) }?)
}

/// Imports all of the pages.
fn allocate(
    gpu: &Gpu,
    pages: &Pages,
    buffer: vk::Buffer,
    is_dedicated: bool,
) -> Result<vk::DeviceMemory, Failure> {
    // SAFETY: a live buffer.
    let requirements = unsafe { gpu.device.get_buffer_memory_requirements(buffer) };
    let memory_type = gpu
        .coherent_type(requirements.memory_type_bits & gpu.import_types(pages.start)?)
        .ok_or_else(|| "no coherent type for imported memory".to_string())?;
    let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
        .handle_type(ALLOCATION)
        .host_pointer(pages.start.cast());
    let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer);
    let mut info = vk::MemoryAllocateInfo::default()
        .allocation_size(pages.size as u64)
        .memory_type_index(memory_type)
        .push_next(&mut import);
    if is_dedicated {
        info = info.push_next(&mut dedicated);
    }
    // SAFETY: pages that live longer than the memory.
    Ok(unsafe { gpu.device.allocate_memory(&info, None) }?)
}

fn copy(gpu: &Gpu, from: vk::Buffer, to: vk::Buffer, size: usize) -> Result<vk::CommandBuffer, Failure> {
    let regions = [vk::BufferCopy::default().size(size as u64)];
    // SAFETY: live buffers of that size.
    gpu.record(|commands| unsafe { gpu.device.cmd_copy_buffer(commands, from, to, &regions) })
}

fn pattern(seed: u8) -> impl Fn(usize) -> u8 {
    move |at| (at / 7).to_le_bytes()[0].wrapping_mul(31).wrapping_add(seed)
}

/// What was there before the import, and what is written afterwards.
fn host_writes(gpu: &Arc<Gpu>) -> Verdict {
    let (pages, to) = (Pages::private()?, gpu.coherent(SIZE as u64)?);
    pages.fill(pattern(1));
    let import = Import::new(gpu, &pages)?;
    let commands = copy(gpu, import.buffer, to.buffer, SIZE)?;
    gpu.run(commands)?;
    to.expect(pattern(1))?;
    for round in 2..6 {
        let at = usize::from(round) * PAGE + 5;
        pages.store(at, round);
        gpu.run(commands)?;
        to.expect(|offset| match offset {
            _ if (2..=round).any(|round| usize::from(round) * PAGE + 5 == offset) => (offset / PAGE) as u8,
            _ => pattern(1)(offset),
        })?;
    }
    pages.fill(pattern(9));
    gpu.run(commands)?;
    to.expect(pattern(9))?;
    Ok(Outcome::Passed)
}

fn device_writes(gpu: &Arc<Gpu>) -> Verdict {
    let (pages, from) = (Pages::private()?, gpu.coherent(SIZE as u64)?);
    let import = Import::new(gpu, &pages)?;
    let commands = copy(gpu, from.buffer, import.buffer, SIZE)?;
    for round in 1..5 {
        from.write_pattern(round);
        gpu.run(commands)?;
        pages.expect(|at| from.load(at))?;
    }
    Ok(Outcome::Passed)
}

/// Host and device write every other byte of the same pages between two waits.
fn neighbouring_bytes(gpu: &Arc<Gpu>) -> Verdict {
    const BYTES: usize = 2 * PAGE;
    let (pages, from) = (Pages::private()?, gpu.coherent(BYTES as u64)?);
    let import = Import::new(gpu, &pages)?;
    let odd: Vec<vk::BufferCopy> = (0..BYTES as u64)
        .filter(|at| at % 2 == 1)
        .map(|at| vk::BufferCopy { src_offset: at, dst_offset: at, size: 1 })
        .collect();
    // SAFETY: live buffers that large.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer(commands, from.buffer, import.buffer, &odd);
    })?;
    let fence = gpu.fence()?;
    for round in 1..20u8 {
        from.fill(round);
        gpu.submit(commands, fence)?;
        (0..BYTES).step_by(2).for_each(|at| pages.store(at, 100 + round));
        // SAFETY: a live fence, which is not in use afterwards.
        unsafe {
            gpu.device.wait_for_fences(&[fence], true, crate::gpu::LONG)?;
            gpu.device.reset_fences(&[fence])?;
        }
        pages.expect(|at| match at {
            BYTES.. => 0,
            at if at % 2 == 1 => round,
            _ => 100 + round,
        })?;
    }
    // SAFETY: not in use.
    unsafe { gpu.device.destroy_fence(fence, None) };
    Ok(Outcome::Passed)
}

/// A buffer somewhere in the pages: what is beside it stays as it is.
fn part_of_it(gpu: &Arc<Gpu>) -> Verdict {
    let (pages, from) = (Pages::private()?, gpu.coherent(3000)?);
    pages.fill(|_| 7);
    let import = Import::of(gpu, &pages, PAGE..PAGE + 3000, false)?;
    from.write_pattern(3);
    gpu.run(copy(gpu, from.buffer, import.buffer, 3000)?)?;
    pages.expect(|at| match at.checked_sub(PAGE) {
        Some(at @ ..3000) => from.load(at),
        _ => 7,
    })?;
    Ok(Outcome::Passed)
}

/// The device copies between buffers in one import.
fn several_buffers(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let [first, second] = [0; 2].map(|_| buffer(gpu, PAGE));
    let (first, second) = (first?, second?);
    let memory = allocate(gpu, &pages, first, false)?;
    // SAFETY: both lie inside, apart from each other.
    unsafe {
        gpu.device.bind_buffer_memory(first, memory, 0)?;
        gpu.device.bind_buffer_memory(second, memory, 4 * PAGE as u64)?;
    }
    let commands = copy(gpu, first, second, PAGE)?;
    for round in 1..5 {
        (0..PAGE).for_each(|at| pages.store(at, pattern(round)(at)));
        gpu.run(commands)?;
        pages.expect(|at| match at / PAGE {
            0 => pattern(round)(at),
            4 => pattern(round)(at - 4 * PAGE),
            _ => 0,
        })?;
    }
    // SAFETY: nothing is pending.
    unsafe {
        gpu.device.destroy_buffer(first, None);
        gpu.device.destroy_buffer(second, None);
        gpu.device.free_memory(memory, None);
    }
    Ok(Outcome::Passed)
}

/// Mapped, it is the pages themselves.
fn mapped(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let import = Import::new(gpu, &pages)?;
    for offset in [0, 4096, 64] {
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: not mapped; the range lies inside.
        let address = unsafe {
            let address = gpu.device.map_memory(import.memory, offset as u64, vk::WHOLE_SIZE, flags)?;
            gpu.device.unmap_memory(import.memory);
            address
        };
        if address != pages.start.wrapping_add(offset).cast() {
            return Err(format!("mapped at {address:p} + {offset}, not at {:p}", pages.start).into());
        }
    }
    Ok(Outcome::Passed)
}

/// There and back through memory of each kind.
fn kinds_of_memory(gpu: &Arc<Gpu>) -> Verdict {
    let file = |on_disk| -> Result<OwnedFd, Failure> {
        let file = if on_disk {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
        } else {
            rustix::fs::memfd_create("check", MemfdFlags::CLOEXEC)
        };
        let file = file.map_err(std::io::Error::from)?;
        rustix::fs::ftruncate(&file, SIZE as u64).map_err(std::io::Error::from)?;
        Ok(file)
    };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let (on_disk, in_memory) = (file(true)?, file(false)?);
    for pages in [
        Pages::new(SIZE, MapFlags::SHARED)?,
        Pages::of(&in_memory, access, MapFlags::SHARED)?,
        Pages::of(&in_memory, access, MapFlags::PRIVATE)?,
        Pages::of(&on_disk, access, MapFlags::SHARED)?,
        Pages::of(&on_disk, access, MapFlags::PRIVATE)?,
    ] {
        let import = Import::new(gpu, &pages)?;
        let between = gpu.coherent(SIZE as u64)?;
        let out = copy(gpu, import.buffer, between.buffer, SIZE)?;
        let back = copy(gpu, between.buffer, import.buffer, SIZE)?;
        for round in 1..4 {
            pages.fill(pattern(round));
            gpu.run(out)?;
            between.expect(pattern(round))?;
            between.fill(round + 100);
            gpu.run(back)?;
            pages.expect(|_| round + 100)?;
        }
    }
    Ok(Outcome::Passed)
}

/// A file that the application may only read, as models and assets are.
fn read_only(gpu: &Arc<Gpu>) -> Verdict {
    let bytes: Vec<u8> = (0..SIZE).map(pattern(4)).collect();
    let path = std::env::temp_dir().join(format!("coherency-checks-{}", std::process::id()));
    std::fs::write(&path, &bytes)?;
    let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    std::fs::remove_file(&path)?;
    let file = opened.map_err(std::io::Error::from)?;
    for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
        let pages = Pages::of(&file, ProtFlags::READ, flags)?;
        let import = Import::new(gpu, &pages)?;
        let to = gpu.coherent(SIZE as u64)?;
        let commands = copy(gpu, import.buffer, to.buffer, SIZE)?;
        for _ in 0..2 {
            to.fill(0);
            gpu.run(commands)?;
            to.expect(pattern(4))?;
        }
    }
    Ok(Outcome::Passed)
}

/// The same pages are imported again and again: each import has what they hold then.
fn again(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let to = gpu.coherent(SIZE as u64)?;
    for round in 0..12u8 {
        match round % 3 {
            0 => pages.fill(pattern(round)),
            1 => pages.store(usize::from(round) % PAGES * PAGE + 1, round),
            _ => {}
        }
        let expected: Vec<u8> = (0..SIZE).map(|at| pages.load(at)).collect();
        let import = Import::new(gpu, &pages)?;
        gpu.run(copy(gpu, import.buffer, to.buffer, SIZE)?)?;
        to.expect(|at| expected[at])?;
        // And the device's last writes outlive the import.
        to.store(0, 200 + round);
        gpu.run(copy(gpu, to.buffer, import.buffer, PAGE)?)?;
        drop(import);
        if pages.load(0) != 200 + round {
            return Err(format!("the device's byte is gone: {}", pages.load(0)).into());
        }
    }
    Ok(Outcome::Passed)
}

/// In between the pages are unmapped, and others come in their place.
fn again_elsewhere(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let to = gpu.coherent(SIZE as u64)?;
    for round in 1..5u8 {
        pages.fill(pattern(round));
        let import = Import::new(gpu, &pages)?;
        gpu.run(copy(gpu, import.buffer, to.buffer, SIZE)?)?;
        to.expect(pattern(round))?;
        drop(import);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: pages of this check's, which nobody has imported now.
        let other = unsafe { rustix::mm::mmap_anonymous(pages.start.cast(), SIZE / 2, access, flags) };
        other.map_err(std::io::Error::from)?;
        let import = Import::new(gpu, &pages)?;
        gpu.run(copy(gpu, import.buffer, to.buffer, SIZE)?)?;
        to.expect(|at| if at < SIZE / 2 { 0 } else { pattern(round)(at) })?;
    }
    Ok(Outcome::Passed)
}

/// The application has the kernel empty some pages.
fn emptied(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let to = gpu.coherent(SIZE as u64)?;
    pages.fill(pattern(1));
    let import = Import::new(gpu, &pages)?;
    let commands = copy(gpu, import.buffer, to.buffer, SIZE)?;
    gpu.run(commands)?;
    let middle = pages.start.wrapping_add(2 * PAGE).cast();
    // SAFETY: pages of this check's.
    unsafe { rustix::mm::madvise(middle, 3 * PAGE, Advice::LinuxDontNeed) }.map_err(std::io::Error::from)?;
    gpu.run(commands)?;
    to.expect(|at| if (2..5).contains(&(at / PAGE)) { 0 } else { pattern(1)(at) })?;
    Ok(Outcome::Passed)
}

/// A child has a copy of the pages, and changes it.
fn and_fork(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let between = gpu.coherent(SIZE as u64)?;
    pages.fill(pattern(1));
    let import = Import::new(gpu, &pages)?;
    let out = copy(gpu, import.buffer, between.buffer, SIZE)?;
    let back = copy(gpu, between.buffer, import.buffer, PAGE)?;
    gpu.run(out)?;
    // SAFETY: the child only writes its pages, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        pages.fill(|_| 99);
        // SAFETY: ends the child without running anything of its parent's.
        unsafe { libc::_exit(0) };
    }
    pages.store(3 * PAGE, 5);
    // SAFETY: this process's child.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    gpu.run(out)?;
    between.expect(|at| if at == 3 * PAGE { 5 } else { pattern(1)(at) })?;
    between.fill(6);
    gpu.run(back)?;
    pages.expect(|at| match at {
        ..PAGE => 6,
        _ if at == 3 * PAGE => 5,
        _ => pattern(1)(at),
    })?;
    Ok(Outcome::Passed)
}

/// Two imports of the same pages, of which one has more.
fn overlapping(gpu: &Arc<Gpu>) -> Verdict {
    let pages = Pages::private()?;
    let half = std::mem::ManuallyDrop::new(Pages { start: pages.start, size: SIZE / 2 });
    let (first, second) = (Import::new(gpu, &pages)?, Import::new(gpu, &half)?);
    let to = gpu.coherent(SIZE as u64)?;
    let commands =
        [copy(gpu, first.buffer, to.buffer, SIZE)?, copy(gpu, second.buffer, to.buffer, SIZE / 2)?];
    for round in 1..6u8 {
        pages.store(usize::from(round), round);
        for (commands, size) in commands.into_iter().zip([SIZE, SIZE / 2]) {
            to.fill(0);
            gpu.run(commands)?;
            to.expect(|at| if at < size { pages.load(at) } else { 0 })?;
        }
    }
    // What the device writes through one of them the other has, too.
    to.fill(77);
    gpu.run(copy(gpu, to.buffer, second.buffer, PAGE)?)?;
    pages.expect(|at| if at < PAGE { 77 } else { 0 })?;
    to.fill(0);
    gpu.run(commands[0])?;
    to.expect(|at| pages.load(at))?;
    Ok(Outcome::Passed)
}

fn dedicated(gpu: &Arc<Gpu>) -> Verdict {
    let (pages, to) = (Pages::private()?, gpu.coherent(SIZE as u64)?);
    for round in 1..3 {
        pages.fill(pattern(round));
        let import = Import::of(gpu, &pages, 0..SIZE, true)?;
        gpu.run(copy(gpu, import.buffer, to.buffer, SIZE)?)?;
        to.expect(pattern(round))?;
    }
    Ok(Outcome::Passed)
}

/// A linear image in the pages: the device writes it, the host reads it where it lies.
fn image(gpu: &Arc<Gpu>) -> Verdict {
    const SIDE: u32 = 16;
    let extent = vk::Extent3D { width: SIDE, height: SIDE, depth: 1 };
    let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(ALLOCATION);
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(vk::Format::R8G8B8A8_UINT)
        .extent(extent)
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::LINEAR)
        .usage(vk::ImageUsageFlags::TRANSFER_DST)
        .push_next(&mut external);
    // SAFETY: a valid create info; destroyed below.
    let image = unsafe { gpu.device.create_image(&info, None) }?;
    // SAFETY: a live image.
    let requirements = unsafe { gpu.device.get_image_memory_requirements(image) };
    let size = usize::try_from(requirements.size).unwrap_or(usize::MAX).next_multiple_of(PAGE);
    let pages = Pages::new(size, MapFlags::PRIVATE)?;
    let Some(memory_type) = gpu.coherent_type(requirements.memory_type_bits & gpu.import_types(pages.start)?)
    else {
        return Ok(Outcome::Skipped("no type for an image in host memory"));
    };
    let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
        .handle_type(ALLOCATION)
        .host_pointer(pages.start.cast());
    let allocate = vk::MemoryAllocateInfo::default()
        .allocation_size(size as u64)
        .memory_type_index(memory_type)
        .push_next(&mut import);
    let aspect = vk::ImageAspectFlags::COLOR;
    // SAFETY: a type this image may use, and pages that live longer; the whole of a linear image.
    let (memory, layout) = unsafe {
        let memory = gpu.device.allocate_memory(&allocate, None)?;
        gpu.device.bind_image_memory(image, memory, 0)?;
        let whole = vk::ImageSubresource::default().aspect_mask(aspect);
        (memory, gpu.device.get_image_subresource_layout(image, whole))
    };
    let range = vk::ImageSubresourceRange {
        aspect_mask: aspect,
        level_count: 1,
        layer_count: 1,
        ..Default::default()
    };
    let barrier = [vk::ImageMemoryBarrier::default()
        .image(image)
        .new_layout(vk::ImageLayout::GENERAL)
        .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .subresource_range(range)];
    let (transfer, none) = (vk::PipelineStageFlags::TRANSFER, vk::DependencyFlags::empty());
    let colour = vk::ClearColorValue { uint32: [10, 20, 30, 40] };
    // SAFETY: live objects.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_pipeline_barrier(commands, transfer, transfer, none, &[], &[], &barrier);
        gpu.device.cmd_clear_color_image(commands, image, vk::ImageLayout::GENERAL, &colour, &[range]);
    })?;
    gpu.run(commands)?;
    let place = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let texel = |x: usize, y: usize| {
        let start = place(layout.offset) + y * place(layout.row_pitch) + 4 * x;
        [0, 1, 2, 3].map(|byte| pages.load(start + byte))
    };
    let wrong = (0..SIDE as usize * SIDE as usize)
        .map(|index| texel(index % SIDE as usize, index / SIDE as usize))
        .find(|texel| *texel != [10, 20, 30, 40]);
    // SAFETY: nothing is pending.
    unsafe {
        gpu.device.destroy_image(image, None);
        gpu.device.free_memory(memory, None);
    }
    match wrong {
        None => Ok(Outcome::Passed),
        Some(texel) => Err(format!("a texel is {texel:?}").into()),
    }
}

/// What can be asked beforehand.
fn queries(gpu: &Arc<Gpu>) -> Verdict {
    let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut host);
    // SAFETY: a device of the live instance, and a valid chain.
    unsafe { gpu.instance.get_physical_device_properties2(gpu.physical, &mut properties) };
    let alignment = host.min_imported_host_pointer_alignment;
    if !alignment.is_power_of_two() || alignment > 65536 {
        return Err(format!("minImportedHostPointerAlignment is {alignment}").into());
    }
    let importable = vk::ExternalMemoryFeatureFlags::IMPORTABLE;
    let info = vk::PhysicalDeviceExternalBufferInfo::default().usage(COPIES).handle_type(ALLOCATION);
    let mut buffers = vk::ExternalBufferProperties::default();
    // SAFETY: as above.
    unsafe {
        gpu.instance.get_physical_device_external_buffer_properties(gpu.physical, &info, &mut buffers);
    }
    if !buffers.external_memory_properties.external_memory_features.contains(importable) {
        return Ok(Outcome::Skipped("the driver denies that buffers can be imported"));
    }
    let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(ALLOCATION);
    let info = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(vk::Format::R8G8B8A8_UINT)
        .ty(vk::ImageType::TYPE_2D)
        .tiling(vk::ImageTiling::LINEAR)
        .usage(vk::ImageUsageFlags::TRANSFER_DST)
        .push_next(&mut external);
    let mut images = vk::ExternalImageFormatProperties::default();
    let mut formats = vk::ImageFormatProperties2::default().push_next(&mut images);
    // SAFETY: as above.
    unsafe { gpu.instance.get_physical_device_image_format_properties2(gpu.physical, &info, &mut formats) }?;
    if !images.external_memory_properties.external_memory_features.contains(importable) {
        return Err("images cannot be imported".to_string().into());
    }
    Ok(Outcome::Passed)
}
