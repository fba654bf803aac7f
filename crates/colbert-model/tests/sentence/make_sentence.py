"""Records what sentence-transformers makes of the tiny BERT in ../parity/tiny, for several module configurations.

    python make_sentence.py
    python make_sentence.py ENCODER OUT.json

Writes expected.json: for each variant the files to be laid beside the model's own, and the vectors of queries and
documents. With the directory of an encoder, writes its similarities of more of the same texts, for the test
`measured_against_sentence_transformers` of colbert-train. Made with sentence-transformers 5.3.0, transformers 4.55.4, torch 2.9.0, float32 on a CPU, one thread.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "parity" / "tiny"

TEXTS = (HERE.parent / "parity" / "collection.tsv").read_text(encoding="utf-8").splitlines()
QUERIES = (HERE.parent / "parity" / "queries.tsv").read_text(encoding="utf-8").splitlines()


def modules(*names):
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [
        {"idx": i, "name": str(i), "path": paths[name], "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]


def pooling(mode):
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    return {"word_embedding_dimension": 32, "include_prompt": True, **{f"pooling_mode_{m}": m == mode for m in modes}}


VARIANTS = {
    # Nothing but the encoder: mean pooling, cosine.
    "plain": {},
    "cls_with_prompts": {
        "modules.json": modules("Transformer", "Pooling", "Normalize"),
        "1_Pooling/config.json": pooling("cls_token"),
        "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    },
    "mean_dot": {
        "modules.json": modules("Transformer", "Pooling"),
        "1_Pooling/config.json": pooling("mean_tokens"),
        "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": True},
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "dot"},
    },
}


def text_of(line):
    return line.split("\t", 1)[1].strip()


def of_directory(directory, out):
    queries, documents = [text_of(line) for line in QUERIES][:40], [text_of(line) for line in TEXTS]
    model = SentenceTransformer(directory, device="cpu")
    similarity = model.similarity(model.encode_query(queries), model.encode_document(documents)).tolist()
    found = {"directory": directory, "queries": queries, "documents": documents, "similarity": similarity}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


def main():
    if len(sys.argv) == 3:
        return of_directory(*sys.argv[1:])
    torch.set_num_threads(1)
    queries = [text_of(line) for line in QUERIES][:6]
    documents = [text_of(line) for line in TEXTS][:40]
    out = {"queries": queries, "documents": documents, "variants": {}}
    for name, files in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder) / "model"
            shutil.copytree(TINY, folder)
            for path, content in files.items():
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_text(json.dumps(content))
            model = SentenceTransformer(str(folder), device="cpu")
            vectors = {
                "queries": model.encode_query(queries, convert_to_numpy=True, batch_size=4),
                "documents": model.encode_document(documents, convert_to_numpy=True, batch_size=4),
            }
            similarity = model.similarity(vectors["queries"], vectors["documents"]).numpy()
            out["variants"][name] = {
                "files": files,
                "max_seq_length": model.max_seq_length,
                "similarity_fn_name": model.similarity_fn_name,
                **{side: [[float(f"{x:.7g}") for x in row] for row in found.tolist()] for side, found in vectors.items()},
                "similarity": [[float(f"{x:.7g}") for x in row] for row in similarity.tolist()],
            }
    (HERE / "expected.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


main()
