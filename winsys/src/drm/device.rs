//! The kernel driver's calls, typed.

use super::Absent;
use super::node::Node;
use crate::kernel::{self, Call};
use crate::page_size;
use crate::tracker::Method;
use ::drm::control::{Device as _, RawResourceHandle};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_kmd_uapi::tidemark_drm as uapi;

/// Ranges fetched by one call: 6 KiB of stack.
const RANGES: usize = 256;

/// Parts asked about by one call: 1.5 KiB of stack.
const PARTS: usize = 64;

/// The driver's render node, open. Handles of its file mean the same in a forked child, which must leave them alone.
pub(super) struct Device {
    node: Node,
    path: PathBuf,
    home: u32,
    caps: u64,
}

impl Device {
    /// Opens the first render node of the driver. Other drivers are asked for their names alone: the same numbers are other
    /// calls there.
    pub(super) fn open() -> Result<Self, Absent> {
        let mut closed = Vec::new();
        for path in super::node::paths() {
            match Node::open(&path) {
                Ok(node) if node.driver_name().is_ok_and(|name| name == uapi::DRIVER_NAME) => {
                    return Self::of(node, path);
                }
                Ok(_) => {}
                Err(_) => closed.push(path),
            }
        }
        Err(Absent::NoNode { closed })
    }

    fn of(node: Node, path: PathBuf) -> Result<Self, Absent> {
        let mut device = Self { node, path, home: kernel::address_space(), caps: 0 };
        let query = |param| device.query(param).map_err(|error| Absent::Failed(device.path.clone(), error));
        if query(uapi::PARAM_VERSION)? < uapi::UAPI_VERSION {
            return Err(Absent::Lacks(device.path, "has an older version of the contract"));
        }
        if query(uapi::PARAM_PAGE_SIZE)? != page_size() as u64 {
            return Err(Absent::Lacks(device.path, "tracks other pages than this process has"));
        }
        device.caps = query(uapi::PARAM_CAPS)?;
        Ok(device)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The address space it was opened in.
    pub(super) fn home(&self) -> u32 {
        self.home
    }

    /// What it can do.
    pub(super) fn methods(&self) -> Vec<Method> {
        let methods = [(Method::Mkwrite, uapi::CAP_MKWRITE), (Method::DirtyBits, uapi::CAP_DIRTY_BITS)];
        methods.into_iter().filter_map(|(method, cap)| (self.caps & cap != 0).then_some(method)).collect()
    }

    fn query(&self, param: u32) -> io::Result<u64> {
        let mut query = uapi::Query { param, ..Default::default() };
        self.call::<_, { uapi::IOCTL_QUERY }>(&mut query)?;
        Ok(query.value)
    }

    fn call<T, const OPCODE: u32>(&self, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: the argument is a live structure of the opcode's, and what it points to lives as long.
            match unsafe { rustix::ioctl::ioctl(self.as_fd(), Call::<_, OPCODE>(&mut *argument)) } {
                // Nothing has been done.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

/// A handle of an object, closed when dropped. The object lives as long as it is mapped.
pub(super) struct Handle {
    device: Arc<Device>,
    number: RawResourceHandle,
}

impl Handle {
    /// Of a new object of `size` bytes of zeros, whole pages.
    pub(super) fn new(device: Arc<Device>, size: usize, method: Method) -> io::Result<Self> {
        let mut create = uapi::ObjectCreate {
            size: size as u64,
            placement: uapi::PLACEMENT_SYSTEM,
            tracking: tracking(method),
            ..Default::default()
        };
        device.call::<_, { uapi::IOCTL_OBJECT_CREATE }>(&mut create)?;
        let number = RawResourceHandle::new(create.handle).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { device, number })
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Where in the file a view of an object is, tracked or not.
    pub(super) fn offset(&self, flags: u32) -> io::Result<u64> {
        let mut offset = uapi::MmapOffset { handle: self.number.get(), flags, offset: 0 };
        self.device.call::<_, { uapi::IOCTL_MMAP_OFFSET }>(&mut offset)?;
        Ok(offset.offset)
    }

    /// Another way to learn what is written to an object. Nothing is lost.
    pub(super) fn set_method(&self, method: Method) -> io::Result<()> {
        let mut set = uapi::SetTracking { handle: self.number.get(), tracking: tracking(method) };
        self.device.call::<_, { uapi::IOCTL_SET_TRACKING }>(&mut set)
    }

    /// Reports what was written of parts of the object (bytes, whole pages, ascending), and forgets that it was.
    pub(super) fn collect(
        &self,
        parts: impl Iterator<Item = Range<usize>>,
        mut report: impl FnMut(Range<usize>),
    ) -> io::Result<()> {
        let mut parts = parts.filter(|part| !part.is_empty());
        let mut ranges = [uapi::Range::default(); RANGES];
        loop {
            let mut objects = [uapi::CollectObject::default(); PARTS];
            let mut object_count = 0;
            for (object, part) in objects.iter_mut().zip(parts.by_ref()) {
                (object.handle, object.offset, object.size) =
                    (self.number.get(), part.start as u64, part.len() as u64);
                object_count += 1;
            }
            let mut collect = uapi::Collect {
                objects: objects.as_ptr() as u64,
                ranges: ranges.as_mut_ptr() as u64,
                object_count,
                range_capacity: u32::try_from(RANGES).unwrap_or(u32::MAX),
                ..Default::default()
            };
            while collect.next_object < collect.object_count {
                self.device.call::<_, { uapi::IOCTL_COLLECT }>(&mut collect)?;
                let found = usize::try_from(collect.range_count).unwrap_or(RANGES).min(RANGES);
                // The kernel reports ranges inside what was asked for.
                let bytes = |value| usize::try_from(value).unwrap_or(usize::MAX);
                ranges[..found].iter().for_each(|range| {
                    let start = bytes(range.offset);
                    report(start..start.saturating_add(bytes(range.size)));
                });
            }
            if (object_count as usize) < PARTS {
                return Ok(());
            }
        }
    }

    /// What an object has cost so far.
    pub(super) fn counters(&self) -> io::Result<uapi::Counters> {
        let mut counters = uapi::Counters { handle: self.number.get(), ..Default::default() };
        self.device.call::<_, { uapi::IOCTL_COUNTERS }>(&mut counters)?;
        Ok(counters)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A forked child's file is its parent's, and so are the handles.
        if self.device.home != kernel::address_space() {
            return;
        }
        match self.device.node.close_buffer(self.number.into()) {
            // Of a device that is gone, they go with the file.
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                log::error!("cannot close an object of {}: {error}", self.device.path.display());
            }
            _ => {}
        }
    }
}

fn tracking(method: Method) -> u32 {
    match method {
        Method::Mkwrite => uapi::TRACKING_MKWRITE,
        Method::DirtyBits => uapi::TRACKING_DIRTY_BITS,
    }
}
