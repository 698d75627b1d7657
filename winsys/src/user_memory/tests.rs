//! What becomes of pages that are lent, case by case.

use super::*;
use crate::host_memory::Arena;
use crate::tracker::{Compare, WriteProtect};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr;

const PAGE: usize = 4096;
const PAGES: usize = 8;
const LEN: usize = PAGES * PAGE;
const WRITABLE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn at(address: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address)
}

fn anonymous(flags: MapFlags) -> Span {
    // SAFETY: a new mapping, at an address the kernel chooses. Tests leave theirs to the end of the process.
    let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), LEN, WRITABLE, flags) }.unwrap();
    let start = start.expose_provenance();
    start..start + LEN
}

fn of_file(file: &OwnedFd, access: ProtFlags, flags: MapFlags, offset: usize) -> Span {
    // SAFETY: as above.
    let start = unsafe { rustix::mm::mmap(ptr::null_mut(), LEN, access, flags, file, offset as u64) };
    let start = start.unwrap().expose_provenance();
    start..start + LEN
}

/// A file of twice the length that nobody else knows, on a disk or in memory.
fn file(on_disk: bool) -> OwnedFd {
    let file = if on_disk {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(env!("CARGO_MANIFEST_DIR"), flags, Mode::RUSR | Mode::WUSR).unwrap()
    } else {
        rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap()
    };
    rustix::fs::ftruncate(&file, 2 * LEN as u64).unwrap();
    file
}

