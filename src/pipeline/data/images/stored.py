"""Images that are not in memory: decoded ones in a file on disk, and files that are decoded when they are asked for.

Decoded ones are read with ``pread``, sorted by their place: pages of a memory map would count as memory of the process,
which would grow to the size of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.splits import Batch, Rows
from pipeline.data.images.ahead import cores_each, results
from pipeline.data.images.decoding import AS_A_WHOLE, Resizing, read_images
from pipeline.data.images.readahead import AHEAD_BYTES, FileRows
from pipeline.errors import UserError

IN_MEMORY = 1 << 28
"""Bytes of decoded images up to which they are taken into memory as a whole."""
_CHUNK = 64 << 20
_READ_AT_ONCE = 4 << 20
"""Bytes of a piece of the file, where not all images are shuffled at once."""
_AHEAD, _AHEAD_BYTES = 4, 1 << 28
"""Pieces of batches that each process is ahead, and bytes that all of these take together."""


class Decoded:
    """The images of an ``.npy`` file, read without being mapped.

    Args:
        path: The file: ``uint8`` (images, channels, height, width).
    """

    def __init__(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        self.path, self.shape, self.offset = path, tuple(mapped.shape), int(mapped.offset)
        self._size = int(np.prod(self.shape[1:]))
        self._file: tuple[int, int] | None = None

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, places: np.ndarray) -> np.ndarray:
        """The images at ``places``, in that order; the disk is gone through in its own order.

        Raises:
            OSError: The file is shorter than it was.
        """
        images = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        flat, descriptor = images.reshape(len(places), self._size), self._descriptor()
        for row in np.argsort(places, kind="stable").tolist():
            start = self.offset + int(places[row]) * self._size
            if os.preadv(descriptor, [flat[row].data], start) != self._size:
                raise OSError(f"{self.path} ends before image {int(places[row])}")
        return images

    def file_rows(self) -> FileRows:
        """The images as rows of their file, which can be asked for ahead."""
        return FileRows(self.path, self._descriptor(), self.offset, self._size, len(self))

    def _descriptor(self) -> int:
        # A process that was forked opens the file for itself.
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self.path, os.O_RDONLY))
        return self._file[1]

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None and self._file is not None:
            os.close(self._file[1])
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __deepcopy__(self, memo: Any) -> Decoded:
        return self


class ImageFiles:
    """Image files, decoded whenever they are asked for.

    Args:
        files: Path of each image.
        shape: Channels, height and width that they become.
        how: How they are resized.
        workers: Number of processes that decode batches ahead; 0 decodes in this one, None is one a core.
    """

    def __init__(
        self,
        files: Sequence[Path],
        shape: Sequence[int],
        how: Resizing = AS_A_WHOLE,
        workers: int | None = 0,
    ) -> None:
        self.files, self.how, self.workers = files, how, workers
        self.shape = (len(files), *shape)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, places: np.ndarray) -> np.ndarray:
        """The images at ``places``.

        Raises:
            UserError: One cannot be read.
        """
        files = [self.files[place] for place in places.tolist()]
        inside = torch.utils.data.get_worker_info() is not None
        images, reasons = read_images(files, self.shape[1:], how=self.how, threads=1 if inside else None)
        for path, reason in zip(files, reasons, strict=True):
            if reason:
                raise UserError(
                    f"{path} cannot be read ({reason}), as it could be when the images were looked through: "
                    "put it back, or start again without it"
                )
        return images


@dataclass(frozen=True)
class Stored:
    """The images of a folder, wherever they are.

    Args:
        images: All images, in the order of their files.
        unreadable: Place of each image that cannot be read, and why.
        content: Hash by which the images are recognised.
        sums: Sum and sum of squares of each image's channels, (images, channels, 2); None where they are not known.
        places: Places of the images that are meant, (samples,); None for all.
    """

    images: Tensor | Decoded | ImageFiles
    unreadable: dict[int, str]
    content: str
    sums: np.ndarray | None = None
    places: Tensor | None = None

    def readable(self, good: np.ndarray) -> Tensor | Stored:
        """The images that can be read, in memory where they are few.

        Args:
            good: Whether each image can be read, (images,).
        """
        places = torch.from_numpy(np.flatnonzero(good))
        if isinstance(self.images, Tensor):
            return self.images[places]
        if isinstance(self.images, Decoded) and np.prod(self.images.shape) <= IN_MEMORY:
            return torch.from_numpy(self.images.take(places.numpy()))
        return replace(self, places=places)

    def rows(self, y: Tensor, within: int | None = None) -> StoredRows:
        """The images with their targets, (samples, ...); for ``within`` see :class:`StoredRows`."""
        assert self.places is not None and not isinstance(self.images, Tensor)
        return StoredRows(self.images, self.places, y, within)


class StoredRows(Rows):
    """Samples whose images are read when a batch is taken.

    Args:
        images: The images of the whole data set.
        places: Place of each sample's image among them, (samples,).
        y: Targets, (samples, ...).
        within: Bytes of decoded images among which an epoch is shuffled at a time; None shuffles among all.
    """

    def __init__(
        self, images: Decoded | ImageFiles, places: Tensor, y: Tensor, within: int | None = None
    ) -> None:
        if len(places) != len(y):
            raise ValueError(f"{len(places)} inputs but {len(y)} targets")
        self.images, self.places, self.y, self.within = images, places, y, within

    def order(self, batch_size: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """The row numbers of every batch of one epoch.

        With ``within`` pieces of the file, in a random order, are put together to so many bytes, whose images are
        shuffled: a disk reads pieces in one go, and each piece is read once an epoch.
        """
        if generator is None or self.within is None or not isinstance(self.images, Decoded):
            return super().order(batch_size, generator)
        row = int(np.prod(self.images.shape[1:]))
        pieces = self.places.argsort(stable=True).split(max(1, _READ_AT_ONCE // row))
        drawn = torch.randperm(len(pieces), generator=generator).split(max(1, self.within // _READ_AT_ONCE))
        together = [torch.cat([pieces[number] for number in some.tolist()]) for some in drawn]
        mixed = [rows[torch.randperm(len(rows), generator=generator)] for rows in together]
        return list(torch.cat(mixed).split(batch_size))

    @property
    def x(self) -> np.ndarray:  # type: ignore[override]
        """Where each sample's image is; the images themselves are not in memory."""
        return self.places.numpy()

    @property
    def streams(self) -> bool:  # type: ignore[override]
        """Whether other processes decode ahead, or the disk is told ahead what is wanted."""
        return isinstance(self.images, Decoded) or self.images.workers != 0

    @property
    def decodes(self) -> bool:  # type: ignore[override]
        """Whether images are decoded whenever they are taken."""
        return isinstance(self.images, ImageFiles)

    def _inputs(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.images.take(self.places[rows].numpy()))

    def subset(self, rows: Tensor) -> StoredRows:
        return StoredRows(self.images, self.places[rows], self.y[rows], self.within)

    def to(self, device: torch.device) -> Rows:
        if isinstance(self.images, ImageFiles):
            return self
        x = torch.empty((len(self), *self.images.shape[1:]), dtype=torch.uint8, device=device)
        for rows in torch.arange(len(self)).split(max(1, _CHUNK // max(1, self.nbytes // len(self)))):
            x[rows.to(device)] = self._inputs(rows).to(device)
        return Rows(x, self.y.to(device))

    @property
    def nbytes(self) -> int:
        """Bytes that the images take once they are decoded, and the targets."""
        return len(self) * int(np.prod(self.images.shape[1:])) + self.y.nbytes

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        if not self.streams or len(batches) < 2:
            yield from super().stream(batches)
            return
        if isinstance(self.images, Decoded):
            yield from self._told_ahead(self.images.file_rows(), batches)
            return
        # As many processes as there are when it begins: those that share a training are known by then.
        workers = self.images.workers or cores_each()
        # Large batches come in pieces: what is ahead has a size of its own.
        image = int(np.prod(self.images.shape[1:]))
        size = max(1, _AHEAD_BYTES // (image * workers * _AHEAD))
        pieces = [piece for rows in batches for piece in rows.split(size)]
        found = results(partial(self._piece, pieces), len(pieces), workers, _AHEAD)
        for rows in batches:
            parts = [next(found) for _ in rows.split(size)]
            yield torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts)), self.y[rows]

    def _told_ahead(self, file: FileRows, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches, the disk told of those that come after; nothing of it changes their order."""
        if not file.prepare(self._places_of(batches)):
            yield from super().stream(batches)
            return
        count = max(1, (self.within or AHEAD_BYTES) // max(1, max(map(len, batches)) * file.size))
        groups = [batches[first : first + count] for first in range(0, len(batches), count)]
        file.ask_for(self._places_of(groups[0]))
        for number, group in enumerate(groups):
            for later in groups[number + 1 : number + 2]:
                file.ask_for(self._places_of(later))
            yield from (self.take(rows) for rows in group)

    def _places_of(self, batches: Sequence[Tensor]) -> np.ndarray:
        return self.places[torch.cat(list(batches))].numpy()

    def _piece(self, pieces: Sequence[Tensor], number: int) -> np.ndarray:
        return self.images.take(self.places[pieces[number]].numpy())
