"""A person's own table: CSV, TSV, Parquet or JSON lines, one column to predict."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.spec import Spec
from pipeline.data.core.splitting import drawn_but_the_first
from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.files import forget_large, read_table
from pipeline.data.tables.fitting import ColumnChoice, fit_encoder
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.goal import Goal, find_goal, is_classification, one_spelling
from pipeline.data.tables.guesses import Guess, say
from pipeline.data.tables.hints import where_named
from pipeline.data.tables.looking import Look, look, repeats
from pipeline.data.tables.reading import Reading, column_of, find_reading
from pipeline.data.tables.refolding import Refoldable
from pipeline.data.tables.rows import TableRows
from pipeline.data.tables.splits import LEFT_OUT, TEST, TRAIN, VALIDATION, SplitPlan, parts
from pipeline.data.tables.values import Column, Table, is_text, listed
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, COLUMN, COLUMNS, PATH_OR_NULL, Flag, FlagOrNull, Word

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline


class TableData(Refoldable):
    """Rows of a file, with one column as the target.

    What each column is follows from the file: numbers are scaled, missing ones filled with the training median and
    flagged, dates unfolded, text becomes categories. Constant and identifier-like columns are dropped with a warning.
    Everything that is fitted is fitted on the training rows.

    The target is predicted as a class if it is text or true/false, or if it is whole numbers of which there are at most
    20 different ones, each occurring 5 times on average; otherwise as a number. ``kind`` decides it by hand.

    Args:
        name: Name of the data set, shown and tagged.
        path: File with the rows.
        target: Column to predict.
        kind: ``auto``, ``classification`` or ``regression``.
        format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, or ``auto``: by the file's extension.
        delimiter: Character between a CSV's values; None is a comma (a tabulator for TSV).
        encoding: Encoding of a CSV (UTF-16 is found out).
        decimal: Decimal mark of a CSV's numbers; a decimal comma is found out column by column.
        header: Whether the first line names the columns; None finds out.
        sheet: Name or number (from 0) of the sheet of a workbook; None is the first.
        split: ``fraction``, ``column``, ``date`` or ``hash``, see :class:`SplitPlan`.
        split_column: Column that decides in the last three ways.
        test_from: First date of the test rows with ``split=date``.
        test_path: File of its own for the test rows.
        test_fraction: Share of the rows for the test, where no file, column or date decides.
        scaling: ``standard``, ``robust`` or ``none``.
        categorical: Columns of numbers that are categories.
        numeric: Columns to take as numbers.
        drop: Columns to leave out.
        keep: Columns to keep though they look constant or like identifiers.
        fold_case: Whether spellings of a category or class that differ in case or blanks alone are one.
        duplicates: ``keep``, or ``drop``: of rows that are the same in every column the first alone is used.
        max_categories: Number of inputs for the most frequent categories of a column; the others share one.
        target_unit: Unit of a number that is predicted, for the reports.
        **shared: Settings that every data set takes, see :class:`~pipeline.data.core.module.DataModule`.
    """

    encoder: TableEncoder
    goal: Goal
    format_found: TableFormat
    """How the file turned out to be written."""
    reading: Reading
    """How the target is understood."""
    given: TableEncoder | None = None
    """An encoder that was fitted before; None fits one."""
    places: dict[str, np.ndarray]
    """Numbers of the file's rows in each split (test rows of a file of their own have none)."""

    def __init__(
        self,
        name: str = "csv",
        path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        target: Annotated[str | None, COLUMN] = None,
        kind: str = "auto",
        format: str = "auto",
        delimiter: str | None = None,
        encoding: str = "utf-8",
        decimal: str = ".",
        header: Annotated[bool | None, FlagOrNull()] = None,
        sheet: str | int | None = None,
        split: str = "fraction",
        split_column: Annotated[str | None, COLUMN] = None,
        test_from: str | None = None,
        test_path: Annotated[str | Path | None, PATH_OR_NULL] = None,
        test_fraction: Annotated[float, BELOW_ONE] = 0.15,
        scaling: Annotated[str, Word(("standard", "robust", "none"))] = "standard",
        categorical: Annotated[Sequence[str] | str, COLUMNS] = (),
        numeric: Annotated[Sequence[str] | str, COLUMNS] = (),
        drop: Annotated[Sequence[str] | str, COLUMNS] = (),
        keep: Annotated[Sequence[str] | str, COLUMNS] = (),
        fold_case: Annotated[bool, Flag()] = True,
        duplicates: Annotated[str, Word(("keep", "drop"))] = "keep",
        max_categories: int = 100,
        target_unit: str = "",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if path is None or target is None:
            raise UserError(
                f"data={name} needs a file and the column to predict: data.path=FILE data.target=COLUMN"
            )
        if kind not in ("auto", "classification", "regression"):
            raise UserError(f"data.kind={kind}; expected auto, classification or regression")
        if duplicates not in ("keep", "drop"):
            raise UserError(f"data.duplicates={duplicates}; expected keep or drop")
        self.path, self.target, self.kind = Path(path).expanduser(), str(target).strip(), kind
        self.test_path = None if test_path is None else Path(test_path).expanduser()
        self.duplicates = duplicates
        self.format = TableFormat(format, delimiter, encoding, decimal, header, sheet)
        self.guesses: list[Guess] = []
        self.plan = SplitPlan(
            split,
            None if split_column is None else str(split_column).strip(),
            test_from,
            test_fraction,
            self.validation_fraction,
            self.folds,
            self.fold,
            self.seed,
        )
        self.plan.check()
        self.choice = ColumnChoice(
            _names(categorical),
            _names(numeric),
            _names(drop),
            _names(keep),
            max_categories,
            scaling,
            fold_case,
        )
        self.target_unit = target_unit
        self.source = str(path)

    def setup(self, stage: str | None = None) -> None:
        table, self.guesses = self._table()
        test_table = None if self.test_path is None else self.test_table(table)
        self._check(table, test_table)
        reading, guesses = self._reading(table)
        self.guesses += guesses
        target = self._target(table, reading)
        part = self._parts(table, target, separate_test=test_table is not None)
        train, validation, test = (np.flatnonzero(part == name) for name in (TRAIN, VALIDATION, TEST))
        if len(train) < 2:
            raise UserError(
                f"{self.path}: {len(train)} rows are left for training; bring more data or lower the fractions"
            )
        pool = np.concatenate([train, validation])
        goal = replace(
            find_goal(target, train, pool, self.kind, self.target, str(self.path)), folds=reading.folds
        )
        if self.train_on_all:
            train = np.sort(pool)
        names = [name for name in table.names if name not in (self.target, self.plan.column)]
        self.reading = reading
        if self.given is not None:
            self.encoder = self.given
        else:
            self.encoder, found = fit_encoder(table, train, names, self.choice, table.how, reading)
            self.guesses += found
        self.places, self.goal, self.format_found = (
            {"train": train, "validation": validation, "test": test},
            goal,
            table.how,
        )
        self._build(table, target, goal, train, validation)
        self._build_test(test_table, table, target, goal, test)
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if self.train_on_all:
            # They are training rows by intention.
            del splits["validation"]
        there = {name: split for name, split in splits.items() if isinstance(split, TableRows)}
        self.guesses += look(Look(table, self.encoder, target, goal, train, self.plan, there))
        say(self.guesses, str(self.path))
        files = [read for read in (table, test_table) if read is not None]
        for read in files:
            read.release()
        forget_large(files)

    def _table(self) -> tuple[Table, list[Guess]]:
        """The file, and what was guessed about its first line."""
        table = read_table(self.path, self.format)
        if self.format.header is not None or table.how.header is not False:
            return table, []
        what = f"the first line of {self.path.name} looks like data"
        if self.target not in table.names:
            named = read_table(self.path, replace(self.format, header=True))
            if self.target in named.names:
                what += ", but the target is named in it: it is taken for the columns' names"
                return named, [Guess(what, "data.header=false", True, effect="calls the columns f0, f1 …")]
        what += f": the columns are called {table.names[0]} to {table.names[-1]}"
        return table, [Guess(what, "data.header=true", True, effect="takes it for the columns' names")]

    def targets_of(self, table: Table, rows: np.ndarray) -> Tensor:
        """Class numbers, or the numbers to predict, of some rows of a file."""
        return self.goal.targets(self._target(table, self.reading).rows(rows), table.source)

    def test_table(self, table: Table) -> Table:
        """The file with the test rows, read as the training file was.

        Args:
            table: The training file.
        """
        assert self.test_path is not None
        if not self.test_path.is_file():
            raise UserError(f"data.test_path={self.test_path}: there is no such file")
        return read_table(self.test_path, self._test_format(table), _texts_of(table))

    def _test_format(self, table: Table) -> TableFormat:
        """How the test file is written: its first line is what the first line of the training file is."""
        header = False if table.how.header is False else self.format.header
        return replace(self.format, header=header)

    def _reading(self, table: Table) -> tuple[Reading, list[Guess]]:
        """How the target is understood: by all rows, since what it is decides how they are split."""
        return find_reading(
            _column(table, self.target),
            None,
            self.target,
            table.how,
            categorical=self.kind == "classification",
            folds=self.choice.folds,
            target=True,
        )

    def _target(self, table: Table, reading: Reading) -> Column:
        _column(table, self.target)
        target = column_of(table, self.target, reading, strict=False)
        return one_spelling(target) if reading.folds else target

    def _check(self, table: Table, test_table: Table | None) -> None:
        try:
            table.require([self.target], "data.target")
        except UserError as error:
            raise UserError(f"{error}{where_named(self.path, self.format, self.target)}") from None
        self.choice.check(table)
        if self.plan.column is not None:
            table.require([self.plan.column], "data.split_column")
        if test_table is not None:
            test_table.require([self.target], "data.target")

    def _parts(self, table: Table, target: Column, separate_test: bool) -> np.ndarray:
        """The part of each row; rows without a target belong to none."""
        unknown = target.missing
        if unknown.all():
            raise UserError(f"{table.source}: the target {self.target!r} has no value in any row")
        if unknown.any():
            what = f"{unknown.sum()} of {len(unknown)} rows have no {self.target!r} and are left out"
            advice = "fill them in, or give them a class of their own, like unknown"
            self.guesses.append(Guess(what, costly=True, columns=(self.target,), effect=advice))
        repeated = np.zeros(len(table), dtype=bool)
        if self.duplicates == "drop":
            repeated = repeats(table)
            if repeated.any():
                what = f"{repeated.sum()} of {len(table)} rows repeat an earlier one and are left out"
                self.guesses.append(Guess(what, "data.duplicates=keep", effect="keeps them"))
        part = parts(table, self.plan, separate_test)
        if part is None:
            part = self._at_random(np.flatnonzero(~(unknown | repeated)), target, separate_test)
        part[unknown] = LEFT_OUT
        part[repeated] = LEFT_OUT
        if self.plan.way == "column" and not (part == VALIDATION).any():
            self._hold_out(part, target)
        return part

    def _at_random(self, rows: np.ndarray, target: Column, separate_test: bool) -> np.ndarray:
        part = np.full(len(target), LEFT_OUT, dtype=np.int8)
        part[rows] = TRAIN
        if not separate_test:
            labels = self._labels(target.rows(rows))
            part[rows[drawn_but_the_first(len(rows), self.plan.test_fraction, self.seed, labels)]] = TEST
        self._hold_out(part, target)
        return part

    def _hold_out(self, part: np.ndarray, target: Column) -> None:
        """Turn some of the training rows into validation rows, at random."""
        rows = np.flatnonzero(part == TRAIN)
        labels = self._labels(target.rows(rows))
        if self.folds:
            targets = torch.zeros(len(rows)) if labels is None else torch.from_numpy(labels)
            chosen = self.split_rows(targets, stratify=labels is not None)[1].numpy()
        else:
            chosen = drawn_but_the_first(len(rows), self.plan.validation_fraction, self.seed + 1, labels)
        part[rows[chosen]] = VALIDATION

    def _labels(self, target: Column) -> np.ndarray | None:
        """Classes as numbers, by which a random split is balanced; None for numbers."""
        if not is_classification(target, self.kind):
            return None
        return np.unique(target.values, return_inverse=True)[1]

    def _build(
        self, table: Table, target: Column, goal: Goal, train: np.ndarray, validation: np.ndarray
    ) -> None:
        targets = goal.targets(target.rows(train), table.source)
        self.spec = Spec(
            task=goal.task,
            input="vector",
            input_shape=(self.encoder.width,),
            outputs=len(goal.classes) if goal.task == "multiclass" else 1,
            classes=goal.classes,
            target_name=self.target,
            target_unit=self.target_unit or ("" if goal.classes else self.reading.unit),
            class_weights=self.class_weights(targets, len(goal.classes)) if goal.classes else (),
            target_mean=0.0 if goal.classes else float(targets.double().mean()),
            target_std=1.0 if goal.classes else float(targets.double().std(correction=0)),
        )
        if not goal.classes and self.balance != "none":
            raise UserError(
                f"data.balance={self.balance} is for classes, but {self.target!r} is predicted as a number"
            )
        rows = self._rows(table, train, targets)
        self.encoder.learn_usual(torch.as_tensor(rows.x), rows.indices)
        self.train = self.oversampled(rows)
        self.validation = None
        if len(validation):
            self.validation = self._rows(
                table, validation, goal.targets(target.rows(validation), table.source)
            )

    def _build_test(
        self, own: Table | None, table: Table, target: Column, goal: Goal, test: np.ndarray
    ) -> None:
        if own is not None:
            table, target = _complete(own, self.encoder.columns), self._target(own, self.reading)
            test = np.flatnonzero(~target.missing)
        self.test = (
            self._rows(table, test, goal.targets(target.rows(test), table.source)) if len(test) else None
        )

    def _rows(self, table: Table, rows: np.ndarray, targets: Tensor) -> TableRows:
        dense, codes = self.encoder.compact(table, rows)
        return TableRows(dense, codes, self.encoder.width, targets)

    @property
    def can_be_refolded(self) -> bool:
        return self.plan.way == "fraction" and self.balance != "oversample"

    def encoded_by(self, encoder: TableEncoder) -> TableData:
        """The same rows as an encoder that was fitted before makes them, such as that of an earlier version's model.

        Args:
            encoder: The encoder.
        """
        view = copy.copy(self)
        view.given = encoder
        view.setup()
        return view

    def baselines(self) -> dict[str, Baseline]:
        """The mean, and ordinary least squares where the inputs are few enough to solve for."""
        from pipeline.data.core.baselines import linear_regression

        found = super().baselines()
        if self.spec.task == "regression" and len(self.train) * self.encoder.width < 50_000_000:
            found["linear"] = linear_regression
        return found


def _column(table: Table, name: str) -> Column:
    try:
        return table.column(name)
    except TypeError as error:
        raise UserError(f"{table.source}: the target {name!r} cannot be predicted: {error}") from None


def _complete(table: Table, names: Sequence[str]) -> Table:
    if missing := [name for name in names if name not in table.names]:
        raise UserError(f"{table.source} lacks the columns {listed(missing)} that the training file has")
    return table


def _names(given: Sequence[str] | str) -> tuple[str, ...]:
    """Names of columns; one of them need not be a list."""
    some = (given,) if isinstance(given, str | int | float) else given
    return tuple(str(name).strip() for name in some)


def _texts_of(table: Table) -> frozenset[str]:
    """The columns that are words in a file: a second file must not have them as numbers."""
    return frozenset(name for name in table.names if is_text(table.arrow.column(name)))
