//! Side tables: Tidemark's own state, by the handle of the backing driver's object.

use ash::vk::{self, Handle};
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::LocalKey;
use tidemark_winsys::RwLockExt;

use crate::command_buffer::CommandBuffer;
use crate::device::Device;
use crate::instance::Instance;
use crate::physical_device::PhysicalDevice;
use crate::queue::Queue;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $handle:ty => $value:ty;)*) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: Table<$handle, $value> = {
                thread_local! { static LAST: Cell<Last<$value>> = const { Cell::new(Last::NONE) } }
                Table::new(&LAST)
            };
        )*
    };
}

tables! {
    /// Instances of this process.
    INSTANCES: vk::Instance => Instance;
    /// Physical devices of these instances, from their first enumeration on.
    PHYSICAL_DEVICES: vk::PhysicalDevice => PhysicalDevice;
    /// Devices.
    DEVICES: vk::Device => Device;
    /// Queues that were fetched.
    QUEUES: vk::Queue => Queue;
    /// Command buffers of devices with emulated memory.
    COMMAND_BUFFERS: vk::CommandBuffer => CommandBuffer;
}

/// State by handle. May be used from any thread; its lock is held only for the look-up itself.
pub(crate) struct Table<H, T: 'static> {
    map: RwLock<HandleMap<Arc<T>>>,
    /// Handles that were taken out. Changes under the exclusive lock only.
    removals: AtomicU64,
    last: &'static LocalKey<Cell<Last<T>>>,
    handle: PhantomData<fn(H)>,
}

/// What a thread looked up last, to be had without lock or count while nothing was taken out since.
pub(crate) struct Last<T> {
    handle: u64,
    removals: u64,
    value: *const T,
}

impl<T> Last<T> {
    const NONE: Self = Self { handle: 0, removals: u64::MAX, value: ptr::null() };
}

impl<T> Clone for Last<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Last<T> {}

impl<H: Handle, T> Table<H, T> {
    const fn new(last: &'static LocalKey<Cell<Last<T>>>) -> Self {
        Self {
            map: RwLock::new(HandleMap::with_hasher(BuildHasherDefault::new())),
            removals: AtomicU64::new(0),
            last,
            handle: PhantomData,
        }
    }

    pub(crate) fn get(&self, handle: H) -> Option<Arc<T>> {
        self.map.shared().get(&handle.as_raw()).cloned()
    }

    /// What [`get`](Self::get) finds, for commands that come by the thousand: a loop that works on one object looks it
    /// up once.
    ///
    /// # Safety
    /// The handle must not be removed as long as the result is used. That much the specification demands of
    /// applications: they destroy no object while a command that they gave it to runs.
    pub(crate) unsafe fn find<'a>(&self, handle: H) -> Option<&'a T> {
        let handle = handle.as_raw();
        let last = self.last.get();
        if last.handle == handle && last.removals == self.removals.load(Ordering::Acquire) {
            // SAFETY: in the table when it was looked up, and nothing is known to have been taken out since. If another
            // thread does so now, it takes something else, by the caller's promise.
            return Some(unsafe { &*last.value });
        }
        let map = self.map.shared();
        let value = Arc::as_ptr(map.get(&handle)?);
        self.last.set(Last { handle, removals: self.removals.load(Ordering::Relaxed), value });
        // SAFETY: in the table, and by the caller's promise it stays there.
        Some(unsafe { &*value })
    }

    pub(crate) fn insert(&self, handle: H, value: Arc<T>) {
        let mut map = self.map.exclusive();
        if map.insert(handle.as_raw(), value).is_some() {
            self.count_removals();
        }
    }

    /// Inserts what `new` makes, unless there is something already.
    pub(crate) fn insert_new(&self, handle: H, new: impl FnOnce() -> T) {
        self.map.exclusive().entry(handle.as_raw()).or_insert_with(|| Arc::new(new()));
    }

    pub(crate) fn contains(&self, handle: H) -> bool {
        self.map.shared().contains_key(&handle.as_raw())
    }

    pub(crate) fn remove(&self, handle: H) -> Option<Arc<T>> {
        let mut map = self.map.exclusive();
        self.count_removals();
        map.remove(&handle.as_raw())
    }

    /// Those that `is_wanted`, in no order.
    pub(crate) fn all(&self, is_wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.map.shared().values().filter(|value| is_wanted(value)).cloned().collect()
    }

    /// Takes out all but those to keep. Returns how many that were.
    pub(crate) fn retain(&self, keep: impl Fn(&T) -> bool) -> usize {
        let mut map = self.map.exclusive();
        self.count_removals();
        let before = map.len();
        map.retain(|_, value| keep(value));
        before - map.len()
    }

    /// Under the exclusive lock: what threads looked up last no longer counts.
    fn count_removals(&self) {
        self.removals.fetch_add(1, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;
    use ash::vk::{Fence, Handle};

    thread_local! { static LAST: Cell<Last<u32>> = const { Cell::new(Last::NONE) } }

    /// The only table of a test, which may run on a thread that another one used.
    fn table() -> Table<Fence, u32> {
        LAST.set(Last::NONE);
        Table::new(&LAST)
    }

    fn found(table: &Table<Fence, u32>, handle: u64) -> Option<u32> {
        // SAFETY: no other thread removes it meanwhile, and the result is copied.
        unsafe { table.find(Fence::from_raw(handle)) }.copied()
    }

    #[test]
    fn a_handle_that_is_given_anew_leads_to_the_new_state() {
        let table = table();
        let fence = Fence::from_raw(7);
        assert_eq!(found(&table, 7), None);
        table.insert(fence, Arc::new(1));
        assert_eq!([found(&table, 7), found(&table, 7), found(&table, 8)], [Some(1), Some(1), None]);
        table.insert(fence, Arc::new(2));
        assert_eq!(found(&table, 7), Some(2));
        table.remove(fence);
        assert_eq!(found(&table, 7), None);
        table.insert(fence, Arc::new(3));
        assert_eq!(found(&table, 7), Some(3));
        table.retain(|_| false);
        assert_eq!(found(&table, 7), None);
    }

    #[test]
    fn what_another_thread_removes_is_gone() {
        let table = table();
        table.insert(Fence::from_raw(7), Arc::new(1));
        assert_eq!(found(&table, 7), Some(1));
        std::thread::scope(|scope| scope.spawn(|| table.remove(Fence::from_raw(7))).join().unwrap());
        assert_eq!(found(&table, 7), None);
    }

    #[test]
    fn a_handle_stays_to_be_found_while_others_come_and_go() {
        let table = table();
        table.insert(Fence::from_raw(7), Arc::new(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    table.insert(Fence::from_raw(8), Arc::new(2));
                    table.remove(Fence::from_raw(8));
                }
            });
            assert!((0..10_000).all(|_| found(&table, 7) == Some(1)));
        });
    }

    #[test]
    fn a_new_one_replaces_nothing() {
        let table = table();
        table.insert_new(Fence::from_raw(7), || 1);
        table.insert_new(Fence::from_raw(7), || 2);
        assert_eq!(found(&table, 7), Some(1));
    }
}
