//! Every option a person can set, with its default and where the default comes from; those of training are in
//! `train_options.rs`.
//!
//! Owns names, types and defaults. Does not own derivation ("auto" becomes a number in [`crate::resolve()`]) nor
//! reading files and environment ([`crate::OptionSources`]).

pub(crate) mod auto;
pub(crate) mod columns;
pub(crate) mod data_paths;
pub(crate) mod head;
pub(crate) mod losses;
pub(crate) mod memory;
pub(crate) mod metric;
pub(crate) mod miner_model;
pub(crate) mod mix;
pub(crate) mod schedule;
pub(crate) mod sizes;
pub(crate) mod train;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::options::columns::ColumnRoles;
use crate::options::data_paths::DataPaths;
use crate::options::metric::Metric;
use crate::options::train::TrainOptions;

/// All options of a run: one section per concern, the same names in a file, in the environment and on the command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Label of the trained model. It names the model card and nothing else: it never chooses an architecture
    /// (in the reference it does; docs/parity.md, defect 17). Empty means the name of the output folder.
    pub model_name: String,
    /// Licence of the trained model, as the Hugging Face hub names it (`apache-2.0`), for its card.
    pub license: String,
    /// Language of the texts (`en`, `de`, ...): stemming and stop words of the BM25 miner.
    pub language_code: String,
    /// The encoder or ColBERT to start from: a directory in Hugging Face layout, or a name on the Hugging Face hub
    /// (`org/name`, `org/name@revision`) if there is no directory of that name.
    pub pretrained_model_name: String,
    /// Take over the lengths, masks and sizes of a ColBERT to start from, where their options are not set. (The
    /// reference says that it does, and does not: defect 26.)
    pub inherit_settings: bool,
    /// Folder of the run: plan, metrics, checkpoints and the best model directory.
    pub output: PathBuf,
    /// Replace a run that is already in `output`.
    pub overwrite: bool,
    /// Backend and device: `flex`; with the feature `cuda` also `cuda` and `cuda:1`; with the feature `tch` also
    /// `libtorch`, `libtorch:cuda` and `libtorch:cuda:1`; with the feature `wgpu` also `wgpu` and `wgpu:1`; `auto` is
    /// the first of `cuda`, `libtorch:cuda`, `wgpu` and `flex` that can be used.
    pub backend: String,
    /// Type of the numbers in the model directories that are written: `f32`, `f16` or `bf16`. Training, checkpoints
    /// and dev metrics are not touched by it.
    pub export_dtype: ExportDtype,
    /// Programs that the model directories are written for.
    pub export_layout: ExportLayout,
    /// Write `model.onnx` and `onnx_config.json` into the model directories, for next-plaid; weights are stored as
    /// `export_dtype` says.
    pub export_onnx: bool,
    /// Where the texts are.
    pub data: DataOptions,
    /// Which negatives are added to them.
    pub negatives: NegativeOptions,
    /// How the model is trained.
    pub train: TrainOptions,
    /// How "better" is measured.
    pub evaluation: EvaluationOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model_name: String::new(),
            license: String::new(),
            language_code: "en".to_owned(),
            pretrained_model_name: String::new(),
            inherit_settings: true,
            output: PathBuf::new(),
            overwrite: false,
            backend: "auto".to_owned(),
            export_dtype: ExportDtype::F32,
            export_layout: ExportLayout::All,
            export_onnx: false,
            data: DataOptions::default(),
            negatives: NegativeOptions::default(),
            train: TrainOptions::default(),
            evaluation: EvaluationOptions::default(),
        }
    }
}

