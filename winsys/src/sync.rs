//! Locks that outlive a panic.
//!
//! A panic inside a Vulkan command is caught at the C boundary and becomes an error code; the process
//! lives on, and so must its locks. Everything they protect here is valid between any two statements.
//!
//! What the model checker is to see takes its locks from here.

#[cfg(all(test, loom))]
use loom::sync as locks;
#[cfg(not(all(test, loom)))]
use std::sync as locks;

pub(crate) use locks::Mutex;
use locks::{MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::PoisonError;

/// [`Mutex::lock`] without poisoning.
pub trait LockExt<T> {
    /// Locks, whatever became of earlier holders.
    fn hold(&self) -> MutexGuard<'_, T>;
}

impl<T> LockExt<T> for Mutex<T> {
    fn hold(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`RwLock::read`] and [`RwLock::write`] without poisoning.
pub trait RwLockExt<T> {
    /// Locks shared, whatever became of earlier holders.
    fn shared(&self) -> RwLockReadGuard<'_, T>;
    /// Locks alone, whatever became of earlier holders.
    fn exclusive(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T> RwLockExt<T> for RwLock<T> {
    fn shared(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
