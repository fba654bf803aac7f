"""Writes the seeds of the fuzz targets: seeds/TARGET/NAME. Needs pyarrow. Run it anywhere; the same bytes come out.

Inputs that were found later lie beside them and are left alone.
"""

import gzip
import io
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
CRATES = HERE.parent / "crates"


def seed(target, name, *parts):
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"".join(part.encode() if isinstance(part, str) else part for part in parts))


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def files(*contents):
    return "\n==\n".join(contents)


def data():
    # First byte: 0 JSONL, 1 JSON, 2 CSV, 3 TSV, 4 BEIR, 5 the reference's, 6 PyLate's, 7 parts. Second: format and flags.
    rows = {
        "pairs": lines(["q", "p"], ["r", "s"]),
        "labelled": lines(["q", "p", 1], ["q", "n", 0]),
        "triplets": lines(["q", "p", "n"]),
        "objects": lines({"query": "q", "positive": "p", "negative": ["n", "m"]}),
        "scored": lines({"query": "q", "documents": ["a", "b"], "scores": [0.5, -1.0]}),
        "tevatron": lines({"query_id": "1", "query": "q", "positive_passages": [{"docid": "2", "title": "t", "text": "p"}],
                           "negative_passages": [{"docid": "3", "title": "", "text": "n"}]}),
        "documents": lines("a text", {"_id": "7", "title": "t", "text": "x"}, ["3", "y", "z"]),
    }
    for name, text in rows.items():
        seed("data", f"jsonl-{name}", b"\x00\x00", text)
        seed("data", f"json-{name}", b"\x01\x00[", ",".join(text.splitlines()), "]")
    seed("data", "jsonl-gzip", b"\x00\x10", rows["pairs"])
    seed("data", "jsonl-gzip-as-it-is", b"\x00\x00", gzip.compress(rows["pairs"].encode(), mtime=0))
    seed("data", "jsonl-skip", b"\x00\x08", rows["pairs"] + "[\n")
    seed("data", "jsonl-scored-pairs", b"\x00\x04", lines(["q", "a", 0.5], ["q", "b", 1.5]))
    seed("data", "csv", b"\x02\x00", 'query,positive,negative\nq,"p, ""x""\ny",n\n')
    seed("data", "csv-semicolons", b"\x02\x00", "question;passage;label\nq;p;1\nq;n;0\n")
    seed("data", "tsv", b"\x03\x00", "q\tp\tn\nr\ts\tt\n")
    seed("data", "tsv-header", b"\x03\x00", "query\tpositive\nq\tp\n")
    corpus = lines({"_id": "d1", "title": "t", "text": "x"}, {"_id": "d2", "text": "y"})
    queries = lines({"_id": "q1", "text": "q"}, {"_id": "q2", "text": "r"})
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq1\td2\t0\n"
    seed("data", "beir", b"\x04\x00", files(corpus, queries, qrels, qrels))
    seed("data", "reference", b"\x05\x00", files("0\tq\n1\tr\n", "0\tx\n1\ty\tt\n", "[0,0,1]\n[1,1,0]\n"))
    seed("data", "reference-scores", b"\x05\x00", files("0\tq\n", "0\tx\n1\ty\n", "[0,[0,1.5],[1,-2]]\n"))
    tables = files(lines({"query_id": "1", "document_ids": ["2", "3"], "scores": [0.5, 0.25]}),
                   lines({"query_id": "1", "text": "q"}), lines({"document_id": "2", "text": "x"}, {"document_id": "3", "text": "y"}))
    seed("data", "pylate", b"\x06\x00", tables)
    seed("data", "parts", b"\x07\x00", files("query,positive\nq,p\n", "query,positive\nr,s\n"))


