//! Staging memory: the backing driver's own, host-visible, in pieces that hold what is on its way.

use ash::vk::{self, MemoryPropertyFlags as Flags};
use gpu_allocator::vulkan::{
    Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc,
};
use gpu_allocator::{AllocationError, AllocationSizes, MemoryLocation};
use std::ops::Range;

/// Bytes of the smallest pieces, and of the largest.
pub(super) const PIECES: Range<usize> = 256 << 10..8 << 20;

/// Bytes of pieces that nobody uses, up to which they are kept.
const KEPT: usize = 2 * PIECES.end;

/// Bytes of device memory that pieces are cut from at a time.
const BLOCK: u64 = 16 << 20;

/// A buffer in staging memory, and where the CPU has it.
pub(super) struct Piece {
    pub(super) buffer: vk::Buffer,
    allocation: Allocation,
    address: *mut u8,
    len: usize,
    /// Bytes from its start that are in use.
    pub(super) used: usize,
}

// SAFETY: handles, and an address of the backing driver's mapping, which any thread may use.
unsafe impl Send for Piece {}

impl Piece {
    pub(super) fn room(&self) -> usize {
        self.len - self.used
    }

    /// Copies bytes to the end of what is used.
    ///
    /// # Safety
    /// `source` must be valid for reads of `len` bytes, and there must be room for them. Others may write `source`.
    pub(super) unsafe fn push(&mut self, source: *const u8, len: usize) {
        debug_assert!(len <= self.room());
        // SAFETY: the caller's promise; the device reads only what was submitted, and nobody else has this piece.
        unsafe { std::ptr::copy_nonoverlapping(source, self.address.add(self.used), len) };
        self.used += len;
    }

    /// What the device wrote there.
    ///
    /// # Safety
    /// It must be done, and `range` within the piece.
    pub(super) unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        debug_assert!(range.end <= self.len);
        // SAFETY: the caller's promise; nobody else has this piece.
        unsafe { std::slice::from_raw_parts(self.address.add(range.start), range.len()) }
    }
}

/// All staging memory of a device. Its pieces must have come back, or the device be idle, when it is dropped.
pub(super) struct Staging {
    device: ash::Device,
    allocator: Allocator,
    /// The memory type that pieces are made of.
    memory_type: u32,
    is_coherent: bool,
    /// nonCoherentAtomSize.
    atom: u64,
    kept: Vec<Piece>,
}

