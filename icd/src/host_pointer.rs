//! Memory of the application's that it imports (VK_EXT_external_memory_host): offered on every device with emulated memory.
//!
//! The device does not see these pages, so an import is an ordinary allocation of an emulated type, whose host view are the
//! pages. The backing driver never hears of it: even if it has the extension its own way to such memory would leave out
//! the one between host and device.
//!
//! How pages are watched that the application may take away at any time is told in
//! [`UserMemory`](tidemark_winsys::UserMemory), or left to the application (`TIDEMARK_USERPTR=unsynchronised`).

mod idle;
mod queries;

use crate::chain::{self, Chain};
use crate::coherence::Coherence;
use crate::config::Config;
use crate::device::Device;
use crate::memory_types::MemoryType;
use ash::vk::{self, ExternalMemoryHandleTypeFlags as HandleTypes};
pub(crate) use idle::{Idle, Imports, Key};
pub(crate) use queries::{external_buffer_properties, image_format_properties2, properties};
use std::ffi::c_void;
use tidemark_winsys::{Span, Trust, UserMemory, page_size};

/// The handle types that stand for host memory.
const HOST: HandleTypes = HandleTypes::from_raw(
    HandleTypes::HOST_ALLOCATION_EXT.as_raw() | HandleTypes::HOST_MAPPED_FOREIGN_MEMORY_EXT.as_raw(),
);

