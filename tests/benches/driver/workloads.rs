//! The workloads. Each is set up once, then stepped as often as time allows; a step measures each of its workload's
//! figures once.

use crate::gpu::{Buffer, Failure, Gpu};
use crate::imports::Imports;
use crate::recording;
use ash::vk;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tidemark_tests::{PageKind, Pages};

/// One thing that is measured.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// Nanoseconds that Tidemark may add.
    pub(crate) target: Option<f64>,
}

/// A workload, to be set up by either driver.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) figures: &'static [Figure],
    pub(crate) open: fn() -> Result<Box<dyn Steps>, Failure>,
}

/// A workload that was set up.
pub(crate) trait Steps {
    /// Measures each figure once, in nanoseconds.
    fn step(&mut self) -> Result<Vec<f64>, Failure>;
}

const fn figure(name: &'static str) -> Figure {
    Figure { name, target: None }
}

const fn at_most(name: &'static str, target: f64) -> Figure {
    Figure { name, target: Some(target) }
}

/// Of a batch that is submitted and waited for: how long it takes, and how long the application's thread is in the two
/// calls if the batch is done before it waits. The second has no scheduling of the driver's threads in it.
const SMALL: &[Figure] = &[figure("submit to end of wait"), at_most("in the two calls", 2_000.0)];
const READBACK: &[Figure] =
    &[figure("submit to end of reading"), at_most("in the calls, and reading", 10_000.0)];
const UPLOAD: &[Figure] = &[figure("writes, submit, wait"), figure("writes alone"), figure("submit alone")];
const RECORDING: &[Figure] = &[figure("a call")];

/// All of them.
pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "vkQueueSubmit, nothing mapped",
        figures: &[at_most("an empty batch", 100.0), figure("no batch")],
        open: || Ok(Box::new(EmptySubmits { gpu: Gpu::new()? })),
    },
    Workload { name: "batch with a small buffer", figures: SMALL, open: || small(0, 0, false) },
    Workload { name: ".. 1,000 x 1 MiB idle", figures: SMALL, open: || small(1_000, 1 << 20, false) },
    Workload { name: ".. 10,000 x 64 KiB idle", figures: SMALL, open: || small(10_000, 64 << 10, false) },
    Workload { name: "batch, small buffer written", figures: SMALL, open: || small(0, 0, true) },
    Workload { name: ".. 10,000 x 64 KiB idle", figures: SMALL, open: || small(10_000, 64 << 10, true) },
    Workload { name: "readback, 4 KiB of 256 MiB", figures: READBACK, open: Readback::open },
    Workload { name: "upload, 64 MiB, 1 % of pages", figures: UPLOAD, open: || upload(100, 8) },
    Workload { name: "upload, 64 MiB, 10 %", figures: UPLOAD, open: || upload(10, 8) },
    Workload { name: "upload, 64 MiB, 100 %", figures: UPLOAD, open: || upload(1, 8) },
    Workload { name: "upload, 64 MiB, every byte", figures: UPLOAD, open: || upload(1, PAGE) },
    Workload { name: "imported, 64 MiB, 1 % of pages", figures: UPLOAD, open: || imported_upload(100, 8) },
    Workload { name: "imported, 64 MiB, 100 %", figures: UPLOAD, open: || imported_upload(1, 8) },
    Workload {
        name: "importing 16 MiB",
        figures: &[
            figure("first import"),
            figure("first submit"),
            figure("vkFreeMemory"),
            figure("later import"),
            figure("its submit, 1 page written"),
        ],
        open: Imports::open,
    },
    Workload {
        name: "vkCmdBindVertexBuffers, one buffer",
        figures: RECORDING,
        open: || recording::open(recording::Command::BindVertexBuffers, 1),
    },
    Workload {
        name: ".. 64 buffers in turn",
        figures: RECORDING,
        open: || recording::open(recording::Command::BindVertexBuffers, 64),
    },
    Workload {
        name: "vkCmdBindDescriptorSets, one set",
        figures: RECORDING,
        open: || recording::open(recording::Command::BindDescriptorSets, 1),
    },
    Workload {
        name: ".. 64 sets in turn",
        figures: RECORDING,
        open: || recording::open(recording::Command::BindDescriptorSets, 64),
    },
    Workload {
        name: "vkCmdCopyBuffer, one buffer",
        figures: RECORDING,
        open: || recording::open(recording::Command::CopyBuffer, 1),
    },
    Workload {
        name: ".. 64 buffers in turn",
        figures: RECORDING,
        open: || recording::open(recording::Command::CopyBuffer, 64),
    },
    Workload {
        name: "mapping 64 MiB",
        figures: &[figure("first vkMapMemory"), figure("vkUnmapMemory"), figure("later vkMapMemory")],
        open: || Ok(Box::new(Mapping { gpu: Gpu::new()? })),
    },
];

