"""Exact MaxSim of one query in NumPy, on the float32 vectors of a document folder: search.py FOLDER TOKENS

Prints the seconds of the fastest of five searches. TOKENS is the number of vectors of every passage. The vectors are in
memory before the clock starts; they are multiplied a block at a time, as the products of all would not fit in a cache.
"""

import sys
import time
from pathlib import Path

import numpy as np

folder, tokens = Path(sys.argv[1]), int(sys.argv[2])
documents = np.fromfile(folder / "vectors-0.f32", dtype="<f4").reshape(-1, 128)
query = np.random.default_rng(1).standard_normal((32, 128), dtype="f4")
query /= np.linalg.norm(query, axis=1, keepdims=True)
BLOCK = 256 * tokens


def search():
    scores = [
        (documents[start : start + BLOCK] @ query.T).reshape(-1, tokens, 32).max(axis=1).sum(axis=1)
        for start in range(0, len(documents), BLOCK)
    ]
    scores = np.concatenate(scores)
    best = np.argpartition(scores, -10)[-10:]
    return best[np.argsort(scores[best])[::-1]]


def timed():
    start = time.perf_counter()
    search()
    return time.perf_counter() - start


print(min(timed() for _ in range(5)))
