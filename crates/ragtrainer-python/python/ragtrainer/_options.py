"""Keyword-only options, from the library's table. Written by make_options.py: do not edit."""

from __future__ import annotations

import os
from typing import Literal, TypedDict


class RunOptions(TypedDict, total=False):
    """Further options of ``RAGTrainer``."""

    license: str
    """Licence of the model, for its card: apache-2.0, mit, ..."""
    inherit_settings: bool
    """Take lengths, masks and sizes that are not set from the ColBERT that training starts from [default: True]"""
    output: str | os.PathLike[str]
    """Directory of the run; the best model is written to its best/"""
    overwrite: bool
    """Replace an earlier run in the output directory, or an earlier export [default: False]"""
    backend: str
    """Backend and device: auto, flex, cuda, cuda:N, libtorch, libtorch:cuda:N, wgpu, wgpu:N [default: auto]"""
    export_dtype: Literal["f32", "f16", "bf16"]
    """Number format of the weights in exported model directories [default: f32]"""
    export_onnx: bool
    """Also write model.onnx, for next-plaid [default: False]"""


class PrepareOptions(TypedDict, total=False):
    """Further options of ``RAGTrainer.prepare_training_data``."""

    format: Literal["auto", "pairs", "labeled_pairs", "triplets", "scored", "tevatron", "pylate", "beir", "reference"]
    """Layout of the training data; auto decides by content [default: auto]"""
    columns: str
    """Roles of columns, such as "question=query, answer=positive" (query, positive, negative, document, label, scores, ignore)"""
    dev_data: str | os.PathLike[str] | None
    """BEIR directory whose dev queries choose the best model; without it, the dev split of the training data's own BEIR directory"""
    test_data: str | os.PathLike[str] | None
    """BEIR directory whose test queries are measured before and after training and never choose; without it, as for dev"""
    dev_split: int
    """Hold out N training queries as the dev set if none is given [default: 0]"""
    skip_bad_rows: bool
    """Leave out and count malformed rows instead of stopping at the first [default: False]"""
    hard_negative_maximum_rank: int
    """Skip mined candidates ranked at this or worse, counted from 0 [default: 110]"""
    miner: Literal["bm25", "dense", "late_interaction", "random"]
    """Ranks candidates: BM25, a sentence encoder (dense), the model being trained (late_interaction), or none (random) [default: bm25]"""
    miner_model: str | os.PathLike[str] | None
    """Sentence encoder of the dense miner, or of the candidates of late_interaction: directory or name on the hub"""
    miner_query_prefix: str | None
    """Text before every query for the sentence encoder; without it, the encoder's own"""
    miner_document_prefix: str | None
    """Text before every document for the sentence encoder; without it, the encoder's own"""
    refresh: Literal["never", "epoch"]
    """Choose negatives once (never), or again at the start of every later epoch [default: never]"""
    positive_score_share: float | None
    """Drop mined candidates that score above this share of the positive's score, as likely positives (NV-Retriever, arXiv 2407.15831) [default: 0.95]"""
    triples: Literal["all", "reference"]
    """Pair every positive with every negative (all), or make the reference's number of triples [default: all]"""
    negatives_seed: int
    """Seed of the sampling of negatives [default: 42]"""
    nway: int
    """Documents per query in a training example, the positive included [default: 2]"""
    metric: str
    """Metric that chooses the best model: ndcg@K, mrr@K, recall@K, success@K or loss [default: ndcg@10]"""
    pool_size: int | None
    """Rank dev queries against N documents: all the relevant ones and random others"""
    max_queries: int | None
    """Use at most N dev queries, a seeded choice"""
    evaluation_seed: int
    """Seed of those two choices and of data.dev_split [default: 5]"""
    patience: int | None
    """Stop after N evaluations in a row without a new best"""
    average_best: int
    """At the end, also measure the mean weights of the N best models; 0 does not [default: 0]"""
    interpolate: bool
    """At the end, also measure mixtures of the best model and the start [default: False]"""


