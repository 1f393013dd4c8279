"""What common sense reaches before anything is trained: the bar for every model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.evaluation.outputs import result_directory
from pipeline.files import write_json
from pipeline.metrics import four_places
from pipeline.runs.finished import data_of
from pipeline.runs.handover import METRICS

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule


def run(cfg: DictConfig) -> None:
    """The task behind ``task=baseline``."""
    directory = result_directory(cfg)
    found = baselines(data_of(cfg))
    path = write_json(directory / METRICS, found)
    for name, metrics in found.items():
        print(f"{name}: " + ", ".join(f"{metric} {four_places(value)}" for metric, value in metrics.items()))
    print(f"written: {path}")


def baselines(data: DataModule) -> dict[str, dict[str, float]]:
    """The validation metrics of each baseline of a data set, by its name; the common-sense one first.

    Raises:
        UserError: No validation data was held out.
    """
    held_out = data.validation
    if held_out is None or len(held_out) == 0:
        raise UserError("task=baseline is judged on validation data; set data.validation_fraction above 0")
    return {
        name: {f"val/{metric}": value for metric, value in baseline(data.train, held_out, data.spec).items()}
        for name, baseline in data.baselines().items()
    }
