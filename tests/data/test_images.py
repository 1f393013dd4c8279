"""Image data: where it comes from, how it is split, what is fitted on what."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.data.core.splits import Rows
from pipeline.data.images.published import Images
from pipeline.errors import UserError


def digits(**options: Any) -> Images:
    data = Images(name="digits", **options)
    data.prepare_data()
    data.setup()
    return data


def pixels(split: Rows | None) -> torch.Tensor:
    assert split is not None
    assert isinstance(split.x, torch.Tensor)
    return split.x


def keys(split: Rows | None) -> set[bytes]:
    """The samples of a split; the digits are almost all different."""
    return {image.numpy().tobytes() for image in pixels(split)}


def test_digits_are_scikit_learns_scaled_to_bytes() -> None:
    data = digits()
    images = torch.cat([pixels(data.train), pixels(data.validation), pixels(data.test)])
    assert images.dtype == torch.uint8
    assert images.shape == (1797, 1, 8, 8)
    bunch = load_digits()
    assert int(images.sum()) == int(np.rint(bunch.images * (255 / 16)).sum())
    labels = torch.cat([data.train.y, data.validation.y, data.test.y])  # type: ignore[union-attr]
    assert torch.bincount(labels).tolist() == np.bincount(bunch.target).tolist()


def test_the_validation_split_follows_from_data_seed_and_keeps_the_classes_shares() -> None:
    data, same, other = digits(seed=3), digits(seed=3), digits(seed=4)
    assert torch.equal(pixels(data.validation), pixels(same.validation))
    assert data.digest == same.digest != other.digest
    assert not torch.equal(pixels(data.validation), pixels(other.validation))
    # The test split is nobody's to choose.
    assert torch.equal(pixels(data.test), pixels(other.test))
    assert data.validation is not None
    assert len(data.validation) == round(0.1 * 1437)
    pool = torch.cat([data.train.y, data.validation.y])
    expected = torch.bincount(pool) / 10
    assert float((torch.bincount(data.validation.y) - expected).abs().max()) <= 1


def test_no_sample_is_in_two_splits() -> None:
    data = digits()
    train, validation, test = keys(data.train), keys(data.validation), keys(data.test)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_folds_are_a_partition_each_with_its_share_of_every_class() -> None:
    folds = [digits(folds=5, fold=fold) for fold in range(5)]
    held_out = [keys(data.validation) for data in folds]
    assert sum(map(len, held_out)) == len(set().union(*held_out)) == 1437
    for data in folds:
        assert data.validation is not None
        counts = torch.bincount(data.validation.y).float()
        assert (
            float((counts - torch.bincount(torch.cat([data.train.y, data.validation.y])) / 5).abs().max())
            <= 1
        )
    with pytest.raises(UserError, match=r"data\.folds"):
        digits(folds=2000)


def test_statistics_are_those_of_the_training_samples() -> None:
    data = digits()
    train = pixels(data.train).double()
    assert data.spec.pixel_mean == pytest.approx((float(train.mean()),))
    assert data.spec.pixel_std == pytest.approx((float(train.std(correction=0)),))


def test_nothing_held_out_trains_on_everything() -> None:
    assert digits(validation_fraction=0).validation is None
    assert len(digits(validation_fraction=0).train) == 1437
    last = digits(train_on_all=True)
    assert len(last.train) == 1437
    assert last.validation is not None


def test_random_labels_are_a_permutation_of_the_training_labels() -> None:
    data, true = digits(labels="random"), digits()
    shuffled = torch.cat([data.train.y, data.validation.y])  # type: ignore[union-attr]
    honest = torch.cat([true.train.y, true.validation.y])  # type: ignore[union-attr]
    assert torch.bincount(shuffled).tolist() == torch.bincount(honest).tolist()
    assert data.test is not None
    assert true.test is not None
    assert torch.equal(data.test.y, true.test.y)
    with pytest.raises(UserError, match="true or random"):
        Images(labels="wrong")


@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_extra_channels_leave_the_picture_as_it_is(kind: Any) -> None:
    data, plain = digits(extra_channels=kind, validation_fraction=0), digits(validation_fraction=0)
    assert data.spec.input_shape == (2, 8, 8)
    assert torch.equal(pixels(data.train)[:, :1], pixels(plain.train))
    extra = pixels(data.train)[:, 1].double()
    assert float(extra.mean()) == (0 if kind == "zeros" else pytest.approx(127.5, abs=1))
    assert len(data.spec.pixel_mean) == 2


def test_class_weights_are_inverse_frequencies_and_oversampling_evens_them_out() -> None:
    weighted = digits(balance="class_weights")
    counts = torch.bincount(weighted.train.y).double()
    assert weighted.spec.class_weights == pytest.approx((counts.sum() / (10 * counts)).tolist())
    over = digits(balance="oversample")
    assert len(set(torch.bincount(over.train.y).tolist())) == 1
    assert keys(over.train) == keys(digits().train)
    assert torch.equal(pixels(over.validation), pixels(digits().validation))


def test_mnist_that_is_nowhere_falls_back_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Images(name="mnist", fallback="digits", data_dir=tmp_path)
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
    data.setup()
    assert (data.requested, data.used) == ("mnist", "digits")
    assert "stand-in" in caplog.text
    strict = Images(name="mnist", fallback=None, data_dir=tmp_path)
    with pytest.raises(UserError) as error:
        strict.prepare_data()
    for way in ("PIPELINE_DATA_PATH", str(tmp_path), "with a network"):
        assert way in str(error.value)


@pytest.mark.real_data
def test_mnist_is_read_as_torchvision_reads_it_and_cached(tmp_path: Path) -> None:
    first = Images(name="mnist", data_dir=tmp_path, seed=0)
    first.prepare_data()
    first.setup()
    assert first.used == "mnist"
    assert first.train.samples + len(first.validation or ()) == 60_000
    assert len(first.test or ()) == 10_000
    # Published figures of the 60,000 training images: mean 0.1307, deviation 0.3081 of the range 0–1.
    assert first.spec.pixel_mean[0] / 255 == pytest.approx(0.1307, abs=5e-4)
    assert first.spec.pixel_std[0] / 255 == pytest.approx(0.3081, abs=5e-4)
    again = Images(name="mnist", data_dir=tmp_path, seed=0)
    again.setup()
    assert again.digest == first.digest
    assert (tmp_path / "cache/mnist-1/manifest.json").is_file()


@pytest.mark.parametrize(
    ("data", "there"),
    [
        ("mnist", "digits"),
        ("imdb", "generated_reviews"),
        ("kafka", "python_topics"),
        ("boston_housing", "diabetes"),
    ],
)
def test_a_stand_in_that_there_is_not_is_refused_before_anything_is_read(data: str, there: str) -> None:
    from pipeline.config import build, compose
    from pipeline.errors import UserError
    from pipeline.runs.plan import plain

    with pytest.raises(UserError, match=rf"data\.fallback=banana.*expected {there} or null"):
        build(plain(compose([f"data={data}", "data.fallback=banana"]).data), key="data")
