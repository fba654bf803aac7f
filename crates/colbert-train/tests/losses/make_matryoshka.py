"""Writes ``matryoshka.json``: the loss of sentence-transformers' ``MatryoshkaLoss`` over given token vectors, for
``tests/matryoshka.rs``. Run it with sentence-transformers 6.2.0.

``MatryoshkaLoss`` cuts ``sentence_embedding``; the stand-in model gives token vectors under that name, and the loss
inside, ``MultiVectorMultipleNegativesRankingLoss``, gets what was cut of them.
"""

import json
from pathlib import Path

import torch
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

QUERIES, NWAY, QUERY_TOKENS, DOCUMENT_TOKENS, DIM = 3, 2, 2, 4, 8
GENERATOR = torch.Generator().manual_seed(29)


def vectors(rows: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, DIM, generator=GENERATOR), dim=-1)


class Model(torch.nn.Module):
    """Token i of a text is row i of the table."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def get_embedding_dimension(self) -> int:
        return DIM

    def forward(self, features: dict) -> dict:
        return {"sentence_embedding": self.table[features["input_ids"]]}


class Tokens(torch.nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict, **_) -> dict:
        embeddings = self.model.forward(features)["sentence_embedding"]
        return {"token_embeddings": embeddings, "attention_mask": features["attention_mask"]}


def column(first: int, tokens: int, step: int) -> dict:
    """A text for each query: the first of them begins at a row of the table, the next ``step`` rows behind it."""
    ids = torch.tensor([[first + query * step + token for token in range(tokens)] for query in range(QUERIES)])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main() -> None:
    of_queries, of_documents = vectors(QUERIES * QUERY_TOKENS), vectors(QUERIES * NWAY * DOCUMENT_TOKENS)
    model = Model(torch.cat([of_queries, of_documents]))
    start, step = len(of_queries), NWAY * DOCUMENT_TOKENS
    features = [column(0, QUERY_TOKENS, QUERY_TOKENS)]
    features += [column(start + way * DOCUMENT_TOKENS, DOCUMENT_TOKENS, step) for way in range(NWAY)]
    cases = []
    for dims in ([8], [8, 4, 2], [8, 7, 1]):
        inner = MultiVectorMultipleNegativesRankingLoss(Tokens(model))
        loss = MatryoshkaLoss(model, inner, dims)([dict(column) for column in features], None)
        cases.append({"dims": dims, "loss": loss.item()})
    content = {
        "nway": NWAY, "query_tokens": QUERY_TOKENS, "document_tokens": DOCUMENT_TOKENS,
        "queries": of_queries.tolist(), "documents": of_documents.tolist(), "cases": cases,
    }
    Path(__file__).with_name("matryoshka.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
