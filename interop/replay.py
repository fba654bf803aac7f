"""Loads a model directory in another late-interaction stack and compares with the directory's selfcheck.json.

    python replay.py STACK MODEL_DIR...   STACK: colbert-ai, ragatouille, pylate, sentence-transformers, transformers

Prints one line for each directory: whether token ids are identical, the largest difference of a number of a token vector, and the largest
difference of a score where the stack computes them. Exit code 1 if a vector is off by more than 1e-5. A stack that
cannot read the directory, for a reason that docs/interop.md names, has a line that says so, and exit code 0.
"""

import contextlib
import json
import os
import sys
import traceback
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")

import numpy as np

TOLERANCE = 1e-5


class NotReplayed(Exception):
    """The stack cannot read the directory, as docs/interop.md says."""


class Declared:
    """What a directory says of markers, prompts and expansion, in PyLate's dialect or sentence-transformers'."""

    def __init__(self, directory):
        config = self.read(directory, "config_sentence_transformers.json")
        self.native = config.get("model_type") == "MultiVectorEncoder"
        prompts = config.get("prompts") or {}
        self.prompts = [prompts.get("query", ""), prompts.get("document", "")]
        self.markers = [config.get("query_prefix", ""), config.get("document_prefix", "")]
        lengths = self.read(directory, "sentence_bert_config.json") if self.native else config
        self.lengths = [lengths["query_length"], lengths["document_length"]]
        self.expansion = lengths.get("query_expansion") or {}

    @staticmethod
    def read(directory, name):
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            return json.load(file)

    def refuse_native(self):
        if self.native:
            raise NotReplayed("does not read the layout of sentence-transformers")

    def texts(self, check):
        """Queries and documents with their prompts in front."""
        sides = zip(self.prompts, (check["queries"], check["documents"]), strict=True)
        return [[prompt + text["text"] for text in texts] for prompt, texts in sides]

    def only_with_marker_and_full_expansion(self):
        self.refuse_native()
        if "" in self.markers:
            raise NotReplayed("puts the unknown token where this model has no marker")
        if self.expansion.get("strategy") == "min":
            raise NotReplayed("fills all queries up to query_maxlen")


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

    declared = Declared(directory)
    declared.only_with_marker_and_full_expansion()
    checkpoint = colbert_checkpoint(directory)
    queries, documents = declared.texts(check)
    ids, mask = checkpoint.query_tokenizer.tensorize(queries)
    same = same_ids(ids.tolist(), check["queries"])
    found_queries = checkpoint.query(ids, mask).numpy()
    same_documents, found, rows = True, [], []
    # One at a time: the checkpoint pads to the longest of a call, and a padded token is a zero vector.
    for prompted, text in zip(documents, check["documents"], strict=True):
        ids, mask = checkpoint.doc_tokenizer.tensorize([prompted])
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

    declared = Declared(directory)
    declared.only_with_marker_and_full_expansion()
    model = RAGPretrainedModel.from_pretrained(directory, verbose=0)
    checkpoint = model.model.inference_ckpt
    queries, documents = declared.texts(check)
    ids, mask = checkpoint.query_tokenizer.tensorize(queries)
    found = checkpoint.query(ids, mask).numpy()
    ranked = model.rerank(query=queries[0], documents=documents, k=len(documents))
    assert len(ranked) == len(documents)
    version = f"RAGatouille {importlib.metadata.version('ragatouille')}"
    # Its rerank has lengths and a floor of its own, so its scores are not compared.
    return version, same_ids(ids.tolist(), check["queries"]), largest(found, recorded(check["queries"])), None


def with_pylate(directory, check):
    import pylate
    import sentence_transformers
    from pylate import models

    declared = Declared(directory)
    declared.refuse_native()
    version = f"PyLate {pylate.__version__} (sentence-transformers {sentence_transformers.__version__})"
    model = models.ColBERT(directory, device="cpu")
    texts = declared.texts(check)
    same, found = True, []
    for prompted, side in zip(texts, ("query", "document"), strict=True):
        is_query, vectors = side == "query", []
        # It puts prompts in front when it is asked to.
        prompt = {"prompt_name": side} if side in (model.prompts or {}) and model.prompts[side] else {}
        for tokenized, text in zip(prompted, check["queries" if is_query else "documents"], strict=True):
            if is_query and declared.expansion.get("strategy") == "min":
                # It has no word for "min": the length that this query is filled up to is set for it alone.
                model.query_length = len(text["ids"])
            same &= same_ids(model.tokenize([tokenized], is_query=is_query)["input_ids"].tolist(), [text])
            vectors.append(model.encode([text["text"]], is_query=is_query, show_progress_bar=False, **prompt)[0])
        found.append(vectors)
    if declared.expansion.get("strategy") == "min":
        version += ", query_length set for each query"
    difference = max(largest(found[0], recorded(check["queries"])), largest(found[1], scored(check["documents"])))
    return version, same, difference, score_difference(*found, check)


