//! When shared pages get what the device wrote. The kernel tells which pages are held back: those that are not mapped.

use crate::bench::{Bench, PAGE, SIZE};
use std::os::unix::fs::FileExt;
use tidemark_tests::{PageKind, Pages};

impl Bench {
    /// Has the device write pages, which are fetched when they are touched, or at the wait.
    pub(crate) fn fetch(&self, on_fault: bool) {
        let pages = Pages::new(PageKind::Shared, SIZE).expect("pages");
        let load = |at: usize| {
            // SAFETY: inside the pages.
            unsafe { pages.start().add(at).read_volatile() }
        };
        // SAFETY: all of the pages.
        unsafe { pages.start().write_bytes(1, SIZE) };
        let (imported, memory) = self.import_buffer(pages.start());
        for round in 2..5 {
            // SAFETY: inside the mapping.
            unsafe { self.view.write_bytes(round, SIZE) };
            self.copy(self.other, imported);
            let all = SIZE / PAGE;
            assert_eq!(mapped(&pages), if on_fault { 0 } else { all });
            assert_eq!(load(5 * PAGE), round);
            assert_eq!(mapped(&pages) < all, on_fault);
        }
        self.free((imported, memory));
        // All of it, when they are the application's alone again.
        assert!((0..SIZE).all(|at| load(at) == 4));
    }
}

/// How many pages are mapped.
fn mapped(pages: &Pages) -> usize {
    let pagemap = std::fs::File::open("/proc/self/pagemap").expect("a map of pages");
    let first = pages.start() as usize / PAGE;
    let is_mapped = |page: usize| {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, 8 * page as u64).expect("an entry");
        u64::from_ne_bytes(entry) >> 63 == 1
    };
    (first..first + pages.len() / PAGE).filter(|page| is_mapped(*page)).count()
}
