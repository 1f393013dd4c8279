"""Raw samples from files, folders and standard input, a chunk at a time: memory holds one chunk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.core.encoder import Encoder

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy", ".txt": "text"}
MOST_PIXELS = 50_000_000


@dataclass
class Samples:
    """Some raw samples.

    Args:
        raw: what the encoder takes.
        names: of the files that they came from, one each; None where one file holds many.
    """

    raw: Any
    names: list[str] | None = None


def chunks(place: str, encoder: Encoder, size: int, form: str | None = None) -> Iterator[Samples]:
    """The samples at ``place`` in order, at most ``size`` at a time.

    Args:
        place: a file, a folder, or ``-`` for standard input.
        encoder: of the model, which says what a sample is.
        size: samples in a chunk.
        form: ``csv``, ``jsonl``, ``npy`` or ``text``; None for what the name ends in.

    Raises:
        UserError: there is nothing there, or not what the model takes.
    """
    kind = encoder.signature()["type"]
    path = Path(place).expanduser()
    if place != "-" and not path.exists():
        raise UserError(f"task.input={place}: there is no such file or folder")
    if place != "-" and path.is_dir():
        return _folder(path, encoder, kind, size)
    if place != "-" and path.suffix.lower() in IMAGES and form is None:
        return iter([_image_files([path], path.parent, encoder)])
    standard = {"text": "text", "columns": "csv", "tensor": "csv"}[kind]
    form = form or (standard if place == "-" else FORMATS.get(path.suffix.lower()))
    if form is None:
        known = ", ".join([*FORMATS, *IMAGES[:3]])
        raise UserError(
            f"task.input={place}: what it holds does not follow from its name; expected one of {known}, "
            "or set task.input_format"
        )
    if form == "npy":
        return _array(path, place, size)
    readers = {"csv": _csv, "jsonl": _json_lines, "text": _lines}
    return _opened(readers[form], place, encoder, kind, size)


def _opened(reader: Any, place: str, encoder: Encoder, kind: str, size: int) -> Iterator[Samples]:
    try:
        # Lines end where the file says so: other separators may stand inside a text.
        if place == "-":
            text = TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="\n")
            try:
                yield from reader(text, "standard input", encoder, kind, size)
            finally:
                text.detach()
            return
        with Path(place).expanduser().open(encoding="utf-8-sig", newline="\n") as text:
            yield from reader(text, place, encoder, kind, size)
    except UnicodeDecodeError as error:
        raise UserError(
            f"task.input={place} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise UserError(f"task.input={place} cannot be read: {error.strerror or error}") from None


def _lines(text: TextIO, place: str, encoder: Encoder, kind: str, size: int) -> Iterator[Samples]:
    """A text a line."""
    if kind != "text":
        raise UserError(f"{place} holds plain text, but this model takes {_wanted(encoder)}")
    while some := list(islice(text, size)):
        yield Samples([line.rstrip("\r\n") for line in some])


def _json_lines(text: TextIO, place: str, encoder: Encoder, kind: str, size: int) -> Iterator[Samples]:
    """A JSON value a line: a text, an object by column, or nested lists of numbers."""
    numbered = ((number, line) for number, line in enumerate(text, start=1) if line.strip())
    while some := list(islice(numbered, size)):
        values = [_json_value(line, place, number, kind) for number, line in some]
        yield Samples(_together(values, place, kind))


def _json_value(line: str, place: str, number: int, kind: str) -> Any:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}, line {number} is no JSON: {str(error).splitlines()[0]}") from None
    wanted: type = {"text": str, "columns": dict, "tensor": list}[kind]
    if kind == "text" and isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, wanted):
        names = {
            "text": 'a string or {"text": ...}',
            "columns": "an object by column",
            "tensor": "a list of numbers",
        }
        raise UserError(f"{place}, line {number} is {type(value).__name__}; expected {names[kind]}")
    return value


def _together(values: list[Any], place: str, kind: str) -> Any:
    if kind != "tensor":
        return values
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{place}: the samples are not all lists of numbers of one shape") from None


def _csv(text: TextIO, place: str, encoder: Encoder, kind: str, size: int) -> Iterator[Samples]:
    """Rows of a table; for images and series a sample a row, with or without a header."""
    import pandas as pd

    first = text.readline()
    if not first.strip():
        return
    signature = encoder.signature()
    delimiter = max(",;\t|", key=first.count)
    options: dict[str, Any] = {"sep": delimiter}
    if kind == "tensor":
        head = None if _all_numbers(first.split(delimiter)) else 0
        options |= {"header": head}
    elif kind == "text":
        options |= {"dtype": str, "keep_default_na": False}
    else:
        # What one chunk holds must not decide what a column is: codes like 007 stay as they are written.
        texts = [column["name"] for column in signature["columns"] if column["dtype"] == "string"]
        options |= {"dtype": dict.fromkeys(texts, str)}
    try:
        for frame in pd.read_csv(cast(TextIO, _Rest(first, text)), chunksize=size, **options):
            yield Samples(_numbers(frame, place) if kind == "tensor" else frame)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{place} is no table of comma-separated values: {str(error).strip()}") from None


class _Rest:
    """A text stream whose first line has been read already."""

    def __init__(self, first: str, stream: TextIO) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1) -> str:
        """The first line with what follows, then the rest."""
        first, self._first = self._first, ""
        return first + self._stream.read(size) if first else self._stream.read(size)

    def __iter__(self) -> Iterator[str]:
        first, self._first = self._first, ""
        if first:
            yield first
        yield from self._stream


def _numbers(frame: Any, place: str) -> np.ndarray:
    try:
        return np.asarray(frame.to_numpy(dtype=np.float64))
    except (TypeError, ValueError):
        raise UserError(f"{place}: expected numbers alone, a sample a row") from None


def _all_numbers(cells: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _array(path: Path, place: str, size: int) -> Iterator[Samples]:
    """Samples along the first axis, read from the disk when their turn comes."""
    if place == "-":
        raise UserError("task.input_format=npy needs a file: it cannot be read from standard input")
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"task.input={place} is no .npy file of numbers: {error}") from None
    if not isinstance(values, np.ndarray):
        raise UserError(f"task.input={place} holds several arrays; expected a .npy file with one")
    if values.ndim == 0:
        raise UserError(f"task.input={place} holds a single number; expected an array with a row a sample")
    return (Samples(np.asarray(values[start : start + size])) for start in range(0, len(values), size))


def _folder(path: Path, encoder: Encoder, kind: str, size: int) -> Iterator[Samples]:
    """Every image (or text file) below a folder, in the order of their names."""
    suffixes = {"tensor": IMAGES, "text": (".txt",)}.get(kind)
    if suffixes is None:
        raise UserError(
            f"task.input={path} is a folder, but this model takes {_wanted(encoder)}: pass a CSV file"
        )
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise UserError(f"task.input={path} holds no file ending in {', '.join(suffixes)}")
    for start in range(0, len(files), size):
        some = files[start : start + size]
        if kind == "tensor":
            yield _image_files(some, path, encoder)
        else:
            texts = [_text(file) for file in some]
            yield Samples(texts, [file.relative_to(path).as_posix() for file in some])


def _text(file: Path) -> str:
    from pipeline.data.text.files import read_text

    return read_text(file)


def _image_files(files: list[Path], base: Path, encoder: Encoder) -> Samples:
    shape = encoder.signature()["shape"][1:]
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    images = np.stack([_pixels(file, channels, height, width) for file in files])
    return Samples(images, [file.relative_to(base).as_posix() for file in files])


def _pixels(file: Path, channels: int, height: int, width: int) -> np.ndarray:
    """One image as (channels, height, width), or (height, width) for one channel."""
    from PIL import Image, UnidentifiedImageError

    if channels not in (1, 3):
        raise UserError(f"this model takes images of {channels} channels; pass them as a .npy file")
    try:
        with Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS or (image.height, image.width) != (height, width):
                raise UserError(
                    f"{file} has {image.width}×{image.height} pixels, but this model takes {width}×{height}; "
                    "resize it first"
                )
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} is no image that can be read: {error}") from None
    return pixels if channels == 1 else pixels.transpose(2, 0, 1)


def _wanted(encoder: Encoder) -> str:
    signature = encoder.signature()
    if signature["type"] == "text":
        return "texts"
    if signature["type"] == "columns":
        return "rows of " + ", ".join(column["name"] for column in signature["columns"][:8])
    return f"arrays of shape {signature['shape'][1:]}"
