//! Sets of places, as ranges.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Places, as ranges that rise, do not touch and are not empty: `[[start, end], ...]`, the end exclusive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PlaceRanges(Vec<[usize; 2]>);

impl PlaceRanges {
    /// Number of places.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|[start, end]| end - start).sum()
    }

    /// Whether the ranges are as they are written here, and below `count`.
    pub(crate) fn is_sound(&self, count: usize) -> bool {
        let mut last = None;
        self.0.iter().all(|[start, end]| {
            let rises = start < end && last.is_none_or(|last| last < *start);
            last = Some(*end);
            rises && *end <= count
        })
    }

    pub(crate) fn contains(&self, place: usize) -> bool {
        let after = self.0.partition_point(|[start, _]| *start <= place);
        after > 0 && place < self.0[after - 1][1]
    }

    /// The places below `count`.
    #[cfg(feature = "index")]
    pub(crate) fn ranges_below(&self, count: usize) -> Vec<Range<usize>> {
        let below = self.0.iter().map(|[start, end]| *start..count.min(*end));
        below.filter(|range| !range.is_empty()).collect()
    }

    /// Adds places; those that are in the set stay there.
    pub(crate) fn insert(&mut self, places: Range<usize>) {
        if places.is_empty() {
            return;
        }
        let first = self.0.partition_point(|[_, end]| *end < places.start);
        let behind = self.0.partition_point(|[start, _]| *start <= places.end);
        let touched = &self.0[first..behind];
        let start = touched.first().map_or(places.start, |[start, _]| places.start.min(*start));
        let end = touched.last().map_or(places.end, |[_, end]| places.end.max(*end));
        self.0.splice(first..behind, [[start, end]]);
    }

    /// The ranges of `places` that are not in the set.
    pub(crate) fn gaps(&self, places: Range<usize>) -> Vec<Range<usize>> {
        let first = self.0.partition_point(|[_, end]| *end <= places.start);
        let mut gaps = Vec::new();
        let mut from = places.start;
        for [start, end] in &self.0[first..] {
            if *start >= places.end {
                break;
            }
            if from < *start {
                gaps.push(from..*start);
            }
            from = *end;
        }
        if from < places.end {
            gaps.push(from..places.end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn they_are_the_set_that_was_put_in() {
        let (mut ranges, mut set) = (PlaceRanges::default(), BTreeSet::new());
        for i in 0..200 {
            let start = (i * 7919) % 300;
            let places = start..start + i % 4;
            ranges.insert(places.clone());
            set.extend(places);
            assert!(ranges.is_sound(310) && ranges.len() == set.len(), "{ranges:?}");
            assert!((0..310).all(|place| ranges.contains(place) == set.contains(&place)), "{ranges:?}");
            let window = start / 2..start + 5;
            let gaps: Vec<usize> = ranges.gaps(window.clone()).into_iter().flatten().collect();
            assert_eq!(gaps, window.filter(|place| !set.contains(place)).collect::<Vec<_>>());
        }
        assert!(!ranges.is_sound(100));
        for unsound in [vec![[3, 3]], vec![[1, 2], [2, 3]], vec![[4, 5], [1, 2]]] {
            assert!(!PlaceRanges(unsound).is_sound(9));
        }
    }
}
