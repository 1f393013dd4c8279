"""Prepared arrays on disk: built once, whole or not at all, rebuilt when damaged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.core.cache import cached

ARRAYS = {"x": np.arange(12, dtype=np.uint8).reshape(3, 4), "names": np.array(["a", "ß"])}


class Builder:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[dict[str, np.ndarray], Any]:
        self.calls += 1
        return ARRAYS, {"classes": ["a", "b"]}


def test_the_second_start_reads_what_the_first_built(tmp_path: Path) -> None:
    build = Builder()
    first, second = cached(tmp_path, "entry", build), cached(tmp_path, "entry", build)
    assert build.calls == 1
    for arrays, value in (first, second):
        assert {name: array.tolist() for name, array in arrays.items()} == {
            k: v.tolist() for k, v in ARRAYS.items()
        }
        assert arrays["x"].dtype == np.uint8
        assert value == {"classes": ["a", "b"]}
    cached(tmp_path, "another", build)
    assert build.calls == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "manifest"])
def test_a_damaged_entry_is_built_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    build = Builder()
    cached(tmp_path, "entry", build)
    file = tmp_path / "cache/entry" / ("manifest.json" if damage == "manifest" else "x.npy")
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "flipped":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        arrays, _ = cached(tmp_path, "entry", build)
    assert build.calls == 2
    assert arrays["x"].tolist() == ARRAYS["x"].tolist()
    assert "damaged" in caplog.text


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> Any:
        raise RuntimeError("no source")

    with pytest.raises(RuntimeError, match="no source"):
        cached(tmp_path, "entry", fail)
    build = Builder()
    cached(tmp_path, "entry", build)
    assert build.calls == 1


def test_a_draft_of_a_killed_process_is_not_taken_for_an_entry(tmp_path: Path) -> None:
    draft = tmp_path / "cache/entry.0123abcd.part"
    draft.mkdir(parents=True)
    (draft / "manifest.json").write_text(json.dumps({"arrays": {}, "value": None}), encoding="utf-8")
    build = Builder()
    arrays, _ = cached(tmp_path, "entry", build)
    assert build.calls == 1
    assert set(arrays) == {"x", "names"}


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    program = f"""
import time, numpy as np
from pathlib import Path
from pipeline.data.core.cache import cached
def build():
    with open({str(tmp_path / "log")!r}, "a") as file:
        file.write("built\\n")
    time.sleep(0.3)
    return {{"x": np.ones(3)}}, None
assert cached(Path({str(tmp_path)!r}), "entry", build)[0]["x"].sum() == 3
"""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"
