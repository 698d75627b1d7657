//! Deep copies of what a queue takes: structures live as long as the call that brings them, batches that are held for
//! longer.

use ash::vk::{self, StructureType, TaggedStructure};
use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;
use std::slice;

/// The copies that a structure's pointers lead to. Their addresses stay as they are.
#[derive(Default)]
pub(crate) struct Copies(Vec<Vec<u64>>);

/// Copies what a structure points to, once it is a copy itself.
type Deepen = unsafe fn(&mut Copies, *mut c_void);

impl Copies {
    /// # Safety
    /// Valid for reads of `size` bytes.
    unsafe fn bytes(&mut self, at: *const c_void, size: usize) -> *mut c_void {
        // Of words, for the alignment of every Vulkan structure.
        let mut copy = vec![0u64; size.div_ceil(size_of::<u64>())];
        let to: *mut c_void = copy.as_mut_ptr().cast();
        // SAFETY: the caller's promise, and room for as much.
        unsafe { ptr::copy_nonoverlapping(at.cast::<u8>(), to.cast(), size) };
        self.0.push(copy);
        to
    }

    /// Lets `at` lead to a copy of its array, and returns that.
    ///
    /// # Safety
    /// Null, or valid for `count` elements, which hold no reference.
    pub(crate) unsafe fn array<'a, T: Copy>(&mut self, at: &mut *const T, count: u32) -> &'a mut [T] {
        if at.is_null() || count == 0 {
            *at = ptr::null();
            return &mut [];
        }
        let count = count as usize;
        // SAFETY: the caller's promise; nobody else knows the copy.
        unsafe {
            let copy: *mut T = self.bytes(at.cast(), count * size_of::<T>()).cast();
            *at = copy;
            slice::from_raw_parts_mut(copy, count)
        }
    }

