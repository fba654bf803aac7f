"""Small data, and the tiny model of the tests in Rust."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "colbert-model" / "tests" / "parity" / "tiny"
SMALL = {"batch_size": 4, "dim": 16, "doc_maxlen": 32}


@pytest.fixture
def tiny() -> str:
    return str(TINY)


@pytest.fixture
def pairs() -> list[tuple[str, str]]:
    return [(f"What is thing {n}?", f"Thing {n} is the answer to question {n} of the moor.") for n in range(24)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
