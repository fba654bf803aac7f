"""``RAGPretrainedModel`` as RAGatouille's users call it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ragtrainer
from ragtrainer import RAGPretrainedModel
from ragtrainer.utils import get_wikipedia_page

DOCUMENTS = ["A fen is wet land.", "A tor is a rocky hill.", "A weir is a low dam."]


@pytest.fixture
def model(tiny: str) -> RAGPretrainedModel:
    return RAGPretrainedModel.from_pretrained(tiny, verbose=0)


def test_rerank_returns_the_dictionaries_of_ragatouille(model: RAGPretrainedModel) -> None:
    hits = model.rerank("What is a tor?", DOCUMENTS, k=2)
    assert [set(hit) for hit in hits] == [{"content", "score", "rank", "result_index"}] * 2
    assert [hit["rank"] for hit in hits] == [1, 2] and hits[0]["score"] >= hits[1]["score"]
    assert all(DOCUMENTS[hit["result_index"]] == hit["content"] for hit in hits)
    assert [hit["rank"] for hit in model.rerank("What?", DOCUMENTS, k=9, zero_index_ranks=True)] == [0, 1, 2]
    assert [len(hits) for hits in model.rerank(["What?", "Why?"], DOCUMENTS, k=1)] == [1, 1]


def test_encoded_documents_are_searched_and_score_as_reranked(model: RAGPretrainedModel) -> None:
    with pytest.raises(ragtrainer.DocumentError, match="encode"):
        model.search_encoded_docs("What?")
    model.encode(DOCUMENTS[:2], document_metadatas=[{"n": 0}, {"n": 1}])
    model.encode(DOCUMENTS[2:])
    hits = model.search_encoded_docs("What is a tor?", k=3)
    assert {hit["content"]: hit["score"] for hit in hits} == {
        hit["content"]: hit["score"] for hit in model.rerank("What is a tor?", DOCUMENTS, k=3)
    }
    assert {hit["result_index"]: hit.get("document_metadata") for hit in hits} == {0: {"n": 0}, 1: {"n": 1}, 2: None}
    model.clear_encoded_docs(force=True)
    with pytest.raises(ragtrainer.DocumentError):
        model.search_encoded_docs("What?")


def test_an_index_is_made_searched_changed_and_opened_again(model: RAGPretrainedModel) -> None:
    path = model.index(
        DOCUMENTS, document_ids=["fen", "tor", "weir"], document_metadatas=[{"n": n} for n in range(3)], index_name="lands"
    )
    assert Path(path).parts[-3:] == ("ragtrainer", "indexes", "lands")
    hits = model.search("What is a tor?", k=2)
    assert set(hits[0]) == {"content", "score", "rank", "document_id", "passage_id", "document_metadata"}
    model.add_to_index(["A beck is a small stream."], ["beck"])
    model.delete_from_index(["fen"])
    again = RAGPretrainedModel.from_index(path, verbose=0)
    found = again.search("What is a tor?", k=9)
    assert {hit["document_id"] for hit in found} == {"tor", "weir", "beck"}
    assert found == model.search("What is a tor?", k=9)
    assert [hit["document_id"] for hit in again.search("What?", k=9, doc_ids=["weir"])] == ["weir"]
    with pytest.raises(ragtrainer.DocumentError, match="ghost"):
        model.delete_from_index("ghost")
    with pytest.raises(ragtrainer.DocumentError, match="already"):
        model.index(DOCUMENTS, index_name="lands", overwrite_index=False)
    model.index(DOCUMENTS[:1], index_name="lands")
    assert len(model.search("What?")) == 1


def test_long_documents_are_split_between_sentences(model: RAGPretrainedModel) -> None:
    model.index([" ".join(f"Sentence {n} is here." for n in range(200))], document_ids=["long"], max_document_length=30)
    hits = model.search("Sentence?", k=100)
    assert len(hits) > 5 and {hit["document_id"] for hit in hits} == {"long"}
    model.index(["a. b."], document_splitter_fn=lambda texts, ids, size: [
        {"document_id": ids[0], "content": part} for part in texts[0].split(" ")
    ])
    assert {hit["content"] for hit in model.search("a")} == {"a.", "b."}


def test_vectors_are_unit_rows_that_share_memory(model: RAGPretrainedModel) -> None:
    numpy = pytest.importorskip("numpy")
    vectors = model.document_vectors(DOCUMENTS)
    assert len(vectors) == 3 and vectors[0].dtype == numpy.float32
    assert numpy.allclose((vectors[0] ** 2).sum(axis=1), 1.0, atol=1e-5)
    assert vectors[0].base is not None and vectors[0].base is vectors[1].base


def test_vectors_are_cut_to_a_smaller_size(tiny: str, model: RAGPretrainedModel) -> None:
    numpy = pytest.importorskip("numpy")
    small = RAGPretrainedModel.from_pretrained(tiny, verbose=0, dim=8)
    for whole, cut in [
        (model.document_vectors(DOCUMENTS), small.document_vectors(DOCUMENTS)),
        (model.query_vectors(["What is a tor?"]), small.query_vectors(["What is a tor?"])),
    ]:
        for one, other in zip(whole, cut, strict=True):
            expected = one[:, :8] / numpy.linalg.norm(one[:, :8], axis=1, keepdims=True)
            assert other.shape == expected.shape and numpy.allclose(other, expected, atol=1e-6)
    # The calls that score use the size, too.
    ranked = {hit["content"]: hit["score"] for hit in small.rerank("What is a tor?", DOCUMENTS)}
    assert ranked != {hit["content"]: hit["score"] for hit in model.rerank("What is a tor?", DOCUMENTS)}
    small.encode(DOCUMENTS)
    assert {hit["content"]: hit["score"] for hit in small.search_encoded_docs("What is a tor?")} == ranked
    path = small.index(DOCUMENTS, index_name="small")
    again = RAGPretrainedModel.from_index(path, verbose=0)
    again.add_to_index(["A beck is a small stream."])
    assert {hit["content"]: hit["score"] for hit in again.search("What is a tor?")}.items() >= ranked.items()
    with pytest.raises(ragtrainer.DocumentError, match="vectors of 8 numbers"):
        model.add_to_index(["A lea is a meadow."], index_name="small")
    for none_such in (0, 17):
        with pytest.raises(ragtrainer.OptionsError, match="16"):
            RAGPretrainedModel.from_pretrained(tiny, verbose=0, dim=none_such)


def test_langchain_classes(model: RAGPretrainedModel) -> None:
    documents = pytest.importorskip("langchain_core.documents")
    given = [documents.Document(page_content=text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    kept = model.as_langchain_document_compressor(k=2).compress_documents(given, "What is a tor?")
    assert [document.page_content for document in kept] == [hit["content"] for hit in model.rerank("What is a tor?", DOCUMENTS, k=2)]
    assert all("relevance_score" in document.metadata for document in kept)
    model.index(DOCUMENTS)
    assert len(model.as_langchain_retriever(k=2).invoke("What is a tor?")) == 2


def test_an_index_is_found_by_its_name_for_several_queries(tiny: str, model: RAGPretrainedModel) -> None:
    model.index(collection=DOCUMENTS, index_name="my_index")
    again = RAGPretrainedModel.from_pretrained(tiny, verbose=0)
    found = again.search(["What is a tor?", "What is a fen?"], index_name="my_index")
    assert [len(hits) for hits in found] == [3, 3]
    assert found[0] == model.search("What is a tor?")


def test_pages_of_wikipedia_come_from_its_interface() -> None:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            page = {"extract": "A tor is a rocky hill."} if "titles=Tor" in self.path else {"missing": ""}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"query": {"pages": {"7": page}}}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}/w/api.php"
        assert get_wikipedia_page("Tor", endpoint=endpoint) == "A tor is a rocky hill."
        assert get_wikipedia_page("No such page", endpoint=endpoint) is None
        server.shutdown()
        thread.join()
    assert len(asked) == 2 and "explaintext=1" in asked[0]
