"""Trains the tiny model of each encoder family with the program, and replays the directories in the stacks.

    python families.py RAGTRAINER ENVIRONMENTS WORK [FAMILY...]        ENVIRONMENTS and WORK exist

Each family is trained in several ways (`VARIANTS`), one of them stopped by Ctrl-C and resumed, which must end with the
bytes of the run that was not stopped. Then every directory is loaded in every environment. A stack must agree with
selfcheck.json to 1e-5, or refuse the directory; and it must do what the end of the run and the model card say of it: a
stack that fails unannounced, or loads what it is said to refuse, is an error. interop/run-families calls this.
"""

import filecmp
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "../crates/colbert-model/tests/families")
DATA = os.path.join(HERE, "../examples/quickstart/data")

# `new` is GTE as its authors publish it, with model code of their own, which is not exported.
FAMILIES = ["mmbert", "nomic_bert", "gte", "new", "eurobert", "qwen3", "qwen3-both", "mpnet", "deberta-v2"]

STEPS = ["--batch-size", "8", "--learning-rate", "1e-3", "--maxsteps", "30", "--save-every", "10", "--export-onnx"]
VARIANTS = {
    "plain": [*STEPS, "--query-maxlen", "24", "--doc-maxlen", "40"],
    "resumed": [*STEPS, "--query-maxlen", "24", "--doc-maxlen", "40"],
    "bf16-micro": [*STEPS, "--query-maxlen", "12", "--doc-maxlen", "24", "--accumsteps", "4", "--precision", "bf16",
                   "--attend-to-mask-tokens"],
    "lengths": ["--batch-size", "4", "--learning-rate", "1e-3", "--maxsteps", "6", "--query-maxlen", "model",
                "--doc-maxlen", "model", "--query-expansion=false", "--dropout", "0.1", "--export-onnx"],
    "native": ["--batch-size", "4", "--learning-rate", "1e-3", "--maxsteps", "6", "--query-maxlen", "24",
               "--doc-maxlen", "40", "--export-layout", "sentence-transformers"],
}

# Their tokenizers put nothing before a text, so the layout of sentence-transformers cannot say where a marker stands.
NOTHING_BEFORE = ["qwen3", "qwen3-both"]
WITHOUT_MARKERS = ["--query-token-id", "", "--doc-token-id", "", "--query-prompt", "query: ",
                   "--document-prompt", "passage: "]

# The environment, the stack in it, and the name that a card has for it.
STACKS = [
    ("venv", "colbert-ai", "colbert-ai"),
    ("venv", "ragatouille", "RAGatouille"),
    ("venv", "pylate", "PyLate"),
    ("venv-pylate-5.3", "pylate", "PyLate"),
    ("venv-pylate-5.24", "pylate", "PyLate"),
    ("venv-st6", "sentence-transformers", "sentence-transformers"),
    ("venv-st6-5.24", "sentence-transformers", "sentence-transformers"),
    ("venv", "transformers", "sentence-transformers"),
    ("venv-st6", "transformers", "sentence-transformers"),
    ("venv-st6-5.24", "transformers", "sentence-transformers"),
]


def write_pairs(path):
    """The first pairs of the quickstart, enough for the steps above."""
    lines = lambda name: open(os.path.join(DATA, name), encoding="utf-8")
    texts = {name: {row["_id"]: row["text"] for row in map(json.loads, lines(f"{name}.jsonl"))}
             for name in ["queries", "corpus"]}
    with open(path, "w", encoding="utf-8") as file:
        for line in list(lines("qrels/train.tsv"))[1:97]:
            query, document, _ = line.split("\t")
            pair = {"query": texts["queries"][query], "document": texts["corpus"][document]}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")


def source(family, work):
    """The directory of a family's encoder."""
    if family != "new":
        return os.path.join(FIXTURES, family)
    folder = os.path.join(work, "new")
    shutil.copytree(os.path.join(FIXTURES, "gte"), folder)
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    theta = config.pop("rope_parameters")["rope_theta"]
    config |= {"model_type": "new", "architectures": ["NewModel"], "rope_theta": theta}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return folder