def with_sentence_transformers(directory, check):
    import sentence_transformers

    version = f"sentence-transformers {sentence_transformers.__version__}"
    # Before 6 it takes the encoder, ignores everything else, and makes a mean-pooling model of it.
    model = sentence_transformers.MultiVectorEncoder(directory, device="cpu")
    for module in model:
        # The record has vectors as they are before they are pooled.
        if type(module).__name__ == "HierarchicalTokenPooling":
            module.pool_factor = 1.0
    as_numpy = lambda found: [np.asarray(vectors, dtype=np.float32) for vectors in found]
    queries = as_numpy(model.encode_query([text["text"] for text in check["queries"]]))
    documents = as_numpy(model.encode_document([text["text"] for text in check["documents"]]))
    difference = max(largest(queries, scored(check["queries"])), largest(documents, scored(check["documents"])))
    # It does not show ids; as many vectors of the same numbers come from the same ids.
    return version, True, difference, score_difference(queries, documents, check)


def with_transformers(directory, check):
    """Tokenizer and encoder as transformers alone reads them, marker and expansion put in by hand, then the head."""
    import torch
    import transformers
    from safetensors.torch import load_file

    declared = Declared(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    encoder = transformers.AutoModel.from_pretrained(directory).eval().float()
    layers = []
    while os.path.isdir(folder := os.path.join(directory, f"{len(layers) + 1}_Dense")):
        config = Declared.read(folder, "config.json")
        if config["bias"] or config.get("use_residual") or not config["activation_function"].endswith("Identity"):
            raise NotReplayed("only heads of plain matrices are computed here")
        layers.append(load_file(os.path.join(folder, "model.safetensors"))["linear.weight"].float())
    same, worst = True, 0.0
    for side, texts, marker, length in zip(
        declared.texts(check), (check["queries"], check["documents"]), declared.markers, declared.lengths, strict=True
    ):
        for prompted, text in zip(side, texts, strict=True):
            ids = tokenizer(prompted, truncation=True, max_length=length - bool(marker))["input_ids"]
            if marker:
                ids[1:1] = [tokenizer.convert_tokens_to_ids(marker)]
            # A marker or [PAD] typed in a text becomes what colbert-ai makes of it; none of the texts has one.
            expansion = len(text["ids"]) - len(ids)
            ids += [tokenizer.mask_token_id] * max(expansion, 0)
            same &= ids == text["ids"]
            if len(ids) != len(text["ids"]):
                continue
            attended = torch.tensor([[int(i < text["attended"]) for i in range(len(ids))]])
            with torch.no_grad():
                vectors = encoder(input_ids=torch.tensor([ids]), attention_mask=attended).last_hidden_state[0]
                for matrix in layers:
                    vectors = vectors @ matrix.T
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            worst = max(worst, largest([vectors.numpy()], recorded([text])))
    return f"transformers {transformers.__version__}", same, worst, None


STACKS = {
    "colbert-ai": with_colbert_ai,
    "ragatouille": with_ragatouille,
    "pylate": with_pylate,
    "sentence-transformers": with_sentence_transformers,
    "transformers": with_transformers,
}


def replay(stack, directory):
    """Returns the line of a directory, and whether the stack agrees with it."""
    with open(os.path.join(directory, "selfcheck.json"), encoding="utf-8") as file:
        check = json.load(file)
    # What the stacks print is not the result.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            version, same, difference, scores = STACKS[stack](directory, check)
    except NotReplayed as reason:
        return f"{stack}: not replayed: {reason}", True
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or ["no message"]
        return f"{stack}: cannot load: {type(error).__name__}: {lines[0][:200]}", False
    scores = "not compared" if scores is None else f"{scores:.1e}"
    agrees = same and difference <= TOLERANCE
    tokens = "identical" if same else "OTHER IDS"
    verdict = "ok" if agrees else "DIFFERS"
    return f"{version}: token ids {tokens}; token vectors {difference:.1e}; scores {scores}: {verdict}", agrees


def main():
    stack, *directories = sys.argv[1:]
    all_agree = True
    for directory in directories:
        line, agrees = replay(stack, directory)
        all_agree &= agrees
        name = f"{os.path.basename(os.path.normpath(directory))}: " if len(directories) > 1 else ""
        print(f"{name}{line}", flush=True)
    sys.exit(0 if all_agree else 1)


if __name__ == "__main__":
    main()
