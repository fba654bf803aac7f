//! The table of all options: what each is called, takes and is for, and which command reads it.
//!
//! From it follow the names and types that [`crate::OptionSources`] accepts, the flags of the program, and
//! `docs/options.md`. Defaults come from `Options::default()` alone; a test holds table and structs together.

use std::sync::LazyLock;

use serde_json::{Map, Number, Value};

use crate::options::Options;
use crate::options::precision::Precision;

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct OptionRow {
    /// Name with its section, such as `train.batch_size`.
    pub key: &'static str,
    /// Values that it takes.
    pub kind: Kind,
    /// Heading that it stands under in help and documentation.
    pub section: Section,
    /// Commands that read it.
    pub readers: Readers,
    /// Help text, without the default.
    pub help: &'static str,
}

/// Values that an option takes. The word of an optional kind stands for "no value".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Flag,
    /// A whole number, 0 or more.
    Whole,
    /// A whole number or the word.
    OptionalWhole(&'static str),
    /// A number.
    Number,
    /// A number or the word.
    OptionalNumber(&'static str),
    /// A text.
    Text,
    /// A text, or nothing.
    OptionalText,
    /// A path.
    Path,
    /// A path, or nothing.
    OptionalPath,
    /// A path, a list of paths, or nothing.
    Paths,
    /// A list of numbers, or nothing.
    Numbers,
    /// A word or a number.
    Label,
    /// A size in bytes, `auto`, or the word.
    Size(&'static str),
    /// A number of tokens or `model`.
    Tokens,
    /// A number of steps or `auto`.
    Steps,
    /// A number of steps, `auto` or `constant`.
    Warmup,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Column names and their roles.
    Columns,
    /// A list of sizes, or nothing.
    Sizes,
    /// Layers of a head.
    Layers,
    /// A metric and its cut-off.
    Metric,
}

/// Headings of help and documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The run as a whole.
    Run,
    /// Input files.
    Data,
    /// Negatives that are added.
    Negatives,
    /// The arguments of `RAGTrainer.train`.
    Train,
    /// The rest of training.
    Further,
    /// The choice of the best model.
    Evaluation,
}

/// Commands that read an option, and so have a flag for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readers {
    /// `ragtrainer check`
    pub check: bool,
    /// `ragtrainer prepare`
    pub prepare: bool,
    /// `ragtrainer train`
    pub train: bool,
}

impl Readers {
    const ALL: Self = Self { check: true, prepare: true, train: true };
    const CHECK: Self = Self { check: true, prepare: false, train: true };
    const PREPARE: Self = Self { check: false, prepare: true, train: true };
    const TRAIN: Self = Self { check: false, prepare: false, train: true };
    /// No flag: an argument of the reference that files and the library accept, and that another option says better.
    const FILES: Self = Self { check: false, prepare: false, train: false };
}

const fn row(key: &'static str, kind: Kind, section: Section, readers: Readers, help: &'static str) -> OptionRow {
    OptionRow { key, kind, section, readers, help }
}

