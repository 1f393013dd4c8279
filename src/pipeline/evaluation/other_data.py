"""Data that a model was not trained on, as it takes it: a file of samples, or the test split of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from pipeline.data.core.splits import Rows
from pipeline.data.orders.module import OrdersModule
from pipeline.data.orders.own import OwnOrders, orders_like
from pipeline.data.tables.formats import FORMATS, TableFormat
from pipeline.data.tables.frames import table_of
from pipeline.data.tables.packed import suffix_of
from pipeline.data.tables.reading import find_reading, read_as
from pipeline.data.tables.words import spelling
from pipeline.errors import UserError
from pipeline.evaluation.outputs import test_split
from pipeline.runs.finished import data_of

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.saved import Predictor


@dataclass
class OtherData:
    """What a model is tested on that it was not trained on.

    Args:
        data: The data module to load by.
        split: The rows.
        unknown: How often there were classes, beside those rows, that the model does not know.
    """

    data: DataModule
    split: Rows
    unknown: dict[str, int] = field(default_factory=dict)


def other_data_of(cfg: DictConfig, own: DataModule, predictor: Predictor) -> OtherData:
    """Other data as the model takes it: what its own encoder makes of a file, or the test split of a data set.

    Args:
        cfg: Configuration of this command; ``cfg.data`` is the other data.
        own: The data that the model was trained on.
        predictor: The model with its encoder.

    Raises:
        UserError: The data is of another kind than the model's, or prepared in another way.
    """
    path = cfg.data.get("path")
    if isinstance(own, OrdersModule):
        return _other_orders(cfg, own)
    if path and predictor.encoder.signature()["type"] != "tensor":
        return OtherData(own, rows_of_file(str(path), cfg.data.get("target"), predictor))
    data = data_of(cfg)
    ours, theirs = predictor.spec, data.spec
    for name in ("task", "input", "input_shape", "outputs", "classes", "per_step"):
        if getattr(ours, name) != getattr(theirs, name):
            raise UserError(
                f"data={data.name} is not of the kind this model was trained on: {name} is "
                f"{getattr(theirs, name)}, expected {getattr(ours, name)}"
            )
    if (
        predictor.encoder.signature()["type"] != "tensor"
        and predictor.encoder.state() != data.encoder.state()
    ):
        raise UserError(
            f"data={data.name} prepares its inputs in another way than the model's training data; "
            "pass a file of raw samples: data.path=FILE data.target=COLUMN"
        )
    return OtherData(data, test_split(data, f"data={data.name}"))


def _other_orders(cfg: DictConfig, own: OrdersModule) -> OtherData:
    """Orders of a file, or the later ones of other orders; of unknown items there may be some."""
    path = cfg.data.get("path")
    if path:
        file = Path(str(path)).expanduser()
        orders, earlier = orders_like(file, own.encoder, _written(cfg, own, file))
        judged = own.other(orders, own.encoder, earlier)
    else:
        data = data_of(cfg)
        if not isinstance(data, OrdersModule):
            raise UserError(
                f"data={data.name} is not of the kind this model was trained on: it learnt from orders; expected "
                "data=food_orders, or data=orders data.path=FILE"
            )
        test_split(data, f"data={data.name}")
        judged = own.other(data.orders_in_time(), own.encoder, False, data.first_test)
    return OtherData(own, judged.rows, judged.unknown)


def _written(cfg: DictConfig, own: OrdersModule, path: Path) -> TableFormat:
    """How a file is written: as was said, else as the training file was; its extension says what format it is of."""
    asked = TableFormat(
        **{key: cfg.data[key] for key in ("format", "delimiter", "encoding", "sheet") if key in cfg.data}
    )
    if asked.differences() or not isinstance(own, OwnOrders):
        return asked
    return replace(own.format, format="auto") if suffix_of(path) in FORMATS else own.format


def rows_of_file(path: str, target: str | None, predictor: Predictor) -> Rows:
    """The samples of a CSV or JSON lines file with their targets, as the model takes them.

    Args:
        path: The file.
        target: The column that holds the truth; None for the one that the model was trained to predict.
        predictor: The model with its encoder.
    """
    import pandas as pd

    from pipeline.evaluation.inputs import chunks

    spec = predictor.spec
    column = target or spec.target_name
    inputs: list[Tensor] = []
    targets: list[Any] = []
    for some in chunks(path, predictor.encoder, 4096, beside=[column]):
        frame = some.raw if hasattr(some.raw, "columns") else pd.DataFrame(some.raw)
        if column not in frame.columns:
            raise UserError(f"data.path={path} lacks the target column {column!r}; set data.target")
        # As in training, rows without a target tell nothing.
        frame = frame[frame[column].notna()]
        if len(frame):
            targets += frame[column].tolist()
            inputs.append(predictor.encoder.encode(frame.drop(columns=[column])))
    if not inputs:
        raise UserError(f"data.path={path} holds no samples with a value in the column {column!r}")
    width = max(x.shape[-1] for x in inputs)
    if spec.input == "tokens":
        inputs = [torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in inputs]
    return Rows(torch.cat(inputs), _targets(targets, predictor, column))


def _targets(values: list[Any], predictor: Predictor, column: str) -> Tensor:
    """The truth, understood as a column of a training file is."""
    spec = predictor.spec
    place = {name: number for number, name in enumerate(spec.classes)}
    words = [str(value) for value in values]
    reading = getattr(predictor.encoder, "target", None)
    if spec.task == "regression" or set(words) - set(place):
        raw = table_of({column: values}, [column]).column(column)
        if reading is None:
            # A model of an earlier version: what the rows hold decides.
            how = getattr(predictor.encoder, "written", TableFormat())
            reading = find_reading(raw, None, column, how, target=True)[0]
        found = read_as(raw, reading, column)
        if spec.task == "regression":
            if found.kind != "number" or found.missing.any():
                raise UserError(f"the target column {column!r} must hold numbers")
            numbers = torch.from_numpy(found.values.astype(np.float32))
            return numbers if spec.outputs == 1 and predictor.module.spec.outputs == 1 else numbers[:, None]
        text = found.as_text()
        words = [text.words[code] for code in text.values]
        if reading.folds:
            named = {spelling(name): name for name in place}
            words = [named.get(spelling(word), word) for word in words]
    if strange := sorted(set(words) - set(place)):
        raise UserError(
            f"the target column {column!r} holds {strange[:5]}; the model knows {list(place)[:12]}"
        )
    labels = [place[word] for word in words]
    return torch.tensor(labels, dtype=torch.float32 if spec.task == "binary" else torch.int64)
