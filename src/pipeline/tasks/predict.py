"""Predict with a logged model: raw samples in, labels and probabilities out, a chunk at a time."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.files import written

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.evaluation.inputs import Samples
    from pipeline.models.saved import Predictor
    from pipeline.runs.own_model import OwnPredictor

log = logging.getLogger(__name__)

INPUT_FORMATS = ("csv", "tsv", "parquet", "jsonl", "xlsx", "ods", "npy", "text")
OUTPUT_FORMATS = ("csv", "jsonl", "parquet")
BATCHES_A_CHUNK = 8
"""Batches read, computed and written together: a table has a fixed cost that a small model would wait for."""


def run(cfg: DictConfig) -> None:
    """The task behind ``task=predict``."""
    from pipeline.models.generation import predicts_characters
    from pipeline.runs.finished import asked_model, find_run, load_predictor, open_store
    from pipeline.runs.own_model import OwnPredictor, own_module

    check_output(cfg)
    store = open_store(cfg)
    by_run = cfg.task.get("run_id") and not cfg.task.get("model_uri")
    module = own_module(find_run(store, str(cfg.task.run_id), cfg)) if by_run else None
    if module is not None:
        count = predict_own(
            OwnPredictor(module), str(cfg.task.input), str(cfg.task.output), int(cfg.task.batch_size)
        )
        if str(cfg.task.output) != "-":
            print(f"{count:,} predictions in {cfg.task.output}")
        return
    predictor = load_predictor(store, asked_model(store, cfg))
    if predicts_characters(predictor.spec):
        log.warning(
            "this gives the most probable next character after each one of the input; task=generate task.%s "
            "task.prompt=TEXT goes on with a text",
            f"model_uri={cfg.task.model_uri}" if cfg.task.get("model_uri") else f"run_id={cfg.task.run_id}",
        )
    count = predict(
        predictor,
        str(cfg.task.input),
        str(cfg.task.output),
        batch_size=int(cfg.task.batch_size),
        input_format=cfg.task.get("input_format"),
        output_format=cfg.task.get("format"),
    )
    if str(cfg.task.output) != "-":
        print(f"{count:,} predictions in {cfg.task.output}")


def predict(
    predictor: Predictor,
    source: str,
    target: str,
    *,
    batch_size: int = 512,
    input_format: str | None = None,
    output_format: str | None = None,
) -> int:
    """Predict every sample of ``source`` into ``target``.

    Args:
        predictor: Model with its encoder.
        source: File, folder, or ``-`` for standard input.
        target: File (written whole or not at all), or ``-`` for standard output.
        batch_size: Number of samples computed at once.
        input_format: ``csv``, ``tsv``, ``parquet``, ``jsonl``, ``xlsx``, ``ods``, ``npy`` or ``text``; None for the
            one that the name of ``source`` ends in.
        output_format: ``csv``, ``jsonl`` or ``parquet``; None for the one that the name of ``target`` ends in.

    Returns:
        Number of samples.

    Raises:
        UserError: The input is missing or not what the model takes.
    """
    from pipeline.evaluation.inputs import chunks

    count = unusual = 0
    with _opened(target) as file, _writer(file, target, output_format) as write:
        rows = sys.maxsize if predictor.encoder.takes_whole else BATCHES_A_CHUNK * batch_size
        for some in chunks(source, predictor.encoder, rows, input_format):
            frame = _predicted(predictor, some, batch_size)
            write.add(frame)
            count += len(frame)
            unusual += int(frame["unusual"].sum()) if predictor.encoder.tells_unusual else 0
    if unusual:
        log.warning("%d of %d rows are unlike the training data (column unusual)", unusual, count)
    if count == 0:
        log.warning("%s holds no samples: nothing was predicted", source)
    return count


def predict_own(predictor: OwnPredictor, source: str, target: str, batch_size: int) -> int:
    """Predict every row of an array with a person's LightningModule.

    Args:
        predictor: The module.
        source: A ``.npy`` file of what the module takes, (samples, …).
        target: File (written whole or not at all), or ``-`` for standard output; ``.jsonl`` for JSON lines.
        batch_size: Number of samples computed at once.

    Returns:
        Number of samples.

    Raises:
        UserError: The input is no such file, or not what the module takes.
    """
    import torch

    if Path(source).suffix != ".npy":
        raise UserError(
            f"task.input={source}: how raw input becomes what a LightningModule of its own takes is known to it alone; "
            "expected a .npy file of ready batches (samples, ...)"
        )
    try:
        values = np.load(Path(source).expanduser(), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"task.input={source} cannot be read as an array: {error}") from None
    inputs = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values)
    frame = predictor.predict(inputs, batch_size)
    with _opened(target) as file, _writer(file, target) as write:
        write.add(frame)
    return len(frame)


def check_output(cfg: DictConfig) -> None:
    """Refuse settings that would fail, or do harm, after the model was loaded.

    Raises:
        UserError: The format is unknown, or the output is the input or lies in no directory.
    """
    for key, known in (("input_format", INPUT_FORMATS), ("format", OUTPUT_FORMATS)):
        if cfg.task.get(key) is not None and cfg.task[key] not in known:
            raise UserError(f"task.{key}={cfg.task[key]}: expected {', '.join(known)}, or null")
    source, target = Path(str(cfg.task.input)).expanduser(), Path(str(cfg.task.output)).expanduser()
    if str(cfg.task.input) != "-" and not source.exists():
        raise UserError(f"task.input={source}: there is no such file or folder")
    if str(cfg.task.output) == "-":
        return
    if target.is_dir() or not target.parent.is_dir():
        raise UserError(f"task.output={target}: expected a file in a directory that is there")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"task.output={target} is the input; choose another file")


def _predicted(predictor: Predictor, some: Samples, batch_size: int) -> pd.DataFrame:
    frame = predictor.predict(some.raw, batch_size)
    if predictor.spec.per_step and predictor.spec.input == "tokens":
        # Texts of a batch are padded to the longest: what was predicted for padding is no answer.
        lengths = [max(1, len(text)) for text in _texts(some.raw)]
        for column in frame.columns:
            frame[column] = [row[:length] for row, length in zip(frame[column], lengths, strict=True)]
    if some.names is not None:
        frame.insert(0, "file", some.names)
    return frame


def _texts(raw: Any) -> list[str]:
    from pipeline.data.text.encoders import strings

    return strings(raw)


@contextmanager
def _writer(file: IO[bytes], target: str, form: str | None = None) -> Iterator[Any]:
    """What writes tables into ``file``: in ``form``, or as the name of ``target`` ends."""
    endings = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
    form = form or endings.get(Path(target).suffix.lower(), "csv")
    writers = {"csv": _CsvWriter, "jsonl": _JsonWriter, "parquet": _ParquetWriter}
    writer = writers[form](file)
    yield writer
    if isinstance(writer, _ParquetWriter):
        writer.close()


class _ParquetWriter:
    """A Parquet file, a row group a chunk."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._writer: Any = None

    def add(self, frame: pd.DataFrame) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        table = pa.table({name: pa.array(_plain(frame[name])) for name in frame.columns})
        self._writer = self._writer or ParquetWriter(self._file, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        """Write the end of the file, without which it is none."""
        import pandas as pd

        if self._writer is None:
            self.add(pd.DataFrame())
        self._writer.close()


class _CsvWriter:
    """Comma-separated values with a header; lists are JSON in a cell."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._begun = file, False

    def add(self, frame: pd.DataFrame) -> None:
        import pyarrow as pa
        from pyarrow import csv

        columns = {name: _flat(frame[name]) for name in frame.columns}
        options = csv.WriteOptions(include_header=not self._begun, quoting_style="needed")
        csv.write_csv(pa.table(columns), self._file, options)
        self._begun = True


class _JsonWriter:
    """A JSON object a line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, frame: pd.DataFrame) -> None:
        rows = zip(*(_plain(frame[name]) for name in frame.columns), strict=True)
        names = list(frame.columns)
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
        self._file.write("".join(lines).encode())


def _flat(column: Any) -> Any:
    values = _plain(column) if column.dtype == object else column.to_numpy()
    return [json.dumps(value) for value in values] if len(values) and isinstance(values[0], list) else values


def _plain(column: Any) -> list[Any]:
    """A column as JSON values."""
    return [_value(value) for value in column.tolist()]


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return (
        [_value(part) for part in value]
        if isinstance(value, list)
        else getattr(value, "item", lambda: value)()
    )


@contextmanager
def _opened(target: str) -> Iterator[IO[bytes]]:
    """The output: under another name until it is complete, or standard output."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with written(Path(target).expanduser()) as draft, draft.open("wb") as file:
        yield file
