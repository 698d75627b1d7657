//! Owners of device objects: what they own is destroyed when they are dropped.

use std::rc::Rc;

use ash::vk;

use crate::gpu::Gpu;

/// A `vkDestroy*` function of the device, as ash declares it.
type Destroy<T> = unsafe fn(&ash::Device, T, Option<&vk::AllocationCallbacks<'_>>);

/// One object of the device and the duty to destroy it.
pub(crate) struct Owned<T: Copy> {
    handle: T,
    destroy: Destroy<T>,
    gpu: Rc<Gpu>,
}

impl<T: Copy> Owned<T> {
    /// # Safety
    ///
    /// `handle` was made from the device of `gpu`, is what `destroy` destroys, and nobody else destroys it.
    /// The caller drops the owner only when the device no longer uses the object.
    pub(crate) unsafe fn new(gpu: &Rc<Gpu>, handle: T, destroy: Destroy<T>) -> Self {
        Self { handle, destroy, gpu: Rc::clone(gpu) }
    }

    pub(crate) fn get(&self) -> T {
        self.handle
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the contract of `new`; the device lives, as `gpu` holds it.
        unsafe { (self.destroy)(self.gpu.device(), self.handle, None) };
    }
}
