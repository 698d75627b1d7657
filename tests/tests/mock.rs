//! The mock backing driver: it shows each device's memory, keeps what is not coherent apart, and notices misuse.
//!
//! What plays on it does so in a child, this test program, told by an environment variable which part to play.

use ash::vk::{self, MemoryPropertyFlags as Flags};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use tidemark_tests::{Driver, Gpu, Outcome, Scratch, expect_failure, memory_types, program, run, vulkaninfo};

const LIMIT: Duration = Duration::from_secs(60);
const PART: &str = "TIDEMARK_TEST_MOCK";

/// Each shape's types: flags as vulkaninfo prints them, and heap.
const SHAPES: [(&str, &[(u32, u32)]); 7] = [
    ("pi", &[(0x7, 0)]),
    ("phone", &[(0x7, 0), (0xb, 0)]),
    ("discrete", &[(0x1, 0), (0x6, 1), (0xe, 1)]),
    ("card", &[(0x1, 0), (0x6, 1)]),
    ("hidden", &[(0x1, 0)]),
    ("incoherent", &[(0xb, 0)]),
    ("lavapipe", &[(0xf, 0)]),
];

#[test]
fn each_shape_shows_its_memory() {
    for (shape, types) in SHAPES {
        let outcome = vulkaninfo(&Driver::mock(shape));
        assert_eq!(memory_types(&outcome), types, "{shape}: {}", outcome.report());
        assert!(outcome.stdout.contains(&format!("= Tidemark mock ({shape})\n")), "{}", outcome.report());
        assert!(!outcome.stdout.contains("VK_EXT_external_memory_host"), "{}", outcome.report());
    }
}

#[test]
fn an_unknown_shape_is_one_clear_line() {
    for shape in ["", "toaster"] {
        let outcome = expect_failure(&mut Driver::mock(shape).command(program("vulkaninfo")), LIMIT);
        let line = format!("tidemark-mock: TIDEMARK_MOCK is \"{shape}\"; it must be one of pi, phone,");
        assert!(outcome.stderr.contains(&line), "{}", outcome.report());
    }
}

/// Plays a part on the driver.
fn play(driver: &Driver, part: &str) -> Outcome {
    let driver = driver.clone().with(PART, part);
    let mut child = driver.command(std::env::current_exe().expect("a test has a path"));
    run(child.args(["--exact", "part", "--nocapture"]), LIMIT)
}

#[track_caller]
fn expect(driver: &Driver, part: &str, said: &str) {
    let outcome = play(driver, part);
    assert!(outcome.status.success() && outcome.stdout.contains(said), "{}", outcome.report());
}

/// The negative control: without the application's own flush and invalidate, its bytes do not arrive.
#[test]
fn memory_that_is_not_coherent_is_joined_by_flush_and_invalidate_alone() {
    for shape in ["phone", "incoherent"] {
        let scratch = Scratch::new();
        let log = scratch.file("log");
        let driver = Driver::mock(shape).with("TIDEMARK_MOCK_LOG", &log);
        expect(&driver, "flush and invalidate", "arrived");
        expect(&driver, "flush", "lost");
        expect(&driver, "invalidate", "lost");
        let log = std::fs::read_to_string(log).expect("the mock wrote its log");
        let lines: Vec<&str> = log.lines().collect();
        let line =
            |flushed, invalidated| format!("{shape}: maps 2, flushed {flushed}, invalidated {invalidated}");
        assert_eq!(lines, [line(SIZE, SIZE), line(SIZE, 0), line(0, SIZE)]);
    }
}

#[test]
fn misuse_is_the_end() {
    for (part, said) in [
        ("misaligned flush", "the offset is no multiple of nonCoherentAtomSize"),
        ("short flush", "the end is neither a multiple of nonCoherentAtomSize nor that of the memory"),
        ("flush beyond", "not within what is mapped"),
        ("flush unmapped", "is flushed or invalidated, but not mapped"),
        ("map twice", "is mapped a second time"),
        ("unmap twice", "is unmapped, but not mapped"),
        ("free twice", "is freed, but no memory"),
    ] {
        expect_end(&play(&Driver::mock("phone"), part), said);
    }
    expect_end(&play(&Driver::mock("discrete"), "map what is hidden"), "is mapped, but not host-visible");
    expect(&Driver::mock("hidden"), "map what is hidden", "ERROR_MEMORY_MAP_FAILED");
}

#[track_caller]
fn expect_end(outcome: &Outcome, said: &str) {
    assert_eq!(outcome.status.signal(), Some(libc::SIGABRT), "{}", outcome.report());
    let line = outcome.stderr.lines().find(|line| line.starts_with("tidemark-mock: misuse: "));
    assert!(line.is_some_and(|line| line.contains(said)), "{}", outcome.report());
}

const SIZE: u64 = 4096;

#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let gpu = Gpu::new().expect("cannot make a device");
    match part.as_str() {
        "flush and invalidate" => round_trip(&gpu, true, true),
        "flush" => round_trip(&gpu, true, false),
        "invalidate" => round_trip(&gpu, false, true),
        misuse => break_a_rule(&gpu, misuse),
    }
}

