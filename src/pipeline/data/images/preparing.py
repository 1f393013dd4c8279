"""A folder of images decoded once: blocks of images in a file of the cache, made by several processes.

An entry is a directory with ``images.npy``, ``sums.npy`` (sum and sum of squares of each image's channels),
``done.jsonl`` (a line for each block that is there, with its checksums) and, once all are, ``manifest.json``. A
preparation that was killed goes on with the blocks that are missing.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.core.cache import cached
from pipeline.data.core.waiting import shown
from pipeline.data.images.ahead import cores, results
from pipeline.data.images.decoding import Resizing, read_images
from pipeline.errors import UserError
from pipeline.files import sync, write_text, written

log = logging.getLogger(__name__)

_BLOCK_BYTES = 4 << 20
_RESERVE = 1_000_000_000
"""Bytes of the disk that stay free, or twice what the images take where that is less."""
_LOOKED_AT = 16
"""Blocks whose checksum is looked at where nothing was written to the file since it was made."""
_AHEAD = 2
"""Blocks that each process is ahead."""


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


def room_for(order: Order, entry: Path) -> int:
    """Bytes that are missing on the disk for what is not there yet of an entry; 0 where there is room."""
    taken = sum(path.stat().st_blocks * 512 for path in entry.glob("*.npy"))
    if taken >= order.nbytes:
        return 0
    there = next(path for path in (entry, *entry.parents) if path.exists())
    reserve = min(_RESERVE, 2 * order.nbytes)
    return max(0, order.nbytes - taken + reserve - shutil.disk_usage(there).free)


def prepare(order: Order, entry: Path) -> Prepared:
    """The decoded images of an entry of the cache: made, completed, or as they are there.

    Args:
        order: What is to be prepared.
        entry: Directory of the entry; its name changes with the files' content and all that shapes the images.

    Raises:
        UserError: More images than allowed cannot be read (of what was made for it nothing is kept), or one cannot be
            read at the moment.
        OSError: The cache cannot be written to, or has no room.
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
        # Asked for under the lock: what another process has just made needs no room.
        if lacking := room_for(order, entry):
            raise OSError(errno.ENOSPC, f"{lacking / 1e6:,.1f} MB more are needed on its disk")
        new = not entry.exists()
        try:
            _complete(order, entry, done, missing)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                # It would fill the disk for nothing.
                shutil.rmtree(entry, ignore_errors=True)
            raise
        if new and _too_many(order, done):
            # Above the limit nothing is worth keeping.
            shutil.rmtree(entry, ignore_errors=True)
    return _found(order, entry, done)


def _found(order: Order, entry: Path, done: dict[int, Any]) -> Prepared:
    unreadable = {int(place): reason for mark in done.values() for place, reason in mark["unreadable"]}
    name_unreadable(order, unreadable)
    return Prepared(entry / "images.npy", np.load(entry / "sums.npy", allow_pickle=False), unreadable)


def _complete(order: Order, entry: Path, done: dict[int, Any], missing: Sequence[int]) -> None:
    """Make the blocks that are missing; ``done`` gets their marks."""
    (entry / "manifest.json").unlink(missing_ok=True)
    _make_room(order, entry)
    write_text(entry / "done.jsonl", "".join(json.dumps(done[number]) + "\n" for number in sorted(done)))
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
    for name in ("images.npy", "sums.npy", "done.jsonl"):
        sync(entry / name)
    _note_whole(entry)
    log.info("decoded in %.1f s, kept in %s", time.monotonic() - began, entry)


def _note_whole(entry: Path) -> None:
    """Write down that all blocks are there, and the state of the file, by which a later start knows it again."""
    status = (entry / "images.npy").stat()
    with written(entry / "manifest.json", durable=True) as draft:
        draft.write_text(
            json.dumps({"size": status.st_size, "written": status.st_mtime_ns}), encoding="utf-8"
        )


def looked_through(order: Order, data_dir: Path, key: str) -> tuple[np.ndarray, dict[int, str]]:
    """Images decoded once without being kept: what their pixels come to, and which cannot be read, from the cache.

    Args:
        order: The images.
        data_dir: The user's data directory.
        key: Hash of the files' content and of all that shapes the images.

    Returns:
        Sum and sum of squares of each image's channels, (images, channels, 2), and by place why some cannot be read.

    Raises:
        UserError: More images than allowed cannot be read, or one cannot be read at the moment.
    """

    def build() -> tuple[dict[str, np.ndarray], list[list[Any]]]:
        sums, unreadable, what = [], [], f"looking at {len(order.files):,} images once"
        workers = cores() if order.workers is None else order.workers
        blocks = results(partial(_looked_at, order), order.blocks, workers, _AHEAD)
        for some, damaged in shown(blocks, order.blocks, what):
            sums.append(some)
            unreadable += damaged
            if len(unreadable) > order.max_unreadable * len(order.files):
                name_unreadable(order, dict(unreadable))
        return {"sums": np.concatenate(sums)}, unreadable

    arrays, found = cached(data_dir, f"pictures-seen-{key}", build)
    unreadable = {int(place): str(reason) for place, reason in found}
    name_unreadable(order, unreadable)
    return arrays["sums"], unreadable