/// Memory of every kind that can be watched.
fn kinds() -> [(&'static str, Span); 6] {
    let (on_disk, in_memory) = (file(true), file(false));
    [
        ("private", anonymous(MapFlags::PRIVATE)),
        ("shared", anonymous(MapFlags::SHARED)),
        ("memfd", of_file(&in_memory, WRITABLE, MapFlags::SHARED, 0)),
        ("private memfd", of_file(&in_memory, WRITABLE, MapFlags::PRIVATE, 0)),
        ("file", of_file(&on_disk, WRITABLE, MapFlags::SHARED, 0)),
        ("private file", of_file(&on_disk, WRITABLE, MapFlags::PRIVATE, 0)),
    ]
}

fn lending() -> Arc<Lending> {
    Lending::new(Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking")))
}

fn lend(lending: &Arc<Lending>, span: &Span) -> UserMemory {
    // SAFETY: mappings of the tests', which they read and write with due care.
    unsafe { lending.lend(span.clone(), Trust::Watched) }.unwrap()
}

fn refusal(lending: &Arc<Lending>, span: &Span) -> Refusal {
    // SAFETY: as above.
    unsafe { lending.lend(span.clone(), Trust::Watched) }.err().expect("it was lent")
}

fn store(address: usize, value: u8) {
    // SAFETY: the tests pass addresses of live mappings.
    unsafe { at(address).write_volatile(value) }
}

fn load(address: usize) -> u8 {
    // SAFETY: as above.
    unsafe { at(address).read_volatile() }
}

/// The pages of `memory` that were written since the last time, by index.
fn written(memory: &UserMemory) -> Vec<usize> {
    let mut spans = Vec::new();
    memory.lending.tracker.collect(memory.span(), &mut spans).unwrap();
    spans.into_iter().flatten().step_by(PAGE).map(|at| (at - memory.span.start) / PAGE).collect()
}

fn page(span: &Span, index: usize) -> Span {
    span.start + index * PAGE..span.start + (index + 1) * PAGE
}

fn unmap(span: &Span) {
    // SAFETY: a part of a test's mapping, which it does not touch any more.
    unsafe { rustix::mm::munmap(at(span.start).cast(), span.len()) }.unwrap();
}

fn map_over(span: &Span) {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: as above.
    unsafe { rustix::mm::mmap_anonymous(at(span.start).cast(), span.len(), WRITABLE, flags) }.unwrap();
}

fn protect(span: &Span, access: MprotectFlags) {
    // SAFETY: as above.
    unsafe { rustix::mm::mprotect(at(span.start).cast(), span.len(), access) }.unwrap();
}

/// Fills `into` with the bytes at an address.
fn fetch(access: &Access, address: usize, into: &mut [u8]) -> io::Result<()> {
    let blocks = (address..).step_by(BLOCK).zip(into.chunks_mut(BLOCK));
    for (address, block) in blocks {
        let len = block.len();
        // SAFETY: so many bytes are shown, and fit.
        let take = |bytes: *const u8| unsafe { bytes.copy_to_nonoverlapping(block.as_mut_ptr(), len) };
        access.read(address, len, take)?;
    }
    Ok(())
}

#[test]
fn pages_of_any_kind_are_watched_and_reached() {
    for (kind, span) in kinds() {
        store(span.start + 2 * PAGE, 9);
        let lending = lending();
        let memory = lend(&lending, &span);
        assert!(memory.is_watched(), "{kind}");
        // All of it is new.
        assert_eq!(written(&memory), (0..PAGES).collect::<Vec<_>>(), "{kind}");
        store(span.start + 5 * PAGE + 1, 7);
        assert_eq!((written(&memory), written(&memory)), (vec![5], vec![]), "{kind}");

        let mut bytes = vec![1; LEN];
        let access = memory.access().unwrap();
        fetch(access, span.start, &mut bytes).unwrap();
        assert_eq!([bytes[2 * PAGE], bytes[5 * PAGE + 1], bytes[0]], [9, 7, 0], "{kind}");
        // To read is not to write.
        assert_eq!(written(&memory), Vec::<usize>::new(), "{kind}");

        let mut old = vec![0; 2 * PAGE];
        let mut new = old.clone();
        (new[3], new[PAGE + 1], new[PAGE + 2], old[9]) = (1, 2, 3, 4);
        store(span.start + 4, 5);
        assert_eq!(access.store_differences(span.start, &new, &mut old).unwrap(), 4, "{kind}");
        assert_eq!(old, new);
        let is = [3, 4, PAGE + 1, PAGE + 2, 9].map(|offset| load(span.start + offset));
        assert_eq!(is, [1, 5, 2, 3, 0], "{kind}");
        assert_eq!(memory.verify(&span), Ok(()), "{kind}");

        drop(memory);
        assert!(lending.tracker.peek(span.clone(), &mut Vec::new()).is_err(), "{kind}");
        assert!(lend(&lending, &span).is_watched(), "{kind}");
    }
}

#[test]
fn many_runs_are_stored_in_as_many_calls_as_it_takes() {
    let span = anonymous(MapFlags::PRIVATE);
    let memory = lend(&lending(), &span);
    let new: Vec<u8> = (0..BLOCK).map(|at| u8::from(at % 2 == 0)).collect();
    let mut old = vec![0; BLOCK];
    (0..BLOCK).filter(|at| at % 2 == 1).for_each(|at| store(span.start + at, 2));
    let stored = memory.access().unwrap().store_differences(span.start, &new, &mut old).unwrap();
    assert_eq!((stored, &old), (BLOCK / 2, &new));
    assert!((0..BLOCK).all(|at| load(span.start + at) == if at % 2 == 0 { 1 } else { 2 }));
}

#[test]
fn what_cannot_be_written_is_not_said_to_have_been() {
    let span = anonymous(MapFlags::PRIVATE);
    let memory = lend(&lending(), &span);
    protect(&page(&span, 1), MprotectFlags::READ);
    let new = vec![1; 3 * PAGE];
    let mut old = vec![0; 3 * PAGE];
    let access = memory.access().unwrap();
    assert!(access.store_differences(span.start, &new, &mut old).is_err());
    assert_eq!(old[..PAGE], new[..PAGE]);
    assert_eq!(old[PAGE..], vec![0; 2 * PAGE]);
    assert_eq!([0, PAGE, 2 * PAGE].map(|offset| load(span.start + offset)), [1, 0, 0]);
    // They are the same pages all the while.
    assert_eq!(memory.verify(&span), Ok(()));
    protect(&page(&span, 1), MprotectFlags::empty());
    assert!(fetch(access, span.start, &mut old).is_err());
    assert_eq!(memory.verify(&span), Ok(()));
    protect(&page(&span, 1), MprotectFlags::READ | MprotectFlags::WRITE);
    assert_eq!(access.store_differences(span.start, &new, &mut old).unwrap(), 2 * PAGE);
}

#[test]
fn unmapped_pages_are_lost_and_the_others_are_not_touched_again() {
    for (kind, span) in kinds() {
        let memory = lend(&lending(), &span);
        unmap(&page(&span, 3));
        assert_eq!(memory.verify(&page(&span, 2)), Ok(()), "{kind}");
        assert_eq!(memory.verify_before_scan(&span), Err(Loss::Unmapped), "{kind}");
        // Even where they are still there.
        assert!(memory.verify(&page(&span, 2)).is_err(), "{kind}");
        assert!(memory.verify_before_scan(&page(&span, 2)).is_err(), "{kind}");
    }
}

#[test]
fn replaced_pages_are_lost() {
    for (kind, span) in kinds() {
        let memory = lend(&lending(), &span);
        map_over(&page(&span, 3));
        // A hole there is not.
        assert_eq!(memory.verify_before_scan(&span), Ok(()), "{kind}");
        assert!(memory.lending.tracker.collect(span.clone(), &mut Vec::new()).is_err(), "{kind}");
        assert_eq!(memory.verify(&span), Err(Loss::Replaced), "{kind}");
    }
}

#[test]
fn moved_pages_are_lost_where_they_were_and_where_they_went() {
    let span = anonymous(MapFlags::PRIVATE);
    let lending = lending();
    let memory = lend(&lending, &span);
    let target = anonymous(MapFlags::PRIVATE);
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: mappings of this test's.
    let moved =
        unsafe { rustix::mm::mremap_fixed(at(span.start).cast(), LEN, LEN, flags, at(target.start).cast()) };
    moved.unwrap();
    assert_eq!(memory.verify(&span), Err(Loss::Unmapped));
    assert!(lending.tracker.peek(target, &mut Vec::new()).is_err());
}

#[test]
fn emptied_pages_count_as_written_if_their_bytes_are_gone() {
    for (kind, span) in kinds().into_iter().filter(|(kind, _)| !kind.starts_with("private ")) {
        let is_private = kind == "private";
        (0..PAGES).for_each(|index| store(span.start + index * PAGE, 1));
        let memory = lend(&lending(), &span);
        written(&memory);
        let part = page(&span, 2).start..page(&span, 4).end;
        // SAFETY: a part of this test's mapping.
        unsafe { rustix::mm::madvise(at(part.start).cast(), part.len(), Advice::LinuxDontNeed) }.unwrap();
        assert_eq!(memory.verify(&span), Ok(()), "{kind}");
        assert_eq!(written(&memory), if is_private { vec![2, 3, 4] } else { vec![] }, "{kind}");
        let mut bytes = [7; LEN];
        fetch(memory.access().unwrap(), span.start, &mut bytes).unwrap();
        assert_eq!([bytes[PAGE], bytes[3 * PAGE]], [1, u8::from(!is_private)], "{kind}");
    }
}

#[test]
fn a_truncated_file_is_unreadable_and_not_lost() {
    for on_disk in [false, true] {
        let file = file(on_disk);
        let span = of_file(&file, WRITABLE, MapFlags::SHARED, 0);
        let memory = lend(&lending(), &span);
        rustix::fs::ftruncate(&file, 0).unwrap();
        let access = memory.access().unwrap();
        assert!(fetch(access, span.start, &mut [0]).is_err());
        assert!(access.store_differences(span.start, &[1], &mut [0]).is_err());
        assert_eq!(memory.verify(&span), Ok(()));
    }
}

#[test]
fn locked_and_huge_pages_are_pages_like_others() {
    let span = anonymous(MapFlags::PRIVATE);
    // SAFETY: this test's mapping.
    unsafe { rustix::mm::mlock(at(span.start).cast(), LEN) }.unwrap();
    let memory = lend(&lending(), &span);
    written(&memory);
    store(span.start, 1);
    assert_eq!((written(&memory), memory.verify(&span)), (vec![0], Ok(())));

    // SAFETY: new mappings, and advice on them.
    let start = unsafe {
        let len = 8 << 20;
        let start = rustix::mm::mmap_anonymous(ptr::null_mut(), len, WRITABLE, MapFlags::PRIVATE).unwrap();
        // Kernels may do without.
        let _ = rustix::mm::madvise(start, len, Advice::LinuxHugepage);
        start.expose_provenance().next_multiple_of(2 << 20)
    };
    let span = start..start + (4 << 20);
    span.clone().step_by(PAGE).for_each(|address| store(address, 1));
    let memory = lend(&lending(), &span);
    written(&memory);
    store(span.start + 777 * PAGE, 2);
    assert_eq!((written(&memory), memory.verify(&span)), (vec![777], Ok(())));
}

#[test]
fn several_mappings_in_a_row_are_fine() {
    let span = anonymous(MapFlags::PRIVATE);
    map_over(&page(&span, 2));
    let file = file(false);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    let place = at(page(&span, 5).start).cast();
    // SAFETY: a part of this test's mapping.
    unsafe { rustix::mm::mmap(place, PAGE, WRITABLE, flags, &file, 0) }.unwrap();
    protect(&page(&span, 6), MprotectFlags::READ);
    let memory = lend(&lending(), &span);
    assert!(memory.is_watched());
    assert_eq!(written(&memory).len(), PAGES);
    store(page(&span, 5).start, 1);
    assert_eq!((written(&memory), memory.verify(&span)), (vec![5], Ok(())));
}

#[test]
fn what_cannot_be_watched_is_recognised_by_the_list_of_mappings() {
    let writable = file(true);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writable));
    let read_only = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let compare = Lending::new(Arc::new(Compare));
    let cases = [
        (lending(), of_file(&read_only, ProtFlags::READ, MapFlags::SHARED, 0)),
        (compare.clone(), of_file(&writable, WRITABLE, MapFlags::SHARED, 0)),
        (compare.clone(), anonymous(MapFlags::SHARED)),
        (compare, anonymous(MapFlags::PRIVATE)),
    ];
    for (lending, span) in cases {
        let memory = lend(&lending, &span);
        assert!(!memory.is_watched());
        fetch(memory.access().unwrap(), span.start, &mut [0; LEN]).unwrap();
        protect(&page(&span, 1), MprotectFlags::READ);
        assert_eq!(memory.verify(&span), Ok(()));
        assert_eq!(memory.verify_before_scan(&page(&span, 1)), Ok(()));
        // Another place in the file is not what was lent.
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let (place, offset) = (at(page(&span, 3).start).cast(), 4 * PAGE as u64);
        // SAFETY: a part of this test's mapping.
        unsafe { rustix::mm::mmap(place, PAGE, WRITABLE, flags, &writable, offset) }.unwrap();
        assert_eq!(memory.verify(&page(&span, 2)), Ok(()));
        assert_eq!(memory.verify(&span), Err(Loss::Replaced));
        unmap(&page(&span, 3));
        assert_eq!(memory.verify(&span), Err(Loss::Unmapped));
    }
}