const PAGE: usize = 4096;

/// Nanoseconds that `work` takes.
pub(crate) fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e9)
}

/// Lets the driver's threads finish a small batch, without a call that says so.
fn let_it_finish() {
    const LONG_ENOUGH: Duration = Duration::from_micros(60);
    let start = Instant::now();
    while start.elapsed() < LONG_ENOUGH {
        std::hint::spin_loop();
    }
}

struct EmptySubmits {
    gpu: Rc<Gpu>,
}

impl Steps for EmptySubmits {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        const CALLS: u32 = 64;
        let per_call = |batches: &[vk::SubmitInfo<'_>]| {
            let time = timed(|| (0..CALLS).try_for_each(|_| self.gpu.submit(batches)))?;
            self.gpu.wait_idle()?;
            Ok::<_, Failure>(time / f64::from(CALLS))
        };
        Ok(vec![per_call(&[vk::SubmitInfo::default()])?, per_call(&[])?])
    }
}

/// A batch that copies from one small buffer, beside mapped memory that nobody uses.
struct Small {
    gpu: Rc<Gpu>,
    commands: vk::CommandBuffer,
    source: Buffer,
    is_written: bool,
    round: u64,
    _target: Buffer,
    _idle: Vec<Buffer>,
}

fn small(idle: usize, idle_size: usize, is_written: bool) -> Result<Box<dyn Steps>, Failure> {
    let gpu = Gpu::new()?;
    let idle: Vec<Buffer> =
        (0..idle).map(|_| Buffer::mapped(&gpu, idle_size)).collect::<Result<_, Failure>>()?;
    // Memory that was never written might be cheaper.
    idle.iter().for_each(|buffer| buffer.store(0, 1));
    let source = Buffer::mapped(&gpu, PAGE)?;
    source.store(0, 1);
    let target = Buffer::local(&gpu, PAGE)?;
    let regions = [vk::BufferCopy::default().size(64)];
    // SAFETY: live buffers that large.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer(commands, source.handle, target.handle, &regions);
    })?;
    Ok(Box::new(Small { gpu, commands, source, is_written, round: 0, _target: target, _idle: idle }))
}

impl Steps for Small {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        let mut write = || {
            self.round += 1;
            if self.is_written {
                self.source.store(0, self.round);
            }
        };
        let whole = timed(|| {
            write();
            self.gpu.start(self.commands)?;
            self.gpu.wait()
        })?;
        self.gpu.reset()?;
        let submit = timed(|| {
            write();
            self.gpu.start(self.commands)
        })?;
        let_it_finish();
        let wait = timed(|| self.gpu.wait())?;
        self.gpu.reset()?;
        Ok(vec![whole, submit + wait])
    }
}

/// A large buffer of which the device writes a page, now here, now there.
struct Readback {
    gpu: Rc<Gpu>,
    buffer: Buffer,
    /// Each fills one page: its offset and the word that it stores.
    fills: Vec<(vk::CommandBuffer, usize, u64)>,
    next: usize,
}

impl Readback {
    fn open() -> Result<Box<dyn Steps>, Failure> {
        const SIZE: usize = 256 << 20;
        const PLACES: usize = 64;
        let gpu = Gpu::new()?;
        let buffer = Buffer::mapped(&gpu, SIZE)?;
        let fill = |offset: usize, size: usize, value: u32| {
            // SAFETY: a range of the live buffer.
            gpu.record(|commands| unsafe {
                gpu.device.cmd_fill_buffer(commands, buffer.handle, offset as u64, size as u64, value);
            })
        };
        // As after long use: the device wrote all of it once.
        gpu.run(fill(0, SIZE, 1)?)?;
        let mut fills = Vec::new();
        for value in [2u32, 3] {
            for place in 0..PLACES {
                let offset = place * (SIZE / PLACES) + place * PAGE;
                fills.push((fill(offset, PAGE, value)?, offset, u64::from(value) << 32 | u64::from(value)));
            }
        }
        Ok(Box::new(Self { gpu, buffer, fills, next: 0 }))
    }

