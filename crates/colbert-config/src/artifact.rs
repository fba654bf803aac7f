//! `artifact.metadata`, the JSON file that describes how a model directory was made and how to use it.
//!
//! Owns its keys, their order and their defaults, which are those of colbert-ai (`ColBERTConfig`) and not those of
//! [`TrainOptions`]. Does not write the file: use [`ArtifactMetadata::to_json_string`].

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use crate::error::ConfigError;
use crate::options::train::TrainOptions;
use crate::plan::Plan;

/// The content of `artifact.metadata`: every key of colbert-ai's, in its order and with its types.
///
/// [`Default`] gives colbert-ai's defaults, which is also what an absent key means. Keys that are not known are kept
/// and written back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArtifactMetadata {
    /// Vocabulary entry whose id marks a query. Default `[unused0]`.
    pub query_token_id: String,
    /// Vocabulary entry whose id marks a document. Default `[unused1]`.
    pub doc_token_id: String,
    /// How the query marker is shown to people. Default `[Q]`.
    pub query_token: String,
    /// How the document marker is shown to people. Default `[D]`.
    pub doc_token: String,
    /// Search: clusters probed per query token.
    pub ncells: Option<usize>,
    /// Search: centroids that score below this are pruned.
    pub centroid_score_threshold: Option<f64>,
    /// Search: documents scored in full.
    pub ndocs: Option<usize>,
    /// Search: map the index instead of loading it.
    pub load_index_with_mmap: bool,
    /// Indexing: where the index is.
    pub index_path: Option<String>,
    /// Indexing: documents encoded together. Default 64.
    pub index_bsize: usize,
    /// Indexing: bits per residual. Default 1.
    pub nbits: u32,
    /// Indexing: k-means iterations. Default 4.
    pub kmeans_niters: usize,
    /// colbert-ai reads it nowhere.
    pub resume: bool,
    /// Indexing: factor by which the tokens of a document are pooled. Default 1.
    pub pool_factor: usize,
    /// Indexing: how they are pooled. Default `hierarchical`.
    pub clustering_mode: String,
    /// Indexing: first tokens of a document that are never pooled.
    pub protected_tokens: usize,
    /// `cosine` or `l2`. Default `cosine`.
    pub similarity: String,
    /// Queries per optimizer step. Default 32.
    pub bsize: usize,
    /// Micro-batches per optimizer step. Default 1.
    pub accumsteps: usize,
    /// Peak learning rate. Default 3e-6.
    pub lr: f64,
    /// Upper bound on optimizer steps. Default 500,000.
    pub maxsteps: usize,
    /// Steps between checkpoints.
    pub save_every: Option<usize>,
    /// Warm-up steps; none means a constant learning rate.
    pub warmup: Option<usize>,
    /// Steps for which the encoder was frozen.
    pub warmup_bert: Option<usize>,
    /// ReLU after the projection. colbert-ai writes it and does not apply it.
    pub relu: bool,
    /// Documents per query, the positive included. Default 2.
    pub nway: usize,
    /// Whether the in-batch loss was added. Default false.
    pub use_ib_negatives: bool,
    /// Whether this is a cross-encoder, which it never is here.
    pub reranker: bool,
    /// Factor on teacher scores before their softmax. Default 1.0.
    pub distillation_alpha: f64,
    /// Whether teacher scores were left unused.
    pub ignore_scores: bool,
    /// Selects the encoder's class in colbert-ai; written as null, which lets `config.json` decide.
    pub model_name: Option<String>,
    /// Tokens of a query, markers and \[MASK\] expansion included. Default 32.
    pub query_maxlen: usize,
    /// Let \[MASK\] expansion tokens be attended to. Default false.
    pub attend_to_mask_tokens: bool,
    /// Default `colbert`.
    pub interaction: String,
    /// Size of a token embedding. Default 128.
    pub dim: usize,
    /// Tokens of a document, markers included. Default 220.
    pub doc_maxlen: usize,
    /// Leave punctuation out of document scoring. Default true.
    pub mask_punctuation: bool,
    /// The model that training started from.
    pub checkpoint: Option<String>,
    /// Training data: a path, or a description of it.
    pub triples: Value,
    /// Documents: a path, or a description of them.
    pub collection: Value,
    /// Queries: a path, or a description of them.
    pub queries: Value,
    /// Indexing: name of the index.
    pub index_name: Option<String>,
    /// Run: overwrite an earlier run.
    pub overwrite: bool,
    /// Run: folder of all runs. Default `experiments`; colbert-ai puts the current directory in front.
    pub root: String,
    /// Run: name of a group of runs. Default `default`.
    pub experiment: String,
    /// Run: folder of all indexes.
    pub index_root: Option<String>,
    /// Run: its name. Default empty; colbert-ai has the time of import.
    pub name: String,
    /// Run: rank of this process.
    pub rank: i64,
    /// Run: number of processes. Default 1.
    pub nranks: usize,
    /// Run: half precision in training. Default true.
    pub amp: bool,
    /// Run: GPUs, a number, a list or a text such as `0,1`. Default 0; colbert-ai counts those it sees.
    pub gpus: Value,
    /// Run: whether indexing avoids new processes.
    pub avoid_fork_if_possible: bool,
    /// All other keys.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
    /// Who wrote the file.
    pub meta: Map<String, Value>,
}

