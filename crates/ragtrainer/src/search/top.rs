//! The best of scored places, without sorting all of them.

/// The best `k` of the places that were offered so far.
///
/// Up to twice as many wait in a list, and a selection in linear time halves it. A place that is worse than the last
/// one of the best costs one comparison.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    k: usize,
    kept: Vec<(usize, f32)>,
    /// The score that a place must reach, once there are `k`.
    least: f32,
}

impl Top {
    pub(crate) fn new(k: usize) -> Self {
        Self { k: k.max(1), kept: Vec::new(), least: f32::NEG_INFINITY }
    }

    /// Offers a place. A NaN counts as the lowest score.
    pub(crate) fn offer(&mut self, place: usize, score: f32) {
        if key(score) < self.least {
            return;
        }
        self.kept.push((place, score));
        if self.kept.len() >= self.k.saturating_mul(2) {
            self.select();
        }
    }

    /// Takes over what another one kept.
    pub(crate) fn merge(&mut self, other: Self) {
        self.kept.extend(other.kept);
        if self.kept.len() >= self.k.saturating_mul(2) {
            self.select();
        }
    }

    /// Places and scores, best first, equal scores in the order of their places.
    pub(crate) fn into_sorted(mut self) -> Vec<(usize, f32)> {
        self.select();
        self.kept.sort_unstable_by(order);
        self.kept
    }

    fn select(&mut self) {
        if self.k < self.kept.len() {
            let (_, last, _) = self.kept.select_nth_unstable_by(self.k - 1, order);
            self.least = key(last.1);
            self.kept.truncate(self.k);
        }
    }
}

fn key(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score }
}

fn order(a: &(usize, f32), b: &(usize, f32)) -> std::cmp::Ordering {
    key(b.1).total_cmp(&key(a.1)).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(scored: &[(usize, f32)], k: usize) -> Vec<(usize, f32)> {
        let mut top = Top::new(k);
        scored.iter().for_each(|(place, score)| top.offer(*place, *score));
        top.into_sorted()
    }

    #[test]
    fn the_best_come_first_and_equals_in_order() {
        let scored = [(0, 1.0), (1, 3.0), (2, f32::NAN), (3, 3.0), (4, -2.0)];
        assert_eq!(best(&scored, 2), [(1, 3.0), (3, 3.0)]);
        assert_eq!(best(&scored, 3), [(1, 3.0), (3, 3.0), (0, 1.0)]);
        let all: Vec<usize> = best(&scored, usize::MAX).into_iter().map(|(index, _)| index).collect();
        assert_eq!(all, [1, 3, 0, 4, 2], "beyond the list is the list");
    }

    #[test]
    fn in_any_order_and_in_any_parts_they_are_those_of_a_full_sort() {
        let scored: Vec<(usize, f32)> = (0..500).map(|i| (i, ((i * 7919) % 97) as f32)).collect();
        let mut sorted = scored.clone();
        sorted.sort_by(order);
        for k in [1, 2, 9, 100, 499, 500, 501] {
            let expected = &sorted[..k.min(500)];
            assert_eq!(best(&scored, k), expected);
            let mut parts = scored.chunks(64).rev().map(|part| {
                let mut top = Top::new(k);
                part.iter().rev().for_each(|(place, score)| top.offer(*place, *score));
                top
            });
            let mut all = parts.next().unwrap();
            parts.for_each(|part| all.merge(part));
            assert_eq!(all.into_sorted(), expected, "{k}");
        }
    }
}