/// Input files. Every path is relative to the current directory, also when it stands in an option file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// Training data, one source or several that are read as one: a JSONL, JSON, CSV, TSV or Parquet file, a BEIR
    /// folder, a folder with the reference's three files, or a folder with the tables train, queries and documents.
    pub train: DataPaths,
    /// Layout of `train`; `auto` decides by content and says what it found.
    pub format: DataFormat,
    /// Roles of columns whose names do not say it, such as `question=query, context=document`.
    pub columns: ColumnRoles,
    /// Further documents to draw negatives from: JSONL, a JSON list, TSV, CSV or Parquet, each also as gzip.
    pub all_documents: Option<PathBuf>,
    /// BEIR folder with the queries that choose the best model. Empty: the `dev` judgements beside `train`, if it is a
    /// BEIR folder that has them.
    pub dev: Option<PathBuf>,
    /// BEIR folder measured once before and once after training, never used to choose. Empty: the `test` judgements
    /// beside `train`, if it is a BEIR folder that has them.
    pub test: Option<PathBuf>,
    /// Training queries held out as the dev set if none is given, a seeded choice; 0 holds out none, as in the
    /// reference, which trains on everything.
    pub dev_split: usize,
    /// Value that marks a positive in labelled pairs, a word or a number. Source of the default:
    /// `RAGTrainer.prepare_training_data`.
    #[serde(deserialize_with = "label")]
    pub positive_label: String,
    /// Value that marks a negative in labelled pairs, a word or a number. Source of the default:
    /// `RAGTrainer.prepare_training_data`.
    #[serde(deserialize_with = "label")]
    pub negative_label: String,
    /// Leave out and count malformed rows instead of stopping at the first.
    pub skip_bad_rows: bool,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            train: DataPaths::default(),
            format: DataFormat::default(),
            columns: ColumnRoles::default(),
            all_documents: None,
            dev: None,
            test: None,
            dev_split: 0,
            positive_label: "1".to_owned(),
            negative_label: "0".to_owned(),
            skip_bad_rows: false,
        }
    }
}

/// Layout of a training file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// Decide by content.
    #[default]
    Auto,
    /// (query, positive).
    Pairs,
    /// (query, document, label).
    LabeledPairs,
    /// (query, positive or positives, negative or negatives).
    Triplets,
    /// (query, documents, teacher scores), the positive first.
    Scored,
    /// Tevatron rows: `query`, `positive_passages`, `negative_passages`.
    Tevatron,
    /// PyLate's three tables: train (`query_id`, `document_ids`, `scores`), queries and documents.
    Pylate,
    /// `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`.
    Beir,
    /// `queries.train.colbert.tsv`, `corpus.train.colbert.tsv`, `triples.train.colbert.jsonl`.
    Reference,
}

/// Negatives added to the given ones. Names and numbers: `RAGTrainer.prepare_training_data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeOptions {
    /// New negatives for each distinct query; 0 adds none.
    pub num_new_negatives: usize,
    /// Mined candidates ranked better than this (0-based) are never used, as they are often relevant.
    pub hard_negative_minimum_rank: usize,
    /// Mined candidates ranked at or beyond this (0-based) are never used. Source of the default: the reference's own
    /// depth.
    pub hard_negative_maximum_rank: usize,
    /// Mine by rank (true) or draw at random (false), whatever `miner` is.
    pub mine_hard_negatives: bool,
    /// Ranker of the documents.
    pub miner: Miner,
    /// Directory, or name on the hub, of the sentence encoder that `miner = "dense"` ranks by, and that
    /// `miner = "late_interaction"` takes its candidates from in place of BM25.
    pub miner_model: Option<PathBuf>,
    /// Size of the sentence encoder that the reference would take for the language: `small`, `base` or `large`. It
    /// names the model to get where `miner_model` is not given.
    pub hard_negative_model_size: MinerModelSize,
    /// Text before every query, for the sentence encoder. Without one: the text that its directory declares, else the
    /// one that its family was trained with.
    pub miner_query_prefix: Option<String>,
    /// Text before every document, for the sentence encoder. Without one: as for queries.
    pub miner_document_prefix: Option<String>,
    /// When negatives are chosen again.
    pub refresh: Refresh,
    /// Directory, or name on the hub, of another model that scores every candidate of every query: a cross-encoder or a
    /// ColBERT. Its scores replace the miner's in `positive_score_share` and become the scores that training distils.
    pub teacher: Option<PathBuf>,
    /// Folder that keeps the teacher's scores by the content of the texts, for later runs. `None`: `ragtrainer/scores` in the
    /// user's folder of caches.
    pub teacher_cache: Option<PathBuf>,
    /// A mined candidate that its miner scores above this share of the positive's score is never used: it is likely a
    /// positive that nobody marked. Values above 1 also keep candidates that outscore the positive;
    /// `None` disables the filter. Source of the default: NV-Retriever, arXiv 2407.15831, `TopK-PercPos`.
    pub positive_score_share: Option<f64>,
    /// Negatives below which a query, or an example that came ready-made, is left out and counted. One that has more, yet
    /// fewer than `nway` asks for, is used with what it has. None ("auto") is `nway - 1`.
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
    /// Whether a miner is asked at all.
    #[must_use]
    pub fn mines(&self) -> bool {
        self.num_new_negatives > 0 && self.mine_hard_negatives && self.miner != Miner::Random
    }
}

