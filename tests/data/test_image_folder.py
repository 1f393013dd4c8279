"""Folders of images of one's own."""

from __future__ import annotations

import json
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.encoders import restored
from pipeline.data.images import decoding
from pipeline.data.images.decoding import Resizing, read_image
from pipeline.data.images.encoders import ResizingImageEncoder
from pipeline.data.images.folder import ImageFolder
from pipeline.data.images.preparing import Order, in_memory
from pipeline.errors import UserError


def folder(root: Path, per_class: int = 20) -> Path:
    """Reddish cats and bluish dogs, of many sizes, modes and formats."""
    random = np.random.default_rng(0)
    for name, colour in (("cat", (200, 40, 30)), ("dog", (20, 60, 220))):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            size = tuple(int(side) for side in random.integers(9, 60, 2))
            image = Image.new("RGB", size, tuple(int(c + random.integers(-15, 15)) for c in colour))
            mode, suffix = [("RGB", "png"), ("RGB", "jpg"), ("P", "gif"), ("RGBA", "png"), ("CMYK", "jpg")][
                number % 5
            ]
            image.convert(mode).save(root / name / f"{number}.{suffix}")
    return root


def load(path: Path, data_dir: Path, **settings: Any) -> ImageFolder:
    data = ImageFolder(
        path=path, data_dir=data_dir, **{"image_size": [8, 12], "validation_fraction": 0.15, **settings}
    )
    data.prepare_data()
    data.setup()
    return data


