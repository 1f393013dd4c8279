"""What is kept of a trained model: its plots and the model itself, on disk and in the tracking store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.recording import AnyRun, class_signature, requirements
from pipeline.runs.result import RunResult

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data.core.module import DataModule
    from pipeline.models.base import BaseModule

WRITING = {"length": 0, "temperature": 1.0, "seed": 0, "batch_size": 1024}
"""What MLflow may be told beside a text: with a length, a character model goes on with it."""


def keep(
    data: DataModule,
    model: BaseModule,
    result: RunResult,
    tracked: AnyRun,
    answers: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Draw a run's plots and save its model.

    Args:
        data: The data.
        model: The trained model.
        result: What the run came to.
        tracked: The run in the tracking store.
        answers: Logits and targets of the test split, None where it was not tested.
    """
    from pipeline.models.generation import predicts_characters
    from pipeline.models.saved import save
    from pipeline.runs.plotting import plots_of_run

    for plot in plots_of_run(data, model, result, answers):
        tracked.log_artifact(plot, "plots")
    bundle = save(model, data.encoder, result.directory / "model")
    if tracked.key:
        spec = data.spec
        tracked.log_model(
            bundle,
            signature={
                **class_signature(
                    data.encoder.signature(),
                    spec.classes,
                    spec.per_step,
                    spec.task == "regression",
                    intervals=model.settled.half_width is not None,
                    unusual=data.encoder.tells_unusual,
                    ranked=data.spec.top_k,
                    together=spec.task == "multilabel",
                ),
                **({"params": WRITING} if predicts_characters(spec) else {}),
            },
            input_example=_example(data, result.directory),
            requirements=requirements(),
        )


def _example(data: DataModule, directory: Path) -> Any:
    """The encoder's example as MLflow takes it: an array in a file, or JSON values."""
    import numpy as np

    example = data.encoder.example()
    if isinstance(example, np.ndarray):
        path = directory / "input_example.npy"
        np.save(path, example, allow_pickle=False)
        return path
    return example.to_dict(orient="records") if hasattr(example, "to_dict") else example
