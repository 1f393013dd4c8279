"""Random changes of training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.images.augment import augmentation, mirrored, shifted, small
from pipeline.data.images.published import Images
from pipeline.errors import UserError


@pytest.mark.parametrize("level", ["light", "strong", "trivial", "rand", "crop"])
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


def test_each_image_is_cropped_by_its_own_part_of_it() -> None:
    # Where a pixel lies in the image is what its two channels say.
    height, width = 100, 200
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    images = torch.stack([rows, columns])[None].repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    for level, size in (("crop", (100, 200)), ("crop_small", (80, 160))):
        parts = augmentation(level)(images).float()
        assert (tuple(parts.shape[2:]), parts.shape[0]) == (size, 400)
        # From the middle of the first pixel to that of the last one.
        high = (parts[:, 0, -1, 0] - parts[:, 0, 0, 0]) * size[0] / (size[0] - 1) / height
        wide = (parts[:, 1, 0, -1] - parts[:, 1, 0, 0]) * size[1] / (size[1] - 1) / width
        assert ((high > 0) & (wide > 0)).all()  # none is mirrored: these are no colours
        area, shape = high * wide, wide / high
        assert 0.3 < area.min() < 0.45 and area.max() > 0.85 and area.max() <= 1.03
        assert shape.min() > 0.72 and shape.max() < 1.39
        assert parts[:, 0, 0, 0].unique().numel() > 20
        # Straight lines stay what they are.
        middle = (parts[:, 0, 0, 0] + parts[:, 0, -1, 0]) / 2
        assert (parts[:, 0, size[0] // 2, 0] - middle).abs().max() < 2


def test_parts_in_colour_are_mirrored_half_of_the_time() -> None:
    images = torch.arange(64, dtype=torch.uint8).expand(400, 3, 32, 64)
    torch.manual_seed(0)
    parts = augmentation("crop")(images)
    mirrored_ones = parts[:, 0, 0, 0] > parts[:, 0, 0, -1]
    assert 160 < mirrored_ones.sum() < 240


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((128, 160), (96, 128)), ((224, 224), (176, 176)), ((64, 63), (48, 50)), ((1, 2), (1, 2))],
)
def test_small_sides_are_those_that_networks_halve(sides: tuple[int, int], expected: tuple[int, int]) -> None:
    assert small(*sides) == expected


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
    with pytest.raises(UserError, match="expected none, light, strong, trivial, rand, crop or crop_small"):
        augmentation("wild")
    with pytest.raises(UserError, match="is for images"):
        augmentation("light")(torch.zeros(4, 9))