#[test]
fn pages_that_are_lent_twice_are_watched_for_one_borrower_alone() {
    let span = anonymous(MapFlags::PRIVATE);
    let lending = lending();
    let first = lend(&lending, &span);
    let half = span.start..span.start + LEN / 2;
    let second = lend(&lending, &half);
    assert!(first.is_watched() && !second.is_watched());
    written(&first);
    drop(second);
    store(span.start, 1);
    assert_eq!((written(&first), first.verify(&span)), (vec![0], Ok(())));
    // Those of another device are another's, too.
    let other = lend(&self::lending(), &span);
    assert!(!other.is_watched());
    assert_eq!(other.verify(&span), Ok(()));
    drop(first);
    assert!(lend(&lending, &half).is_watched());
}

#[test]
fn pages_in_the_place_of_lost_ones_can_be_lent_anew() {
    let span = anonymous(MapFlags::PRIVATE);
    let lending = lending();
    let first = lend(&lending, &span);
    written(&first);
    map_over(&page(&span, 3));
    let second = lend(&lending, &span);
    assert!(second.is_watched());
    // They are registered again, but not for the first.
    assert_eq!(first.verify(&span), Err(Loss::Replaced));
    assert!(first.verify_before_scan(&span).is_err());
    drop(first);
    // All of them, though most were found unwritten for the first.
    assert_eq!(written(&second), (0..PAGES).collect::<Vec<_>>());
    store(span.start, 1);
    assert_eq!((written(&second), second.verify(&span)), (vec![0], Ok(())));
}