impl Default for ArtifactMetadata {
    fn default() -> Self {
        Self {
            query_token_id: "[unused0]".to_owned(),
            doc_token_id: "[unused1]".to_owned(),
            query_token: "[Q]".to_owned(),
            doc_token: "[D]".to_owned(),
            ncells: None,
            centroid_score_threshold: None,
            ndocs: None,
            load_index_with_mmap: false,
            index_path: None,
            index_bsize: 64,
            nbits: 1,
            kmeans_niters: 4,
            resume: false,
            pool_factor: 1,
            clustering_mode: "hierarchical".to_owned(),
            protected_tokens: 0,
            similarity: "cosine".to_owned(),
            bsize: 32,
            accumsteps: 1,
            lr: 3e-6,
            maxsteps: 500_000,
            save_every: None,
            warmup: None,
            warmup_bert: None,
            relu: false,
            nway: 2,
            use_ib_negatives: false,
            reranker: false,
            distillation_alpha: 1.0,
            ignore_scores: false,
            model_name: None,
            query_maxlen: 32,
            attend_to_mask_tokens: false,
            interaction: "colbert".to_owned(),
            dim: 128,
            doc_maxlen: 220,
            mask_punctuation: true,
            checkpoint: None,
            triples: Value::Null,
            collection: Value::Null,
            queries: Value::Null,
            index_name: None,
            overwrite: false,
            root: "experiments".to_owned(),
            experiment: "default".to_owned(),
            index_root: None,
            name: String::new(),
            rank: 0,
            nranks: 1,
            amp: true,
            gpus: json!(0),
            avoid_fork_if_possible: false,
            unknown: Map::new(),
            meta: Map::new(),
        }
    }
}

