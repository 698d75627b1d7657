//! [`diff`](crate::diff) by its definition, byte by byte, on modelled memory.

use crate::model::{load, store};
use std::ops::Range;

pub(crate) unsafe fn propagate(source: *const u8, twin: *mut u8, target: *mut u8, len: usize) -> usize {
    let mut changed = 0;
    for at in 0..len {
        let value = load(source.wrapping_add(at));
        if value != load(twin.wrapping_add(at)) {
            store(twin.wrapping_add(at), value);
            store(target.wrapping_add(at), value);
            changed += 1;
        }
    }
    changed
}

pub(crate) unsafe fn propagate_by_grains(
    source: *const u8,
    twin: *mut u8,
    target: *mut u8,
    len: usize,
    before: impl Fn(Range<usize>),
    after: impl Fn(Range<usize>),
) -> usize {
    before(0..len);
    // SAFETY: the caller's promise.
    let changed = unsafe { propagate(source, twin, target, len) };
    after(0..len);
    changed
}

pub(crate) unsafe fn update(
    source: *const u8,
    twin: *mut u8,
    len: usize,
    mut changed: impl FnMut(Range<usize>),
) -> usize {
    let mut total = 0;
    for at in 0..len {
        let value = load(source.wrapping_add(at));
        if value != load(twin.wrapping_add(at)) {
            store(twin.wrapping_add(at), value);
            changed(at..at + 1);
            total += 1;
        }
    }
    total
}

pub(crate) unsafe fn copy(source: *const u8, twin: *mut u8, target: *mut u8, len: usize) {
    for at in 0..len {
        let value = load(source.wrapping_add(at));
        store(twin.wrapping_add(at), value);
        store(target.wrapping_add(at), value);
    }
}

pub(crate) unsafe fn overwrite(source: *const u8, target: *mut u8, len: usize) {
    for at in 0..len {
        store(target.wrapping_add(at), load(source.wrapping_add(at)));
    }
}

pub(crate) unsafe fn clear(target: *mut u8, len: usize) {
    for at in 0..len {
        if load(target.wrapping_add(at)) != 0 {
            store(target.wrapping_add(at), 0);
        }
    }
}