    /// Lets `head` lead to a copy of its chain.
    ///
    /// # Errors
    /// The first structure that nobody knows. `head` and what it leads to are then good for nothing.
    ///
    /// # Safety
    /// Null or the head of a valid chain.
    pub(crate) unsafe fn chain(&mut self, head: &mut *const c_void) -> Result<(), StructureType> {
        let mut link: *mut *const c_void = head;
        // SAFETY: each element of a valid chain is null or starts with these two fields; the last link is that of a copy.
        unsafe {
            while let Some(structure) = (*link).cast::<vk::BaseInStructure<'_>>().as_ref() {
                let (size, deepen) = layout(structure.s_type).ok_or(structure.s_type)?;
                let copy = self.bytes(*link, size);
                deepen(self, copy);
                *link = copy;
                link = (&raw mut (*copy.cast::<vk::BaseInStructure<'_>>()).p_next).cast();
            }
        }
        Ok(())
    }
}

/// Of each structure: the arrays it points to, with the fields that count their elements.
macro_rules! structures {
    ($($name:ident { $($array:ident: $count:ident),* })*) => {
        /// The size of a structure, and how it is deepened.
        fn layout(tag: StructureType) -> Option<(usize, Deepen)> {
            $({
                type Structure = vk::$name<'static>;
                unsafe fn deepen(_copies: &mut Copies, at: *mut c_void) {
                    // SAFETY: a copy of such a structure, with valid arrays, by the caller's promise.
                    let _structure = unsafe { &mut *at.cast::<Structure>() };
                    $(
                        // SAFETY: as above.
                        unsafe { _copies.array(&mut _structure.$array, _structure.$count) };
                    )*
                }
                if tag == Structure::STRUCTURE_TYPE {
                    return Some((size_of::<Structure>(), deepen));
                }
            })*
            if tag == vk::PresentRegionsKHR::STRUCTURE_TYPE {
                return Some((size_of::<vk::PresentRegionsKHR<'_>>(), deepen_regions));
            }
            if tag == vk::FrameBoundaryEXT::STRUCTURE_TYPE {
                return Some((size_of::<vk::FrameBoundaryEXT<'_>>(), deepen_boundary));
            }
            None
        }
    };
}

structures! {
    TimelineSemaphoreSubmitInfo {
        p_wait_semaphore_values: wait_semaphore_value_count,
        p_signal_semaphore_values: signal_semaphore_value_count
    }
    DeviceGroupSubmitInfo {
        p_wait_semaphore_device_indices: wait_semaphore_count,
        p_command_buffer_device_masks: command_buffer_count,
        p_signal_semaphore_device_indices: signal_semaphore_count
    }
    ProtectedSubmitInfo {}
    PerformanceQuerySubmitInfoKHR {}
    LatencySubmissionPresentIdNV {}
    AmigoProfilingSubmitInfoSEC {}
    DeviceGroupBindSparseInfo {}
    DisplayPresentInfoKHR {}
    DeviceGroupPresentInfoKHR { p_device_masks: swapchain_count }
    PresentIdKHR { p_present_ids: swapchain_count }
    PresentTimesInfoGOOGLE { p_times: swapchain_count }
    SwapchainPresentFenceInfoEXT { p_fences: swapchain_count }
    SwapchainPresentModeInfoEXT { p_present_modes: swapchain_count }
}

/// # Safety
/// A copy of a valid VkPresentRegionsKHR.
unsafe fn deepen_regions(copies: &mut Copies, at: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe {
        let regions = &mut *at.cast::<vk::PresentRegionsKHR<'static>>();
        for region in copies.array(&mut regions.p_regions, regions.swapchain_count) {
            copies.array(&mut region.p_rectangles, region.rectangle_count);
        }
    }
}

/// # Safety
/// A copy of a valid VkFrameBoundaryEXT.
unsafe fn deepen_boundary(copies: &mut Copies, at: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe {
        let boundary = &mut *at.cast::<vk::FrameBoundaryEXT<'static>>();
        copies.array(&mut boundary.p_images, boundary.image_count);
        copies.array(&mut boundary.p_buffers, boundary.buffer_count);
        if !boundary.p_tag.is_null() {
            boundary.p_tag = copies.bytes(boundary.p_tag, boundary.tag_size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::info::Info;
    use super::*;
    use ash::vk::Handle;

    /// The copy of a submission with all that it can point to, when what it was copied from is gone.
    #[test]
    fn a_copy_outlives_what_it_was_copied_from() {
        let mut copies = Copies::default();
        let copy = {
            let semaphores = [1, 2].map(vk::Semaphore::from_raw);
            let stages = [vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST];
            let commands = [3, 4, 5].map(vk::CommandBuffer::from_raw);
            let (waits, signals) = ([10, 20], [30]);
            let mut values = vk::TimelineSemaphoreSubmitInfo::default()
                .wait_semaphore_values(&waits)
                .signal_semaphore_values(&signals);
            let masks = [1, 1, 1];
            let mut group = vk::DeviceGroupSubmitInfo::default().command_buffer_device_masks(&masks);
            let info = vk::SubmitInfo::default()
                .wait_semaphores(&semaphores)
                .wait_dst_stage_mask(&stages)
                .command_buffers(&commands)
                .signal_semaphores(&semaphores[1..])
                .push_next(&mut values)
                .push_next(&mut group);
            // SAFETY: the lifetime is for the copy, of which every pointer leads into `copies`.
            let mut info: vk::SubmitInfo<'static> = unsafe { std::mem::transmute(info) };
            // SAFETY: a valid structure.
            unsafe { Info::copy_to(&mut info, &mut copies) }.expect("all of it is known");
            info
        };
        let semaphore = vk::Semaphore::from_raw;
        // SAFETY: a valid structure, whose command buffers nobody touches.
        unsafe {
            assert_eq!(Info::waits(&copy), [(semaphore(1), 10), (semaphore(2), 20)]);
            assert_eq!(Info::signals(&copy), [(semaphore(2), 30)]);
            assert_eq!(Info::command_buffers(&copy), [3, 4, 5].map(vk::CommandBuffer::from_raw));
            assert_eq!(*copy.p_wait_dst_stage_mask.add(1), vk::PipelineStageFlags::HOST);
            let group =
                crate::chain::find_input::<vk::DeviceGroupSubmitInfo<'_>>(copy.p_next).expect("a group");
            assert_eq!((group.command_buffer_count, *group.p_command_buffer_device_masks.add(2)), (3, 1));
        }
    }

    #[test]
    fn what_lies_in_arrays_is_copied_too() {
        let mut copies = Copies::default();
        let mut copy = {
            let rectangles = [vk::RectLayerKHR { layer: 7, ..Default::default() }];
            let regions = [vk::PresentRegionKHR::default().rectangles(&rectangles)];
            let regions = vk::PresentRegionsKHR::default().regions(&regions);
            let mut head: *const c_void = (&raw const regions).cast();
            // SAFETY: a valid chain.
            unsafe { copies.chain(&mut head) }.expect("it is known");
            head
        };
        // SAFETY: a copy of the chain above.
        unsafe {
            let regions = crate::chain::find_input::<vk::PresentRegionsKHR<'_>>(copy).expect("a copy");
            assert_eq!((*(*regions.p_regions).p_rectangles).layer, 7);
        }
        // A structure that no queue takes.
        let unknown = vk::BufferCreateInfo::default();
        copy = (&raw const unknown).cast();
        // SAFETY: a valid chain.
        let refused = unsafe { copies.chain(&mut copy) };
        assert_eq!(refused, Err(StructureType::BUFFER_CREATE_INFO));
    }
}