def test_every_image_of_any_size_and_mode_becomes_one_of_the_size_asked_for(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    (root / "cat" / "notes.txt").write_text("no image")
    data = load(root, tmp_path)
    assert (data.spec.task, data.spec.classes, data.spec.input_shape) == (
        "binary",
        ("cat", "dog"),
        (3, 8, 12),
    )
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    assert [len(split) for split in splits] == [29, 5, 6]
    for split in splits:
        x, y = split.take(torch.arange(len(split)))
        assert x.dtype == torch.uint8
        # Cats are red, dogs blue.
        assert torch.equal(x[:, 0].float().mean((1, 2)) < x[:, 2].float().mean((1, 2)), y.bool())
    train = data.train.take(torch.arange(29))[0].numpy().astype(float)
    np.testing.assert_allclose(data.spec.pixel_mean, train.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.spec.pixel_std, train.std((0, 2, 3)), rtol=1e-6)


def test_grey_sixteen_bit_transparent_and_turned_images(tmp_path: Path) -> None:
    deep = np.full((4, 4), 32_768, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", [1, 4, 4])[0, 0, 0] in (127, 128)
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png", [3, 4, 4]).min() == 255
    left = Image.new("L", (4, 2), 0)
    left.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    left.save(tmp_path / "turned.png", exif=exif)
    # Orientation 6: the stored image is to be turned by 90° clockwise.
    np.testing.assert_array_equal(
        read_image(tmp_path / "turned.png", [1, 4, 2])[0], np.rot90(np.asarray(left), k=-1)
    )


def test_the_second_start_decodes_nothing_and_a_changed_image_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "pets")
    first = load(root, tmp_path)
    calls: list[Path] = []

    def counted(path: Path, *arguments: Any, **settings: Any) -> Any:
        calls.append(path)
        return read_image(path, *arguments, **settings)

    monkeypatch.setattr(decoding, "read_image", counted)
    again = load(root, tmp_path)
    assert not calls and again.digest == first.digest
    Image.new("RGB", (20, 20), "green").save(root / "cat" / "0.png")
    assert load(root, tmp_path).digest != first.digest
    assert len(calls) == 40


def test_unreadable_images_are_named_and_skipped_up_to_a_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder(tmp_path / "pets")
    (root / "cat" / "0.png").write_bytes(b"not an image")
    half = (root / "dog" / "1.jpg").read_bytes()
    (root / "dog" / "1.jpg").write_bytes(half[: len(half) // 2])
    with caplog.at_level(logging.WARNING):
        data = load(root, tmp_path)
    assert len(data.train) + len(data.validation or ()) + len(data.test or ()) == 38
    for _ in range(2):  # decoded, then from the cache
        assert "cat/0.png" in caplog.text and "dog/1.jpg" in caplog.text
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load(root, tmp_path)
    with pytest.raises(UserError, match=r"2 of 40 images cannot be read.*max_unreadable=0.02"):
        load(root, tmp_path, max_unreadable=0.02)


def png_of(width: int, height: int) -> bytes:
    """A PNG of some bytes that claims to be of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for side, words in ((9_000, "9000×9000 pixels"), (60_000, "decompression bomb")):
        (tmp_path / "bomb.png").write_bytes(png_of(side, side))
        with pytest.raises(Exception, match=words):
            read_image(tmp_path / "bomb.png", [3, 8, 8])
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    (tmp_path / "script.png").write_bytes(script)
    with pytest.raises(OSError, match="cannot identify"):
        read_image(tmp_path / "script.png", [3, 8, 8])


def test_links_that_leave_the_directory_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    inside = root / "cat" / "again.png"
    inside.symlink_to(root / "cat" / "0.png")
    load(root, tmp_path)
    for place in (root / "cat" / "link.png", root / "dog" / "link", root / "third"):
        place.symlink_to(tmp_path if place.suffix == "" else secret)
        with pytest.raises(UserError, match="is a link out of"):
            load(root, tmp_path)
        place.unlink()


def test_a_test_directory_of_its_own_and_folds(tmp_path: Path) -> None:
    root, test = folder(tmp_path / "pets"), folder(tmp_path / "test", per_class=3)
    data = load(root, tmp_path, test_path=test)
    assert (len(data.train) + len(data.validation or ()), len(data.test or ())) == (40, 6)
    held = [load(root, tmp_path, folds=4, fold=k, test_fraction=0.0).validation for k in range(4)]
    assert [len(split or ()) for split in held] == [10] * 4
    assert all(split is not None and split.y.sum() == 5 for split in held)
    (test / "bird").mkdir()
    assert len(load(root, tmp_path, test_path=test).test or ()) == 6
    Image.new("RGB", (9, 9)).save(test / "bird" / "0.png")
    with pytest.raises(UserError, match="bird"):
        load(root, tmp_path, test_path=test)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": None}, "data.path=DIRECTORY"),
        ({"path": "nowhere"}, "no such directory"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": [8, 8, 8]}, "image_size"),
        ({"channels": 2}, "channels"),
    ],
)
def test_bad_settings_give_one_clear_message(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(**{"path": tmp_path, "data_dir": tmp_path, **settings})


def test_directories_without_classes_or_images(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(UserError, match="two at least"):
        load(tmp_path, tmp_path / "data")
    (tmp_path / "two").mkdir()
    with pytest.raises(UserError, match="no images"):
        load(tmp_path, tmp_path / "data")
    Image.new("RGB", (9, 9)).save(tmp_path / "two" / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "two" / "b.png")
    with pytest.raises(UserError, match="all of one class"):
        load(tmp_path, tmp_path / "data")


def test_the_encoder_takes_images_of_any_size(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "pets"), tmp_path)
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    assert isinstance(encoder, ResizingImageEncoder)
    image = Image.open(tmp_path / "pets" / "cat" / "0.png")
    expected = torch.tensor(read_image(tmp_path / "pets" / "cat" / "0.png", [3, 8, 12]))
    pixels = np.asarray(image)
    for raw in ([image], [pixels], pixels[None], [pixels.transpose(2, 0, 1)], [pixels.tolist()]):
        assert torch.equal(encoder.encode(raw)[0], expected)
    assert encoder.encode([pixels, np.zeros((5, 5)), np.zeros((7, 9, 4))]).shape == (3, 3, 8, 12)
    assert torch.equal(encoder.encode(expected[None].numpy())[0], expected)
    assert encoder.encode(encoder.example()).shape == (2, 3, 8, 12)
    for raw in ([np.zeros((5, 5, 7))], [np.full((5, 5), 300)], ["text"], [np.zeros((0, 5))], [None]):
        with pytest.raises(UserError, match="expected images"):
            encoder.encode(raw)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"]),
    places=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    cut=st.floats(0, 1),
)
def test_damaged_images_are_read_or_skipped(
    tmp_path: Path, suffix: str, places: list[tuple[int, int]], cut: float
) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / f"whole.{suffix}"
    Image.fromarray(random.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    (tmp_path / f"damaged.{suffix}").write_bytes(content[: int(len(content) * cut)])
    order = Order(tmp_path, [tmp_path / f"damaged.{suffix}"], [3, 8, 8], Resizing(), max_unreadable=1.0)
    images, unreadable = in_memory(order)
    # What cannot be read is black, as nothing of the noise is.
    assert bool(images.any()) != bool(unreadable)
