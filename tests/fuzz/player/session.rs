//! One program's objects, and its operations on memory and descriptors.

use super::{
    Done, Player, access, recording, said,
    submits::{Order, Signals},
};
use crate::effects::UNDEFINED;
use crate::model::Model;
use crate::program::{Binding, Means, Op, Pieces, Program};
use crate::spans::Spans;
use ash::vk;
use std::collections::HashMap;
use std::thread::JoinHandle;
use tidemark_tests::{HOST_ALLOCATION, Pages};

pub(super) struct Session<'a> {
    pub(super) player: &'a Player,
    pub(super) model: Model<'a>,
    memories: Vec<Memory>,
    pub(super) buffers: Vec<vk::Buffer>,
    pub(super) pool: vk::CommandPool,
    pub(super) lists: Vec<vk::CommandBuffer>,
    pub(super) is_recorded: Vec<bool>,
    descriptors: vk::DescriptorPool,
    pub(super) sets: Vec<vk::DescriptorSet>,
    pub(super) image: vk::Image,
    image_memory: vk::DeviceMemory,
    /// What batches signal.
    pub(super) progress: vk::Semaphore,
    pub(super) order: Order,
    pub(super) signals: HashMap<u32, Signals>,
    teams: Vec<(u32, Vec<JoinHandle<()>>)>,
}

struct Memory {
    handle: vk::DeviceMemory,
    /// Where its first byte is or would be mapped; null while it is not.
    base: *mut u8,
    /// What it was imported from.
    pages: Option<Pages>,
}