/// Every option, in the order of the structs.
#[rustfmt::skip]
pub const OPTIONS: &[OptionRow] = &[
    // Run
    row("model_name", Kind::Text, Section::Run, Readers::TRAIN, "Label of the trained model, for its card"),
    row("license", Kind::Text, Section::Run, Readers::TRAIN, "Licence of the model, for its card: apache-2.0, mit, ..."),
    row("language_code", Kind::Text, Section::Run, Readers::ALL, "Language of the texts (ISO 639-1), for stemming and stop words of BM25"),
    row("pretrained_model_name", Kind::Text, Section::Run, Readers::ALL, "Encoder or ColBERT to start from: a directory, or org/name or org/name@revision on the Hugging Face hub"),
    row("inherit_settings", Kind::Flag, Section::Run, Readers::ALL, "Take over lengths, masks and sizes from the ColBERT that training starts from, unless they are set"),
    row("output", Kind::Path, Section::Run, Readers::TRAIN, "Directory of the run; the best model is written to its best/"),
    row("overwrite", Kind::Flag, Section::Run, Readers::PREPARE, "Replace an earlier run in the output directory, or the files that prepare or score wrote earlier"),
    row("backend", Kind::Text, Section::Run, Readers::PREPARE, "Backend and device: auto, flex, cuda, cuda:N, libtorch, libtorch:cuda:N, wgpu, wgpu:N"),
    row("export_dtype", Kind::Words(&["f32", "f16", "bf16"]), Section::Run, Readers::TRAIN, "Number format of the weights in exported model directories: f32, f16 or bf16"),
    row("export_layout", Kind::Words(&["all", "sentence-transformers"]), Section::Run, Readers::TRAIN, "Layout of the exported directory: one that all programs load (all), or that of sentence-transformers 6 (sentence-transformers), which the others cannot load"),
    row("export_onnx", Kind::Flag, Section::Run, Readers::TRAIN, "Also write model.onnx, for next-plaid"),
    // Data
    row("data.train", Kind::Paths, Section::Data, Readers::ALL, "Training data; several sources (a list, or the flag repeated) are read as one. JSONL, JSON, CSV, TSV or Parquet file; directory with one file per split; BEIR directory; the reference's three files; PyLate's three tables"),
    row("data.format", Kind::Words(&["auto", "pairs", "labeled_pairs", "triplets", "scored", "tevatron", "pylate", "beir", "reference"]), Section::Data, Readers::ALL, "Layout of the training data: auto (decides by content), pairs, labeled_pairs, triplets, scored, tevatron, pylate, beir or reference"),
    row("data.columns", Kind::Columns, Section::Data, Readers::ALL, "Roles of columns, such as \"question=query, answer=positive\" (query, positive, negative, document, label, scores, ignore)"),
    row("data.all_documents", Kind::OptionalPath, Section::Data, Readers::ALL, "Further documents to draw negatives from"),
    row("data.dev", Kind::OptionalPath, Section::Data, Readers::ALL, "BEIR directory whose dev queries choose the best model; without it, the dev split of the training data's own BEIR directory"),
    row("data.test", Kind::OptionalPath, Section::Data, Readers::ALL, "BEIR directory whose test queries are measured before and after training, but never used to choose a model; without it, the test split of the training data's own BEIR directory"),
    row("data.skip_test", Kind::Flag, Section::Data, Readers::ALL, "Leave out the test queries, also those of the training data's own BEIR directory: they are neither read nor measured, nor searched for training texts"),
    row("data.dev_split", Kind::Whole, Section::Data, Readers::ALL, "Hold out N training queries as the dev set if none is given"),
    row("data.positive_label", Kind::Label, Section::Data, Readers::ALL, "Label of a positive in labelled pairs"),
    row("data.negative_label", Kind::Label, Section::Data, Readers::ALL, "Label of a negative in labelled pairs"),
    row("data.skip_bad_rows", Kind::Flag, Section::Data, Readers::ALL, "Skip and count malformed rows instead of stopping at the first"),
    // Negatives
    row("negatives.num_new_negatives", Kind::Whole, Section::Negatives, Readers::ALL, "New negatives per distinct query; 0 adds none"),
    row("negatives.hard_negative_minimum_rank", Kind::Whole, Section::Negatives, Readers::PREPARE, "Skip mined candidates ranked better than this, counted from 0"),
    row("negatives.hard_negative_maximum_rank", Kind::Whole, Section::Negatives, Readers::PREPARE, "Skip mined candidates ranked at this or worse, counted from 0"),
    row("negatives.mine_hard_negatives", Kind::Flag, Section::Negatives, Readers::FILES, "The reference's argument: false is the same as miner = \"random\""),
    row("negatives.miner", Kind::Words(&["bm25", "dense", "late_interaction", "random"]), Section::Negatives, Readers::PREPARE, "Ranks candidates: BM25 (bm25), a sentence encoder (dense), the model being trained (late_interaction), or none (random)"),
    row("negatives.miner_model", Kind::OptionalPath, Section::Negatives, Readers::PREPARE, "Sentence encoder of the dense miner, or of the candidates of late_interaction: directory or name on the hub"),
    row("negatives.hard_negative_model_size", Kind::Words(&["small", "base", "large"]), Section::Negatives, Readers::FILES, "The reference's argument: which of its sentence encoders an error suggests if miner_model is missing"),
    row("negatives.miner_query_prefix", Kind::OptionalText, Section::Negatives, Readers::PREPARE, "Text before every query for the sentence encoder; without it, the encoder's own"),
    row("negatives.miner_document_prefix", Kind::OptionalText, Section::Negatives, Readers::PREPARE, "Text before every document for the sentence encoder; without it, the encoder's own"),
    row("negatives.refresh", Kind::Words(&["never", "epoch"]), Section::Negatives, Readers::TRAIN, "Choose negatives once (never), or again at the start of every later epoch"),
    row("negatives.teacher", Kind::OptionalPath, Section::Negatives, Readers::PREPARE, "Cross-encoder or ColBERT (directory or name on the hub) that scores every candidate; its scores replace the miner's in positive_score_share, and training distils them"),
    row("negatives.teacher_cache", Kind::OptionalPath, Section::Negatives, Readers::PREPARE, "Directory that keeps the teacher's scores for later runs; without it, ragtrainer/scores in the user's cache directory"),
    row("negatives.positive_score_share", Kind::OptionalNumber("off"), Section::Negatives, Readers::PREPARE, "Drop mined candidates that score above this share of the positive's score, as likely positives (NV-Retriever, arXiv 2407.15831)"),
    row("negatives.min_negatives", Kind::OptionalWhole("auto"), Section::Negatives, Readers::ALL, "Skip and count queries and ready-made examples with fewer than N negatives; those with at least N are used, even with fewer than nway - 1; auto is nway - 1"),
    row("negatives.triples", Kind::Words(&["all", "reference"]), Section::Negatives, Readers::ALL, "Pair every positive with every negative (all), or make the reference's number of triples (reference)"),
    row("negatives.seed", Kind::Whole, Section::Negatives, Readers::PREPARE, "Seed of the sampling of negatives"),
    // Training: RAGTrainer.train
    row("train.batch_size", Kind::Whole, Section::Train, Readers::CHECK, "Queries per optimizer step"),
    row("train.nbits", Kind::Whole, Section::Train, Readers::TRAIN, "Bits per residual of a later index; written to artifact.metadata, not used in training"),
    row("train.maxsteps", Kind::Whole, Section::Train, Readers::TRAIN, "Upper bound on optimizer steps"),
    row("train.use_ib_negatives", Kind::Flag, Section::Train, Readers::TRAIN, "In-batch negatives: every other query's documents are negatives too"),
    row("train.learning_rate", Kind::OptionalNumber("auto"), Section::Train, Readers::TRAIN, "Peak learning rate; auto is 5e-6 if a trained ColBERT is continued and 3e-5 if the head is new"),
    row("train.dim", Kind::Whole, Section::Train, Readers::PREPARE, "Size of a token embedding"),
    row("train.doc_maxlen", Kind::Tokens, Section::Train, Readers::ALL, "Maximum document length in tokens, markers and prompt included; model is the number of the encoder's positions"),
    row("train.use_relu", Kind::Flag, Section::Train, Readers::TRAIN, "ReLU after the projection"),
    row("train.warmup_steps", Kind::Warmup, Section::Train, Readers::TRAIN, "Steps of rising learning rate: a number, auto (a tenth of the run), or constant (no schedule)"),
    row("train.accumsteps", Kind::Whole, Section::Train, Readers::TRAIN, "Micro-batches per batch (of each process), to save memory"),
    // Training: further
    row("train.head", Kind::Layers, Section::Further, Readers::TRAIN, "Layers of a new head, instead of a single matrix: comma-separated sizes, the last of which is dim, each followed by any of relu, gelu, tanh, sigmoid, silu, bias and residual, such as \"768 gelu residual, dim\"; for plain encoders"),
    row("train.head_init", Kind::Words(&["random", "pca"]), Section::Further, Readers::TRAIN, "First weights of a new head: drawn at random, as in colbert-ai (random), or the principal components of the encoder's token vectors on training texts (pca)"),
    row("train.dims", Kind::Sizes, Section::Further, Readers::TRAIN, "Matryoshka sizes, from train.dim down, such as \"128, 64, 32\": the loss is summed over vectors truncated to each size, so that encode --dim can truncate them later; without it, those of the model that training starts from"),
    row("train.query_maxlen", Kind::Tokens, Section::Further, Readers::ALL, "Query length in tokens, markers, prompt and [MASK] expansion included; model is the number of the encoder's positions"),
    row("train.query_token_id", Kind::OptionalText, Section::Further, Readers::ALL, "Token after [CLS] that marks queries; added if the vocabulary lacks it; an empty text means no marker; without it, the model's own ([unused0] for a plain encoder)"),
    row("train.doc_token_id", Kind::OptionalText, Section::Further, Readers::ALL, "Token after [CLS] that marks documents, as for queries; without it, the model's own ([unused1] for a plain encoder)"),
    row("train.query_prompt", Kind::OptionalText, Section::Further, Readers::ALL, "Text before every query, such as \"search_query: \"; without it, the model's own (none for a plain encoder)"),
    row("train.document_prompt", Kind::OptionalText, Section::Further, Readers::ALL, "Text before every document, as for queries"),
    row("train.nway", Kind::Whole, Section::Further, Readers::ALL, "Documents per query in a training example, the positive included"),
    row("train.draw_negatives", Kind::Flag, Section::Further, Readers::ALL, "Make one example per positive, and draw its nway - 1 negatives from all of the query's negatives each time it is used"),
    row("train.epochs", Kind::Whole, Section::Further, Readers::CHECK, "Passes over the examples"),
    row("train.seed", Kind::Whole, Section::Further, Readers::TRAIN, "Seed of the order of examples, of dropout, and of new weights"),
    row("train.shuffle", Kind::Flag, Section::Further, Readers::TRAIN, "Shuffle the examples in every epoch; false keeps their order, as the reference does"),
    row("train.mix_weights", Kind::Numbers, Section::Further, Readers::TRAIN, "Relative frequency of examples from each source of data.train, such as \"2, 1\"; without it, train.mix_exponent decides"),
    row("train.mix_exponent", Kind::Number, Section::Further, Readers::TRAIN, "Weigh a source of N examples by N to this power: 1 takes every example equally often, 0 every source"),
    row("train.mix_batches", Kind::Words(&["mixed", "one_source"]), Section::Further, Readers::TRAIN, "Mix all sources in a batch (mixed), or take each batch from one source (one_source), so that in-batch negatives come from the query's own source"),
    row("train.weight_decay", Kind::Number, Section::Further, Readers::TRAIN, "Decoupled weight decay of AdamW, on every parameter unless train.decay_biases_and_norms is false"),
    row("train.decay_biases_and_norms", Kind::Flag, Section::Further, Readers::TRAIN, "Apply weight decay to biases and norms too, as the reference does"),
    row("train.head_rate_factor", Kind::Number, Section::Further, Readers::TRAIN, "Factor on the learning rate of the head"),
    row("train.embeddings_rate_factor", Kind::Number, Section::Further, Readers::TRAIN, "Factor on the learning rate of the encoder's embeddings"),
    row("train.layer_rate_decay", Kind::Number, Section::Further, Readers::TRAIN, "Factor by which the learning rate falls from each encoder layer to the one below it, such as 0.9"),
    row("train.freeze_encoder_steps", Kind::Whole, Section::Further, Readers::TRAIN, "Train the head alone for the first N updates"),
    row("train.clip_norm", Kind::Number, Section::Further, Readers::TRAIN, "Maximum global gradient norm; 0 disables clipping"),
    row("train.dropout", Kind::OptionalNumber("encoder"), Section::Further, Readers::TRAIN, "Dropout probability; encoder keeps those in its config.json"),
    row("train.attend_to_mask_tokens", Kind::Flag, Section::Further, Readers::TRAIN, "Let [MASK] expansion tokens be attended to"),
    row("train.query_expansion", Kind::Flag, Section::Further, Readers::TRAIN, "Pad queries with [MASK] tokens to query_maxlen"),
    row("train.query_expansion_length", Kind::OptionalWhole("model"), Section::Further, Readers::TRAIN, "Pad queries to N tokens only, and keep longer ones whole up to query_maxlen; model is the model's own value (query_maxlen for a plain encoder)"),
    row("train.mask_punctuation", Kind::Flag, Section::Further, Readers::TRAIN, "Leave punctuation out of document scoring"),
    row("train.pool_factor", Kind::OptionalNumber("model"), Section::Further, Readers::TRAIN, "Hierarchical token pooling: the exported model keeps about one vector in X of each document. Dev and test queries are measured with it; training itself pools nothing. Needs export_layout = \"sentence-transformers\"; model is the value of the model that training starts from; 1 disables pooling"),
    row("train.schedule", Kind::Words(&["linear", "cosine", "warmup_stable_decay", "constant"]), Section::Further, Readers::TRAIN, "Learning rate after warm-up: linear or cosine decay to 0, warmup_stable_decay (constant, with a linear decay at the end), or constant"),
    row("train.decay_steps", Kind::Steps, Section::Further, Readers::TRAIN, "Steps of the decay at the end of schedule = \"warmup_stable_decay\": a number, or auto (a tenth of the run)"),
    row("train.schedule_horizon", Kind::Steps, Section::Further, Readers::TRAIN, "Step at which the learning rate reaches 0: a number, or auto (the last step)"),
    row("train.warmup_from_zero", Kind::Flag, Section::Further, Readers::TRAIN, "Give the first step a learning rate of 0, as the reference does"),
    row("train.save_every", Kind::Steps, Section::Further, Readers::TRAIN, "Steps between checkpoints and evaluations: a number, or auto (a tenth of the run, or more where dev queries and their documents have more tokens than the batches of that many steps, so that evaluations take about a quarter of the time at most)"),
    row("train.keep_checkpoints", Kind::Whole, Section::Further, Readers::TRAIN, "Number of newest checkpoints to keep"),
    row("train.keep_best_checkpoints", Kind::Whole, Section::Further, Readers::TRAIN, "Number of further checkpoints to keep: the best by the dev metric"),
    row("train.ib_scope", Kind::Words(&["batch", "micro_batch"]), Section::Further, Readers::TRAIN, "Take in-batch negatives from the whole batch (batch), or only from the micro-batch (micro_batch) as the reference does"),
    row("train.ib_skip_known_positives", Kind::Flag, Section::Further, Readers::TRAIN, "Leave a query's other known positives out of its in-batch negatives"),
    row("train.ib_own_negatives", Kind::Flag, Section::Further, Readers::TRAIN, "Count a query's own negatives in its in-batch loss too; with cross_entropy_weight = 0, the contrastive loss of PyLate and sentence-transformers"),
    row("train.distillation_alpha", Kind::Number, Section::Further, Readers::TRAIN, "Factor on teacher scores before their softmax"),
    row("train.ignore_scores", Kind::Flag, Section::Further, Readers::TRAIN, "Train on labels even where teacher scores are given"),
    row("train.temperature", Kind::Number, Section::Further, Readers::TRAIN, "Temperature of the contrastive losses (cross-entropy and in-batch), which divides scores; 1 is the reference's"),
    row("train.learn_temperature", Kind::Flag, Section::Further, Readers::TRAIN, "Learn the temperature along with the weights, starting at train.temperature"),
    row("train.distillation_loss", Kind::Words(&["kl", "margin_mse"]), Section::Further, Readers::TRAIN, "Loss of rows with teacher scores: KL divergence (kl), or mean squared error of the margins between the positive and each negative (margin_mse)"),
    row("train.teacher_scores", Kind::Words(&["raw", "min_max", "z_score"]), Section::Further, Readers::TRAIN, "Scale of a row's teacher scores: as given (raw), from 0 to 1 (min_max), or with mean 0 and standard deviation 1 (z_score)"),
    row("train.student_scores", Kind::Words(&["raw", "min_max", "z_score"]), Section::Further, Readers::TRAIN, "Scale of the model's scores of a row when they are compared with a teacher's, as for train.teacher_scores"),
    row("train.teacher_temperature", Kind::Number, Section::Further, Readers::TRAIN, "Temperature that divides teacher scores before their softmax; the inverse of train.distillation_alpha"),
    row("train.student_temperature", Kind::Number, Section::Further, Readers::TRAIN, "Temperature that divides the model's scores before the softmax of distillation; the loss is multiplied by its square"),
    row("train.cross_entropy_weight", Kind::OptionalNumber("auto"), Section::Further, Readers::TRAIN, "Weight of the cross-entropy over a row's own documents; auto is 1 for rows without teacher scores and 0 for rows with them"),
    row("train.distillation_weight", Kind::Number, Section::Further, Readers::TRAIN, "Weight of the distillation loss of rows with teacher scores"),
    row("train.in_batch_weight", Kind::Number, Section::Further, Readers::TRAIN, "Weight of the in-batch loss"),
    row("train.precision", Kind::Words(&Precision::NAMES), Section::Further, Readers::TRAIN, "Matmul precision: f32, tf32 (NVIDIA GPUs from Ampere on), bf16, f16 (with loss scaling; not on flex), or auto (the fastest that the device supports)"),
    row("train.memory_limit", Kind::Size("off"), Section::Further, Readers::TRAIN, "Memory that a run may use, such as 6GB, or auto (most of what is free); larger batches are cut into micro-batches with the same gradient"),
    row("train.ema_decay", Kind::OptionalNumber("off"), Section::Further, Readers::TRAIN, "Keep an exponential moving average of the weights with this decay per step, and measure it at the end"),
    row("train.on_nonfinite", Kind::Words(&["stop", "skip"]), Section::Further, Readers::TRAIN, "If a loss or gradient is not finite: stop the run, or skip the step"),
    // Evaluation
    row("evaluation.metric", Kind::Metric, Section::Evaluation, Readers::TRAIN, "Metric that chooses the best model: ndcg@K, mrr@K, recall@K, success@K, map@K or loss"),
    row("evaluation.pool_size", Kind::OptionalWhole("all"), Section::Evaluation, Readers::ALL, "Rank dev queries against N documents: all the relevant ones and random others"),
    row("evaluation.max_queries", Kind::OptionalWhole("all"), Section::Evaluation, Readers::ALL, "Use at most N dev queries, chosen at random by the seed"),
    row("evaluation.seed", Kind::Whole, Section::Evaluation, Readers::ALL, "Seed of the choices of evaluation.pool_size, evaluation.max_queries and data.dev_split"),
    row("evaluation.patience", Kind::OptionalWhole("off"), Section::Evaluation, Readers::TRAIN, "Stop after N evaluations in a row without a new best"),
    row("evaluation.average_best", Kind::Whole, Section::Evaluation, Readers::TRAIN, "At the end, also measure the average of the N best models' weights; 0 turns this off"),
    row("evaluation.interpolate", Kind::Flag, Section::Evaluation, Readers::TRAIN, "At the end, also measure interpolations between the best model's weights and those it started from"),
];

