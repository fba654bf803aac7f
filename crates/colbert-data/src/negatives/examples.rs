//! Makes examples from the positives and negatives of one query.

use rand::Rng;

use crate::sets::training_set::Example;
use crate::texts::sample::{distinct_below, rng_for};

/// Triples that the reference makes of a query with several positives, at least.
const REFERENCE_TRIPLES: usize = 20;

/// Examples of one query. `positives` and `negatives` have no member in common and no repeats.
pub(crate) struct QueryExamples {
    pub(crate) examples: Vec<Example>,
    /// Examples whose last negatives were already used in an earlier example of the same positive.
    pub(crate) filled_up: usize,
}

pub(crate) fn all(query: u32, positives: &[u32], negatives: &[u32], nway: usize) -> QueryExamples {
    let wanted = nway - 1;
    let mut made = QueryExamples { examples: Vec::new(), filled_up: 0 };
    if negatives.len() < wanted {
        return made;
    }
    for &positive in positives {
        let mut push = |rest: &[u32]| {
            // The first negatives come round again: they are not in `rest`, as there are at least `wanted` in all.
            let again = wanted - rest.len();
            made.filled_up += usize::from(again > 0);
            let documents =
                std::iter::once(positive).chain(rest.iter().copied()).chain(negatives[..again].iter().copied());
            made.examples.push(Example { query, documents: documents.collect(), scores: None });
        };
        if wanted == 0 {
            push(&[]);
        } else {
            negatives.chunks(wanted).for_each(push);
        }
    }
    made
}

/// One example per positive, with all negatives.
pub(crate) fn pools(query: u32, positives: &[u32], negatives: &[u32]) -> QueryExamples {
    all(query, positives, negatives, negatives.len() + 1)
}

/// As many triples as the reference makes. `text` is the query's, so that the draw depends only on it and the seed.
pub(crate) fn reference(query: u32, positives: &[u32], negatives: &[u32], seed: u64, text: &str) -> QueryExamples {
    if positives.len() < 2 || negatives.is_empty() {
        return all(query, positives, negatives, 2);
    }
    let mut rng = rng_for(seed, "reference triples", text);
    let each = (REFERENCE_TRIPLES / positives.len()).max(1).min(negatives.len());
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for positive in 0..positives.len() {
        pairs.extend(distinct_below(&mut rng, negatives.len(), each).into_iter().map(|negative| (positive, negative)));
    }
    if pairs.len() < REFERENCE_TRIPLES {
        let mut unseen: Vec<_> = (0..positives.len())
            .flat_map(|positive| (0..negatives.len()).map(move |negative| (positive, negative)))
            .filter(|pair| !pairs.contains(pair))
            .collect();
        while pairs.len() < REFERENCE_TRIPLES && !unseen.is_empty() {
            let chosen = rng.random_range(0..unseen.len() as u64) as usize;
            pairs.push(unseen.swap_remove(chosen));
        }
    }
    let examples = pairs
        .into_iter()
        .map(|(positive, negative)| Example {
            query,
            documents: vec![positives[positive], negatives[negative]],
            scores: None,
        })
        .collect();
    QueryExamples { examples, filled_up: 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(count: u32, from: u32) -> Vec<u32> {
        (from..from + count).collect()
    }

    #[test]
    fn reference_triple_counts() {
        let cases = [
            (1, 7, 7),
            (1, 30, 30),
            (2, 10, 20),
            (3, 10, 20),
            (4, 10, 20),
            (21, 10, 21),
            (25, 3, 25),
            (2, 3, 6),
            (20, 1, 20),
            (3, 0, 0),
        ];
        for (positives, negatives, expected) in cases {
            let made = reference(0, &ids(positives, 0), &ids(negatives, 100), 42, "q").examples;
            assert_eq!(made.len(), expected, "{positives} positives, {negatives} negatives");
            let distinct: HashSet<_> = made.iter().map(|example| example.documents.clone()).collect();
            assert_eq!(distinct.len(), expected, "a triple twice: {positives} positives, {negatives} negatives");
        }
    }

    #[test]
    fn all_pairs_every_positive_with_every_negative() {
        let made = all(3, &[1, 2], &[8, 9, 7], 2);
        let documents: Vec<_> = made.examples.iter().map(|example| example.documents.clone()).collect();
        assert_eq!(documents, [[1, 8], [1, 9], [1, 7], [2, 8], [2, 9], [2, 7]]);
        assert_eq!(made.filled_up, 0);
    }

    #[test]
    fn a_pool_is_a_positive_with_all_negatives() {
        let made = pools(3, &[1, 2], &[8, 9, 7]);
        let documents: Vec<_> = made.examples.iter().map(|example| example.documents.clone()).collect();
        assert_eq!((documents, made.filled_up), (vec![vec![1, 8, 9, 7], vec![2, 8, 9, 7]], 0));
    }

    #[test]
    fn nway_takes_negatives_in_groups_and_fills_up_the_last() {
        let made = all(3, &[1], &[5, 6, 7, 8, 9], 4);
        let documents: Vec<_> = made.examples.iter().map(|example| example.documents.clone()).collect();
        assert_eq!(documents, [[1, 5, 6, 7], [1, 8, 9, 5]]);
        assert_eq!(made.filled_up, 1);
        assert!(all(3, &[1], &[5, 6], 4).examples.is_empty());
        assert_eq!(all(3, &[1, 2], &[], 1).examples.len(), 2);
    }
}
