"""A person's own images: a folder a class, a table of paths and labels, an archive, or arrays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.splitting import drawn_but_the_first
from pipeline.data.images.arrays import read_arrays
from pipeline.data.images.decoding import Resizing, sizes_of
from pipeline.data.images.encoders import ResizingImageEncoder
from pipeline.data.images.labels import parted, strata_of, targets_of
from pipeline.data.images.layouts import (
    TEST,
    VALIDATION,
    Listing,
    kept_digest,
    listing,
    unpacked,
)
from pipeline.data.images.preparing import Order, in_memory, looked_through, prepare
from pipeline.data.images.stored import IN_MEMORY, Decoded, ImageFiles, Stored, StoredRows
from pipeline.data.images.tabled import Several, is_table, table_listing
from pipeline.errors import UserError
from pipeline.settings import (
    BELOW_ONE,
    COLUMN,
    COLUMNS_OR_NULL,
    NOT_NEGATIVE,
    PATH_OR_NULL,
    Number,
    Text,
    Word,
)

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
        target: Column of labels of a table; None finds it. With several labels an image also columns of 1 and 0.
        labels: ``single`` (an image has one label) or ``multi`` (any number of them, which a table names in one cell or
            in a column of 1 and 0 for each).
        separator: What stands between the labels of a cell; None finds it.
        split_column: Column of a table that says train, validation or test; None finds it.
        image_size: Height and width that images are resized to, or one number for both; None for 32, or what the
            model's weights were trained with.
        crop: Share of the shorter side that is kept, around the middle, so that nothing is stretched; None keeps the
            whole image and stretches it, or does what the weights were trained with.
        interpolation: ``bilinear`` or ``bicubic``; None for ``bilinear``, or what the weights were trained with.
        channels: 3 for colour, 1 for grey.
        max_unreadable: Share of the images that may be unreadable.
        test_fraction: Share of the images for the test, where nothing says which are.
        prepared_gb: Largest size of the decoded images, in GB, up to which they are kept in the cache; more are looked
            through once and decoded from their files in every epoch.
        shuffle_gb: Size of the decoded images, in GB, among which an epoch is shuffled at a time, of a folder that is
            kept in the cache and larger than memory: pieces of the cache from random places, each read in one go. None
            shuffles among all, for which the disk has to be asked for every image by itself.
        workers: Number of processes that decode; None for one a core, shared out where several processes train, 0 for
            none beside this one.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    encoder: ResizingImageEncoder

    def __init__(
        self,
        name: str = "image_folder",
        path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        test_path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        image: Annotated[str | None, COLUMN] = None,
        target: Annotated[str | Sequence[str] | None, COLUMNS_OR_NULL] = None,
        labels: Annotated[str, Word(("single", "multi"))] = "single",
        separator: Annotated[str | None, Text("what stands between labels, like |", null=True)] = None,
        split_column: Annotated[str | None, COLUMN] = None,
        image_size: int | Sequence[int] | None = None,
        crop: Annotated[float | None, Number(0, 1, above=True, null=True)] = None,
        interpolation: Annotated[str | None, Word(("bilinear", "bicubic"), null=True)] = None,
        channels: int = 3,
        max_unreadable: float = 0.05,
        test_fraction: Annotated[float, BELOW_ONE] = 0.15,
        prepared_gb: Annotated[float, NOT_NEGATIVE] = 50.0,
        shuffle_gb: Annotated[float | None, Number(0, above=True, null=True)] = None,
        workers: Annotated[int | None, Number(0, whole=True, null=True)] = None,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if path is None:
            raise UserError(
                f"data={name} needs a directory with one folder a class: data.path=DIRECTORY (or a table of paths and "
                "labels, or an archive)"
            )
        image_size = 32 if image_size is None else image_size
        sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        size = [int(side) for side in sides if str(side).isdigit()]
        if len(sides) != 2 or len(size) != 2 or not all(1 <= side <= 4096 for side in size):
            raise UserError(
                f"data.image_size={image_size}; expected one or two whole numbers from 1 to 4096, like 64 or [48,64]"
            )
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}; expected 3 (colour) or 1 (grey)")
        self.path, self.test_path = Path(path), None if test_path is None else Path(test_path)
        # Numbers name columns too.
        target = target if target is None or isinstance(target, str) else [str(name) for name in target]
        self.several = Several(separator) if labels == "multi" else None
        self.columns: Any = {"image": image, "target": target, "split": split_column}
        if self.several and self.balance != "none":
            raise UserError(f"data.balance={self.balance} is for images with one label each; drop it")
        self.shape = [channels, *size]
        self.how = Resizing.to(crop, interpolation)
        self.max_unreadable, self.test_fraction = max_unreadable, test_fraction
        self.prepared_gb, self.workers = prepared_gb, workers
        self.shuffle_within = None if shuffle_gb is None else int(shuffle_gb * 1e9)
        self.source = str(path)

    def setup(self, stage: str | None = None) -> None:
        x: Tensor | Stored
        if self.path.suffix == ".npz" and self.several:
            raise UserError(
                f"{self.path}: data.labels=multi needs a table of paths and labels (.csv, .tsv, .parquet)"
            )
        x, labels, parts = self._arrays() if self.path.suffix == ".npz" else self._read(self._listing())
        self.content = x.content if isinstance(x, Stored) else ""
        test = np.flatnonzero(parts == TEST)
        known = np.flatnonzero(parts != TEST)
        classes = self._classes(labels[known], labels[test])
        number = {name: place for place, name in enumerate(classes)}
        if self.several:
            several = targets_of(labels.tolist(), classes)
            targets = torch.from_numpy(strata_of(several))
        else:
            targets = torch.tensor([number[name] for name in labels])
        if not len(test) and self.test_fraction:
            drawn = drawn_but_the_first(len(known), self.test_fraction, self.seed, targets[known].numpy())
            test, known = known[drawn], np.delete(known, drawn)
        train, validation = self._split(targets[known], known, parts[known] == VALIDATION)
        if self.train_on_all:
            train = known
        binary = len(classes) == 2 and not self.several
        y = several if self.several else targets.float() if binary else targets
        everything = Rows(x, y) if isinstance(x, Tensor) else x.rows(y, self.shuffle_within)
        training = everything.subset(torch.from_numpy(train))
        if len(torch.unique(training.y, dim=0)) < 2:
            raise UserError(f"{self.path}: the training images are all of one class: nothing to learn")
        self.validation = everything.subset(torch.from_numpy(validation)) if len(validation) else None
        self.test = everything.subset(torch.from_numpy(test)) if len(test) else None
        self.encoder = self._fitted(training, x)
        self.spec = Spec(
            task="multilabel" if self.several else "binary" if binary else "multiclass",
            input="image",
            input_shape=tuple(self.shape),
            outputs=1 if binary else len(classes),
            classes=tuple(classes),
            target_name="label" if self.several else "class",
            pixel_mean=tuple(self.encoder.mean),
            pixel_std=tuple(self.encoder.std),
            class_weights=() if self.several else self.class_weights(training.y, len(classes)),
        )
        self.train = self.oversampled(training)

    def _fitted(self, training: Rows, x: Tensor | Stored) -> ResizingImageEncoder:
        """The encoder with the training images' mean and deviation."""
        if isinstance(training.x, Tensor):
            return ResizingImageEncoder.fit(training.x, self.how)
        assert isinstance(training, StoredRows) and isinstance(x, Stored) and x.sums is not None
        return ResizingImageEncoder.of_sums(self.shape, x.sums[training.places.numpy()], self.how)

    def _tensors(self, split: Rows) -> list[Any]:
        found = super()._tensors(split)
        # Places say nothing of what is there.
        own = np.frombuffer(self.content.encode(), dtype=np.uint8)
        return [own, *found] if isinstance(split.raw, StoredRows) else found

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
        if self.several and path.exists() and not is_table(path):
            raise UserError(
                f"{path}: data.labels=multi needs a table of paths and labels (.csv, .tsv, .parquet), or a folder "
                "with one in it; folders of classes give each image one label"
            )
        return table_listing(path, **self.columns, several=self.several) if is_table(path) else listing(path)

    def _classes(self, known: np.ndarray, tested: np.ndarray) -> list[str]:
        def names(labels: np.ndarray) -> set[str]:
            return {name for one in labels.tolist() for name in (parted(one) if self.several else [one])}

        classes = sorted(names(known))
        if not self.several and len(classes) == len(known) > 10:
            raise UserError(
                f"{self.path}: every image has another label ({', '.join(classes[:3])} …); expected classes with "
                "several images each (numbers are not learnt from images)"
            )
        if self.several and len(classes) < 2:
            raise UserError(
                f"{self.path}: its images have {len(classes)} different labels ({', '.join(classes)}); "
                "data.labels=multi needs two at least, a single yes or no is learnt without it (data.target=COLUMN)"
            )
        if strange := sorted(names(tested) - set(classes)):
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

    def _read(self, found: Listing) -> tuple[Tensor | Stored, np.ndarray, np.ndarray]:
        """All readable images, their labels and their parts."""
        order = Order(found.root, found.files, self.shape, self.how, self.max_unreadable, self.workers)
        x = self._prepared(order)
        self._say_what_is_lost(found.files)
        good = np.ones(len(found.files), dtype=bool)
        good[[*x.unreadable]] = False
        labels, parts = np.asarray(found.labels, dtype=object), np.asarray(found.parts, dtype=object)
        if not self.several and (gone := sorted(set(labels.tolist()) - set(labels[good].tolist()))):
            log.warning(
                "%s: no image of %s can be read: no such class is learnt", found.root, ", ".join(gone)
            )
        return x.readable(good), labels[good], parts[good]

    def _prepared(self, order: Order) -> Stored:
        """The images from the cache; where they cannot be kept there, from memory or from their files."""
        key = kept_digest(self.data_dir, order.root, order.files, [*self.shape, self.how.settings()])
        if order.nbytes > self.prepared_gb * 1e9:
            log.info(
                "%s: its images take %.1f GB decoded, more than data.prepared_gb=%g: they are decoded in every epoch",
                order.root,
                order.nbytes / 1e9,
                self.prepared_gb,
            )
            return self._streamed(order, key)
        entry = (self.data_dir / "cache" / f"pictures-{key}").absolute()
        try:
            found = prepare(order, entry)
            return Stored(Decoded(found.images), found.unreadable, key, found.sums)
        except OSError as error:
            why = error.strerror or str(error)
        instead = "they are in memory" if order.nbytes <= IN_MEMORY else "they are decoded in every epoch"
        log.warning("%s: its images cannot be kept in %s (%s): %s", order.root, entry.parent, why, instead)
        if order.nbytes > IN_MEMORY:
            return self._streamed(order, key)
        images, unreadable = in_memory(order)
        return Stored(torch.from_numpy(images), unreadable, key)

    def _streamed(self, order: Order, key: str) -> Stored:
        sums, unreadable = looked_through(order, self.data_dir, key)
        files = ImageFiles(order.files, order.shape, order.how, order.workers)
        return Stored(files, unreadable, key, sums)

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
