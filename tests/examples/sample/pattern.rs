//! What the bytes of the exchange are: the ones the host writes and the ones that must come back.
//!
//! Everything follows from the number of the frame and the index of the word, so that a byte left over from
//! another frame or another place is never the right one.

/// Spreads two numbers over a word: a few rounds of multiply and shift, as in the hash MurmurHash3.
fn mix(a: u32, b: u32) -> u32 {
    let mut word = a.wrapping_mul(0x9E37_79B1).wrapping_add(b ^ 0x85EB_CA6B);
    word = (word ^ (word >> 16)).wrapping_mul(0x85EB_CA6B);
    word = (word ^ (word >> 13)).wrapping_mul(0xC2B2_AE35);
    word ^ (word >> 16)
}

/// The words that the host gives to the `transform` shader.
pub(crate) fn input(frame: u32, index: u32) -> u32 {
    mix(frame, index)
}

/// What `transform` makes of them.
pub(crate) fn transformed(frame: u32, index: u32) -> u32 {
    input(frame, index).reverse_bits() ^ index.wrapping_mul(0x9E37_79B1)
}

/// The bytes that are copied from an odd offset to another.
pub(crate) fn odd_byte(frame: u32, index: u32) -> u8 {
    mix(!frame, index).to_be_bytes()[0]
}

/// What the host puts where the device must not write.
pub(crate) fn guard(frame: u32) -> u8 {
    mix(frame, 0x6775_6172).to_be_bytes()[0]
}

/// The word of a cell that the host stores before the device starts. Its lowest bit is the lane of
/// this frame: the host stores into that one, the device loads from the other.
pub(crate) fn early(frame: u32, index: u32, lane: u32) -> u32 {
    (mix(frame ^ 0x6561_726C, index) & !1) | lane
}

/// The word of a cell that the host stores while the device is at work.
pub(crate) fn late(frame: u32, index: u32) -> u32 {
    mix(frame ^ 0x6C61_7465, index)
}

/// What the `answer` shader makes of a cell.
pub(crate) fn answer(early: u32, late: u32, index: u32) -> u32 {
    (early ^ late.reverse_bits()).wrapping_add(index.wrapping_mul(0x85EB_CA6B))
}
