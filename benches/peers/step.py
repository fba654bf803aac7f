"""Times training steps of one system on given triples; prints one JSON line.

python step.py SYSTEM --model DIR --triples FILE.jsonl [--batch 32] [--doc-maxlen 256] [--steps 8] [--warm-up 2]
                      [--threads 2] [--device cpu]

SYSTEM is colbert-ai (its own training loop), pylate or pylate-bf16 (sentence-transformers' trainer with PyLate's
contrastive loss), or torch-f32 or torch-bf16 (a plain PyTorch step of the same model and loss on a batch padded to its
longest text, the latter under bfloat16 autocast). Rows of FILE are {"query": ..., "positive": ..., "negatives": [...]}.
Every system gets the same triples in the same order: one negative each, in-batch negatives, dim 128, queries of 32 tokens,
the dropout of the model's config, float32 weights, AdamW. Warm-up steps are not timed.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("system", choices=["colbert-ai", "pylate", "pylate-bf16", "torch-f32", "torch-bf16"])
parser.add_argument("--model", required=True)
parser.add_argument("--triples", required=True)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--doc-maxlen", type=int, default=256)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--warm-up", type=int, default=2)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="colbert-ai runs on the CPU alone here")
options = parser.parse_args()

# Must be set before any of the libraries is loaded.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = str(options.threads)
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", WANDB_DISABLED="true")
if options.device == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch

torch.set_num_threads(options.threads)
model_directory = os.path.abspath(options.model)
total = options.steps + options.warm_up
with open(options.triples) as file:
    triples = [json.loads(line) for line in file]
triples = triples[: total * options.batch]
if len(triples) < total * options.batch:
    raise SystemExit(f"{len(triples)} triples are too few for {total} steps of {options.batch}")
ends = []  # when each step ended: wall clock, CPU seconds of the process


def mark(*_, **__):
    if options.device == "cuda":
        torch.cuda.synchronize()
    ends.append((time.perf_counter(), time.process_time()))


def colbert_ai():
    """Runs colbert-ai's train() in this process, without its wrapper for several GPUs; neither changes a step."""
    import colbert.modeling.base_colbert as base
    import colbert.training.training as training
    from colbert.infra import ColBERTConfig, Run
    from colbert.modeling.colbert import ColBERT
    from colbert.utils.amp import MixedPrecisionManager

    ColBERT.loaded_extensions = True  # a C++ extension for search, not used here
    by_name = base.class_factory
    base.class_factory = lambda name: by_name(name if os.path.isdir(name) else model_directory)

    class Marked(MixedPrecisionManager):
        def step(self, *arguments, **named):
            super().step(*arguments, **named)
            mark()

    class Torch:
        """torch without DistributedDataParallel, which needs a process group."""

        nn = type("nn", (), {"__getattr__": lambda _, name: getattr(torch.nn, name)})()
        nn.parallel = type("parallel", (), {"DistributedDataParallel": staticmethod(lambda model, **_: model)})

        def __getattr__(self, name):
            return getattr(torch, name)

    training.MixedPrecisionManager = Marked
    training.torch = Torch()
    ids, texts = {}, []
    rows = []
    for i, row in enumerate(triples):
        for text in (row["positive"], row["negatives"][0]):
            if ids.setdefault(text, len(texts)) == len(texts):
                texts.append(text)
        rows.append([i, ids[row["positive"]], ids[row["negatives"][0]]])
    with tempfile.TemporaryDirectory() as folder:
        config = ColBERTConfig(
            root=folder, experiment="bench", name="run", bsize=options.batch, accumsteps=1, lr=5e-6, maxsteps=total, nway=2,
            dim=128, query_maxlen=32, doc_maxlen=options.doc_maxlen, use_ib_negatives=True, checkpoint=model_directory,
            rank=0, nranks=1,
        )
        with Run().context(config, inherit_config=False):
            training.train(config, rows, {i: row["query"] for i, row in enumerate(triples)}, texts)


def pylate(precision):
    import transformers
    from datasets import Dataset
    from pylate import losses, models, utils
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    class Marks(transformers.TrainerCallback):
        on_step_end = staticmethod(mark)

    model = models.ColBERT(
        model_name_or_path=model_directory, embedding_size=128, query_length=32, document_length=options.doc_maxlen,
        device=options.device,
    )
    columns = {
        "query": [row["query"] for row in triples],
        "positive": [row["positive"] for row in triples],
        "negative": [row["negatives"][0] for row in triples],
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, max_steps=total, per_device_train_batch_size=options.batch, learning_rate=5e-6,
            use_cpu=options.device == "cpu", bf16=precision == "bf16",
            save_strategy="no", report_to=[], disable_tqdm=True, dataloader_drop_last=True, logging_steps=1,
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=losses.Contrastive(model=model),
            data_collator=utils.ColBERTCollator(model.tokenize), callbacks=[Marks()],
        )
        trainer.train()


def plain(precision):
    """Encode, MaxSim of every query with every document, cross-entropy, clipping, AdamW."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(model_directory), AutoModel.from_pretrained(model_directory)
    projection = torch.nn.Linear(encoder.config.hidden_size, 128, bias=False)
    encoder.train().to(options.device)
    projection.to(options.device)
    parameters = [*encoder.parameters(), *projection.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-6)

    def encode(texts, length, pad):
        batch = tokenizer(texts, max_length=length, truncation=True, padding=pad, return_tensors="pt").to(options.device)
        vectors = projection(encoder(**batch).last_hidden_state)
        return torch.nn.functional.normalize(vectors.float(), dim=2), batch["attention_mask"].bool()

    for step in range(total):
        rows = triples[step * options.batch : (step + 1) * options.batch]
        texts = [row["positive"] for row in rows] + [row["negatives"][0] for row in rows]
        with torch.autocast(options.device, torch.bfloat16, enabled=precision == "bf16"):
            queries, _ = encode([row["query"] for row in rows], 32, "max_length")
            documents, real = encode(texts, options.doc_maxlen, "longest")
        scores = torch.einsum("qid,pjd->qpij", queries, documents).masked_fill(~real[None, :, None], -9999)
        loss = torch.nn.functional.cross_entropy(scores.max(3).values.sum(2), torch.arange(len(rows), device=options.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        optimizer.zero_grad()
        mark()


run = {
    "colbert-ai": colbert_ai,
    "pylate": lambda: pylate("f32"),
    "pylate-bf16": lambda: pylate("bf16"),
    "torch-f32": lambda: plain("f32"),
    "torch-bf16": lambda: plain("bf16"),
}
with contextlib.redirect_stdout(io.StringIO()):
    run[options.system]()
assert len(ends) == total, f"{len(ends)} steps, not {total}"
wall, cpu = ([b[i] - a[i] for a, b in zip(ends, ends[1:])][options.warm_up - 1 :] for i in (0, 1))
print(json.dumps({
    "system": options.system,
    "step_seconds": [round(seconds, 3) for seconds in wall],
    "cpu_seconds": round(statistics.median(cpu), 3),
    "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
