//! The sub-allocators that many applications use, unmodified: hundreds of buffers in a few blocks of memory.
//!
//! With gpu-allocator, the application is a child process of this test: the driver that it sees is chosen by its environment.
//! With the Vulkan Memory Allocator it is the program below tests/vma.

use ash::vk;
use gpu_allocator::MemoryLocation::{self, CpuToGpu, GpuToCpu};
use gpu_allocator::vulkan::{
    Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Gpu, binary, expect_success, run};

const PART: &str = "TIDEMARK_TEST_SUBALLOCATION";
const LIMIT: Duration = Duration::from_secs(120);

/// Pairs of buffers, of which one is copied to the other. No size is that of a page, so that most pages are shared.
const PAIRS: usize = 300;
const ROUNDS: u8 = 4;

fn application(driver: &Driver) -> Command {
    let mut command = driver.command(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", "play", "--nocapture"]).env(PART, "application");
    command
}

/// Builds tests/vma, which is no part of this workspace.
fn vma() -> PathBuf {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/vma");
    let program = binary("coherency-checks");
    let target = program.ancestors().nth(2).expect("programs are below target/debug").join("vma");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--target-dir"]).arg(&target).current_dir(package);
    expect_success(&mut build, Duration::from_secs(600));
    target.join("debug/tidemark-vma")
}

#[track_caller]
fn expect_every_byte(application: impl Fn(&Driver) -> Command) {
    let readbacks = ["eager", "lazy"].map(|way| Driver::tidemark().with("TIDEMARK_READBACK", way));
    for driver in [Driver::lavapipe()].iter().chain(&readbacks) {
        let outcome = expect_success(&mut application(driver), LIMIT);
        assert!(outcome.stdout.contains("every byte arrived"), "{}", outcome.report());
    }
}

/// The negative control.
#[track_caller]
fn expect_missing_bytes(application: impl Fn(&Driver) -> Command) {
    for debug in ["noflush", "noreadback"] {
        let outcome = run(&mut application(&Driver::tidemark().with("TIDEMARK_DEBUG", debug)), LIMIT);
        assert!(!outcome.status.success(), "{debug}: {}", outcome.report());
        assert!(outcome.report().contains("in round 1, byte "), "{debug}: {}", outcome.report());
    }
}

#[test]
fn gpu_allocator_works() {
    expect_every_byte(application);
    expect_missing_bytes(application);
}

#[test]
fn the_vulkan_memory_allocator_works() {
    let program = vma();
    expect_every_byte(|driver| driver.command(&program));
    expect_missing_bytes(|driver| driver.command(&program));
}

/// A buffer, its part of a block, and its size in bytes.
struct Buffer {
    buffer: vk::Buffer,
    allocation: Allocation,
    size: usize,
}

impl Buffer {
    fn new(gpu: &Gpu, allocator: &mut Allocator, size: usize, location: MemoryLocation) -> Self {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(size as u64).usage(usage);
        // SAFETY: a live device, which outlives the buffer; the part that was allocated is as the buffer needs it.
        unsafe {
            let buffer = gpu.device.create_buffer(&info, None).expect("cannot create a buffer");
            let desc = AllocationCreateDesc {
                name: "buffer",
                requirements: gpu.device.get_buffer_memory_requirements(buffer),
                location,
                linear: true,
                allocation_scheme: AllocationScheme::GpuAllocatorManaged,
            };
            let allocation = allocator.allocate(&desc).expect("cannot allocate");
            let (memory, offset) = (allocation.memory(), allocation.offset());
            gpu.device.bind_buffer_memory(buffer, memory, offset).expect("cannot bind");
            Self { buffer, allocation, size }
        }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.size);
        let start = self.allocation.mapped_ptr().expect("such memory is mapped").cast::<u8>();
        start.as_ptr().wrapping_add(offset)
    }
}

/// What the buffer at `index` has at `offset` in a round: never zero, which is what it has at first.
fn pattern(index: usize, offset: usize, round: u8) -> u8 {
    (index * 31 + offset * 7 + usize::from(round) * 101) as u8 | 1
}

