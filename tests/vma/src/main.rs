//! Hundreds of buffers in a few blocks of memory, by the Vulkan Memory Allocator, as engines use it: uploads and readbacks
//! stay mapped or are mapped for each use, and come and go while others of their block are in use by the device.
//!
//! Ends with the line `every byte arrived: ...`, or with exit status 1 at the first byte that did not.

use ash::vk;
use std::collections::BTreeSet;
use vk_mem::{Alloc, Allocation, AllocationCreateFlags, AllocationCreateInfo, Allocator, MemoryUsage};

/// Ways from the host through the device and back. No size is that of a page, so that most pages are shared.
const WAYS: usize = 200;
const ROUNDS: usize = 6;

/// A buffer and its part of a block.
struct Buffer {
    buffer: vk::Buffer,
    allocation: Allocation,
}

/// How the host gets at a buffer.
#[derive(Clone, Copy)]
enum Access {
    /// Not at all.
    None,
    /// It writes from the first byte to the last, and the memory stays mapped.
    Write,
    /// It reads, and the memory stays mapped.
    Read,
    /// It reads, and maps the memory for that.
    ReadMapped,
}

struct Application {
    // First, as it must go before the device; the process ends with the rest.
    allocator: Allocator,
    device: ash::Device,
    queue: vk::Queue,
    pool: vk::CommandPool,
    // Unloads the loader, if dropped before those above.
    _instance: ash::Instance,
    _entry: ash::Entry,
}

impl Application {
    fn new() -> Self {
        // SAFETY: the machine's Vulkan loader; valid create infos.
        unsafe {
            let entry = ash::Entry::load().expect("cannot open the Vulkan loader");
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None).expect("cannot create an instance");
            let physical = instance.enumerate_physical_devices().expect("cannot list devices")[0];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
            let device = instance.create_device(physical, &info, None).expect("cannot create a device");
            let mut info = vk_mem::AllocatorCreateInfo::new(&instance, &device, physical);
            info.vulkan_api_version = vk::API_VERSION_1_1;
            Self {
                allocator: Allocator::new(info).expect("cannot create an allocator"),
                queue: device.get_device_queue(0, 0),
                pool: device
                    .create_command_pool(&vk::CommandPoolCreateInfo::default(), None)
                    .expect("cannot create a pool"),
                device,
                _instance: instance,
                _entry: entry,
            }
        }
    }

    fn buffer(&self, size: usize, access: Access) -> Buffer {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(size as u64).usage(usage);
        let coherent = vk::MemoryPropertyFlags::HOST_COHERENT;
        let (flags, required_flags) = match access {
            Access::None => (AllocationCreateFlags::empty(), vk::MemoryPropertyFlags::empty()),
            Access::Write => (
                AllocationCreateFlags::HOST_ACCESS_SEQUENTIAL_WRITE | AllocationCreateFlags::MAPPED,
                coherent,
            ),
            Access::Read => {
                (AllocationCreateFlags::HOST_ACCESS_RANDOM | AllocationCreateFlags::MAPPED, coherent)
            }
            Access::ReadMapped => (AllocationCreateFlags::HOST_ACCESS_RANDOM, coherent),
        };
        let usage = MemoryUsage::Auto;
        let how = AllocationCreateInfo { flags, usage, required_flags, ..Default::default() };
        // SAFETY: valid create infos, and the allocator of a live device.
        let (buffer, allocation) =
            unsafe { self.allocator.create_buffer(&info, &how) }.expect("cannot create a buffer");
        Buffer { buffer, allocation }
    }

    fn destroy(&self, mut buffer: Buffer) {
        // SAFETY: no batch in flight uses it.
        unsafe { self.allocator.destroy_buffer(buffer.buffer, &mut buffer.allocation) }
    }

    fn block(&self, buffer: &Buffer) -> vk::DeviceMemory {
        self.allocator.get_allocation_info(&buffer.allocation).device_memory
    }

    /// Where a buffer that stays mapped is.
    fn mapped(&self, buffer: &Buffer) -> *mut u8 {
        self.allocator.get_allocation_info(&buffer.allocation).mapped_data.cast()
    }

    /// Has the device copy each way, and waits for it.
    fn run(&self, ways: &[Way]) {
        let device = &self.device;
        // SAFETY: fresh objects, and live buffers as large as what is copied; the wait ends their use.
        unsafe {
            let info =
                vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
            let buffers = device.allocate_command_buffers(&info).expect("cannot allocate commands");
            let commands = buffers[0];
            device
                .begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())
                .expect("cannot begin");
            let barrier = |to_access, to| {
                let barrier = vk::MemoryBarrier::default()
                    .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
                    .dst_access_mask(to_access);
                let (from, none) = (vk::PipelineStageFlags::TRANSFER, vk::DependencyFlags::empty());
                device.cmd_pipeline_barrier(commands, from, to, none, &[barrier], &[], &[]);
            };
            for way in ways {
                let region = [vk::BufferCopy::default().size(way.size as u64)];
                device.cmd_copy_buffer(commands, way.upload.buffer, way.local.buffer, &region);
            }
            barrier(vk::AccessFlags::TRANSFER_READ, vk::PipelineStageFlags::TRANSFER);
            for way in ways {
                let region = [vk::BufferCopy::default().size(way.size as u64)];
                device.cmd_copy_buffer(commands, way.local.buffer, way.readback.buffer, &region);
            }
            barrier(vk::AccessFlags::HOST_READ, vk::PipelineStageFlags::HOST);
            device.end_command_buffer(commands).expect("cannot end");
            let submit = [vk::SubmitInfo::default().command_buffers(&buffers)];
            let fence =
                device.create_fence(&vk::FenceCreateInfo::default(), None).expect("cannot create a fence");
            device.queue_submit(self.queue, &submit, fence).expect("cannot submit");
            device.wait_for_fences(&[fence], true, u64::MAX).expect("cannot wait");
            device.destroy_fence(fence, None);
            device.free_command_buffers(self.pool, &buffers);
        }
    }
}