impl<'a> Session<'a> {
    pub(super) fn new(player: &'a Player, program: &'a Program) -> Result<Self, String> {
        let (gpu, world) = (&player.gpu, &program.world);
        let device = &gpu.device;
        let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(0).flags(flags);
        // SAFETY: a valid create info on a live device, here and below; `end` destroys what is made.
        let pool = unsafe { device.create_command_pool(&info, None) }.map_err(said("vkCreateCommandPool"))?;
        let mut lists = Vec::new();
        for list in &world.lists {
            let levels = [vk::CommandBufferLevel::PRIMARY, vk::CommandBufferLevel::SECONDARY];
            let info = vk::CommandBufferAllocateInfo::default()
                .command_pool(pool)
                .level(levels[usize::from(list.is_secondary)])
                .command_buffer_count(1);
            // SAFETY: as above.
            let list = unsafe { device.allocate_command_buffers(&info) };
            lists.append(&mut list.map_err(said("vkAllocateCommandBuffers"))?);
        }
        let count = world.sets.len() as u32;
        let size = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(2 * count)];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(count)
            .pool_sizes(&size)
            .flags(vk::DescriptorPoolCreateFlags::UPDATE_AFTER_BIND);
        // SAFETY: as above.
        let descriptors =
            unsafe { device.create_descriptor_pool(&info, None) }.map_err(said("vkCreateDescriptorPool"))?;
        let layouts: Vec<vk::DescriptorSetLayout> =
            world.sets.iter().map(|&is_late| player.kinds[usize::from(is_late)].set_layout).collect();
        let info =
            vk::DescriptorSetAllocateInfo::default().descriptor_pool(descriptors).set_layouts(&layouts);
        // SAFETY: as above.
        let sets = unsafe { device.allocate_descriptor_sets(&info) };
        let (image, image_memory) = player.image()?;
        let mut session = Self {
            player,
            model: Model::new(world),
            memories: Vec::new(),
            buffers: vec![vk::Buffer::null(); world.buffers.len()],
            pool,
            is_recorded: vec![false; lists.len()],
            lists,
            descriptors,
            sets: sets.map_err(said("vkAllocateDescriptorSets"))?,
            image,
            image_memory,
            progress: gpu.timeline().map_err(said("vkCreateSemaphore"))?,
            order: Order::new(gpu)?,
            signals: HashMap::new(),
            teams: Vec::new(),
        };
        for memory in 0..world.memories.len() {
            let memory = session.allocate(memory, None)?;
            session.memories.push(memory);
        }
        Ok(session)
    }

    /// Makes a memory with its buffers. If it is imported, from these pages or new ones.
    fn allocate(&mut self, memory: usize, pages: Option<Pages>) -> Result<Memory, String> {
        let (gpu, world) = (&self.player.gpu, self.model.world);
        let plan = &world.memories[memory];
        let has_addresses = plan.has_addresses && gpu.has_buffer_device_address;
        let mut usage = super::USAGE;
        if has_addresses {
            usage |= vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        }
        let (mut size, mut bits) = (u64::from(plan.size), u32::MAX);
        for (index, buffer) in world.buffers_of(memory) {
            let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HOST_ALLOCATION);
            let mut info = vk::BufferCreateInfo::default().size(buffer.size.into()).usage(usage);
            if plan.pages.is_some() {
                info = info.push_next(&mut external);
            }
            // SAFETY: a valid create info; `free` destroys the buffer.
            self.buffers[index] =
                unsafe { gpu.device.create_buffer(&info, None) }.map_err(said("vkCreateBuffer"))?;
            // SAFETY: a live buffer.
            let needs = unsafe { gpu.device.get_buffer_memory_requirements(self.buffers[index]) };
            if u64::from(self.player.abilities.buffer_alignment) % needs.alignment != 0 {
                return Err(format!("buffers of this device are aligned to {}", needs.alignment));
            }
            size = size.max(u64::from(buffer.offset) + needs.size);
            bits &= needs.memory_type_bits;
        }
        let flags = if has_addresses { vk::MemoryAllocateFlags::DEVICE_ADDRESS } else { Default::default() };
        let pages = match (pages, plan.pages) {
            (None, Some(kind)) => {
                let len = usize::try_from(size).unwrap_or(usize::MAX).next_multiple_of(super::PAGE);
                Some(Pages::new(kind, len).map_err(|error| error.to_string())?)
            }
            (pages, _) => pages,
        };
        let handle = if let Some(pages) = &pages {
            let types =
                gpu.import_types(pages.start()).map_err(said("vkGetMemoryHostPointerPropertiesEXT"))?;
            let memory_type = self.player.memory_type(bits & types, true)?;
            // SAFETY: pages that are dropped after the memory was freed.
            unsafe { gpu.import(pages.start(), pages.len(), memory_type, flags) }
        } else {
            let memory_type = self.player.memory_type(bits, plan.is_coherent)?;
            let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(flags);
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(size)
                .memory_type_index(memory_type)
                .push_next(&mut flags);
            // SAFETY: a type that these buffers may use; `free` frees it.
            unsafe { gpu.device.allocate_memory(&info, None) }
        };
        let handle = handle.map_err(said("vkAllocateMemory"))?;
        for (index, plan) in world.buffers_of(memory) {
            // SAFETY: a fresh buffer, and a place for it that is aligned.
            unsafe { gpu.device.bind_buffer_memory(self.buffers[index], handle, plan.offset.into()) }
                .map_err(said("vkBindBufferMemory"))?;
        }
        let base = pages.as_ref().map_or(std::ptr::null_mut(), Pages::start);
        Ok(Memory { handle, base, pages })
    }

    fn free(&mut self, memory: usize) {
        let device = &self.player.gpu.device;
        // SAFETY: nothing pending uses these, by the model.
        unsafe {
            for (index, _) in self.model.world.buffers_of(memory) {
                device.destroy_buffer(self.buffers[index], None);
            }
            device.free_memory(self.memories[memory].handle, None);
        }
    }

    /// Does on the device what the model has just done.
    pub(super) fn perform(&mut self, op: &Op) -> Done {
        match *op {
            Op::Write { memory, pieces, means, value } => {
                // SAFETY: inside the mapping, and the host's, by the model.
                unsafe { self.player.scratch.write(self.memories[memory].base, pieces, means, value) }
            }
            Op::Read { memory, pieces, means } => self.read(memory, pieces, means),
            Op::Check => self.check_all(),
            Op::Spawn { team, memory, pieces, threads, rounds, seed } => {
                let base = self.memories[memory].base;
                // SAFETY: as for writes; the model keeps all others away until the threads are joined.
                let handles = unsafe { access::spawn(base, pieces, threads, rounds, seed) };
                self.teams.push((team, handles));
                Ok(())
            }
            Op::Join { team } => {
                let (joined, left) =
                    std::mem::take(&mut self.teams).into_iter().partition(|(other, _)| *other == team);
                self.teams = left;
                let mut handles = joined.into_iter().flat_map(|(_, handles)| handles);
                handles.try_for_each(|thread| thread.join()).map_err(|_| "a thread panicked".to_string())?;
                self.check_news()
            }
            Op::Map { memory, offset, size } => self.map(memory, offset, size),
            Op::Unmap { memory } => {
                self.memories[memory].base = std::ptr::null_mut();
                // SAFETY: mapped, by the model.
                unsafe { self.player.gpu.device.unmap_memory(self.memories[memory].handle) };
                Ok(())
            }
            Op::Flush { memory, offset } | Op::Invalidate { memory, offset } => {
                let ranges = [vk::MappedMemoryRange::default()
                    .memory(self.memories[memory].handle)
                    .offset(offset.into())
                    .size(vk::WHOLE_SIZE)];
                let device = &self.player.gpu.device;
                // SAFETY: mapped as a whole, by the model.
                unsafe {
                    if matches!(op, Op::Flush { .. }) {
                        device.flush_mapped_memory_ranges(&ranges).map_err(said("vkFlushMappedMemoryRanges"))
                    } else {
                        let result = device.invalidate_mapped_memory_ranges(&ranges);
                        result.map_err(said("vkInvalidateMappedMemoryRanges"))
                    }
                }
            }
            Op::Replace { memory, meanwhile } => {
                self.free(memory);
                if let Some((pieces, value)) = meanwhile {
                    let base = self.memories[memory].base;
                    // SAFETY: inside the pages, which nobody else has now.
                    unsafe { self.player.scratch.write(base, pieces, Means::Bulk, value) }?;
                }
                let pages = self.memories[memory].pages.take();
                self.memories[memory] = self.allocate(memory, pages)?;
                Ok(())
            }
            Op::Bind { set, input, output, by_template } => {
                self.bind(set, [input, output], by_template);
                Ok(())
            }
            Op::Record { .. } => Ok(()),
            Op::Seal { list } => self.seal(list),
            Op::Reset { list } => {
                if !std::mem::take(&mut self.is_recorded[list]) {
                    return Ok(());
                }
                let flags = vk::CommandBufferResetFlags::empty();
                // SAFETY: not pending, by the model.
                unsafe { self.player.gpu.device.reset_command_buffer(self.lists[list], flags) }
                    .map_err(said("vkResetCommandBuffer"))
            }
            Op::Submit { queue, ref parts, is_submit2, has_fence } => {
                let queues = &self.player.gpu.queues;
                let queue = queues[queue as usize % queues.len()];
                self.submit(queue, parts, is_submit2, has_fence)
            }
            Op::Release { batch } => self.release(batch),
            Op::Wait { batch, by } => {
                self.wait(batch, by)?;
                self.check_news()
            }
            Op::Peek { batch, by } => self.peek(batch, by),
            Op::Idle { of_device } => {
                self.idle(of_device)?;
                self.check_news()
            }
            Op::Audit => self.audit(),
        }
    }

    fn map(&mut self, memory: usize, offset: u32, size: Option<u32>) -> Done {
        let size = size.map_or(vk::WHOLE_SIZE, u64::from);
        let (handle, flags) = (self.memories[memory].handle, vk::MemoryMapFlags::empty());
        // SAFETY: host-visible memory that is not mapped, and a range inside it, by the model.
        let address = unsafe { self.player.gpu.device.map_memory(handle, offset.into(), size, flags) };
        let address = address.map_err(said("vkMapMemory"))?;
        self.memories[memory].base = address.cast::<u8>().wrapping_sub(offset as usize);
        Ok(())
    }

    fn bind(&self, set: usize, bound: [Binding; 2], by_template: bool) {
        let infos = bound.map(|binding| {
            vk::DescriptorBufferInfo::default()
                .buffer(self.buffers[binding.buffer])
                .offset(binding.offset.into())
                .range(binding.size.into())
        });
        let writes = [0, 1].map(|binding| {
            vk::WriteDescriptorSet::default()
                .dst_set(self.sets[set])
                .dst_binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(std::slice::from_ref(&infos[binding as usize]))
        });
        let device = &self.player.gpu.device;
        let template = self.player.kinds[usize::from(self.model.world.sets[set])].template;
        // SAFETY: no pending batch uses the set, by the model. The template takes two such structures.
        unsafe {
            if by_template {
                device.update_descriptor_set_with_template(self.sets[set], template, infos.as_ptr().cast());
            } else {
                device.update_descriptor_sets(&writes, &[]);
            }
        }
    }

    fn check_news(&self) -> Done {
        self.check(&self.model.news)
    }

    fn check_all(&self) -> Done {
        self.check(&self.model.world.memories.iter().map(|memory| memory.range()).collect())
    }

    /// Compares what the host may look at of `spans`.
    fn check(&self, spans: &Spans) -> Done {
        for (memory, spans) in self.model.readable(spans) {
            for range in spans.iter() {
                let base = self.model.world.memories[memory].base;
                let pieces = Pieces::one(range.start - base, range.len() as u32);
                self.read(memory, pieces, Means::Bulk)?;
            }
        }
        Ok(())
    }

    /// Reads, and compares.
    fn read(&self, memory: usize, pieces: Pieces, means: Means) -> Done {
        // SAFETY: inside the mapping, and nobody writes there, by the model.
        let seen = unsafe { self.player.scratch.read(self.memories[memory].base, pieces, means) }?;
        let base = self.model.world.memories[memory].base;
        let places: Vec<u32> = pieces.moved(base).iter().flatten().collect();
        self.compare("the host", &places, &seen)
    }

    /// Compares bytes with those that should be at `places`.
    pub(super) fn compare(&self, who: &str, places: &[u32], seen: &[u8]) -> Done {
        let wanted = |at: u32| self.model.bytes[at as usize];
        let is_wrong = |at: u32, seen: u8| wanted(at) != UNDEFINED && wanted(at) != u16::from(seen);
        let mut wrong = places.iter().zip(seen).filter(|&(&at, &seen)| is_wrong(at, seen));
        let Some((&at, &byte)) = wrong.next() else { return Ok(()) };
        let place = self.model.world.describe(at);
        let (more, wanted) = (wrong.count(), wanted(at));
        Err(format!(
            "{who} sees {byte:#04x} at {place}, should be {wanted:#04x} (and {more} more wrong bytes)"
        ))
    }

    /// Destroys everything. Nothing is pending at the end of a program.
    pub(super) fn end(mut self) -> Done {
        for (_, handles) in std::mem::take(&mut self.teams) {
            handles
                .into_iter()
                .try_for_each(|thread| thread.join())
                .map_err(|_| "a thread panicked".to_string())?;
        }
        self.let_go_of_all()?;
        (0..self.memories.len()).for_each(|memory| self.free(memory));
        let device = &self.player.gpu.device;
        // SAFETY: nothing is pending any more.
        unsafe {
            device.destroy_command_pool(self.pool, None);
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_image(self.image, None);
            device.free_memory(self.image_memory, None);
            device.destroy_semaphore(self.progress, None);
            device.destroy_semaphore(self.order.semaphore, None);
        }
        Ok(())
    }
}

