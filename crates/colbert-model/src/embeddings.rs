//! Token embeddings of many texts, grouped by length.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Tensor};

use crate::weights::HostTensor;

/// Embeddings of texts of similar length.
#[derive(Debug, Clone)]
pub struct EmbeddingGroup<B: Backend> {
    /// Unit vectors `[texts, length, dim]`; rows that take no part are 0.
    pub vectors: Tensor<B, 3>,
    /// True where a token takes part in MaxSim `[texts, length]`.
    pub scored: Tensor<B, 2, Bool>,
    /// Whether `scored` is true everywhere, known without asking the device.
    pub all_scored: bool,
    /// Which text each row is: its place in the list that was encoded.
    pub members: Vec<usize>,
}

/// Embeddings of a list of texts.
#[derive(Debug, Clone)]
pub struct Embeddings<B: Backend> {
    /// Groups; together their members are every text once.
    pub groups: Vec<EmbeddingGroup<B>>,
}

impl<B: Backend> Embeddings<B> {
    /// Number of texts.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The vectors that take part in scoring, one `[tokens, dim]` matrix a text, in the order of the texts.
    pub fn to_host(&self) -> Vec<HostTensor> {
        let mut texts = vec![HostTensor { shape: vec![0, 0], values: Vec::new() }; self.len()];
        for group in &self.groups {
            let [_, length, dim] = group.vectors.dims();
            let vectors = group.vectors.to_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
            let scored: Vec<bool> = group.scored.to_data().iter::<bool>().collect();
            for (row, &member) in group.members.iter().enumerate() {
                let mut values = Vec::new();
                for token in row * length..(row + 1) * length {
                    if scored[token] {
                        values.extend_from_slice(&vectors[token * dim..(token + 1) * dim]);
                    }
                }
                texts[member] = HostTensor { shape: vec![values.len() / dim, dim], values };
            }
        }
        texts
    }
}

impl<B: AutodiffBackend> Embeddings<B> {
    /// The same numbers without their history, as leaves whose gradients can be asked for.
    pub fn detached(&self) -> Self {
        let leaf = |group: &EmbeddingGroup<B>| EmbeddingGroup {
            vectors: Tensor::from_inner(group.vectors.clone().inner()).require_grad(),
            scored: group.scored.clone(),
            all_scored: group.all_scored,
            members: group.members.clone(),
        };
        Self { groups: self.groups.iter().map(leaf).collect() }
    }
}
