//! Whether large uploads should start before the submit: what a second thread could save that flushes behind the host
//! while it still writes, as if it knew how far the host is. A driver would have to guess that, so this is the most that
//! there is to be had.

use crate::contender::{Contender, Engine};
use crate::statistics::{Sorted, duration};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidemark_winsys::tracker::WriteProtect;

/// Bytes of the upload.
const LEN: usize = 64 << 20;

/// Bytes that the host writes, and the thread flushes, at a time.
const PIECE: usize = 1 << 20;

/// Prints the time from the first write to the end of the submit's flush, for uploads into a fresh buffer and into one
/// that was written before.
///
/// # Errors
/// No memory, or a kernel without write-protect tracking.
pub(crate) fn report(rounds: usize) -> Result<(), Box<dyn Error>> {
    println!("\nUpload of {} MiB, from the first write to the end of the submit's flush:", LEN >> 20);
    let source = vec![1; LEN];
    for (name, before) in [("into a fresh buffer", 0), ("into one that was written before", 4)] {
        let ways = [("tracked", false, false), ("tracked, ahead", false, true), ("adaptive", true, false)];
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            for (times, (_, is_adaptive, is_ahead)) in times.iter_mut().zip(ways) {
                let mut engine = Engine::new(Arc::new(WriteProtect::new()?), is_adaptive, 1, LEN)?;
                for _ in 0..before {
                    upload(&mut engine, &source, false);
                }
                times.push(upload(&mut engine, &source, is_ahead).as_secs_f64() * 1e9);
            }
        }
        print!("  {name}:");
        for (times, (way, ..)) in times.into_iter().zip(ways) {
            print!(" {way} {};", duration(Sorted::new(times).median()));
        }
        println!();
    }
    Ok(())
}

fn upload(engine: &mut Engine, source: &[u8], is_ahead: bool) -> Duration {
    let (written, is_submitted) = (AtomicUsize::new(0), AtomicBool::new(!is_ahead));
    let view = engine.views()[0];
    let mirror = engine.mirror(0);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !is_submitted.load(Ordering::Relaxed) {
                if written.load(Ordering::Relaxed) >= at + PIECE {
                    mirror.flush(at..at + PIECE);
                    at += PIECE;
                } else {
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
        for at in (0..LEN).step_by(PIECE) {
            // SAFETY: inside the live buffer, and as much of the source.
            unsafe { view.add(at).copy_from_nonoverlapping(source.as_ptr().add(at), PIECE) };
            written.store(at + PIECE, Ordering::Relaxed);
        }
        is_submitted.store(true, Ordering::Relaxed);
    });
    mirror.flush(0..LEN);
    start.elapsed()
}
