"""The loader: the order of an epoch, parts of it, parts for several processes."""

from __future__ import annotations

import torch

from pipeline.data.core.loader import Loader
from pipeline.data.core.splits import Chunk, Rows

ROWS = Rows(torch.arange(22.0)[:, None], torch.arange(22))


def seen(loader: Loader) -> list[list[int]]:
    return [y.tolist() for chunk in loader for _, y in chunk]


def test_chunks_change_how_many_batches_come_at_once_and_not_which() -> None:
    one, four = (Loader(ROWS, 3, shuffle=True, seed=5, chunk=chunk) for chunk in (1, 4))
    assert [len(chunk) for chunk in four] == [4, 4]
    assert len(one) == 8
    assert len(four) == 2
    assert seen(one) == seen(four)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    loader, again = Loader(ROWS, 3, shuffle=True, seed=5), Loader(ROWS, 3, shuffle=True, seed=5)
    first = seen(loader)
    loader.go_to(1)
    again.go_to(1)
    torch.manual_seed(99)
    assert seen(loader) == seen(again) != first
    again.go_to(0)
    assert seen(again) == first
    assert seen(Loader(ROWS, 3, shuffle=True, seed=6)) != first
    assert [row for batch in seen(Loader(ROWS, 3)) for row in batch] == list(range(22))


def test_an_epoch_can_begin_in_its_middle_once() -> None:
    whole, part = (Loader(ROWS, 3, shuffle=True, chunk=2) for _ in range(2))
    part.go_to(0, 6)
    assert seen(part) == seen(whole)[6:]
    assert seen(part) == seen(whole)


def test_processes_share_every_batch_evenly() -> None:
    whole = Loader(ROWS, 8, shuffle=True, seed=1)
    ranks = [Loader(ROWS, 4, shuffle=True, seed=1, rank=rank, world_size=2) for rank in range(2)]
    parts = [seen(loader) for loader in ranks]
    assert [len(batch) for batch in parts[0]] == [len(batch) for batch in parts[1]] == [4, 4, 3]
    together = [sorted(a + b) for a, b in zip(*parts, strict=True)]
    assert together == [sorted(batch) for batch in seen(whole)]


def test_a_last_batch_too_small_for_all_processes_is_filled_up() -> None:
    rows = Rows(torch.zeros(9, 1), torch.arange(9))
    parts = [seen(Loader(rows, 2, rank=rank, world_size=2)) for rank in range(2)]
    assert parts == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [0]]]


def test_augmentation_touches_the_inputs_of_each_batch_alone() -> None:
    chunk = Chunk(ROWS, [torch.tensor([3, 4]), torch.tensor([5])], augment=lambda x: -x)
    assert [(x[:, 0].tolist(), y.tolist()) for x, y in chunk] == [([-3.0, -4.0], [3, 4]), ([-5.0], [5])]
