//! The options of `[train]`: the ten arguments of the reference, and further ones.

use serde::{Deserialize, Serialize};

use crate::options::auto::{AutoSteps, Warmup};
use crate::options::head::{HeadInit, HeadLayers};
use crate::options::length;
use crate::options::losses::{DistillationLoss, ScoreScale};
use crate::options::memory::MemoryLimit;
use crate::options::mix::MixBatches;
use crate::options::number_list::NumberList;
use crate::options::precision::Precision;
use crate::options::schedule::{REFERENCE_LEARNING_RATE, Schedule};

/// Options of training. The first ten have the names and defaults of `RAGTrainer.train`'s arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Queries per optimizer step.
    pub batch_size: usize,
    /// Bits per residual of a later index; written to `artifact.metadata`, not used in training.
    pub nbits: u32,
    /// Upper bound on optimizer steps.
    pub maxsteps: usize,
    /// Add the in-batch loss: every other query's documents are negatives.
    pub use_ib_negatives: bool,
    /// Peak learning rate. None ("auto") is the reference's if a trained ColBERT is continued, and a higher one if the
    /// head is new ([`automatic_learning_rate`](crate::automatic_learning_rate)). Source of the default: the reference.
    pub learning_rate: Option<f64>,
    /// Size of a token embedding.
    pub dim: usize,
    /// Tokens of a document, markers and prompt included; [`MODEL_LENGTH`](crate::MODEL_LENGTH), in files `"model"`, is
    /// the number of the encoder's positions.
    #[serde(with = "length")]
    pub doc_maxlen: usize,
    /// ReLU after the projection. (The reference accepts it and does nothing: defect 27.)
    pub use_relu: bool,
    /// Steps of rising learning rate: `"auto"` is a tenth of the steps, a number, or `"constant"` for no schedule at
    /// all, the reference's `None`.
    pub warmup_steps: Warmup,
    /// Micro-batches a batch is cut into, to save memory.
    pub accumsteps: usize,

    /// Layers of a new head, instead of a single matrix. Empty: a single matrix, which is colbert-ai's head.
    pub head: HeadLayers,
    /// First weights of a new head of one matrix. Source of the default: colbert-ai, which draws them.
    pub head_init: HeadInit,
    /// Sizes that vectors can be truncated to afterwards, from `dim` down: the loss is the sum of the losses at each
    /// size. Empty: those of the model that training starts from, else only `dim`.
    pub dims: NumberList<usize>,
    /// Tokens of a query, markers, prompt and \[MASK\] expansion included; [`MODEL_LENGTH`](crate::MODEL_LENGTH) as for
    /// documents. Source of the default: colbert-ai `ColBERTConfig`.
    #[serde(with = "length")]
    pub query_maxlen: usize,
    /// Token after \[CLS\] of a query; it is added if the vocabulary lacks it. Empty: no marker. `None`: the model's
    /// own, and `[unused0]` for a plain encoder, as in colbert-ai.
    pub query_token_id: Option<String>,
    /// Token after \[CLS\] of a document, as for queries; for a plain encoder `[unused1]`.
    pub doc_token_id: Option<String>,
    /// Text before every query, such as `search_query: `. `None`: the model's own, and none for a plain encoder.
    pub query_prompt: Option<String>,
    /// Text before every document. `None`: as for queries.
    pub document_prompt: Option<String>,
    /// Documents per query in an example, the positive included. Source of the default: one negative, as in the
    /// reference.
    pub nway: usize,
    /// Make one example per positive and draw its `nway - 1` negatives again each time it is used, instead of one
    /// example for each group of negatives.
    pub draw_negatives: bool,
    /// Passes over the examples; `maxsteps` still bounds the run.
    pub epochs: usize,
    /// Seed of the order of examples, of dropout, and of new weights. Source of the default: colbert-ai `Launcher`.
    pub seed: u64,
    /// Shuffle the examples in every epoch; false keeps the given order, as the reference does.
    pub shuffle: bool,
    /// Relative frequency of examples from each source of `data.train`, in their order; only the ratios count. Empty:
    /// given by `mix_exponent`.
    pub mix_weights: NumberList<f64>,
    /// Without `mix_weights`, the weight of a source of n examples is n to this power: 1 takes every example equally
    /// often, 0 every source. Below 1, small sources are repeated within an epoch and large ones are not used
    /// completely.
    pub mix_exponent: f64,
    /// Whether each batch has examples of one source only.
    pub mix_batches: MixBatches,
    /// Decoupled weight decay on every parameter. Source of the default: torch `AdamW`, which the reference uses as
    /// it is.
    pub weight_decay: f64,
    /// Apply weight decay to biases and to the weights of norms too. Source of the default: torch `AdamW`, as the
    /// reference uses it; transformers' own trainer leaves them out.
    pub decay_biases_and_norms: bool,
    /// Factor on the learning rate of the head.
    pub head_rate_factor: f64,
    /// Factor on the learning rate of the encoder's embeddings.
    pub embeddings_rate_factor: f64,
    /// Factor on the learning rate of each layer of the encoder below its last: layer l of L has this to the power of
    /// L - 1 - l, the embeddings this to the power of L (Howard and Ruder 2018, arXiv 1801.06146, section 3.2).
    pub layer_rate_decay: f64,
    /// Number of updates at the start in which the encoder is frozen and only the head is trained.
    pub freeze_encoder_steps: usize,
    /// Gradients are scaled down to this global L2 norm; 0 turns clipping off. Source of the default: colbert-ai.
    pub clip_norm: f64,
    /// Dropout probability, instead of those in the encoder's `config.json`.
    pub dropout: Option<f64>,
    /// Let \[MASK\] expansion tokens of a query be attended to. Source of the default: colbert-ai.
    pub attend_to_mask_tokens: bool,
    /// Pad queries with \[MASK\] tokens to `query_maxlen`. Source of the default: colbert-ai, which always does.
    pub query_expansion: bool,
    /// Number of tokens that shorter queries are padded to, while longer ones stay whole up to `query_maxlen` ("min" in
    /// sentence-transformers 6). `None`: the model's own, and `query_maxlen` for a plain encoder.
    pub query_expansion_length: Option<usize>,
    /// Leave punctuation out of document scoring. Source of the default: colbert-ai.
    pub mask_punctuation: bool,
    /// Tokens of a document per vector that is kept when it is encoded, by sentence-transformers' pooling module in the
    /// model directory. Training itself pools nothing. `None`: as the model that training starts from, else no pooling.
    pub pool_factor: Option<f64>,
    /// The learning rate after warm-up. Source of the default: colbert-ai.
    pub schedule: Schedule,
    /// Steps of decay at the end of `schedule = "warmup_stable_decay"`: `"auto"` is a tenth of the steps.
    pub decay_steps: AutoSteps,
    /// Step at which the learning rate reaches 0: `"auto"` is the last step of this run; a number spreads the decay
    /// over that many steps (500000 is the reference's behaviour, defect 23).
    pub schedule_horizon: AutoSteps,
    /// Give the first step learning rate 0, as the reference does (defect 24).
    pub warmup_from_zero: bool,
    /// Steps between checkpoints and evaluations: `"auto"` is a tenth of the run, and more in a run of the library's
    /// facade whose dev queries and documents have more tokens than the batches of that many steps.
    pub save_every: AutoSteps,
    /// Number of newest checkpoints to keep; an older one is removed once the newest is safe. With 2, one is left if
    /// the newest gets damaged.
    pub keep_checkpoints: usize,
    /// Number of further checkpoints to keep: those with the best results on dev queries so far.
    pub keep_best_checkpoints: usize,
    /// Scope of in-batch negatives.
    pub ib_scope: IbScope,
    /// Leave a query's other known positives out of its in-batch negatives (defect 36).
    pub ib_skip_known_positives: bool,
    /// Count a query's own negatives in its in-batch loss as well. With `cross_entropy_weight = 0` that is the
    /// contrastive loss of PyLate and of sentence-transformers (`MultipleNegativesRankingLoss`): one softmax over all
    /// documents.
    pub ib_own_negatives: bool,
    /// Factor on teacher scores before their softmax. Source of the default: colbert-ai.
    pub distillation_alpha: f64,
    /// Train only on labels, even if teacher scores are given. Source of the default: colbert-ai.
    pub ignore_scores: bool,
    /// Divisor of scores before the softmax of both contrastive losses (cross-entropy and in-batch). Source of the
    /// default: colbert-ai, which has no temperature.
    pub temperature: f64,
    /// Learn the temperature along with the weights, from `temperature` on.
    pub learn_temperature: bool,
    /// Loss of rows with teacher scores. Source of the default: colbert-ai.
    pub distillation_loss: DistillationLoss,
    /// Scale of a row's teacher scores before they are compared. Source of the default: colbert-ai.
    pub teacher_scores: ScoreScale,
    /// Scale of the model's scores of a row before they are compared with the teacher's. Source of the default:
    /// colbert-ai.
    pub student_scores: ScoreScale,
    /// Divisor of teacher scores before their softmax; the inverse of `distillation_alpha`.
    pub teacher_temperature: f64,
    /// Divisor of the student's scores before their softmax; the divergence is multiplied by its square (Hinton et al.
    /// 2015, "Distilling the Knowledge in a Neural Network", section 2).
    pub student_temperature: f64,
    /// Weight of the cross-entropy over a row's own documents. None ("auto") is colbert-ai's choice: 1 for rows without
    /// teacher scores, 0 for rows with them.
    pub cross_entropy_weight: Option<f64>,
    /// Weight of the distillation loss of rows with teacher scores. Source of the default: colbert-ai.
    pub distillation_weight: f64,
    /// Weight of the in-batch loss. Source of the default: colbert-ai.
    pub in_batch_weight: f64,
    /// Matmul precision of the encoder; weights, moments, sums, normalisation and loss are float32 in any case. `auto`
    /// is bfloat16 if that is faster on the device, else float16 on a GPU that supports it. `f16` scales the loss; a device without
    /// float16 matmul refuses it. `tf32` lets an NVIDIA GPU round float32 factors; other devices refuse it. Source of
    /// the default: the reference on a CPU.
    pub precision: Precision,
    /// Memory that training may take. If a batch takes more, it is cut into the fewest micro-batches that fit, with the
    /// gradient of the whole batch. `None`: only `accumsteps` decides.
    pub memory_limit: Option<MemoryLimit>,
    /// Keep an exponential average of the weights with this decay per step, and measure it at the end.
    pub ema_decay: Option<f64>,
    /// Reaction to a batch whose loss or gradient is not finite.
    pub on_nonfinite: OnNonFinite,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            batch_size: 32,
            nbits: 2,
            maxsteps: 500_000,
            use_ib_negatives: true,
            learning_rate: Some(REFERENCE_LEARNING_RATE),
            dim: 128,
            doc_maxlen: 256,
            use_relu: false,
            warmup_steps: Warmup::Auto,
            accumsteps: 1,
            head: HeadLayers::default(),
            head_init: HeadInit::default(),
            dims: NumberList::default(),
            query_maxlen: 32,
            query_token_id: None,
            doc_token_id: None,
            query_prompt: None,
            document_prompt: None,
            nway: 2,
            draw_negatives: false,
            epochs: 1,
            seed: 12345,
            shuffle: true,
            mix_weights: NumberList::default(),
            mix_exponent: 1.0,
            mix_batches: MixBatches::Mixed,
            weight_decay: 0.01,
            decay_biases_and_norms: true,
            head_rate_factor: 1.0,
            embeddings_rate_factor: 1.0,
            layer_rate_decay: 1.0,
            freeze_encoder_steps: 0,
            clip_norm: 2.0,
            dropout: None,
            attend_to_mask_tokens: false,
            query_expansion: true,
            query_expansion_length: None,
            mask_punctuation: true,
            pool_factor: None,
            schedule: Schedule::Linear,
            decay_steps: AutoSteps::Auto,
            schedule_horizon: AutoSteps::Auto,
            warmup_from_zero: false,
            save_every: AutoSteps::Auto,
            keep_checkpoints: 2,
            keep_best_checkpoints: 0,
            ib_scope: IbScope::Batch,
            ib_skip_known_positives: true,
            ib_own_negatives: false,
            distillation_alpha: 1.0,
            ignore_scores: false,
            temperature: 1.0,
            learn_temperature: false,
            distillation_loss: DistillationLoss::default(),
            teacher_scores: ScoreScale::default(),
            student_scores: ScoreScale::default(),
            teacher_temperature: 1.0,
            student_temperature: 1.0,
            cross_entropy_weight: None,
            distillation_weight: 1.0,
            in_batch_weight: 1.0,
            precision: Precision::F32,
            memory_limit: None,
            ema_decay: None,
            on_nonfinite: OnNonFinite::Stop,
        }
    }
}

/// Reaction to a batch whose loss or gradient is not finite; it is written to the run's folder either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNonFinite {
    /// End the run.
    #[default]
    Stop,
    /// Skip the update and continue.
    Skip,
}

/// Scope of in-batch negatives when a batch is cut into micro-batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IbScope {
    /// The whole batch, whatever `accumsteps` is: the same loss and gradient as without accumulation.
    #[default]
    Batch,
    /// Only the micro-batch, as in the reference (defect 35).
    MicroBatch,
}
