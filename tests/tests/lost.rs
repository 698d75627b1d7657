//! A device that is lost: whatever Tidemark is about then ends, nobody waits for ever, and the application is told.
//!
//! The mock loses it at each submission in turn, Tidemark's own included, until the program gets by. A child, this test
//! program, plays it.

use ash::vk;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_tests::{Driver, Gpu, Scratch, expect_success};

const PART: &str = "TIDEMARK_TEST_LOST";
const LIMIT: Duration = Duration::from_secs(60);
const SIZE: u64 = 20_000;
const FOR_EVER: u64 = u64::MAX;

#[test]
fn nobody_waits_for_a_lost_device_where_copies_are_the_cpu_s() {
    lose_at_each_submission("aperture");
}

#[test]
fn nobody_waits_for_a_lost_device_where_copies_are_its_own() {
    lose_at_each_submission("staged");
}

#[track_caller]
fn lose_at_each_submission(engine: &str) {
    for lost_at in ["submit", "wait"] {
        let first_whole = (1..100).find(|number| !is_lost(engine, &format!("{lost_at}:{number}")));
        let losses = first_whole.expect("the program submits for ever") - 1;
        // As many as it submits itself, with what goes on its own for one that is exported.
        assert!(losses >= 5, "lost at {losses} submissions alone, by {engine}, {lost_at}");
    }
}

/// Plays the program, on a device that is lost then. Returns whether it got to know.
#[track_caller]
fn is_lost(engine: &str, when: &str) -> bool {
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let mock = Driver::mock("lavapipe")
        .with("TIDEMARK_MOCK_EXTENSIONS", "VK_KHR_external_semaphore_fd")
        .with("TIDEMARK_MOCK_LOSE", when)
        .with("TIDEMARK_MOCK_LOG", &log);
    let driver = Driver::tidemark_over(&mock)
        .with("TIDEMARK_TRANSFER", engine)
        .with("TIDEMARK_LOG", "debug")
        .with(PART, "");
    let mut child = driver.command(std::env::current_exe().expect("a test has a path"));
    let outcome = expect_success(child.args(["--exact", "part", "--nocapture"]), LIMIT);
    let what = format!("{engine}, {when}: {}", outcome.report());
    assert!(!outcome.stderr.contains("not destroyed before"), "{what}");
    let log = std::fs::read_to_string(log).expect("the mock wrote its log");
    assert!(!log.contains("left"), "{log}\n{what}");
    let is_lost = outcome.stdout.contains("the device is lost");
    assert!(is_lost || outcome.stdout.contains("the device is there"), "{what}");
    is_lost
}

#[test]
fn part() {
    if std::env::var_os(PART).is_none() {
        return;
    }
    let gpu = Gpu::new().expect("a device");
    let told = Told::default();
    Program::new(&gpu).play(&told);
    println!("the device is {}", if told.is_lost() { "lost" } else { "there" });
}

/// Whether the program was told that the device is lost.
#[derive(Default)]
struct Told(AtomicBool);

impl Told {
    /// The value, unless the device is lost. Nothing else may go wrong.
    #[track_caller]
    fn by<T>(&self, result: Result<T, vk::Result>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(vk::Result::ERROR_DEVICE_LOST) => {
                self.0.store(true, Ordering::Relaxed);
                None
            }
            Err(error) => panic!("a Vulkan call returned {error}"),
        }
    }

    fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Coherent memory, and a buffer that is all of it.
struct Buffer<'a> {
    gpu: &'a Gpu,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
}

