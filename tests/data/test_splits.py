"""Splits: which samples are in a batch, in which order, padded how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.core.splits import RaggedRows, Rows, SparseRows, Streams

SETS = [[3, 0], [], [1], [2, 4, 0]]
SEQUENCES = [[5, 6], [7], [8, 9, 4, 3], [2, 2, 2]]
Y = torch.arange(4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_sample_is_in_exactly_one_batch_of_an_epoch() -> None:
    rows = Rows(torch.arange(10.0)[:, None], torch.arange(10))
    for generator in (None, seeded()):
        batches = rows.order(4, generator)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert len(batches) == rows.batches(4)
        assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert torch.cat(rows.order(4)).tolist() == list(range(10))
    assert torch.cat(rows.order(4, seeded(1))).tolist() != torch.cat(rows.order(4, seeded(2))).tolist()


def test_inputs_and_targets_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="3 inputs but 2 targets"):
        Rows(torch.zeros(3, 1), torch.zeros(2))


def test_a_memory_map_gives_what_memory_gives(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / "x.npy", values)
    mapped = Rows(np.load(tmp_path / "x.npy", mmap_mode="r"), torch.arange(20))
    rows = torch.tensor([7, 2, 19, 2, 0])
    x, y = mapped.take(rows)
    assert x.tolist() == values[rows.numpy()].tolist()
    assert y.tolist() == rows.tolist()
    assert mapped.subset(torch.tensor([4, 1])).take(torch.tensor([1]))[0].tolist() == values[[1]].tolist()
    assert mapped.nbytes == 20 * 8


def test_sets_become_multi_hot_rows() -> None:
    split = SparseRows.from_sets([np.array(s) for s in SETS], 5, Y)
    expected = np.zeros((4, 5))
    for row, members in enumerate(SETS):
        expected[row, members] = 1
    order = [2, 0, 3, 1]
    x, y = split.take(torch.tensor(order))
    assert x.tolist() == expected[order].tolist()
    assert y.tolist() == order
    part = split.subset(torch.tensor([3, 1]))
    assert part.take(torch.arange(2))[0].tolist() == expected[[3, 1]].tolist()


def ragged(sequences: list[list[int]], y: Tensor) -> RaggedRows:
    lengths = torch.tensor([0, *(len(sequence) for sequence in sequences)])
    return RaggedRows(lengths.cumsum(0), torch.tensor([x for sequence in sequences for x in sequence]), y)


def test_sequences_are_padded_to_the_longest_of_their_batch() -> None:
    split = ragged(SEQUENCES, Y)
    x, y = split.take(torch.tensor([3, 1, 0]))
    assert x.tolist() == [[2, 2, 2], [7, 0, 0], [5, 6, 0]]
    assert y.tolist() == [3, 1, 0]
    part = split.subset(torch.tensor([2, 1]))
    assert part.take(torch.arange(2))[0].tolist() == [[8, 9, 4, 3], [7, 0, 0, 0]]


def test_batches_hold_sequences_of_similar_length_and_differ_between_epochs() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    split = ragged([[1] * n for n in lengths], torch.arange(400))
    batches = split.order(16, seeded(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(400))
    spread = [int(lengths[batch.numpy()].max() - lengths[batch.numpy()].min()) for batch in batches]
    assert np.mean(spread) < 10
    assert torch.cat(split.order(16, seeded(1))).tolist() != torch.cat(batches).tolist()
    assert (
        sorted(lengths[torch.cat(split.order(16)).numpy()])
        == lengths[torch.cat(split.order(16)).numpy()].tolist()
    )


def test_streams_continue_each_other() -> None:
    series = torch.arange(26)
    split = Streams.from_series(series, series + 1, streams=2, steps=5)
    pieces = [split.take(rows) for rows in split.order(1, seeded())]
    # Two halves of 13 steps, in pieces of 5, 5 and 3.
    assert torch.cat([x for x, _ in pieces], 1).tolist() == [list(range(13)), list(range(13, 26))]
    assert [x.shape[1] for x, _ in pieces] == [5, 5, 3]
    assert all(torch.equal(y, x + 1) for x, y in pieces)
    assert split.samples == 26
