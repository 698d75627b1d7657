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
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_outside_and_its_neighbours_are_not() {
        let mut set = PageSet::new(200);
        set.insert(0..200);
        for pages in [3..5, 60..130, 199..200, 9..9] {
            set.remove(pages);
        }
        let outside: Vec<usize> = (0..200).filter(|&page| !set.contains(page)).collect();
        assert_eq!(outside, [3..5, 60..130, 199..200].into_iter().flatten().collect::<Vec<_>>());
    }

    #[test]
    fn runs_alternate_and_cover_the_range() {
        let mut set = PageSet::new(300);
        for pages in [3..5, 60..70, 128..192, 250..300, 7..7] {
            set.insert(pages);
        }
        let inside: Vec<usize> = (0..300).filter(|&page| set.contains(page)).collect();
        assert_eq!(inside, [3..5, 60..70, 128..192, 250..300].into_iter().flatten().collect::<Vec<_>>());
        for range in [0..300, 4..61, 64..64, 128..129, 63..251, 299..300] {
            let mut at = range.start;
            let mut before = None;
            for (run, is_inside) in set.runs(range.clone()) {
                assert_eq!(run.start, at);
                assert!(!run.is_empty() && before != Some(is_inside));
                assert!(run.clone().all(|page| set.contains(page) == is_inside));
                (at, before) = (run.end, Some(is_inside));
            }
            assert_eq!(at, range.end.max(range.start));
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_nothing_else() {
        let mut set = PageSet::new(300);
        set.insert(0..300);
        for pages in [3..5, 60..70, 128..192, 7..7] {
            set.remove(pages);
        }
        let expected = [0..3, 5..60, 70..128, 192..300];
        let left: Vec<Range<usize>> =
            set.runs(0..300).filter(|(_, is_inside)| *is_inside).map(|(run, _)| run).collect();
        assert_eq!(left, expected);
    }
}
