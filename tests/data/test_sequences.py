"""The small teaching systems: what they hold, and what training on them comes to, computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.core.splits import Streams
from pipeline.data.teaching.systems import Clusters, Echo, Line, Points, Word
from pipeline.errors import UserError


def test_a_line_holds_its_points_unscaled_and_in_order(tmp_path: Path) -> None:
    data = Line(
        points=4, test_inputs=[7], validation_fraction=0.0, shuffle=False, batch_size=1, data_dir=tmp_path
    )
    data.setup()
    batches = [(x.tolist(), y.tolist()) for chunk in data.train_dataloader() for x, y in chunk]
    assert batches == [([[float(x)]], [2.0 * x]) for x in (1, 2, 3, 4)]
    assert data.validation is None
    assert data.test is not None
    assert data.test.y.tolist() == [14.0]
    assert data.encoder.encode([[7]]).tolist() == [[7.0]]


def test_as_many_folds_as_points_leaves_one_out_each_time() -> None:
    held_out = []
    for fold in range(5):
        data = Points([3, 4, 7, 8, 9], [7, 5, 6, 8, 3], folds=5, fold=fold)
        data.setup()
        assert data.validation is not None
        assert len(data.train) == 4
        held_out += data.validation.y.tolist()
    assert sorted(held_out) == [3, 5, 6, 7, 8]


def test_clusters_have_the_means_and_the_covariance_asked_for() -> None:
    data = Clusters(samples=20_000, validation_fraction=0.0)
    data.setup()
    x, y = (part.numpy() for part in data.train.take(torch.arange(len(data.train))))
    for label, mean in ((0, (0, 3)), (1, (3, 0))):
        assert np.allclose(x[y == label].mean(0), mean, atol=0.05)
        assert np.allclose(np.cov(x[y == label].T), [[1, 0.5], [0.5, 1]], atol=0.05)
    assert data.test is not None
    assert not torch.equal(data.test.take(torch.arange(5))[0], data.train.take(torch.arange(5))[0])


def test_clusters_are_those_of_the_seed() -> None:
    digests = []
    for seed in (0, 0, 1):
        data = Clusters(samples=50, seed=seed)
        data.setup()
        digests.append(data.digest)
    assert digests[0] == digests[1] != digests[2]


def test_an_echo_repeats_the_bits_after_its_delay_and_knows_nothing_before() -> None:
    data = Echo(length=1003, delay=3, steps=15, batch_size=5)
    data.setup()
    for split in (data.train, data.validation, data.test):
        assert isinstance(split, Streams)
        assert isinstance(split.x, torch.Tensor)
        bits, echo = split.x[:, :, 0].tolist(), split.y.tolist()
        assert len(bits) == 5
        assert len(bits[0]) == 200
        for row, said in zip(bits, echo, strict=True):
            assert said == [-1, -1, -1, *row[:-3]]
            assert set(row) == {0.0, 1.0}
    assert isinstance(data.test, Streams)
    assert not torch.equal(data.train.y, data.test.y)


def test_the_pieces_of_a_series_continue_each_other() -> None:
    data = Echo(length=1000, batch_size=5, steps=15)
    data.setup()
    pieces = [x for chunk in data.train_dataloader() for x, _ in chunk]
    assert isinstance(data.train, Streams)
    assert torch.equal(torch.cat(pieces, 1), data.train.x)  # type: ignore[arg-type]


def test_help_is_to_become_elp() -> None:
    data = Word()
    data.setup()
    x, y = data.train.take(torch.tensor([0]))
    assert "".join(data.spec.classes[i] for i in x[0]) == "HEL"
    assert "".join(data.spec.classes[i] for i in y[0]) == "ELP"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Points([1, 2], [1]), "data.targets"),
        (lambda: Points([], []), "empty"),
        (lambda: Line(points=0), "data.points"),
        (lambda: Word("H"), "two letters"),
        (lambda: Word(folds=2), "data.folds"),
        (lambda: Echo(folds=2), "data.folds"),
        (lambda: Echo(length=10, batch_size=5), "too short"),
        (lambda: Clusters(means=[[0.0, 0.0]]), "two"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
