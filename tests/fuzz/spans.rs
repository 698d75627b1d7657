//! Sets of bytes, as ranges: sorted, none empty, none touching the next.

use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spans(Vec<Range<u32>>);

impl FromIterator<Range<u32>> for Spans {
    fn from_iter<I: IntoIterator<Item = Range<u32>>>(ranges: I) -> Self {
        let mut ranges: Vec<Range<u32>> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        Self(ranges)
    }
}

impl Spans {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.0.iter().cloned()
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|range| {
            let at = other.0.partition_point(|theirs| theirs.end <= range.start);
            other.0.get(at).is_some_and(|theirs| theirs.start < range.end)
        })
    }

    pub(crate) fn is_within(&self, range: &Range<u32>) -> bool {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => range.start <= first.start && last.end <= range.end,
            _ => true,
        }
    }

    pub(crate) fn clipped(&self, to: &Range<u32>) -> Self {
        self.iter().map(|range| range.start.max(to.start)..range.end.min(to.end)).collect()
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for range in self.iter() {
            let mut at = range.start;
            let from = other.0.partition_point(|theirs| theirs.end <= range.start);
            for theirs in other.0[from..].iter().take_while(|theirs| theirs.start < range.end) {
                left.push(at..theirs.start.max(at));
                at = theirs.end;
            }
            left.push(at.min(range.end)..range.end);
        }
        left.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ranges: &[Range<u32>]) -> Spans {
        ranges.iter().cloned().collect()
    }

    #[test]
    fn sets_are_joined_and_taken_apart() {
        let set = spans(&[10..20, 0..5, 5..7, 30..40]);
        assert_eq!(set, spans(&[0..7, 10..20, 30..40]));
        assert_eq!(set.minus(&spans(&[3..12, 15..16, 39..50])), spans(&[0..3, 12..15, 16..20, 30..39]));
        let all = 0..50;
        assert_eq!(set.minus(&spans(&[all])), Spans::default());
        assert_eq!(set.clipped(&(6..31)), spans(&[6..7, 10..20, 30..31]));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let set = spans(&[10..20, 30..40]);
        assert!(!set.overlaps(&spans(&[0..10, 20..30, 40..41])));
        assert!(set.overlaps(&spans(&[0..10, 39..41])));
        assert!(set.is_within(&(10..40)) && !set.is_within(&(11..40)));
    }
}
