//! VkDescriptorSet: which buffers a set leads to.
//!
//! What a set holds counts when a batch that binds it is submitted, since sets may be updated after they were bound
//! (VK_DESCRIPTOR_BINDING_UPDATE_AFTER_BIND_BIT). Images and acceleration structures are not looked at: memory with
//! such in it is reachable as a whole.

use crate::buffer::Buffer;
use crate::coherence::Coherence;
use crate::config::Config;
use crate::references::{Access, Uses};
use crate::tables::{DEVICES, HandleMap};
use ash::vk::{self, DescriptorType as Type, Handle};
use std::collections::HashMap;
use std::slice;
use std::sync::{Arc, Mutex};
use tidemark_winsys::{LockExt, RwLockExt};

/// A descriptor set.
#[derive(Default)]
pub(crate) struct DescriptorSet {
    bound: Mutex<Bindings>,
}

#[derive(Default)]
struct Bindings {
    /// By binding and array element, as the application names them.
    by_place: HashMap<(u32, u32), Bound>,
    /// What came by copies from other sets: all that these held, since a copy may name an element in other words
    /// than the update that wrote it (consecutive binding updates).
    copied: Vec<Bound>,
}

/// A buffer range in a descriptor.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) access: Access,
}

/// The sets of each pool, for the commands that free them together.
pub(crate) type Pools = HandleMap<Vec<u64>>;

impl DescriptorSet {
    pub(crate) fn resolve(&self, uses: &mut Uses) {
        if Config::get().debug.no_descriptors {
            return;
        }
        let bound = self.bound.hold();
        bound.by_place.values().chain(&bound.copied).for_each(|bound| uses.add_bound(bound));
    }

    fn write(&self, binding: u32, element: u32, bound: Option<Bound>) {
        let place = (binding, element);
        let mut state = self.bound.hold();
        // Buffers in memory that is not emulated are of no interest.
        match bound.filter(|bound| !bound.buffer.is_elsewhere()) {
            Some(bound) => state.by_place.insert(place, bound),
            None => state.by_place.remove(&place),
        };
    }

    fn copy_from(&self, from: &Self) {
        let bound: Vec<Bound> = {
            let from = from.bound.hold();
            from.by_place.values().chain(&from.copied).cloned().collect()
        };
        let mut state = self.bound.hold();
        for bound in bound {
            let is_same = |known: &Bound| {
                Arc::ptr_eq(&known.buffer, &bound.buffer)
                    && (known.offset, known.size, known.access) == (bound.offset, bound.size, bound.access)
            };
            if !state.copied.iter().any(is_same) {
                state.copied.push(bound);
            }
        }
    }
}

/// What a descriptor of a type holds.
#[derive(Clone, Copy)]
enum Holds {
    /// A VkDescriptorBufferInfo. Of a dynamic one the offset is known only when it is bound.
    Buffer { access: Access, is_dynamic: bool },
    /// A VkBufferView.
    View(Access),
    /// Nothing that leads to a buffer.
    Other,
}

fn holds(kind: Type) -> Holds {
    match kind {
        Type::UNIFORM_BUFFER => Holds::Buffer { access: Access::Read, is_dynamic: false },
        Type::UNIFORM_BUFFER_DYNAMIC => Holds::Buffer { access: Access::Read, is_dynamic: true },
        Type::STORAGE_BUFFER => Holds::Buffer { access: Access::Write, is_dynamic: false },
        Type::STORAGE_BUFFER_DYNAMIC => Holds::Buffer { access: Access::Write, is_dynamic: true },
        Type::UNIFORM_TEXEL_BUFFER => Holds::View(Access::Read),
        Type::STORAGE_TEXEL_BUFFER => Holds::View(Access::Write),
        _ => Holds::Other,
    }
}

/// What a descriptor of type `kind` at `info` leads to.
///
/// # Safety
/// `info` must point to the structure or handle that such a descriptor is written from.
unsafe fn bound_by(coherence: &Coherence, kind: Type, info: *const u8) -> Option<Bound> {
    match holds(kind) {
        Holds::Buffer { access, is_dynamic } => {
            // SAFETY: the caller's promise. Templates need not align it.
            let info = unsafe { info.cast::<vk::DescriptorBufferInfo>().read_unaligned() };
            let buffer = coherence.buffer(info.buffer)?;
            let (offset, size) = if is_dynamic { (0, vk::WHOLE_SIZE) } else { (info.offset, info.range) };
            Some(Bound { buffer, offset, size, access })
        }
        Holds::View(access) => {
            // SAFETY: as above.
            let view = unsafe { info.cast::<vk::BufferView>().read_unaligned() };
            let view = coherence.buffer_views.shared().get(&view.as_raw()).cloned()?;
            Some(Bound { buffer: view.buffer.clone(), offset: view.offset, size: view.range, access })
        }
        Holds::Other => None,
    }
}