    fn next(&mut self) -> (vk::CommandBuffer, usize, u64) {
        self.next = (self.next + 1) % self.fills.len();
        self.fills[self.next]
    }

    fn read(&self, offset: usize, value: u64) -> Result<(), Failure> {
        match (offset..offset + PAGE).step_by(8).all(|at| self.buffer.load(at) == value) {
            true => Ok(()),
            false => Err(Failure(format!("the fill of the page at {offset} did not arrive"))),
        }
    }
}

impl Steps for Readback {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        let (commands, offset, value) = self.next();
        let whole = timed(|| {
            self.gpu.start(commands)?;
            self.gpu.wait()?;
            self.read(offset, value)
        })?;
        self.gpu.reset()?;
        let (commands, offset, value) = self.next();
        let submit = timed(|| self.gpu.start(commands))?;
        let_it_finish();
        let wait = timed(|| {
            self.gpu.wait()?;
            self.read(offset, value)
        })?;
        self.gpu.reset()?;
        Ok(vec![whole, submit + wait])
    }
}

/// A large buffer of which the host writes some pages before each batch.
struct Upload {
    gpu: Rc<Gpu>,
    buffer: Buffer,
    /// Refers to all of the buffer and does nothing: what the device does with it is not our concern.
    commands: vk::CommandBuffer,
    /// Every page, in no order.
    pages: Vec<usize>,
    next: usize,
    one_in: usize,
    bytes: usize,
    round: u64,
}

/// Bytes of the buffer that is uploaded.
const UPLOADED: usize = 64 << 20;

/// One in `one_in` pages is written, `bytes` of each.
fn upload(one_in: usize, bytes: usize) -> Result<Box<dyn Steps>, Failure> {
    let gpu = Gpu::new()?;
    let buffer = Buffer::mapped(&gpu, UPLOADED)?;
    upload_of(gpu, buffer, one_in, bytes)
}

/// The same, of pages that are imported.
fn imported_upload(one_in: usize, bytes: usize) -> Result<Box<dyn Steps>, Failure> {
    let gpu = Gpu::new()?;
    let pages = Rc::new(Pages::new(PageKind::Anonymous, UPLOADED)?);
    let buffer = Buffer::imported(&gpu, &pages)?;
    upload_of(gpu, buffer, one_in, bytes)
}

fn upload_of(gpu: Rc<Gpu>, buffer: Buffer, one_in: usize, bytes: usize) -> Result<Box<dyn Steps>, Failure> {
    // SAFETY: a live buffer.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_bind_vertex_buffers(commands, 0, &[buffer.handle], &[0]);
    })?;
    let mut pages: Vec<usize> = (0..UPLOADED / PAGE).collect();
    if one_in > 1 {
        shuffle(&mut pages);
    }
    // As after long use: the host wrote all of it once.
    pages.iter().for_each(|page| buffer.store(page * PAGE, 1));
    gpu.run(commands)?;
    Ok(Box::new(Upload { gpu, buffer, commands, pages, next: 0, one_in, bytes, round: 1 }))
}

/// The same order each time (xorshift).
fn shuffle(pages: &mut [usize]) {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for last in (1..pages.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pages.swap(last, usize::try_from(state % (last as u64 + 1)).unwrap_or(0));
    }
}

impl Steps for Upload {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        self.round += 1;
        let count = self.pages.len() / self.one_in;
        let writes = timed(|| {
            for index in 0..count {
                let page = self.pages[(self.next + index) % self.pages.len()];
                for at in (0..self.bytes).step_by(8) {
                    self.buffer.store(page * PAGE + at, self.round);
                }
            }
            Ok(())
        })?;
        self.next = (self.next + count) % self.pages.len();
        let submit = timed(|| self.gpu.start(self.commands))?;
        let wait = timed(|| self.gpu.wait())?;
        self.gpu.reset()?;
        Ok(vec![writes + submit + wait, writes, submit])
    }
}

struct Mapping {
    gpu: Rc<Gpu>,
}

impl Steps for Mapping {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        let device = &self.gpu.device;
        let memory = self.gpu.allocate(64 << 20)?;
        // SAFETY: host-visible memory, mapped and unmapped in turn.
        let map = || unsafe {
            device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
            Ok(())
        };
        // SAFETY: as above.
        let unmap = || unsafe {
            device.unmap_memory(memory);
            Ok(())
        };
        let times = vec![timed(map)?, timed(unmap)?, timed(map)?];
        // SAFETY: nothing uses it.
        unsafe { device.free_memory(memory, None) };
        Ok(times)
    }
}
