//! Where two blocks of bytes differ.

use std::ops::Range;

/// The maximal runs of bytes in which two slices of one length differ, in ascending order.
pub(super) fn runs<'a>(new: &'a [u8], old: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        at = skip(new, old, at, |words| words.0 == words.1, |bytes| bytes.0 == bytes.1);
        let start = at;
        at = skip(new, old, at, |_| false, |bytes| bytes.0 != bytes.1);
        (start < at).then_some(start..at)
    })
}

/// The first index from `at` on where `byte` does not hold; whole words for which `word` does are passed over.
fn skip(
    new: &[u8],
    old: &[u8],
    mut at: usize,
    word: impl Fn((&[u8; 8], &[u8; 8])) -> bool,
    byte: impl Fn((u8, u8)) -> bool,
) -> usize {
    loop {
        match (new[at..].first_chunk(), old[at..].first_chunk()) {
            (Some(new), Some(old)) if word((new, old)) => at += 8,
            _ if at < new.len() && byte((new[at], old[at])) => at += 1,
            _ => return at,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agree_with_their_definition(pairs in vec((0..3u8, 0..3u8), 0..80)) {
            let (new, old): (Vec<u8>, Vec<u8>) = pairs.iter().copied().unzip();
            let mut at = 0;
            let by_bytes = pairs.chunk_by(|one, next| (one.0 == one.1) == (next.0 == next.1)).filter_map(|run| {
                at += run.len();
                (run[0].0 != run[0].1).then_some(at - run.len()..at)
            });
            let by_bytes: Vec<_> = by_bytes.collect();
            prop_assert_eq!(runs(&new, &old).collect::<Vec<_>>(), by_bytes);
        }
    }
}