/// The rounds in which a pair of buffers is written: the first ones all, then every third.
fn is_written(index: usize, round: u8) -> bool {
    round <= 2 || index % 3 == usize::from(round) % 3
}

#[test]
fn play() {
    if std::env::var_os(PART).is_none() {
        return;
    }
    let gpu = Gpu::new().expect("cannot make a device");
    let mut allocator = Allocator::new(&AllocatorCreateDesc {
        instance: gpu.instance.clone(),
        device: gpu.device.clone(),
        physical_device: gpu.physical,
        debug_settings: gpu_allocator::AllocatorDebugSettings::default(),
        buffer_device_address: false,
        allocation_sizes: gpu_allocator::AllocationSizes::default(),
    })
    .expect("cannot make an allocator");
    let size = |index: usize| 52 + index * 5 % 1500;
    let mut make = |location| -> Vec<Buffer> {
        (0..PAIRS).map(|index| Buffer::new(&gpu, &mut allocator, size(index), location)).collect()
    };
    let (from, to) = (make(CpuToGpu), make(GpuToCpu));
    // SAFETY: live allocations.
    let blocks: BTreeSet<_> = from.iter().chain(&to).map(|one| unsafe { one.allocation.memory() }).collect();
    assert!(blocks.len() <= 2, "{} blocks", blocks.len());
    // SAFETY: live objects, which this thread alone uses; the offsets lie inside the buffers.
    unsafe {
        let commands = record(&gpu, &from, &to);
        let mut expected: Vec<Vec<u8>> = to.iter().map(|buffer| vec![0; buffer.size]).collect();
        for round in 1..=ROUNDS {
            for (index, buffer) in from.iter().enumerate().filter(|(index, _)| is_written(*index, round)) {
                for (offset, byte) in expected[index].iter_mut().enumerate() {
                    *byte = pattern(index, offset, round);
                    buffer.at(offset).write_volatile(*byte);
                }
            }
            let fence = gpu.fence().expect("cannot create a fence");
            let commands = [commands];
            let submits = [vk::SubmitInfo::default().command_buffers(&commands)];
            gpu.device.queue_submit(gpu.queue, &submits, fence).expect("cannot submit");
            gpu.device.wait_for_fences(&[fence], true, u64::MAX).expect("cannot wait");
            gpu.device.destroy_fence(fence, None);
            for (index, buffer) in to.iter().enumerate() {
                for (offset, &byte) in expected[index].iter().enumerate() {
                    let seen = buffer.at(offset).read_volatile();
                    assert!(
                        seen == byte,
                        "in round {round}, byte {offset} of buffer {index} is {seen}, not {byte}"
                    );
                }
            }
        }
        for buffer in from.into_iter().chain(to) {
            gpu.device.destroy_buffer(buffer.buffer, None);
            allocator.free(buffer.allocation).expect("cannot free");
        }
    }
    drop(allocator);
    println!("every byte arrived");
}

/// A command buffer that copies each of `from` to that of `to`. Its pool goes with the process.
///
/// # Safety
/// The buffers must be the device's.
unsafe fn record(gpu: &Gpu, from: &[Buffer], to: &[Buffer]) -> vk::CommandBuffer {
    // SAFETY: fresh objects, and as many buffers of the same sizes.
    unsafe {
        let pool = gpu.device.create_command_pool(&vk::CommandPoolCreateInfo::default(), None);
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool.expect("cannot create a pool"))
            .command_buffer_count(1);
        let commands = gpu.device.allocate_command_buffers(&info).expect("cannot allocate commands")[0];
        gpu.device
            .begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())
            .expect("cannot begin");
        for (from, to) in from.iter().zip(to) {
            let regions = [vk::BufferCopy::default().size(from.size as u64)];
            gpu.device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions);
        }
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)];
        let (transfer, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        gpu.device.cmd_pipeline_barrier(
            commands,
            transfer,
            host,
            vk::DependencyFlags::empty(),
            &barrier,
            &[],
            &[],
        );
        gpu.device.end_command_buffer(commands).expect("cannot end");
        commands
    }
}