def parquet():
    tables = {
        "pairs": {"query": ["q", "r"], "positive": ["p", "s"], "at": [1, 2]},
        "lists": {"query": ["q"], "documents": [["a", "b"]], "scores": [[0.5, -1.0]]},
        "nulls": {"query": ["q", None], "positive": [None, "p"], "negative": ["n", "n"]},
        "documents": {"id": [1, 2], "title": ["t", ""], "text": ["x", "y"]},
    }
    for name, columns in tables.items():
        for codec in ["none", "snappy", "gzip", "brotli", "lz4"] if name == "pairs" else ["none"]:
            for dictionary in [True, False]:
                out = io.BytesIO()
                pq.write_table(pa.table(columns), out, compression=codec, use_dictionary=dictionary, store_schema=False)
                seed("parquet", f"{name}-{codec}-{'dictionary' if dictionary else 'plain'}", out.getvalue())
    out = io.BytesIO()
    texts = pa.table({name: tables["pairs"][name] for name in ("query", "positive")})
    pq.write_table(texts, out, compression="none", data_page_version="2.0", store_schema=False, use_dictionary=False,
                   column_encoding="DELTA_BYTE_ARRAY")
    seed("parquet", "delta", out.getvalue())


def config():
    # First byte: 0 TOML, 1 YAML, 2 JSON, 3 the environment, 4 artifact.metadata.
    options = {"output": "run", "train": {"batch_size": 8, "learning_rate": 1e-4, "warmup_steps": "auto", "dropout": 0.1,
                                          "memory_limit": "4GB", "precision": "bf16", "save_every": 5, "epochs": 2},
               "data": {"train": "x", "columns": "title=query", "dev_split": 3}, "negatives": {"miner": "random"},
               "evaluation": {"metric": "mrr@10", "patience": 2, "average_best": 3, "interpolate": True}}
    seed("config", "json", b"\x02", json.dumps(options))
    toml = 'output = "run"\n[train]\nbatch_size = 8\nwarmup_steps = "constant"\nmaxsteps = 9\n[evaluation]\nmetric = "loss"\n'
    seed("config", "toml", b"\x00", toml)
    seed("config", "quickstart", b"\x00", (HERE.parent / "examples/quickstart.toml").read_bytes())
    seed("config", "yaml", b"\x01", "output: run\ntrain:\n  batch_size: 8\n  nway: 4\n  accumsteps: 2\nevaluation: &a\n  seed: 1\n")
    seed("config", "environment", b"\x03", "TRAIN__BATCH_SIZE=16\nOUTPUT=x\nNEGATIVES__REFRESH=epoch\nTRAIN__IB_SCOPE=micro_batch\n")
    metadata = {"query_token_id": "[unused0]", "doc_maxlen": 180, "query_maxlen": 32, "dim": 96, "similarity": "cosine",
                "attend_to_mask_tokens": False, "nbits": 2, "lr": 3e-6, "warmup": None, "meta": {"hostname": "x"}}
    seed("config", "metadata", b"\x04", json.dumps(metadata))


