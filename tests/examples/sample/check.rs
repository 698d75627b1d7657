//! Compares what came back with what must have.

use crate::error::{Error, Result};

/// Compares every byte, and says how many there were.
pub(crate) fn compare(buffer: &str, frame: u32, expected: &[u8], got: &[u8]) -> Result<u64> {
    if expected == got {
        return Ok(got.len() as u64);
    }
    let mut wrong = expected.iter().zip(got).enumerate().filter(|(_, (expected, got))| expected != got);
    let Some((offset, (byte, other))) = wrong.next() else {
        return Err(Error::new(format!(
            "{buffer} buffer, frame {frame}: expected {} bytes, got {}",
            expected.len(),
            got.len()
        )));
    };
    Err(Error::new(format!(
        "wrong byte in the {buffer} buffer, frame {frame}: at offset {offset} expected {byte:#04x}, got \
         {other:#04x}; {} of {} bytes are wrong",
        wrong.count() + 1,
        got.len()
    )))
}
