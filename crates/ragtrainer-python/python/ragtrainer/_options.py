"""Keyword-only options, from the library's table. Written by make_options.py: do not edit."""

from __future__ import annotations

import os
from typing import Literal, TypedDict


class RunOptions(TypedDict, total=False):
    """Further options of ``RAGTrainer``."""

    license: str
    """Licence of the model, for its card: apache-2.0, mit, ..."""
    inherit_settings: bool
    """Take over lengths, masks and sizes from the ColBERT that training starts from, unless they are set [default: True]"""
    output: str | os.PathLike[str]
    """Directory of the run; the best model is written to its best/"""
    overwrite: bool
    """Replace an earlier run in the output directory, or the files that prepare or score wrote earlier [default: False]"""
    backend: str
    """Backend and device: auto, flex, cuda, cuda:N, libtorch, libtorch:cuda:N, wgpu, wgpu:N [default: auto]"""
    export_dtype: Literal["f32", "f16", "bf16"]
    """Number format of the weights in exported model directories: f32, f16 or bf16 [default: f32]"""
    export_layout: Literal["all", "sentence-transformers"]
    """Layout of the exported directory: one that all programs load (all), or that of sentence-transformers 6 (sentence-transformers), which the others cannot load [default: all]"""
    export_onnx: bool
    """Also write model.onnx, for next-plaid [default: False]"""


class PrepareOptions(TypedDict, total=False):
    """Further options of ``RAGTrainer.prepare_training_data``."""

    format: Literal["auto", "pairs", "labeled_pairs", "triplets", "scored", "tevatron", "pylate", "beir", "reference"]
    """Layout of the training data: auto (decides by content), pairs, labeled_pairs, triplets, scored, tevatron, pylate, beir or reference [default: auto]"""
    columns: str
    """Roles of columns, such as "question=query, answer=positive" (query, positive, negative, document, label, scores, ignore)"""
    dev_data: str | os.PathLike[str] | None
    """BEIR directory whose dev queries choose the best model; without it, the dev split of the training data's own BEIR directory"""
    test_data: str | os.PathLike[str] | None
    """BEIR directory whose test queries are measured before and after training, but never used to choose a model; without it, the test split of the training data's own BEIR directory"""
    skip_test: bool
    """Leave out the test queries, also those of the training data's own BEIR directory: they are neither read nor measured, nor searched for training texts [default: False]"""
    dev_split: int
    """Hold out N training queries as the dev set if none is given [default: 0]"""
    skip_bad_rows: bool
    """Skip and count malformed rows instead of stopping at the first [default: False]"""
    hard_negative_maximum_rank: int
    """Skip mined candidates ranked at this or worse, counted from 0 [default: 110]"""
    miner: Literal["bm25", "dense", "late_interaction", "random"]
    """Ranks candidates: BM25 (bm25), a sentence encoder (dense), the model being trained (late_interaction), or none (random) [default: bm25]"""
    miner_model: str | os.PathLike[str] | None
    """Sentence encoder of the dense miner, or of the candidates of late_interaction: directory or name on the hub"""
    miner_query_prefix: str | None
    """Text before every query for the sentence encoder; without it, the encoder's own"""
    miner_document_prefix: str | None
    """Text before every document for the sentence encoder; without it, the encoder's own"""
    refresh: Literal["never", "epoch"]
    """Choose negatives once (never), or again at the start of every later epoch [default: never]"""
    teacher: str | os.PathLike[str] | None
    """Cross-encoder or ColBERT (directory or name on the hub) that scores every candidate; its scores replace the miner's in positive_score_share, and training distils them"""
    teacher_cache: str | os.PathLike[str] | None
    """Directory that keeps the teacher's scores for later runs; without it, ragtrainer/scores in the user's cache directory"""
    positive_score_share: float | None
    """Drop mined candidates that score above this share of the positive's score, as likely positives (NV-Retriever, arXiv 2407.15831) [default: 0.95]"""
    min_negatives: int | None
    """Skip and count queries and ready-made examples with fewer than N negatives; those with at least N are used, even with fewer than nway - 1; auto is nway - 1"""
    triples: Literal["all", "reference"]
    """Pair every positive with every negative (all), or make the reference's number of triples (reference) [default: all]"""
    negatives_seed: int
    """Seed of the sampling of negatives [default: 42]"""
    nway: int
    """Documents per query in a training example, the positive included [default: 2]"""
    metric: str
    """Metric that chooses the best model: ndcg@K, mrr@K, recall@K, success@K, map@K or loss [default: ndcg@10]"""
    pool_size: int | None
    """Rank dev queries against N documents: all the relevant ones and random others"""
    max_queries: int | None
    """Use at most N dev queries, chosen at random by the seed"""
    evaluation_seed: int
    """Seed of the choices of evaluation.pool_size, evaluation.max_queries and data.dev_split [default: 5]"""
    patience: int | None
    """Stop after N evaluations in a row without a new best"""
    average_best: int
    """At the end, also measure the average of the N best models' weights; 0 turns this off [default: 0]"""
    interpolate: bool
    """At the end, also measure interpolations between the best model's weights and those it started from [default: False]"""


