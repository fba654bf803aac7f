"""Writes ``python/ragtrainer/_options.py`` from the library's table of options, or compares it (``--check``)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ragtrainer import _native

TARGET = Path(__file__).parent / "python" / "ragtrainer" / "_options.py"
SIGNATURES = {  # arguments of RAGatouille, which have their own place
    "run": {"model_name", "pretrained_model_name", "language_code"},
    "prepare": {
        "num_new_negatives", "hard_negative_minimum_rank", "mine_hard_negatives", "hard_negative_model_size",
        "positive_label", "negative_label", "all_documents", "train_data",
    },
    "train": {
        "batch_size", "nbits", "maxsteps", "use_ib_negatives", "learning_rate", "dim", "doc_maxlen", "use_relu",
        "warmup_steps", "accumsteps",
    },
}
CLASSES = {
    "run": ("RunOptions", "Further options of ``RAGTrainer``."),
    "prepare": ("PrepareOptions", "Further options of ``RAGTrainer.prepare_training_data``."),
    "train": ("TrainOptions", "Further options of ``RAGTrainer.train`` and ``RAGTrainer.plan``."),
}


def method(row: dict[str, str]) -> str:
    """The call that takes an option. Examples are made with their number of documents, so preparing takes it."""
    if row["key"] == "train.nway" or row["section"] in ("data", "negatives", "evaluation"):
        return "prepare"
    return row["section"]


def module() -> str:
    """The text of the module."""
    rows = json.loads(_native.option_table())
    lines = [
        '"""Keyword-only options, from the library\'s table. Written by make_options.py: do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "import os",
        "from typing import Literal, TypedDict",
    ]
    keys: dict[str, dict[str, str]] = {}
    for name, (title, about) in CLASSES.items():
        lines += ["", "", f"class {title}(TypedDict, total=False):", f'    """{about}"""', ""]
        keys[name] = {}
        for row in rows:
            if method(row) != name or row["keyword"] in SIGNATURES[name]:
                continue
            keys[name][row["keyword"]] = row["key"]
            lines.append(f"    {row['keyword']}: {row['type']}")
            default = "" if row["default"] in ("", None) else f" [default: {row['default']}]"
            lines.append(f'    """{row["help"]}{default}"""')
    lines += ["", "", "# Names in the table of options, by keyword.", "KEYS: dict[str, dict[str, str]] = {"]
    for name, own in keys.items():
        lines.append(f'    "{name}": {{')
        lines += [f'        "{keyword}": "{key}",' for keyword, key in own.items()]
        lines.append("    },")
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text(encoding="utf-8") == module() else f"{TARGET} is not what make_options.py writes")
    TARGET.write_text(module(), encoding="utf-8")
