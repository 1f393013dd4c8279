"""What a trained model answers on a split, sample by sample: what evaluations and comparisons are made of."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.evaluation.statistics import PairedTest, bootstrap_mean, compare_hits, compare_values
from pipeline.models.base import BaseModule
from pipeline.training.gains import Interval
from pipeline.training.judging import judged_of, known_of, values_of

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.data.core.spec import Spec


@dataclass
class Outputs:
    """A model's answers.

    Args:
        model: Model that gave them.
        logits: Outputs of the model, (samples, outputs), in the order of the split's rows.
        targets: Targets of the samples, in the same order.
        metric: Metric that :meth:`judged` gives; None for that of the task.
    """

    model: BaseModule
    logits: Tensor
    targets: Tensor
    metric: str | None = None

    @property
    def spec(self) -> Spec:
        """The task."""
        return self.model.spec

    def metrics(self) -> dict[str, float]:
        """The task's metrics by plain name, computed as a run computes its test metrics."""
        from pipeline.training.scoring import scores

        return scores(self.model, self.logits, self.targets)

    def known(self) -> tuple[Tensor, Tensor]:
        """Logits and targets of the predictions that can be judged, a row each."""
        return known_of(self.model, self.logits, self.targets)

    def probabilities(self) -> np.ndarray:
        """Probabilities, (predictions, classes)."""
        p: np.ndarray = self.model.objective.probabilities(self.known()[0]).numpy()
        return p

    def decided(self) -> np.ndarray:
        """The class that the model gives each prediction, (predictions,): what its accuracy is counted from; of several
        labels a 0 or 1 for each, (predictions, labels)."""
        decided = self.model.objective.decided(self.known()[0])
        found: np.ndarray = (decided if self.spec.task == "multilabel" else decided.reshape(-1)).numpy()
        return found

    def labels(self) -> np.ndarray:
        """The true class of each prediction, (predictions,); of several labels a 0 or 1 for each."""
        true = self.known()[1].long()
        found: np.ndarray = (true if self.spec.task == "multilabel" else true.reshape(-1)).numpy()
        return found

    def sureness(self) -> tuple[np.ndarray, np.ndarray]:
        """Probability of what is most probable, and whether it is true: of each prediction, or of each label of it."""
        p, labels = self.probabilities(), self.labels()
        if self.spec.task == "multilabel":
            return np.maximum(p, 1 - p).reshape(-1), ((p > 0.5) == labels).reshape(-1)
        return p.max(1), p.argmax(1) == labels

    def values(self) -> tuple[str, np.ndarray]:
        """Name of the metric that single samples are judged by, ``accuracy`` (0 or 1) or ``mae``, and its values."""
        return values_of(self.model, self.logits, self.targets)

    def judged(self) -> tuple[str, np.ndarray]:
        """Name of the metric that runs are compared by, and its value for each prediction: their mean is reported."""
        return judged_of(self.model, self.logits, self.targets, self.metric)

    def interval(self) -> tuple[str, Interval]:
        """The metric of :meth:`judged` with its 95 % bootstrap interval."""
        name, values = self.judged()
        return name, bootstrap_mean(values)

    def subset(self, rows: Tensor) -> Outputs:
        """The answers for some of the samples."""
        return replace(self, logits=self.logits[rows], targets=self.targets[rows])


def paired_values(a: np.ndarray, b: np.ndarray) -> PairedTest:
    """Does B differ from A on the same samples? By McNemar's test for hits, by random signs for errors."""
    return compare_hits(a, b) if a.dtype == bool else compare_values(a, b)


def paired(a: Outputs, b: Outputs) -> PairedTest:
    """Is B better or worse than A on the same samples, by what B is judged by (:meth:`Outputs.judged`)?

    Raises:
        UserError: The samples are not the same.
    """
    (metric, first), (other, second) = replace(a, metric=b.metric).judged(), b.judged()
    same = a.targets.shape == b.targets.shape and bool((a.targets.double() == b.targets.double()).all())
    if metric != other or not same:
        raise UserError(
            f"they were not tested on the same samples: {len(first)} samples judged by {metric} against "
            f"{len(second)} judged by {other}"
            f"{'' if len(first) != len(second) or metric != other else ', with other targets'}; "
            "compare runs on the same data with the same test split"
        )
    return paired_values(first, second)


def outputs_on(model: BaseModule, loader: Any, cfg: DictConfig) -> Outputs:
    """The model's answers on a loader's samples, computed as the test of a run with ``cfg`` computes them."""
    import pytorch_lightning as pl

    from pipeline.training.evaluating import outputs_of
    from pipeline.training.module import TrainingModule
    from pipeline.training.trainer import precision, quieten

    quieten()
    settings = cfg.trainer
    accelerator = str(settings.accelerator)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision(str(settings.get("precision", "auto")), model, accelerator),  # type: ignore[arg-type]
            limit_test_batches=settings.get("limit_test_batches", 1.0),
            deterministic=settings.get("deterministic", False),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        return Outputs(model, *outputs_of(trainer, TrainingModule(model), loader))


def test_split(data: DataModule, what: str) -> Rows:
    """The test split of a data set.

    Raises:
        UserError: The data set has no test split.
    """
    if data.test is None or len(data.test) == 0:
        raise UserError(f"{what} has no test split")
    return data.test


def loader_of(data: DataModule, split: Rows) -> Any:
    """A loader of ``split`` in order, in batches of the size that a test of this data set uses."""
    return data.loader_of(split)


def split_digest(split: Rows) -> str:
    """A short hash of a split's inputs and targets."""
    state = hashlib.sha256()
    for rows in torch.arange(len(split)).split(4096 if not hasattr(split, "steps") else 1):
        for tensor in split.take(rows):
            array = np.ascontiguousarray(tensor.cpu().numpy())
            state.update(str((array.shape, array.dtype)).encode())
            state.update(array.data)
    return state.hexdigest()[:16]


def result_directory(cfg: DictConfig) -> Path:
    """Where a task puts its files: ``task.output``, or the directory that Hydra made for the command."""
    from hydra.core.hydra_config import HydraConfig

    asked = cfg.task.get("output")
    if asked:
        directory = Path(str(asked)).expanduser()
        if directory.is_file():
            raise UserError(f"task.output={asked} is a file; expected a directory")
    else:
        directory = Path(
            HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else cfg.paths.run_dir
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory
