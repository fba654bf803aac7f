"""``RAGTrainer``: RAGatouille's class."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragtrainer import _native
from ragtrainer._options import KEYS
from ragtrainer._progress import Progress, listener, plain

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ragtrainer._options import PrepareOptions, RunOptions, TrainOptions

StrPath = str | os.PathLike[str]


class RAGTrainer:
    """Prepares data and trains a ColBERT from it.

    The arguments of RAGatouille come first, with its names and defaults. All further options of ragtrainer are
    keyword-only: those of the run here, those of data, negatives and evaluation in ``prepare_training_data``, those of
    training in ``train``.
    """

    def __init__(
        self,
        model_name: str,
        pretrained_model_name: str,
        language_code: str = "en",
        n_usable_gpus: int = -1,
        **options: Unpack[RunOptions],
    ) -> None:
        self.model_name = model_name
        self.pretrained_model_name = pretrained_model_name
        self.language_code = language_code
        self.collection: list[str] = []
        self.data_dir: Path | None = None
        self.outcome: dict[str, Any] | None = None
        self.prepare_report: dict[str, Any] | None = None
        run: dict[str, Any] = {
            "model_name": model_name,
            "pretrained_model_name": str(pretrained_model_name),
            "language_code": language_code,
        }
        run.update(_keyed("run", options))
        if n_usable_gpus < -1 or n_usable_gpus > 1:
            raise ValueError(
                f"n_usable_gpus is {n_usable_gpus}, but a Python program is one process with one device: use -1 or 1, or "
                "train with the command: mpirun -n N ragtrainer train"
            )
        if n_usable_gpus == 0 and run.get("backend", "auto") == "auto":
            run["backend"] = "flex"
        self._run = run
        self._folder: StrPath | None = options.get("output")
        self._prepare: dict[str, Any] = {}
        self._native = _native.Trainer()

    def add_documents(self, documents: list[str]) -> None:
        """Adds documents that negatives may be drawn from."""
        self.collection += _texts("documents", documents)

    def prepare_training_data(
        self,
        raw_data: list[tuple[Any, ...]] | list[list[Any]] | StrPath,
        all_documents: list[str] | None = None,
        data_out_path: StrPath = "./data/",
        num_new_negatives: int = 10,
        hard_negative_minimum_rank: int = 10,
        mine_hard_negatives: bool = True,
        hard_negative_model_size: Literal["small", "base", "large"] = "small",
        pairs_with_labels: bool = False,
        positive_label: int | str = 1,
        negative_label: int | str = 0,
        *,
        progress: Progress = True,
        **options: Unpack[PrepareOptions],
    ) -> str:
        """Adds negatives, makes training examples, and writes RAGatouille's three files to ``data_out_path``.

        ``raw_data`` may also be the path of a file or folder that the command line reads. Returns ``data_out_path``.
        """
        prepare = _keyed("prepare", options)
        prepare.update(
            {
                "negatives.num_new_negatives": num_new_negatives,
                "negatives.hard_negative_minimum_rank": hard_negative_minimum_rank,
                "negatives.mine_hard_negatives": mine_hard_negatives,
                "negatives.hard_negative_model_size": hard_negative_model_size,
            }
        )
        if isinstance(raw_data, (str, os.PathLike)):
            prepare["data.train"] = str(raw_data)
            prepare["data.positive_label"] = positive_label
            prepare["data.negative_label"] = negative_label
        documents = self.collection + _texts("all_documents", all_documents or [])
        report = self._native.prepare(
            _json({**self._run, **prepare}),
            raw_data,
            documents,
            pairs_with_labels,
            positive_label,
            negative_label,
            listener(progress),
        )
        self.prepare_report = plain(report)
        self._prepare = prepare
        self.collection = self._native.collection()
        self.data_dir = Path(data_out_path)
        self.export_training_data(data_out_path)
        return str(data_out_path)

    def export_training_data(self, path: StrPath) -> None:
        """Writes RAGatouille's three files: queries, corpus and triples."""
        self._native.export(path)

    @property
    def queries(self) -> list[str] | None:
        """The queries that were prepared; None before."""
        return self._native.queries() or None

    @property
    def training_triplets(self) -> list[list[int]]:
        """The examples that were prepared: numbers of query, positive and negatives."""
        return self._native.examples()

    def plan(
        self,
        batch_size: int = 32,
        nbits: int = 2,
        maxsteps: int = 500_000,
        use_ib_negatives: bool = True,
        learning_rate: float | Literal["auto"] = 5e-6,
        dim: int = 128,
        doc_maxlen: int = 256,
        use_relu: bool = False,
        warmup_steps: int | Literal["auto", "constant"] | None = "auto",
        accumsteps: int = 1,
        **options: Unpack[TrainOptions],
    ) -> dict[str, Any]:
        """The plan that ``train`` would follow with the same arguments; ``text`` has it in words."""
        return plain(self._native.plan(self._train_options(locals(), options)))

    def train(
        self,
        batch_size: int = 32,
        nbits: int = 2,
        maxsteps: int = 500_000,
        use_ib_negatives: bool = True,
        learning_rate: float | Literal["auto"] = 5e-6,
        dim: int = 128,
        doc_maxlen: int = 256,
        use_relu: bool = False,
        warmup_steps: int | Literal["auto", "constant"] | None = "auto",
        accumsteps: int = 1,
        *,
        resume: bool = False,
        accept_changes: bool = False,
        progress: Progress = True,
        **options: Unpack[TrainOptions],
    ) -> str:
        """Trains, and returns the path of the best model; ``outcome`` then has metrics and further facts.

        ``resume`` resumes the run in the output folder from its newest checkpoint. Ctrl-C, or an exception of
        ``progress``, ends the run after the step with a checkpoint and is raised from here.
        """
        self.outcome = None
        self._run["output"] = str(self._output(resume))
        text = self._train_options(locals(), options)
        self.outcome = plain(self._native.train(text, resume, accept_changes, listener(progress)))
        return str(self.outcome["best"])

    def _output(self, resume: bool) -> Path:
        """The folder of the run. Without the option: runs/NAME, runs/NAME-2 and so on, so that no run is replaced."""
        if self._folder is not None:
            return Path(self._folder)
        named = Path("runs") / self.model_name
        folders = (named if number == 1 else named.with_name(f"{named.name}-{number}") for number in itertools.count(1))
        earlier = list(itertools.takewhile(Path.exists, folders))
        if resume:
            return earlier[-1] if earlier else named
        return named.with_name(f"{named.name}-{len(earlier) + 1}") if earlier else named

    def _train_options(self, given: Mapping[str, Any], further: Mapping[str, Any]) -> str:
        """All options as JSON. Those that have their default are left to the library, which may inherit them."""
        changed = {f"train.{name}": given[name] for name, default in _TRAIN_DEFAULTS.items() if given[name] != default}
        if given["warmup_steps"] is None:
            changed["train.warmup_steps"] = "constant"
        return _json({**self._run, **self._prepare, **changed, **_keyed("train", further)})

    def __repr__(self) -> str:
        return f"RAGTrainer({self.model_name!r}, {self.pretrained_model_name!r})"