/// The sections of an option file, which are no options themselves.
pub(crate) const SECTIONS: &[&str] = &["data", "negatives", "train", "evaluation"];

impl Section {
    /// The heading in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Run => "Run",
            Self::Data => "Data",
            Self::Negatives => "Negatives",
            Self::Train => "Training (names and defaults of RAGTrainer.train)",
            Self::Further => "Training, further",
            Self::Evaluation => "Evaluation",
        }
    }
}

impl Kind {
    /// The values in words, for errors.
    pub fn expected(self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Whole => "a whole number, 0 or more".to_owned(),
            Self::OptionalWhole(word) => format!("a whole number, 0 or more, or \"{word}\""),
            Self::Number => "a number".to_owned(),
            Self::OptionalNumber(word) => format!("a number, or \"{word}\""),
            Self::Text => "a text".to_owned(),
            Self::OptionalText => "a text, or nothing".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::OptionalPath => "a path, or nothing".to_owned(),
            Self::Paths => "a path, a list of different paths, or nothing".to_owned(),
            Self::Numbers => "comma-separated numbers, such as \"2, 1\", or a list of them".to_owned(),
            Self::Label => "a word or a number".to_owned(),
            Self::Size(word) => format!("a size such as \"6GB\" or \"512MiB\", \"auto\", or \"{word}\""),
            Self::Tokens => "a number of tokens, or \"model\"".to_owned(),
            Self::Steps => "a number of steps or \"auto\"".to_owned(),
            Self::Warmup => "a number of steps, \"auto\" or \"constant\"".to_owned(),
            Self::Words([rest @ .., last]) => format!("{} or {last}", rest.join(", ")),
            Self::Words([]) => unreachable!("a kind of words has words"),
            Self::Columns => {
                "columns and their roles, such as \"question=query, answer=positive\" or \"context=document\""
                    .to_owned()
            }
            Self::Sizes => "comma-separated whole numbers, such as \"128, 64\", or a list of them".to_owned(),
            Self::Layers => {
                "comma-separated layers, the last one dim, such as \"768 gelu residual, dim\" (a size, then any of \
                 relu, gelu, tanh, sigmoid, silu, bias and residual)"
                    .to_owned()
            }
            Self::Metric => {
                "ndcg@k, mrr@k, recall@k, success@k or map@k with k of 1 or more, such as ndcg@10, or loss".to_owned()
            }
        }
    }

    /// Stands for the value in a command's help.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Flag => "BOOL",
            Self::Whole | Self::OptionalWhole(_) => "N",
            Self::Number | Self::OptionalNumber(_) => "X",
            Self::Text | Self::OptionalText => "TEXT",
            Self::Path | Self::OptionalPath | Self::Paths => "PATH",
            Self::Numbers => "X,X",
            Self::Label => "LABEL",
            Self::Size(_) => "SIZE",
            Self::Tokens => "N|model",
            Self::Steps => "N|auto",
            Self::Warmup => "N|auto|constant",
            Self::Words(_) | Self::Metric => "NAME",
            Self::Columns => "ROLES",
            Self::Sizes => "N,N",
            Self::Layers => "LAYERS",
        }
    }

    /// The word for "no value", if there is one.
    fn absent(self) -> Option<&'static str> {
        match self {
            Self::OptionalWhole(word) | Self::OptionalNumber(word) | Self::Size(word) => Some(word),
            _ => None,
        }
    }
}

