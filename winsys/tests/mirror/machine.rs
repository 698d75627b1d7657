//! A mirror, a device, and the model of both.

use crate::Contender;
use crate::model::{Byte, Found};
use crate::program::{Operation, Program};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex};
use tidemark_winsys::{Contents, CopiedMemory, Device, DeviceMemory, Leave, Mirror, Span, page_size};

/// What the device memory holds before anybody wrote it.
const GARBAGE: u8 = 0xEE;

/// Bytes behind the device memory that are somebody else's.
const BEHIND: usize = 64;

/// Memory that [`Machine`] owns.
struct Plain(*mut u8, usize);

// SAFETY: the test uses it from one thread.
unsafe impl Send for Plain {}
// SAFETY: as above.
unsafe impl Sync for Plain {}
// SAFETY: the machine's buffer, which lives longer than the mirror and is used through this pointer alone meanwhile.
unsafe impl DeviceMemory for Plain {
    fn address(&self) -> *mut u8 {
        self.0
    }

    fn len(&self) -> usize {
        self.1
    }
}

/// The same for somebody who copies, and takes his time.
#[derive(Clone)]
struct Courier {
    device: Arc<Plain>,
    /// In this order.
    on_the_way: Arc<Mutex<Vec<Parcel>>>,
}

/// What to store, and where.
struct Parcel {
    at: usize,
    bytes: Vec<u8>,
}

impl Courier {
    fn send(&self, at: usize, bytes: Vec<u8>) {
        assert!(at + bytes.len() <= self.device.1, "beyond the memory");
        self.on_the_way.lock().expect("nobody panicked").push(Parcel { at, bytes });
    }

    fn arrive(&self) {
        for Parcel { at, bytes } in self.on_the_way.lock().expect("nobody panicked").drain(..) {
            // SAFETY: inside of the device memory.
            unsafe { self.device.0.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }
}

impl CopiedMemory for Courier {
    fn len(&self) -> usize {
        self.device.1
    }

    unsafe fn store(&self, ranges: &[Range<usize>], source: *const u8) {
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
        for range in ranges {
            let mut bytes = vec![0; range.len()];
            // SAFETY: the caller's promise.
            unsafe { source.add(range.start).copy_to_nonoverlapping(bytes.as_mut_ptr(), range.len()) };
            self.send(range.start, bytes);
        }
    }

    fn clear(&self, range: Range<usize>) {
        self.send(range.start, vec![0; range.len()]);
    }

    fn load(&self, ranges: &[Range<usize>], take: &mut dyn FnMut(usize, &[u8])) {
        self.arrive();
        for range in ranges {
            // In two parts, as it might come.
            let middle = range.start + range.len() / 3;
            for part in [range.start..middle, middle..range.end] {
                let mut bytes = vec![0; part.len()];
                // SAFETY: inside of the device memory.
                unsafe {
                    self.device.0.add(part.start).copy_to_nonoverlapping(bytes.as_mut_ptr(), part.len())
                };
                take(part.start, &bytes);
            }
        }
    }

    fn retire(&self) {
        self.on_the_way.lock().expect("nobody panicked").clear();
    }
}

/// Pages of the machine's own.
struct Own(Span);

impl Own {
    fn new(pages: usize) -> Self {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), pages * page_size(), access, MapFlags::PRIVATE)
        };
        let start = start.expect("memory for a few pages").expose_provenance();
        Self(start..start + pages * page_size())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: the mapping above, which nobody uses any more.
        unsafe { rustix::mm::munmap(ptr::with_exposed_provenance_mut(self.0.start), self.0.len()) }
            .expect("it was mapped");
    }
}

pub(crate) struct Machine {
    // Dropped before the buffer.
    mirror: Mirror,
    courier: Option<Courier>,
    device: *mut u8,
    _buffer: Vec<u8>,
    /// The host view, where it is lent.
    own: Option<Own>,
    bytes: Vec<Byte>,
    /// Addresses for a placed view of all pages, and the bytes that are placed.
    room: *mut u8,
    placed: Option<Range<usize>>,
    /// By page: whether the device may write it.
    shared: Vec<bool>,
    /// By page: whether the host wrote it since it was flushed.
    written: Vec<bool>,
    is_exact: bool,
}