/// Ranker of documents for queries, to find hard negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miner {
    /// By words: BM25.
    #[default]
    Bm25,
    /// By a sentence encoder, one vector a text, exactly.
    Dense,
    /// By the model being trained: candidates of BM25 or of a sentence encoder, rescored by MaxSim.
    LateInteraction,
    /// None: candidates are drawn at random, as with `mine_hard_negatives = false`.
    Random,
}

/// Size of a sentence encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerModelSize {
    /// The smallest there is.
    #[default]
    Small,
    /// The usual one.
    Base,
    /// The largest there is.
    Large,
}

/// When negatives are chosen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// Once, before training.
    #[default]
    Never,
    /// At the start of every epoch but the first: late interaction by the weights of that moment, and another draw for
    /// every miner.
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
    /// Source: RAGatouille 0.0.9, `data/training_data_processor.py`, `_make_individual_triplets`. Which pairings are
    /// taken is drawn for each query by itself here; there, from one fixed state.
    Reference,
}

/// Type of the numbers in a model directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportDtype {
    /// float32.
    #[default]
    F32,
    /// float16: 11 significant bits, at most 65504.
    F16,
    /// bfloat16: 8 significant bits, the range of float32.
    Bf16,
}

impl ExportDtype {
    /// Its name in PyTorch, as `config.json` has it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// Programs that a model directory is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportLayout {
    /// One directory for colbert-ai, RAGatouille, PyLate, sentence-transformers and pylate-rs.
    #[default]
    All,
    /// The files that sentence-transformers 6 itself writes, which the other programs do not read.
    SentenceTransformers,
}

/// How "better" is measured, on queries that are not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationOptions {
    /// Metric that chooses the best model.
    pub metric: Metric,
    /// Documents that dev queries are ranked against: all the relevant ones and random others up to this number.
    /// Empty: the whole corpus.
    pub pool_size: Option<usize>,
    /// Dev queries used, a seeded choice. Empty: all of them.
    pub max_queries: Option<usize>,
    /// Seed of those two choices and of `data.dev_split`.
    pub seed: u64,
    /// Evaluations in a row without a new best after which the run ends. `None`: never.
    pub patience: Option<usize>,
    /// At the end, also measure the mean weights of this many of the best models, and keep them if they are better; 0
    /// does not.
    pub average_best: usize,
    /// At the end, measure the best model moved a quarter, half and three quarters of the way back to the start too,
    /// and take it if it is better.
    pub interpolate: bool,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            metric: Metric::default(),
            pool_size: None,
            max_queries: None,
            seed: 5,
            patience: None,
            average_best: 0,
            interpolate: false,
        }
    }
}

