"""What a person's LightningModule finds as ``self.logger``: its metrics, pictures and texts become those of the run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from pipeline.training.lightning_inside import between_steps

log = logging.getLogger(__name__)

FOLDER = "logged"
"""Folder of the run that pictures and texts are written to."""


class Written:
    """The writer that people call as ``self.logger.experiment``, by the names that TensorBoard, wandb and MLflow use.

    Numbers become metrics of the run; figures, images and texts become files of it. What has no place in a run, such as
    a histogram, is said once and left out: ``logger=tensorboard`` has it.

    Args:
        directory: Directory of the run.
        on_step: Function called with the optimiser step and the metrics.
        on_file: Function called with a file that was written, and the folder for it among the run's artefacts.
        step: Function that gives the optimiser step.
    """

    def __init__(
        self,
        directory: Path,
        on_step: Callable[[int, dict[str, float]], None],
        on_file: Callable[[Path, str], None],
        step: Callable[[], int],
    ) -> None:
        self._directory, self._on_step, self._on_file, self._step = directory, on_step, on_file, step
        self._said: set[str] = set()
        self._paths: set[Path] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._leave_out(name)
        return Silent()

    def _leave_out(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(
                "logger.experiment.%s: not recorded; logger=tensorboard has a writer of its own", what
            )

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, *_: Any, **__: Any
    ) -> None:
        """A number at a step."""
        self.log({tag: scalar_value}, global_step)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None, *_: Any
    ) -> None:
        """Several numbers of one plot."""
        self.log({f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()}, global_step)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        *_: Any,
        dataformats: str = "CHW",
        **__: Any,
    ) -> None:
        """One picture: channels first, or as ``dataformats`` says; 0 to 1, or bytes."""
        picture = torch.as_tensor(img_tensor)
        if dataformats == "HW":
            picture = picture.unsqueeze(0)
        elif dataformats == "HWC":
            picture = picture.movedim(-1, 0)
        self._picture(tag, picture, global_step)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int | None = None, *_: Any, **settings: Any
    ) -> None:
        """Several pictures as one grid: samples, channels, height, width."""
        from torchvision.utils import make_grid

        pictures = torch.as_tensor(img_tensor)
        if settings.get("dataformats") == "NHWC":
            pictures = pictures.movedim(-1, 1)
        self._picture(tag, make_grid(pictures), global_step)

    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, close: bool = True, *_: Any, **__: Any
    ) -> None:
        """A figure of Matplotlib, or several, which are closed afterwards unless ``close`` is false."""
        from matplotlib import pyplot

        for number, one in enumerate(figure if isinstance(figure, list | tuple) else [figure]):
            path = self._path(f"{tag}_{number}" if number else tag, global_step, ".png")
            one.savefig(path)
            self._on_file(path, FOLDER)
            if close:
                pyplot.close(one)

    def add_text(self, tag: str, text_string: str, global_step: int | None = None, *_: Any) -> None:
        """A text."""
        path = self._path(tag, global_step, ".txt")
        path.write_text(str(text_string), encoding="utf-8")
        self._on_file(path, FOLDER)

    def log(self, data: Mapping[str, Any], step: int | None = None, **_: Any) -> None:
        """Numbers and figures by name."""
        numbers: dict[str, float] = {}
        for name, value in data.items():
            if isinstance(value, Real):
                numbers[name] = float(value)
            elif isinstance(value, Tensor) and value.numel() == 1:
                numbers[name] = float(value.item())
            elif hasattr(value, "savefig"):
                self.add_figure(name, value, step)
            else:
                self._leave_out(f"log of a {type(value).__name__}")
        if numbers:
            self._on_step(self._step() if step is None else int(step), numbers)

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        **_: Any,
    ) -> None:
        """A number, as MLflow's client takes it."""
        self.log({key: value}, step)

    def log_figure(self, run_id: str, figure: Any, artifact_file: str, **_: Any) -> None:
        """A figure, as MLflow's client takes it."""
        self.add_figure(_stem(artifact_file), figure, close=False)

    def log_image(self, run_id: str, image: Any, artifact_file: str | None = None, **settings: Any) -> None:
        """A picture, as MLflow's client takes it: height, width and channels, or one of Pillow's."""
        import numpy as np

        pixels = torch.from_numpy(np.array(image))
        name = str(settings.get("key") or _stem(artifact_file or "image.png"))
        step = settings.get("step")
        self._picture(name, pixels.movedim(-1, 0) if pixels.dim() == 3 else pixels, step)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """A text, as MLflow's client takes it."""
        self.add_text(_stem(artifact_file), text)

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """A file, as MLflow's client takes it."""
        self._on_file(Path(local_path), artifact_path or "")

    def _picture(self, tag: str, picture: Tensor, step: int | None) -> None:
        from torchvision.transforms.functional import to_pil_image

        path = self._path(tag, step, ".png")
        pixels = picture.detach().cpu()
        to_pil_image(pixels if pixels.dtype == torch.uint8 else pixels.float().clamp(0, 1)).save(path)
        self._on_file(path, FOLDER)

    def _path(self, tag: str, step: int | None, suffix: str) -> Path:
        folder = self._directory / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", tag).strip("_.") or "logged"
        name = f"{name}_{self._step() if step is None else int(step):06d}"
        path, number = folder / f"{name}{suffix}", 1
        while path in self._paths:
            # Another one of the same name and step.
            number += 1
            path = folder / f"{name}_{number}{suffix}"
        self._paths.add(path)
        return path


