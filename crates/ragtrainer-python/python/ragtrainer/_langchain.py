"""LangChain classes over a model. Imported only when they are used, so that LangChain is not a dependency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks.manager import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

if TYPE_CHECKING:
    from ragtrainer._pretrained import RAGPretrainedModel


class RAGTrainerRetriever(BaseRetriever):
    """Finds documents in the model's index."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    model: Any
    kwargs: dict[str, Any] = {}

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        hits = self.model.search(query, **self.kwargs)
        return [Document(page_content=hit["content"], metadata=hit.get("document_metadata", {})) for hit in hits]


class RAGTrainerCompressor(BaseDocumentCompressor):
    """Keeps the best ``k`` documents of those that another retriever found."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    model: Any
    k: int = 5
    kwargs: dict[str, Any] = {}

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None, **kwargs: Any
    ) -> list[Document]:
        """Ranks the documents; the score is in ``metadata["relevance_score"]``."""
        kept = []
        texts = [document.page_content for document in documents]
        for hit in self.model.rerank(query, texts, **{"k": self.k, **self.kwargs}):
            document = documents[hit["result_index"]]
            metadata = {**document.metadata, "relevance_score": hit["score"]}
            kept.append(Document(page_content=document.page_content, metadata=metadata))
        return kept


def retriever(model: RAGPretrainedModel, kwargs: dict[str, Any]) -> RAGTrainerRetriever:
    """A retriever over the model's index."""
    return RAGTrainerRetriever(model=model, kwargs=kwargs)


def compressor(model: RAGPretrainedModel, k: int, kwargs: dict[str, Any]) -> RAGTrainerCompressor:
    """A compressor over the model."""
    return RAGTrainerCompressor(model=model, k=k, kwargs=kwargs)
