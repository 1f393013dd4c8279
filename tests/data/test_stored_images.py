"""Folders of images that are not taken into memory: decoded once in blocks, or anew in every epoch."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.images import ahead, decoding, preparing, stored
from pipeline.data.images.decoding import read_image, read_images
from pipeline.data.images.folder import ImageFolder
from pipeline.data.images.stored import StoredRows
from pipeline.errors import UserError

COUNT, SIDE = 60, 8
DAMAGED = b"no image"
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

ASKED_TO_END = """
import signal, sys, time
from pipeline.data.images.ahead import results

def slow(number):
    time.sleep(0.05)
    return number

came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(143))
for number in results(slow, 40, 2, 2):
    if number == 4:
        print("decoding", flush=True)
print(number, *came)
"""

LEFT_IN_THE_MIDDLE = """
from pipeline.data.images.ahead import results

def double(number):
    return 2 * number

held = results(double, 400, 2, 2)
print(next(held), next(held))
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
        if file.read_bytes() != DAMAGED
    }


def noted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    decoded: list[Path] = []

    def read(files: Any, *rest: Any, **settings: Any) -> Any:
        decoded.extend(files)
        return read_images(files, *rest, **settings)

    monkeypatch.setattr(preparing, "read_images", read)
    return decoded


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
    decoded = noted(monkeypatch)
    with caplog.at_level(logging.INFO):
        data = load(pictures, workers=0)
    # Three of six blocks had their mark.
    assert len(decoded) == 30 and "30 of them are there already" in caplog.text
    assert contents(data) == expected(pictures)
    decoded.clear()
    assert contents(load(pictures, workers=0)) == expected(pictures) and not decoded