/// From the host by way of the device's own memory back to the host.
struct Way {
    size: usize,
    upload: Buffer,
    local: Buffer,
    readback: Buffer,
    stays_mapped: bool,
}

impl Way {
    fn new(application: &Application, index: usize, round: usize) -> Self {
        let size = 52 + (index * 37 + round * 411) % 3000;
        let stays_mapped = index.is_multiple_of(2);
        Self {
            size,
            upload: application.buffer(size, Access::Write),
            local: application.buffer(size, Access::None),
            readback: application.buffer(size, if stays_mapped { Access::Read } else { Access::ReadMapped }),
            stays_mapped,
        }
    }

    fn write(&self, application: &Application, index: usize, round: usize) {
        let to = application.mapped(&self.upload);
        assert!(!to.is_null(), "an upload is not mapped");
        for offset in 0..self.size {
            // SAFETY: inside the buffer, which no batch uses now.
            unsafe { to.add(offset).write_volatile(pattern(index, offset, round)) };
        }
    }

    fn check(&mut self, application: &Application, index: usize, round: usize) -> Result<(), String> {
        // SAFETY: mapped while it is read, inside the buffer, which no batch uses now.
        unsafe {
            let from = if self.stays_mapped {
                application.mapped(&self.readback)
            } else {
                application.allocator.map_memory(&mut self.readback.allocation).expect("cannot map")
            };
            for offset in 0..self.size {
                let (seen, expected) = (from.add(offset).read_volatile(), pattern(index, offset, round));
                if seen != expected {
                    return Err(format!(
                        "in round {round}, byte {offset} of buffer {index} is {seen}, not {expected}"
                    ));
                }
            }
            if !self.stays_mapped {
                application.allocator.unmap_memory(&mut self.readback.allocation);
            }
        }
        Ok(())
    }

    fn destroy(self, application: &Application) {
        for buffer in [self.upload, self.local, self.readback] {
            application.destroy(buffer);
        }
    }
}

/// What the upload at `index` has at `offset` in a round: never zero, which is what memory has at first.
fn pattern(index: usize, offset: usize, round: usize) -> u8 {
    (index * 31 + offset * 7 + round * 101) as u8 | 1
}

fn main() {
    let application = Application::new();
    let mut ways: Vec<Way> = (0..WAYS).map(|index| Way::new(&application, index, 0)).collect();
    let mut blocks = BTreeSet::new();
    for round in 1..=ROUNDS {
        // A few come and go, so that others get their places in the blocks.
        for index in (0..WAYS).filter(|index| index % 7 == round) {
            let new = Way::new(&application, index, round);
            std::mem::replace(&mut ways[index], new).destroy(&application);
        }
        for (index, way) in ways.iter().enumerate() {
            way.write(&application, index, round);
        }
        application.run(&ways);
        for (index, way) in ways.iter_mut().enumerate() {
            if let Err(what) = way.check(&application, index, round) {
                eprintln!("{what}");
                // The allocator would miss what is still allocated, and abort.
                std::process::exit(1);
            }
            blocks.extend([&way.upload, &way.readback].map(|buffer| application.block(buffer)));
        }
    }
    let (buffers, blocks) = (2 * WAYS, blocks.len());
    assert!(blocks <= 4, "{blocks} blocks for {buffers} buffers");
    ways.into_iter().for_each(|way| way.destroy(&application));
    println!("every byte arrived: {buffers} mapped buffers in {blocks} blocks");
}
