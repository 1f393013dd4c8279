"""A person's own texts: a folder a class, or a table with a column of texts and a column of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pipeline.data.tables.files import read_rows
from pipeline.data.tables.formats import TableFormat
from pipeline.data.text.corpus import TEST, TRAIN, Corpus, Document
from pipeline.data.text.documents import Documents
from pipeline.data.text.encoders import joined_texts, named
from pipeline.data.text.reading import content_of, read_text
from pipeline.errors import UserError
from pipeline.settings import COLUMN, PATH_OR_NULL


class TextFolder(Documents):
    """A folder of texts for each class: ``DIR/CLASS/*``, or ``DIR/train/CLASS/*`` and ``DIR/test/CLASS/*``.

    Args:
        path: Directory of the texts.
        test_path: Directory of the same form to test on; without one (and without ``DIR/test``) a share of the texts is
            held out (``test_fraction``).
        encoding: Encoding of the files (UTF-16 is found out).
        **settings: Settings of labelled texts, see :class:`Documents`.
    """

    def __init__(
        self,
        path: Annotated[str, PATH_OR_NULL],
        test_path: Annotated[str | None, PATH_OR_NULL] = None,
        name: str = "text_folder",
        encoding: str = "utf-8",
        **settings: Any,
    ) -> None:
        super().__init__(name=name, **settings)
        self.path = Path(path).expanduser()
        self.test_path = Path(test_path).expanduser() if test_path else None
        self.format = TableFormat(encoding=encoding)

    def read(self, download: bool) -> Corpus:
        files = self._files()
        self.source = str(self.path)
        state, encoding = hashlib.sha256(), self.format.encoding
        for file, label, part in files:
            state.update(f"{label}\0{part}\0{'' if encoding == 'utf-8' else encoding}".encode())
            state.update(hashlib.sha256(file.read_bytes()).digest())
        texts = (Document(read_text(file, encoding), label, part) for file, label, part in files)
        return self.cached(f"folder-{state.hexdigest()[:16]}", lambda: self.tokenised(texts))

    def _files(self) -> list[tuple[Path, str, int]]:
        learn, test = self.path, self.test_path
        if test is None and (self.path / "train").is_dir() and (self.path / "test").is_dir():
            learn, test = self.path / "train", self.path / "test"
        return _labelled(learn, TRAIN) + (_labelled(test, TEST) if test else [])


class TextTable(Documents):
    """A table with a text and a class in each row: CSV, TSV, Parquet or JSON lines.

    Args:
        path: File of the table; its name tells its form (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` …).
        text: Name of the column of texts; of several columns the texts are joined, in this order.
        target: Name of the column of classes.
        test_path: Another file of the same form to test on; without one a share of the rows is held out.
        format: Form of the file where its name does not tell it.
        delimiter: Character between a CSV's values; None is a comma (a tabulator for TSV).
        encoding: Encoding of a CSV (UTF-16 is found out).
        sheet: Name or number (from 0) of the sheet of a workbook; None is the first.
        **settings: Settings of labelled texts, see :class:`Documents`.
    """

    def __init__(
        self,
        path: Annotated[str, PATH_OR_NULL],
        text: str | list[str] = "text",
        target: Annotated[str, COLUMN] = "label",
        test_path: Annotated[str | None, PATH_OR_NULL] = None,
        name: str = "text_csv",
        format: str = "auto",
        delimiter: str | None = None,
        encoding: str = "utf-8",
        sheet: str | int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(name=name, **{"target_name": target, **settings})
        self.column = text if isinstance(text, str) else list(text)
        self.path, self.text, self.target = Path(path).expanduser(), self.column, target
        self.test_path = Path(test_path).expanduser() if test_path else None
        self.format = TableFormat(format, delimiter, encoding, sheet=sheet)

    def read(self, download: bool) -> Corpus:
        self.source = str(self.path)
        parts = [(self.path, TRAIN)] + ([(self.test_path, TEST)] if self.test_path else [])
        written = self.format.differences()
        state = hashlib.sha256(f"{self.text}\0{self.target}{written or ''}".encode())
        for path, _ in parts:
            state.update(content_of(path))
        return self.cached(
            f"table-{state.hexdigest()[:16]}",
            lambda: self.tokenised(row for path, part in parts for row in self._documents(path, part)),
        )

    def _documents(self, path: Path, part: int) -> Iterator[Document]:
        rows = labelled = 0
        columns = [("data.text", name) for name in named(self.text)] + [("data.target", self.target)]
        for *texts, label in read_rows(path, columns, self.format):
            rows += 1
            if label is not None and label == label:
                labelled += 1
                yield Document(joined_texts(texts), str(label), part)
        if not rows:
            raise UserError(f"{path} holds a header but no rows")
        if not labelled:
            raise UserError(f"{path} holds no row with a value in the column {self.target!r}")


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