impl Machine {
    pub(crate) fn new(contender: &Contender, program: &Program) -> Self {
        let Program { len, contents, .. } = *program;
        let mut buffer = vec![GARBAGE; len + BEHIND];
        let device = buffer.as_mut_ptr();
        let plain = Plain(device, len);
        let (memory, courier) = if contender.is_copied {
            let courier = Courier { device: Arc::new(plain), on_the_way: Arc::default() };
            (Device::Copied(Box::new(courier.clone())), Some(courier))
        } else {
            (Device::Mapped(Box::new(plain)), None)
        };
        let pages = len.div_ceil(page_size());
        // SAFETY: a new mapping at an address the kernel chooses.
        let room = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                pages * page_size(),
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
        };
        let Contender { arena, costs, .. } = contender;
        let own = contender.lent.as_ref().map(|(lending, trust)| (lending, *trust, Own::new(pages)));
        let mirror = match &own {
            // SAFETY: pages that the machine has unmapped after the mirror is gone.
            Some((lending, trust, own)) => unsafe { lending.lend(own.0.clone(), *trust) }
                .map_err(io::Error::other)
                .and_then(|lent| Mirror::of_user_memory(arena, *costs, memory, lent)),
            None => Mirror::new(arena, *costs, memory, contents),
        };
        let is_defined = contents == Contents::Defined && own.is_none();
        let mut machine = Self {
            room: room.expect("address space for a few pages").cast(),
            placed: None,
            mirror: mirror.expect("memory for a few pages"),
            courier,
            device,
            _buffer: buffer,
            own: own.map(|(_, _, own)| own),
            bytes: vec![Byte::new(is_defined.then_some(GARBAGE)); len],
            shared: vec![is_defined; pages],
            written: vec![false; pages],
            is_exact: contender.is_exact,
        };
        if machine.own.is_some() {
            machine.host_writes(&(0..len), 0x11);
        }
        machine
    }

    /// Looks at it as it was created. Bytes that are brought in when they are touched are as of then, so all of them are
    /// touched before the device writes.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        self.judge("creation", &(0..usize::MAX), |byte, _, found| byte.after_flush(false, found))
    }

    pub(crate) fn perform(&mut self, operation: &Operation) -> Result<(), String> {
        match operation {
            Operation::HostWrite { range, value } => {
                self.host_writes(range, *value);
                Ok(())
            }
            Operation::DeviceWrite { range, value } => {
                self.device_writes(range, *value);
                Ok(())
            }
            Operation::Flush(range) => self.flush(range),
            Operation::Share(range) => self.share(range),
            Operation::Readback(range) => self.read_back(range),
            // Lent pages are where the application put them.
            Operation::Place(_) if self.own.is_some() => Ok(()),
            Operation::Place(range) => self.unplace().and_then(|()| self.place(range)),
            Operation::Unplace => self.unplace(),
            Operation::Dense { range, times } => (0..*times).try_for_each(|time| {
                for page in self.pages(range) {
                    let at = page * page_size() + usize::from(time);
                    self.host_writes(&(at..at + 1), time);
                }
                self.flush(&(0..usize::MAX))
            }),
        }
    }

    /// In the end all of it is synchronised: host and device agree but where both wrote.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.flush(&(0..usize::MAX))?;
        self.read_back(&(0..usize::MAX))
    }

    fn host_writes(&mut self, range: &Range<usize>, value: u8) {
        let mapped = self.placed.clone().unwrap_or(0..self.bytes.len());
        let range = range.start.clamp(mapped.start, mapped.end)..range.end.clamp(mapped.start, mapped.end);
        let view = if self.placed.is_some() { self.room } else { self.mirror.view() };
        // SAFETY: inside the view.
        unsafe { view.add(range.start).write_bytes(value, range.len()) };
        if range.is_empty() {
            return;
        }
        for page in self.pages(&range) {
            self.written[page] = true;
        }
        self.bytes[range].iter_mut().for_each(|byte| byte.host_writes(value));
    }

    fn device_writes(&mut self, range: &Range<usize>, value: u8) {
        for at in self.clip(range).filter(|at| self.shared[at / page_size()]) {
            // SAFETY: inside the device memory.
            unsafe { self.device.add(at).write(value) };
            self.bytes[at].device_writes(value);
        }
    }

    fn flush(&mut self, range: &Range<usize>) -> Result<(), String> {
        let traffic = self.mirror.flush(range.clone());
        let pages = self.pages(range);
        let written = self.written[pages.clone()].iter().filter(|is_written| **is_written).count() as u64;
        self.written[pages.clone()].fill(false);
        if self.is_exact && traffic.pages > written {
            return Err(format!("flush of {range:?}: {} pages, {written} written", traffic.pages));
        }
        self.judge("flush", range, |byte, page, found| byte.after_flush(pages.contains(&page), found))
    }

    fn share(&mut self, range: &Range<usize>) -> Result<(), String> {
        self.mirror.share(range.clone());
        let pages = self.pages(range);
        let shared = self.shared.clone();
        self.shared[pages.clone()].fill(true);
        self.judge("share", range, |byte, page, found| {
            byte.after_share(pages.contains(&page) && !shared[page], found)
        })
    }

    fn read_back(&mut self, range: &Range<usize>) -> Result<(), String> {
        self.mirror.readback(range.clone());
        let pages = self.pages(range);
        self.judge("readback", range, |byte, page, found| byte.after_readback(pages.contains(&page), found))
    }

    fn place(&mut self, range: &Range<usize>) -> Result<(), String> {
        let pages = self.pages(range);
        let range = pages.start * page_size()..(pages.end * page_size()).min(self.bytes.len());
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: the room's own addresses, of as many pages.
        unsafe { self.mirror.place(self.room.add(range.start), range.clone()) }
            .map_err(|error| format!("placing {range:?}: {error}"))?;
        self.placed = Some(range);
        Ok(())
    }

    /// The addresses stay the room's, or another thread might get them.
    fn unplace(&mut self) -> Result<(), String> {
        let was_placed =
            self.mirror.unplace(Leave::Reservation).map_err(|error| format!("unplacing: {error}"))?;
        let placed = self.placed.take();
        if was_placed != placed.is_some() {
            return Err(format!("{placed:?} was placed"));
        }
        Ok(())
    }

    /// Whether all bytes are what they may be after a `sync` of `range`.
    fn judge(
        &mut self,
        sync: &str,
        range: &Range<usize>,
        is_right: impl Fn(&mut Byte, usize, Found) -> bool,
    ) -> Result<(), String> {
        self.courier.iter().for_each(Courier::arrive);
        let len = self.bytes.len();
        let mut view = vec![0; len];
        let mut device = vec![0; len + BEHIND];
        // SAFETY: inside the view, and all of the buffer.
        unsafe {
            self.mirror.view().copy_to_nonoverlapping(view.as_mut_ptr(), len);
            // The same pages.
            if let Some(placed) = &self.placed {
                let seen = view.as_mut_ptr().add(placed.start);
                self.room.add(placed.start).copy_to_nonoverlapping(seen, placed.len());
            }
            self.device.copy_to_nonoverlapping(device.as_mut_ptr(), len + BEHIND);
        }
        for (at, byte) in self.bytes.iter_mut().enumerate() {
            let before = *byte;
            let found = (view[at], device[at]);
            if !is_right(byte, at / page_size(), found) {
                return Err(format!("{sync} of {range:?}: byte {at} was {before:?}, now {found:?}"));
            }
        }
        match device[len..].iter().all(|byte| *byte == GARBAGE) {
            true => Ok(()),
            false => Err(format!("{sync} of {range:?} wrote behind the device memory")),
        }
    }

    fn clip(&self, range: &Range<usize>) -> Range<usize> {
        let len = self.bytes.len();
        range.start.min(len)..range.end.min(len)
    }

    /// The pages that a range touches; an empty range may touch one.
    fn pages(&self, range: &Range<usize>) -> Range<usize> {
        let end = range.end.min(self.bytes.len()).div_ceil(page_size());
        (range.start / page_size()).min(end)..end
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.unplace();
        let len = self.bytes.len().next_multiple_of(page_size());
        // SAFETY: the room's own addresses, where nothing is placed any more.
        let _ = unsafe { rustix::mm::munmap(self.room.cast(), len) };
    }
}