def model_files():
    # First byte: the place in the target's list of files.
    families = CRATES / "colbert-model/tests/families"
    vocab = {word: i for i, word in enumerate(["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "tor"])}
    ends = {"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4]}
    special = [{"id": 6, "content": "[MASK]", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": True}]
    tokenizers = {
        "wordpiece": {"added_tokens": special, "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                      "strip_accents": None, "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": ends,
                      "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                                "max_input_chars_per_word": 100}},
        "bpe": {"added_tokens": special, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                "post_processor": {"type": "RobertaProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4], "trim_offsets": True, "add_prefix_space": True},
                "model": {"type": "BPE", "vocab": {**vocab, "t": 9, "o": 10}, "merges": [], "unk_token": "[UNK]"}},
        "unigram": {"added_tokens": special, "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace",
                    "pattern": {"Regex": " {2,}"}, "content": " "}]}, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                    "prepend_scheme": "always", "split": True}, "post_processor": ends,
                    "model": {"type": "Unigram", "unk_id": 3, "vocab": [[word, -1.0 - i] for word, i in vocab.items()], "byte_fallback": False}},
    }
    for name, tokenizer in tokenizers.items():
        seed("model_files", f"tokenizer-{name}", b"\x00", json.dumps({"version": "1.0", **tokenizer}))
    for family in ["pylate", "distilbert", "electra", "modernbert", "roberta"]:
        seed("model_files", f"config-{family}", b"\x01", (families / family / "config.json").read_bytes())
    seed("model_files", "config-tiny", b"\x01", json.dumps({
        "model_type": "bert", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 4, "max_position_embeddings": 16, "layer_norm_eps": 1e-12, "initializer_range": 0.02}))
    pylate = families / "pylate"
    for place, name in [(2, "config_sentence_transformers.json"), (3, "1_Dense/config.json"), (4, "modules.json"),
                        (5, "sentence_bert_config.json"), (9, "tokenizer_config.json")]:
        seed("model_files", name.replace("/", "-"), bytes([place]), (pylate / name).read_bytes())
    seed("model_files", "layer", b"\x03", json.dumps({"in_features": 4, "out_features": 2, "bias": False, "use_residual": False,
         "activation_function": "torch.nn.modules.activation.GELU"}))
    seed("model_files", "modules-stacked", b"\x04", (families / "stacked/modules.json").read_bytes())
    seed("model_files", "pooling", b"\x06", json.dumps({"word_embedding_dimension": 4, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}))
    seed("model_files", "index", b"\x07", json.dumps({"metadata": {"total_size": 1}, "weight_map": {"embeddings.word_embeddings.weight": "part.safetensors"}}))
    text = {"text": "a", "ids": [4, 1, 7, 5], "attended": 4, "scored": [True] * 4, "vectors": [[1.0, 0.0]] * 4}
    seed("model_files", "selfcheck", b"\x08", json.dumps({"format": 1, "queries": [text], "documents": [text], "scores": [[4.0]]}))


def training():
    # First byte: float32 or bfloat16 (1), one micro-batch or two (2).
    tiny = {"model_type": "bert", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 4, "max_position_embeddings": 16, "layer_norm_eps": 1e-12, "initializer_range": 0.02,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    for number, (name, changes) in enumerate([
        ("plain", {}),
        ("dropout-of-one", {"hidden_dropout_prob": 1.0}),
        ("attention-dropout-of-two", {"attention_probs_dropout_prob": 2.0}),
        ("dropout-below-zero", {"hidden_dropout_prob": -0.5}),
        ("dropout-nearly-one", {"hidden_dropout_prob": 0.99999999999999994}),
        ("epsilon-below-zero", {"layer_norm_eps": -1.0}),
        ("epsilon-huge", {"layer_norm_eps": 1e300}),
        ("epsilon-zero", {"layer_norm_eps": 0.0}),
        ("initializer-huge", {"initializer_range": 1e300}),
        ("no-heads", {"num_attention_heads": 0}),
        ("heads-that-do-not-divide", {"num_attention_heads": 3}),
        ("positions-of-one", {"max_position_embeddings": 1}),
    ]):
        seed("training", name, bytes([number % 4]), json.dumps({**tiny, **changes}))


def hub():
    # Parts are whole HTTP answers in the order in which they are sent: the list of files, then HEAD and GET of each.
    def answer(body, *headers, status="200 OK"):
        lines = [f"HTTP/1.1 {status}", "connection: close", *headers]
        return "\r\n".join(lines) + "\r\n\r\n" + body

    def listing(*names, sha="abc123"):
        return answer(json.dumps({"sha": sha, "siblings": [{"rfilename": name} for name in names]}))

    def served(number, body):
        return [answer("", f'etag: "e{number}"', f"content-length: {len(body)}"), answer(body)]

    three = ["config.json", "tokenizer.json", "model.safetensors"]
    bodies = [part for number in range(3) for part in served(number, "{}")]
    seed("hub", "model", files(listing(*three), *bodies))
    seed("hub", "no-files", files(listing()))
    seed("hub", "commit-with-dots", files(listing(*three, sha="../../up"), *bodies))
    seed("hub", "file-with-dots", files(listing(*three, "../../../up/tokenizer_config.json", "/etc/config.json"), *bodies))
    seed("hub", "etag-with-dots", files(listing(*three), answer("", 'etag: "../../up"', "content-length: 2"), answer("{}")))
    seed("hub", "wrong-checksum", files(listing(*three), answer("", 'etag: "' + "0" * 64 + '"', "content-length: 2"),
                                        answer("{}")))
    seed("hub", "longer-than-announced", files(listing(*three), answer("", 'etag: "e"', "content-length: 1"),
                                               answer("x" * 5000)))
    seed("hub", "redirect-to-itself", files(answer("", "location: /again", status="302 Found")))
    seed("hub", "redirect-with-a-query", files(answer("", "location: /blob/x?u=http://y", status="302 Found"),
                                               listing(*three), *bodies))
    seed("hub", "gated", files(answer("", "x-error-code: GatedRepo", status="403 Forbidden")))
    index = json.dumps({"weight_map": {"a": "shards/m.safetensors", "b": "../../up.safetensors"}})
    seed("hub", "index", files(listing("config.json", "tokenizer.json", "model.safetensors.index.json",
                                       "shards/m.safetensors"),
                               *served(0, "{}"), *served(1, "{}"), *served(2, index), *served(3, "x")))


def safetensors(tensors):
    header, content = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(values)]}
        content += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def weights():
    # First byte: 0 safetensors, 1 pytorch_model.bin, 2 its pickle program.
    floats = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)
    seed("weights", "safetensors", b"\x00", safetensors({"linear.weight": ("F32", [2, 2], floats), "a.bias": ("BF16", [8], floats),
         "b": ("F16", [2, 4], floats), "ids": ("I64", [2], floats), "c": ("F64", [2], floats), "e": ("F32", [0, 4], b"")}))
    torch = CRATES / "colbert-model/tests/families/torch"
    for name in ["state.bin", "module.bin", "evil.bin", "legacy.bin", "bare.bin"]:
        seed("weights", name, b"\x01", (torch / name).read_bytes())
    tensor = (b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
              b"0X\x03\0\0\0cpuK\x40tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR")
    seed("weights", "program", b"\x02\x80\x02}q\0(X\x01\0\0\0aq\x01", tensor, b"q\x02X\x01\0\0\0bh\x02u.")
    seed("weights", "program-parameter", b"\x02\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0ac", b"torch._utils\n_rebuild_parameter\n(",
         tensor, b"\x89ccollections\nOrderedDict\n)RtRu}X\x01\0\0\0_Nsb.")
    # What programs should not be able to do: values within values without end, and copies of copies.
    seed("weights", "program-nested", b"\x02)", b"\x85" * 4000, b".")
    seed("weights", "program-doubled", b"\x02)q\0", b"h\0h\0\x86q\0" * 200, b".")


def run_files():
    # First byte: 0 to 4 a file of a checkpoint, 5 a run, 6 a folder of documents.
    measured = {"evaluation": {"queries": 2, "documents": 3, "metrics": [["ndcg@10", 0.5], ["loss", 1.5]]},
                "queries": [{"qid": 0, "value": 0.5, "rank": 1, "first": [0, 2]}, {"qid": 1, "value": None, "rank": None, "first": []}]}
    state = {"step": 2, "identity": {"program": "0.1.0", "options": {"train.seed": 1}, "inputs": {"start": "hash 0"}},
             "baseline": measured, "best": [{"step": 1, "measured": measured}], "evaluated": 2, "since_best": 1, "skipped": 0,
             "losses": {"seen": 2, "mean": 1.0, "variance": 0.1}, "training_seconds": 1.5}
    sums = {name: {"bytes": 3, "crc32": "00000000"} for name in ["model.safetensors", "optimizer.safetensors", "state.json"]}
    seed("run_files", "manifest", b"\x00", json.dumps({"format": 2, "files": sums}))
    seed("run_files", "state", b"\x01", json.dumps(state))
    moments = {}
    for kind in ["exp_avg", "exp_avg_sq"]:
        moments[f"{kind}.linear.weight"] = ("F32", [8], struct.pack("<8f", *range(8)))
    for place, name in [(2, "model"), (3, "moments"), (4, "best")]:
        tensors = moments if place == 3 else {"linear.weight": ("F32", [2, 4], struct.pack("<8f", *range(8)))}
        seed("run_files", name, bytes([place]), safetensors(tensors))
    plan = {"examples": 40, "epochs": 1, "steps": 10, "batch_size": 4, "accumsteps": 2, "micro_batch_size": 2, "nway": 2,
            "use_ib_negatives": True, "ib_scope": "batch", "ib_documents": 6, "learning_rate": 5e-06, "warmup_steps": 1,
            "schedule_horizon": 10, "save_every": 1, "dropout": None, "precision": "f32", "memory": 1000}
    step = {"event": "step", "step": 1, "loss": 1.5, "parts": {}, "learning_rate": 1e-5, "gradient_norm": 2.0, "positive_score": 3.0,
            "negative_score": 2.0, "examples": 4, "tokens": 90, "seconds": 0.5, "examples_per_second": 8.0, "tokens_per_second": 180.0,
            "memory": 5}
    metrics = lines({"event": "started", "done": 0}, step, {**step, "step": 2}, {"event": "evaluated", "step": 2, "metric": "ndcg@10",
        "evaluation": measured["evaluation"], "best": True, "seconds": 1.0}, {"event": "resumed", "step": 1, "checkpoint": None,
        "skipped": [{"path": "p", "reason": "r"}], "changes": [{"what": "a", "then": "1", "now": "2"}]},
        {"event": "spike", "step": 2, "loss": 9.0, "mean": 1.0}, {"event": "finished", "step": 2, "stopped": False})
    both = [measured["evaluation"], measured["evaluation"]]
    outcome = {"best": "b", "last": "l", "steps": 2, "stopped": False, "metric": "ndcg@10", "best_step": 2, "best_made_of": None, "dev": both,
               "dev_comparison": None, "candidates": [], "test": None, "skipped": 0, "training_seconds": 1.0, "peak_memory": None}
    change = {"query": "q", "before": 0.1, "after": 0.5, "rank_before": 3, "rank_after": 1, "relevant": ["x"], "first_before": "y", "first_after": "x"}
    queries = {"better": 1, "worse": 0, "same": 1, "gained": [change], "lost": []}
    options = json.dumps({"output": "run", "train": {"batch_size": 8}})
    token = {"query_token": "tor", "document_token": "hill", "place": 1, "similarity": 0.5}
    explanation = {"score": 0.5, "document": [{"token": "a", "is_scored": False}, {"token": "hill", "is_scored": True}],
                   "matches": [token, {**token, "query_token": "[MASK]"}]}
    document = {"is_relevant": True, "is_first": False, "explanation": explanation}
    explained = {"query": "q", "values": [0.1, None], "documents": [document]}
    run = [options, json.dumps(plan), metrics, json.dumps(outcome), json.dumps(queries)]
    seed("run_files", "run", b"\x05", files(*run, json.dumps([explained])))
    # Places that there are not, and sums that overflow.
    far = {**token, "query_token": "[MASK]", "place": 2**64 - 1, "similarity": 3e38}
    odd = {"score": -3e38, "document": [], "matches": [far, far, {**far, "place": 0, "query_token": ""}]}
    odd = {**explained, "documents": [{**document, "explanation": odd}] * 3}
    seed("run_files", "run-explanations", b"\x05", files(*run, json.dumps([odd, {**explained, "query": "\u0000<script>"}])))
    folder = {"format": 1, "dim": 2, "fingerprint": "00000000000000ff", "generation": 0, "documents": 2, "tokens": 3,
              "text_bytes": 0, "deleted": [1]}
    documents = '{"id":"a","tokens":1,"text":"x"}\n{"id":"b","tokens":2,"text":"y"}\n'
    folder["text_bytes"] = len(documents)
    for name, change in [("overflow", {"dim": 1 << 62}), ("deleted", {"deleted": [7, 8, 9]}), ("tokens", {"tokens": 2**64 - 1})]:
        seed("run_files", f"documents-{name}", b"\x06", json.dumps({**folder, **change}), "\n==\n", documents, "\n==\n")
    # The separator's own line end is not part of a file.
    seed("run_files", "documents", b"\x06", json.dumps(folder), "\n==\n", documents, "\n==\n", struct.pack("<6f", *range(6)))
    half = len(documents) // 2
    entries = struct.pack("<6Q", 1, half, 7, 3, len(documents), 8)
    second = {"format": 2, "vectors": "float32", "dim": 2, "fingerprint": "00000000000000ff", "generation": 0, "passages": 2,
              "documents": 1, "tokens": 3, "text_bytes": len(documents), "deleted": [[1, 2]], "added": 2}
    seed("run_files", "documents-2", b"\x06", json.dumps(second), "\n==\n", documents, "\n==\n",
         struct.pack("<6f", *range(6)), "\n==\n", entries)


for make in [data, parquet, config, model_files, training, hub, weights, run_files]:
    make()
