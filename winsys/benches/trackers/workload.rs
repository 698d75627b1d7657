//! What host and device do in a round.

use crate::contender::Part;
use std::ops::Range;
use tidemark_winsys::page_size;

/// Which pages are written, round by round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The same run of pages each time.
    Clustered,
    /// Pages all over the buffer, others each time.
    Scattered,
    /// Pages all over the buffer, the same each time.
    Fixed,
    /// A run of pages that goes on where the last one ended.
    Sequential,
}

/// How the device takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// It reads.
    Reads,
    /// It writes a word beside each one that the host wrote, and might have written the whole buffer.
    WritesNeighbours,
    /// It writes so many ten-thousandths of the pages; the host reads a word of each. Whether it is known which pages.
    Writes { share: usize, is_known: bool },
}

/// A workload.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) buffers: usize,
    /// Bytes of each.
    pub(crate) len: usize,
    /// Ten-thousandths of the pages that the host writes each round; of the buffers, if there are many.
    pub(crate) dirty: usize,
    pub(crate) pattern: Pattern,
    pub(crate) device: Device,
    /// Whether the batch uses only what was written. Otherwise it uses everything.
    pub(crate) is_narrow: bool,
    /// Every page, in no order.
    shuffled: Vec<usize>,
}

/// A word, by its buffer and offset.
pub(crate) type Place = (usize, usize);

/// What happens in one round.
#[derive(Default)]
pub(crate) struct Round {
    /// The words that the host writes.
    pub(crate) writes: Vec<Place>,
    /// What the batch uses, as a driver knows it.
    pub(crate) used: Vec<Part>,
    /// What the device may write, as a driver knows it.
    pub(crate) may_write: Vec<Part>,
    /// The words that the device writes and the host reads afterwards.
    pub(crate) device_writes: Vec<Place>,
}

impl Workload {
    /// One buffer that only the host writes.
    pub(crate) fn of(len: usize, dirty: usize, pattern: Pattern) -> Self {
        let mut shuffled: Vec<usize> = (0..len / page_size()).collect();
        shuffle(&mut shuffled, 0);
        let pattern_name = match pattern {
            Pattern::Scattered => "scattered",
            Pattern::Fixed => "scattered, the same",
            Pattern::Clustered => "clustered",
            Pattern::Sequential => "sequential",
        };
        let name = format!("{}, {}, {pattern_name}", size(len), percent(dirty));
        Self { name, buffers: 1, len, dirty, pattern, device: Device::Reads, is_narrow: false, shuffled }
    }