def _looked_at(order: Order, number: int) -> tuple[np.ndarray, list[list[Any]]]:
    images, unreadable = _read(order, number)
    return sums_of(images), unreadable


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
    try:
        return _whole(order, entry)
    except FileNotFoundError:
        # Not there, or being removed.
        return {}
    except (ValueError, EOFError) as error:
        log.warning("the cache entry %s is damaged (%s): building it again", entry, error)
        return {}


def _whole(order: Order, entry: Path) -> dict[int, Any]:
    offset = _offset(entry / "images.npy", (len(order.files), *order.shape), np.uint8)
    _offset(entry / "sums.npy", (len(order.files), order.shape[0], 2), np.int64)
    manifest, status = entry / "manifest.json", (entry / "images.npy").stat()
    known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else None
    marks, sums = _marks(order, entry), np.load(entry / "sums.npy", allow_pickle=False)
    wrong = {n for n in marks if zlib.crc32(sums[order.span(n)].data) != marks[n]["sums"]}

    def damaged(numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if _checksum(order, entry, offset, n) != marks[n]["crc"]]

    numbers = sorted(marks)
    unchanged = known == {"size": status.st_size, "written": status.st_mtime_ns}
    # Where nothing was written to it since, some are looked at all the same: all may be a hundred gigabytes.
    few = numbers[:: max(1, len(numbers) // _LOOKED_AT)]
    if len(marks) == order.blocks and not wrong and unchanged and not damaged(few):
        return marks
    wrong.update(damaged(numbers))
    if wrong:
        log.warning("the cache entry %s is damaged (%d blocks): building them again", entry, len(wrong))
    elif len(marks) == order.blocks:
        # Copied, or ended just before it was noted: the next start need not look at all of it.
        with suppress(OSError):
            _note_whole(entry)
    return {number: mark for number, mark in marks.items() if number not in wrong}


def _marks(order: Order, entry: Path) -> dict[int, Any]:
    marks: dict[int, Any] = {}
    if (entry / "done.jsonl").is_file():
        for line in (entry / "done.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                mark = json.loads(line)
                number, _, _ = (
                    int(mark["block"]),
                    int(mark["crc"]) + int(mark["sums"]),
                    dict(mark["unreadable"]),
                )
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
            _take_room(entry / f"{name}.npy")


def _take_room(path: Path) -> None:
    """Have the disk set a file's bytes aside, where it can: a full one is noticed before anything is decoded.

    Raises:
        OSError: The disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            # Some file systems cannot.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def _decoded(order: Order, entry: Path, blocks: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Decode blocks, each written to its place; gives the mark of each."""
    work = _Blocks(order, entry, blocks)
    workers = cores() if order.workers is None else order.workers
    yield from results(work.make, len(blocks), workers, _AHEAD)


class _Blocks:
    """Blocks as things that processes make."""

    def __init__(self, order: Order, entry: Path, blocks: Sequence[int]) -> None:
        self.order, self.entry, self.blocks = order, entry, blocks
        rows = len(order.files)
        self.offsets = {
            "images": _offset(entry / "images.npy", (rows, *order.shape), np.uint8),
            "sums": _offset(entry / "sums.npy", (rows, order.shape[0], 2), np.int64),
        }

    def make(self, place: int) -> dict[str, Any]:
        """Decode one of the blocks and write it; gives its mark."""
        number, span = self.blocks[place], self.order.span(self.blocks[place])
        images, unreadable = _read(self.order, number)
        sums = sums_of(images)
        for name, array in (("images", images), ("sums", sums)):
            with (self.entry / f"{name}.npy").open("r+b") as file:
                file.seek(self.offsets[name] + span.start * (array.nbytes // len(array)))
                file.write(array.data)
        checksums = {"crc": zlib.crc32(images.data), "sums": zlib.crc32(sums.data)}
        return {"block": number, **checksums, "unreadable": unreadable}


def _read(order: Order, number: int) -> tuple[np.ndarray, list[list[Any]]]:
    """The images of a block, and place and reason of those that cannot be read."""
    span = order.span(number)
    # One thread where this is one of several processes.
    threads = None if torch.utils.data.get_worker_info() is None else 1
    images, reasons = read_images(order.files[span], order.shape, how=order.how, threads=threads)
    return images, [[span.start + place, reason] for place, reason in enumerate(reasons) if reason]


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
