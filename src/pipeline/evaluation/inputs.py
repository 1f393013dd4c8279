"""Raw samples from files, folders and standard input, a chunk at a time: memory holds one chunk.

Tables, images and texts are read by what reads them for training.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from pipeline.data.tables.delimited import csv_batches
from pipeline.data.tables.files import in_sizes, json_rows, parquet_batches
from pipeline.data.tables.formats import FORMATS, TableFormat, encoding_of, is_utf8, text_encoding
from pipeline.data.tables.frames import with_numbers
from pipeline.data.tables.packed import opened_text, suffix_of
from pipeline.data.tables.sheets import read_sheet
from pipeline.data.text.encoders import joined_texts, named
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.data.core.encoder import Encoder

FORMS = {**FORMATS, ".npy": "npy", ".txt": "text"}
FILES_AT_ONCE = 256
"""Files that hold a sample each: reading them costs more than a chunk does, and images may be large."""


@dataclass
class Samples:
    """Some raw samples.

    Args:
        raw: What the encoder takes.
        names: Names of the files that they came from, one each; None where one file holds many.
    """

    raw: Any
    names: list[str] | None = None


@dataclass(frozen=True)
class _Source:
    """Where samples come from, and what they are for."""

    place: str
    encoder: Encoder
    size: int
    beside: Collection[str] = ()

    @property
    def path(self) -> Path:
        return Path(self.place).expanduser()

    @property
    def name(self) -> str:
        return "standard input" if self.place == "-" else self.place

    @property
    def kind(self) -> str:
        """``text``, ``columns`` or ``tensor``."""
        return str(self.encoder.signature()["type"])

    @property
    def written(self) -> TableFormat:
        """How a table is written: as the training data was; a delimiter that does not fit is found."""
        how: TableFormat = getattr(self.encoder, "written", TableFormat())
        return how if how.delimiter else replace(how, delimiter="auto")


def chunks(
    place: str, encoder: Encoder, size: int, form: str | None = None, beside: Collection[str] = ()
) -> Iterator[Samples]:
    """The samples at ``place`` in order, at most ``size`` at a time.

    Args:
        place: A file, a folder, or ``-`` for standard input.
        encoder: The model's encoder, which says what a sample is.
        size: Number of samples in a chunk.
        form: Format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, ``npy`` or ``text``; None for the one that the name ends
            in, or that fits the model where there is no name.
        beside: Columns of a table that the encoder does not know, to be kept as they are written.

    Raises:
        UserError: There is nothing at ``place``, or not what the model takes.
    """
    source = _Source(place, encoder, size, beside)
    if place != "-" and not source.path.exists():
        raise UserError(f"task.input={place}: there is no such file or folder")
    if place != "-" and source.path.is_dir():
        return _folder(source)
    suffix = suffix_of(source.path)
    remembered = source.written.format
    if (
        form is None
        and place != "-"
        and suffix not in FORMS
        and source.kind == "tensor"
        and encoder.takes(source.path)
    ):
        return _files([source.path], source.path.parent, source)
    standard = {"text": "text", "columns": "csv", "tensor": "csv"}[source.kind]
    known = None if remembered == "auto" else remembered
    form = form or (standard if place == "-" else FORMATS.get(suffix) or known or FORMS.get(suffix))
    if form is None:
        raise UserError(
            f"task.input={place}: what it holds does not follow from its name; expected one of "
            f"{', '.join(FORMS)}{', an image' if _takes_images(encoder) else ''}, or set task.input_format"
        )
    if form == "npy":
        return _array(source)
    if form == "parquet":
        return _parquet(source)
    if form in ("xlsx", "ods"):
        return _sheet(source, form)
    readers = {"csv": _csv, "tsv": _csv, "jsonl": _json_lines, "text": _lines}
    return readers[form](source, form)


def _takes_images(encoder: Encoder) -> bool:
    return encoder.signature()["type"] == "tensor" and encoder.takes(Path("image.png"))


@contextmanager
def _opened(source: _Source, how: TableFormat | None = None) -> Iterator[TextIO]:
    """The input's text; a table's by its own encoding."""
    how = how or TableFormat()
    encoding = text_encoding(how.encoding)
    try:
        # Lines end where the file says so: other separators may stand inside a text.
        if source.place == "-":
            text = TextIOWrapper(sys.stdin.buffer, encoding=encoding, newline="\n")
            try:
                yield text
            finally:
                text.detach()
            return
        encoding = encoding_of(source.path, how)
        if not encoding.lower().startswith("utf") and is_utf8(source.path):
            # Another program wrote it than the file that was learnt from.
            encoding = "utf-8-sig"
        with opened_text(source.path, encoding, newline="\n") as opened:
            yield opened
    except UnicodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        where = f" ({error.reason} at byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        command = f"iconv -f cp1252 -t utf-8 {shlex.quote(source.place)} > new{source.path.suffix}"
        raise UserError(
            f"task.input={source.place} is not {name} text{where}; turn it into UTF-8: {command}"
        ) from None
    except OSError as error:
        raise UserError(f"task.input={source.place} cannot be read: {error.strerror or error}") from None


def _lines(source: _Source, form: str) -> Iterator[Samples]:
    """A text a line."""
    if source.kind != "text":
        raise UserError(f"{source.name} holds plain text, but this model takes {_wanted(source.encoder)}")
    with _opened(source, source.written) as text:
        while some := list(islice(text, source.size)):
            yield Samples([line.rstrip("\r\n") for line in some])


def _json_lines(source: _Source, form: str) -> Iterator[Samples]:
    """A JSON value a line: a text, an object by column, or nested lists of numbers."""
    with _opened(source) as text:
        rows = json_rows(text, source.name)
        while some := list(islice(rows, source.size)):
            values = [_json_value(value, number, source) for number, value in some]
            yield Samples(values if source.kind != "tensor" else _together(values, source.name))


def _json_value(value: Any, number: int, source: _Source) -> Any:
    if source.kind == "text" and isinstance(value, dict) and not source.beside:
        columns = named(getattr(source.encoder, "column", "text"))
        if len(columns) > 1 and set(columns) <= set(value):
            value = joined_texts([value[name] for name in columns])
        else:
            value = value.get(columns[0] if len(columns) == 1 else "text", value.get("text"))
    wanted: tuple[type, ...] = {"text": (str,), "columns": (dict,), "tensor": (list,)}[source.kind]
    if not isinstance(value, (dict,) if source.beside else wanted):
        names = {
            "text": 'a string or {"text": ...}',
            "columns": "an object by column",
            "tensor": "a list of numbers",
        }
        raise UserError(
            f"{source.name}, line {number} is {type(value).__name__}; expected {names[source.kind]}"
        )
    return value


def _together(values: list[Any], place: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{place}: the samples are not all lists of numbers of one shape") from None


def _csv(source: _Source, form: str) -> Iterator[Samples]:
    """Rows of a table; for images and series a sample a row, with or without a header."""
    how = source.written
    if form == "tsv":
        how = replace(how, delimiter="\t")
    # What one chunk holds must not decide what a column is: everything is read as it is written.
    header = None if source.kind == "tensor" else how.header is not False
    with _opened(source, how) as text:
        rows = csv_batches(
            text, source.name, how, as_text=True, header=header, wanted=_columns(source.encoder)
        )
        for table in in_sizes(rows, source.size):
            yield _of_table(table, source)


def _columns(encoder: Encoder) -> list[str]:
    """Names of columns that the model knows."""
    signature = encoder.signature()
    if "column" in signature and "columns" not in signature:
        return [signature["column"]]
    return [column["name"] for column in signature.get("columns", ())]


def _sheet(source: _Source, form: str) -> Iterator[Samples]:
    if source.place == "-":
        raise UserError(f"task.input_format={form} needs a file: it cannot be read from standard input")
    for table in in_sizes(iter([read_sheet(source.path, source.written, form)]), source.size):
        yield _of_table(table, source)


def _parquet(source: _Source) -> Iterator[Samples]:
    import pyarrow as pa

    if source.place == "-":
        raise UserError("task.input_format=parquet needs a file: it cannot be read from standard input")
    try:
        for table in parquet_batches(source.path, source.size):
            yield _of_table(table, source)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"task.input={source.place} is no Parquet file: {error}") from None


def _of_table(table: Any, source: _Source) -> Samples:
    signature = source.encoder.signature()
    if source.kind == "text":
        frame = table.to_pandas()
        texts = [name for name in frame.columns if name not in source.beside]
        return Samples(frame.fillna(dict.fromkeys(texts, "")))
    if source.encoder.takes_tables:
        # What a value is, the encoder knows.
        return Samples(table.to_pandas() if source.beside else table)
    # Codes like 007 stay as they are written.
    texts = [column["name"] for column in signature.get("columns", ()) if column["dtype"] == "string"]
    frame = with_numbers(table, [*texts, *source.beside], source.written.decimal).to_pandas()
    return Samples(_numbers(frame, source.name) if source.kind == "tensor" else frame)


def _numbers(frame: pd.DataFrame, place: str) -> np.ndarray:
    try:
        return np.asarray(frame.to_numpy(dtype=np.float64))
    except (TypeError, ValueError):
        raise UserError(f"{place}: expected numbers alone, a sample a row") from None


def _array(source: _Source) -> Iterator[Samples]:
    """Samples along the first axis, read from the disk when their turn comes."""
    place = source.place
    if place == "-":
        raise UserError("task.input_format=npy needs a file: it cannot be read from standard input")
    try:
        values = np.load(source.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"task.input={place} is no .npy file of numbers: {error}") from None
    if not isinstance(values, np.ndarray):
        raise UserError(f"task.input={place} holds several arrays; expected a .npy file with one")
    if values.ndim == 0:
        raise UserError(f"task.input={place} holds a single number; expected an array with a row a sample")
    size = source.size
    return (Samples(np.asarray(values[start : start + size])) for start in range(0, len(values), size))


def _folder(source: _Source) -> Iterator[Samples]:
    """Every image (or text file) below a folder, in the order of their names."""
    path, encoder = source.path, source.encoder
    if source.kind == "columns":
        raise UserError(
            f"task.input={path} is a folder, but this model takes {_wanted(encoder)}: pass a CSV file"
        )
    files = sorted(file for file in path.rglob("*") if encoder.takes(file) and file.is_file())
    if not files:
        raise UserError(f"task.input={path} holds no file with what this model takes: {_wanted(encoder)}")
    return _files(files, path, source)


def _files(files: list[Path], base: Path, source: _Source) -> Iterator[Samples]:
    """Files that hold a sample each."""
    at_once = min(source.size, FILES_AT_ONCE)
    for start in range(0, len(files), at_once):
        some = files[start : start + at_once]
        yield Samples(source.encoder.read(some), [file.relative_to(base).as_posix() for file in some])


def _wanted(encoder: Encoder) -> str:
    signature = encoder.signature()
    if signature["type"] == "text":
        return "texts"
    if signature["type"] == "columns":
        return "rows of " + ", ".join(column["name"] for column in signature["columns"][:8])
    if _takes_images(encoder):
        return "images"
    sides = ", ".join("any" if side < 0 else str(side) for side in signature["shape"][1:])
    return f"arrays of shape ({sides})"