@pytest.mark.parametrize("name", ["images", "sums"])
def test_a_damaged_block_is_decoded_again_and_no_other(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    before = load(pictures, workers=0)
    (array,) = pictures.parent.glob(f"data/cache/pictures-*/{name}.npy")
    status, content = array.stat(), bytearray(array.read_bytes())
    content[-1] ^= 255
    array.write_bytes(content)
    if name == "sums":
        os.utime(array, ns=(status.st_atime_ns, status.st_mtime_ns))
    decoded = noted(monkeypatch)
    after = load(pictures, workers=0)
    assert contents(after) == expected(pictures) and after.spec == before.spec
    assert len(decoded) == 10 and "damaged (1 blocks)" in caplog.text


def test_a_copied_cache_is_looked_through_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(pictures, workers=0)
    (array,) = pictures.parent.glob("data/cache/pictures-*/images.npy")
    os.utime(array)
    monkeypatch.setattr(preparing, "_LOOKED_AT", 2)
    checksum, looked = preparing._checksum, []
    monkeypatch.setattr(
        preparing, "_checksum", lambda *about: (looked.append(about[-1]), checksum(*about))[1]
    )
    load(pictures, workers=0)
    assert looked == [0, 1, 2, 3, 4, 5]
    load(pictures, workers=0)
    assert looked[6:] == [0, 3]


def test_a_cache_that_is_removed_while_it_is_looked_at_is_made_again(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(pictures, workers=0)
    marks = preparing._marks

    def removed(order: preparing.Order, entry: Path) -> dict[int, Any]:
        found = marks(order, entry)
        shutil.rmtree(entry)
        return found

    monkeypatch.setattr(preparing, "_marks", removed)
    assert contents(load(pictures, workers=0)) == expected(pictures)
    assert list(pictures.parent.glob("data/cache/pictures-*/manifest.json"))


def test_the_marks_are_whole_at_every_moment(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(pictures, workers=0)
    (marks,) = pictures.parent.glob("data/cache/pictures-*/done.jsonl")
    lines = marks.read_text().splitlines()
    marks.write_text("\n".join(lines[:5]) + "\n")

    def ended(path: Path, text: str) -> None:
        assert text.splitlines() == marks.read_text().splitlines() == lines[:5]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparing, "write_text", ended)
        load(pictures, workers=0)
    decoded = noted(monkeypatch)
    assert contents(load(pictures, workers=0)) == expected(pictures) and len(decoded) == 10


@pytest.mark.parametrize("kept", [50.0, 0.0])
def test_a_stricter_limit_refuses_but_takes_nothing_away(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: float
) -> None:
    (pictures / "even" / "04.png").write_bytes(DAMAGED)
    strict = {"prepared_gb": kept, "workers": 0, "max_unreadable": 0.01}
    with pytest.raises(UserError, match=r"1 of 60 images cannot be read: even/04.png"):
        load(pictures, **strict)
    assert not list(pictures.parent.glob("data/cache/pictures-*/"))
    data = load(pictures, prepared_gb=kept, workers=0)
    assert "even/04.png" in caplog.text and contents(data) == expected(pictures)
    pixels = data.train.take(torch.arange(len(data.train)))[0].numpy().astype(float)
    np.testing.assert_allclose(data.spec.pixel_mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    with pytest.raises(UserError, match=r"cannot be read: even/04.png"):
        load(pictures, **strict)
    decoded = noted(monkeypatch)
    assert contents(load(pictures, prepared_gb=kept, workers=0)) == expected(pictures) and not decoded


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_damaged_later_ends_the_training(pictures: Path, workers: int) -> None:
    data = load(pictures, prepared_gb=0, workers=workers, batch_size=7)
    for file in (pictures / "even").iterdir():
        file.write_bytes(DAMAGED)
    with pytest.raises(UserError, match=r"even/\d\d.png cannot be read .*as it could be when"):
        [pair for chunk in data.training_loader(1) for pair in chunk]


def test_the_digest_is_one_of_the_content_wherever_it_lies_and_however_it_is_kept(
    pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "other" / "copy", copy_function=shutil.copyfile)
    streamed = load(pictures, prepared_gb=0, workers=0)
    assert load(tmp_path / "other" / "copy", prepared_gb=0, workers=0).digest == streamed.digest
    assert load(pictures, workers=0).digest == streamed.digest


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
@pytest.mark.parametrize("kept", [50.0, 0.0])
def test_what_cannot_be_read_for_the_moment_is_not_kept_as_unreadable(
    pictures: Path, error: Exception, kept: float
) -> None:
    def read(path: Path, *rest: Any) -> np.ndarray:
        if path.name == "33.png":
            raise error
        return read_image(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "read_image", read)
        with pytest.raises(UserError, match=r"33.png cannot be read at the moment \((Too|there)"):
            load(pictures, prepared_gb=kept, workers=0)
    assert contents(load(pictures, prepared_gb=kept, workers=0)) == expected(pictures)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["os.posix_fallocate", "pipeline.data.images.preparing._Blocks.make"])
def test_a_disk_that_fills_up_keeps_nothing_and_ends_nothing(
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    workers: int,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, full)
    monkeypatch.setattr("pipeline.data.images.folder.IN_MEMORY", 0)
    data = load(pictures, workers=workers)
    assert "(No space left on device): they are decoded in every epoch" in caplog.text
    assert "Traceback" not in caplog.text and contents(data) == expected(pictures)
    assert not list(pictures.parent.glob("data/cache/pictures-*/images.npy"))


def test_what_is_ahead_has_a_size_of_its_own(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(pictures, prepared_gb=0, workers=2)
    monkeypatch.setattr(stored, "_AHEAD_BYTES", 3 * SIDE * SIDE * 50)
    made = []

    def results(make: Any, count: int, workers: int, each: int) -> Iterator[np.ndarray]:
        for piece in ahead.results(make, count, 0, each):
            made.append(piece.nbytes * workers * each)
            yield piece

    monkeypatch.setattr(stored, "results", results)
    rows = list(torch.randperm(len(data.train)).split(20))
    for some, (x, y) in zip(rows, data.train.stream(rows), strict=True):
        expected_x, expected_y = data.train.take(some)
        assert torch.equal(x, expected_x) and torch.equal(y, expected_y)
    assert max(made) == 3 * SIDE * SIDE * 48


def test_processes_that_share_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "PIPELINE_SHARE_OF_CORES"):
        monkeypatch.delenv(name, raising=False)
    alone = len(os.sched_getaffinity(0))
    assert ahead.cores() == ahead.cores_each() == alone
    monkeypatch.setenv("PIPELINE_SHARE_OF_CORES", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "12")
    assert ahead.cores() == ahead.cores_each() == 12
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert (ahead.cores(), ahead.cores_each()) == (12, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert ahead.cores_each() == 4


def test_a_signal_to_all_processes_leaves_the_decoding_ones_to_their_parent() -> None:
    command = [sys.executable, "-c", ASKED_TO_END]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "decoding\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert (process.stdout.read(), process.wait(60)) == ("39 143\n", 0)


def test_what_is_left_in_the_middle_ends_with_its_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_IN_THE_MIDDLE], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 2\n", "")


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
    assert not list(pictures.parent.glob("data/cache/pictures-*/images.npy"))


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
