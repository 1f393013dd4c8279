"""The trained LightningModule of a run that trained itself, for the tasks that come after training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import resolve
from pipeline.errors import UserError
from pipeline.runs.finished import FinishedRun, data_of
from pipeline.runs.plan import fit_plan, plain

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

HOOKS = ("predict_step", "forward")
"""Hooks that say what the module answers, each by itself; Lightning's own predict_step calls forward."""


def own_module(run: FinishedRun) -> Any | None:
    """The module of a run with the weights of its best epoch; None where this project trained a network.

    Raises:
        UserError: Its checkpoint is not on this machine, or its weights do not fit.
    """
    from pipeline.data.core.spec import asks_for_spec
    from pipeline.training.building import build_model
    from pipeline.training.fit import start_from
    from pipeline.training.libraries import library_of

    settings = plain(run.cfg.model)
    if library_of(resolve(settings["_target_"], "model._target_")) is None:
        return None
    data: Any = data_of(run.cfg) if asks_for_spec(settings) else None
    module = build_model(settings, data, fit_plan(run.cfg))
    directory = run.record.directory
    checkpoint = None if directory is None else Path(directory) / "checkpoints/best.ckpt"
    if checkpoint is None or not checkpoint.is_file():
        raise UserError(
            f"run {run.title}: its checkpoint is not on this machine ({checkpoint}); run this where it was trained"
        )
    start_from(module, checkpoint)
    return module.eval()


class OwnPredictor:
    """Answers of a person's LightningModule for arrays of what it takes.

    Args:
        module: The module.

    Raises:
        UserError: The module does not say what it answers.
    """

    def __init__(self, module: Any) -> None:
        if not any(_is_its_own(module, hook) for hook in HOOKS):
            raise UserError(
                f"{type(module).__name__} does not say what it answers: add predict_step(self, batch, batch_idx) to it"
            )
        self.module = module

    def predict(self, inputs: Tensor, batch_size: int) -> pd.DataFrame:
        """A row a sample: ``prediction``, or ``output_0`` and so on, or a column for each key of a dictionary.

        Args:
            inputs: What the module takes, (samples, …).
            batch_size: Number of samples computed at once.

        Raises:
            UserError: The module cannot take them, or answers something else than a row a sample.
        """
        import pandas as pd
        import torch

        frames = []
        with torch.inference_mode():
            for number, batch in enumerate(inputs.split(batch_size)):
                try:
                    answer = self.module.predict_step(batch, number)
                except Exception as error:
                    reason = (str(error) or type(error).__name__).splitlines()[0]
                    raise UserError(
                        f"{type(self.module).__name__}.predict_step cannot take a batch of the shape "
                        f"{tuple(batch.shape)}: {reason}"
                    ) from error
                frames.append(self._frame(answer, len(batch)))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _frame(self, answer: Any, samples: int) -> pd.DataFrame:
        import pandas as pd
        import torch

        if isinstance(answer, dict):
            columns = {
                str(name): self._columns(torch.as_tensor(value), samples) for name, value in answer.items()
            }
            return pd.DataFrame(
                {
                    name if len(parts) == 1 else f"{name}_{place}": part
                    for name, parts in columns.items()
                    for place, part in enumerate(parts)
                }
            )
        if not isinstance(answer, torch.Tensor):
            raise UserError(
                f"{type(self.module).__name__}.predict_step gives a {type(answer).__name__}; expected a tensor with a "
                "row a sample, or a dictionary of them"
            )
        parts = self._columns(answer, samples)
        return pd.DataFrame(
            {"prediction" if len(parts) == 1 else f"output_{place}": part for place, part in enumerate(parts)}
        )

    def _columns(self, values: Tensor, samples: int) -> list[Any]:
        if len(values) != samples:
            raise UserError(
                f"{type(self.module).__name__}.predict_step gives {len(values)} rows for {samples} samples"
            )
        flat = values.detach().cpu().reshape(samples, -1).numpy()
        return [flat[:, place] for place in range(flat.shape[1])]


def _is_its_own(module: Any, hook: str) -> bool:
    for base in type(module).__mro__:
        if hook in base.__dict__:
            return base.__name__ not in ("LightningModule", "Module")
    return False
