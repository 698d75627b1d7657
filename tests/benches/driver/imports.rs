//! Pages of the application's that are imported, used and freed, against a driver that gives them to its device as they are.
//!
//! What counts is what the registration cache saves: on a two-core virtual machine, 16 MiB took 1.1 ms to import and 11 ms to
//! submit the first time, 0.09 ms and 0.06 ms the next time, with one page written in between.

use crate::gpu::{Buffer, Failure, Gpu};
use crate::workloads::{Steps, timed};
use std::rc::Rc;
use tidemark_tests::{PageKind, Pages};

/// Bytes.
const SIZE: usize = 16 << 20;

/// The same pages are imported time and again. Each time a batch reads all of them, and the host writes one.
pub(crate) struct Imports {
    gpu: Rc<Gpu>,
    target: Buffer,
}

impl Imports {
    pub(crate) fn open() -> Result<Box<dyn Steps>, Failure> {
        let gpu = Gpu::new()?;
        let target = Buffer::local(&gpu, SIZE)?;
        Ok(Box::new(Self { gpu, target }))
    }

    /// How long it takes to import the pages, to submit a batch that reads them, and to free the import.
    fn use_once(&self, pages: &Rc<Pages>) -> Result<[f64; 3], Failure> {
        let mut buffer = None;
        let import = timed(|| {
            buffer = Some(Buffer::imported(&self.gpu, pages)?);
            Ok(())
        })?;
        let Some(buffer) = buffer else { return Err(Failure("no buffer".into())) };
        let region = [ash::vk::BufferCopy::default().size(SIZE as u64)];
        // SAFETY: live buffers that large.
        let commands = self.gpu.record(|commands| unsafe {
            self.gpu.device.cmd_copy_buffer(commands, buffer.handle, self.target.handle, &region);
        })?;
        let submit = timed(|| self.gpu.start(commands))?;
        self.gpu.wait()?;
        self.gpu.reset()?;
        self.gpu.free(commands);
        let free = timed(|| {
            drop(buffer);
            Ok(())
        })?;
        Ok([import, submit, free])
    }
}

impl Steps for Imports {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        let pages = Rc::new(Pages::new(PageKind::Anonymous, SIZE)?);
        // SAFETY: all of the pages, which nobody else has yet.
        unsafe { pages.start().write_bytes(1, pages.len()) };
        let [import, submit, free] = self.use_once(&pages)?;
        // SAFETY: inside the pages.
        unsafe { pages.start().write_volatile(2) };
        let [again, submit_again, _] = self.use_once(&pages)?;
        Ok(vec![import, submit, free, again, submit_again])
    }
}