impl OptionRow {
    /// The row of an option.
    pub fn of(key: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|row| row.key == key)
    }

    /// The flag of the command line, without its dashes.
    pub fn flag(&self) -> String {
        match self.key {
            "data.train" | "data.dev" | "data.test" => format!("{}-data", self.name()),
            "negatives.seed" | "evaluation.seed" => self.key.replace('.', "-"),
            _ => self.name().replace('_', "-"),
        }
    }

    /// The name without the section.
    pub fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }

    /// The default as a person would write it. None where there is nothing to write.
    pub fn default_text(&self) -> Option<String> {
        static DEFAULTS: LazyLock<Vec<(&str, Value)>> = LazyLock::new(|| Options::default().entries());
        let (_, value) = DEFAULTS.iter().find(|(key, _)| *key == self.key).expect("every row is an option");
        match value {
            Value::Null => self.kind.absent().map(str::to_owned),
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl Options {
    /// Every option by its name with the section, in the order of the table.
    pub fn entries(&self) -> Vec<(&'static str, Value)> {
        let json = serde_json::to_value(self).expect("options have a JSON form");
        let value = |key: &str| key.split('.').fold(&json, |inner, part| &inner[part]).clone();
        OPTIONS.iter().map(|row| (row.key, value(row.key))).collect()
    }
}

/// The value an option really takes, or none if the option cannot take it.
///
/// A text is taken as it is where the option is a text, as no value where it is the word for that, and otherwise read
/// as a number or as true, yes, on, 1 or false, no, off, 0: environment and command line know only texts.
pub(crate) fn interpret(row: &OptionRow, value: &Value) -> Option<Value> {
    let key = row.key;
    let Value::String(text) = value else {
        return takes(key, value).then(|| value.clone());
    };
    let text = text.trim();
    if row.kind.absent().is_some_and(|word| text.eq_ignore_ascii_case(word)) {
        return Some(Value::Null);
    }
    let flag = match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    };
    let candidates = [
        Some(value.clone()),
        text.parse::<u64>().ok().map(Value::from),
        text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
        flag.map(Value::Bool),
    ];
    candidates.into_iter().flatten().find(|candidate| takes(key, candidate))
}

/// The known name that looks most like an unknown one.
pub(crate) fn nearest(unknown: &str) -> Option<&'static str> {
    let flat = unknown.replace('.', "_").to_lowercase();
    let (section, name) = split(unknown);
    let name = name.to_lowercase();
    let tolerance = name.chars().count() / 3;
    let known = OPTIONS.iter().map(|row| row.key).chain(SECTIONS.iter().copied());
    let close = known.filter_map(|key| {
        let (known_section, known_name) = split(key);
        let whole = strsim::damerau_levenshtein(&flat, &key.replace('.', "_"));
        let by_name = strsim::damerau_levenshtein(&name, known_name);
        // A name in the wrong section costs 2 at most: people who know the reference write batch_size without one.
        let by_parts = (by_name <= tolerance)
            .then(|| by_name + strsim::damerau_levenshtein(&section.to_lowercase(), known_section).min(2));
        let distance = by_parts.into_iter().chain((whole <= tolerance).then_some(whole)).min()?;
        Some((distance, known_section != "train", key))
    });
    close.min_by_key(|(distance, elsewhere, _)| (*distance, *elsewhere)).map(|(_, _, key)| key)
}

