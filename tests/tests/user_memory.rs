//! What applications may not do with imported pages while they are imported, and what Tidemark makes of it: never a crash,
//! and nothing of what came in their place.
//!
//! Each part is played by a child, this test program, told by an environment variable which. Trusted blindly, the same
//! parts come to a bad end.

use ash::vk::{self, ExternalMemoryHandleTypeFlags as HandleTypes};
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::time::Duration;
use tidemark_tests::{Driver, Gpu, Outcome, run};

const LIMIT: Duration = Duration::from_secs(60);
const PART: &str = "TIDEMARK_TEST_USER_MEMORY";

const PAGE: usize = 4096;
const PAGES: usize = 8;
const SIZE: usize = PAGES * PAGE;
const WRITABLE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn play(driver: &Driver, part: &str) -> Outcome {
    let mut child =
        driver.clone().with(PART, part).command(std::env::current_exe().expect("a test has a path"));
    run(child.args(["--exact", "part", "--nocapture"]), LIMIT)
}

fn drivers() -> Vec<Driver> {
    let over =
        |shape: &str, mode: &str| Driver::tidemark_over(&Driver::mock(shape)).with("TIDEMARK_MODE", mode);
    vec![Driver::tidemark(), over("phone", "auto"), over("incoherent", "always")]
}

/// What recognises pages by the kernel's list of mappings alone, which does not tell private memory from other private memory.
fn by_list() -> Driver {
    Driver::tidemark().with("TIDEMARK_TRACKER", "compare")
}

/// Plays a part on several drivers, and says what each had to say of it.
#[track_caller]
fn expect(part: &str, said: &str) {
    for driver in drivers().into_iter().chain((!part.starts_with("map over")).then(by_list)) {
        let outcome = play(&driver, part);
        let is_right = outcome.status.success()
            && outcome.stdout.contains("played the part")
            && (said.is_empty() == outcome.stderr.is_empty() && outcome.stderr.contains(said))
            // Once.
            && (said.is_empty() || outcome.stderr.matches(said).count() == 1);
        assert!(is_right, "{driver:?}: {}", outcome.report());
    }
}

#[test]
fn unmapped_pages_are_lost() {
    expect("unmap", "is lost: part of it was unmapped");
}

#[test]
fn pages_that_something_else_was_mapped_over_are_lost() {
    expect("map over", "is lost: something else was mapped in its place");
}

#[test]
fn moved_pages_are_lost() {
    expect("move", "is lost: part of it was unmapped");
}

#[test]
fn pages_that_are_lost_before_a_readback_stay_untouched() {
    expect("map over and read back", "is lost: something else was mapped in its place");
}

#[test]
fn pages_that_cannot_be_written_get_the_device_s_bytes_later() {
    expect("protect", "cannot be written at present");
}

#[test]
fn what_cannot_be_imported_is_refused_with_a_reason() {
    for (part, said) in [
        ("misaligned address", "must be multiples of minImportedHostPointerAlignment, 4096"),
        ("misaligned size", "must be multiples of minImportedHostPointerAlignment, 4096"),
        ("a hole", "part of it is not mapped"),
        ("no access", "part of it cannot be read"),
        ("a mapping of Tidemark's", "part of it is memory that vkMapMemory returned"),
        ("another type", "is none that vkGetMemoryHostPointerPropertiesEXT returned"),
    ] {
        expect(part, said);
    }
}

/// The negative control: nobody looks, so what came in the place of the pages is read, and a hole is the end.
#[test]
fn trusted_blindly_an_application_must_keep_its_pages() {
    let driver = Driver::tidemark().with("TIDEMARK_USERPTR", "unsynchronised");
    let outcome = play(&driver, "unmap");
    assert_eq!(outcome.status.signal(), Some(libc::SIGSEGV), "{}", outcome.report());
    for part in ["map over", "map over and read back"] {
        let outcome = play(&driver, part);
        assert!(outcome.stdout.contains("somebody else's"), "{part}: {}", outcome.report());
    }
    let outcome = play(&driver, "keep");
    assert!(outcome.stdout.contains("played the part") && outcome.stderr.is_empty(), "{}", outcome.report());
}

#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let gpu = Gpu::new().expect("cannot make a device");
    assert!(gpu.has(ash::ext::external_memory_host::NAME));
    let bench = Bench::new(gpu);
    match part.as_str() {
        "unmap" | "map over" | "map over and read back" | "move" | "protect" | "keep" => bench.lose(&part),
        refused => bench.refuse(refused),
    }
    println!("played the part");
}

/// Pages, full of 1, and a buffer beside them.
struct Bench {
    gpu: Gpu,
    pages: *mut u8,
    other: vk::Buffer,
    view: *mut u8,
}