#[test]
fn refused_is_what_is_not_mapped_not_readable_or_ours() {
    let lending = lending();
    let span = anonymous(MapFlags::PRIVATE);
    protect(&page(&span, 7), MprotectFlags::empty());
    assert!(matches!(refusal(&lending, &span), Refusal::Unreadable(_)));
    unmap(&page(&span, 7));
    assert!(matches!(refusal(&lending, &span), Refusal::NotMapped));
    assert!(lend(&lending, &(span.start..span.end - PAGE)).is_watched());

    let arena = Arena::new(Arc::new(Compare));
    let own = arena.allocate(LEN).unwrap();
    assert!(matches!(refusal(&lending, &own.span()), Refusal::Own));
    let alias = own.alias().expose_provenance();
    assert!(matches!(refusal(&lending, &(alias..alias + LEN)), Refusal::Own));
}

#[test]
fn blind_trust_asks_nothing() {
    let span = anonymous(MapFlags::PRIVATE);
    // SAFETY: nobody touches them.
    let memory = unsafe { lending().lend(span.clone(), Trust::Blind) }.unwrap();
    unmap(&span);
    assert!(memory.access().is_none() && !memory.is_watched());
    assert_eq!(memory.verify(&span), Ok(()));
}

#[test]
fn a_forked_child_loses_them_and_the_parent_does_not() {
    let span = anonymous(MapFlags::PRIVATE);
    let lending = lending();
    let memory = lend(&lending, &span);
    written(&memory);
    // SAFETY: the child makes system calls and allocates, which glibc keeps usable.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_lost = memory.verify(&span) == Err(Loss::Forked)
            && memory.verify_before_scan(&span) == Err(Loss::Forked);
        drop(memory);
        // SAFETY: ends the child without running anything of its parent's.
        unsafe { libc::_exit(if is_lost { 42 } else { 1 }) };
    }
    store(span.start + PAGE, 1);
    let mut status = 0;
    // SAFETY: this process's child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 42);
    assert_eq!((written(&memory), memory.verify(&span)), (vec![1], Ok(())));
}

#[test]
fn pages_that_are_lent_again_are_new_where_others_may_have_written_them() {
    for (kind, span) in kinds() {
        let memory = lend(&lending(), &span);
        written(&memory);
        store(span.start + PAGE, 1);
        assert!(memory.resume(), "{kind}");
        let expected = if kind == "private" { vec![1] } else { (0..PAGES).collect() };
        assert_eq!((written(&memory), written(&memory)), (expected, vec![]), "{kind}");
        assert_eq!(memory.verify(&span), Ok(()), "{kind}");
    }
}