def _stem(file: str) -> str:
    """A file's path without what says of which kind it is."""
    return str(Path(file).with_suffix(""))


class StepLogger(Logger):
    """Hands on what a module logs at single steps.

    Args:
        directory: Directory of the run.
        on_step: Function called with the optimiser step and the metrics.
        on_file: Function called with a picture or text that the module has given, and the folder for it.
        run_id: Id of the tracked run, empty where none is.
    """

    def __init__(
        self,
        directory: Path,
        on_step: Callable[[int, dict[str, float]], None],
        on_file: Callable[[Path, str], None],
        run_id: str = "",
    ) -> None:
        super().__init__()
        self.on_step = on_step
        self.run_id = run_id
        self.names: set[str] = set()
        self._directory = directory
        self._trainer: pl.Trainer | None = None
        self._written = Written(directory, self._by_hand, on_file, self._step)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "pipeline"

    @property
    def version(self) -> str:
        """Version of the logger."""
        return ""

    @property
    def experiment(self) -> Any:
        """What writes: nothing where another process of the same training does."""
        if self._trainer is not None and self._trainer.global_rank > 0:
            return Silent()
        return self._written

    @property
    def save_dir(self) -> str:
        """Directory of the run."""
        return str(self._directory)

    @property
    def log_dir(self) -> str:
        """Directory of the run."""
        return str(self._directory)

    def follow(self, trainer: pl.Trainer) -> None:
        """Listen to this trainer."""
        self._trainer = trainer

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Metrics as Lightning hands them to every logger."""
        if self._trainer is None:
            return
        # Those of a whole epoch are recorded as such; what a person hands over by hand is none of these.
        of_epochs = () if between_steps(self._trainer) else self._trainer.logged_metrics
        values = {
            name: float(value)
            for name, value in dict(metrics).items()
            if name != "epoch" and name not in of_epochs
        }
        if values:
            self._by_hand(int(step or 0), values)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run records its configuration itself."""

    def log_image(self, key: str, images: Iterable[Any], step: int | None = None, **_: Any) -> None:
        """Pictures, as Lightning's own loggers take them: tensors (channels first), arrays or of Pillow."""
        for number, image in enumerate(images):
            name = f"{key}_{number}" if number else key
            if isinstance(image, Tensor):
                self.experiment.add_image(name, image, step)
            else:
                self.experiment.log_image(self.run_id, image, key=name, step=step)

    def watch(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: a run has its gradient norm anyway."""

    def log_text(self, key: str, *args: Any, step: int | None = None, **kwargs: Any) -> None:
        """A text by its name."""
        self.experiment.add_text(key, "\n".join(map(str, [*args, *kwargs.values()])), step)

    def log_table(
        self, key: str, columns: Any = None, data: Any = None, dataframe: Any = None, **_: Any
    ) -> None:
        """A table by its name."""
        import pandas as pd

        table = dataframe if dataframe is not None else pd.DataFrame(data, columns=columns)
        self.experiment.add_text(key, table.to_csv(index=False))

    def _by_hand(self, step: int, values: dict[str, float]) -> None:
        self.names.update(values)
        self.on_step(step, values)

    def _step(self) -> int:
        return 0 if self._trainer is None else int(self._trainer.global_step)


class Silent:
    """Takes any call, item or attribute and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return Silent()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Silent()

    def __getitem__(self, key: Any) -> Any:
        return Silent()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget it."""
