"""A program that uses the whole API; `mypy --strict` passes on it. Not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragtrainer import DataError, RAGPretrainedModel, RAGTrainer


def train(pairs: list[tuple[str, str]]) -> str:
    trainer = RAGTrainer("My", "bert-base-uncased", "en", -1, backend="flex", output=Path("runs/my"), overwrite=True)
    trainer.add_documents(["A fen is wet."])

    def listen(event: dict[str, Any]) -> None:
        print(event["event"])

    try:
        folder: str = trainer.prepare_training_data(
            pairs, None, "./data/", 10, 10, True, "small", False, 1, 0, progress=listen, dev_split=10, nway=4, miner="bm25"
        )
    except DataError as error:
        raise SystemExit(str(error)) from error
    trainer.export_training_data(folder)
    plan: dict[str, Any] = trainer.plan(32, epochs=2)
    print(plan["text"], trainer.collection, trainer.queries, trainer.training_triplets, trainer.data_dir)
    best: str = trainer.train(32, 2, 500_000, True, 5e-6, 128, 256, False, "auto", 1, resume=False, epochs=2, precision="bf16")
    print(trainer.outcome, trainer.prepare_report)
    return best


def use(best: str, documents: list[str]) -> None:
    model = RAGPretrainedModel.from_pretrained(best, n_gpu=-1, verbose=0)
    print(model.rerank("What?", documents, k=3), model.rerank(["What?", "Why?"], documents))
    model.encode(documents, document_metadatas=[{} for _ in documents])
    print(model.search_encoded_docs("What?", k=3))
    model.clear_encoded_docs(force=True)
    path: str = model.index(documents, document_ids=[str(n) for n in range(len(documents))], index_name="x")
    model.add_to_index(["More."], ["more"])
    model.delete_from_index("more")
    print(RAGPretrainedModel.from_index(path).search("What?", k=3, doc_ids=["0"]))
    print(model.document_vectors(documents), model.query_vectors(["What?"]))
    model.as_langchain_retriever(k=3)
    model.as_langchain_document_compressor(k=3)
