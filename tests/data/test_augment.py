"""Random changes of training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.images.augment import augmentation, mirrored, shifted
from pipeline.data.images.published import Images
from pipeline.errors import UserError


@pytest.mark.parametrize("level", ["light", "strong", "trivial", "rand"])
@pytest.mark.parametrize("shape", [(64, 1, 28, 28), (64, 3, 32, 24), (5, 2, 8, 8), (1, 3, 8, 8)])
def test_batches_keep_their_form_and_follow_torch_s_random_state(level: str, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    change = augmentation(level)
    torch.manual_seed(5)
    first = change(images)
    torch.manual_seed(5)
    assert torch.equal(change(images), first)
    assert not torch.equal(change(images), first)
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


def test_strong_changes_more_than_light() -> None:
    images = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 8:20, 12:16] = 200
    torch.manual_seed(0)
    light, strong = (
        (augmentation(level)(images).float() - images.float()).abs().mean() for level in ("light", "strong")
    )
    assert 0 < light < strong


def test_each_image_is_moved_by_its_own_whole_number_of_pixels() -> None:
    images = torch.zeros(300, 2, 10, 20, dtype=torch.uint8)
    images[:, :, 5, 10] = 255
    torch.manual_seed(0)
    moved = shifted(images, 0.2)
    places = moved[:, 0].flatten(1).argmax(1)
    rows, columns = places // 20, places % 20
    assert set(rows.tolist()) == set(range(3, 8)) and set(columns.tolist()) == set(range(6, 15))
    assert torch.equal(moved[:, 0], moved[:, 1]) and (moved.float().sum((1, 2, 3)) == 510).all()


def test_each_image_is_mirrored_or_not() -> None:
    images = torch.arange(200 * 12, dtype=torch.int64).remainder(256).to(torch.uint8).view(200, 1, 3, 4)
    torch.manual_seed(0)
    result = mirrored(images)
    flipped = np.array([torch.equal(a, b.flip(-1)) for a, b in zip(result, images, strict=True)])
    same = np.array([torch.equal(a, b) for a, b in zip(result, images, strict=True)])
    assert (flipped ^ same).all() and 60 < flipped.sum() < 140


def test_validation_and_test_are_never_changed(tmp_path: Path) -> None:
    data = Images(name="digits", augment="strong", data_dir=tmp_path)
    data.setup()
    plain = Images(name="digits", data_dir=tmp_path)
    plain.setup()
    for changed, original, same in (
        (data.val_dataloader(), plain.val_dataloader(), True),
        (data.test_dataloader(), plain.test_dataloader(), True),
        (data.train_dataloader(), plain.train_dataloader(), False),
    ):
        batch, expected = (next(iter(next(iter(loader)))) for loader in (changed, original))
        assert torch.equal(batch[1], expected[1])
        assert torch.equal(batch[0], expected[0]) == same


def test_what_is_no_image_or_no_level_is_refused() -> None:
    with pytest.raises(UserError, match="expected none, light, strong, trivial or rand"):
        augmentation("wild")
    with pytest.raises(UserError, match="is for images"):
        augmentation("light")(torch.zeros(4, 9))
