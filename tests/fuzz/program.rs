//! What a random program is made of: the resources it has from the start, and a list of operations.
//!
//! Operations name what they mean by numbers of their own, never by the position of another operation: those that are
//! left when some are taken away still mean the same, or nothing (then the [model](crate::model) refuses them).

use std::ops::Range;
use tidemark_tests::PageKind;

/// Alignment of buffers in their memory: what suffices for most devices.
const BUFFER_ALIGNMENT: u32 = 64;
/// Alignment of descriptors in their buffer, and of explicit flushes: the most that devices may ask for.
pub(crate) const OFFSET_ALIGNMENT: u32 = 256;
/// The image that copies go through has texels of one byte, in that many columns and rows.
pub(crate) const IMAGE: [u32; 2] = [96, 32];

pub(crate) struct Program {
    pub(crate) world: World,
    /// With their numbers in the program that the seed stands for.
    pub(crate) ops: Vec<(usize, Op)>,
}

impl Program {
    pub(crate) fn numbers(&self) -> Vec<usize> {
        self.ops.iter().map(|(number, _)| *number).collect()
    }
}

/// What not every device can do. One seed stands for one program among those for devices that can do the same.
#[derive(Clone, Copy)]
pub(crate) struct Abilities {
    /// Descriptor sets may be updated after they were bound.
    pub(crate) update_after_bind: bool,
    /// How buffers are aligned in their memory: a divisor of [`OFFSET_ALIGNMENT`].
    pub(crate) buffer_alignment: u32,
    /// How many in a hundred of the memories that the host may map are pages of its own, which are imported.
    pub(crate) imports: u32,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { update_after_bind: false, buffer_alignment: BUFFER_ALIGNMENT, imports: 0 }
    }
}

/// What there is before the first operation.
pub(crate) struct World {
    pub(crate) memories: Vec<MemoryPlan>,
    pub(crate) buffers: Vec<BufferPlan>,
    pub(crate) lists: Vec<ListPlan>,
    /// Descriptor sets; true for those that may be updated after they were bound.
    pub(crate) sets: Vec<bool>,
    /// Whether command buffers end with a barrier to the host, as they should and often do not.
    pub(crate) has_host_barriers: bool,
}

/// A VkDeviceMemory.
pub(crate) struct MemoryPlan {
    /// Its first byte among those of all memories, as the model counts them.
    pub(crate) base: u32,
    pub(crate) size: u32,
    /// Whether the host may map it.
    pub(crate) is_coherent: bool,
    /// Whether its buffers have device addresses, so that any batch might use them.
    pub(crate) has_addresses: bool,
    /// What it is imported from, if it is. The host need not map it.
    pub(crate) pages: Option<PageKind>,
}

impl MemoryPlan {
    pub(crate) fn range(&self) -> Range<u32> {
        self.base..self.base + self.size
    }
}

pub(crate) struct BufferPlan {
    pub(crate) memory: usize,
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// A command buffer. Secondary ones may always be used simultaneously.
pub(crate) struct ListPlan {
    pub(crate) is_secondary: bool,
    pub(crate) is_simultaneous: bool,
}

impl World {
    /// Where a byte of a buffer is among those of all memories.
    pub(crate) fn address(&self, buffer: usize, offset: u32) -> u32 {
        let plan = &self.buffers[buffer];
        self.memories[plan.memory].base + plan.offset + offset
    }

    pub(crate) fn buffers_of(&self, memory: usize) -> impl Iterator<Item = (usize, &BufferPlan)> {
        self.buffers.iter().enumerate().filter(move |(_, plan)| plan.memory == memory)
    }
}

/// `count` runs of `len` bytes, the starts of which are `stride` apart.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Pieces {
    pub(crate) at: u32,
    pub(crate) len: u32,
    pub(crate) stride: u32,
    pub(crate) count: u32,
}

impl Pieces {
    pub(crate) fn one(at: u32, len: u32) -> Self {
        Self { at, len, stride: len, count: 1 }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Range<u32>> {
        let start = move |index| self.at + index * self.stride;
        (0..self.count).map(move |index| start(index)..start(index) + self.len)
    }

    pub(crate) fn end(self) -> u32 {
        self.at + (self.count - 1) * self.stride + self.len
    }

    pub(crate) fn moved(self, by: u32) -> Self {
        Self { at: self.at + by, ..self }
    }
}

/// Bytes to write.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    Same(u8),
    Noise(u32),
}

