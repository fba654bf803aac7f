"""Runs the model.onnx of a model directory in onnxruntime and compares with the directory's selfcheck.json.

    python replay_onnx.py MODEL_DIR

Inputs are built from texts as next-plaid-onnx 1.6.1 (`src/lib.rs`) builds them, by tokenizer.json and onnx_config.json:
a marker after the first token, queries filled up with [MASK] that the mask marks as attended, documents padded to the
longest. Prints one line; exit code 1 if the file is not valid, ids differ, or a vector is off by more than 1e-5.
"""

import json
import os
import sys

import numpy as np
import onnx
import onnxruntime
from tokenizers import Tokenizer

TOLERANCE = 1e-5


def encode(session, tokenizer, config, texts, is_query):
    """Returns the ids of each text, and all vectors of its row."""
    side = "query" if is_query else "document"
    length, marker = config[f"{side}_length"], config[f"{side}_prefix_id"]
    expand = is_query and config["do_query_expansion"]
    rows = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) > length - 1:
            ids = ids[: length - 2] + ids[-1:]
        rows.append(ids[:1] + [marker] + ids[1:])
    longest = length if expand else max(map(len, rows))
    ids = np.full((len(rows), longest), config["mask_token_id" if expand else "pad_token_id"], dtype=np.int64)
    mask = np.full_like(ids, 1 if expand else 0)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if config["uses_token_type_ids"]:
        inputs["token_type_ids"] = np.zeros_like(ids)
    (vectors,) = session.run(["output"], inputs)
    counts = [longest if expand else len(row) for row in rows]
    return [list(map(int, row[:n])) for row, n in zip(ids, counts)], [row[:n] for row, n in zip(vectors, counts)]


def main():
    (directory,) = sys.argv[1:]
    path = lambda name: os.path.join(directory, name)
    onnx.checker.check_model(path("model.onnx"), full_check=True)
    opset = onnx.load(path("model.onnx"), load_external_data=False).opset_import[0].version
    with open(path("selfcheck.json"), encoding="utf-8") as file:
        check = json.load(file)
    with open(path("onnx_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    session = onnxruntime.InferenceSession(path("model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(path("tokenizer.json"))
    skipped = {tokenizer.token_to_id(word) for word in config["skiplist_words"]}
    same, worst, found = True, 0.0, {}
    for side in ["queries", "documents"]:
        ids, vectors = encode(session, tokenizer, config, [text["text"] for text in check[side]], side == "queries")
        for own, rows, text in zip(ids, vectors, check[side], strict=True):
            expected = np.array(text["vectors"], dtype=np.float32)
            kept = [side == "queries" or id not in skipped for id in own]
            same &= own == text["ids"] and kept == text["scored"]
            worst = max(worst, float(np.abs(rows - expected).max()) if rows.shape == expected.shape else float("inf"))
            found.setdefault(side, []).append(rows[np.array(kept)])
    scores = [[float((q @ d.T).max(axis=1).sum()) for d in found["documents"]] for q in found["queries"]]
    scores = float(np.abs(np.array(scores) - np.array(check["scores"])).max())
    verdict = "ok" if same and worst <= TOLERANCE else "DIFFERS"
    tokens = "identical" if same else "OTHER IDS"
    print(f"onnxruntime {onnxruntime.__version__} (opset {opset}, valid for onnx {onnx.__version__}): token ids {tokens}; "
          f"token vectors {worst:.1e}; scores {scores:.1e}: {verdict}")
    sys.exit(0 if verdict == "ok" else 1)


if __name__ == "__main__":
    main()
