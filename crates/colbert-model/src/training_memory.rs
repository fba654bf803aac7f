//! The memory of training, computed before the first step.

use crate::encoder::families::EncoderConfig;
use crate::encoder::family::Facts;
use crate::head::config::{DenseConfig, HeadConfig};

/// Numbers for each parameter during a step: itself, its gradient, both moments of AdamW, and its next value.
const IN_A_STEP: u64 = 5;

/// The sum of the micro-batches' gradients, and its next value.
const TO_ACCUMULATE: u64 = 2;

/// A process's part of the sum of all processes' gradients: at most half of them, and some room.
const TO_SHARE: u64 = 1;

/// Numbers for each parameter while a model directory is written and read back: itself and its moments, a model that may
/// be the best, a copy to write, and what is read. Measured with BERT-base: less than 8.
const TO_SAVE: u64 = 9;

/// Blocks of the buffer pool are larger than their content, and some are idle: measured as a tenth.
const SLACK: f64 = 1.1;

/// The program, its libraries, the tokenizer and a small data set, in bytes: measured with MiniLM-L6 and 2,000 triples.
const PROGRAM: u64 = 250_000_000;

/// Memory that a training step needs on the embedded CPU backend, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// The parameters, once.
    pub parameters: u64,
    /// For each token whose activations are held until the backward pass.
    pub per_token: u64,
    /// For each token of the batch, encoded or waiting.
    pub per_embedding: u64,
    /// The largest parameter: mostly the word embeddings.
    pub largest: u64,
    /// A row of the word embeddings; only those of a batch's own words have a gradient.
    pub row: u64,
}

impl TrainingMemory {
    /// Computes the memory of a ColBERT with this encoder and head, for texts of at most `longest` tokens. The
    /// constants were measured with BERT; another family counts as a BERT of its sizes, one with a gated feed-forward
    /// layer as one whose feed-forward layer is twice as wide. If attention is composed, its weights are counted.
    /// With `halves`, query, key, value, the sum before GELU and the inputs of linear maps are kept in bfloat16, where
    /// attention is not composed.
    pub fn of(config: &EncoderConfig, head: &HeadConfig, longest: usize, halves: bool) -> Self {
        let Facts { hidden, wide, layers, heads, attention, pairs, rows, .. } = config.facts();
        let [hidden, wide, layers, heads, rows] = [hidden, wide, layers, heads, rows].map(|size| size as u64);
        let [attention, of_pairs] = [attention, pairs.saturating_mul(longest)].map(|size| size as u64);
        let dim = head.dim() as u64;
        let of_head: usize =
            head.layers.iter().flat_map(DenseConfig::shapes).map(|(_, shape)| shape.iter().product::<usize>()).sum();
        // Of a layer of the head before the last: the numbers before and after its activation, and the sum with its
        // residual.
        let between: usize = head.layers.iter().rev().skip(1).map(|layer| 3 * layer.out_features).sum();
        let layer = 4 * hidden * attention + 2 * hidden * wide + 9 * hidden + wide;
        let parameters = rows * hidden + layers * layer + of_head as u64;
        // Of a layer: query, key, value, attention's output, two sums and two outputs of normalisations; the sum before
        // GELU. Besides these, the state of the backward pass of one feed-forward network, and embeddings.
        let of_layer = match halves && pairs == 0 {
            true => 3 * hidden + (5 * attention + wide) / 2 + heads + 4,
            false => 4 * hidden + 4 * attention + wide + heads + 4 + of_pairs,
        };
        let kept = layers * of_layer + 2 * hidden + between as u64;
        let passing = 3 * wide + 5 * hidden;
        Self {
            parameters: 4 * parameters,
            per_token: ((4 * (kept + passing)) as f64 * SLACK) as u64,
            per_embedding: 4 * 4 * dim,
            largest: 4 * (rows * hidden).max(hidden * wide),
            row: 4 * hidden,
        }
    }

    /// Returns the bytes used while a checkpoint or a model directory is written, besides the program.
    pub fn to_save(&self) -> u64 {
        TO_SAVE * self.parameters
    }

    /// Returns the bytes for a batch of `tokens` tokens, of which at most `at_once`, a micro-batch or all, are held
    /// until a backward pass. `shared` if the batch is shared among processes: then these are the bytes of one of them,
    /// besides what they exchange.
    pub fn bytes(&self, tokens: usize, at_once: usize, shared: bool) -> u64 {
        let copies = match (shared, at_once < tokens) {
            (true, _) => IN_A_STEP + TO_SHARE,
            (false, true) => IN_A_STEP + TO_ACCUMULATE,
            (false, false) => IN_A_STEP,
        };
        let step = copies * self.parameters + self.per_token * at_once as u64 + self.per_embedding * tokens as u64;
        PROGRAM + step.max(self.to_save())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn per_token(family: &str, longest: usize, halves: bool) -> u64 {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(family).join("config.json");
        let json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let config = EncoderConfig::from_json(&json, &path).unwrap();
        TrainingMemory::of(&config, &HeadConfig::linear(config.hidden_size(), 8), longest, halves).per_token
    }

    #[test]
    fn halves_are_kept_where_attention_is_not_composed() {
        for fused in ["roberta", "modernbert"] {
            assert!(per_token(fused, 256, true) < per_token(fused, 256, false), "{fused}");
            assert_eq!(per_token(fused, 256, false), per_token(fused, 16, false), "{fused}");
        }
        for composed in ["mpnet", "deberta-v2", "qwen3"] {
            assert_eq!(per_token(composed, 256, true), per_token(composed, 256, false), "{composed}");
            assert!(per_token(composed, 256, true) > per_token(composed, 16, true), "{composed}");
        }
    }
}
