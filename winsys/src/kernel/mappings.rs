//! What is mapped where in this process, by the kernel's account.

use super::Call;
use crate::{Span, page_size};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::MsyncFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use tidemark_kmd_uapi::procmap;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) span: Span,
    /// Whether it is `MAP_SHARED`.
    pub(crate) is_shared: bool,
    /// Bytes in a page of it.
    pub(crate) page_size: usize,
    /// What it is of; nothing if it is anonymous and private. Shared anonymous memory is of a file without a name.
    pub(crate) file: Option<Place>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    /// Bytes.
    pub(crate) offset: u64,
}

/// What tells one file from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl Mapping {
    /// The part of it within `span`.
    pub(crate) fn clipped(&self, span: &Span) -> Self {
        let part = self.span.start.max(span.start)..self.span.end.min(span.end);
        let skipped = (part.start - self.span.start) as u64;
        let file = self.file.as_ref().map(|place| Place { offset: place.offset + skipped, ..*place });
        Self { span: part, file, ..*self }
    }

    /// Whether `self` goes on where `other` begins, so that both may be one to the application.
    fn goes_on_as(&self, other: &Self) -> bool {
        let file = match (&self.file, &other.file) {
            (Some(one), Some(next)) => {
                one.file == next.file && one.offset + self.span.len() as u64 == next.offset
            }
            (one, next) => one == next,
        };
        let is_like = (self.is_shared, self.page_size) == (other.is_shared, other.page_size);
        file && is_like && self.span.end == other.span.start
    }
}

/// The process's list of mappings. It describes the address space of the process that opened it.
pub(crate) struct Mappings {
    /// Where single mappings can be looked up; otherwise all of the list is read.
    list: Option<OwnedFd>,
}

impl Mappings {
    pub(crate) fn open() -> io::Result<Self> {
        let list = rustix::fs::open("/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let here = &raw const list as usize;
        match look_up(&list, here) {
            Err(error) if error == Errno::NOTTY => Ok(Self { list: None }),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Self { list: Some(list) }),
        }
    }

    /// What is mapped in `span`: its parts in ascending order, without gaps.
    ///
    /// # Errors
    /// `NotFound` if a part of it is not mapped; otherwise the kernel's refusal.
    pub(crate) fn within(&self, span: &Span) -> io::Result<Vec<Mapping>> {
        let mut all: Vec<Mapping> = Vec::new();
        let mut at = span.start;
        match &self.list {
            Some(list) => {
                while at < span.end {
                    let mapping = look_up(list, at)?;
                    at = mapping.span.end;
                    all.push(mapping.clipped(span));
                }
            }
            None => {
                let text = std::fs::read_to_string("/proc/self/maps")?;
                for mapping in text.lines().filter_map(parse) {
                    if mapping.span.contains(&at) && at < span.end {
                        at = mapping.span.end;
                        all.push(mapping.clipped(span));
                    }
                }
            }
        }
        if at < span.end { Err(io::ErrorKind::NotFound.into()) } else { Ok(all) }
    }
}

/// Mappings in a row without what only tells them apart by what may be done with them.
pub(crate) fn joined(all: Vec<Mapping>) -> Vec<Mapping> {
    let mut joined: Vec<Mapping> = Vec::new();
    for mapping in all {
        match joined.last_mut().filter(|last| last.goes_on_as(&mapping)) {
            Some(last) => last.span.end = mapping.span.end,
            None => joined.push(mapping),
        }
    }
    joined
}

fn look_up(list: impl AsFd, address: usize) -> Result<Mapping, Errno> {
    let mut query = procmap::Query {
        size: size_of::<procmap::Query>() as u64,
        address: address as u64,
        ..Default::default()
    };
    // SAFETY: the argument is a live `struct procmap_query`, which asks for no name and no build ID.
    unsafe { rustix::ioctl::ioctl(list, Call::<_, { procmap::PROCMAP_QUERY }>(&mut query)) }?;
    let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
    let place = Place {
        file: FileId { device: (query.device_major, query.device_minor), inode: query.inode },
        offset: query.offset,
    };
    Ok(Mapping {
        span: number(query.start)..number(query.end),
        is_shared: query.mapping_flags & procmap::SHARED != 0,
        page_size: number(query.page_size),
        file: (place.file.inode != 0).then_some(place),
    })
}

/// A line of `/proc/self/maps`: `start-end rwxp offset major:minor inode name`.
fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let access = words.next()?;
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = words.next()?.parse().ok()?;
    // The list does not tell how large pages are. What is of no file that anybody named gives itself away.
    let is_huge = words.next().is_some_and(|name| name.starts_with("/anon_hugepage"));
    Some(Mapping {
        span: usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?,
        is_shared: access.ends_with('s'),
        page_size: if is_huge { 512 * page_size() } else { page_size() },
        file: (inode != 0).then_some(Place { file: FileId { device, inode }, offset }),
    })
}

/// Whether every page of `span` is mapped, whatever may be done with it. In the time of a system call.
pub(crate) fn is_mapped(span: &Span) -> bool {
    let start = ptr::with_exposed_provenance_mut(span.start);
    // SAFETY: an asynchronous msync(2) writes nothing, and touches no memory; it looks whether there are holes.
    unsafe { rustix::mm::msync(start, span.len(), MsyncFlags::ASYNC) }.is_ok()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags};

    const PAGE: usize = 4096;

    fn map(pages: usize, flags: MapFlags) -> usize {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the kernel chooses.
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), pages * PAGE, access, flags) }.unwrap() as usize
    }

    #[test]
    fn query_and_list_tell_the_same() {
        let query = Mappings::open().unwrap();
        let list = Mappings { list: None };
        for flags in [MapFlags::PRIVATE, MapFlags::SHARED] {
            let start = map(8, flags);
            let span = start + PAGE..start + 7 * PAGE;
            let told = list.within(&span).unwrap();
            assert_eq!(told, query.within(&span).unwrap());
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].span.clone(), told[0].is_shared), (span.clone(), flags == MapFlags::SHARED));
            assert_eq!(told[0].file.as_ref().map(|place| place.offset), told[0].file.as_ref().map(|_| 4096));

            // Other rights in the middle make three of it, but one to whom they are all the same.
            // SAFETY: our own mapping, which nothing refers to, here and below.
            unsafe {
                let third = ptr::with_exposed_provenance_mut(start + 2 * PAGE);
                rustix::mm::mprotect(third, PAGE, rustix::mm::MprotectFlags::READ).unwrap();
            }
            let parts = list.within(&span).unwrap();
            assert_eq!((parts.len(), &parts), (3, &query.within(&span).unwrap()));
            assert_eq!(joined(parts), told);
            assert!(is_mapped(&span));
            // SAFETY: as above.
            unsafe { rustix::mm::munmap(ptr::with_exposed_provenance_mut(start + 3 * PAGE), PAGE) }.unwrap();
            for mappings in [&query, &list] {
                assert_eq!(mappings.within(&span).unwrap_err().kind(), io::ErrorKind::NotFound);
            }
            assert!(!is_mapped(&span) && is_mapped(&(start..start + 3 * PAGE)));
        }
    }
}