class TrainOptions(TypedDict, total=False):
    """Further options of ``RAGTrainer.train`` and ``RAGTrainer.plan``."""

    head: str
    """Layers of a new head, instead of a single matrix: comma-separated sizes, the last of which is dim, each followed by any of relu, gelu, tanh, sigmoid, silu, bias and residual, such as "768 gelu residual, dim"; for plain encoders"""
    head_init: Literal["random", "pca"]
    """First weights of a new head: drawn at random, as in colbert-ai (random), or the principal components of the encoder's token vectors on training texts (pca) [default: random]"""
    dims: list[int] | str | None
    """Matryoshka sizes, from train.dim down, such as "128, 64, 32": the loss is summed over vectors truncated to each size, so that encode --dim can truncate them later; without it, those of the model that training starts from"""
    query_maxlen: int | str
    """Query length in tokens, markers, prompt and [MASK] expansion included; model is the number of the encoder's positions [default: 32]"""
    query_token_id: str | None
    """Token after [CLS] that marks queries; added if the vocabulary lacks it; an empty text means no marker; without it, the model's own ([unused0] for a plain encoder)"""
    doc_token_id: str | None
    """Token after [CLS] that marks documents, as for queries; without it, the model's own ([unused1] for a plain encoder)"""
    query_prompt: str | None
    """Text before every query, such as "search_query: "; without it, the model's own (none for a plain encoder)"""
    document_prompt: str | None
    """Text before every document, as for queries"""
    draw_negatives: bool
    """Make one example per positive, and draw its nway - 1 negatives from all of the query's negatives each time it is used [default: False]"""
    epochs: int
    """Passes over the examples [default: 1]"""
    seed: int
    """Seed of the order of examples, of dropout, and of new weights [default: 12345]"""
    shuffle: bool
    """Shuffle the examples in every epoch; false keeps their order, as the reference does [default: True]"""
    mix_weights: list[float] | str | None
    """Relative frequency of examples from each source of data.train, such as "2, 1"; without it, train.mix_exponent decides"""
    mix_exponent: float
    """Weigh a source of N examples by N to this power: 1 takes every example equally often, 0 every source [default: 1.0]"""
    mix_batches: Literal["mixed", "one_source"]
    """Mix all sources in a batch (mixed), or take each batch from one source (one_source), so that in-batch negatives come from the query's own source [default: mixed]"""
    weight_decay: float
    """Decoupled weight decay of AdamW, on every parameter unless train.decay_biases_and_norms is false [default: 0.01]"""
    decay_biases_and_norms: bool
    """Apply weight decay to biases and norms too, as the reference does [default: True]"""
    head_rate_factor: float
    """Factor on the learning rate of the head [default: 1.0]"""
    embeddings_rate_factor: float
    """Factor on the learning rate of the encoder's embeddings [default: 1.0]"""
    layer_rate_decay: float
    """Factor by which the learning rate falls from each encoder layer to the one below it, such as 0.9 [default: 1.0]"""
    freeze_encoder_steps: int
    """Train the head alone for the first N updates [default: 0]"""
    clip_norm: float
    """Maximum global gradient norm; 0 disables clipping [default: 2.0]"""
    dropout: float | None
    """Dropout probability; encoder keeps those in its config.json"""
    attend_to_mask_tokens: bool
    """Let [MASK] expansion tokens be attended to [default: False]"""
    query_expansion: bool
    """Pad queries with [MASK] tokens to query_maxlen [default: True]"""
    query_expansion_length: int | None
    """Pad queries to N tokens only, and keep longer ones whole up to query_maxlen; model is the model's own value (query_maxlen for a plain encoder)"""
    mask_punctuation: bool
    """Leave punctuation out of document scoring [default: True]"""
    pool_factor: float | None
    """Hierarchical token pooling: the exported model keeps about one vector in X of each document. Dev and test queries are measured with it; training itself pools nothing. Needs export_layout = "sentence-transformers"; model is the value of the model that training starts from; 1 disables pooling"""
    schedule: Literal["linear", "cosine", "warmup_stable_decay", "constant"]
    """Learning rate after warm-up: linear or cosine decay to 0, warmup_stable_decay (constant, with a linear decay at the end), or constant [default: linear]"""
    decay_steps: int | str
    """Steps of the decay at the end of schedule = "warmup_stable_decay": a number, or auto (a tenth of the run) [default: auto]"""
    schedule_horizon: int | str
    """Step at which the learning rate reaches 0: a number, or auto (the last step) [default: auto]"""
    warmup_from_zero: bool
    """Give the first step a learning rate of 0, as the reference does [default: False]"""
    save_every: int | str
    """Steps between checkpoints and evaluations: a number, or auto (a tenth of the run, or more where dev queries and their documents have more tokens than the batches of that many steps, so that evaluations take about a quarter of the time at most) [default: auto]"""
    keep_checkpoints: int
    """Number of newest checkpoints to keep [default: 2]"""
    keep_best_checkpoints: int
    """Number of further checkpoints to keep: the best by the dev metric [default: 0]"""
    ib_scope: Literal["batch", "micro_batch"]
    """Take in-batch negatives from the whole batch (batch), or only from the micro-batch (micro_batch) as the reference does [default: batch]"""
    ib_skip_known_positives: bool
    """Leave a query's other known positives out of its in-batch negatives [default: True]"""
    ib_own_negatives: bool
    """Count a query's own negatives in its in-batch loss too; with cross_entropy_weight = 0, the contrastive loss of PyLate and sentence-transformers [default: False]"""
    distillation_alpha: float
    """Factor on teacher scores before their softmax [default: 1.0]"""
    ignore_scores: bool
    """Train on labels even where teacher scores are given [default: False]"""
    temperature: float
    """Temperature of the contrastive losses (cross-entropy and in-batch), which divides scores; 1 is the reference's [default: 1.0]"""
    learn_temperature: bool
    """Learn the temperature along with the weights, starting at train.temperature [default: False]"""
    distillation_loss: Literal["kl", "margin_mse"]
    """Loss of rows with teacher scores: KL divergence (kl), or mean squared error of the margins between the positive and each negative (margin_mse) [default: kl]"""
    teacher_scores: Literal["raw", "min_max", "z_score"]
    """Scale of a row's teacher scores: as given (raw), from 0 to 1 (min_max), or with mean 0 and standard deviation 1 (z_score) [default: raw]"""
    student_scores: Literal["raw", "min_max", "z_score"]
    """Scale of the model's scores of a row when they are compared with a teacher's, as for train.teacher_scores [default: raw]"""
    teacher_temperature: float
    """Temperature that divides teacher scores before their softmax; the inverse of train.distillation_alpha [default: 1.0]"""
    student_temperature: float
    """Temperature that divides the model's scores before the softmax of distillation; the loss is multiplied by its square [default: 1.0]"""
    cross_entropy_weight: float | None
    """Weight of the cross-entropy over a row's own documents; auto is 1 for rows without teacher scores and 0 for rows with them"""
    distillation_weight: float
    """Weight of the distillation loss of rows with teacher scores [default: 1.0]"""
    in_batch_weight: float
    """Weight of the in-batch loss [default: 1.0]"""
    precision: Literal["f32", "tf32", "bf16", "f16", "auto"]
    """Matmul precision: f32, tf32 (NVIDIA GPUs from Ampere on), bf16, f16 (with loss scaling; not on flex), or auto (the fastest that the device supports) [default: f32]"""
    memory_limit: int | str | None
    """Memory that a run may use, such as 6GB, or auto (most of what is free); larger batches are cut into micro-batches with the same gradient"""
    ema_decay: float | None
    """Keep an exponential moving average of the weights with this decay per step, and measure it at the end"""
    on_nonfinite: Literal["stop", "skip"]
    """If a loss or gradient is not finite: stop the run, or skip the step [default: stop]"""


