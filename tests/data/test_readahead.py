"""Rows of a file on a slow disk: told of ahead, never taken in another order."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.core.loader import Loader
from pipeline.data.images import readahead, stored
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


def test_a_file_that_fits_is_read_once_from_its_beginning(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = rows_of(tmp_path)
    assert isinstance(split.images, Decoded)
    file, order = split.images.file_rows(), np.random.default_rng(1).permutation(COUNT)
    assert file.missing(order) == 0.0, "its pages are there: it was just written"
    assert not file.prepare(order)
    monkeypatch.setattr(FileRows, "missing", lambda *_: 0.9)
    monkeypatch.setattr(readahead, "_PIECE", 1 << 20)
    places, read = list[int](), os.preadv
    monkeypatch.setattr(os, "preadv", lambda *how: (places.append(how[2]), read(*how))[1])
    assert file.prepare(order[: COUNT // 5]), "of a fifth of the rows the disk is asked for these alone"
    assert not places
    with caplog.at_level(logging.INFO):
        assert not file.prepare(order)
    # The header of the file makes it a little longer than its four megabytes.
    assert places == [number << 20 for number in range(5)]
    assert "reading 0.0 GB of decoded images from the disk (90% of them are not in memory)" in caplog.text
    monkeypatch.setattr(readahead, "free_memory", lambda: COUNT)
    assert file.prepare(order), "what does not fit is asked for row by row"


def test_a_file_that_the_system_has_forgotten_is_noticed(images: np.ndarray, tmp_path: Path) -> None:
    split = rows_of(tmp_path)
    assert isinstance(split.images, Decoded)
    file = split.images.file_rows()
    os.fsync(file.descriptor)
    os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if file.missing(np.array([COUNT // 2])) == 0.0:
        pytest.skip("this file system does not say what it has in memory, or keeps it")
    split.take(torch.arange(COUNT))
    assert file.missing(np.arange(COUNT)) == 0.0


def test_each_row_is_asked_for_once_and_taken_in_the_order_that_was_drawn(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, asked, ask = rows_of(tmp_path), list[int](), FileRows.ask_for

    def noted(self: FileRows, rows: np.ndarray) -> None:
        asked.extend(rows.tolist())
        ask(self, rows)

    monkeypatch.setattr(FileRows, "ask_for", noted)
    monkeypatch.setattr(FileRows, "missing", lambda *_: 1.0)
    # Larger than what is free; two batches are asked for at a time.
    monkeypatch.setattr(readahead, "free_memory", lambda: COUNT)
    monkeypatch.setattr(stored, "AHEAD_BYTES", 2 * 100 * 1024)
    loader = Loader(split, 100, shuffle=True, seed=3, chunk=4)
    drawn, seen = torch.cat(loader.rows(0)).tolist(), list[int]()
    for chunk in loader:
        for x, y in chunk:
            seen += y.tolist()
            np.testing.assert_array_equal(x.numpy(), images[y.numpy()])
            assert set(seen) <= set(asked)
            assert len(asked) <= len(seen) + 400
    assert seen == drawn
    assert sorted(asked) == list(range(COUNT))
    # Gone on with in the middle: the batches that would have come.
    again = Loader(split, 100, shuffle=True, seed=3, chunk=4)
    again.go_to(0, batch=20)
    assert [y for chunk in again for _, ys in chunk for y in ys.tolist()] == drawn[2000:]


def test_shuffled_a_part_at_a_time_an_epoch_reads_each_piece_of_the_file_once(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pieces of 64 rows, of which 8 are put together.
    monkeypatch.setattr(stored, "_READ_AT_ONCE", 64 * 1024)
    split = StoredRows(
        Decoded(tmp_path / "images.npy"), torch.arange(COUNT), torch.arange(COUNT), within=512 * 1024
    )
    drawn = torch.cat(Loader(split, 100, shuffle=True, seed=3).rows(0))
    assert sorted(drawn.tolist()) == list(range(COUNT))
    assert torch.equal(drawn, torch.cat(Loader(split, 100, shuffle=True, seed=3).rows(0)))
    assert not torch.equal(drawn, torch.cat(Loader(split, 100, shuffle=True, seed=3).rows(1)))
    pieces = [set((part // 64).tolist()) for part in drawn.split(512)]
    assert [len(part) for part in pieces] == [8] * 8, "rows of eight pieces are shuffled among each other"
    assert set.union(*pieces) == set(range(64))
    assert not torch.equal(drawn[:512].sort().values, drawn[:512])
    # What is not shuffled stays as it is.
    assert torch.equal(torch.cat(Loader(split, 100).rows(0)), torch.arange(COUNT))
    # The disk is asked for whole pieces, and gives what was drawn.
    monkeypatch.setattr(FileRows, "missing", lambda *_: 1.0)
    monkeypatch.setattr(readahead, "free_memory", lambda: COUNT)
    monkeypatch.setattr(readahead, "_GAP", 0)
    lengths, advise = list[int](), os.posix_fadvise
    monkeypatch.setattr(os, "posix_fadvise", lambda *how: (lengths.append(how[2]), advise(*how))[1])
    batches = [y for chunk in Loader(split, 128, shuffle=True, seed=3) for _, y in chunk]
    assert torch.equal(torch.cat(batches), drawn)
    assert sum(lengths) == COUNT * 1024
    assert min(lengths) >= 64 * 1024