/// A memory of `SIZE` bytes with a buffer in it.
fn allocate(gpu: &Gpu, wanted: Flags, unwanted: Flags) -> (vk::DeviceMemory, vk::Buffer) {
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let info = vk::BufferCreateInfo::default().size(SIZE).usage(usage);
    // SAFETY: a live device, and a type this buffer may use. Freed with the device, when the process ends.
    unsafe {
        let buffer = gpu.device.create_buffer(&info, None).expect("cannot create a buffer");
        let bits = gpu.device.get_buffer_memory_requirements(buffer).memory_type_bits;
        let memory_type = gpu.memory_type(bits, wanted, unwanted).expect("no such memory");
        let info = vk::MemoryAllocateInfo::default().allocation_size(SIZE).memory_type_index(memory_type);
        let memory = gpu.device.allocate_memory(&info, None).expect("cannot allocate");
        gpu.device.bind_buffer_memory(buffer, memory, 0).expect("cannot bind");
        (memory, buffer)
    }
}

fn map(gpu: &Gpu, memory: vk::DeviceMemory, offset: u64) -> Result<*mut u8, vk::Result> {
    // SAFETY: a live memory; the mock tells if it may not be mapped.
    let address =
        unsafe { gpu.device.map_memory(memory, offset, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()) };
    address.map(<*mut std::ffi::c_void>::cast)
}

/// The host writes, the device copies, the host reads; and says whether it read what it wrote.
fn round_trip(gpu: &Gpu, flushes: bool, invalidates: bool) {
    let [from, to] = [0; 2].map(|_| allocate(gpu, Flags::HOST_CACHED, Flags::HOST_COHERENT));
    let [source, target] = [from, to].map(|(memory, _)| map(gpu, memory, 0).expect("cannot map"));
    let range = |memory| [vk::MappedMemoryRange::default().memory(memory).offset(0).size(vk::WHOLE_SIZE)];
    let len = usize::try_from(SIZE).expect("a page is small");
    // SAFETY: live objects, used by this thread alone; accesses stay inside the mappings.
    let arrived = unsafe {
        std::ptr::write_bytes(source, 0x5a, len);
        if flushes {
            gpu.device.flush_mapped_memory_ranges(&range(from.0)).expect("cannot flush");
        }
        copy(gpu, from.1, to.1);
        if invalidates {
            gpu.device.invalidate_mapped_memory_ranges(&range(to.0)).expect("cannot invalidate");
        }
        (0..len).all(|at| target.add(at).read_volatile() == 0x5a)
    };
    println!("{}", if arrived { "arrived" } else { "lost" });
}

/// # Safety
/// Buffers of `SIZE` bytes.
unsafe fn copy(gpu: &Gpu, from: vk::Buffer, to: vk::Buffer) {
    let device = &gpu.device;
    let region = [vk::BufferCopy::default().size(SIZE)];
    // SAFETY: the caller's buffers, and objects that this makes and uses as the specification demands.
    let result = unsafe {
        let pool = device.create_command_pool(&vk::CommandPoolCreateInfo::default(), None).expect("no pool");
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        let commands = device.allocate_command_buffers(&info).expect("no command buffer");
        device.begin_command_buffer(commands[0], &vk::CommandBufferBeginInfo::default()).expect("no begin");
        device.cmd_copy_buffer(commands[0], from, to, &region);
        device.end_command_buffer(commands[0]).expect("no end");
        let submits = [vk::SubmitInfo::default().command_buffers(&commands)];
        device
            .queue_submit(gpu.queue, &submits, vk::Fence::null())
            .and_then(|()| device.queue_wait_idle(gpu.queue))
    };
    result.expect("the copy failed");
}

/// Breaks the rule of the mock's that `part` names.
fn break_a_rule(gpu: &Gpu, part: &str) {
    let device = &gpu.device;
    if part == "map what is hidden" {
        let (memory, _) = allocate(gpu, Flags::DEVICE_LOCAL, Flags::HOST_VISIBLE);
        println!("{:?}", map(gpu, memory, 0));
        return;
    }
    let (memory, _) = allocate(gpu, Flags::HOST_CACHED, Flags::HOST_COHERENT);
    let flush = |offset, size| {
        let range = [vk::MappedMemoryRange::default().memory(memory).offset(offset).size(size)];
        // SAFETY: a live memory; what is wrong is for the mock to tell.
        let result = unsafe { device.flush_mapped_memory_ranges(&range) };
        result.expect("cannot flush");
    };
    if part != "flush unmapped" {
        map(gpu, memory, 64).expect("cannot map");
    }
    match part {
        "misaligned flush" => flush(80, 64),
        "short flush" => flush(64, 63),
        "flush beyond" => flush(0, 64),
        "flush unmapped" => flush(64, 64),
        "map twice" => drop(map(gpu, memory, 0)),
        // SAFETY: what is wrong is for the mock to tell, here and below.
        "unmap twice" => unsafe {
            device.unmap_memory(memory);
            device.unmap_memory(memory);
        },
        // SAFETY: as above.
        "free twice" => unsafe {
            device.free_memory(memory, None);
            device.free_memory(memory, None);
        },
        unknown => panic!("there is no part \"{unknown}\""),
    }
}