/// Calls `each` with binding, element and contents of every descriptor of `write`.
///
/// # Safety
/// A valid structure.
pub(crate) unsafe fn for_each_written(
    coherence: &Coherence,
    write: &vk::WriteDescriptorSet<'_>,
    mut each: impl FnMut(u32, u32, Option<Bound>),
) {
    let (array, stride): (*const u8, usize) = match holds(write.descriptor_type) {
        Holds::Buffer { .. } => (write.p_buffer_info.cast(), size_of::<vk::DescriptorBufferInfo>()),
        Holds::View(_) => (write.p_texel_buffer_view.cast(), size_of::<vk::BufferView>()),
        Holds::Other => (std::ptr::null(), 0),
    };
    // The size of an inline uniform block is in bytes: there is nothing to forget byte by byte.
    if write.descriptor_type == Type::INLINE_UNIFORM_BLOCK {
        return;
    }
    for index in 0..write.descriptor_count {
        let info = array.wrapping_add(index as usize * stride);
        // SAFETY: an element of the array of that type.
        let bound = unsafe { bound_by(coherence, write.descriptor_type, info) };
        each(write.dst_binding, write.dst_array_element + index, bound);
    }
}

/// Calls `each` with binding, element and contents of every descriptor that `template` takes from `data`.
///
/// # Safety
/// `data` must be valid for the template.
pub(crate) unsafe fn for_each_in_template(
    coherence: &Coherence,
    template: &[vk::DescriptorUpdateTemplateEntry],
    data: *const u8,
    mut each: impl FnMut(u32, u32, Option<Bound>),
) {
    for entry in template.iter().filter(|entry| entry.descriptor_type != Type::INLINE_UNIFORM_BLOCK) {
        for index in 0..entry.descriptor_count {
            let info = data.wrapping_add(entry.offset + index as usize * entry.stride);
            // SAFETY: the template says that such a descriptor is there.
            let bound = unsafe { bound_by(coherence, entry.descriptor_type, info) };
            each(entry.dst_binding, entry.dst_array_element + index, bound);
        }
    }
}

/// vkAllocateDescriptorSets.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn allocate(
    device: vk::Device,
    info: *const vk::DescriptorSetAllocateInfo<'_>,
    sets: *mut vk::DescriptorSet,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(allocate) = state.next.vkAllocateDescriptorSets else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { allocate(device, info, sets) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence) {
        // SAFETY: a valid info; the command stored as many handles.
        let (pool, sets) = unsafe {
            let info = &*info;
            (info.descriptor_pool, slice::from_raw_parts(sets, info.descriptor_set_count as usize))
        };
        let handles = sets.iter().map(|set| set.as_raw());
        coherence.descriptor_pools.hold().entry(pool.as_raw()).or_default().extend(handles.clone());
        coherence.descriptor_sets.exclusive().extend(handles.map(|set| (set, Arc::default())));
    }
    result
}

/// vkFreeDescriptorSets.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn free(
    device: vk::Device,
    pool: vk::DescriptorPool,
    count: u32,
    sets: *const vk::DescriptorSet,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(free) = state.next.vkFreeDescriptorSets else { return vk::Result::ERROR_DEVICE_LOST };
    if let Some(coherence) = &state.coherence {
        // SAFETY: valid for `count` elements, of which there is at least one.
        let freed: Vec<u64> =
            unsafe { slice::from_raw_parts(sets, count as usize) }.iter().map(|set| set.as_raw()).collect();
        if let Some(sets) = coherence.descriptor_pools.hold().get_mut(&pool.as_raw()) {
            sets.retain(|set| !freed.contains(set));
        }
        let mut sets = coherence.descriptor_sets.exclusive();
        freed.iter().for_each(|set| drop(sets.remove(set)));
    }
    // SAFETY: the arguments are passed on as they came.
    unsafe { free(device, pool, count, sets) }
}

