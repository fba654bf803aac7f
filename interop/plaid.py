"""Shows that an index of ragtrainer opens in fast-plaid (PyLate's index), and the reverse.

plaid.py PROGRAM MODEL DOCUMENTS: a ragtrainer with the cargo feature `index`, a model directory, a JSONL file of texts.
Both sides get the same vectors; what they rank first must agree, but for what compression makes of near ties.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from fast_plaid import search

program, model, documents = sys.argv[1], sys.argv[2], Path(sys.argv[3])
DEPTH = 10
QUERIES = 25


def ragtrainer(*arguments):
    ran = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"ragtrainer {arguments[0]}: {ran.stderr}")
    return ran


def ours(folder, queries, *more):
    """Places of the first hits of each query, and what was printed to standard error."""
    what = ["--model", model, "--folder", folder, "--queries", queries, "--k", DEPTH, "--json", *more]
    ran = ragtrainer("search", *what)
    return [[hit["index"] for hit in json.loads(line)["hits"]] for line in ran.stdout.splitlines()], ran.stderr


def theirs(folder, queries):
    found = search.FastPlaid(index=str(folder), device="cpu").search(queries, top_k=DEPTH, show_progress=False)
    return [[place for place, _ in hits] for hits in found]


def overlap(a, b):
    return sum(len(set(x) & set(y)) / len(y) for x, y in zip(a, b)) / len(b)


def main():
    with tempfile.TemporaryDirectory() as here:
        here = Path(here)
        lines = [line for line in documents.read_text(encoding="utf-8").splitlines() if line.strip()][:600]
        (here / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
        texts = [json.loads(line) for line in lines]
        words = [" ".join((text if isinstance(text, str) else text["text"]).split()[:8]) for text in texts]
        chosen = words[:: len(words) // QUERIES][:QUERIES]
        (here / "queries.jsonl").write_text("\n".join(map(json.dumps, chosen)), encoding="utf-8")
        encode = ["encode", "--model", model, "--input"]
        ragtrainer(*encode, here / "documents.jsonl", "--folder", here / "kept")
        ragtrainer(*encode, here / "documents.jsonl", "--output", here / "vectors.npy")
        ragtrainer(*encode, here / "queries.jsonl", "--queries", "--output", here / "queries.npy")
        ragtrainer("index", "--folder", here / "kept", "--nbits", 4)
        offsets = np.load(here / "queries.offsets.npy")
        queries = torch.from_numpy(np.load(here / "queries.npy")).reshape(len(offsets) - 1, offsets[1], -1)
        exact, _ = ours(here / "kept", here / "queries.jsonl", "--exact")
        found, errors = ours(here / "kept", here / "queries.jsonl")
        assert not errors, errors

        index = next((here / "kept").glob("index-*"))
        raw, errors = ours(index, here / "queries.jsonl")
        assert not errors, errors
        shutil.copytree(index, here / "opened", ignore=shutil.ignore_patterns("merged_*"))
        there = theirs(here / "opened", queries)
        shares = f"{overlap(there, raw):.3f} of our first {DEPTH}, {overlap(there, exact):.3f} of exact search's"
        print(f"fast-plaid on our index: {shares}")
        assert overlap(there, raw) > 0.9, (there, raw)
        assert overlap(found, exact) > 0.95

        starts, vectors = np.load(here / "vectors.offsets.npy"), torch.from_numpy(np.load(here / "vectors.npy"))
        embeddings = [vectors[a:b] for a, b in zip(starts, starts[1:])]
        search.FastPlaid(index=str(here / "made"), device="cpu").create(documents_embeddings=embeddings, nbits=4)
        there = theirs(here / "made", queries)
        before = {path.name: path.read_bytes() for path in (here / "made").iterdir()}
        raw, errors = ours(here / "made", here / "queries.jsonl")
        assert not errors, errors
        after = {path.name: path.read_bytes() for path in (here / "made").iterdir()}
        assert before == after, "their folder was changed"
        shares = f"{overlap(raw, there):.3f} of its first {DEPTH}, {overlap(raw, exact):.3f} of exact search's"
        print(f"ours on fast-plaid's index: {shares}")
        assert overlap(raw, there) > 0.9, (raw, there)
    print("fast-plaid: ok")


main()