/// An object that holds one dotted key.
pub(crate) fn nest(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, part| Value::Object(Map::from_iter([(part.to_owned(), inner)])))
}

fn takes(key: &str, value: &Value) -> bool {
    serde_json::from_value::<Options>(nest(key, value.clone())).is_ok()
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fmt::Write;

    fn leaves(prefix: &str, value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&key, value, into);
                }
            }
            _ => into.push(prefix.to_owned()),
        }
    }

    #[test]
    fn the_table_names_exactly_the_options_there_are() {
        let mut real = Vec::new();
        leaves("", &serde_json::to_value(Options::default()).unwrap(), &mut real);
        let mut listed: Vec<_> = OPTIONS.iter().map(|row| row.key.to_owned()).collect();
        real.sort();
        listed.sort();
        assert_eq!(real, listed);
    }

    #[test]
    fn every_flag_is_one_options() {
        let mut flags: Vec<_> = OPTIONS.iter().map(OptionRow::flag).collect();
        flags.sort();
        let count = flags.len();
        flags.dedup();
        assert_eq!(flags.len(), count);
    }

    #[test]
    fn an_option_takes_its_kind_and_nothing_else() {
        for row in OPTIONS {
            let key = row.key;
            let sample = match row.kind {
                Kind::Flag => json!(true),
                Kind::Number | Kind::OptionalNumber(_) => json!(0.5),
                Kind::Text | Kind::OptionalText | Kind::Path | Kind::OptionalPath | Kind::Paths => json!("x"),
                Kind::Numbers => json!([2.0, 1.0]),
                Kind::Label | Kind::Whole | Kind::OptionalWhole(_) => json!(3),
                Kind::Metric => json!("mrr@10"),
                Kind::Steps | Kind::Size(_) | Kind::Warmup => json!("auto"),
                Kind::Words(words) => json!(words[words.len() - 1]),
                Kind::Columns => json!("context=document"),
                Kind::Sizes => json!([128, 64]),
                Kind::Layers => json!("8 gelu, dim residual"),
                Kind::Tokens => json!("model"),
            };
            assert_eq!(interpret(row, &sample), Some(sample.clone()), "{key}");
            let refused = if row.kind == Kind::Flag { json!("maybe") } else { json!(true) };
            assert_eq!(interpret(row, &refused), None, "{key}");
            let optional = row.kind.absent().is_some()
                || matches!(
                    row.kind,
                    Kind::OptionalText | Kind::OptionalPath | Kind::Paths | Kind::Numbers | Kind::Sizes
                );
            assert_eq!(interpret(row, &Value::Null).is_some(), optional, "{key}");
            if let Some(word) = row.kind.absent() {
                assert_eq!(interpret(row, &json!(word)), Some(Value::Null), "{key} = {word}");
            }
            if let Kind::Words(words) = row.kind {
                words.iter().for_each(|word| assert!(interpret(row, &json!(word)).is_some(), "{key} = {word}"));
            }
            if let Some(default) = row.default_text() {
                assert!(interpret(row, &json!(default)).is_some(), "{key}: the default that is shown can be written");
            }
        }
    }

    #[test]
    fn entries_are_the_options_in_the_order_of_the_table() {
        let mut options = Options::default();
        options.train.batch_size = 7;
        let entries = options.entries();
        assert!(entries.iter().map(|(key, _)| *key).eq(OPTIONS.iter().map(|row| row.key)));
        assert!(entries.contains(&("train.batch_size", json!(7))) && entries.contains(&("backend", json!("auto"))));
    }

    /// `docs/options.md` as the table has it.
    fn page() -> String {
        let mut page = "# Options\n\nGenerated from the table of options in `colbert-config` by its tests: change that, \
                        then run\n`UPDATE_DOCS=1 cargo test -p colbert-config`. How files, environment and command line go \
                        together: [guide](guide.md).\nThe reference is RAGatouille 0.0.9 with colbert-ai.\n"
            .to_owned();
        let mut section = None;
        for row in OPTIONS {
            if section != Some(row.section) {
                section = Some(row.section);
                let _ = write!(
                    page,
                    "\n## {}\n\n| option | flag | default | meaning |\n|---|---|---|---|\n",
                    row.section.title()
                );
            }
            let flag = if row.readers == Readers::FILES { String::new() } else { format!("`--{}`", row.flag()) };
            let default = row.default_text().map_or_else(String::new, |default| format!("`{default}`"));
            let _ = writeln!(page, "| `{}` | {flag} | {default} | {} |", row.key, row.help.replace('|', "\\|"));
        }
        page
    }

    #[test]
    fn the_page_of_options_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/options.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/options.md is out of date: UPDATE_DOCS=1 cargo test -p colbert-config writes it"
        );
    }

    #[test]
    fn texts_become_what_the_option_needs() {
        for (key, text, value) in [
            ("train.batch_size", "16", json!(16)),
            ("train.learning_rate", "2e-5", json!(2e-5)),
            ("train.learning_rate", "1", json!(1)),
            ("train.dropout", "0.1", json!(0.1)),
            ("evaluation.pool_size", "5000", json!(5000)),
            ("overwrite", "yes", json!(true)),
            ("overwrite", "0", json!(false)),
            ("model_name", "123", json!("123")),
            ("model_name", "true", json!("true")),
            ("data.positive_label", "1", json!("1")),
            ("train.warmup_steps", "7", json!("7")),
            ("train.mix_weights", "2, 1", json!("2, 1")),
            ("train.learning_rate", "auto", Value::Null),
        ] {
            assert_eq!(interpret(OptionRow::of(key).unwrap(), &json!(text)), Some(value), "{key} = {text}");
        }
        for (key, text) in [
            ("train.batch_size", "16.5"),
            ("train.batch_size", "-1"),
            ("train.batch_size", "true"),
            ("train.learning_rate", "nan"),
            ("train.learning_rate", "inf"),
            ("train.dropout", "none"),
            ("evaluation.metric", "ndcg"),
            ("train.save_every", "constant"),
        ] {
            assert_eq!(interpret(OptionRow::of(key).unwrap(), &json!(text)), None, "{key} = {text}");
        }
    }

    #[test]
    fn slips_of_the_pen_find_their_option() {
        for (unknown, known) in [
            ("train.batch_siez", Some("train.batch_size")),
            ("trian.batch_size", Some("train.batch_size")),
            ("batch_size", Some("train.batch_size")),
            ("seed", Some("train.seed")),
            ("evaluation.seeds", Some("evaluation.seed")),
            ("train_batch_size", Some("train.batch_size")),
            ("train.learning-rate", Some("train.learning_rate")),
            ("train.Learning_Rate", Some("train.learning_rate")),
            ("data.pool_size", Some("evaluation.pool_size")),
            ("pretrained_model", Some("pretrained_model_name")),
            ("evalution", Some("evaluation")),
            ("outptu", Some("output")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(unknown), known, "{unknown}");
        }
    }
}