impl ArtifactMetadata {
    /// The metadata of a model that `plan` trained from `checkpoint`, the name of the base model.
    ///
    /// `meta` holds the version of this crate, the sizes that vectors can be cut to, and nothing about the machine:
    /// no host name, no command line, no state of a repository, no time, so that the same run writes the same bytes.
    /// Pass a name rather than a local path as `checkpoint`, since it is published with the model.
    pub fn from_training(options: &TrainOptions, plan: &Plan, checkpoint: &str) -> Self {
        let version = concat!("ragtrainer ", env!("CARGO_PKG_VERSION"));
        let mut meta = Map::from_iter([("version".to_owned(), json!(version))]);
        if !options.dims.0.is_empty() {
            meta.insert("dims".to_owned(), json!(options.dims));
        }
        Self {
            nbits: options.nbits,
            bsize: plan.batch_size,
            accumsteps: plan.accumsteps,
            lr: plan.learning_rate,
            maxsteps: options.maxsteps,
            save_every: Some(plan.save_every),
            warmup: plan.warmup_steps,
            relu: options.use_relu,
            nway: plan.nway,
            use_ib_negatives: plan.use_ib_negatives,
            distillation_alpha: options.distillation_alpha,
            ignore_scores: options.ignore_scores,
            query_maxlen: options.query_maxlen,
            attend_to_mask_tokens: options.attend_to_mask_tokens,
            dim: options.dim,
            doc_maxlen: options.doc_maxlen,
            mask_punctuation: options.mask_punctuation,
            checkpoint: Some(checkpoint.to_owned()),
            // The values that RAGatouille writes, so that indexes of the model are where its users look for them.
            root: ".ragatouille/".to_owned(),
            experiment: "colbert".to_owned(),
            name: "ragtrainer".to_owned(),
            amp: false,
            meta,
            ..Self::default()
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, and as [`from_json`](Self::from_json).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        // Some editors write a byte order mark.
        Self::from_json(text.strip_prefix('\u{feff}').unwrap_or(&text), path)
    }

    /// Reads the content of the file at `path`, which errors name.
    ///
    /// An absent key means its default, and so does null, as in colbert-ai.
    ///
    /// # Errors
    ///
    /// If the text is not a JSON object, or a known key has a value of the wrong type or out of range.
    pub fn from_json(text: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let field = |key: &str, found: String, expected| ConfigError::MetadataField {
            path: path.into(),
            key: key.to_owned(),
            found,
            expected,
        };
        let root: Value = serde_json::from_str(text)
            .map_err(|source| ConfigError::MalformedMetadata { path: path.into(), source })?;
        let Value::Object(mut keys) = root else {
            return Err(field("(root)", kind(&root).to_owned(), "an object"));
        };
        keys.retain(|_, value| !value.is_null());
        if let Some((key, value)) = keys.iter().find(|(key, value)| !takes(key, value)) {
            return Err(field(key, value.to_string(), expected(key)));
        }
        let metadata: Self = serde_json::from_value(Value::Object(keys))
            .map_err(|source| ConfigError::MalformedMetadata { path: path.into(), source })?;

        for (key, number) in
            [("dim", metadata.dim), ("query_maxlen", metadata.query_maxlen), ("doc_maxlen", metadata.doc_maxlen)]
        {
            if number == 0 {
                return Err(field(key, number.to_string(), "1 or more"));
            }
        }
        if !["cosine", "l2"].contains(&metadata.similarity.as_str()) {
            return Err(field("similarity", format!("\"{}\"", metadata.similarity), "\"cosine\" or \"l2\""));
        }
        Ok(metadata)
    }

    /// The content of the file, indented by four spaces as colbert-ai does.
    ///
    /// # Errors
    ///
    /// None in practice: every field has a JSON form.
    pub fn to_json_string(&self) -> Result<String, ConfigError> {
        let not_representable = |source: Box<dyn std::error::Error + Send + Sync>| ConfigError::NotRepresentable {
            what: "artifact.metadata",
            source,
        };
        let mut bytes = Vec::new();
        self.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))
            .map_err(|source| not_representable(source.into()))?;
        String::from_utf8(bytes).map_err(|source| not_representable(source.into()))
    }
}

fn takes(key: &str, value: &Value) -> bool {
    let object = Map::from_iter([(key.to_owned(), value.clone())]);
    serde_json::from_value::<ArtifactMetadata>(Value::Object(object)).is_ok()
}

