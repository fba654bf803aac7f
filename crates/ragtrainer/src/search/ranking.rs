//! Documents that can be searched, and what a search finds.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::search::text_vectors::{TextVectors, VectorBlock};
use crate::search::top::Top;

/// A passage that was found: a document, or a part of one.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Hit {
    /// Rank, from 1.
    pub rank: usize,
    /// MaxSim of query and passage: it depends on these two alone.
    pub score: f32,
    /// Place of the passage in the list that was ranked, from 0.
    pub index: usize,
    /// Id of the document, if it has one.
    pub id: Option<String>,
    /// Number of the passage in its document, from 0; 0 for a document that was not split.
    pub passage: usize,
    /// Text of the passage.
    pub text: String,
    /// Metadata that was stored with the document.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A passage as it is stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Passage {
    /// Id of the document, if it has one.
    pub id: Option<String>,
    /// Number of the passage in its document, from 0.
    pub passage: usize,
    /// Text of the passage.
    pub text: String,
    /// Metadata that was stored with the document.
    pub metadata: Map<String, Value>,
}

/// Documents that were encoded before, wherever their vectors are. Threads read them at the same time.
pub trait EncodedSource: Sync {
    /// Numbers of a vector.
    fn dim(&self) -> usize;

    /// Number that tells the model that encoded them from others.
    fn fingerprint(&self) -> u64;

    /// Number of places. At some of them there may be no passage, because it was deleted.
    fn places(&self) -> usize;

    /// Vectors of the passages at these places, without those that were deleted. `buffer` may be used to hold them.
    ///
    /// # Errors
    /// The vectors cannot be read.
    fn block<'a>(&'a self, places: Range<usize>, buffer: &'a mut Vec<u8>) -> Result<VectorBlock<'a>, Error>;

    /// Text, id and metadata at a place.
    ///
    /// # Errors
    /// They cannot be read.
    fn passage(&self, place: usize) -> Result<Passage, Error>;

    /// Places of the passages of the document with this id; None if there is no such document.
    ///
    /// # Errors
    /// The ids cannot be read.
    fn places_of(&self, id: &str) -> Result<Option<Range<usize>>, Error>;

    /// Places that are worth scoring for each query, in any order, if an index knows them; None for all, or for all of
    /// `among`.
    ///
    /// # Errors
    /// The index cannot be read.
    fn candidates(
        &self,
        queries: &TextVectors,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Option<Vec<Vec<usize>>>, Error> {
        let _ = (queries, k, among);
        Ok(None)
    }
}

/// Hits of the best places, with what `passage` knows of each.
pub(crate) fn hits(top: Top, passage: impl Fn(usize) -> Result<Passage, Error>) -> Result<Vec<Hit>, Error> {
    let numbered = top.into_sorted().into_iter().zip(1..);
    let hit = |((index, score), rank)| {
        let Passage { id, passage, text, metadata } = passage(index)?;
        Ok(Hit { rank, score, index, id, passage, text, metadata })
    };
    numbered.map(hit).collect()
}
