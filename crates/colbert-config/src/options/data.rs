//! The options of `[data]`: input files and what their rows mean.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::options::columns::ColumnRoles;
use crate::options::data_paths::DataPaths;

/// Input files. Every path is relative to the current directory, also when it stands in an option file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// Training data, one source or several that are read as one: a JSONL, JSON, CSV, TSV or Parquet file, a BEIR
    /// folder, a folder with the reference's three files, or a folder with the tables train, queries and documents.
    pub train: DataPaths,
    /// Layout of `train`; `auto` decides by content and reports what it found.
    pub format: DataFormat,
    /// Roles of columns whose names do not make them clear, such as `question=query, context=document`.
    pub columns: ColumnRoles,
    /// Further documents to draw negatives from: JSONL, a JSON list, TSV, CSV or Parquet, each also as gzip.
    pub all_documents: Option<PathBuf>,
    /// BEIR folder with the queries that choose the best model. Empty: the `dev` judgements beside `train`, if it is a
    /// BEIR folder that has them.
    pub dev: Option<PathBuf>,
    /// BEIR folder measured once before and once after training, never used to choose a model. Empty: the `test`
    /// judgements beside `train`, if it is a BEIR folder that has them.
    pub test: Option<PathBuf>,
    /// Leave out the test queries, those of `test` and those beside `train`: they are neither read nor measured.
    pub skip_test: bool,
    /// Number of training queries held out as the dev set if none is given, chosen at random by the seed; 0 holds out
    /// none, as in the reference, which trains on everything.
    pub dev_split: usize,
    /// Value that marks a positive in labelled pairs, a word or a number. Source of the default:
    /// `RAGTrainer.prepare_training_data`.
    #[serde(deserialize_with = "label")]
    pub positive_label: String,
    /// Value that marks a negative in labelled pairs, a word or a number. Source of the default:
    /// `RAGTrainer.prepare_training_data`.
    #[serde(deserialize_with = "label")]
    pub negative_label: String,
    /// Skip and count malformed rows instead of stopping at the first.
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
            skip_test: false,
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

/// Labels are compared as text, so that `1`, `"1"` and `pos` are all possible.
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