class TrainOptions(TypedDict, total=False):
    """Further options of ``RAGTrainer.train`` and ``RAGTrainer.plan``."""

    query_maxlen: int
    """Query length in tokens, markers and [MASK] expansion included [default: 32]"""
    epochs: int
    """Passes over the examples [default: 1]"""
    seed: int
    """Seed of the order of examples, of dropout, and of new weights [default: 12345]"""
    shuffle: bool
    """Shuffle the examples in every epoch; false keeps their order, as the reference does [default: True]"""
    weight_decay: float
    """Decoupled weight decay of AdamW, on every parameter [default: 0.01]"""
    clip_norm: float
    """Maximum global gradient norm; 0 disables clipping [default: 2.0]"""
    dropout: float | None
    """Dropout probability; encoder keeps those in its config.json"""
    attend_to_mask_tokens: bool
    """Let [MASK] expansion tokens be attended to [default: False]"""
    query_expansion: bool
    """Pad queries with [MASK] tokens to query_maxlen [default: True]"""
    mask_punctuation: bool
    """Leave punctuation out of document scoring [default: True]"""
    schedule_horizon: int | str
    """Step at which the learning rate reaches 0: a number, or auto (the last step) [default: auto]"""
    warmup_from_zero: bool
    """Give the first step a learning rate of 0, as the reference does [default: False]"""
    save_every: int | str
    """Steps between checkpoints and evaluations: a number, or auto (a tenth of the run) [default: auto]"""
    keep_checkpoints: int
    """Newest checkpoints to keep [default: 2]"""
    keep_best_checkpoints: int
    """Checkpoints to keep besides: the best by the dev metric [default: 0]"""
    ib_scope: Literal["batch", "micro_batch"]
    """Take in-batch negatives from the whole batch, or from the micro-batch as the reference does [default: batch]"""
    ib_skip_known_positives: bool
    """Leave a query's other known positives out of its in-batch negatives [default: True]"""
    distillation_alpha: float
    """Factor on teacher scores before their softmax [default: 1.0]"""
    ignore_scores: bool
    """Train on labels even where teacher scores are given [default: False]"""
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
        "export_onnx": "export_onnx",
    },
    "prepare": {
        "format": "data.format",
        "columns": "data.columns",
        "dev_data": "data.dev",
        "test_data": "data.test",
        "dev_split": "data.dev_split",
        "skip_bad_rows": "data.skip_bad_rows",
        "hard_negative_maximum_rank": "negatives.hard_negative_maximum_rank",
        "miner": "negatives.miner",
        "miner_model": "negatives.miner_model",
        "miner_query_prefix": "negatives.miner_query_prefix",
        "miner_document_prefix": "negatives.miner_document_prefix",
        "refresh": "negatives.refresh",
        "positive_score_share": "negatives.positive_score_share",
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
        "query_maxlen": "train.query_maxlen",
        "epochs": "train.epochs",
        "seed": "train.seed",
        "shuffle": "train.shuffle",
        "weight_decay": "train.weight_decay",
        "clip_norm": "train.clip_norm",
        "dropout": "train.dropout",
        "attend_to_mask_tokens": "train.attend_to_mask_tokens",
        "query_expansion": "train.query_expansion",
        "mask_punctuation": "train.mask_punctuation",
        "schedule_horizon": "train.schedule_horizon",
        "warmup_from_zero": "train.warmup_from_zero",
        "save_every": "train.save_every",
        "keep_checkpoints": "train.keep_checkpoints",
        "keep_best_checkpoints": "train.keep_best_checkpoints",
        "ib_scope": "train.ib_scope",
        "ib_skip_known_positives": "train.ib_skip_known_positives",
        "distillation_alpha": "train.distillation_alpha",
        "ignore_scores": "train.ignore_scores",
        "precision": "train.precision",
        "memory_limit": "train.memory_limit",
        "ema_decay": "train.ema_decay",
        "on_nonfinite": "train.on_nonfinite",
    },
}
