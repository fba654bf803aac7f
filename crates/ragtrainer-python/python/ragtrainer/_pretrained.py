"""``RAGPretrainedModel``: RAGatouille's class."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

from ragtrainer import _native
from ragtrainer._progress import Progress, listener


StrPath = str | os.PathLike[str]
Splitter = Callable[[list[str], list[str], int], list[dict[str, str]]]
_Found = tuple[int, float, int, "str | None", str]


class Hit(TypedDict, total=False):
    """A hit. ``search`` has ids, the other calls ``result_index`` instead."""

    content: str
    score: float
    rank: int
    document_id: str
    passage_id: int
    document_metadata: dict[str, Any]
    result_index: int


class RAGPretrainedModel:
    """A trained model: ranks documents in memory, or keeps an index of them on disk."""

    def __init__(self, model: _native.Pretrained, index_root: StrPath | None, verbose: int) -> None:
        self._model = model
        self._root = Path(".ragatouille" if index_root is None else index_root) / "ragtrainer" / "indexes"
        self._progress: Progress = verbose > 0
        self._encoded: _native.Encoded | None = None
        self._encoded_metadatas: list[dict[str, Any] | None] = []
        self._index: _Index | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: StrPath,
        n_gpu: int = -1,
        verbose: int = 1,
        index_root: str | None = None,
        *,
        backend: str = "auto",
        dim: int | None = None,
    ) -> RAGPretrainedModel:
        """Reads a model directory, or a model of the Hugging Face hub by its name.

        ``dim`` keeps the first numbers of every vector, of queries and documents, for models trained with ``dims``.
        """
        if n_gpu == 0 and backend == "auto":
            backend = "flex"
        return cls(_native.Pretrained(pretrained_model_name_or_path, backend, dim), index_root, verbose)

    @classmethod
    def from_index(
        cls, index_path: StrPath, n_gpu: int = -1, verbose: int = 1, *, backend: str = "auto"
    ) -> RAGPretrainedModel:
        """Opens an index that ``index`` made, with the model that made it, in the size of the index's vectors."""
        path = Path(index_path)
        index = _Index.open(path)
        model = cls.from_pretrained(index.model, n_gpu, verbose, backend=backend, dim=index.dim)
        model._root = path.parent
        model._index = index
        return model

    def rerank(
        self,
        query: str | list[str],
        documents: list[str],
        k: int = 10,
        zero_index_ranks: bool = False,
        bsize: int | Literal["auto"] | None = "auto",
    ) -> Any:
        """Ranks documents for a query: a list of dictionaries, or one list for each query of a list."""
        found = self._model.rerank(_queries(query), documents, k)
        return _unwrap(query, [[_ranked(hit, zero_index_ranks) for hit in hits] for hits in found])

    def encode(
        self,
        documents: list[str],
        bsize: int | Literal["auto"] = "auto",
        document_metadatas: list[dict[str, Any]] | None = None,
        verbose: bool = True,
        max_document_length: int | Literal["auto"] = "auto",
        *,
        progress: Progress = None,
    ) -> None:
        """Encodes documents and keeps them, after those of earlier calls, for ``search_encoded_docs``."""
        if document_metadatas is not None and len(document_metadatas) != len(documents):
            raise _native.DataError(
                f"document_metadatas: expected one for each of {len(documents)} documents; "
                f"found {len(document_metadatas)}"
            )
        if self._encoded is None:
            self._encoded = _native.Encoded(self._model)
        shown = (self._progress and verbose) if progress is None else progress
        before = len(self._encoded)
        try:
            self._encoded.add(self._model, documents, listener(shown))
        finally:
            # What was added before an interruption stays, so its metadata does.
            added = len(self._encoded) - before
            metadatas = [None] * len(documents) if document_metadatas is None else document_metadatas
            self._encoded_metadatas += metadatas[:added]

    def search_encoded_docs(self, query: str | list[str], k: int = 10, bsize: int = 32) -> Any:
        """Searches the documents that ``encode`` keeps."""
        if self._encoded is None or len(self._encoded) == 0:
            raise _native.DocumentError("no document is encoded; expected a call of encode first")
        found = self._encoded.search(self._model, _queries(query), k)
        results = [[_ranked(hit, False) for hit in hits] for hits in found]
        for result in (result for results_of_one in results for result in results_of_one):
            metadata = self._encoded_metadatas[result["result_index"]]
            if metadata is not None:
                result["document_metadata"] = metadata
        return _unwrap(query, results)

    def clear_encoded_docs(self, force: bool = False) -> None:
        """Forgets the documents that ``encode`` keeps; waits ten seconds first unless ``force`` is set."""
        if not force:
            time.sleep(10)
        self._encoded = None
        self._encoded_metadatas = []

    def document_vectors(self, documents: list[str], *, progress: Progress = None) -> list[Any]:
        """Token vectors of each document, [tokens, dim]: numpy arrays if numpy is installed, else memoryviews."""
        return _views(*self._model.vectors(documents, False, listener(progress)))

    def query_vectors(self, queries: list[str]) -> list[Any]:
        """Token vectors of each query, as ``document_vectors``."""
        return _views(*self._model.vectors(queries, True, None))

    def index(
        self,
        collection: list[str],
        document_ids: str | list[str] | None = None,
        document_metadatas: list[dict[str, Any]] | None = None,
        index_name: str | None = None,
        overwrite_index: bool | str = True,
        max_document_length: int = 256,
        split_documents: bool = True,
        document_splitter_fn: Splitter | None = None,
        preprocessing_fn: Callable[..., Any] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> str:
        """Encodes documents into an index on disk, and returns its path."""
        name = index_name or f"{Path(self._model.directory).name}_index"
        path = self._root / name
        if path.exists():
            if overwrite_index is False:
                raise _native.DocumentError(f"{path}: there is an index already; delete it, or set overwrite_index=True")
            _Index.open(path).remove()
        index = _Index.create(path, self._model)
        self._index = index
        chunk = max_document_length
        index.add(
            self._model, _passages(collection, document_ids, split_documents, document_splitter_fn, preprocessing_fn, chunk),
            _metadata(collection, document_ids, document_metadatas), listener(self._progress),
        )
        return str(path)

    def add_to_index(
        self,
        new_collection: list[str],
        new_document_ids: list[str] | None = None,
        new_document_metadatas: list[dict[str, Any]] | None = None,
        index_name: str | None = None,
        split_documents: bool = True,
        document_splitter_fn: Splitter | None = None,
        preprocessing_fn: Callable[..., Any] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> None:
        """Adds documents to the index."""
        index = self._opened(index_name)
        index.add(
            self._model,
            _passages(new_collection, new_document_ids, split_documents, document_splitter_fn, preprocessing_fn, 256),
            _metadata(new_collection, new_document_ids, new_document_metadatas), listener(self._progress),
        )

    def delete_from_index(self, document_ids: str | list[str], index_name: str | None = None) -> None:
        """Deletes documents with all their passages from the index."""
        ids = [document_ids] if isinstance(document_ids, str) else document_ids
        self._opened(index_name).delete(ids)

    def search(
        self,
        query: str | list[str],
        index_name: str | None = None,
        k: int = 10,
        force_fast: bool = False,
        zero_index_ranks: bool = False,
        doc_ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Searches the index: a list of dictionaries, or one list for each query of a list."""
        index = self._opened(index_name)
        return _unwrap(query, index.search(self._model, _queries(query), k, zero_index_ranks, doc_ids))

    def as_langchain_retriever(self, **kwargs: Any) -> Any:
        """A retriever of LangChain over ``search``; ``kwargs`` go to it. Needs ``langchain-core``."""
        from ragtrainer._langchain import retriever

        return retriever(self, kwargs)

    def as_langchain_document_compressor(self, k: int = 5, **kwargs: Any) -> Any:
        """A document compressor of LangChain over ``rerank``. Needs ``langchain-core``."""
        from ragtrainer._langchain import compressor

        return compressor(self, k, kwargs)

    def _opened(self, name: str | None) -> _Index:
        if name is not None and (self._index is None or self._index.path.name != name):
            self._index = _Index.open(self._root / name)
        if self._index is None:
            raise _native.DocumentError("there is no index; expected a call of index or from_index first")
        return self._index

    def __repr__(self) -> str:
        return f"RAGPretrainedModel({str(self._model.directory)!r})"


class _Index:
    """A document folder of passages, with a record of the documents they belong to."""

    def __init__(self, path: Path, folder: _native.Folder, state: dict[str, Any]) -> None:
        self.path = path
        self._folder = folder
        self._state = state

    @property
    def model(self) -> str:
        """Directory of the model that the passages were encoded by."""
        return str(self._state["model"])

    @property
    def dim(self) -> int | None:
        """Size of the vectors; None for an index of before vectors could be cut, which has the model's."""
        dim: int | None = self._state.get("dim")
        return dim

    @classmethod
    def create(cls, path: Path, model: _native.Pretrained) -> _Index:
        path.mkdir(parents=True)
        directory = str(Path(model.directory).resolve())
        state = {"format": 1, "model": directory, "dim": model.dim, "next": 0, "passages": {}, "metadata": {}}
        index = cls(path, _native.Folder(path / "documents", model), state)
        index._write()
        return index

    @classmethod
    def open(cls, path: Path) -> _Index:
        try:
            state = json.loads((path / "passages.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _native.DocumentError(f"{path}: expected an index, as RAGPretrainedModel.index makes it; {error}") from error
        if state.get("format") != 1:
            raise _native.DocumentError(f"{path}: expected an index of format 1; found {state.get('format')}")
        return cls(path, _native.Folder(path / "documents", None), state)

    def remove(self) -> None:
        """Removes the files of the index, and nothing else in its folder."""
        documents = self.path / "documents"
        for file in sorted(documents.iterdir()):
            file.unlink()
        documents.rmdir()
        (self.path / "passages.json").unlink()
        self.path.rmdir()

    def add(
        self,
        model: _native.Pretrained,
        passages: list[tuple[str, str]],
        metadata: Mapping[str, dict[str, Any]],
        progress: Callable[[str], object] | None,
    ) -> None:
        first = self._state["next"]
        keys = [str(number) for number in range(first, first + len(passages))]
        known = self._state["passages"]
        # Written first: what is in it and not in the folder is not found, but the other way round has no document.
        known.update(zip(keys, (document for document, _ in passages)))
        self._state["next"] = first + len(passages)
        self._state["metadata"].update(metadata)
        self._write()
        self._folder.add(model, [text for _, text in passages], keys, progress)

    def delete(self, ids: Sequence[str]) -> None:
        known, wanted = self._state["passages"], set(ids)
        missing = wanted - set(known.values())
        if missing:
            raise _native.DocumentError(f"there is no document {sorted(missing)[0]} in the index")
        there = set(self._folder.ids())
        gone = [key for key, document in known.items() if document in wanted]
        self._folder.delete([key for key in gone if key in there])
        for key in gone:
            del known[key]
        for document in wanted:
            self._state["metadata"].pop(document, None)
        self._write()

    def search(
        self, model: _native.Pretrained, queries: list[str], k: int, zero: bool, doc_ids: list[str] | None
    ) -> list[list[Hit]]:
        known, metadata = self._state["passages"], self._state["metadata"]
        wanted = None if doc_ids is None else set(doc_ids)
        depth = k if wanted is None else max(len(self._folder), 1)
        results = []
        for hits in self._folder.search(model, queries, depth):
            kept = [hit for hit in hits if wanted is None or known[hit[3] or ""] in wanted][:k]
            results.append([self._hit(hit, rank, metadata) for rank, hit in enumerate(kept, 0 if zero else 1)])
        return results

    def _hit(self, hit: _Found, rank: int, metadata: Mapping[str, dict[str, Any]]) -> Hit:
        _, score, _, key, text = hit
        document = self._state["passages"][key]
        result = Hit(content=text, score=score, rank=rank, document_id=document, passage_id=int(key or 0))
        if document in metadata:
            result["document_metadata"] = metadata[document]
        return result

    def _write(self) -> None:
        beside = self.path / "passages.json.tmp"
        beside.write_text(json.dumps(self._state), encoding="utf-8")
        os.replace(beside, self.path / "passages.json")


def split_sentences(documents: list[str], document_ids: list[str], chunk_size: int = 256) -> list[dict[str, str]]:
    """Splits documents between sentences into passages of two thirds of ``chunk_size`` words at most."""
    import re

    passages = []
    limit = max(1, chunk_size * 2 // 3)
    for document, document_id in zip(documents, document_ids):
        words: list[str] = []
        for sentence in re.split(r"(?<=[.!?])\s+", document.strip()):
            own = sentence.split()
            if words and len(words) + len(own) > limit:
                passages.append({"document_id": document_id, "content": " ".join(words)})
                words = []
            words += own
            while len(words) > limit:
                passages.append({"document_id": document_id, "content": " ".join(words[:limit])})
                words = words[limit:]
        if words:
            passages.append({"document_id": document_id, "content": " ".join(words)})
    return passages


def _passages(
    collection: list[str],
    document_ids: str | list[str] | None,
    split: bool,
    splitter: Splitter | None,
    preprocess: Callable[..., Any] | None,
    chunk_size: int,
) -> list[tuple[str, str]]:
    ids = _ids(collection, document_ids)
    chunks: Any = [{"document_id": id_, "content": text} for id_, text in zip(ids, collection)]
    if split:
        chunks = (splitter or split_sentences)(collection, ids, chunk_size)
    if preprocess is not None:
        chunks = preprocess(chunks if split else collection, ids)
    return [(str(chunk["document_id"]), chunk["content"]) for chunk in chunks]


def _ids(collection: list[str], document_ids: str | list[str] | None) -> list[str]:
    if not isinstance(collection, (list, tuple)):
        raise _native.DataError(f"collection: expected a list of texts; found {type(collection).__name__}")
    if document_ids is None:
        return [str(uuid.uuid4()) for _ in collection]
    ids = [document_ids] if isinstance(document_ids, str) else list(document_ids)
    if len(ids) != len(collection) or len(set(ids)) != len(ids):
        raise _native.DataError(
            f"document_ids: expected {len(collection)} different ids, one for each document; "
            f"found {len(ids)}, of which {len(set(ids))} are different"
        )
    return ids


def _metadata(
    collection: list[str], document_ids: str | list[str] | None, metadatas: list[dict[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    if metadatas is None:
        return {}
    if document_ids is None:
        raise _native.DataError("document_metadatas: expected document_ids too, to find the metadata by")
    if len(metadatas) != len(collection):
        raise _native.DataError(
            f"document_metadatas: expected one for each of {len(collection)} documents; found {len(metadatas)}"
        )
    return dict(zip(_ids(collection, document_ids), metadatas))


def _queries(query: str | list[str]) -> list[str]:
    return [query] if isinstance(query, str) else list(query)


def _ranked(hit: _Found, zero: bool) -> Hit:
    rank, score, index, _, text = hit
    return Hit(content=text, score=score, rank=rank - 1 if zero else rank, result_index=index)


@overload
def _unwrap(query: str, results: list[list[Hit]]) -> list[Hit]: ...
@overload
def _unwrap(query: list[str], results: list[list[Hit]]) -> list[list[Hit]]: ...
def _unwrap(query: str | list[str], results: list[list[Hit]]) -> list[Hit] | list[list[Hit]]:
    """One list for one query. RAGatouille unwraps a list of one query too."""
    return results[0] if len(results) == 1 else results


def _views(values: bytearray, offsets: list[int], dim: int) -> list[Any]:
    """Arrays that share the memory of ``values``."""
    try:
        import numpy
    except ImportError:
        rows = memoryview(values).cast("f")
        pairs = zip(offsets, offsets[1:])
        return [rows[start * dim : end * dim].cast("B").cast("f", (end - start, dim)) for start, end in pairs]
    array = numpy.frombuffer(values, dtype="<f4").reshape(-1, dim)
    return [array[start:end] for start, end in zip(offsets, offsets[1:])]
