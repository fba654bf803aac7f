//! Token embeddings of many texts, packed, and their scores.

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use colbert_kernels::{KernelBackend, ScoredTexts};

use crate::tokenizer::sequence::TokenSequence;
use crate::weights::HostTensor;

/// Smallest length a vector is divided by (torch `normalize`, eps 1e-12), squared.
const MIN_SQUARED_NORM: f64 = 1e-24;

/// Embeddings of a list of texts, one after the other.
#[derive(Debug, Clone)]
pub struct Embeddings<B: Backend> {
    /// Unit vectors `[tokens, dim]`.
    pub vectors: Tensor<B, 2>,
    /// Where each text lies, and which of its tokens take part in MaxSim.
    pub texts: ScoredTexts,
}

/// Describes where texts lie in a packed tensor of their tokens, and which of these take part in MaxSim.
pub fn scored_texts(sequences: &[TokenSequence]) -> ScoredTexts {
    let lengths: Vec<usize> = sequences.iter().map(TokenSequence::len).collect();
    let scored: Vec<bool> = sequences.iter().flat_map(|sequence| sequence.scored.iter().copied()).collect();
    ScoredTexts::new(&lengths, scored)
}

impl<B: Backend> Embeddings<B> {
    /// Joins several lists into one.
    ///
    /// # Panics
    /// If there is no list.
    pub fn concatenated(lists: &[Self]) -> Self {
        let vectors = lists.iter().map(|list| list.vectors.clone()).collect();
        let texts: Vec<ScoredTexts> = lists.iter().map(|list| list.texts.clone()).collect();
        Self { vectors: Tensor::cat(vectors, 0), texts: ScoredTexts::concatenated(&texts) }
    }

    /// Returns the size of a vector.
    pub fn dim(&self) -> usize {
        self.vectors.dims()[1]
    }

    /// Cuts every vector to its first `dim` numbers, and brings it back to unit length.
    ///
    /// # Shapes
    /// `[tokens, dim]`
    ///
    /// # Panics
    /// If a vector has fewer numbers.
    #[must_use]
    pub fn truncated(&self, dim: usize) -> Self {
        let [tokens, size] = self.vectors.dims();
        assert!((1..=size).contains(&dim), "vectors of {size} numbers have no first {dim}");
        let vectors = unit_length(self.vectors.clone().slice([0..tokens, 0..dim]));
        Self { vectors, texts: self.texts.clone() }
    }

    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.texts.count()
    }

    /// Returns whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the vectors that take part in scoring to the host, a matrix for each text, in the order of the texts.
    ///
    /// # Shapes
    /// `[tokens, dim]` each, with the scored tokens of the text.
    pub fn to_host(&self) -> Vec<HostTensor> {
        let dim = self.vectors.dims()[1];
        let vectors = self.vectors.to_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        let texts = (0..self.len()).map(|text| {
            let rows = self.texts.scored_rows(text);
            let values: Vec<f32> = rows.flat_map(|row| vectors[row * dim..(row + 1) * dim].iter().copied()).collect();
            HostTensor { shape: vec![values.len() / dim, dim], values }
        });
        texts.collect()
    }
}

impl<B: AutodiffBackend> Embeddings<B> {
    /// Makes embeddings of the inner backend a leaf without a history, whose gradient can be requested.
    ///
    /// # Shapes
    /// `[tokens, dim]` in and out.
    pub fn leaf(inner: Embeddings<B::InnerBackend>) -> Self {
        Self { vectors: Tensor::from_inner(inner.vectors).require_grad(), texts: inner.texts }
    }
}

/// Brings vectors to unit length, `[tokens, dim]`; one of zeros stays as it is.
pub(crate) fn unit_length<B: Backend>(vectors: Tensor<B, 2>) -> Tensor<B, 2> {
    // The square root of a clamped sum has a finite gradient where a clamped root would give 0/0.
    let norm = vectors.clone().square().sum_dim(1).clamp_min(MIN_SQUARED_NORM).sqrt();
    vectors / norm
}

/// Scores every query against every document: for every query token its best document token, summed (MaxSim: Khattab
/// and Zaharia 2020, section 3.3).
///
/// # Shapes
/// `[queries, docs]`
pub fn maxsim<B: KernelBackend>(queries: &Embeddings<B>, documents: &Embeddings<B>) -> Tensor<B, 2> {
    let (query_vectors, document_vectors) = (queries.vectors.clone(), documents.vectors.clone());
    colbert_kernels::maxsim(query_vectors, &queries.texts, document_vectors, &documents.texts)
}
