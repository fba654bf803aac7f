//! Every option a person can set, with its default and where the default comes from: those of a run as a whole, and a
//! file for each section.
//!
//! Owns names, types and defaults. Does not own derivation ("auto" becomes a number in [`crate::resolve()`]) nor
//! reading files and environment ([`crate::OptionSources`]).

pub(crate) mod auto;
pub(crate) mod columns;
pub(crate) mod data;
pub(crate) mod data_paths;
pub(crate) mod evaluation;
pub(crate) mod export;
pub(crate) mod head;
pub(crate) mod length;
pub(crate) mod losses;
pub(crate) mod memory;
pub(crate) mod metric;
pub(crate) mod miner_model;
pub(crate) mod mix;
pub(crate) mod negatives;
pub(crate) mod number_list;
pub(crate) mod precision;
pub(crate) mod schedule;
pub(crate) mod train;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::options::data::DataOptions;
use crate::options::evaluation::EvaluationOptions;
use crate::options::export::{ExportDtype, ExportLayout};
use crate::options::negatives::NegativeOptions;
use crate::options::train::TrainOptions;

/// All options of a run, in sections; their names are the same in a file, in the environment and on the command line.
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
    /// Take over lengths, masks and sizes from the ColBERT that training starts from, unless their options are set.
    /// (The reference claims to do so, but does not: defect 26.)
    pub inherit_settings: bool,
    /// Folder of the run: plan, metrics, checkpoints and the best model directory.
    pub output: PathBuf,
    /// Replace a run that is already in `output`.
    pub overwrite: bool,
    /// Backend and device: `flex`; with the feature `cuda` also `cuda` and `cuda:1`; with the feature `tch` also
    /// `libtorch`, `libtorch:cuda` and `libtorch:cuda:1`; with the feature `wgpu` also `wgpu` and `wgpu:1`; `auto` is
    /// the first of `cuda`, `libtorch:cuda`, `wgpu` and `flex` that can be used.
    pub backend: String,
    /// Type of the numbers in the model directories that are written: `f32`, `f16` or `bf16`. Training, checkpoints and
    /// dev metrics do not depend on it.
    pub export_dtype: ExportDtype,
    /// Programs that the model directories are written for.
    pub export_layout: ExportLayout,
    /// Write `model.onnx` and `onnx_config.json` into the model directories, for next-plaid; weights are stored as
    /// `export_dtype` says.
    pub export_onnx: bool,
    /// The input files.
    pub data: DataOptions,
    /// The negatives that are added.
    pub negatives: NegativeOptions,
    /// Training.
    pub train: TrainOptions,
    /// Evaluation.
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
            "accumsteps": 1, "head": "", "head_init": "random", "dims": null, "query_maxlen": 32,
            "query_token_id": null, "doc_token_id": null,
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
                    "dev_split": 0, "positive_label": "1", "negative_label": "0", "skip_bad_rows": false,
                    "skip_test": false
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
