"""Images that a table names: a column of paths, one of labels, and perhaps one of parts (train, test)."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config.nearest import suggest
from pipeline.data.images.decoding import SUFFIXES
from pipeline.data.images.layouts import SPELLINGS, Listing
from pipeline.data.tables.files import read_batches, read_rows
from pipeline.data.tables.formats import FORMATS, TableFormat
from pipeline.data.tables.packed import suffix_of
from pipeline.errors import UserError

log = logging.getLogger(__name__)

_LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "y",
    "class_name",
    "species",
    "breed",
    "label_name",
)
_SPLITS = ("split", "subset", "set", "part", "partition", "usage", "fold_name", "data_split")
_LOOKED_AT = 200
"""Rows that a column is judged by."""


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return path.is_file() and FORMATS.get(suffix_of(path)) in ("csv", "tsv", "parquet")


def table_listing(
    path: Path, image: str | None = None, target: str | None = None, split: str | None = None
) -> Listing:
    """The images that a table names.

    Paths count from the table's directory; where files lie in a folder of it, or the table leaves their suffix out,
    they are found by what is written.

    Args:
        path: A CSV, TSV or Parquet file.
        image: Column of paths; None finds the one whose values are files.
        target: Column of labels; None finds it by its name, or because it is the only other one.
        split: Column that says train, validation or test; None finds one whose name and values say so.

    Raises:
        UserError: A column is not there or cannot be told, or there are no rows.
    """
    how = TableFormat()
    names, sample = _head(path, how)
    index = _Index(path.parent)
    for setting, name in (("image", image), ("target", target), ("split_column", split)):
        if name is not None and name not in names:
            raise UserError(f"data.{setting}={name}: {path} has no such column. {suggest(name, names)}")
    image_column = image or _image_column(path, names, sample, index)
    split_column = split or _split_column(names, sample, image_column)
    target_column = target or _target_column(
        path, [n for n in names if n not in (image_column, split_column)]
    )
    found = Listing(path.parent)
    columns = {"data.image": image_column, "data.target": target_column}
    columns |= {"data.split_column": split_column} if split_column else {}
    unlabelled = 0
    for row in read_rows(path, columns, how):
        written, label = str(row[0] or "").strip(), "" if row[1] is None else str(row[1]).strip()
        if not label or label == "nan" or not written:
            unlabelled += 1
            continue
        part = _part(path, row[2]) if split_column else ""
        found.add([index.file(written)], label, part)
    if not found.files:
        raise UserError(
            f"{path} names no image with a label in the columns {image_column!r}, {target_column!r}"
        )
    asked = image and target and (split or not split_column)
    which = f", {split_column!r} of parts" if split_column else ""
    if not asked:
        found.notes.append(
            f"{path}: the column {image_column!r} is taken for paths of images, {target_column!r} for labels{which} "
            "(data.image, data.target and data.split_column say otherwise)"
        )
    if unlabelled:
        found.notes.append(f"{path}: {unlabelled} rows without an image or a label are left out")
    if example := several_labels(found.labels):
        log.warning(
            "%s: labels like %r seem to be several for one image. Each combination is learnt as a class of its own: an "
            "image has one label here. A column of yes and no for each label can be learnt one by one "
            "(data.target=COLUMN)",
            path,
            example,
        )
    return found


def several_labels(labels: Sequence[str]) -> str | None:
    """A label that names several classes at once, where labels do so; None where they do not.

    They do where a tenth of them is put together, by the same sign, from parts that other labels have too.

    Args:
        labels: Label of each image.
    """
    for sign in ("|", ";", ","):
        joined = [label for label in labels if sign in label]
        if len(joined) < 0.1 * len(labels) or not joined:
            continue
        counts = Counter(part.strip() for label in set(labels) for part in label.split(sign))
        if all(counts[part.strip()] > 1 for part in joined[0].split(sign)) and len(counts) < len(set(labels)):
            return joined[0]
    return None


class _Index:
    """The image files below a directory, by what a table may call them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        by_name: dict[str, list[Path]] = {}
        for parent, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            for file in files:
                path = Path(parent) / file
                if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                    for name in {file, path.stem}:
                        by_name.setdefault(name, []).append(path)
        self._by_name = by_name

    def find(self, written: str) -> Path | None:
        """The file that ``written`` means; None where there is none, or more than one."""
        plain = Path(written.replace("\\", "/"))
        direct = self.root / plain
        if direct.is_file() and direct.suffix.lower() in SUFFIXES:
            return direct
        candidates = self._by_name.get(plain.name, [])
        parent = plain.parent.as_posix()
        if parent not in (".", "/"):
            candidates = [path for path in candidates if path.parent.as_posix().endswith(parent.lstrip("./"))]
        return candidates[0] if len(candidates) == 1 else None

    def file(self, written: str) -> Path:
        """The file that ``written`` means, or where it should be."""
        return self.find(written) or self.root / written


def _head(path: Path, how: TableFormat) -> tuple[list[str], list[dict[str, Any]]]:
    batch = next(iter(read_batches(path, how)), None)
    if batch is None or not batch.num_rows:
        raise UserError(f"{path} holds no rows")
    names = list(batch.column_names)
    # As they are written: a file may be called 0001.
    rows = islice(read_rows(path, {name: name for name in names}, how), _LOOKED_AT)
    return names, [dict(zip(names, row, strict=True)) for row in rows]


def _image_column(path: Path, names: Sequence[str], sample: Sequence[dict[str, Any]], index: _Index) -> str:
    hits = Counter(
        {
            name: sum(index.find(str(row[name])) is not None for row in sample if row[name] not in (None, ""))
            for name in names
        }
    )
    best, count = hits.most_common(1)[0]
    if count < max(1, len(sample) // 2):
        raise UserError(
            f"{path}: no column names image files of {path.parent} (tried {', '.join(names[:10])}). Paths count from "
            "the table's directory; data.image=COLUMN names the column"
        )
    return best


def _split_column(names: Sequence[str], sample: Sequence[dict[str, Any]], image: str) -> str | None:
    for name in names:
        values = {str(row[name]).strip().lower() for row in sample}
        if name != image and name.strip().lower() in _SPLITS and values <= set(SPELLINGS):
            return name
    return None


def _target_column(path: Path, names: Sequence[str]) -> str:
    by_name = {name.strip().lower(): name for name in reversed(names)}
    for known in _LABELS:
        if known in by_name:
            return by_name[known]
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"{path}: which column holds the labels cannot be told from {', '.join(names[:10]) or 'its header'}; "
        "say data.target=COLUMN"
    )


def _part(path: Path, value: Any) -> str:
    part = SPELLINGS.get(str(value or "").strip().lower())
    if part is None:
        raise UserError(f"{path}: {value!r} is no part of the data; expected train, validation or test")
    return part