impl<'a> Buffer<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(SIZE).usage(usage);
        // SAFETY: a live device, a type that the buffer may use; what is made is destroyed in `drop`.
        unsafe {
            let buffer = gpu.device.create_buffer(&info, None).expect("a buffer");
            let requirements = gpu.device.get_buffer_memory_requirements(buffer);
            let info =
                vk::MemoryAllocateInfo::default().allocation_size(requirements.size).memory_type_index(
                    gpu.coherent_type(requirements.memory_type_bits).expect("coherent memory"),
                );
            let memory = gpu.device.allocate_memory(&info, None).expect("memory");
            gpu.device.bind_buffer_memory(buffer, memory, 0).expect("memory that is bound");
            Self { gpu, buffer, memory }
        }
    }

    fn map(&self) -> Mapped {
        let (flags, len) = (vk::MemoryMapFlags::empty(), usize::try_from(SIZE).expect("it is small"));
        // SAFETY: host-visible memory, which is mapped once, until it is freed.
        let address = unsafe { self.gpu.device.map_memory(self.memory, 0, vk::WHOLE_SIZE, flags) };
        Mapped { address: address.expect("a mapping").cast(), len }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: nothing is pending. Freeing memory also unmaps it.
        unsafe {
            self.gpu.device.destroy_buffer(self.buffer, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

/// The bytes of a buffer that is mapped.
struct Mapped {
    address: *mut u8,
    len: usize,
}

impl Mapped {
    fn fill(&self, value: u8) {
        // SAFETY: within the mapping; volatile, as the device may read it at any time.
        (0..self.len).for_each(|offset| unsafe { self.address.add(offset).write_volatile(value) });
    }

    #[track_caller]
    fn expect(&self, value: u8) {
        // SAFETY: as above.
        let wrong =
            (0..self.len).find(|offset| unsafe { self.address.add(*offset).read_volatile() } != value);
        assert_eq!(wrong, None, "the first byte that is not {value}");
    }
}

/// What the program has of the device, beside memory.
struct Program<'a> {
    gpu: &'a Gpu,
    pool: vk::CommandPool,
    fences: [vk::Fence; 3],
    gate: vk::Semaphore,
    done: vk::Semaphore,
    exported: vk::Semaphore,
}

/// What is waited for, or signalled, with the value of a timeline.
type Payload = (vk::Semaphore, u64);

impl<'a> Program<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let pool = vk::CommandPoolCreateInfo::default();
        let handle_types = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
        let mut export = vk::ExportSemaphoreCreateInfo::default().handle_types(handle_types);
        let exported = vk::SemaphoreCreateInfo::default().push_next(&mut export);
        // SAFETY: a live device; what is made is destroyed in `drop`.
        unsafe {
            Self {
                gpu,
                pool: gpu.device.create_command_pool(&pool, None).expect("a pool"),
                fences: [(); 3].map(|()| gpu.fence().expect("a fence")),
                gate: gpu.timeline().expect("a timeline"),
                done: gpu.timeline().expect("a timeline"),
                exported: gpu.device.create_semaphore(&exported, None).expect("a semaphore"),
            }
        }
    }

    fn copy(&self, from: &Buffer<'_>, to: &Buffer<'_>) -> vk::CommandBuffer {
        let device = &self.gpu.device;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        let regions = [vk::BufferCopy::default().size(SIZE)];
        // SAFETY: a pool that one thread uses, and live buffers.
        unsafe {
            let commands = device.allocate_command_buffers(&info).expect("a command buffer")[0];
            device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default()).expect("it begins");
            device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions);
            device.end_command_buffer(commands).expect("it ends");
            commands
        }
    }

    fn submit(
        &self,
        commands: vk::CommandBuffer,
        waits: &[Payload],
        signals: &[Payload],
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let infos = |payloads: &[Payload]| -> Vec<vk::SemaphoreSubmitInfo<'static>> {
            let info = |&(semaphore, value)| {
                vk::SemaphoreSubmitInfo::default()
                    .semaphore(semaphore)
                    .value(value)
                    .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
            };
            payloads.iter().map(info).collect()
        };
        let (waits, signals) = (infos(waits), infos(signals));
        let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
        let submit = vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&commands)
            .signal_semaphore_infos(&signals);
        // SAFETY: live objects, and a queue that one thread uses.
        unsafe { self.gpu.device.queue_submit2(self.gpu.queue, &[submit], fence) }
    }

    fn wait(&self, fence: vk::Fence) -> Result<(), vk::Result> {
        // SAFETY: a live fence.
        unsafe { self.gpu.device.wait_for_fences(&[fence], true, FOR_EVER) }
    }

    /// Goes on after every loss, as an application may that looks at no result. Whatever is done without one has its bytes.
    fn play(&self, told: &Told) {
        let buffers = [(); 4].map(|()| Buffer::new(self.gpu));
        let [from, to, late, last] = &buffers;
        let (source, target) = (from.map(), to.map());
        let [plain, held, in_flight] = self.fences;

        source.fill(1);
        if told.by(self.submit(self.copy(from, to), &[], &[], plain)).is_some()
            && told.by(self.wait(plain)).is_some()
        {
            target.expect(1);
        }

        if told.by(self.submit(self.copy(from, to), &[(self.gate, 1)], &[(self.done, 1)], held)).is_some() {
            let (device, done) = (&self.gpu.device, self.done);
            // SAFETY: a live fence.
            let by_fence = || unsafe { device.wait_for_fences(&[held], true, FOR_EVER) };
            let by_timeline = || {
                let (semaphores, values) = ([done], [1]);
                let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
                // SAFETY: a live timeline.
                unsafe { device.wait_semaphores(&info, FOR_EVER) }
            };
            source.fill(2);
            let (by_fence, by_timeline) = std::thread::scope(|scope| {
                let waits = (scope.spawn(by_fence), scope.spawn(by_timeline));
                let info = vk::SemaphoreSignalInfo::default().semaphore(self.gate).value(1);
                // SAFETY: a live timeline, at 0.
                told.by(unsafe { device.signal_semaphore(&info) });
                (waits.0.join().expect("no panic"), waits.1.join().expect("no panic"))
            });
            if told.by(by_fence).and(told.by(by_timeline)).is_some() {
                target.expect(2);
            }
        }

        source.fill(3);
        if told.by(self.submit(self.copy(from, late), &[], &[], in_flight)).is_some() {
            let late = late.map();
            if told.by(self.wait(in_flight)).is_some() {
                late.expect(3);
            }
        }

        let exporting = ash::khr::external_semaphore_fd::Device::new(&self.gpu.instance, &self.gpu.device);
        let info = vk::SemaphoreGetFdInfoKHR::default()
            .semaphore(self.exported)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD);
        let target = last.map();
        let exported = [(self.exported, 0)];
        // SAFETY: a semaphore that can be exported so, with a signal to come.
        let export = || told.by(unsafe { exporting.get_semaphore_fd(&info) });
        if told.by(self.submit(self.copy(from, last), &[], &exported, vk::Fence::null())).is_some()
            && let Some(file) = export()
        {
            wait_for_file(file);
            target.expect(3);
        }

        // SAFETY: live objects; no other thread is there.
        unsafe {
            let device = &self.gpu.device;
            told.by(device.queue_wait_idle(self.gpu.queue));
            told.by(device.get_semaphore_counter_value(self.done));
            for fence in self.fences {
                told.by(device.get_fence_status(fence));
            }
            let idle = told.by(device.device_wait_idle());
            assert_eq!(idle.is_none(), told.is_lost(), "a device is lost for good");
        }
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        let device = &self.gpu.device;
        // SAFETY: nothing is pending.
        unsafe {
            self.fences.iter().for_each(|fence| device.destroy_fence(*fence, None));
            for semaphore in [self.gate, self.done, self.exported] {
                device.destroy_semaphore(semaphore, None);
            }
            device.destroy_command_pool(self.pool, None);
        }
    }
}

/// Waits for a sync file, of which -1 stands for one that is signalled.
fn wait_for_file(file: i32) {
    if file != -1 {
        // SAFETY: the command handed it over.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid structure.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1, "poll");
    }
}
