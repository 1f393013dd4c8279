"""A person's own images: a folder a class, a table of paths and labels, an archive, or arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.cache import cached
from pipeline.data.core.memory import check_memory
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.splitting import drawn_but_the_first
from pipeline.data.images.arrays import read_arrays
from pipeline.data.images.decoding import AS_A_WHOLE, Resizing, read_images, sizes_of
from pipeline.data.images.encoders import ResizingImageEncoder
from pipeline.data.images.layouts import TEST, VALIDATION, Listing, content_digest, listing, unpacked
from pipeline.data.images.tabled import is_table, table_listing
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, COLUMN, PATH_OR_NULL, Number, Word

log = logging.getLogger(__name__)

_LOOKED_AT = 200
"""Files whose size is looked at, to say what is lost on the way to the size that is learnt from."""


class ImageFolder(DataModule):
    """Labelled images of any size and mode, resized to one size.

    They lie in one folder a class, in folders of parts (``train/CLASS``, ``val/CLASS``, ``test/CLASS``, in any of the
    usual spellings), in a zip or tar archive of these, are named by a table with a column of paths and one of labels,
    or stand in a ``.npz`` file (see :func:`read_arrays`). Hidden files are left out. Unreadable images are named and
    skipped, up to a limit. Prepared images are cached by the files' content.

    Args:
        name: Name of the data set, shown and tagged.
        path: Directory, table (.csv, .tsv, .parquet) or archive (.zip, .tar, .tar.gz, …).
        test_path: Directory, table or archive for the test; without one, and without a test part, a share of the images
            is held out.
        image: Column of paths of a table; None finds it.
        target: Column of labels of a table; None finds it.
        split_column: Column of a table that says train, validation or test; None finds it.
        image_size: Height and width that images are resized to, or one number for both; None for 32, or what the
            model's weights were trained with.
        crop: Share of the shorter side that is kept, around the middle, so that nothing is stretched; None keeps the
            whole image and stretches it, or does what the weights were trained with.
        interpolation: ``bilinear`` or ``bicubic``; None for ``bilinear``, or what the weights were trained with.
        channels: 3 for colour, 1 for grey.
        max_unreadable: Share of the images that may be unreadable.
        test_fraction: Share of the images for the test, where nothing says which are.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    encoder: ResizingImageEncoder

    def __init__(
        self,
        name: str = "image_folder",
        path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        test_path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        image: Annotated[str | None, COLUMN] = None,
        target: Annotated[str | None, COLUMN] = None,
        split_column: Annotated[str | None, COLUMN] = None,
        image_size: int | Sequence[int] | None = None,
        crop: Annotated[float | None, Number(0, 1, above=True, null=True)] = None,
        interpolation: Annotated[str | None, Word(("bilinear", "bicubic"), null=True)] = None,
        channels: int = 3,
        max_unreadable: float = 0.05,
        test_fraction: Annotated[float, BELOW_ONE] = 0.15,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if path is None:
            raise UserError(
                f"data={name} needs a directory with one folder a class: data.path=DIRECTORY (or a table of paths and "
                "labels, or an archive)"
            )
        image_size = 32 if image_size is None else image_size
        size = [image_size, image_size] if isinstance(image_size, int) else [int(side) for side in image_size]
        if len(size) != 2 or not all(1 <= side <= 4096 for side in size):
            raise UserError(f"data.image_size={image_size}; expected one or two whole numbers from 1 to 4096")
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}; expected 3 (colour) or 1 (grey)")
        self.path, self.test_path = Path(path), None if test_path is None else Path(test_path)
        self.columns = {"image": image, "target": target, "split": split_column}
        self.shape = [channels, *size]
        self.how = Resizing(crop, interpolation or "bilinear")
        self.max_unreadable, self.test_fraction = max_unreadable, test_fraction
        self.source = str(path)

    def setup(self, stage: str | None = None) -> None:
        x, labels, parts = self._arrays() if self.path.suffix == ".npz" else self._read(self._listing())
        test = np.flatnonzero(parts == TEST)
        known = np.flatnonzero(parts != TEST)
        classes = self._classes(labels[known], labels[test])
        number = {name: place for place, name in enumerate(classes)}
        targets = torch.tensor([number[name] for name in labels])
        if not len(test) and self.test_fraction:
            drawn = drawn_but_the_first(len(known), self.test_fraction, self.seed, targets[known].numpy())
            test, known = known[drawn], np.delete(known, drawn)
        train, validation = self._split(targets[known], known, parts[known] == VALIDATION)
        if self.train_on_all:
            train = known
        binary = len(classes) == 2
        everything = Rows(x, targets.float() if binary else targets)
        training = everything.subset(torch.from_numpy(train))
        if len(torch.unique(training.y)) < 2:
            raise UserError(f"{self.path}: the training images are all of one class: nothing to learn")
        self.validation = everything.subset(torch.from_numpy(validation)) if len(validation) else None
        self.test = everything.subset(torch.from_numpy(test)) if len(test) else None
        assert isinstance(training.x, Tensor)
        self.encoder = ResizingImageEncoder.fit(training.x, self.how)
        self.spec = Spec(
            task="binary" if binary else "multiclass",
            input="image",
            input_shape=tuple(self.shape),
            outputs=1 if binary else len(classes),
            classes=tuple(classes),
            target_name="class",
            pixel_mean=tuple(self.encoder.mean),
            pixel_std=tuple(self.encoder.std),
            class_weights=self.class_weights(training.y, len(classes)),
        )
        self.train = self.oversampled(training)

    def _arrays(self) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """The images of a ``.npz`` file, and of another for the test."""
        x, labels, parts = read_arrays(self.path, self.shape, self.how)
        if self.test_path is not None:
            test_x, test_labels, _ = read_arrays(self.test_path, self.shape, self.how)
            known = parts != TEST
            x = np.concatenate([x[known], test_x])
            parts = np.concatenate([parts[known], np.full(len(test_x), TEST, dtype=object)])
            labels = np.concatenate([labels[known], test_labels])
        return torch.from_numpy(x), labels, parts

    def _listing(self) -> Listing:
        """Every image that there is, those of ``test_path`` as the test."""
        found = self._listing_of(self.path)
        if self.test_path is not None:
            other = self._listing_of(self.test_path)
            if TEST in found.parts:
                found.notes.append(f"{self.path}: its test part is left out: data.test_path is the test")
            known = found.chosen([part != TEST for part in found.parts])
            # Where it is laid out in parts, its test part is meant.
            other = other.chosen([part == TEST for part in other.parts]) if TEST in other.parts else other
            found = Listing(
                known.root,
                known.files + other.files,
                known.labels + other.labels,
                known.parts + [TEST] * len(other.files),
                known.notes + other.notes,
            )
        for note in found.notes:
            log.info("%s", note)
        return found

    def _listing_of(self, path: Path) -> Listing:
        path = unpacked(path, self.data_dir)
        if (
            not is_table(path)
            and path.is_dir()
            and (tables := sorted(path.glob("*.csv")))
            and len(tables) == 1
        ):
            # A table beside the images of an archive, or of a folder without folders of classes.
            folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
            path = tables[0] if len(folders) < 2 else path
        return table_listing(path, **self.columns) if is_table(path) else listing(path)

    def _classes(self, known: np.ndarray, tested: np.ndarray) -> list[str]:
        classes = sorted(set(known.tolist()))
        if strange := sorted(set(tested.tolist()) - set(classes)):
            where = self.test_path or self.path
            raise UserError(
                f"{where}: the test has classes that {self.path} lacks: {', '.join(strange[:10])}"
            )
        return classes

    def _split(self, labels: Tensor, pool: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.folds:
            train, validation = self.split_rows(labels.long(), stratify=True)
            return pool[train.numpy()], pool[validation.numpy()]
        if held_out.any():
            return pool[~held_out], pool[held_out]
        chosen = drawn_but_the_first(len(labels), self.validation_fraction, self.seed + 1, labels.numpy())
        return np.delete(pool, chosen), pool[chosen]

    def _read(self, found: Listing) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """All readable images (samples, channels, height, width), their labels and their parts."""
        files = found.files
        check_memory(
            # They are in memory twice while they are prepared.
            2 * len(files) * math.prod(self.shape),
            f"{len(files):,} images of {'×'.join(map(str, self.shape))}",
            "lower data.image_size",
        )
        settings = [self.shape] + ([asdict(self.how)] if self.how != AS_A_WHOLE else [])
        key = content_digest(found.root, files, settings)
        arrays, unreadable = cached(self.data_dir, f"images-{key}", lambda: self._decode(found.root, files))
        if unreadable:
            self._name_unreadable(found.root, unreadable, len(files))
        self._say_what_is_lost(files)
        good = arrays["readable"]
        labels, parts = np.asarray(found.labels, dtype=object), np.asarray(found.parts, dtype=object)
        if gone := sorted(set(labels.tolist()) - set(labels[good].tolist())):
            log.warning(
                "%s: no image of %s can be read: no such class is learnt", found.root, ", ".join(gone)
            )
        return torch.from_numpy(arrays["images"]), labels[good], parts[good]

    def _decode(self, root: Path, files: Sequence[Path]) -> tuple[dict[str, np.ndarray], list[list[str]]]:
        images, reasons = read_images(files, self.shape, how=self.how)
        good = np.array([not reason for reason in reasons])
        unreadable = [
            [str(path.relative_to(root) if path.is_relative_to(root) else path), reason]
            for path, reason in zip(files, reasons, strict=True)
            if reason
        ]
        # Raised before anything is cached: above the limit nothing is worth it.
        if len(unreadable) > self.max_unreadable * len(files):
            self._name_unreadable(root, unreadable, len(files))
        return {"images": images if good.all() else images[good], "readable": good}, unreadable

    def _say_what_is_lost(self, files: Sequence[Path]) -> None:
        """Say what the files hold that the size that is learnt from does not."""
        channels, height, width = self.shape
        sizes, colour = sizes_of(files[:: max(1, len(files) // _LOOKED_AT)])
        if not len(sizes):
            return
        pixels = np.median(sizes.prod(1))
        middle = sizes[np.argsort(sizes.prod(1))[len(sizes) // 2]]
        if height * width < pixels / 4:
            log.info(
                "%s: the images, of %d×%d pixels as a rule, are learnt from at %d×%d, %.2g %% of their pixels "
                "(data.image_size=… takes more; it costs time with the square of it)",
                self.path,
                *middle,
                width,
                height,
                100 * height * width / pixels,
            )
        if channels == 1 and colour:
            log.info("%s: the images have colours, which data.channels=1 leaves out", self.path)

    def _name_unreadable(self, root: Path, unreadable: list[list[str]], total: int) -> None:
        named = "; ".join(f"{path} ({reason})" for path, reason in unreadable[:10])
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        text = f"{root}: {len(unreadable)} of {total} images cannot be read: {named}{more}"
        if len(unreadable) > self.max_unreadable * total:
            raise UserError(f"{text}. That is more than data.max_unreadable={self.max_unreadable:g} of them")
        log.warning("%s. They are skipped", text)
