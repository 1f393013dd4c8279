"""A person's own texts: a folder a class, or a table with a column of texts and a column of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.core.memory import check_memory
from pipeline.data.text.corpus import TEST, TRAIN, Corpus, Document
from pipeline.data.text.documents import Documents
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class TextFolder(Documents):
    """A folder of texts for each class: ``DIR/CLASS/*``, or ``DIR/train/CLASS/*`` and ``DIR/test/CLASS/*``.

    Args:
        path: the directory.
        test_path: a directory of the same form to test on; without one (and without ``DIR/test``) a share of
            the texts is held out (``test_fraction``).
        **settings: see :class:`Documents`.
    """

    def __init__(
        self, path: str, test_path: str | None = None, name: str = "text_folder", **settings: Any
    ) -> None:
        super().__init__(name=name, **settings)
        self.path, self.test_path = Path(path), Path(test_path) if test_path else None

    def read(self, download: bool) -> Corpus:
        files = self._files()
        self.source = str(self.path)
        state = hashlib.sha256()
        for file, label, part in files:
            state.update(f"{label}\0{part}\0".encode())
            state.update(hashlib.sha256(file.read_bytes()).digest())
        texts = (Document(read_text(file), label, part) for file, label, part in files)
        return self.cached(f"folder-{state.hexdigest()[:16]}", lambda: Corpus.build(texts, self.ngrams))

    def _files(self) -> list[tuple[Path, str, int]]:
        learn, test = self.path, self.test_path
        if test is None and (self.path / "train").is_dir() and (self.path / "test").is_dir():
            learn, test = self.path / "train", self.path / "test"
        return _labelled(learn, TRAIN) + (_labelled(test, TEST) if test else [])


class TextTable(Documents):
    """A table with a text and a class in each row: CSV, TSV, Parquet or JSON lines.

    Args:
        path: the file; its form is told by its name (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``).
        text: name of the column of texts.
        target: name of the column of classes.
        test_path: another file of the same form to test on; without one a share of the rows is held out.
        **settings: see :class:`Documents`.
    """

    def __init__(
        self,
        path: str,
        text: str = "text",
        target: str = "label",
        test_path: str | None = None,
        name: str = "text_csv",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, **{"target_name": target, **settings})
        self.path, self.text, self.target = Path(path), text, target
        self.test_path = Path(test_path) if test_path else None

    def read(self, download: bool) -> Corpus:
        self.source = str(self.path)
        parts = [(self.path, TRAIN)] + ([(self.test_path, TEST)] if self.test_path else [])
        state = hashlib.sha256(f"{self.text}\0{self.target}".encode())
        for path, _ in parts:
            state.update(_content(path))
        return self.cached(
            f"table-{state.hexdigest()[:16]}",
            lambda: Corpus.build(
                (row for path, part in parts for row in self._documents(path, part)), self.ngrams
            ),
        )

    def _documents(self, path: Path, part: int) -> Iterator[Document]:
        frame = read_columns(path, [self.text, self.target])
        labelled = frame[frame[self.target].notna()]
        if not len(labelled):
            raise UserError(f"{path} holds no row with a value in the column {self.target!r}")
        for text, label in zip(labelled[self.text], labelled[self.target], strict=True):
            yield Document(text if isinstance(text, str) else "", str(label), part)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    content = _content(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{content[error.start]:02x}); "
            f"convert it, for example with: iconv -f latin1 -t utf-8"
        ) from None


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Some columns of a table as strings, missing values as NaN.

    Raises:
        UserError: there is no such file or column, or the file cannot be parsed.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(f"no file at {path}; set data.path to a .csv, .tsv, .parquet or .jsonl file")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix in (".jsonl", ".ndjson"):
            frame = pd.read_json(path, lines=True, dtype=False)
        else:
            separator = "\t" if path.suffix == ".tsv" else ","
            # As they stand: pandas would read the word "None" as a missing value and "007" as a number.
            frame = pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig"
            )
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not UTF-8 text; convert it, for example with: iconv -f latin1 -t utf-8"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from None
    for column in columns:
        if column not in frame.columns:
            key = "data.text" if column == columns[0] else "data.target"
            raise UserError(
                f"{path} has no column {column!r}; it has {list(frame.columns)}: set {key} to one of them"
            )
    if not len(frame):
        raise UserError(f"{path} holds a header but no rows")
    return frame[columns]


def _labelled(directory: Path, part: int) -> list[tuple[Path, str, int]]:
    if not directory.is_dir():
        raise UserError(
            f"no directory at {directory}; set data.path to one with a folder of texts for each class"
        )
    folders = sorted(
        folder for folder in directory.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )
    for place in (*folders, *(file for folder in folders for file in folder.iterdir())):
        if place.is_symlink() and not place.resolve().is_relative_to(directory.resolve()):
            raise UserError(f"{place} is a link out of {directory}: put the files themselves there")
    files = [
        (file, folder.name, part)
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".")
    ]
    if not files:
        raise UserError(f"{directory} holds no texts; expected a folder for each class with text files in it")
    return files


def _content(path: Path) -> bytes:
    try:
        check_memory(4 * path.stat().st_size, str(path), "split it, or train on a part of it")
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; set data.path to an existing file"
        ) from None
