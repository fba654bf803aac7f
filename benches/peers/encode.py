"""Encodes the same texts as documents with PyLate and with this project, in turn, and prints texts per second.

python encode.py --python VENV/bin/python --ragtrainer target/release/ragtrainer --model DIR --texts FILE.jsonl
                 [--count 512] [--rounds 3] [--threads 2] [--precisions f32 bf16]

DIR is a model directory written by this project. Rows of FILE are {"text": ...}. PyLate's time is that of `encode`
(batches of 32, its default) after one text has been encoded; ours is that of `ragtrainer encode` minus that of the same
command on one text. In bf16 PyLate runs under PyTorch's autocast. Vectors are compared with PyLate's in float32: largest
difference over all tokens, and mean cosine.
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
parser.add_argument("--precisions", nargs="+", default=["f32", "bf16"])
parser.add_argument("--precision", default="f32", help="used by this program for itself")
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
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16"):
        model.encode(texts[:1], is_query=False)
        start = time.perf_counter()
        vectors = model.encode(texts, batch_size=32, is_query=False, show_progress_bar=False)
        print(time.perf_counter() - start)
    numpy.save(options.pylate_into, numpy.concatenate(vectors).astype(numpy.float32))
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
    systems = [(system, precision) for precision in options.precisions for system in ("ragtrainer", "PyLate")]
    seconds = {system: [] for system in systems}
    for _ in range(options.rounds):
        for system, precision in systems:
            into = f"{folder}/{system}-{precision}.npy"
            if system == "ragtrainer":
                encode = [options.ragtrainer, "encode", "--model", options.model, "--precision", precision, "--output", into, "--input"]
                taken = -run([*encode, str(one)])[0] + run([*encode, str(all_texts)])[0]
            else:
                again = [options.python, __file__, "--model", options.model, "--texts", str(all_texts), "--count", str(options.count)]
                again += ["--threads", str(options.threads), "--precision", precision, "--pylate-into", into]
                taken = float(run(again)[1].splitlines()[-1])
            seconds[system, precision].append(taken)
            print(f"{system} {precision}: {len(rows) / taken:.1f} texts/s", flush=True)
    script = "import sys, numpy; a, b = map(numpy.load, sys.argv[1:]); print(a.shape, abs(a - b).max(), (a * b).sum(1).mean())"
    for system, precision in systems:
        if precision != options.precisions[0] or system == "ragtrainer":
            pair = [f"{folder}/{system}-{precision}.npy", f"{folder}/PyLate-{options.precisions[0]}.npy"]
            print(f"{system} {precision} against PyLate {options.precisions[0]}:", run([options.python, "-c", script, *pair])[1].strip())
rates = {system: len(rows) / statistics.median(taken) for system, taken in seconds.items()}
for (system, precision), rate in rates.items():
    ratios = ", ".join(f"{rate / rates['PyLate', other]:.2f} of PyLate {other}" for other in options.precisions)
    print(f"median: {system} {precision} {rate:.1f} texts/s; {ratios}")