impl Value {
    pub(crate) fn at(self, index: u32) -> u8 {
        match self {
            Self::Same(byte) => byte,
            Self::Noise(seed) => {
                let mixed = (index ^ seed.rotate_left(16)).wrapping_mul(0x9E37_79B1) ^ seed;
                (mixed.wrapping_mul(0x85EB_CA6B) >> 24) as u8
            }
        }
    }
}

/// How the host gets at memory.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Means {
    /// Single loads and stores as long as the pieces: 1, 2, 4 or 8 bytes.
    Single,
    /// memcpy, and memset where all bytes are the same.
    Bulk,
    /// pread(2) or pwrite(2) of a file.
    File,
    /// read(2) or write(2) of a pipe, for at most 4096 bytes.
    Pipe,
}

/// A descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) buffer: usize,
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// What a command buffer is recorded from. Offsets are relative to the buffer.
#[derive(Clone)]
pub(crate) enum Command {
    Copy { from: usize, to: usize, source: Pieces, target: Pieces },
    Fill { to: usize, at: u32, len: u32, word: u32 },
    Update { to: usize, at: u32, len: u32, value: Value },
    Dispatch { set: usize, work: Work },
    Image { from: usize, to: usize, source: Pieces, target: Pieces },
    Execute { list: usize },
}

/// What a dispatch does: adds to words of the set's output, or of its input on the way to the output.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Work {
    pub(crate) input_first: u32,
    pub(crate) output_first: u32,
    pub(crate) count: u32,
    pub(crate) add: u32,
    /// Not 0: the input is not used.
    pub(crate) in_place: u32,
}

/// What a batch waits for until the host lets it go.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Gate {
    Timeline,
    /// Set after the submit, as newer texts of Vulkan forbid (VUID-vkSetEvent-event-09543) and older applications do.
    Event,
}

/// A VkSubmitInfo.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) batch: u32,
    pub(crate) lists: Vec<usize>,
    pub(crate) gate: Option<Gate>,
    /// Whether it signals the timeline.
    pub(crate) signals: bool,
    /// Whether it sets an event at the end.
    pub(crate) sets_event: bool,
}

/// How the host learns that a batch is done.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum By {
    Fence,
    FenceStatus,
    Timeline,
    Counter,
    Event,
}

/// Offsets of host accesses are relative to the memory.
#[derive(Clone)]
pub(crate) enum Op {
    Write {
        memory: usize,
        pieces: Pieces,
        means: Means,
        value: Value,
    },
    Read {
        memory: usize,
        pieces: Pieces,
        means: Means,
    },
    /// Looks at all that may be looked at.
    Check,
    /// Threads begin to write pieces in turn, over and over; the last values are those of `value`.
    Spawn {
        team: u32,
        memory: usize,
        pieces: Pieces,
        threads: u32,
        rounds: u32,
        seed: u32,
    },
    Join {
        team: u32,
    },
    /// A size of `None` is the rest.
    Map {
        memory: usize,
        offset: u32,
        size: Option<u32>,
    },
    Unmap {
        memory: usize,
    },
    Flush {
        memory: usize,
        offset: u32,
    },
    Invalidate {
        memory: usize,
        offset: u32,
    },
    /// Frees the memory with its buffers, and makes them anew; imported memory of the same pages, which the host may write
    /// in between.
    Replace {
        memory: usize,
        meanwhile: Option<(Pieces, Value)>,
    },
    Bind {
        set: usize,
        input: Binding,
        output: Binding,
        by_template: bool,
    },
    Record {
        list: usize,
        command: Command,
    },
    /// Ends the recording, as the first submit would.
    Seal {
        list: usize,
    },
    Reset {
        list: usize,
    },
    Submit {
        /// Of as many queues as there are, counted round and round.
        queue: u32,
        parts: Vec<Part>,
        is_submit2: bool,
        has_fence: bool,
    },
    /// Lets a batch go.
    Release {
        batch: u32,
    },
    Wait {
        batch: u32,
        by: By,
    },
    /// Asks once, and takes no notice of the answer.
    Peek {
        batch: u32,
        by: By,
    },
    Idle {
        of_device: bool,
    },
    /// Has the device copy everything to where the host can look at it.
    Audit,
}
