//! The mock's own state, by the handle of lavapipe's object.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use ash::vk::Handle;

/// State by raw handle. May be used from any thread; its lock is held only for the look-up itself.
pub(crate) struct Table<T>(RwLock<BTreeMap<u64, Arc<T>>>);

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self(RwLock::new(BTreeMap::new()))
    }

    pub(crate) fn get(&self, handle: impl Handle) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&handle.as_raw()).cloned()
    }

    pub(crate) fn insert(&self, handle: impl Handle, value: T) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(handle.as_raw(), Arc::new(value));
    }

    pub(crate) fn remove(&self, handle: impl Handle) -> Option<Arc<T>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.as_raw())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
