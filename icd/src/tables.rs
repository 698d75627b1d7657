//! Side tables: Tidemark's own state, by the handle of the backing driver's object.

use ash::vk::{self, Handle};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, RwLock};
use tidemark_winsys::RwLockExt;

use crate::command_buffer::CommandBuffer;
use crate::device::Device;
use crate::instance::Instance;
use crate::physical_device::PhysicalDevice;

/// Instances of this process.
pub(crate) static INSTANCES: Table<vk::Instance, Instance> = Table::new();
/// Physical devices of these instances, from their first enumeration on.
pub(crate) static PHYSICAL_DEVICES: Table<vk::PhysicalDevice, PhysicalDevice> = Table::new();
/// Devices.
pub(crate) static DEVICES: Table<vk::Device, Device> = Table::new();
/// The device of each queue that was fetched.
pub(crate) static QUEUES: Table<vk::Queue, Device> = Table::new();

/// Command buffers of devices with emulated memory.
pub(crate) static COMMAND_BUFFERS: Table<vk::CommandBuffer, CommandBuffer> = Table::new();

/// State by handle. May be used from any thread; its lock is held only for the look-up itself.
pub(crate) struct Table<H, T> {
    map: RwLock<HandleMap<Arc<T>>>,
    handle: std::marker::PhantomData<fn(H)>,
}

impl<H: Handle, T> Table<H, T> {
    const fn new() -> Self {
        Self {
            map: RwLock::new(HandleMap::with_hasher(BuildHasherDefault::new())),
            handle: std::marker::PhantomData,
        }
    }

    pub(crate) fn get(&self, handle: H) -> Option<Arc<T>> {
        self.map.shared().get(&handle.as_raw()).cloned()
    }

    pub(crate) fn insert(&self, handle: H, value: Arc<T>) {
        self.map.exclusive().insert(handle.as_raw(), value);
    }

    pub(crate) fn contains(&self, handle: H) -> bool {
        self.map.shared().contains_key(&handle.as_raw())
    }

    pub(crate) fn remove(&self, handle: H) -> Option<Arc<T>> {
        self.map.exclusive().remove(&handle.as_raw())
    }

    pub(crate) fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.map.exclusive().retain(|_, value| keep(value));
    }
}

/// A map keyed by raw handles.
pub(crate) type HandleMap<T> = HashMap<u64, T, BuildHasherDefault<HandleHasher>>;

/// Handles are pointers or small integers, chosen by the driver and not by an adversary: one multiplication
/// spreads them well enough.
#[derive(Default)]
pub(crate) struct HandleHasher(u64);

impl Hasher for HandleHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, handle: u64) {
        // The golden ratio, as in Knuth's multiplicative hashing; the rotation brings the mixed upper half down
        // to where the map takes its index from.
        self.0 = (self.0 ^ handle).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
