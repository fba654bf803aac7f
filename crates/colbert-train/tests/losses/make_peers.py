"""Writes ``peers.json``: losses of PyLate and sentence-transformers on given scores, for ``tests/objective.rs``.

Run it with each library in turn, in environments of their own; a library that is not installed is left out, and its
cases in the file stay as they are:

    python make_peers.py      # with pylate 1.6.0, then with sentence-transformers 6.2.0

The models are stand-ins: the function that scores is replaced by one that returns the scores below.
"""

import json
from pathlib import Path

import torch

FILE = Path(__file__).with_name("peers.json")
QUERIES, NWAY = 3, 4


def scores() -> list[list[float]]:
    """Scores of every query with every document, own documents first: ``[queries][queries * nway]``."""
    generator = torch.Generator().manual_seed(17)
    return (4 + 3 * torch.rand(QUERIES, QUERIES * NWAY, generator=generator)).tolist()


def teacher() -> list[list[float]]:
    generator = torch.Generator().manual_seed(18)
    return (8 * torch.rand(QUERIES, NWAY, generator=generator)).tolist()


ALL, TEACHER = torch.tensor(scores()), torch.tensor(teacher())
OWN = torch.stack([ALL[i, i * NWAY:(i + 1) * NWAY] for i in range(QUERIES)])


class Model(torch.nn.Module):
    """Gives every text a token of no meaning."""

    skiplist: list[int] = []
    do_query_expansion = False

    def forward(self, features, **_):
        rows = features["input_ids"].shape[0]
        return {"token_embeddings": torch.ones(rows, 1, 2), "attention_mask": torch.ones(rows, 1, dtype=torch.long)}


def texts(rows: int) -> dict:
    return {"input_ids": torch.ones(rows, 1, dtype=torch.long), "attention_mask": torch.ones(rows, 1, dtype=torch.long)}


def pylate_cases() -> list[dict]:
    from pylate import losses

    def distil(normalize: bool) -> float:
        loss = losses.Distillation(Model(), score_metric=lambda *_, **__: OWN, normalize_scores=normalize)
        return loss([texts(QUERIES), texts(QUERIES * NWAY)], TEACHER).item()

    def contrastive(temperature: float) -> float:
        loss = losses.Contrastive(Model(), temperature=temperature, score_metric=lambda *_, **__: ALL)
        return loss([texts(QUERIES)] + [texts(QUERIES) for _ in range(NWAY)]).item()

    return [
        {"by": "pylate Distillation", "loss": distil(False)},
        {"by": "pylate Distillation, normalize_scores", "min_max": True, "loss": distil(True)},
        {"by": "pylate Contrastive", "contrastive": True, "temperature": 1.0, "loss": contrastive(1.0)},
        {"by": "pylate Contrastive", "contrastive": True, "temperature": 0.2, "loss": contrastive(0.2)},
    ]


def st_cases() -> list[dict]:
    from sentence_transformers.multi_vector_encoder import losses

    def features() -> list[dict]:
        return [texts(QUERIES) for _ in range(NWAY + 1)]

    def kl(student: float, of_teacher: float) -> float:
        loss = losses.MultiVectorDistillKLDivLoss(
            Model(), similarity_fct=lambda *_, **__: OWN, student_temperature=student, teacher_temperature=of_teacher
        )
        return loss(features(), TEACHER).item()

    def margin_mse() -> float:
        loss = losses.MultiVectorMarginMSELoss(Model())
        columns = iter(range(NWAY))
        loss._score = lambda *_, **__: OWN[:, next(columns)]
        return loss(features(), TEACHER).item()

    return [
        {"by": "sentence-transformers KL", "student_temperature": 0.25, "teacher_temperature": 0.25, "loss": kl(0.25, 0.25)},
        {"by": "sentence-transformers KL", "student_temperature": 2.0, "teacher_temperature": 0.5, "loss": kl(2.0, 0.5)},
        {"by": "sentence-transformers margin MSE", "margin_mse": True, "loss": margin_mse()},
    ]


def main() -> None:
    known = json.loads(FILE.read_text())["cases"] if FILE.exists() else []
    made = []
    for library, make in [("pylate", pylate_cases), ("sentence-transformers", st_cases)]:
        try:
            made += make()
        except ImportError:
            made += [case for case in known if case["by"].startswith(library)]
    content = {"scores": scores(), "teacher": teacher(), "cases": made}
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
