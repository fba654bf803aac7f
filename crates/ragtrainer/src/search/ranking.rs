//! Exact MaxSim over encoded documents, and what comes out of it.

use serde::Serialize;

use crate::error::Error;
use crate::search::text_vectors::TextVectors;

/// Numbers of document vectors that are scored at once: 16 MiB.
pub(crate) const BLOCK_NUMBERS: usize = 4 << 20;

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Rank, from 1.
    pub rank: usize,
    /// MaxSim of query and document: it depends on these two alone.
    pub score: f32,
    /// Place of the document in the list that was ranked, from 0.
    pub index: usize,
    /// Id of the document, if it has one.
    pub id: Option<String>,
    /// Its text.
    pub text: String,
}

/// Documents that were encoded before, wherever their vectors are.
pub trait EncodedSource {
    /// Numbers of a vector.
    fn dim(&self) -> usize;

    /// Number that tells the model that encoded them from others.
    fn fingerprint(&self) -> u64;

    /// Hands over all documents that can be found, some at a time: their places, and their vectors.
    ///
    /// # Errors
    /// The vectors cannot be read.
    fn for_each_block(&self, visit: &mut dyn FnMut(&[usize], &TextVectors)) -> Result<(), Error>;

    /// Id and text of a document by its place.
    ///
    /// # Errors
    /// The text cannot be read.
    fn document(&self, index: usize) -> Result<(Option<String>, String), Error>;
}

/// The best `k` of scored documents: places and scores, best first, equal scores in the order of their places. A NaN comes
/// last.
pub(crate) fn best(mut scored: Vec<(usize, f32)>, k: usize) -> Vec<(usize, f32)> {
    let key = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
    let order = |a: &(usize, f32), b: &(usize, f32)| key(b.1).total_cmp(&key(a.1)).then(a.0.cmp(&b.0));
    if k < scored.len() {
        scored.select_nth_unstable_by(k, order);
        scored.truncate(k);
    }
    scored.sort_unstable_by(order);
    scored
}

/// Hits of the best documents, with what `document` knows of each.
pub(crate) fn hits(
    best: Vec<(usize, f32)>,
    document: impl Fn(usize) -> Result<(Option<String>, String), Error>,
) -> Result<Vec<Hit>, Error> {
    let numbered = best.into_iter().enumerate();
    let hit = |(place, (index, score))| {
        let (id, text) = document(index)?;
        Ok(Hit { rank: place + 1, score, index, id, text })
    };
    numbered.map(hit).collect()
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_best_come_first_and_equals_in_order() {
        let scored = vec![(0, 1.0), (1, 3.0), (2, f32::NAN), (3, 3.0), (4, -2.0)];
        assert_eq!(best(scored.clone(), 2), [(1, 3.0), (3, 3.0)]);
        assert_eq!(best(scored.clone(), 3), [(1, 3.0), (3, 3.0), (0, 1.0)]);
        let all: Vec<usize> = best(scored, 99).into_iter().map(|(index, _)| index).collect();
        assert_eq!(all, [1, 3, 0, 4, 2], "beyond the list is the list");
    }
}
