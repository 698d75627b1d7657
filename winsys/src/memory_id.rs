//! Which memory a file descriptor stands for.

use rustix::fs::{fstat, fstatfs};
use std::os::fd::AsFd;

/// Tells memory that descriptors stand for apart: all that stand for the same have the same, as long as one of them or a
/// mapping is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryId {
    file_system: u64,
    inode: u64,
}

/// File systems of which each file is memory of its own: those of memfds, with ordinary and with huge pages, and that of
/// dma-bufs (linux/magic.h). Other descriptors, as drivers have them for memory of theirs, may share an inode.
const OF_MEMORY: [u64; 3] = [0x0102_1994, 0x9584_58f6, 0x444d_4142];

impl MemoryId {
    /// `None` if the descriptor does not tell.
    pub fn of(descriptor: impl AsFd) -> Option<Self> {
        let kind = fstatfs(descriptor.as_fd()).ok()?.f_type;
        let stat = fstat(descriptor.as_fd()).ok()?;
        let is_memory = u64::try_from(kind).is_ok_and(|kind| OF_MEMORY.contains(&kind));
        is_memory.then_some(Self { file_system: stat.st_dev, inode: stat.st_ino })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;

    #[test]
    fn descriptors_of_one_memory_are_told_from_others() {
        let [one, other] = [(); 2].map(|()| memfd_create("memory", MemfdFlags::CLOEXEC).expect("a memfd"));
        let same = one.try_clone().expect("another descriptor");
        assert!(MemoryId::of(&one).is_some());
        assert_eq!(MemoryId::of(&one), MemoryId::of(&same));
        assert_ne!(MemoryId::of(&one), MemoryId::of(&other));
    }

    #[test]
    fn what_may_share_an_inode_tells_nothing() {
        // An anonymous inode, of which the kernel has one for many, and a device.
        let anonymous = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
        assert_eq!(MemoryId::of(&anonymous), None);
        assert_eq!(MemoryId::of(File::open("/proc/self/maps").expect("a file")), None);
    }
}