impl Staging {
    /// Of `physical`, if it has memory for that.
    pub(super) fn new(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        device: &ash::Device,
    ) -> Result<Self, vk::Result> {
        // SAFETY: a live device of a live instance.
        let (memory, limits) = unsafe {
            (
                instance.get_physical_device_memory_properties(physical),
                instance.get_physical_device_properties(physical).limits,
            )
        };
        let types = memory.memory_types_as_slice();
        let (memory_type, flags) = best_type(types).ok_or(vk::Result::ERROR_FEATURE_NOT_PRESENT)?;
        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: instance.clone(),
            device: device.clone(),
            physical_device: physical,
            debug_settings: gpu_allocator::AllocatorDebugSettings::default(),
            buffer_device_address: false,
            allocation_sizes: AllocationSizes::new(BLOCK, BLOCK),
        });
        Ok(Self {
            device: device.clone(),
            allocator: allocator.map_err(result_of)?,
            memory_type,
            is_coherent: flags.contains(Flags::HOST_COHERENT),
            atom: limits.non_coherent_atom_size.max(1),
            kept: Vec::new(),
        })
    }

    /// An empty piece, for `wanted` bytes or as many as fit into one.
    pub(super) fn take(&mut self, wanted: usize) -> Result<Piece, vk::Result> {
        let wanted = wanted.clamp(PIECES.start, PIECES.end);
        if let Some(index) = self.kept.iter().position(|piece| piece.len >= wanted) {
            return Ok(self.kept.swap_remove(index));
        }
        let size = wanted.next_power_of_two() as u64;
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(size).usage(usage);
        // SAFETY: a live device.
        let buffer = unsafe { self.device.create_buffer(&info, None) }?;
        self.bind(buffer, size).inspect_err(|_| {
            // SAFETY: created above, and used by nobody.
            unsafe { self.device.destroy_buffer(buffer, None) };
        })
    }

    fn bind(&mut self, buffer: vk::Buffer, size: u64) -> Result<Piece, vk::Result> {
        // SAFETY: a live buffer.
        let mut requirements = unsafe { self.device.get_buffer_memory_requirements(buffer) };
        // One type, chosen here: the allocator's ways of choosing ask for coherent memory, which there may be none of.
        requirements.memory_type_bits &= 1 << self.memory_type;
        // No two pieces have an atom in common.
        requirements.alignment = requirements.alignment.max(self.atom);
        requirements.size = requirements.size.next_multiple_of(self.atom);
        let allocation = self
            .allocator
            .allocate(&AllocationCreateDesc {
                name: "staging",
                requirements,
                location: MemoryLocation::Unknown,
                linear: true,
                allocation_scheme: AllocationScheme::GpuAllocatorManaged,
            })
            .map_err(result_of)?;
        let address = allocation.mapped_ptr().map(|address| address.as_ptr().cast());
        // SAFETY: memory of the allocator's, which leaves this part of it to the buffer.
        let bound =
            unsafe { self.device.bind_buffer_memory(buffer, allocation.memory(), allocation.offset()) };
        match (address, bound, usize::try_from(size)) {
            (Some(address), Ok(()), Ok(len)) => Ok(Piece { buffer, allocation, address, len, used: 0 }),
            (_, bound, _) => {
                self.free(allocation);
                Err(bound.err().unwrap_or(vk::Result::ERROR_MEMORY_MAP_FAILED))
            }
        }
    }

    /// Takes back a piece that the device does not use any more.
    pub(super) fn give_back(&mut self, mut piece: Piece) {
        let kept: usize = self.kept.iter().map(|piece| piece.len).sum();
        if kept + piece.len <= KEPT {
            piece.used = 0;
            self.kept.push(piece);
        } else {
            self.destroy(piece);
        }
    }

    fn destroy(&mut self, piece: Piece) {
        // SAFETY: the device does not use it, by `give_back`'s contract.
        unsafe { self.device.destroy_buffer(piece.buffer, None) };
        self.free(piece.allocation);
    }

    fn free(&mut self, allocation: Allocation) {
        if let Err(error) = self.allocator.free(allocation) {
            log::error!("cannot free staging memory: {error}");
        }
    }

    /// Makes what was pushed to a piece visible to the device.
    pub(super) fn flush(&self, piece: &Piece) -> Result<(), vk::Result> {
        if self.is_coherent || piece.used == 0 {
            return Ok(());
        }
        // SAFETY: a range of the allocator's memory, which it keeps mapped whole, from atom to atom.
        unsafe { self.device.flush_mapped_memory_ranges(&[self.atoms(piece)]) }
    }

    /// Makes what the device wrote to the part of a piece that is in use visible to the CPU.
    pub(super) fn invalidate(&self, piece: &Piece) -> Result<(), vk::Result> {
        if self.is_coherent || piece.used == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { self.device.invalidate_mapped_memory_ranges(&[self.atoms(piece)]) }
    }

    fn atoms(&self, piece: &Piece) -> vk::MappedMemoryRange<'static> {
        // SAFETY: the handle is only named.
        let memory = unsafe { piece.allocation.memory() };
        let size = (piece.used as u64).next_multiple_of(self.atom);
        vk::MappedMemoryRange::default().memory(memory).offset(piece.allocation.offset()).size(size)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for piece in std::mem::take(&mut self.kept) {
            self.destroy(piece);
        }
    }
}

/// The host-visible type for staging: coherent before cached, and cached before neither, since it is read as well.
fn best_type(types: &[vk::MemoryType]) -> Option<(u32, Flags)> {
    let unfit = Flags::PROTECTED | Flags::LAZILY_ALLOCATED | Flags::DEVICE_COHERENT_AMD;
    (0..)
        .zip(types)
        .map(|(index, memory_type)| (index, memory_type.property_flags))
        .filter(|(_, flags)| flags.contains(Flags::HOST_VISIBLE) && !flags.intersects(unfit))
        .min_by_key(|(_, flags)| (!flags.contains(Flags::HOST_COHERENT), !flags.contains(Flags::HOST_CACHED)))
}

fn result_of(error: AllocationError) -> vk::Result {
    match error {
        AllocationError::OutOfMemory => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
        AllocationError::FailedToMap(_) => vk::Result::ERROR_MEMORY_MAP_FAILED,
        error => {
            log::error!("staging memory: {error}");
            vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
        }
    }
}
