#!/usr/bin/env python3
"""Make the quickstart's encoder: a BERT directory with a smaller vocabulary and half-precision weights.

    pip install numpy safetensors tokenizers
    python make_model.py SOURCE TEXTS OUT [--vocabulary 11000]

SOURCE  Hugging Face directory of sentence-transformers/paraphrase-MiniLM-L3-v2 (or another uncased WordPiece BERT)
TEXTS   BEIR folder (corpus.jsonl, queries.jsonl) whose word pieces are counted
OUT     directory to write: config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
        special_tokens_map.json, vocab.txt

Kept, until the vocabulary is full: the special tokens, [unused0] and [unused1] (ColBERT's markers), every single
character and its ## form (so that no word becomes [UNK] that was not before), the pieces that TEXTS uses most, and at
least a tenth from the start of the vocabulary, which BERT orders by frequency in general English. Kept entries stay in
their order, so ids change and [PAD] stays 0. The values of kept rows and of all other weights are rounded to float16
and otherwise untouched. Same input, same bytes.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MARKERS = ["[unused0]", "[unused1]"]
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


def read_texts(folder):
    """Every text of a BEIR folder, one string each."""
    for name in ("corpus.jsonl", "queries.jsonl"):
        with open(folder / name, encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield f"{record.get('title', '')} {record['text']}".strip()


def load_tokenizer(path):
    """The tokenizer without the truncation and padding that a tokenizer.json may ask for."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def is_character(token):
    return len(token) == 1 or (len(token) == 3 and token.startswith("##"))


def choose(vocabulary, counts, size):
    """The tokens to keep, in their old order. `vocabulary` is the list of all tokens by id."""
    kept = set(SPECIAL + MARKERS) | {token for token in vocabulary if is_character(token)}
    if missing := set(SPECIAL + MARKERS) - set(vocabulary):
        raise SystemExit(f"the source vocabulary lacks {sorted(missing)}")
    general = [token for token in vocabulary if token not in kept and not token.startswith("[unused")]
    by_use = sorted((token for token in general if counts[token]), key=lambda token: -counts[token])
    room_for_use = size - size // 10 - len(kept)
    if room_for_use < 0:
        raise SystemExit(f"a vocabulary of {size} has no room: {len(kept)} entries are always kept")
    kept.update(by_use[:room_for_use])
    for token in general:
        if len(kept) == size:
            break
        kept.add(token)
    return [token for token in vocabulary if token in kept]


def trim_tokenizer(source, kept):
    """tokenizer.json with the kept tokens, their new ids, and neither truncation nor padding."""
    spec = json.loads(source.read_text(encoding="utf-8"))
    ids = {token: index for index, token in enumerate(kept)}
    spec["truncation"] = spec["padding"] = None
    spec["model"]["vocab"] = ids
    for token in spec["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token in spec["post_processor"]["special_tokens"].values():
        token["ids"] = [ids[text] for text in token["tokens"]]
    return spec


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_model(source, kept, old_ids, out):
    tensors = load_file(source / "model.safetensors")
    tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(("embeddings.", "encoder."))}
    tensors.pop("embeddings.position_ids", None)
    tensors[WORD_EMBEDDINGS] = tensors[WORD_EMBEDDINGS][[old_ids[token] for token in kept]]
    half = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in tensors.items()}
    for name, tensor in half.items():
        if not np.isfinite(tensor).all():
            raise SystemExit(f"{name} does not fit into float16")
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertModel"], "vocab_size": len(kept), "pad_token_id": kept.index("[PAD]")}
    write_json(out / "config.json", config)


def write_tokenizer(source, kept, out):
    write_json(out / "tokenizer.json", trim_tokenizer(source / "tokenizer.json", kept))
    (out / "vocab.txt").write_text("".join(f"{token}\n" for token in kept), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        write_json(out / name, json.loads((source / name).read_text(encoding="utf-8")))


def compare(before, after, texts):
    """Prints how many tokens of the texts are cut differently than before."""
    total = changed = longer = whole = unknown = 0
    for text in texts:
        old, new = before.encode(text), after.encode(text)
        lost = Counter(zip(old.tokens, old.offsets)) - Counter(zip(new.tokens, new.offsets))
        total += len(old.tokens)
        changed += lost.total()
        longer += len(new.tokens) - len(old.tokens)
        whole += old.tokens == new.tokens
        unknown += new.tokens.count("[UNK]") - old.tokens.count("[UNK]")
    print(f"tokens of the texts: {total}, cut differently now: {changed} ({changed / total:.3%}), in more pieces: {longer} more tokens")
    print(f"texts with the same tokens: {whole} of {len(texts)}; [UNK] more than before: {unknown}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", type=int, default=11_000, help="entries to keep (default 11000)")
    options = parser.parse_args()

    texts = list(read_texts(options.texts))
    before = load_tokenizer(options.source / "tokenizer.json")
    old_ids = before.get_vocab(with_added_tokens=False)
    vocabulary = sorted(old_ids, key=old_ids.get)
    counts = Counter(token for text in texts for token in before.encode(text, add_special_tokens=False).tokens)
    kept = choose(vocabulary, counts, options.vocabulary)

    options.out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(options.source, kept, options.out)
    write_model(options.source, kept, old_ids, options.out)

    print(f"vocabulary: {len(kept)} of {len(vocabulary)}; the texts use {sum(map(bool, counts.values()))} different pieces")
    compare(before, load_tokenizer(options.out / "tokenizer.json"), texts)
    print(f"folder: {sum(file.stat().st_size for file in options.out.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