/// A label is compared as text, so that `1`, `"1"` and `pos` can all be asked for.
fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Label;

    impl de::Visitor<'_> for Label {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a label: a word or a number")
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
            Ok(value.to_string())
        }
    }

    deserializer.deserialize_any(Label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The table of defaults, written a second time from RAGatouille's `RAGTrainer`, colbert-ai and the contract.
    #[test]
    fn defaults_are_the_documented_ones() {
        let train = r#"{
            "batch_size": 32, "nbits": 2, "maxsteps": 500000, "use_ib_negatives": true,
            "learning_rate": 5e-6, "dim": 128, "doc_maxlen": 256, "use_relu": false, "warmup_steps": "auto",
            "accumsteps": 1, "head": "", "dims": null, "query_maxlen": 32, "query_token_id": null, "doc_token_id": null,
            "query_prompt": null, "document_prompt": null, "query_expansion_length": null,
            "nway": 2, "draw_negatives": false,
            "epochs": 1, "seed": 12345, "shuffle": true,
            "mix_weights": null, "mix_exponent": 1.0, "mix_batches": "mixed",
            "weight_decay": 0.01, "decay_biases_and_norms": true, "head_rate_factor": 1.0,
            "embeddings_rate_factor": 1.0, "layer_rate_decay": 1.0, "freeze_encoder_steps": 0,
            "clip_norm": 2.0, "dropout": null, "attend_to_mask_tokens": false,
            "query_expansion": true, "mask_punctuation": true, "pool_factor": null, "schedule": "linear", "decay_steps": "auto",
            "schedule_horizon": "auto", "warmup_from_zero": false,
            "save_every": "auto", "keep_checkpoints": 2, "keep_best_checkpoints": 0, "ib_scope": "batch",
            "ib_skip_known_positives": true, "ib_own_negatives": false, "distillation_alpha": 1.0, "ignore_scores": false,
            "temperature": 1.0, "learn_temperature": false, "distillation_loss": "kl", "teacher_scores": "raw",
            "student_scores": "raw", "teacher_temperature": 1.0, "student_temperature": 1.0,
            "cross_entropy_weight": null, "distillation_weight": 1.0, "in_batch_weight": 1.0, "ema_decay": null,
            "precision": "f32",
            "memory_limit": null, "on_nonfinite": "stop"
        }"#;
        let train: serde_json::Value = serde_json::from_str(train).unwrap();
        assert_eq!(
            serde_json::to_value(Options::default()).unwrap(),
            json!({
                "model_name": "", "license": "", "pretrained_model_name": "", "language_code": "en", "output": "", "overwrite": false,
                "inherit_settings": true, "backend": "auto", "export_dtype": "f32", "export_layout": "all", "export_onnx": false,
                "data": {
                    "train": null, "format": "auto", "columns": "", "all_documents": null, "dev": null, "test": null,
                    "dev_split": 0, "positive_label": "1", "negative_label": "0", "skip_bad_rows": false
                },
                "negatives": {
                    "num_new_negatives": 10, "hard_negative_minimum_rank": 10, "hard_negative_maximum_rank": 110,
                    "mine_hard_negatives": true, "miner": "bm25", "miner_model": null,
                    "hard_negative_model_size": "small", "miner_query_prefix": null, "miner_document_prefix": null,
                    "refresh": "never", "teacher": null, "teacher_cache": null, "positive_score_share": 0.95,
                    "min_negatives": null, "triples": "all", "seed": 42
                },
                "train": train,
                "evaluation": {
                    "metric": "ndcg@10", "pool_size": null, "max_queries": null, "seed": 5, "patience": null,
                    "average_best": 0, "interpolate": false
                }
            })
        );
    }

    #[test]
    fn nothing_at_all_means_the_defaults_and_they_survive_a_round_trip() {
        assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
        let text = serde_json::to_string(&Options::default()).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), Options::default());
    }

    #[test]
    fn labels_are_words_or_numbers() {
        for (label, read) in
            [(json!(1), "1"), (json!(-1), "-1"), (json!("1"), "1"), (json!("pos"), "pos"), (json!(0.5), "0.5")]
        {
            let data: DataOptions = serde_json::from_value(json!({ "positive_label": label })).unwrap();
            assert_eq!(data.positive_label, read);
        }
        assert!(serde_json::from_value::<DataOptions>(json!({ "negative_label": true })).is_err());
    }
}
