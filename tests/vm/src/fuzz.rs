//! Random calls, from several threads, on few objects. Whether the kernel minded is for its log to tell.

use std::thread;

use tidemark_kmd_uapi::tidemark_drm as uapi;

use crate::device::{Device, PAGE, View, now};

/// xorshift64*: the same calls each time, if not in the same order between threads.
pub struct Random(pub u64);

impl Random {
    /// Below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn small(&mut self, bound: u32) -> u32 {
        self.below(bound as usize) as u32
    }

    /// Mostly something that is valid, sometimes something that is not.
    fn offset(&mut self) -> u64 {
        match self.below(16) {
            0 => u64::MAX - self.below(PAGE) as u64,
            1 => self.below(1 << 20) as u64,
            2..8 => (self.below(16) * PAGE) as u64,
            _ => self.below(16 * PAGE) as u64,
        }
    }
}

const PAGES: usize = 16;

/// What a thread works on.
struct Player<'a> {
    device: &'a Device,
    memory: &'a View,
    syncobjs: [u32; 2],
    random: Random,
    views: Vec<View>,
    /// Collected into.
    ranges: [uapi::Range; 5],
}

impl Player<'_> {
    fn handle(&mut self) -> u32 {
        self.random.small(24)
    }

    fn syncs(&mut self) -> Vec<uapi::Sync> {
        let sync = |random: &mut Random, handles: [u32; 2]| uapi::Sync {
            handle: handles[random.below(2)],
            flags: random.small(3) % 2,
            point: random.below(3) as u64,
        };
        (0..self.random.below(3)).map(|_| sync(&mut self.random, self.syncobjs)).collect()
    }

    /// The results do not matter.
    fn step(&mut self) {
        let (handle, device) = (self.handle(), self.device);
        match self.random.below(18) {
            0 => {
                let size = (1 + self.random.below(PAGES)) * PAGE;
                let _ = device.create(size, self.random.small(3), self.random.small(4));
            }
            1 => {
                let pages = 1 + self.random.below(4);
                let at = self.memory.address() + self.random.below(PAGES - pages) * PAGE;
                let _ = device.user(at, pages * PAGE, self.random.small(5));
            }
            2 => drop(device.close(handle)),
            3 => {
                let Ok(offset) = device.offset(handle, self.random.small(2)) else { return };
                let first = self.random.below(PAGES);
                let size = (1 + self.random.below(PAGES)) * PAGE;
                let view = View::new(device.raw(), offset + (first * PAGE) as u64, size);
                if let Ok(view) = view {
                    self.views.push(view);
                }
                if self.views.len() > 6 {
                    self.views.swap_remove(self.random.below(6));
                }
            }
            4..7 => {
                if !self.views.is_empty() {
                    let which = self.random.below(self.views.len());
                    let view = &self.views[which];
                    let page = self.random.below(view.size() / PAGE);
                    match self.random.below(8) {
                        0 => drop(view.advise(libc::MADV_DONTNEED)),
                        1 => {
                            view.protect(0, view.size(), libc::PROT_READ);
                            view.protect(0, view.size(), libc::PROT_READ | libc::PROT_WRITE);
                        }
                        2 => drop(view.get(page * PAGE)),
                        _ => view.touch(page),
                    }
                }
            }
            7 => drop(device.track(handle, self.random.small(4))),
            8..10 => {
                let objects: Vec<_> = (0..self.random.below(4))
                    .map(|_| uapi::CollectObject {
                        handle: self.random.small(24),
                        pad: u32::from(self.random.below(50) == 0),
                        offset: self.random.offset() & !(PAGE as u64 - 1),
                        size: ((1 + self.random.below(PAGES)) * PAGE) as u64,
                    })
                    .collect();
                let mut collect = uapi::Collect {
                    objects: objects.as_ptr() as u64,
                    ranges: if self.random.below(9) == 0 { 64 } else { self.ranges.as_mut_ptr() as u64 },
                    object_count: objects.len() as u32,
                    range_capacity: self.random.small(6),
                    next_offset: if self.random.below(4) == 0 { self.random.offset() } else { 0 },
                    ..Default::default()
                };
                let _ = device.collect_raw(&mut collect);
            }
            10 => drop(device.place(handle, self.random.small(3))),
            11..13 => {
                let opcode = [uapi::IOCTL_READ, uapi::IOCTL_WRITE][self.random.below(2)];
                let from = self.random.below(PAGES - 4) * PAGE;
                let (offset, size) = (self.random.offset() as usize, self.random.below(3 * PAGE));
                // Into or out of a view of the device's own, now and then.
                let at = match self.views.last() {
                    Some(view) if self.random.below(3) == 0 => view.address(),
                    _ => self.memory.address() + from,
                };
                let _ = device.transfer(opcode, handle, offset, at, size);
            }
            13..16 => {
                let regions: Vec<_> = (0..self.random.below(4))
                    .map(|_| uapi::Region {
                        src_offset: self.random.offset(),
                        dst_offset: self.random.offset(),
                        size: self.random.below(3 * PAGE) as u64,
                    })
                    .collect();
                let (dst, waits, signals) = (self.handle(), self.syncs(), self.syncs());
                let _ = device.copy(handle, dst, &regions, &waits, &signals);
            }
            16 => drop(device.wait(handle, self.random.small(3), self.random.below(2_000_000) as i64)),
            _ => {
                let _ = device.info(handle);
                let _ = device.export(handle).map(|buffer| device.import(&buffer));
            }
        }
    }
}

pub fn calls() {
    // Threads of one process for half a minute, then a process that is killed in the middle of it all.
    for killed in [false, true] {
        // SAFETY: the child has one thread so far; it never returns.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            play(if killed { i64::MAX } else { 30_000_000_000 });
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        if killed {
            thread::sleep(std::time::Duration::from_millis(1500));
            // SAFETY: a child of ours.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let mut status = 0;
        // SAFETY: a child of ours.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, if killed { libc::SIGKILL } else { 0 });
    }
}

fn play(nanoseconds: i64) {
    let devices = [Device::open(), Device::open()];
    let memory = View::anonymous(PAGES);
    let end = now().saturating_add(nanoseconds);
    thread::scope(|scope| {
        for seed in 1..=3 {
            let device = &devices[seed % 2];
            let memory = &memory;
            scope.spawn(move || {
                let mut player = Player {
                    device,
                    memory,
                    syncobjs: [device.syncobj(), device.syncobj()],
                    random: Random(seed as u64),
                    views: Vec::new(),
                    ranges: Default::default(),
                };
                while now() < end {
                    player.step();
                }
            });
        }
    });
}
