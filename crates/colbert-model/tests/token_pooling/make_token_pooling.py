"""Makes the fixtures of this folder: vectors of documents, and what PyLate and sentence-transformers pool them to.

    pip install torch==2.9.0 pylate==1.6.0                    then: python make_token_pooling.py
    pip install torch==2.9.0 sentence-transformers==6.2.0     then, in another environment: the same

Each environment writes what it has: pylate.json, sentence_transformers.json.
"""

import json
from pathlib import Path

import torch

HERE = Path(__file__).parent
DIM = 6


def documents():
    generator = torch.Generator().manual_seed(11)
    for tokens in (1, 2, 3, 9, 16, 25):
        # A few directions with noise, so that there are groups to be found.
        centres = torch.randn(5, DIM, generator=generator)
        picks = torch.randint(5, (tokens,), generator=generator)
        vectors = centres[picks] + 0.4 * torch.randn(tokens, DIM, generator=generator)
        yield torch.nn.functional.normalize(vectors, dim=1)


def cases(pool):
    rows = []
    for vectors in documents():
        for factor in (2, 3, 5):
            rows.append({"factor": factor, "rows": vectors.tolist(), "pooled": pool(vectors, factor).tolist()})
    return rows


def main():
    try:
        from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling
    except ImportError:
        from pylate.models import ColBERT

        name = "pylate"
        pool = lambda vectors, factor: ColBERT.pool_embeddings_hierarchical(None, [vectors], pool_factor=factor)[0]
    else:
        name, pool = "sentence_transformers", lambda vectors, factor: HierarchicalTokenPooling(factor).pool([vectors])[0]
    (HERE / f"{name}.json").write_text(json.dumps(cases(pool)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
