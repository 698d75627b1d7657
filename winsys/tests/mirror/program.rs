//! Programs: what host and device do to an allocation.

use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Range;
use tidemark_winsys::{Contents, page_size};

/// An allocation, and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Bytes of the allocation.
    pub(crate) len: usize,
    pub(crate) contents: Contents,
    pub(crate) operations: Vec<Operation>,
}

/// One step. Ranges are in bytes, and may lie beyond the allocation.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// The host fills `range` with a value.
    HostWrite {
        range: Range<usize>,
        value: u8,
    },
    /// So does the device, with the bytes of pages that it may write.
    DeviceWrite {
        range: Range<usize>,
        value: u8,
    },
    Flush(Range<usize>),
    Share(Range<usize>),
    Readback(Range<usize>),
    /// The host has the pages of `range` mapped elsewhere from now on, and only these.
    Place(Range<usize>),
    /// It has all of them mapped where they were at first.
    Unplace,
    /// So many times, the host writes to each page of `range`, and all is flushed.
    Dense {
        range: Range<usize>,
        times: u8,
    },
}

impl Program {
    /// Up to a few pages, or up to a few of the policy's blocks.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![4 => Self::of_pages(3), 1 => Self::of_pages(40)]
    }

    fn of_pages(most: usize) -> impl Strategy<Value = Self> {
        let contents = prop_oneof![Just(Contents::Defined), Just(Contents::Undefined)];
        (1..=most * page_size(), contents, vec(Operation::any(most), 0..24))
            .prop_map(|(len, contents, operations)| Self { len, contents, operations })
    }
}

impl Operation {
    fn any(pages: usize) -> impl Strategy<Value = Self> {
        // Few values, so that writes often change nothing, or meet the same value on the other side.
        let value = 0..4u8;
        prop_oneof![
            5 => (bytes(pages), value.clone())
                .prop_map(|(range, value)| Self::HostWrite { range, value }),
            5 => (bytes(pages), value).prop_map(|(range, value)| Self::DeviceWrite { range, value }),
            3 => sync(pages).prop_map(Self::Flush),
            2 => sync(pages).prop_map(Self::Share),
            3 => sync(pages).prop_map(Self::Readback),
            1 => bytes(pages).prop_map(Self::Place),
            1 => Just(Self::Unplace),
            1 => (bytes(pages), 1..20u8).prop_map(|(range, times)| Self::Dense { range, times }),
        ]
    }
}

/// Words, and longer ranges, most of them at the edges of pages, where they meet.
fn bytes(pages: usize) -> impl Strategy<Value = Range<usize>> {
    let page = page_size();
    let offset = prop_oneof![3 => 0..4usize, 1 => page - 4..page, 1 => 0..page];
    let len = prop_oneof![4 => 1..=8usize, 2 => 1..200usize, 1 => 1..=pages * page];
    (0..pages, offset, len).prop_map(move |(index, offset, len)| {
        let start = index * page + offset;
        start..start + len
    })
}

fn sync(pages: usize) -> impl Strategy<Value = Range<usize>> {
    prop_oneof![Just(0..usize::MAX), bytes(pages), (0..pages * page_size()).prop_map(|at| at..at)]
}