_TRAIN_DEFAULTS: dict[str, Any] = {
    "batch_size": 32,
    "nbits": 2,
    "maxsteps": 500_000,
    "use_ib_negatives": True,
    "learning_rate": 5e-6,
    "dim": 128,
    "doc_maxlen": 256,
    "use_relu": False,
    "warmup_steps": "auto",
    "accumsteps": 1,
}


def _keyed(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names with the section."""
    unknown = [name for name in options if name not in KEYS[method]]
    if unknown:
        elsewhere = [f"{name} ({', '.join(m for m in KEYS if name in KEYS[m]) or 'nowhere'})" for name in unknown]
        raise TypeError(f"unexpected keyword arguments: {', '.join(elsewhere)}; known here: {', '.join(KEYS[method])}")
    return {KEYS[method][name]: value for name, value in options.items()}


def _json(options: Mapping[str, Any]) -> str:
    def reduced(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        # Numbers of numpy.
        if hasattr(value, "item"):
            return value.item()
        raise _native.OptionsError(f"expected a number, a text, True, False or None; found {type(value).__name__}")

    return json.dumps(options, default=reduced)


def _texts(what: str, given: object) -> list[str]:
    if not isinstance(given, (list, tuple)):
        raise _native.DataError(f"{what}: expected a list of texts; found {type(given).__name__}")
    return list(given)
