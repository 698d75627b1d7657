//! Every byte as the device sees it: copied to where the host can look.

use super::session::Session;
use super::{Done, said};
use ash::vk;

pub(super) const COPIES: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw() | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

impl Session<'_> {
    pub(super) fn audit(&self) -> Done {
        let (gpu, world) = (&self.player.gpu, self.model.world);
        let size = world.buffers.iter().map(|plan| u64::from(plan.size)).sum();
        let info = vk::BufferCreateInfo::default().size(size).usage(COPIES);
        // SAFETY: valid infos, a type that the buffer may use, and nothing that is used after it was destroyed. The
        // mapping is as long as the buffer, and nobody writes there after the wait.
        let seen = unsafe {
            let all = gpu.device.create_buffer(&info, None).map_err(said("vkCreateBuffer"))?;
            let needs = gpu.device.get_buffer_memory_requirements(all);
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(needs.size)
                .memory_type_index(self.player.memory_type(needs.memory_type_bits, true)?);
            let memory = gpu.device.allocate_memory(&info, None).map_err(said("vkAllocateMemory"))?;
            gpu.device.bind_buffer_memory(all, memory, 0).map_err(said("vkBindBufferMemory"))?;
            let commands = self.once(|commands| {
                self.barrier(commands, vk::PipelineStageFlags::ALL_COMMANDS);
                let mut at = 0;
                for (&buffer, plan) in self.buffers.iter().zip(&world.buffers) {
                    let region = [vk::BufferCopy::default().dst_offset(at).size(plan.size.into())];
                    gpu.device.cmd_copy_buffer(commands, buffer, all, &region);
                    at += u64::from(plan.size);
                }
                self.barrier_to_host(commands);
            })?;
            let commands = [commands];
            let submits = [vk::SubmitInfo::default().command_buffers(&commands)];
            let result = gpu.device.queue_submit(self.order.queue, &submits, vk::Fence::null());
            result.map_err(said("vkQueueSubmit"))?;
            self.idle(false)?;
            let flags = vk::MemoryMapFlags::empty();
            let mapped = gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, flags);
            let mapped = mapped.map_err(said("vkMapMemory"))?.cast::<u8>();
            let mut seen = vec![0; usize::try_from(size).unwrap_or(0)];
            mapped.copy_to_nonoverlapping(seen.as_mut_ptr(), seen.len());
            gpu.device.destroy_buffer(all, None);
            gpu.device.free_memory(memory, None);
            seen
        };
        let mut rest = &seen[..];
        for (buffer, plan) in world.buffers.iter().enumerate() {
            let start = world.address(buffer, 0);
            let places: Vec<u32> = (start..start + plan.size).collect();
            let (part, left) = rest.split_at(places.len());
            self.compare("the device", &places, part)?;
            rest = left;
        }
        Ok(())
    }
}
