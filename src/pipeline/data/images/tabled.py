"""Images that a table names: a column of paths, one of labels, and perhaps one of parts (train, test)."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config.nearest import suggest
from pipeline.data.images.decoding import SUFFIXES
from pipeline.data.images.labels import is_yes_or_no, of_cell, of_columns, parted, sign_of
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


@dataclass(frozen=True)
class Several:
    """How the labels of images are written that have several.

    Args:
        sign: What stands between the labels of a cell; None finds it.
    """

    sign: str | None = None


def table_listing(
    path: Path,
    image: str | None = None,
    target: str | Sequence[str] | None = None,
    split: str | None = None,
    several: Several | None = None,
) -> Listing:
    """The images that a table names.

    Paths count from the table's directory; where files lie in a folder of it, or the table leaves their suffix out,
    they are found by what is written.

    Args:
        path: A CSV, TSV or Parquet file.
        image: Column of paths; None finds the one whose values are files.
        target: Column of labels; None finds it by its name, or because it is the only other one. Several are columns
            that say yes or no, one for each label.
        split: Column that says train, validation or test; None finds one whose name and values say so.
        several: How several labels of an image are written, which the listing then holds joined; None where each has
            one.

    Raises:
        UserError: A column is not there or cannot be told, or there are no rows.
    """
    if not several and target is not None and not isinstance(target, str):
        if len(target) != 1:
            raise UserError(
                f"data.target=[{','.join(target)}]: an image has one label, in one column; several labels an image are "
                "learnt with data.labels=multi"
            )
        target = target[0]
    how = TableFormat()
    names, sample = _head(path, how)
    index = _Index(path.parent)
    wanted = [target] if target is None or isinstance(target, str) else list(target)
    for setting, name in (("image", image), *(("target", one) for one in wanted), ("split_column", split)):
        if name is not None and name not in names:
            raise UserError(f"data.{setting}={name}: {path} has no such column. {suggest(name, names)}")
    image_column = image or _image_column(path, names, sample, index)
    split_column = split or _split_column(names, sample, image_column)
    others = [name for name in names if name not in (image_column, split_column)]
    if several:
        return _with_several(
            path, how, index, image_column, split_column, wanted, others, sample, several.sign
        )
    target_column = wanted[0] or _target_column(path, others)
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
            "%s: labels like %r seem to be several for one image. Each combination is learnt as a class of its own; "
            "data.labels=multi learns each label for itself",
            path,
            example,
        )
    return found


def _with_several(
    path: Path,
    how: TableFormat,
    index: _Index,
    image: str,
    split: str | None,
    wanted: Sequence[str | None],
    others: Sequence[str],
    sample: Sequence[dict[str, Any]],
    sign: str | None,
) -> Listing:
    """The images of a table with several labels each: in one cell, or in a column of yes and no for each label."""
    asked = [name for name in wanted if name is not None]
    columns = asked or _label_columns(path, others, sample)
    read = {"image": image, **{f"label {name}": name for name in columns}}
    rows = list(read_rows(path, read | ({"split": split} if split else {}), how))
    in_one_cell = len(columns) == 1 and not is_yes_or_no([row[1] for row in rows])
    cells = (
        ["" if row[1] is None or str(row[1]) == "nan" else str(row[1]) for row in rows] if in_one_cell else []
    )
    if in_one_cell and sign is None:
        sign = sign_of(cells)
    found, left_out, without = Listing(path.parent), 0, 0
    for number, row in enumerate(rows, 1):
        written = str(row[0] or "").strip()
        if not written:
            left_out += 1
            continue
        values = row[1 : 1 + len(columns)]
        label = of_cell(cells[number - 1], sign) if in_one_cell else of_columns(path, number, columns, values)
        without += not label
        found.add([index.file(written)], label, _part(path, row[-1]) if split else "")
    if in_one_cell:
        between = "one label each" if sign is None else f"labels with {sign!r} between them"
        found.notes.append(
            f"{path}: the column {columns[0]!r} is taken for {between} (data.target and data.separator say otherwise)"
        )
    else:
        named = ", ".join(columns[:10]) + (f" and {len(columns) - 10} more" if len(columns) > 10 else "")
        found.notes.append(
            f"{path}: {len(columns)} columns say of each image whether it has a label: {named}"
        )
        if ignored := [name for name in others if name not in columns]:
            found.notes.append(
                f"{path}: left out, since they are not such columns: {', '.join(ignored[:10])}"
            )
        there = {name for label in found.labels for name in parted(label)}
        if never := [name for name in columns if name not in there]:
            found.notes.append(f"{path}: no image has the label {', '.join(never[:10])}: it is not learnt")
    if without:
        found.notes.append(f"{path}: {without} images have no label: that is learnt too")
    if left_out:
        found.notes.append(f"{path}: {left_out} rows without an image are left out")
    return found


def _label_columns(path: Path, others: Sequence[str], sample: Sequence[dict[str, Any]]) -> list[str]:
    """The column of cells with labels, by its name; else those that say yes or no."""
    flags = [name for name in others if is_yes_or_no([row[name] for row in sample])]
    named = [name for name in others if name.strip().lower() in _LABELS and name not in flags]
    if named:
        return named[:1]
    if len(flags) > 1:
        return flags
    if len(others) == 1:
        return list(others)
    raise UserError(
        f"{path}: which columns hold the labels cannot be told from {', '.join(others[:10]) or 'its header'}; say "
        "data.target=COLUMN (labels with | or ; between them), or data.target=[first,second] (1 or 0 for each)"
    )


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
