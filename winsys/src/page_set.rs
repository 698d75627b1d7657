//! A set of pages of one allocation: a bit each, so 0.003 % of its size.

use std::ops::Range;

/// Pages by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// The empty set, of an allocation of `pages` pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self { words: vec![0; pages.div_ceil(64)] }
    }

    pub(crate) fn insert(&mut self, pages: Range<usize>) {
        for (word, mask) in masks(pages) {
            self.words[word] |= mask;
        }
    }

    pub(crate) fn remove(&mut self, pages: Range<usize>) {
        for (word, mask) in masks(pages) {
            self.words[word] &= !mask;
        }
    }

    pub(crate) fn contains(&self, page: usize) -> bool {
        self.words[page / 64] >> (page % 64) & 1 == 1
    }

    /// Cuts `pages` into maximal runs that are wholly in the set or wholly outside.
    pub(crate) fn runs(&self, mut pages: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> {
        std::iter::from_fn(move || {
            let first = self.first_run(pages.clone())?;
            pages.start = first.0.end;
            Some(first)
        })
    }

    /// The first of these runs.
    pub(crate) fn first_run(&self, pages: Range<usize>) -> Option<(Range<usize>, bool)> {
        if pages.is_empty() {
            return None;
        }
        let inside = self.contains(pages.start);
        Some((pages.start..self.end_of_run(pages.start, inside).min(pages.end), inside))
    }

    /// The first page after `page` that is not in the set as `inside` says; at least the number of pages if none.
    fn end_of_run(&self, page: usize, inside: bool) -> usize {
        let mut word = page / 64;
        // Bits set where the run ends.
        let ends = |bits: u64| if inside { !bits } else { bits };
        let mut bits = ends(self.words[word]) & (u64::MAX << (page % 64));
        while bits == 0 {
            word += 1;
            match self.words.get(word) {
                Some(&next) => bits = ends(next),
                None => return word * 64,
            }
        }
        word * 64 + bits.trailing_zeros() as usize
    }
}

/// The words that `pages` touch, each with the bits inside.
fn masks(pages: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let first = pages.start / 64;
    let last = if pages.is_empty() { first } else { pages.end.div_ceil(64) };
    (first..last).map(move |word| {
        let from = pages.start.saturating_sub(word * 64);
        let until = (pages.end - word * 64).min(64);
        (word, (u64::MAX << from) & (u64::MAX >> (64 - until)))
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// More than three words of pages.
    const MOST: usize = 200;

    /// What changes a set, and whether the pages are in it then.
    type Change = (fn(&mut PageSet, Range<usize>), bool);

    const CHANGES: &[Change] = &[(PageSet::insert, true), (PageSet::remove, false)];

    fn any_pages() -> impl Strategy<Value = Range<usize>> {
        (0..=MOST, 0..=MOST).prop_map(|(one, other)| one.min(other)..one.max(other))
    }

    proptest! {
        #[test]
        fn agrees_with_a_bool_for_each_page(
            size in 1..=MOST,
            changes in vec((select(CHANGES), any_pages()), 0..12),
            asked in any_pages(),
        ) {
            let clip = |pages: Range<usize>| pages.start.min(size)..pages.end.min(size);
            let (mut set, mut bools) = (PageSet::new(size), vec![false; size]);
            for ((change, is_inside), pages) in changes {
                change(&mut set, clip(pages.clone()));
                bools[clip(pages)].fill(is_inside);
            }
            let contained: Vec<bool> = (0..size).map(|page| set.contains(page)).collect();
            prop_assert_eq!(&contained, &bools);

            let mut at = clip(asked.clone()).start;
            let runs = bools[clip(asked.clone())].chunk_by(|one, next| one == next).map(|run| {
                at += run.len();
                (at - run.len()..at, run[0])
            });
            prop_assert_eq!(set.runs(clip(asked)).collect::<Vec<_>>(), runs.collect::<Vec<_>>());
        }
    }
}
