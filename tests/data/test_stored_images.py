"""Folders of images that are not taken into memory: decoded once in blocks, or anew in every epoch."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.images import preparing, stored
from pipeline.data.images.decoding import read_images
from pipeline.data.images.folder import ImageFolder
from pipeline.data.images.stored import StoredRows

COUNT, SIDE = 60, 8
KILLED = """
import os, signal, sys
from pipeline.data.images import folder, preparing
preparing._BLOCK_BYTES = 10 * 3 * 8 * 8
shown = preparing.shown

def killed(marks, *rest):
    for number, mark in enumerate(shown(marks, *rest)):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield mark

preparing.shown = killed
folder.ImageFolder(path=sys.argv[1], data_dir=sys.argv[2], image_size=8).setup()
"""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty small pictures of noise in two classes, of which none may stay in memory; a block holds ten."""
    monkeypatch.setattr(preparing, "_BLOCK_BYTES", 10 * 3 * SIDE * SIDE)
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    random = np.random.default_rng(0)
    for number in range(COUNT):
        place = tmp_path / "pictures" / ("even", "odd")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{number:02}.png")
    return tmp_path / "pictures"


def load(path: Path, **settings: Any) -> ImageFolder:
    data = ImageFolder(path=path, data_dir=path.parent / "data", image_size=SIDE, **settings)
    data.setup()
    return data


def contents(data: ImageFolder) -> dict[bytes, float]:
    """The class of each image of all splits, by its pixels."""
    found = {}
    for split in (data.train, data.validation, data.test):
        assert split is not None
        x, y = split.take(torch.randperm(len(split)))
        found |= {image.numpy().tobytes(): float(label) for image, label in zip(x, y, strict=True)}
    return found


def expected(path: Path) -> dict[bytes, float]:
    """The same, opened one by one with Pillow."""
    return {
        np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes(): float(file.parent.name == "odd")
        for file in path.rglob("*.png")
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_images_on_disk_are_the_files_images_with_their_exact_statistics(
    pictures: Path, workers: int
) -> None:
    data = load(pictures, workers=workers)
    assert isinstance(data.train, StoredRows) and contents(data) == expected(pictures)
    pixels = data.train.take(torch.arange(len(data.train)))[0].numpy().astype(float)
    np.testing.assert_allclose(data.spec.pixel_mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.spec.pixel_std, pixels.std((0, 2, 3)), rtol=1e-9)


def test_an_epoch_from_disk_has_the_batches_of_one_from_memory(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = load(pictures, batch_size=7)
    monkeypatch.setattr(stored, "IN_MEMORY", 1 << 20)
    in_memory = load(pictures, batch_size=7)
    assert isinstance(in_memory.train.x, torch.Tensor)
    for chunk, other in zip(on_disk.training_loader(1), in_memory.training_loader(1), strict=True):
        for (x, y), (expected_x, expected_y) in zip(chunk, other, strict=True):
            assert torch.equal(x, expected_x) and torch.equal(y, expected_y)


def test_a_killed_preparation_goes_on_where_it_was(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", KILLED, str(pictures), str(pictures.parent / "data")]
    assert subprocess.run(command, timeout=120).returncode == -9
    decoded: list[Path] = []

    def noted(files: Any, *rest: Any, **settings: Any) -> Any:
        decoded.extend(files)
        return read_images(files, *rest, **settings)

    monkeypatch.setattr(preparing, "read_images", noted)
    with caplog.at_level(logging.INFO):
        data = load(pictures, workers=0)
    # Three of six blocks had their mark.
    assert len(decoded) == 30 and "30 of them are there already" in caplog.text
    assert contents(data) == expected(pictures)
    decoded.clear()
    assert contents(load(pictures, workers=0)) == expected(pictures) and not decoded


def test_a_damaged_block_is_decoded_again_and_no_other(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load(pictures, workers=0)
    (array,) = pictures.parent.glob("data/cache/pictures-*/images.npy")
    content = bytearray(array.read_bytes())
    content[-1] ^= 255
    array.write_bytes(content)
    decoded: list[Path] = []

    def noted(files: Any, *rest: Any, **settings: Any) -> Any:
        decoded.extend(files)
        return read_images(files, *rest, **settings)

    monkeypatch.setattr(preparing, "read_images", noted)
    assert contents(load(pictures, workers=0)) == expected(pictures)
    assert len(decoded) == 10 and "damaged (1 blocks)" in caplog.text


def test_a_changed_file_is_noticed(pictures: Path) -> None:
    before = load(pictures)
    Image.new("RGB", (SIDE, SIDE), "red").save(pictures / "even" / "00.png")
    after = load(pictures)
    assert contents(after) == expected(pictures) != contents(before)
    assert after.digest != before.digest


def test_a_set_above_the_limit_is_decoded_ahead_in_every_epoch(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = load(pictures, batch_size=7)
    with caplog.at_level(logging.INFO):
        data = load(pictures, batch_size=7, prepared_gb=0, workers=2)
    assert "more than data.prepared_gb=0" in caplog.text and data.train.streams
    # With so few, the statistics are those of all.
    np.testing.assert_allclose(data.spec.pixel_mean, kept.spec.pixel_mean, rtol=1e-12)
    state = torch.get_rng_state()
    loader, other = data.training_loader(1, chunk=2), kept.training_loader(1, chunk=2)
    for epoch, batch in ((0, 0), (1, 2)):
        # An epoch, and another one from its middle.
        loader.go_to(epoch, batch)
        other.go_to(epoch, batch)
        ahead = [pair for chunk in loader for pair in chunk]
        known = [pair for chunk in other for pair in chunk]
        assert len(ahead) == loader.batches - batch
        for (x, y), (expected_x, expected_y) in zip(ahead, known, strict=True):
            assert torch.equal(x, expected_x) and torch.equal(y, expected_y)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("limit", "kind"), [(1 << 20, torch.Tensor), (0, np.ndarray)])
def test_a_full_disk_is_respected(
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: int,
    kind: type,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4_560))
    monkeypatch.setattr("pipeline.data.images.folder.IN_MEMORY", limit)
    data = load(pictures, workers=0)
    assert "0.0 MB more are needed on its disk" in caplog.text
    assert isinstance(data.train.x, kind) and contents(data) == expected(pictures)
    assert not list(pictures.parent.glob("data/cache/pictures-*"))


def test_what_was_prepared_needs_no_room_and_may_only_be_read(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load(pictures, workers=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    # Whoever tries to lock or write has no right to.
    monkeypatch.setattr(
        "filelock.FileLock.acquire", lambda *_, **__: (_ for _ in ()).throw(PermissionError())
    )
    assert contents(load(pictures, workers=0)) == expected(pictures)
    assert "cannot be kept" not in caplog.text
