"""Encodes the same texts as documents with PyLate and with this project, in turn, and prints texts per second.

python encode.py --python VENV/bin/python --ragtrainer target/release/ragtrainer --model DIR --texts FILE.jsonl
                 [--count 512] [--rounds 3] [--threads 2]

DIR is a model directory written by this project. Rows of FILE are {"text": ...}. PyLate's time is that of `encode` (batches of 32, its
default), after one text has been encoded; ours is that of `ragtrainer encode`, less that of the same command on one text. The vectors are
compared: largest difference over all tokens.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--python")
parser.add_argument("--ragtrainer")
parser.add_argument("--model", required=True)
parser.add_argument("--texts", required=True)
parser.add_argument("--count", type=int, default=512)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--pylate-into", help="used by this program for itself: encode with PyLate, save the vectors here")
options = parser.parse_args()
rows = [json.loads(line) for line in pathlib.Path(options.texts).read_text().splitlines()[: options.count]]
texts = [row["text"] for row in rows]

if options.pylate_into:
    import numpy
    import torch
    from pylate import models

    torch.set_num_threads(options.threads)
    model = models.ColBERT(model_name_or_path=options.model, device="cpu")
    model.encode(texts[:1], is_query=False)
    start = time.perf_counter()
    vectors = model.encode(texts, batch_size=32, is_query=False, show_progress_bar=False)
    print(time.perf_counter() - start)
    numpy.save(options.pylate_into, numpy.concatenate(vectors))
    sys.exit()

environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
environment |= {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}


def run(command):
    start = time.perf_counter()
    output = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.perf_counter() - start, output.stdout


with tempfile.TemporaryDirectory() as folder:
    one, all_texts = (pathlib.Path(folder, f"{name}.jsonl") for name in ("one", "all"))
    for path, own in ((one, rows[:1]), (all_texts, rows)):
        path.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in own))
    ours, theirs = [], []
    for _ in range(options.rounds):
        encode = [options.ragtrainer, "encode", "--model", options.model, "--output", f"{folder}/ours.npy", "--input"]
        ours.append(-run([*encode, str(one)])[0] + run([*encode, str(all_texts)])[0])
        again = [options.python, __file__, "--model", options.model, "--texts", str(all_texts), "--count", str(options.count)]
        said = run([*again, "--threads", str(options.threads), "--pylate-into", f"{folder}/theirs.npy"])[1]
        theirs.append(float(said.splitlines()[-1]))
        print(f"ragtrainer {len(rows) / ours[-1]:.1f} texts/s, PyLate {len(rows) / theirs[-1]:.1f}", flush=True)
    script = "import sys, numpy; a, b = map(numpy.load, sys.argv[1:]); print(a.shape, abs(a - b).max())"
    print("vectors:", run([options.python, "-c", script, f"{folder}/ours.npy", f"{folder}/theirs.npy"])[1].strip())
ours, theirs = (len(rows) / statistics.median(seconds) for seconds in (ours, theirs))
print(f"medians: ragtrainer {ours:.1f} texts/s, PyLate {theirs:.1f}, ratio {ours / theirs:.2f}")
