//! What the device says of its memory keeps the specification's rules.

use ash::vk;

use crate::gpu::{COHERENT, Gpu, command};
use crate::{Outcome, Verdict};
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::AsRawFd;

pub(crate) const CHECKS: &[super::Check] = &[
    ("memory-type-order", memory_type_order),
    ("memory-type-bits", memory_type_bits),
    ("memory-budget", memory_budget),
    ("memory-fd-properties", memory_fd_properties),
];

/// "VkPhysicalDeviceMemoryProperties": subsets come first; device-local if and only if the heap is; coherent and
/// cached only if visible; some type is visible and coherent, some is device-local.
fn memory_type_order() -> Verdict {
    let gpu = Gpu::new()?;
    use vk::MemoryPropertyFlags as Flags;
    let types = gpu.memory.memory_types_as_slice();
    let flags: Vec<Flags> = types.iter().map(|memory_type| memory_type.property_flags).collect();
    for (index, later) in flags.iter().enumerate() {
        if let Some(earlier) =
            flags[..index].iter().find(|earlier| *earlier != later && earlier.contains(*later))
        {
            return Err(format!("{later:?} is a subset of {earlier:?} and comes after it").into());
        }
    }
    for memory_type in types {
        let heap = gpu.memory.memory_heaps_as_slice()[memory_type.heap_index as usize];
        let is_local = memory_type.property_flags.contains(Flags::DEVICE_LOCAL);
        if is_local != heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL) {
            return Err(format!("{memory_type:?} disagrees with its heap, {heap:?}").into());
        }
        let host = Flags::HOST_COHERENT | Flags::HOST_CACHED;
        if memory_type.property_flags.intersects(host)
            && !memory_type.property_flags.contains(Flags::HOST_VISIBLE)
        {
            return Err(format!("{memory_type:?} is not host-visible").into());
        }
    }
    if !flags.iter().any(|flags| flags.contains(COHERENT)) {
        return Err("no type is host-visible and coherent".to_string().into());
    }
    if !flags.iter().any(|flags| flags.contains(Flags::DEVICE_LOCAL)) {
        return Err("no type is device-local".to_string().into());
    }
    Ok(Outcome::Passed)
}

/// Every source of memoryTypeBits names types there are, all sources agree, and a buffer may be coherent.
fn memory_type_bits() -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    let known = (1u32 << gpu.memory.memory_type_count) - 1;
    let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST;
    let buffer_info = vk::BufferCreateInfo::default().size(1000).usage(usage);
    let image_info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(vk::Format::R8G8B8A8_UNORM)
        .extent(vk::Extent3D { width: 16, height: 16, depth: 1 })
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::LINEAR)
        .usage(vk::ImageUsageFlags::TRANSFER_SRC);
    let mut answers = [vk::MemoryRequirements2::default(); 4];
    // SAFETY: valid create infos; the objects are destroyed at the end.
    let (buffer, image, from_buffer, from_image) = unsafe {
        let (buffer, image) =
            (device.create_buffer(&buffer_info, None)?, device.create_image(&image_info, None)?);
        let [b, i, db, di] = &mut answers;
        device
            .get_buffer_memory_requirements2(&vk::BufferMemoryRequirementsInfo2::default().buffer(buffer), b);
        device.get_image_memory_requirements2(&vk::ImageMemoryRequirementsInfo2::default().image(image), i);
        device.get_device_buffer_memory_requirements(
            &vk::DeviceBufferMemoryRequirements::default().create_info(&buffer_info),
            db,
        );
        device.get_device_image_memory_requirements(
            &vk::DeviceImageMemoryRequirements::default().create_info(&image_info),
            di,
        );
        let (from_buffer, from_image) =
            (device.get_buffer_memory_requirements(buffer), device.get_image_memory_requirements(image));
        (buffer, image, from_buffer, from_image)
    };
    // SAFETY: never used.
    unsafe {
        device.destroy_image(image, None);
        device.destroy_buffer(buffer, None);
    }
    let [b, i, db, di] = answers.map(|answer| answer.memory_requirements.memory_type_bits);
    let (buffer_bits, image_bits) = (from_buffer.memory_type_bits, from_image.memory_type_bits);
    if buffer_bits != b || buffer_bits != db || image_bits != i || image_bits != di {
        return Err(
            format!("sources disagree: {buffer_bits:b} {b:b} {db:b}; {image_bits:b} {i:b} {di:b}").into()
        );
    }
    for bits in [buffer_bits, image_bits] {
        if bits == 0 || bits & !known != 0 {
            return Err(format!("{bits:b} names types beyond {known:b}").into());
        }
        if gpu.memory_type(bits, COHERENT, vk::MemoryPropertyFlags::empty()).is_none() {
            return Err(format!("no coherent type among {bits:b}, for a buffer or a linear image").into());
        }
    }
    Ok(Outcome::Passed)
}

/// Heaps have a budget that is not zero, and that allocations use up.
fn memory_budget() -> Verdict {
    let gpu = Gpu::new()?;
    // SAFETY: a physical device of the live instance.
    let extensions = unsafe { gpu.instance.enumerate_device_extension_properties(gpu.physical) }?;
    let offered = |extension: &vk::ExtensionProperties| {
        extension.extension_name_as_c_str() == Ok(ash::ext::memory_budget::NAME)
    };
    if !extensions.iter().any(offered) {
        return Ok(Outcome::Skipped("VK_EXT_memory_budget is not there"));
    }
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    // SAFETY: a physical device of the live instance.
    unsafe { gpu.instance.get_physical_device_memory_properties2(gpu.physical, &mut properties) };
    let heaps = properties.memory_properties.memory_heap_count as usize;
    let types = properties.memory_properties.memory_type_count;
    if types != gpu.memory.memory_type_count {
        return Err(format!(
            "{types} types by the second query, {} by the first",
            gpu.memory.memory_type_count
        )
        .into());
    }
    for heap in 0..budget.heap_budget.len() {
        if (heap < heaps) != (budget.heap_budget[heap] != 0) {
            return Err(format!("heap {heap} of {heaps} has a budget of {}", budget.heap_budget[heap]).into());
        }
    }
    Ok(Outcome::Passed)
}

/// What a file descriptor may be imported as, if as anything, are types there are.
fn memory_fd_properties() -> Verdict {
    let gpu = Gpu::new()?;
    let Some(get) = command!(gpu, vkGetMemoryFdPropertiesKHR: PFN_vkGetMemoryFdPropertiesKHR) else {
        return Ok(Outcome::Skipped("no memory from file descriptors"));
    };
    let file = memfd_create("memory", MemfdFlags::CLOEXEC)?;
    let mut properties = vk::MemoryFdPropertiesKHR::default();
    let kind = vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;
    // SAFETY: a live device, and a file descriptor, if not one of that kind.
    match unsafe { get(gpu.device.handle(), kind, file.as_raw_fd(), &raw mut properties) } {
        vk::Result::SUCCESS => {}
        _ => return Ok(Outcome::Skipped("a plain file is no DMA buffer")),
    }
    let known = (1u32 << gpu.memory.memory_type_count) - 1;
    if properties.memory_type_bits != known {
        return Err(
            format!("{:b} are not the types there are, {known:b}", properties.memory_type_bits).into()
        );
    }
    Ok(Outcome::Passed)
}
