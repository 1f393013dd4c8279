"""Where a column is that a table seems to lack: below other lines, on another sheet, between other delimiters."""

from __future__ import annotations

import csv
import re
import shlex
from contextlib import suppress
from pathlib import Path

from pipeline.data.tables.delimited import DELIMITERS
from pipeline.data.tables.formats import TableFormat, encoding_of, file_format
from pipeline.data.tables.guesses import typed
from pipeline.data.tables.packed import opened_text
from pipeline.data.tables.sheets import first_rows

LOOKED_AT = 30
"""Number of lines in which names of columns are looked for."""


def where_named(path: Path, how: TableFormat, name: str) -> str:
    """What to do about a column that is not where its name was looked for, as the end of a message.

    Args:
        path: The file.
        how: How it was read.
        name: Name of the column.

    Returns:
        The advice; empty where the file does not tell.
    """
    # This only adds to a message: whatever is wrong with the file has another.
    with suppress(Exception):
        kind = file_format(path, how)
        if kind in ("xlsx", "ods"):
            return _in_sheets(path, how, kind, name)
        if kind in ("csv", "tsv"):
            return _in_lines(path, how, name)
    return ""


def _in_lines(path: Path, how: TableFormat, name: str) -> str:
    with opened_text(path, encoding_of(path, how), newline="") as text:
        lines = [line for _, line in zip(range(LOOKED_AT), text, strict=False)]
    if not lines:
        return ""
    if name in lines[0].split():
        if not re.search(r"\S(?:  |\t)", lines[0].strip()):
            return f"; are blanks what separates the values? {typed('data.delimiter', ' ')}"
        return "; the columns stand at fixed places: write the table with commas"
    for number, line in enumerate(lines[1:], start=2):
        if any(name in _cells(line, delimiter) for delimiter in DELIMITERS):
            return f"; {leave_out(path, number)}"
    return ""


def leave_out(path: Path, number: int) -> str:
    """That a line further down has the columns' names, and what leaves out those before it.

    Args:
        path: The file.
        number: Number of the line, from 1.
    """
    command = f"tail -n +{number} {shlex.quote(str(path))} > table.csv"
    return f"line {number} seems to name the columns: leave out the lines before it ({command})"


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _in_sheets(path: Path, how: TableFormat, kind: str, name: str) -> str:
    for sheet, rows in first_rows(path, kind, LOOKED_AT).items():
        for number, row in enumerate(rows, start=1):
            if name in (str(cell).strip() for cell in row):
                if number == 1:
                    return f"; the sheet {sheet!r} has it: {typed('data.sheet', sheet)}"
                return f"; row {number} of the sheet {sheet!r} names it: leave out the rows before it"
    return ""
