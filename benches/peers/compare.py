"""Trains the same steps with this project and with others, in turn, and prints one table with ratios.

python compare.py --python VENV/bin/python --ragtrainer target/release/ragtrainer --model DIR --triples FILE.jsonl
                  [--systems colbert-ai pylate torch-bf16] [--backends flex libtorch] [--device cuda] [--rounds 3]
                  [--batch 32] [--doc-maxlen 256] [--steps 8] [--threads 2]

VENV has colbert-ai 0.2.22 and PyLate 1.6.0 (README.md beside this file). In every round each system runs once, one after
the other, so that a slower machine slows all of them. --backends are ours, --device is the others'. A system's figure is
the median over all its steps. This script itself needs only Python.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--python", required=True)
parser.add_argument("--ragtrainer", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--triples", required=True)
parser.add_argument("--systems", nargs="+", default=["colbert-ai", "pylate", "torch-bf16"])
parser.add_argument("--backends", nargs="+", default=["auto"])
parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
parser.add_argument("--precisions", nargs="+", default=["f32", "bf16"])
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--doc-maxlen", type=int, default=256)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--warm-up", type=int, default=2)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--json", help="write all figures here too")
options = parser.parse_args()
total = options.steps + options.warm_up


def other(system):
    command = [
        options.python, str(pathlib.Path(__file__).with_name("step.py")), system,
        "--model", options.model, "--triples", options.triples,
        "--batch", str(options.batch), "--doc-maxlen", str(options.doc_maxlen), "--steps", str(options.steps),
        "--warm-up", str(options.warm_up), "--threads", str(options.threads), "--device", options.device,
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(output.splitlines()[-1])


def ours(backend, precision):
    """Runs `ragtrainer train`: metrics.jsonl has the seconds of every step, outcome.json the peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        triples, run = pathlib.Path(folder, "triples.jsonl"), pathlib.Path(folder, "run")
        with open(options.triples) as rows:
            triples.write_text("".join(row for row, _ in zip(rows, range(total * options.batch))))
        command = [
            options.ragtrainer, "train", "--pretrained-model-name", options.model,
            "--train-data", str(triples), "--output", str(run),
            "--num-new-negatives", "0", "--maxsteps", str(total), "--save-every", str(total), "--shuffle=false",
            "--batch-size", str(options.batch), "--doc-maxlen", str(options.doc_maxlen),
            "--precision", precision, "--backend", backend,
        ]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = [record for record in records if "seconds" in record and "loss" in record][options.warm_up :]
        outcome = json.loads((run / "outcome.json").read_text())
    return {
        "step_seconds": [step["seconds"] for step in steps],
        "tokens": statistics.median(step["tokens"] for step in steps),
        "peak_memory": outcome["peak_memory"],
    }


systems = {
    f"ragtrainer {backend} {precision}": (lambda backend=backend, precision=precision: ours(backend, precision))
    for backend in options.backends
    for precision in options.precisions
}
systems |= {system: (lambda system=system: other(system)) for system in options.systems}
runs = {name: [] for name in systems}
for round_number in range(options.rounds):
    for name, run in systems.items():
        runs[name].append(run())
        seconds = statistics.median(runs[name][-1]["step_seconds"])
        print(f"round {round_number + 1}: {name}: {seconds:.2f} s a step", flush=True)

figures = {}
for name, found in runs.items():
    seconds = [step for run in found for step in run["step_seconds"]]
    figures[name] = {
        "triples_per_second": options.batch / statistics.median(seconds),
        "step_seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "peak_memory_gb": max(run["peak_memory"] for run in found) / 1e9,
    }
columns = ["triples/s", "s a step (fastest to slowest)", "peak memory"]
others = [name for name in options.systems]
print()
print("| system | " + " | ".join(columns + [f"x {name}" for name in others]) + " |")
print("|---" * (1 + len(columns) + len(others)) + "|")
for name, figure in figures.items():
    ratios = [f"{figure['triples_per_second'] / figures[other]['triples_per_second']:.2f}" for other in others]
    cells = [
        f"{figure['triples_per_second']:.2f}",
        f"{figure['step_seconds']:.2f} ({figure['fastest']:.2f} to {figure['slowest']:.2f})",
        f"{figure['peak_memory_gb']:.1f} GB",
    ]
    print("| " + " | ".join([name, *cells, *ratios]) + " |")
if options.json:
    pathlib.Path(options.json).write_text(json.dumps({"options": vars(options), "runs": runs, "figures": figures}, indent=1))