/// Returns the kind of value that a key takes, found by trying one of each kind.
fn expected(key: &str) -> &'static str {
    let kinds = [
        (json!(0.5), "a number"),
        (json!(1), "a whole number, 0 or more"),
        (json!("text"), "a text"),
        (json!(true), "true or false"),
    ];
    kinds.iter().find(|(sample, _)| takes(key, sample)).map_or("an object", |(_, words)| words)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve;

    const KEYS: &str = "query_token_id doc_token_id query_token doc_token ncells centroid_score_threshold ndocs \
        load_index_with_mmap index_path index_bsize nbits kmeans_niters resume pool_factor clustering_mode \
        protected_tokens similarity bsize accumsteps lr maxsteps save_every warmup warmup_bert relu nway \
        use_ib_negatives reranker distillation_alpha ignore_scores model_name query_maxlen attend_to_mask_tokens \
        interaction dim doc_maxlen mask_punctuation checkpoint triples collection queries index_name overwrite root \
        experiment index_root name rank nranks amp gpus avoid_fork_if_possible meta";

    fn trained() -> ArtifactMetadata {
        let options = TrainOptions {
            nbits: 4,
            accumsteps: 2,
            learning_rate: Some(0.1 + 0.2),
            maxsteps: 400,
            use_relu: true,
            nway: 3,
            batch_size: 16,
            distillation_alpha: 0.5,
            ignore_scores: true,
            query_maxlen: 24,
            attend_to_mask_tokens: true,
            dim: 96,
            doc_maxlen: 180,
            mask_punctuation: false,
            ..TrainOptions::default()
        };
        let plan = resolve(&options, 1_600).unwrap();
        ArtifactMetadata::from_training(&options, &plan, "some/encoder")
    }

    fn error(text: &str) -> String {
        ArtifactMetadata::from_json(text, "dir/artifact.metadata").unwrap_err().to_string()
    }

    #[test]
    fn all_keys_are_written_in_the_order_of_colbert_ai() {
        let text = trained().to_json_string().unwrap();
        let written: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("    \""))
            .filter_map(|line| line.split_once('"').map(|(key, _)| key))
            .collect();
        assert_eq!(written, KEYS.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn what_was_trained_is_what_is_written() {
        let value: Value = serde_json::from_str(&trained().to_json_string().unwrap()).unwrap();
        let expected = json!({
            "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]",
            "nbits": 4, "similarity": "cosine", "bsize": 16, "accumsteps": 2, "lr": 0.1 + 0.2, "maxsteps": 400,
            "save_every": 10, "warmup": 10, "relu": true, "nway": 3, "use_ib_negatives": true,
            "distillation_alpha": 0.5, "ignore_scores": true, "model_name": null, "query_maxlen": 24,
            "attend_to_mask_tokens": true, "interaction": "colbert", "dim": 96, "doc_maxlen": 180,
            "mask_punctuation": false, "checkpoint": "some/encoder", "triples": null, "amp": false,
            "meta": { "version": concat!("ragtrainer ", env!("CARGO_PKG_VERSION")) }
        });
        for (key, expected) in expected.as_object().unwrap() {
            assert_eq!(&value[key], expected, "{key}");
        }
    }

    #[test]
    fn sizes_of_vectors_are_written_where_there_are_several() {
        let options = TrainOptions { dims: crate::NumberList(vec![128, 32]), ..TrainOptions::default() };
        let plan = resolve(&options, 1_600).unwrap();
        assert_eq!(ArtifactMetadata::from_training(&options, &plan, "x").meta["dims"], json!([128, 32]));
        assert!(!trained().meta.contains_key("dims"));
    }

    #[test]
    fn nothing_about_the_machine_is_written() {
        let text = trained().to_json_string().unwrap();
        for word in ["hostname", "cmd", "git_", "current_datetime"] {
            assert!(!text.contains(word), "{word}");
        }
        assert_eq!(trained().to_json_string().unwrap(), text);
    }

    #[test]
    fn written_and_read_again_it_is_the_same() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("artifact.metadata");
        let mut metadata = trained();
        metadata.ncells = Some(4);
        metadata.centroid_score_threshold = Some(0.45);
        metadata.unknown.insert("of_tomorrow".to_owned(), json!([1, { "a": 2.5 }]));
        fs::write(&path, metadata.to_json_string().unwrap()).unwrap();
        assert_eq!(ArtifactMetadata::read(&path).unwrap(), metadata);
    }

    #[test]
    fn absent_keys_and_nulls_take_the_defaults_of_colbert_ai() {
        let empty = ArtifactMetadata::from_json("{}", "x").unwrap();
        assert_eq!(empty, ArtifactMetadata::default());
        let nulls = ArtifactMetadata::from_json(r#"{"dim": null, "doc_maxlen": null, "nway": null}"#, "x").unwrap();
        assert_eq!(nulls, empty);
        // Values that differ from the defaults of training.
        assert_eq!((empty.doc_maxlen, empty.lr, empty.nbits, empty.use_ib_negatives), (220, 3e-6, 1, false));
        assert_eq!((empty.dim, empty.query_maxlen, empty.mask_punctuation), (128, 32, true));
    }

    #[test]
    fn a_file_in_the_manner_of_colbert_ai_is_read() {
        let text = r#"{
    "query_token_id": "[unused0]",
    "lr": 5e-06,
    "bsize": 16,
    "warmup": null,
    "model_name": null,
    "checkpoint": "some-org\/some-encoder",
    "triples": "\/home\/someone\/triples.jsonl",
    "collection": ["list with 3 elements", "starting with", ["a", "b"]],
    "root": "\/home\/someone\/.ragatouille\/",
    "rank": 0,
    "gpus": [0, 1],
    "added_in_a_later_version": {"depth": 3},
    "meta": {"hostname": "box", "cmd": "train.py", "version": "colbert-v0.4"}
}"#;
        let metadata = ArtifactMetadata::from_json(text, "x").unwrap();
        assert_eq!(metadata.checkpoint.as_deref(), Some("some-org/some-encoder"));
        assert_eq!(metadata.triples, json!("/home/someone/triples.jsonl"));
        assert_eq!((metadata.lr, metadata.bsize, metadata.warmup), (5e-6, 16, None));
        assert_eq!(metadata.gpus, json!([0, 1]));
        assert_eq!(metadata.unknown, Map::from_iter([("added_in_a_later_version".to_owned(), json!({ "depth": 3 }))]));
        assert_eq!(metadata.meta["version"], json!("colbert-v0.4"));
        assert_eq!(metadata.doc_maxlen, 220);
    }

    #[test]
    fn errors_name_file_key_found_and_expected() {
        for (text, expected) in [
            (r#"{"dim": "big"}"#, "key \"dim\" is \"big\", expected a whole number, 0 or more"),
            (r#"{"dim": 0}"#, "key \"dim\" is 0, expected 1 or more"),
            (r#"{"lr": "fast"}"#, "key \"lr\" is \"fast\", expected a number"),
            (r#"{"mask_punctuation": 1}"#, "key \"mask_punctuation\" is 1, expected true or false"),
            (r#"{"query_token_id": 1}"#, "key \"query_token_id\" is 1, expected a text"),
            (r#"{"meta": 1}"#, "key \"meta\" is 1, expected an object"),
            (r#"{"similarity": "dot"}"#, "key \"similarity\" is \"dot\", expected \"cosine\" or \"l2\""),
            ("[]", "key \"(root)\" is a list, expected an object"),
        ] {
            assert_eq!(error(text), format!("dir/artifact.metadata: {expected}"));
        }
        assert_eq!(error("{\"dim\": 128"), "dir/artifact.metadata is not valid JSON");
        let missing = ArtifactMetadata::read("no/such/artifact.metadata").unwrap_err();
        assert_eq!(missing.to_string(), "cannot read no/such/artifact.metadata");
    }
}
