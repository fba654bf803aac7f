//! Why a document has its score: which of its tokens each token of the query matched.

use serde::{Deserialize, Serialize};

use crate::search::text_vectors::TextVectors;

/// The score of a document for a query, token by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// MaxSim: the sum of the matches' similarities.
    pub score: f32,
    /// Tokens of the document in their order, those that are not scored included.
    pub document: Vec<DocumentToken>,
    /// A match for each token of the query, in their order.
    pub matches: Vec<TokenMatch>,
}

/// A token of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentToken {
    /// Its text, as the tokenizer decodes it alone.
    pub token: String,
    /// Whether it takes part in scores.
    pub is_scored: bool,
}

/// A token of a query and the token of the document that is most like it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenMatch {
    /// Token of the query, as the tokenizer decodes it alone.
    pub query_token: String,
    /// Token of the document.
    pub document_token: String,
    /// Place of the document's token among [`Explanation::document`].
    pub place: usize,
    /// Product of the two vectors: the cosine, as both have length 1.
    pub similarity: f32,
}

/// The tokens of a text, and the vectors of those that are scored.
pub(crate) struct TokenVectors {
    pub(crate) tokens: Vec<DocumentToken>,
    pub(crate) vectors: TextVectors,
}

impl Explanation {
    /// The matches of a query with a document. Of document tokens that are equally like a query token the first one
    /// counts.
    pub(crate) fn new(query: &TokenVectors, document: TokenVectors) -> Self {
        let scored: Vec<usize> =
            document.tokens.iter().enumerate().filter(|(_, token)| token.is_scored).map(|(place, _)| place).collect();
        let dim = query.vectors.dim();
        let of_query = query.tokens.iter().filter(|token| token.is_scored).zip(query.vectors.rows(0).chunks_exact(dim));
        let best = |(token, row): (&DocumentToken, &[f32])| {
            let rows = document.vectors.rows(0).chunks_exact(dim).zip(&scored);
            let similarities =
                rows.map(|(other, place)| (*place, row.iter().zip(other).map(|(a, b)| a * b).sum::<f32>()));
            let (place, similarity) = similarities.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
            let document_token = document.tokens[place].token.clone();
            Some(TokenMatch { query_token: token.token.clone(), document_token, place, similarity })
        };
        let matches: Vec<TokenMatch> = of_query.filter_map(best).collect();
        let score = matches.iter().map(|one| one.similarity).sum();
        Self { score, document: document.tokens, matches }
    }
}
