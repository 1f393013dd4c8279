"""Images that are nearly the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.data.images.folder import ImageFolder
from pipeline.exploring import explore as task
from pipeline.exploring.report import write_report


def scene(number: int) -> Image.Image:
    """A picture like no other: a few large blots."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)


def saved_again(image: Image.Image, how: str) -> Image.Image:
    if how == "compressed":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=30)
        return Image.open(buffer)
    if how == "brighter":
        return ImageEnhance.Brightness(image).enhance(0.8)
    return image.resize((31, 31))


@pytest.mark.parametrize("part", ["val", "test"])
def test_pictures_that_were_saved_again_are_found_and_others_are_not(tmp_path: Path, part: str) -> None:
    for number in range(60):
        place = tmp_path / "train" / ("a", "b")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        scene(number).save(place / f"{number}.png")
    planted = {0: "compressed", 7: "brighter", 12: "smaller"}
    for number in range(20):
        place = tmp_path / part / ("a", "b")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        again = saved_again(scene(number), planted[number]) if number in planted else scene(100 + number)
        again.save(place / f"{number}.png")
    # One is the same to the last pixel: it is counted as such, and not once more.
    scene(3).save(tmp_path / part / "b" / "3.png")
    whole = {"test_fraction": 0.0, "validation_fraction": 0.0}
    data = ImageFolder(path=tmp_path, data_dir=tmp_path / "data", image_size=32, **whole)
    data.setup()
    found = task.explore(data)
    name = "validation" if part == "val" else "test"
    assert found.duplicates == {f"{name} also in train": 1, f"{name} nearly in train": 3}
    assert any(f"3 of 20 {name} images" in warning for warning in found.warnings)
    files = write_report(data, found, tmp_path)
    # Of the test nothing is shown.
    assert any(path.name == "near_duplicates.png" for path in files) == (part == "val")
