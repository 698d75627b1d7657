//! What a buffer that only the host writes occupies beside its own bytes, measured on the process.

use crate::contender::{Contender, Engine};
use std::error::Error;
use std::fs;
use std::sync::Arc;
use tidemark_winsys::page_size;
use tidemark_winsys::tracker::WriteProtect;

/// Bytes of the buffer that is looked at.
const LEN: usize = 64 << 20;

/// Bytes beside the buffer's and the device's own.
#[derive(Clone, Copy, Debug)]
struct Occupied {
    /// In mappings as large as an arena's.
    mapped: usize,
    /// From malloc.
    allocated: usize,
    /// In page tables.
    page_tables: usize,
}

/// Prints what the engine occupies for a buffer that the host wrote all of, and for one that the device may write too.
/// Returns the former's twin and state as a part of the buffer's size.
///
/// # Errors
/// No memory, or a kernel that does not say.
pub(crate) fn report() -> Result<f64, Box<dyn Error>> {
    println!("Memory, beside the {} MiB of a buffer's view and device memory each:", LEN >> 20);
    let mut parts = Vec::new();
    for (name, is_shared) in [("written by the host alone", false), ("written by the device, too", true)] {
        let before = Occupied::now()?;
        let mut engine = Engine::new(Arc::new(WriteProtect::new()?), true, 1, LEN)?;
        let whole = [(0, 0..LEN)];
        for _ in 0..3 {
            for at in (0..LEN).step_by(page_size()) {
                // SAFETY: inside the live buffer.
                unsafe { engine.views()[0].add(at).write_volatile(1) };
            }
            engine.before_batch(&whole, if is_shared { &whole } else { &[] });
            engine.after_wait(if is_shared { &whole } else { &[] });
        }
        let after = Occupied::now()?;
        // View and alias are the same pages, which count half in each.
        let twin = after.mapped.saturating_sub(before.mapped + LEN);
        let state = after.allocated.saturating_sub(before.allocated);
        let tables = after.page_tables.saturating_sub(before.page_tables);
        let part = |bytes: usize| bytes as f64 / LEN as f64;
        println!(
            "  {name}: twin {twin} bytes, state {state} bytes: {:.4} %; page tables of view, alias, twin and device \
             memory {tables} bytes ({:.2} %; an untracked buffer and its device memory need {:.2} %)",
            (part(twin) + part(state)) * 100.0,
            part(tables) * 100.0,
            2.0 * 8.0 / page_size() as f64 * 100.0,
        );
        parts.push(part(twin) + part(state));
    }
    Ok(parts[0])
}

impl Occupied {
    fn now() -> Result<Self, Box<dyn Error>> {
        // SAFETY: malloc's own figures.
        let malloc = unsafe { libc::mallinfo2() };
        Ok(Self {
            mapped: large_mappings()?,
            allocated: malloc.uordblks + malloc.hblkhd,
            page_tables: kibibytes("/proc/self/status", "VmPTE:")?,
        })
    }
}

/// Bytes there in mappings of a gibibyte and more: an arena reserves address space by many. What several mappings share
/// is divided among them (proportional set size).
fn large_mappings() -> Result<usize, Box<dyn Error>> {
    const LARGE: usize = 1 << 30;
    let text = fs::read_to_string("/proc/self/smaps")?;
    let (mut is_large, mut sum) = (false, 0);
    for line in text.lines() {
        if let Some(size) = line.strip_prefix("Size:") {
            is_large = in_kibibytes(size)? >= LARGE;
        } else if let Some(pss) = line.strip_prefix("Pss:").filter(|_| is_large) {
            sum += in_kibibytes(pss)?;
        }
    }
    Ok(sum)
}

/// The value of a line such as `VmPTE:  12 kB`, in bytes.
fn kibibytes(file: &str, name: &str) -> Result<usize, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    in_kibibytes(value.ok_or(format!("no {name} in {file}"))?)
}

fn in_kibibytes(value: &str) -> Result<usize, Box<dyn Error>> {
    let number = value.trim().strip_suffix(" kB").ok_or("not in kB")?;
    Ok(number.parse::<usize>()? * 1024)
}
