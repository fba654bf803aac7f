//! The options of `[negatives]`: the choice of negatives.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Negatives that are added to the given ones. Names and defaults are those of `RAGTrainer.prepare_training_data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeOptions {
    /// New negatives for each distinct query; 0 adds none.
    pub num_new_negatives: usize,
    /// Mined candidates ranked better than this (0-based) are never used, as they are often relevant.
    pub hard_negative_minimum_rank: usize,
    /// Mined candidates ranked at or beyond this (0-based) are never used. Source of the default: the depth of the
    /// reference.
    pub hard_negative_maximum_rank: usize,
    /// Mine by rank (true) or draw at random (false), whatever `miner` is.
    pub mine_hard_negatives: bool,
    /// The miner that ranks the documents.
    pub miner: Miner,
    /// Directory, or name on the hub, of the sentence encoder that `miner = "dense"` ranks by, and that
    /// `miner = "late_interaction"` takes its candidates from in place of BM25.
    pub miner_model: Option<PathBuf>,
    /// Size of the sentence encoder that the reference would use for the language: `small`, `base` or `large`. It only
    /// decides which model an error suggests if `miner_model` is missing.
    pub hard_negative_model_size: MinerModelSize,
    /// Text before every query, for the sentence encoder. Default: the text that its directory declares, else the one
    /// that its family was trained with.
    pub miner_query_prefix: Option<String>,
    /// Text before every document, for the sentence encoder. Default: as for queries.
    pub miner_document_prefix: Option<String>,
    /// When negatives are chosen again.
    pub refresh: Refresh,
    /// Directory, or name on the hub, of another model that scores every candidate of every query: a cross-encoder or a
    /// ColBERT. Its scores replace the miner's in `positive_score_share` and become the scores that training distils.
    pub teacher: Option<PathBuf>,
    /// Folder that keeps the teacher's scores by the content of the texts, for later runs. `None`: `ragtrainer/scores`
    /// in the user's cache directory.
    pub teacher_cache: Option<PathBuf>,
    /// A mined candidate that its miner scores above this share of the positive's score is never used: it is likely an
    /// unmarked positive. Values above 1 also keep candidates that outscore the positive; `None` disables the filter.
    /// Source of the default: NV-Retriever, arXiv 2407.15831, `TopK-PercPos`.
    pub positive_score_share: Option<f64>,
    /// Queries and ready-made examples with fewer negatives are skipped and counted. Those with at least this many are
    /// used, even with fewer than `nway` asks for. None ("auto") is `nway - 1`.
    pub min_negatives: Option<usize>,
    /// Pairings of positives and negatives that become examples.
    pub triples: TriplePolicy,
    /// Seed of the sampling. Source of the default: the reference.
    pub seed: u64,
}

impl Default for NegativeOptions {
    fn default() -> Self {
        Self {
            num_new_negatives: 10,
            hard_negative_minimum_rank: 10,
            hard_negative_maximum_rank: 110,
            mine_hard_negatives: true,
            miner: Miner::default(),
            miner_model: None,
            hard_negative_model_size: MinerModelSize::default(),
            miner_query_prefix: None,
            miner_document_prefix: None,
            refresh: Refresh::default(),
            teacher: None,
            teacher_cache: None,
            positive_score_share: Some(0.95),
            min_negatives: None,
            triples: TriplePolicy::default(),
            seed: 42,
        }
    }
}

impl NegativeOptions {
    /// Whether a miner is used at all.
    #[must_use]
    pub fn mines(&self) -> bool {
        self.num_new_negatives > 0 && self.mine_hard_negatives && self.miner != Miner::Random
    }
}

/// Ranker of documents for queries, to find hard negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miner {
    /// BM25, by words.
    #[default]
    Bm25,
    /// A sentence encoder, one vector per text, exact search.
    Dense,
    /// The model being trained: candidates of BM25 or of a sentence encoder, rescored by MaxSim.
    LateInteraction,
    /// No ranker: candidates are drawn at random, as with `mine_hard_negatives = false`.
    Random,
}

/// Size of a sentence encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerModelSize {
    /// The smallest.
    #[default]
    Small,
    /// The usual size.
    Base,
    /// The largest.
    Large,
}

/// When negatives are chosen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// Once, before training.
    #[default]
    Never,
    /// At the start of every epoch but the first: with the current weights for late interaction, and another random
    /// draw for every miner.
    Epoch,
}

/// Pairings of positives and negatives that become examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriplePolicy {
    /// Every positive with every negative, in groups of `nway - 1` negatives.
    #[default]
    All,
    /// The reference's triple counts. One positive: one triple per negative. P >= 2 positives and N negatives:
    /// min(20, P x N) triples while P <= 20, P triples beyond. For `nway` 2 only.
    ///
    /// Source: RAGatouille 0.0.9, `data/training_data_processor.py`, `_make_individual_triplets`. Here the pairings are
    /// drawn for each query independently; there, from one fixed state.
    Reference,
}