impl Player {
    /// A memory type for the host, or one for the device alone where there is one.
    pub(super) fn memory_type(&self, bits: u32, is_coherent: bool) -> Result<u32, String> {
        use vk::MemoryPropertyFlags as Flags;
        let none = Flags::empty();
        let found = if is_coherent {
            self.gpu.coherent_type(bits)
        } else {
            let hidden = self.gpu.memory_type(bits, Flags::DEVICE_LOCAL, Flags::HOST_VISIBLE);
            hidden.or_else(|| self.gpu.memory_type(bits, none, none))
        };
        found.ok_or_else(|| "no memory type for such a buffer".to_string())
    }

    fn image(&self) -> Result<(vk::Image, vk::DeviceMemory), String> {
        let device = &self.gpu.device;
        // SAFETY: a valid create info, and memory of a type that the image may use.
        unsafe {
            let image = device.create_image(&recording::image_info(), None).map_err(said("vkCreateImage"))?;
            let needs = device.get_image_memory_requirements(image);
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(needs.size)
                .memory_type_index(self.memory_type(needs.memory_type_bits, false)?);
            let memory = device.allocate_memory(&info, None).map_err(said("vkAllocateMemory"))?;
            device.bind_image_memory(image, memory, 0).map_err(said("vkBindImageMemory"))?;
            Ok((image, memory))
        }
    }
}