/// Forgets the sets of a pool. Returns how many that were.
fn forget_pool(coherence: &Coherence, pool: vk::DescriptorPool) -> usize {
    let freed = coherence.descriptor_pools.hold().remove(&pool.as_raw()).unwrap_or_default();
    let mut sets = coherence.descriptor_sets.exclusive();
    freed.iter().for_each(|set| drop(sets.remove(set)));
    freed.len()
}

/// vkResetDescriptorPool, which frees its sets.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn reset_pool(
    device: vk::Device,
    pool: vk::DescriptorPool,
    flags: vk::DescriptorPoolResetFlags,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(reset) = state.next.vkResetDescriptorPool else { return vk::Result::ERROR_DEVICE_LOST };
    if let Some(coherence) = &state.coherence {
        forget_pool(coherence, pool);
    }
    // SAFETY: the arguments are passed on as they came.
    unsafe { reset(device, pool, flags) }
}

/// vkDestroyDescriptorPool, which frees its sets.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy_pool(
    device: vk::Device,
    pool: vk::DescriptorPool,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    let freed = state.coherence.as_ref().map_or(0, |coherence| forget_pool(coherence, pool));
    if freed > 0 {
        log::debug!("{pool:?}: destroyed with {freed} descriptor sets");
    }
    if let Some(destroy) = state.next.vkDestroyDescriptorPool {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, pool, allocator) }
    }
}

/// vkUpdateDescriptorSets.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn update(
    device: vk::Device,
    write_count: u32,
    writes: *const vk::WriteDescriptorSet<'_>,
    copy_count: u32,
    copies: *const vk::CopyDescriptorSet<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        for index in 0..write_count as usize {
            // SAFETY: one of the caller's `write_count` structures.
            let write = unsafe { &*writes.add(index) };
            if let Some(set) = coherence.descriptor_set(write.dst_set) {
                // SAFETY: a valid structure.
                unsafe {
                    for_each_written(coherence, write, |binding, element, bound| {
                        set.write(binding, element, bound);
                    });
                }
            }
        }
        for index in 0..copy_count as usize {
            // SAFETY: one of the caller's `copy_count` structures.
            let copy = unsafe { &*copies.add(index) };
            let sets = (coherence.descriptor_set(copy.src_set), coherence.descriptor_set(copy.dst_set));
            if let (Some(from), Some(to)) = sets
                && copy.src_set != copy.dst_set
            {
                to.copy_from(&from);
            }
        }
    }
    if let Some(update) = state.next.vkUpdateDescriptorSets {
        // SAFETY: the arguments are passed on as they came.
        unsafe { update(device, write_count, writes, copy_count, copies) }
    }
}

/// vkCreateDescriptorUpdateTemplate.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create_template(
    device: vk::Device,
    info: *const vk::DescriptorUpdateTemplateCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    template: *mut vk::DescriptorUpdateTemplate,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(create) = state.next.vkCreateDescriptorUpdateTemplate else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { create(device, info, allocator, template) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence) {
        // SAFETY: a valid info, with at least one entry.
        let entries = unsafe {
            let info = &*info;
            slice::from_raw_parts(
                info.p_descriptor_update_entries,
                info.descriptor_update_entry_count as usize,
            )
        };
        // SAFETY: the command succeeded, so it stored a handle.
        coherence.templates.exclusive().insert(unsafe { *template }.as_raw(), entries.into());
    }
    result
}

/// vkDestroyDescriptorUpdateTemplate.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy_template(
    device: vk::Device,
    template: vk::DescriptorUpdateTemplate,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        coherence.templates.exclusive().remove(&template.as_raw());
    }
    if let Some(destroy) = state.next.vkDestroyDescriptorUpdateTemplate {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, template, allocator) }
    }
}

/// vkUpdateDescriptorSetWithTemplate.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn update_with_template(
    device: vk::Device,
    set: vk::DescriptorSet,
    template: vk::DescriptorUpdateTemplate,
    data: *const std::ffi::c_void,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence
        && let (Some(set), Some(entries)) = (coherence.descriptor_set(set), coherence.template(template))
    {
        // SAFETY: the caller's data is valid for the template.
        unsafe {
            for_each_in_template(coherence, &entries, data.cast(), |binding, element, bound| {
                set.write(binding, element, bound);
            });
        }
    }
    if let Some(update) = state.next.vkUpdateDescriptorSetWithTemplate {
        // SAFETY: the arguments are passed on as they came.
        unsafe { update(device, set, template, data) }
    }
}