impl Bench {
    fn new(gpu: Gpu) -> Self {
        let pages = map(ptr::null_mut(), SIZE, 1);
        let other = buffer(&gpu);
        // SAFETY: a live buffer, and memory it may use. All of it goes with the process.
        let view = unsafe {
            let requirements = gpu.device.get_buffer_memory_requirements(other);
            let info =
                vk::MemoryAllocateInfo::default().allocation_size(requirements.size).memory_type_index(
                    gpu.coherent_type(requirements.memory_type_bits).expect("coherent memory"),
                );
            let memory = gpu.device.allocate_memory(&info, None).expect("memory");
            gpu.device.bind_buffer_memory(other, memory, 0).expect("bound");
            gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()).expect("mapped")
        };
        Self { gpu, pages, other, view: view.cast() }
    }

    fn import(
        &self,
        address: *mut u8,
        size: usize,
        memory_type: u32,
    ) -> Result<vk::DeviceMemory, vk::Result> {
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(HandleTypes::HOST_ALLOCATION_EXT)
            .host_pointer(address.cast());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(size as u64)
            .memory_type_index(memory_type)
            .push_next(&mut import);
        // SAFETY: what is wrong with it is for the driver to tell.
        unsafe { self.gpu.device.allocate_memory(&info, None) }
    }

    fn importable_type(&self) -> u32 {
        let host = ash::ext::external_memory_host::Device::new(&self.gpu.instance, &self.gpu.device);
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let (device, kind) = (self.gpu.device.handle(), HandleTypes::HOST_ALLOCATION_EXT);
        let get = host.fp().get_memory_host_pointer_properties_ext;
        // SAFETY: live pages.
        unsafe { get(device, kind, self.pages.cast(), &raw mut properties) }.result().expect("properties");
        self.gpu.coherent_type(properties.memory_type_bits).expect("a coherent type")
    }

    /// The device copies, and the host waits.
    fn copy(&self, from: vk::Buffer, to: vk::Buffer) {
        let device = &self.gpu.device;
        let region = [vk::BufferCopy::default().size(SIZE as u64)];
        // SAFETY: live buffers of that size, and objects that this makes and uses as the specification demands.
        let result = unsafe {
            let info = vk::CommandPoolCreateInfo::default();
            let pool = device.create_command_pool(&info, None).expect("a pool");
            let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            let commands = device.allocate_command_buffers(&info).expect("a command buffer");
            device.begin_command_buffer(commands[0], &Default::default()).expect("begun");
            device.cmd_copy_buffer(commands[0], from, to, &region);
            device.end_command_buffer(commands[0]).expect("ended");
            let submits = [vk::SubmitInfo::default().command_buffers(&commands)];
            device
                .queue_submit(self.gpu.queue, &submits, vk::Fence::null())
                .and_then(|()| device.queue_wait_idle(self.gpu.queue))
        };
        result.expect("the copy failed");
    }

    /// Imports the pages, and then does with them what must not be done.
    fn lose(&self, part: &str) {
        let imported = buffer(&self.gpu);
        let memory = self.import(self.pages, SIZE, self.importable_type()).expect("imported");
        // SAFETY: live objects, not bound before.
        unsafe { self.gpu.device.bind_buffer_memory(imported, memory, 0) }.expect("bound");
        self.copy(imported, self.other);
        assert!((0..SIZE).all(|at| self.seen(at) == 1));
        if part == "map over and read back" || part == "protect" {
            // SAFETY: inside the mapping.
            unsafe { self.view.write_bytes(3, SIZE) };
        }
        let half = self.pages.wrapping_add(SIZE / 2);
        // SAFETY: pages of this test's, which it goes on to use as it left them.
        unsafe {
            match part {
                "unmap" => rustix::mm::munmap(half.cast(), SIZE / 2).expect("unmapped"),
                "map over" | "map over and read back" => _ = map(half, SIZE / 2, 2),
                "move" => {
                    let to = map(ptr::null_mut(), SIZE / 2, 2);
                    let flags = MremapFlags::MAYMOVE;
                    rustix::mm::mremap_fixed(half.cast(), SIZE / 2, SIZE / 2, flags, to.cast())
                        .expect("moved");
                }
                "protect" => {
                    rustix::mm::mprotect(half.cast(), PAGE, MprotectFlags::READ).expect("protected");
                }
                _ => {}
            }
        }
        match part {
            "map over and read back" => {
                self.copy(self.other, imported);
                if (SIZE / 2..SIZE).any(|at| self.found(at) != 2) {
                    println!("wrote to somebody else's");
                    return;
                }
            }
            "protect" => {
                self.copy(self.other, imported);
                let is_late = |at| (SIZE / 2..SIZE / 2 + PAGE).contains(&at);
                assert!((0..SIZE).all(|at| self.found(at) == if is_late(at) { 1 } else { 3 }));
                // SAFETY: a page of this test's.
                unsafe {
                    rustix::mm::mprotect(half.cast(), PAGE, MprotectFlags::READ | MprotectFlags::WRITE)
                }
                .expect("protected");
                self.copy(self.other, imported);
                assert!((0..SIZE).all(|at| self.found(at) == 3));
            }
            // What the device has of them stays as it was.
            _ => {
                // SAFETY: the first page is still there.
                unsafe { self.pages.write_volatile(if part == "keep" { 1 } else { 9 }) };
                for _ in 0..2 {
                    // SAFETY: inside the mapping.
                    unsafe { self.view.write_bytes(0, SIZE) };
                    self.copy(imported, self.other);
                    if (SIZE / 2..SIZE).any(|at| self.seen(at) == 2) {
                        println!("read somebody else's");
                        return;
                    }
                    assert!((0..SIZE).all(|at| self.seen(at) == 1));
                }
            }
        }
        // And it can be freed, and other pages imported.
        // SAFETY: nothing is pending.
        unsafe {
            self.gpu.device.destroy_buffer(imported, None);
            self.gpu.device.free_memory(memory, None);
        }
        let pages = map(ptr::null_mut(), SIZE, 5);
        let imported = buffer(&self.gpu);
        let memory = self.import(pages, SIZE, self.importable_type()).expect("imported");
        // SAFETY: live objects, not bound before.
        unsafe { self.gpu.device.bind_buffer_memory(imported, memory, 0) }.expect("bound");
        self.copy(imported, self.other);
        assert!((0..SIZE).all(|at| self.seen(at) == 5));
    }

    /// Tries to import what cannot be.
    fn refuse(&self, part: &str) {
        let memory_type = self.importable_type();
        let last = self.pages.wrapping_add(SIZE - PAGE).cast();
        // SAFETY: a page of this test's, which it does not touch any more.
        unsafe {
            match part {
                "a hole" => rustix::mm::munmap(last, PAGE).expect("unmapped"),
                "no access" => rustix::mm::mprotect(last, PAGE, MprotectFlags::empty()).expect("protected"),
                _ => {}
            }
        }
        let outcome = match part {
            "misaligned address" => self.import(self.pages.wrapping_add(64), PAGE, memory_type),
            "misaligned size" => self.import(self.pages, PAGE + 64, memory_type),
            "a hole" | "no access" => self.import(self.pages, SIZE, memory_type),
            "a mapping of Tidemark's" => self.import(self.view, SIZE, memory_type),
            "another type" => self.import(self.pages, SIZE, self.other_type(memory_type)),
            unknown => panic!("there is no part \"{unknown}\""),
        };
        assert_eq!(outcome, Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE));
    }

    /// A type that nothing can be imported as.
    fn other_type(&self, importable: u32) -> u32 {
        let host = vk::MemoryPropertyFlags::HOST_CACHED | vk::MemoryPropertyFlags::HOST_COHERENT;
        let types = self.gpu.memory.memory_types_as_slice();
        let found = types.iter().position(|one| !one.property_flags.contains(host));
        found.and_then(|at| u32::try_from(at).ok()).filter(|at| *at != importable).expect("another type")
    }

    fn seen(&self, at: usize) -> u8 {
        // SAFETY: inside the mapping.
        unsafe { self.view.add(at).read_volatile() }
    }

    fn found(&self, at: usize) -> u8 {
        // SAFETY: inside the pages.
        unsafe { self.pages.add(at).read_volatile() }
    }
}

fn buffer(gpu: &Gpu) -> vk::Buffer {
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let mut external =
        vk::ExternalMemoryBufferCreateInfo::default().handle_types(HandleTypes::HOST_ALLOCATION_EXT);
    let info = vk::BufferCreateInfo::default().size(SIZE as u64).usage(usage).push_next(&mut external);
    // SAFETY: a live device.
    unsafe { gpu.device.create_buffer(&info, None) }.expect("a buffer")
}

/// New pages, full of `value`: there, whatever was there before; or anywhere.
fn map(there: *mut u8, size: usize, value: u8) -> *mut u8 {
    let fixed = if there.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
    // SAFETY: a new mapping, at most over what is left of an old one; and all of it.
    unsafe {
        let pages = rustix::mm::mmap_anonymous(there.cast(), size, WRITABLE, MapFlags::PRIVATE | fixed);
        let pages = pages.expect("pages").cast::<u8>();
        pages.write_bytes(value, size);
        pages
    }
}