# Names in the table of options, by keyword.
KEYS: dict[str, dict[str, str]] = {
    "run": {
        "license": "license",
        "inherit_settings": "inherit_settings",
        "output": "output",
        "overwrite": "overwrite",
        "backend": "backend",
        "export_dtype": "export_dtype",
        "export_layout": "export_layout",
        "export_onnx": "export_onnx",
    },
    "prepare": {
        "format": "data.format",
        "columns": "data.columns",
        "dev_data": "data.dev",
        "test_data": "data.test",
        "skip_test": "data.skip_test",
        "dev_split": "data.dev_split",
        "skip_bad_rows": "data.skip_bad_rows",
        "hard_negative_maximum_rank": "negatives.hard_negative_maximum_rank",
        "miner": "negatives.miner",
        "miner_model": "negatives.miner_model",
        "miner_query_prefix": "negatives.miner_query_prefix",
        "miner_document_prefix": "negatives.miner_document_prefix",
        "refresh": "negatives.refresh",
        "teacher": "negatives.teacher",
        "teacher_cache": "negatives.teacher_cache",
        "positive_score_share": "negatives.positive_score_share",
        "min_negatives": "negatives.min_negatives",
        "triples": "negatives.triples",
        "negatives_seed": "negatives.seed",
        "nway": "train.nway",
        "metric": "evaluation.metric",
        "pool_size": "evaluation.pool_size",
        "max_queries": "evaluation.max_queries",
        "evaluation_seed": "evaluation.seed",
        "patience": "evaluation.patience",
        "average_best": "evaluation.average_best",
        "interpolate": "evaluation.interpolate",
    },
    "train": {
        "head": "train.head",
        "head_init": "train.head_init",
        "dims": "train.dims",
        "query_maxlen": "train.query_maxlen",
        "query_token_id": "train.query_token_id",
        "doc_token_id": "train.doc_token_id",
        "query_prompt": "train.query_prompt",
        "document_prompt": "train.document_prompt",
        "draw_negatives": "train.draw_negatives",
        "epochs": "train.epochs",
        "seed": "train.seed",
        "shuffle": "train.shuffle",
        "mix_weights": "train.mix_weights",
        "mix_exponent": "train.mix_exponent",
        "mix_batches": "train.mix_batches",
        "weight_decay": "train.weight_decay",
        "decay_biases_and_norms": "train.decay_biases_and_norms",
        "head_rate_factor": "train.head_rate_factor",
        "embeddings_rate_factor": "train.embeddings_rate_factor",
        "layer_rate_decay": "train.layer_rate_decay",
        "freeze_encoder_steps": "train.freeze_encoder_steps",
        "clip_norm": "train.clip_norm",
        "dropout": "train.dropout",
        "attend_to_mask_tokens": "train.attend_to_mask_tokens",
        "query_expansion": "train.query_expansion",
        "query_expansion_length": "train.query_expansion_length",
        "mask_punctuation": "train.mask_punctuation",
        "pool_factor": "train.pool_factor",
        "schedule": "train.schedule",
        "decay_steps": "train.decay_steps",
        "schedule_horizon": "train.schedule_horizon",
        "warmup_from_zero": "train.warmup_from_zero",
        "save_every": "train.save_every",
        "keep_checkpoints": "train.keep_checkpoints",
        "keep_best_checkpoints": "train.keep_best_checkpoints",
        "ib_scope": "train.ib_scope",
        "ib_skip_known_positives": "train.ib_skip_known_positives",
        "ib_own_negatives": "train.ib_own_negatives",
        "distillation_alpha": "train.distillation_alpha",
        "ignore_scores": "train.ignore_scores",
        "temperature": "train.temperature",
        "learn_temperature": "train.learn_temperature",
        "distillation_loss": "train.distillation_loss",
        "teacher_scores": "train.teacher_scores",
        "student_scores": "train.student_scores",
        "teacher_temperature": "train.teacher_temperature",
        "student_temperature": "train.student_temperature",
        "cross_entropy_weight": "train.cross_entropy_weight",
        "distillation_weight": "train.distillation_weight",
        "in_batch_weight": "train.in_batch_weight",
        "precision": "train.precision",
        "memory_limit": "train.memory_limit",
        "ema_decay": "train.ema_decay",
        "on_nonfinite": "train.on_nonfinite",
    },
}
