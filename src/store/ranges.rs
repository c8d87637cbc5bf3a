//! A set of byte ranges: what of a blob is there, and what is missing. Pure.

use std::{collections::BTreeMap, ops::Range};

/// Half-open, disjoint, never touching: start to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // What overlaps or touches begins at or before our end.
        while let Some((&first, &last)) = self.0.range(..=end).next_back().filter(|(_, last)| **last >= start)
        {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.0.insert(start, end);
    }

    /// Where the range that holds `at` ends.
    pub fn end_at(&self, at: u64) -> Option<u64> {
        self.0.range(..=at).next_back().map(|(_, end)| *end).filter(|end| *end > at)
    }

    pub fn sum(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// What is missing of the whole.
    pub fn gaps(&self, size: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for range in self.iter() {
            gaps.push(at..range.start.min(size));
            at = range.end;
        }
        gaps.push(at..size);
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_ranges_are_the_bytes_that_were_put_in(list in prop::collection::vec((0_u64..60, 0_u64..20), 0..12)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 80];
            for (start, len) in list {
                ranges.insert(start..start + len);
                (start..start + len).for_each(|at| bytes[usize::try_from(at).unwrap()] = true);
            }
            let has = |at: u64| bytes[usize::try_from(at).unwrap()];
            prop_assert_eq!(ranges.sum(), bytes.iter().filter(|has| **has).count() as u64);
            for at in 0..80 {
                prop_assert_eq!(ranges.end_at(at).is_some(), has(at));
                prop_assert_eq!(ranges.gaps(80).iter().any(|gap| gap.contains(&at)), !has(at));
            }
            let ends: Vec<_> = ranges.iter().collect();
            prop_assert!(ends.windows(2).all(|two| two[0].end < two[1].start), "{:?}", ends);
        }
    }
}
