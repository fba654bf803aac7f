"""Writes zstandard-1.parquet and zstandard-2.parquet, pages of both versions compressed with Zstandard, as polars and DuckDB
can write them.

Run with pyarrow 26.0.1: python zstandard.py
"""
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

here = Path(__file__).parent
table = pa.table({
    "query": [f"what is subject {row}" for row in range(300)],
    "positive": [f"subject {row} is a thing" for row in range(300)],
    "negatives": [[f"thing {row % 7}", None] if row % 3 else [] for row in range(300)],
    "source": ["made up"] * 300,
})
for version in ("1.0", "2.0"):
    name = f"zstandard-{version[0]}.parquet"
    pq.write_table(table, here / name, compression="zstd", data_page_version=version, row_group_size=200,
                   use_dictionary=["source", "negatives"])
