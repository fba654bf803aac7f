"""Loads a model directory in another late-interaction stack and compares with the directory's selfcheck.json.

    python replay.py STACK MODEL_DIR      STACK: colbert-ai, ragatouille, pylate, sentence-transformers

Prints one line: whether token ids are identical, the largest difference of a number of a token vector, and the largest
difference of a score where the stack computes them. Exit code 1 if a vector is off by more than 1e-5.
"""

import contextlib
import json
import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")

import numpy as np

TOLERANCE = 1e-5


def recorded(texts):
    return [np.array(text["vectors"], dtype=np.float32) for text in texts]


def scored(texts):
    return [vectors[np.array(text["scored"])] for text, vectors in zip(texts, recorded(texts))]


def largest(found, expected):
    """Largest absolute difference; infinite where the number of tokens differs."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a = np.asarray(a, dtype=np.float32)
        worst = max(worst, float(np.abs(a - b).max()) if a.shape == b.shape else float("inf"))
    return worst


def same_ids(found, texts):
    return all(list(map(int, ids)) == text["ids"] for ids, text in zip(found, texts, strict=True))


def maxsim(query, document):
    return float((query @ document.T).max(axis=1).sum())


def score_difference(queries, documents, check):
    found = [[maxsim(q, d) for d in documents] for q in queries]
    return float(np.abs(np.array(found) - np.array(check["scores"])).max())


def colbert_checkpoint(directory):
    # Without a GPU colbert-ai compiles a C++ extension for index search when it makes a model; encoding needs none.
    from colbert.modeling.colbert import ColBERT

    ColBERT.try_load_torch_extensions = classmethod(lambda cls, use_gpu: None)
    from colbert.infra import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint

    config = ColBERTConfig.load_from_checkpoint(directory)
    assert config is not None, "artifact.metadata is not readable"
    return Checkpoint(directory, colbert_config=config, verbose=0)


def with_colbert_ai(directory, check):
    import colbert
    import transformers

    checkpoint = colbert_checkpoint(directory)
    queries = [text["text"] for text in check["queries"]]
    documents = [text["text"] for text in check["documents"]]
    ids, mask = checkpoint.query_tokenizer.tensorize(queries)
    same = same_ids(ids.tolist(), check["queries"])
    found_queries = checkpoint.query(ids, mask).numpy()
    same_documents, found, rows = True, [], []
    # One at a time: the checkpoint pads to the longest of a call, and a padded token is a zero vector.
    for text in check["documents"]:
        ids, mask = checkpoint.doc_tokenizer.tensorize([text["text"]])
        same_documents &= same_ids(ids.tolist(), [text])
        vectors = checkpoint.doc(ids, mask, keep_dims=True)[0].numpy()
        rows.append((np.abs(vectors).sum(axis=1) > 0).tolist())
        found.append(vectors[np.array(text["scored"])])
    same_documents &= rows == [text["scored"] for text in check["documents"]]
    difference = max(largest(found_queries, recorded(check["queries"])), largest(found, scored(check["documents"])))
    version = f"colbert-ai 0.2.22 (transformers {transformers.__version__})"
    return version, same and same_documents, difference, score_difference(found_queries, found, check)


def with_ragatouille(directory, check):
    from colbert.modeling.colbert import ColBERT

    ColBERT.try_load_torch_extensions = classmethod(lambda cls, use_gpu: None)
    import importlib.metadata

    from ragatouille import RAGPretrainedModel

    model = RAGPretrainedModel.from_pretrained(directory, verbose=0)
    checkpoint = model.model.inference_ckpt
    queries = [text["text"] for text in check["queries"]]
    ids, mask = checkpoint.query_tokenizer.tensorize(queries)
    found = checkpoint.query(ids, mask).numpy()
    documents = [text["text"] for text in check["documents"]]
    ranked = model.rerank(query=queries[0], documents=documents, k=len(documents))
    assert len(ranked) == len(documents)
    version = f"RAGatouille {importlib.metadata.version('ragatouille')}"
    # Its rerank has lengths and a floor of its own, so its scores are not compared.
    return version, same_ids(ids.tolist(), check["queries"]), largest(found, recorded(check["queries"])), None


def with_pylate(directory, check):
    import pylate
    import sentence_transformers
    from pylate import models

    model = models.ColBERT(directory, device="cpu")
    queries = [text["text"] for text in check["queries"]]
    documents = [text["text"] for text in check["documents"]]
    same = same_ids(model.tokenize(queries, is_query=True)["input_ids"].tolist(), check["queries"])
    for text in check["documents"]:
        same &= same_ids(model.tokenize([text["text"]], is_query=False)["input_ids"].tolist(), [text])
    found_queries = model.encode(queries, is_query=True, show_progress_bar=False)
    found = model.encode(documents, is_query=False, show_progress_bar=False)
    difference = max(largest(found_queries, recorded(check["queries"])), largest(found, scored(check["documents"])))
    version = f"PyLate {pylate.__version__} (sentence-transformers {sentence_transformers.__version__})"
    return version, same, difference, score_difference(found_queries, found, check)


def with_sentence_transformers(directory, check):
    import sentence_transformers

    version = f"sentence-transformers {sentence_transformers.__version__}"
    # Before 6 it takes the encoder, ignores everything else, and makes a mean-pooling model of it.
    model = sentence_transformers.MultiVectorEncoder(directory, device="cpu")
    as_numpy = lambda found: [np.asarray(vectors, dtype=np.float32) for vectors in found]
    queries = as_numpy(model.encode_query([text["text"] for text in check["queries"]]))
    documents = as_numpy(model.encode_document([text["text"] for text in check["documents"]]))
    difference = max(largest(queries, recorded(check["queries"])), largest(documents, scored(check["documents"])))
    # It does not show ids; as many vectors of the same numbers come from the same ids.
    return version, True, difference, score_difference(queries, documents, check)


STACKS = {
    "colbert-ai": with_colbert_ai,
    "ragatouille": with_ragatouille,
    "pylate": with_pylate,
    "sentence-transformers": with_sentence_transformers,
}


def main():
    stack, directory = sys.argv[1:]
    with open(os.path.join(directory, "selfcheck.json"), encoding="utf-8") as file:
        check = json.load(file)
    # What the stacks print is not the result.
    with contextlib.redirect_stdout(sys.stderr):
        version, same, difference, scores = STACKS[stack](directory, check)
    scores = "not compared" if scores is None else f"{scores:.1e}"
    verdict = "ok" if same and difference <= TOLERANCE else "DIFFERS"
    tokens = "identical" if same else "OTHER IDS"
    print(f"{version}: token ids {tokens}; token vectors {difference:.1e}; scores {scores}: {verdict}")
    sys.exit(0 if verdict == "ok" else 1)


if __name__ == "__main__":
    main()