    /// The same by another name.
    fn called(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    fn pages(&self) -> usize {
        self.len / page_size()
    }

    /// Pages written each round.
    pub(crate) fn count(&self) -> usize {
        part_of(if self.buffers > 1 { self.buffers } else { self.pages() }, self.dirty)
    }

    /// The `number`th round.
    pub(crate) fn round(&self, number: usize) -> Round {
        let mut round = Round::default();
        let (count, pages) = (self.count(), self.pages());
        if self.buffers > 1 {
            // Whole buffers, now these, now those.
            let written = (0..count).map(|index| (number * count + index) * 7 % self.buffers);
            for buffer in written {
                round.writes.extend((0..pages).map(|page| (buffer, page * page_size())));
                if self.is_narrow {
                    round.used.push((buffer, 0..self.len));
                }
            }
            if !self.is_narrow {
                round.used.extend((0..self.buffers).map(|buffer| (buffer, 0..self.len)));
            }
            return round;
        }
        let start = match self.pattern {
            Pattern::Fixed | Pattern::Clustered => (pages - count) / 2,
            Pattern::Scattered | Pattern::Sequential => number * count % pages,
        };
        let index = |at: usize| (start + at) % pages;
        let page = |at: usize| match self.pattern {
            Pattern::Scattered | Pattern::Fixed => self.shuffled[index(at)],
            Pattern::Clustered | Pattern::Sequential => index(at),
        };
        round.writes.extend((0..count).map(|at| (0, page(at) * page_size())));
        let bytes = |pages: Range<usize>| (0, pages.start * page_size()..pages.end * page_size());
        round.used.push(bytes(if self.is_narrow { start..start + count } else { 0..pages }));
        match self.device {
            Device::Reads => {}
            Device::WritesNeighbours => {
                round.device_writes.extend(round.writes.iter().map(|(buffer, offset)| (*buffer, offset + 8)));
                round.may_write.push(bytes(0..pages));
            }
            Device::Writes { share, is_known } => {
                let count = part_of(pages, share);
                let start = if count == pages { 0 } else { number * count % (pages - count) };
                round.device_writes.extend((start..start + count).map(|page| (0, page * page_size())));
                round.may_write.push(bytes(if is_known { start..start + count } else { 0..pages }));
                round.used.clone_from(&round.may_write);
            }
        }
        round
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Sizes of single buffers.
const SIZES: [usize; 4] = [64 * KIB, MIB, 16 * MIB, 256 * MIB];

/// Of larger buffers a few shares and one pattern must do: their rounds take up to a second.
const WITH_ALL: usize = 16 * MIB;
const FEW: [usize; 4] = [0, 1, 100, 10_000];

/// Ten-thousandths of the pages.
const SHARES: [usize; 7] = [0, 1, 100, 1_000, 3_500, 5_000, 10_000];

/// All of them, up to buffers of `largest` bytes.
pub(crate) fn all(largest: usize) -> Vec<Workload> {
    let mut all: Vec<Workload> = Vec::new();
    for len in SIZES.into_iter().filter(|len| *len <= largest) {
        for pattern in [Pattern::Scattered, Pattern::Fixed, Pattern::Clustered, Pattern::Sequential] {
            let mut counts = Vec::new();
            for dirty in SHARES {
                let is_dear =
                    !matches!(pattern, Pattern::Scattered | Pattern::Fixed) || !FEW.contains(&dirty);
                if len > WITH_ALL && is_dear {
                    continue;
                }
                let workload = Workload::of(len, dirty, pattern);
                // Small buffers have few pages, and where all or none are written patterns make little difference.
                let count = workload.count();
                let is_redundant = match pattern {
                    Pattern::Scattered => false,
                    Pattern::Fixed | Pattern::Clustered => count == 0 || count == len / page_size(),
                    Pattern::Sequential => count == 0,
                };
                if !is_redundant && !counts.contains(&count) {
                    counts.push(count);
                    all.push(workload);
                }
            }
        }
    }
    all.extend(special());
    if largest > WITH_ALL {
        all.push(readback(largest, 1, false));
    }
    all
}

/// Those that are like some kind of application.
fn special() -> Vec<Workload> {
    let one = Workload::of(16 * MIB, 100, Pattern::Scattered);
    let shared = Workload { device: Device::WritesNeighbours, ..one.clone() };
    let many = Workload { buffers: 1_000, ..Workload::of(64 * KIB, 100, Pattern::Scattered) };
    let ring = Workload { is_narrow: true, ..Workload::of(3 * MIB, 3_334, Pattern::Sequential) };
    let mut special = vec![
        shared.called("16 MiB, 1 %, device writes neighbours"),
        many.clone().called("1,000 x 64 KiB, 1 % written, all used"),
        Workload { is_narrow: true, ..many }.called("1,000 x 64 KiB, 1 % written, only those used"),
        ring.called("ring of 3 x 1 MiB, a slot written and used"),
    ];
    for share in [1, 100, 10_000] {
        special.extend([true, false].map(|is_known| readback(16 * MIB, share, is_known)));
    }
    special
}

/// A buffer that the host reads where the device wrote.
fn readback(len: usize, share: usize, is_known: bool) -> Workload {
    let which = if is_known { "known which" } else { "anywhere" };
    let name = format!("readback, {} of {}, {which}", percent(share), size(len));
    let device = Device::Writes { share, is_known };
    Workload { device, ..Workload::of(len, 0, Pattern::Scattered) }.called(&name)
}

/// So many ten-thousandths, but one at least if any.
fn part_of(pages: usize, share: usize) -> usize {
    if share == 0 { 0 } else { (pages * share / 10_000).max(1) }
}

fn size(len: usize) -> String {
    if len < MIB { format!("{} KiB", len / KIB) } else { format!("{} MiB", len / MIB) }
}

fn percent(share: usize) -> String {
    format!("{} %", share as f64 / 100.0)
}

/// Puts the elements in no order, but for one `seed` in the same each time (xorshift).
pub(crate) fn shuffle<T>(elements: &mut [T], seed: usize) {
    let mut state = 0x2545_F491_4F6C_DD1D_usize ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for last in (1..elements.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        elements.swap(last, state % (last + 1));
    }
}
