//! What is measured: ways to let a device see what the host wrote. The device is a piece of memory that the bench
//! writes itself.

use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use tidemark_winsys::tracker::Tracker;
use tidemark_winsys::{Arena, Contents, Costs, Device, DeviceMemory, Mirror, Readback, page_size};

/// Bytes of one buffer, by its number.
pub(crate) type Part = (usize, Range<usize>);

/// A strategy with its buffers.
pub(crate) trait Contender {
    /// Where the host writes and reads each buffer.
    fn views(&self) -> &[*mut u8];

    /// Where the device does.
    fn devices(&self) -> &[*mut u8];

    /// The device is about to use `used`, and to write `written` of it.
    fn before_batch(&mut self, used: &[Part], written: &[Part]);

    /// The device is done writing `written`; the host may look.
    fn after_wait(&mut self, written: &[Part]);
}

/// Memory of the bench's own.
pub(crate) struct Region {
    base: *mut u8,
    len: usize,
}

impl Region {
    /// Zeros, already there.
    pub(crate) fn new(len: usize, flags: MapFlags) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the kernel chooses.
        let base = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, flags) }?;
        let region = Self { base: base.cast(), len };
        for at in (0..len).step_by(page_size()) {
            // SAFETY: inside the new mapping.
            unsafe { region.base.add(at).write_volatile(0) };
        }
        Ok(region)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more: contenders own theirs.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.len) };
    }
}

/// Device memory, as a driver would allocate it.
pub(crate) fn device_memory(len: usize) -> io::Result<Region> {
    Region::new(len, MapFlags::PRIVATE)
}

/// No device: what the host's own work takes.
pub(crate) struct Untracked {
    views: Vec<*mut u8>,
    _regions: Vec<Region>,
}

impl Untracked {
    pub(crate) fn new(buffers: usize, len: usize) -> io::Result<Self> {
        // Shared, as views are: the kernel might give huge pages to the other kind.
        let regions: Vec<Region> =
            (0..buffers).map(|_| Region::new(len, MapFlags::SHARED)).collect::<io::Result<_>>()?;
        Ok(Self { views: regions.iter().map(Region::base).collect(), _regions: regions })
    }
}

impl Contender for Untracked {
    fn views(&self) -> &[*mut u8] {
        &self.views
    }

    fn devices(&self) -> &[*mut u8] {
        &self.views
    }

    fn before_batch(&mut self, _used: &[Part], _written: &[Part]) {}

    fn after_wait(&mut self, _written: &[Part]) {}
}

/// Tidemark's engine.
pub(crate) struct Engine {
    mirrors: Vec<Mirror>,
    views: Vec<*mut u8>,
    devices: Vec<*mut u8>,
}

impl Engine {
    /// With one tracker for everything and eager readback, or policies that choose.
    pub(crate) fn new(
        tracker: Arc<dyn Tracker>,
        is_adaptive: bool,
        buffers: usize,
        len: usize,
    ) -> io::Result<Self> {
        let arena = Arena::new(tracker);
        let costs = if is_adaptive { Some(Costs::measure(&arena)?) } else { None };
        let arena = if is_adaptive { arena.reading_back(Readback::Auto) } else { arena };
        let mut engine = Self { mirrors: Vec::new(), views: Vec::new(), devices: Vec::new() };
        for _ in 0..buffers {
            let region = device_memory(len)?;
            engine.devices.push(region.base());
            let mirror = Mirror::new(
                &arena,
                costs,
                Device::Mapped(Box::new(Owned { region, len })),
                Contents::Undefined,
            )?;
            engine.views.push(mirror.view());
            engine.mirrors.push(mirror);
        }
        Ok(engine)
    }

    pub(crate) fn mirror(&self, buffer: usize) -> &Mirror {
        &self.mirrors[buffer]
    }
}

impl Contender for Engine {
    fn views(&self) -> &[*mut u8] {
        &self.views
    }

    fn devices(&self) -> &[*mut u8] {
        &self.devices
    }

    fn before_batch(&mut self, used: &[Part], written: &[Part]) {
        for (buffer, range) in used {
            self.mirrors[*buffer].flush(range.clone());
        }
        for (buffer, range) in written {
            self.mirrors[*buffer].share(range.clone());
        }
    }

    fn after_wait(&mut self, written: &[Part]) {
        for (buffer, range) in written {
            self.mirrors[*buffer].readback(range.clone());
        }
    }
}

/// Device memory that a mirror owns.
struct Owned {
    region: Region,
    len: usize,
}

// SAFETY: an address range of the value's own.
unsafe impl Send for Owned {}
// SAFETY: as above; what is done with the memory goes by raw pointers.
unsafe impl Sync for Owned {}
// SAFETY: mapped, readable and writable, until the value is dropped.
unsafe impl DeviceMemory for Owned {
    fn address(&self) -> *mut u8 {
        self.region.base()
    }

    fn len(&self) -> usize {
        self.len
    }
}