class Failed(Exception):
    """A run that did not do what it should."""


def ended(process, expected):
    """What a run printed."""
    printed, _ = process.communicate(timeout=600)
    if process.returncode != expected:
        raise Failed(f"exit code {process.returncode} in place of {expected}:\n{printed}")
    return printed


def train(program, arguments, work, stop_after=None):
    start = lambda arguments: subprocess.Popen(
        [program, "train", *arguments], cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process = start(arguments)
    if stop_after is None:
        return ended(process, 0)
    run = arguments[arguments.index("--output") + 1]
    metrics = os.path.join(work, run, "metrics.jsonl")
    steps = lambda: sum('"loss"' in line for line in open(metrics)) if os.path.exists(metrics) else 0
    while process.poll() is None and steps() < stop_after:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    ended(process, 130)
    return ended(start(["--resume", run]), 0)


def claims(printed, directory):
    """What the program says of other stacks, the same at the end of a run and in the card."""
    notes = {line.removeprefix("note: ") for line in printed.splitlines() if line.startswith("note: ")}
    with open(os.path.join(directory, "README.md"), encoding="utf-8") as file:
        card = file.read().split("## Use\n")[1]
    said = [line.removeprefix("- ").rstrip(".") for line in card.splitlines() if line.startswith("- ")]
    for line in said:
        # What is so with every model is in the card alone.
        if line not in notes and ("refuse" in line or "need" in line):
            raise Failed(f"the card says {line!r}, the end of the run does not")
    return said


def version(environments, environment):
    """(major, minor) of the transformers in an environment."""
    asked = [os.path.join(environments, environment, "bin/python"), "-c",
             "import importlib.metadata as m; print(m.version('transformers'))"]
    printed = subprocess.run(asked, check=True, text=True, stdout=subprocess.PIPE).stdout
    return tuple(map(int, printed.strip().split(".")[:2]))


def of_stack(said, stack, of):
    """What is said of a stack on a version of transformers."""
    for line in said:
        names, _, what = line.partition(": ")
        older = re.search(r"on transformers ([\d.]+) ", what)
        if stack in re.split(r" and |, ", names) and not (older and of > tuple(map(int, older[1].split(".")))):
            yield what


def refused(said, stack, of):
    """Whether a stack on this version of transformers is said to refuse a directory."""
    for what in of_stack(said, stack, of):
        newer = re.search(r"newer transformers is needed for this encoder: ([\d.]+) loads it", what)
        if newer and of < tuple(map(int, newer[1].split("."))):
            return True
        if "refuse" in what or "do not read the layout" in what:
            return True
    return False


def announced(said, stack, of):
    """Whether other vectors or scores are announced for a stack."""
    return any("other vectors" in what or "other scores" in what for what in of_stack(said, stack, of))


def in_rust(program, environments, directories, said):
    """Replays directories in pylate-rs and next-plaid, and returns what failed."""
    failures = []
    library = glob.glob(os.path.join(
        environments, "venv-onnx/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))
    variables = os.environ | ({"ORT_DYLIB_PATH": library[0]} if library else {})
    for stack in ["pylate-rs", "next-plaid"]:
        print(f"== {stack}", flush=True)
        for directory in directories:
            model = os.path.basename(directory)
            replayed = subprocess.run([program, stack, directory], text=True, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, env=variables)
            line = f"{model}: {(replayed.stdout.strip().splitlines() or ['no answer'])[-1]}"
            of = (0, 0)
            differs = line.endswith(": DIFFERS")
            expected = refused(said[model], stack, of)
            other_vectors = any("other vectors" in what for what in of_stack(said[model], stack, of))
            verdict = ""
            if expected and (replayed.returncode == 0 or differs):
                verdict = "  <- IS SAID TO REFUSE IT"
            elif not expected and replayed.returncode != 0 and not (differs and other_vectors):
                verdict = "  <- UNANNOUNCED"
            print(f"{line}{verdict}", flush=True)
            if verdict:
                failures.append(f"{line}{verdict}")
    return failures


def main():
    program, environments, work, *names = sys.argv[1:]
    program, environments, work = map(os.path.abspath, (program, environments, work))
    families = names or FAMILIES
    write_pairs(os.path.join(work, "pairs.jsonl"))
    failures, said = [], {}
    for family in families:
        encoder = source(family, work)
        for variant, options in VARIANTS.items():
            name = f"{family}, {variant}"
            if variant == "native" and family in NOTHING_BEFORE:
                options = options + WITHOUT_MARKERS
            run = name.replace(", ", "-") + "-run"
            arguments = ["--train-data", "pairs.jsonl", "--pretrained-model-name", encoder, "--output", run, *options]
            try:
                printed = train(program, arguments, work, stop_after=3 if variant == "resumed" else None)
                best = os.path.join(work, run, "best")
                said[name] = claims(printed, best)
            except Failed as failure:
                failures.append(f"{name}: {failure}")
                print(failures[-1], flush=True)
                continue
            os.makedirs(os.path.join(work, "models"), exist_ok=True)
            os.rename(best, os.path.join(work, "models", name))
            with open(os.path.join(work, run, "metrics.jsonl"), encoding="utf-8") as file:
                losses = [row["loss"] for row in map(json.loads, file) if "loss" in row]
            print(f"{name}: loss {losses[0]:.3f} to {losses[-1]:.3f}", flush=True)
        weights = [os.path.join(work, "models", f"{family}, {variant}", "model.safetensors")
                   for variant in ["plain", "resumed"]]
        if all(map(os.path.exists, weights)) and not filecmp.cmp(*weights, shallow=False):
            failures.append(f"{family}: the resumed run has other weights")
            print(failures[-1])
    directories = [os.path.join(work, "models", name) for name in said]
    for environment, stack, name in STACKS:
        print(f"== {stack} in {environment}", flush=True)
        of = version(environments, environment)
        command = [os.path.join(environments, environment, "bin/python"), os.path.join(HERE, "replay.py"), stack]
        log = os.path.join(work, f"{environment}-{stack}.log")
        with open(log, "w", encoding="utf-8") as file:
            replayed = subprocess.run([*command, *directories], text=True, stdout=subprocess.PIPE, stderr=file)
        lines = replayed.stdout.splitlines()
        for model in said:
            # A stack may print lines of its own.
            line = next((line for line in lines if line.startswith(f"{model}: ")), f"{model}: no answer")
            expected = refused(said[model], name, of)
            loads = not any(word in line for word in [": cannot load: ", ": not replayed: ", ": no answer"])
            verdict = ""
            if expected and loads:
                verdict = "  <- IS SAID TO REFUSE IT"
            elif not expected and not loads:
                verdict = "  <- UNANNOUNCED"
            elif loads and not line.endswith(": ok") and not announced(said[model], name, of):
                verdict = "  <- UNANNOUNCED"
            if verdict:
                failures.append(f"{stack} in {environment}: {line}{verdict}")
            print(f"{line}{verdict}", flush=True)
    onnx = [directory for directory in directories if os.path.exists(os.path.join(directory, "model.onnx"))]
    if os.path.exists(python := os.path.join(environments, "venv-onnx/bin/python")):
        print("== onnxruntime", flush=True)
        for directory in onnx:
            replayed = subprocess.run([python, os.path.join(HERE, "replay_onnx.py"), directory], text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            line = replayed.stdout.strip().splitlines()[-1]
            print(f"{os.path.basename(directory)}: {line}", flush=True)
            if replayed.returncode != 0:
                failures.append(f"onnxruntime: {os.path.basename(directory)}: {line}")
    if os.path.exists(program := os.path.join(environments, "rust/debug/replay")):
        failures += in_rust(program, environments, onnx, said)
    print(f"{len(said)} directories, {len(failures)} failures")
    for failure in failures:
        print(failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
