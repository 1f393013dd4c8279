"""Rows of a file on a slow disk: told of ahead, never taken in another order."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.core.loader import Loader
from pipeline.data.images import readahead
from pipeline.data.images.readahead import FileRows
from pipeline.data.images.stored import Decoded, StoredRows

COUNT, SHAPE = 4096, (1, 32, 32)


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    """Four megabytes of noise, on the disk as images.npy."""
    found = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
    np.save(tmp_path / "images.npy", found)
    return found


def rows_of(tmp_path: Path) -> StoredRows:
    return StoredRows(Decoded(tmp_path / "images.npy"), torch.arange(COUNT), torch.arange(COUNT))


def forgotten(file: FileRows) -> bool:
    """Have the system forget a file's pages; gives whether it did."""
    os.fsync(file.descriptor)
    os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return file.missing(np.arange(COUNT)) > 0.5


def test_a_file_that_fits_is_read_once_from_its_beginning(
    images: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = rows_of(tmp_path)
    assert isinstance(split.images, Decoded)
    file, order = split.images.file_rows(), np.random.default_rng(1).permutation(COUNT)
    assert not file.prepare(order), "its pages are there: it was just written"
    if not forgotten(file):
        pytest.skip("this file system does not say what it has in memory, or keeps it")
    assert file.prepare(order[: COUNT // 5]), "of a fifth of the rows the disk is asked for these alone"
    assert file.missing(order) > 0.5
    with caplog.at_level(logging.INFO):
        assert not file.prepare(order)
    assert file.missing(order) == 0.0
    assert "reading 0.0 GB of decoded images from the disk" in caplog.text


def test_each_row_is_asked_for_once_and_taken_in_the_order_that_was_drawn(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, asked, ask = rows_of(tmp_path), list[int](), FileRows.ask_for

    def noted(self: FileRows, rows: np.ndarray) -> None:
        asked.extend(rows.tolist())
        ask(self, rows)

    monkeypatch.setattr(FileRows, "ask_for", noted)
    monkeypatch.setattr(FileRows, "missing", lambda *_: 1.0)
    # Larger than what is free, of which two batches may be asked for ahead.
    monkeypatch.setattr(readahead, "free_memory", lambda: COUNT)
    monkeypatch.setattr(readahead, "AHEAD_BYTES", 2 * 100 * 1024)
    loader = Loader(split, 100, shuffle=True, seed=3, chunk=4)
    drawn, seen = torch.cat(loader.rows(0)).tolist(), list[int]()
    for chunk in loader:
        for x, y in chunk:
            seen += y.tolist()
            np.testing.assert_array_equal(x.numpy(), images[y.numpy()])
            assert set(seen) <= set(asked)
            assert len(asked) <= len(seen) + 200
    assert seen == drawn
    assert sorted(asked) == list(range(COUNT))
    # Gone on with in the middle: the batches that would have come.
    again = Loader(split, 100, shuffle=True, seed=3, chunk=4)
    again.go_to(0, batch=20)
    assert [y for chunk in again for _, ys in chunk for y in ys.tolist()] == drawn[2000:]
