"""Tables larger than memory: arrays on disk, mapped and read a batch at a time.

A directory holds ``x.npy`` (rows × columns, float32, NaN where a value is missing), ``y.npy`` (the target: float32 for
numbers, int64 for classes) and ``table.json`` (names of columns, target and classes). Make one from a CSV or Parquet
file of any size with::

    python -m pipeline.data.tables.memmap FILE DIRECTORY --target COLUMN
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.splitting import in_turn
from pipeline.data.tables.blocks import BLOCK, BlockRows
from pipeline.data.tables.files import TableFormat, read_batches
from pipeline.data.tables.reading import Reading, read_as
from pipeline.data.tables.values import Table, listed
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, PATH_OR_NULL

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline

STATISTICS_ROWS = 1_000_000
CLASSES = Reading(classes=True)
"""How texts of the target are understood."""


class MemoryMapped(DataModule):
    """A table of memory-mapped arrays, see the top of this file. Whole blocks of rows train, validate and test.

    Columns are standardised by their mean and deviation over (at most a million of) the training rows, read in whole
    blocks; a missing value becomes the mean.

    Args:
        name: Name of the data set, shown and tagged.
        path: Directory of the table.
        test_fraction: Share of the blocks for the test.
        block: Number of rows in a block; smaller ones mix better and read slower.
        target_unit: Unit of a number that is predicted.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    encoder: MappedEncoder
    train: BlockRows

    def __init__(
        self,
        name: str = "memmap",
        path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        test_fraction: Annotated[float, BELOW_ONE] = 0.02,
        block: int = BLOCK,
        target_unit: str = "",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if path is None:
            raise UserError(
                f"data={name} needs a directory with x.npy, y.npy and table.json: data.path=DIRECTORY"
            )
        if self.balance == "oversample":
            raise UserError(
                "data.balance=oversample would copy what does not fit in memory; use class_weights"
            )
        self.path, self.test_fraction, self.block, self.target_unit = (
            Path(path),
            test_fraction,
            block,
            target_unit,
        )
        self.source = str(path)

    def setup(self, stage: str | None = None) -> None:
        x, y, about = open_table(self.path)
        blocks = math.ceil(len(y) / self.block)
        train, validation, test = self._blocks(blocks)
        shift, scale = _statistics(self._sampled(x, train).numpy())
        self.encoder = MappedEncoder(about["columns"], shift.tolist(), scale.tolist())

        def split(chosen: np.ndarray) -> BlockRows:
            moved, by = torch.from_numpy(shift).float(), torch.from_numpy(scale).float()
            return BlockRows(x, y, chosen, moved, by, self.block)

        self.train = split(train)
        self.validation = split(validation) if len(validation) else None
        self.test = split(test) if len(test) else None
        classes = tuple(about["classes"])
        targets = self._sampled(y, train)
        if bool((targets == targets[0]).all()):
            raise UserError(
                f"{self.path}: the target {about['target']!r} is the same everywhere: nothing to learn"
            )
        self.spec = Spec(
            task="regression" if not classes else "binary" if len(classes) == 2 else "multiclass",
            input="vector",
            input_shape=(x.shape[1],),
            outputs=len(classes) if len(classes) > 2 else 1,
            classes=classes,
            target_name=about["target"],
            target_unit=self.target_unit,
            class_weights=self.class_weights(targets, len(classes)) if classes else (),
            target_mean=0.0 if classes else float(targets.double().mean()),
            target_std=1.0 if classes else float(targets.double().std(correction=0)),
        )

    def baselines(self) -> dict[str, Baseline]:
        """The usual ones, learnt from (at most a million of) the training targets."""
        some = self._sampled(self.train.whole_y, self.train.blocks.numpy())
        learnt = Rows(torch.zeros(len(some), 0), some)

        def of_sample(baseline: Baseline) -> Baseline:
            return lambda train, evaluate, spec: baseline(learnt, evaluate, spec)

        return {name: of_sample(baseline) for name, baseline in super().baselines().items()}

    def _blocks(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The blocks of each part, drawn by the data's seed."""
        train, validation, test = in_turn(
            count, self.test_fraction, self.validation_fraction, self.folds, self.fold, self.seed
        )
        pool = np.concatenate([train, validation])
        if not len(train) or (self.folds and len(pool) < self.folds):
            raise UserError(
                f"{self.path}: {count} blocks of {self.block} rows are too few to train, validate and test on; "
                "lower data.block, or use data=csv for tables that fit in memory"
            )
        return np.sort(pool) if self.train_on_all else train, validation, test

    def _sampled(self, rows: Tensor, blocks: np.ndarray) -> Tensor:
        """Rows of blocks evenly spread over some blocks, about a million at most."""
        step = max(1, math.ceil(len(blocks) * self.block / STATISTICS_ROWS))
        return torch.cat(
            [rows[block * self.block : (block + 1) * self.block] for block in blocks[::step].tolist()]
        )


def _statistics(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the known values of each column, one column in double precision at a time."""
    shift, scale = np.zeros(sample.shape[1]), np.ones(sample.shape[1])
    for number in range(sample.shape[1]):
        values = sample[:, number].astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            shift[number], scale[number] = values.mean(), values.std() or 1.0
    return shift, scale


class MappedEncoder(VectorEncoder):
    """Numeric columns, standardised; a missing value becomes the mean."""

    kind = "mapped"

    def encode(self, raw: Any) -> Tensor:
        return super().encode(raw).nan_to_num_(0.0)


def open_table(directory: Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The mapped arrays and the description of a directory that :func:`write_table` made.

    Raises:
        UserError: A file is missing or damaged, or the files do not fit together.
    """
    try:
        # Copy-on-write: torch wants memory that it may write to, and nothing ever reaches the file.
        x, y = (np.load(directory / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in "xy")
        about = json.loads((directory / "table.json").read_text(encoding="utf-8"))
        columns, classes, target = about["columns"], about["classes"], about["target"]
        fits = (
            x.ndim == 2
            and x.shape == (len(y), len(columns))
            and y.ndim == 1
            and x.dtype == np.float32
            and len(y)
        )
        fits = (
            fits
            and y.dtype in (np.float32, np.int64)
            and isinstance(classes, list)
            and isinstance(target, str)
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"{directory} is no table of memory-mapped arrays: {error}") from None
    if not fits:
        raise UserError(
            f"{directory}: x.npy, y.npy and table.json do not fit together; write the directory again"
        )
    return torch.from_numpy(x), torch.from_numpy(y), about


def write_table(
    directory: Path,
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    columns: Sequence[str],
    target: str = "target",
    classes: Sequence[str] = (),
) -> int:
    """Write a table chunk by chunk; memory holds one chunk at a time.

    Args:
        directory: Directory to make; it must not exist.
        chunks: Pairs of ``x`` (rows, columns), NaN where a value is missing, and ``y`` (class numbers if there are
            classes).
        columns: Names of the columns.
        target: Name of the target.
        classes: Names of the classes; none for numbers.

    Returns:
        The number of rows.

    Raises:
        UserError: The directory exists already.
        ValueError: A chunk does not have the columns, or as many rows as targets.
    """
    if directory.exists():
        raise UserError(f"{directory} exists already; name a new directory")
    draft = directory.with_name(f"{directory.name}.{uuid.uuid4().hex[:8]}.part")
    draft.mkdir(parents=True)
    kind = np.dtype(np.float32 if len(classes) in (0, 2) else np.int64)
    rows = 0
    try:
        with (draft / "x.npy").open("wb") as x_file, (draft / "y.npy").open("wb") as y_file:
            _header(x_file, (0, len(columns)), np.dtype(np.float32))
            _header(y_file, (0,), kind)
            for x, y in chunks:
                if x.shape != (len(y), len(columns)):
                    raise ValueError(
                        f"a chunk of shape {x.shape} with {len(y)} targets; {len(columns)} columns were named"
                    )
                x_file.write(np.ascontiguousarray(x, dtype=np.float32).data)
                y_file.write(np.ascontiguousarray(y, dtype=kind).data)
                rows += len(y)
            # Now that the number of rows is known; the header has room for any.
            _header(x_file, (rows, len(columns)), np.dtype(np.float32))
            _header(y_file, (rows,), kind)
        about = {"columns": list(columns), "target": target, "classes": list(classes)}
        (draft / "table.json").write_text(json.dumps(about), encoding="utf-8")
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return rows


def _header(file: Any, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """The beginning of an ``.npy`` file, always of the same length."""
    text = repr({"descr": kind.str, "fortran_order": False, "shape": shape})
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + (246).to_bytes(2, "little") + (text.ljust(245) + "\n").encode())
    file.seek(0, 2)


def write_from_file(source: Path, directory: Path, target: str) -> int:
    """Turn a CSV or Parquet file of numbers into memory-mapped arrays, a million rows in memory at most.

    Args:
        source: File of numbers, CSV or Parquet.
        directory: Directory to make.
        target: Column to predict: numbers, or text (which becomes classes).

    Returns:
        The number of rows.

    Raises:
        UserError: The file cannot be read, a column is not numbers, or the target is missing in some rows.
    """
    names, classes = _survey(source, target)
    place = {name: number for number, name in enumerate(classes)}

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in read_batches(source, TableFormat()):
            table = Table(batch, str(source))
            x = np.stack([_numbers(table, name) for name in names], axis=1).astype(np.float32)
            goal = read_as(table.column(target), CLASSES, target)
            if goal.missing.any():
                raise UserError(f"{source}: the target {target!r} is missing in some rows; remove them first")
            text = goal.as_text() if classes else goal
            y = np.array([place[word] for word in text.words])[text.values] if classes else goal.values
            yield x, y

    try:
        return write_table(directory, chunks(), names, target, classes)
    except OSError as error:
        raise UserError(f"{directory} cannot be written: {error.strerror or error}") from None


def _survey(source: Path, target: str) -> tuple[list[str], list[str]]:
    """The columns of numbers and, for a target of text, its classes: a first pass over the file."""
    names: list[str] = []
    classes: set[str] = set()
    for batch in read_batches(source, TableFormat()):
        table = Table(batch, str(source))
        table.require([target], "--target")
        names = [name for name in table.names if name != target]
        goal = read_as(table.column(target), CLASSES, target)
        if goal.kind == "text" or goal.truth:
            text = goal.as_text()
            classes.update(text.words[code] for code in np.unique(text.values[text.values >= 0]))
            if len(classes) > 1000:
                raise UserError(
                    f"{source}: the target {target!r} has more than 1000 different texts ({listed(sorted(classes), 3)})"
                )
    if not names:
        raise UserError(f"{source} has no rows, or no column beside the target")
    return names, sorted(classes)


def _numbers(table: Any, name: str) -> np.ndarray:
    column = table.column(name)
    if column.kind == "text" and not column.missing.all():
        raise UserError(
            f"{table.source}: the column {name!r} holds text; memory-mapped tables are of numbers alone"
        )
    return np.where(column.missing, np.nan, column.values)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: ``python -m pipeline.data.tables.memmap FILE DIRECTORY --target COLUMN``."""
    import argparse
    import sys

    parser = argparse.ArgumentParser(prog="python -m pipeline.data.tables.memmap", description=__doc__)
    parser.add_argument("file", type=Path, help="CSV, TSV or Parquet")
    parser.add_argument("directory", type=Path, help="made anew")
    parser.add_argument("--target", required=True, help="the column to predict")
    chosen = parser.parse_args(arguments)
    try:
        rows = write_from_file(chosen.file, chosen.directory, chosen.target)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    path = shlex.quote(f"data.path={chosen.directory}")
    print(f"{chosen.directory}: {rows:,} rows. Train on it with data=memmap {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
