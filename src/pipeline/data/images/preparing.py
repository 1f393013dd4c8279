"""A folder of images decoded once: blocks of images in a file of the cache, made by several processes.

An entry is a directory with ``images.npy``, ``sums.npy`` (sum and sum of squares of each image's channels),
``done.jsonl`` (a line for each block that is there, with its checksum) and, once all are, ``manifest.json``. A
preparation that was killed goes on with the blocks that are missing.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.core.waiting import shown
from pipeline.data.images.decoding import Resizing, read_images
from pipeline.errors import UserError
from pipeline.files import write_json

log = logging.getLogger(__name__)

_BLOCK_BYTES = 4 << 20
_RESERVE = 1_000_000_000
"""Bytes of the disk that stay free, or twice what the images take where that is less."""
_LOOKED_AT = 16
"""Blocks whose checksum is looked at where nothing was written to the file since it was made."""


@dataclass(frozen=True)
class Order:
    """What is to be prepared.

    Args:
        root: Directory that the files lie in, by which they are named.
        files: Path of each image.
        shape: Channels, height and width that they become.
        how: How they are resized.
        max_unreadable: Share of the images that may be unreadable.
        workers: Number of processes; None for one a core, 0 for none beside this one.
    """

    root: Path
    files: Sequence[Path]
    shape: Sequence[int]
    how: Resizing
    max_unreadable: float
    workers: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded images."""
        return len(self.files) * int(np.prod(self.shape))

    @property
    def block(self) -> int:
        """Images in a block."""
        return max(1, min(1024, _BLOCK_BYTES // int(np.prod(self.shape))))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.files) // self.block)

    def span(self, number: int) -> slice:
        """The images of a block."""
        return slice(number * self.block, min((number + 1) * self.block, len(self.files)))

    def named(self, place: int) -> str:
        """A file as a message names it."""
        path = self.files[place]
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


@dataclass(frozen=True)
class Prepared:
    """Decoded images.

    Args:
        images: Path of the array: ``uint8`` (images, channels, height, width); one that cannot be read is black.
        sums: Sum and sum of squares of each image's channels, (images, channels, 2).
        unreadable: Place of each image that cannot be read, and why.
    """

    images: Path
    sums: np.ndarray
    unreadable: dict[int, str]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for(order: Order, entry: Path) -> int:
    """Bytes that are missing on the disk for an entry; 0 where there is room, or all of it is there."""
    if (entry / "manifest.json").is_file():
        return 0
    taken = sum(path.stat().st_blocks * 512 for path in entry.glob("*.npy")) if entry.is_dir() else 0
    there = next(path for path in (entry, *entry.parents) if path.exists())
    reserve = min(_RESERVE, 2 * order.nbytes)
    return max(0, order.nbytes - taken + reserve - shutil.disk_usage(there).free)


def prepare(order: Order, entry: Path) -> Prepared:
    """The decoded images of an entry of the cache: made, completed, or as they are there.

    Args:
        order: What is to be prepared.
        entry: Directory of the entry; its name changes with the files' content and all that shapes the images.

    Raises:
        UserError: More images than allowed cannot be read; nothing is kept then.
        OSError: The cache cannot be written to.
    """
    from filelock import FileLock, Timeout

    if (entry / "manifest.json").is_file() and len(done := _there(order, entry)) == order.blocks:
        # Whole, as it nearly always is: a cache that may only be read will do.
        return _found(order, entry, done)
    entry.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(entry) + ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process, which prepares %s", entry)
        lock.acquire()
    try:
        return _finished(order, entry)
    finally:
        lock.release()


def _finished(order: Order, entry: Path) -> Prepared:
    done = _there(order, entry)
    if missing := [number for number in range(order.blocks) if number not in done]:
        _complete(order, entry, done, missing)
    return _found(order, entry, done)


def _found(order: Order, entry: Path, done: dict[int, Any]) -> Prepared:
    unreadable = {int(place): reason for mark in done.values() for place, reason in mark["unreadable"]}
    if _too_many(order, done):
        # Above the limit nothing is worth keeping.
        shutil.rmtree(entry, ignore_errors=True)
    name_unreadable(order, unreadable)
    return Prepared(entry / "images.npy", np.load(entry / "sums.npy", allow_pickle=False), unreadable)


def _complete(order: Order, entry: Path, done: dict[int, Any], missing: Sequence[int]) -> None:
    """Make the blocks that are missing; ``done`` gets their marks."""
    (entry / "manifest.json").unlink(missing_ok=True)
    _make_room(order, entry)
    text = "".join(json.dumps(done[number]) + "\n" for number in sorted(done))
    (entry / "done.jsonl").write_text(text, encoding="utf-8")
    what = f"decoding {len(order.files):,} images to {'×'.join(map(str, order.shape))}"
    if done:
        spans = [order.span(number) for number in done]
        what += f"; {sum(span.stop - span.start for span in spans):,} of them are there already"
    began = time.monotonic()
    with (entry / "done.jsonl").open("a", encoding="utf-8") as marks:
        for mark in shown(_decoded(order, entry, missing), len(missing), what):
            done[mark["block"]] = mark
            marks.write(json.dumps(mark) + "\n")
            marks.flush()
            if _too_many(order, done):
                return
    status = (entry / "images.npy").stat()
    write_json(entry / "manifest.json", {"size": status.st_size, "written": status.st_mtime_ns})
    log.info("decoded in %.1f s, kept in %s", time.monotonic() - began, entry)


def _too_many(order: Order, done: dict[int, Any]) -> bool:
    """Whether more images than allowed cannot be read."""
    return sum(len(mark["unreadable"]) for mark in done.values()) > order.max_unreadable * len(order.files)


def name_unreadable(order: Order, unreadable: dict[int, str]) -> None:
    """Name images that cannot be read.

    Raises:
        UserError: There are more than allowed.
    """
    if not unreadable:
        return
    first = sorted(unreadable)[:10]
    named = "; ".join(f"{order.named(place)} ({unreadable[place]})" for place in first)
    more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
    text = f"{order.root}: {len(unreadable)} of {len(order.files)} images cannot be read: {named}{more}"
    if len(unreadable) > order.max_unreadable * len(order.files):
        raise UserError(f"{text}. That is more than data.max_unreadable={order.max_unreadable:g} of them")
    log.warning("%s. They are skipped", text)


def in_memory(order: Order) -> tuple[np.ndarray, dict[int, str]]:
    """The images and, by place, why some cannot be read, where nothing can be kept on disk.

    Raises:
        UserError: More images than allowed cannot be read.
    """
    images, reasons = read_images(order.files, order.shape, how=order.how)
    unreadable = {place: reason for place, reason in enumerate(reasons) if reason}
    name_unreadable(order, unreadable)
    return images, unreadable


def _there(order: Order, entry: Path) -> dict[int, Any]:
    """The marks of the blocks that are there and whole."""
    if not (entry / "images.npy").is_file():
        return {}
    try:
        offset = _offset(entry / "images.npy", (len(order.files), *order.shape), np.uint8)
        _offset(entry / "sums.npy", (len(order.files), order.shape[0], 2), np.int64)
        manifest = entry / "manifest.json"
        known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else None
    except (OSError, ValueError, EOFError) as error:
        log.warning("the cache entry %s is damaged (%s): building it again", entry, error)
        return {}
    marks, status = _marks(order, entry), (entry / "images.npy").stat()

    def damaged(numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if _checksum(order, entry, offset, n) != marks[n]["crc"]]

    numbers = sorted(marks)
    whole = len(marks) == order.blocks and known == {"size": status.st_size, "written": status.st_mtime_ns}
    # Where nothing was written to it since, some are looked at all the same: all may be a hundred gigabytes.
    if whole and not damaged(numbers[:: max(1, len(numbers) // _LOOKED_AT)]):
        return marks
    if wrong := damaged(numbers):
        log.warning("the cache entry %s is damaged (%d blocks): building them again", entry, len(wrong))
    return {number: mark for number, mark in marks.items() if number not in set(wrong)}


def _marks(order: Order, entry: Path) -> dict[int, Any]:
    marks: dict[int, Any] = {}
    if (entry / "done.jsonl").is_file():
        for line in (entry / "done.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                mark = json.loads(line)
                number, _, _ = int(mark["block"]), int(mark["crc"]), dict(mark["unreadable"])
            except (ValueError, KeyError, TypeError):
                # The last line of a process that was killed.
                continue
            if 0 <= number < order.blocks:
                marks[number] = mark
    return marks


def _offset(path: Path, shape: tuple[int, ...], kind: Any) -> int:
    """Where the numbers of an array begin in its file.

    Raises:
        ValueError: It is another array than that.
    """
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.shape != shape or found.dtype != kind:
        raise ValueError(f"{path.name} holds {found.dtype} of the shape {found.shape}")
    return int(found.offset)


def _make_room(order: Order, entry: Path) -> None:
    """The arrays, of their whole size, where they are not there."""
    entry.mkdir(exist_ok=True)
    wanted: list[tuple[str, tuple[int, ...], Any]] = [
        ("images", (len(order.files), *order.shape), np.uint8),
        ("sums", (len(order.files), order.shape[0], 2), np.int64),
    ]
    for name, shape, kind in wanted:
        try:
            _offset(entry / f"{name}.npy", shape, kind)
        except (OSError, ValueError, EOFError):
            np.lib.format.open_memmap(entry / f"{name}.npy", mode="w+", dtype=kind, shape=shape)


def _decoded(order: Order, entry: Path, blocks: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Decode blocks, each written to its place; gives the mark of each, in the order in which they end."""
    work = _Blocks(order, entry, blocks)
    workers = cores() if order.workers is None else order.workers
    if not workers or len(blocks) < 2:
        yield from (work.make(number, threads=None) for number in blocks)
        return
    loader: Any = torch.utils.data.DataLoader(
        work,
        batch_size=None,
        num_workers=min(workers, len(blocks)),
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )
    yield from loader


class _Blocks(torch.utils.data.Dataset[dict[str, Any]]):
    """Blocks as things that processes make."""

    def __init__(self, order: Order, entry: Path, blocks: Sequence[int]) -> None:
        self.order, self.entry, self.blocks = order, entry, blocks
        rows = len(order.files)
        self.offsets = {
            "images": _offset(entry / "images.npy", (rows, *order.shape), np.uint8),
            "sums": _offset(entry / "sums.npy", (rows, order.shape[0], 2), np.int64),
        }

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.make(self.blocks[number], threads=1)

    def make(self, number: int, threads: int | None) -> dict[str, Any]:
        """Decode a block and write it; gives its mark."""
        order, span = self.order, self.order.span(number)
        images, reasons = read_images(order.files[span], order.shape, how=order.how, threads=threads)
        sums = sums_of(images)
        for name, array in (("images", images), ("sums", sums)):
            with (self.entry / f"{name}.npy").open("r+b") as file:
                file.seek(self.offsets[name] + span.start * (array.nbytes // len(array)))
                file.write(array.data)
        unreadable = [[span.start + place, reason] for place, reason in enumerate(reasons) if reason]
        return {"block": number, "crc": zlib.crc32(images.data), "unreadable": unreadable}


def sums_of(images: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each image's channels, (images, channels, 2), exact."""
    flat = images.reshape(*images.shape[:2], -1)
    sums = np.empty((*images.shape[:2], 2), dtype=np.int64)
    sums[..., 0] = flat.sum(2, dtype=np.int64)
    for place, image in enumerate(flat):
        sums[place, :, 1] = np.square(image, dtype=np.uint32).sum(1, dtype=np.int64)
    return sums


def _checksum(order: Order, entry: Path, offset: int, number: int) -> int:
    span, size = order.span(number), int(np.prod(order.shape))
    with (entry / "images.npy").open("rb") as file:
        file.seek(offset + span.start * size)
        return zlib.crc32(file.read((span.stop - span.start) * size))


def _as_it_is(value: Any) -> Any:
    return value