/// Fills the extension's structures in an output chain of vkGetPhysicalDeviceProperties2.
///
/// # Safety
/// `chain` must be null or the head of a valid chain of output structures, to which nothing else refers.
pub(crate) unsafe fn fill(chain: *mut c_void) {
    // SAFETY: the caller's promise.
    let found = unsafe { chain::find::<vk::PhysicalDeviceExternalMemoryHostPropertiesEXT<'_>>(chain) };
    if let Some(properties) = found {
        properties.min_imported_host_pointer_alignment = page_size() as u64;
    }
}

/// Pages that were taken.
pub(crate) enum Lent {
    /// Anew; and under what the import may be kept when it is freed.
    Fresh(UserMemory, Option<Key>),
    /// Of an import that was kept.
    Again(Idle),
}

/// What an allocation imports.
pub(crate) struct Import {
    span: Span,
    key: Option<Key>,
    /// The chain that is left for the backing driver.
    pub(crate) chain: Chain,
}

impl Import {
    /// Of an allocate info; `None` if it is no import of host memory.
    ///
    /// # Errors
    /// What is wrong with it is on the log.
    ///
    /// # Safety
    /// A valid allocate info, which outlives the result.
    pub(crate) unsafe fn of(
        info: &vk::MemoryAllocateInfo<'_>,
        memory_type: &MemoryType,
    ) -> Option<Result<Self, vk::Result>> {
        // SAFETY: the caller's promise.
        let found = unsafe { chain::find_input::<vk::ImportMemoryHostPointerInfoEXT<'_>>(info.p_next) }?;
        let (start, len, alignment) =
            (found.p_host_pointer.expose_provenance(), info.allocation_size, page_size());
        let refused = |what: String| {
            log::error!("vkAllocateMemory: cannot import {len} bytes of host memory at {start:#x}: {what}");
            Some(Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE))
        };
        if !HOST.contains(found.handle_type) || found.handle_type.as_raw().count_ones() != 1 {
            // None at all says that nothing is imported.
            return if found.handle_type.is_empty() {
                None
            } else {
                refused(format!("{:?} is no handle type of host memory", found.handle_type))
            };
        }
        if !memory_type.is_emulated() {
            return refused(format!(
                "memory type {} is none that vkGetMemoryHostPointerPropertiesEXT returned",
                info.memory_type_index
            ));
        }
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
        let Some(end) = end.filter(|&end| start != 0 && start < end) else {
            return refused("there is no such memory".into());
        };
        if !start.is_multiple_of(alignment) || !end.is_multiple_of(alignment) {
            return refused(format!(
                "address and size must be multiples of minImportedHostPointerAlignment, {alignment}"
            ));
        }
        let span = start..end;
        // SAFETY: the caller's promise.
        let rest =
            unsafe { chain::without(info.p_next, vk::StructureType::IMPORT_MEMORY_HOST_POINTER_INFO_EXT) };
        match rest.transpose()? {
            Ok(chain) => {
                // SAFETY: the caller's promise.
                let key = unsafe { Key::new(&span, info, chain.head()) };
                Some(Ok(Self { span, key, chain }))
            }
            Err(error) => refused(format!(
                "process_vm_readv(2) fails ({error}): put VkImportMemoryHostPointerInfoEXT first in the chain"
            )),
        }
    }

    /// Takes the pages. Without `may_be_kept` the import is none that was kept, and is not kept when it is freed.
    ///
    /// # Errors
    /// Why not is on the log.
    ///
    /// # Safety
    /// As the specification demands of the imported pointer.
    pub(crate) unsafe fn lend(
        &self,
        device: &Device,
        coherence: &Coherence,
        may_be_kept: bool,
    ) -> Result<Lent, vk::Result> {
        let key = self.key.clone().filter(|_| may_be_kept);
        if let Some(idle) = key.as_ref().and_then(|key| coherence.imports.take(device, key)) {
            return Ok(Lent::Again(idle));
        }
        // What is kept of other imports there is in the way.
        coherence.imports.evict(device, |key| key.overlaps(&self.span));
        let trust = Config::get().user_memory;
        // SAFETY: the caller's promise.
        let lent = unsafe { coherence.imports.lending().lend(self.span.clone(), trust) };
        let pages = lent.map_err(|refusal| {
            let (start, len) = (self.span.start, self.span.len());
            let hint = match trust {
                Trust::Watched => "; see TIDEMARK_USERPTR",
                Trust::Blind => "",
            };
            log::error!(
                "vkAllocateMemory: cannot import {len} bytes of host memory at {start:#x}: {refusal}{hint}"
            );
            vk::Result::ERROR_INVALID_EXTERNAL_HANDLE
        })?;
        // What is not watched is copied again in any case.
        let key = key.filter(|_| pages.is_watched());
        Ok(Lent::Fresh(pages, key))
    }
}

/// The chain of a buffer's or an image's creation without the handle types that are Tidemark's business. `None` if it may
/// stay as it is.
///
/// # Safety
/// `chain` must be null or a valid chain, which outlives the result. `T` must be what holds the handle types in it.
unsafe fn without_host<T: vk::TaggedStructure>(
    chain: *const c_void,
    types_of: impl Fn(&mut T) -> &mut HandleTypes,
) -> Option<Chain> {
    let mut is_concerned = false;
    let edit = |structure: &mut T| {
        let types = types_of(structure);
        is_concerned = types.intersects(HOST);
        *types &= !HOST;
        !types.is_empty()
    };
    // SAFETY: the caller's promise.
    let edited = unsafe { chain::edited::<T>(chain, edit) }.unwrap_or_else(|error| {
        log::warn!(
            "handle types of host memory are left to the backing driver: process_vm_readv(2) fails ({error})"
        );
        None
    });
    edited.filter(|_| is_concerned)
}

/// [`without_host`] of a VkBufferCreateInfo's chain.
///
/// # Safety
/// `chain` must be null or a valid chain, which outlives the result.
pub(crate) unsafe fn buffer_chain(chain: *const c_void) -> Option<Chain> {
    // SAFETY: the caller's promise.
    unsafe {
        without_host::<vk::ExternalMemoryBufferCreateInfo<'_>>(chain, |external| &mut external.handle_types)
    }
}

/// [`without_host`] of a VkImageCreateInfo's chain.
///
/// # Safety
/// `chain` must be null or a valid chain, which outlives the result.
pub(crate) unsafe fn image_chain(chain: *const c_void) -> Option<Chain> {
    // SAFETY: the caller's promise.
    unsafe {
        without_host::<vk::ExternalMemoryImageCreateInfo<'_>>(chain, |external| &mut external.handle_types)
    }
}
