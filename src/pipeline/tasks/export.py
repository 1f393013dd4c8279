"""Export a model for other software, and prove on real samples that it answers the same."""

from __future__ import annotations

import copy
import json
import logging
import math
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from pipeline.data.core.splits import Streams
from pipeline.errors import UserError
from pipeline.evaluation.outputs import result_directory
from pipeline.files import written
from pipeline.models.base import BaseModule
from pipeline.models.settled import Settled
from pipeline.runs.finished import asked_model, asked_run, data_for, load_predictor, open_store
from pipeline.runs.own_model import own_module

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.saved import Predictor

FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors"}
SAMPLES = 64
PIECES = 4

Answer = Callable[[Tensor], Tensor]


def run(cfg: DictConfig) -> None:
    """The task behind ``task=export``."""
    path, difference, count = export(cfg)
    print(f"largest difference from the original over {count} real samples: {difference:.3g}")
    print(f"exported: {path}")
    print(
        f"see the network: pip install netron && netron {shlex.quote(str(path))}, or open the file at https://netron.app"
    )


def export(cfg: DictConfig) -> tuple[Path, float, int]:
    """Write the model of ``task.run_id`` or ``task.model_uri`` as ``task.format``.

    Returns:
        The file, the largest absolute difference of its outputs from the original's, and the number of samples.

    Raises:
        UserError: The format is unknown, software is missing, or outputs differ by more than ``task.tolerance``.
    """
    form = str(cfg.task.format)
    if form not in FORMATS:
        raise UserError(f"task.format={form}: expected {', '.join(FORMATS)}")
    path = _target(cfg, form)
    store = open_store(cfg)
    run = asked_run(store, cfg)
    predictor: Predictor | OwnExport
    if (module := own_module(run)) is not None:
        predictor = OwnExport(module)
        x = predictor.example
    else:
        loaded = load_predictor(store, asked_model(store, cfg))
        loaded.module.cpu()
        x = real_samples(data_for(run.cfg, loaded))
        predictor = loaded
    writers = {"onnx": write_onnx, "pt2": write_pt2, "safetensors": write_safetensors}
    with written(path) as draft:
        difference = largest_difference(_Inference(predictor.module), writers[form](predictor, x, draft), x)
        if not difference <= float(cfg.task.tolerance):
            raise UserError(
                f"the exported model differs from the original by {difference:.3g}, more than "
                f"task.tolerance={cfg.task.tolerance:g}: nothing was written"
            )
    return path, difference, len(x)


class OwnExport:
    """A person's LightningModule as the writers take it.

    Args:
        module: The module, with ``example_input_array``.

    Raises:
        UserError: The module has no ``example_input_array``, or several inputs.
    """

    def __init__(self, module: Any) -> None:
        example = getattr(module, "example_input_array", None)
        if not isinstance(example, Tensor):
            raise UserError(
                f"{type(module).__name__} does not show what it takes: set self.example_input_array to a batch, one "
                "tensor (samples, ...)"
            )
        self.module: nn.Module = module.eval()
        # Repeated, since an exporter takes a batch of one for a shape that never changes.
        self.example = torch.cat([example] * 4)


def real_samples(data: DataModule) -> Tensor:
    """Some inputs that the model was not trained on, and not those of the test split."""
    split = data.validation if data.validation is not None and len(data.validation) else data.train
    if not isinstance(split, Streams):
        return split.take(torch.arange(min(SAMPLES, len(split))))[0]
    x = split.take(torch.arange(1))[0]
    # An exporter takes a batch of one for a shape that never changes: one long sequence becomes several.
    steps = x.shape[1] // PIECES if len(x) < PIECES <= x.shape[1] else x.shape[1]
    return torch.cat(x[:, : x.shape[1] // steps * steps].split(steps, 1))


def largest_difference(model: nn.Module, exported: Answer, x: Tensor) -> float:
    """The largest difference of any output for ``x``, taken whole, one by one and in threes; NaN if any is NaN."""
    with torch.inference_mode():
        expected = model(x).float()
        found = [exported(x), torch.cat([exported(part) for part in x.split(1)])]
        found.append(torch.cat([exported(part) for part in x.split(3)]))
    return max(
        (float((one - expected).abs().max()) for one in found), key=lambda d: math.inf if d != d else d
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep back the log lines in which the exporters tell every step of their work; only what is wrong is shown."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write_onnx(predictor: Predictor | OwnExport, x: Tensor, path: Path) -> Answer:
    """Write one file with named input, output and free batch, classes and encoder as metadata; onnxruntime answers."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UserError(
            f"task.format=onnx needs {error.name}: pip install 'hydra-lightning-pipeline[export]'"
        ) from None
    with _quietly():
        program = torch.onnx.export(
            _Inference(predictor.module),
            (x[:4],),
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes={"x": free_axes(predictor)},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for name, value in description(predictor).items():
        program.model.metadata_props[name] = value
    with _quietly():
        program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"input": inputs.numpy()})[0]).float()

    return answer


def write_pt2(predictor: Predictor | OwnExport, x: Tensor, path: Path) -> Answer:
    """Write a program that ``torch.export.load`` opens. That unpickles: load only files of your own."""
    axes = free_axes(predictor)
    with _quietly():
        try:
            program = torch.export.export(
                _Inference(predictor.module), (x[:4],), dynamic_shapes={"x": axes}, strict=False
            )
        except Exception as error:
            if 1 not in axes or not _exports(predictor.module, x[:4]):
                raise
            # Recurrent layers are unrolled step by step.
            raise UserError(
                "task.format=pt2: torch.export cannot leave the number of steps of this model open "
                f"({str(error).splitlines()[0]}); set task.format=onnx, which can"
            ) from None
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=description(predictor))
    with path.open("rb") as file:
        loaded: nn.Module = torch.export.load(file).module()
    return lambda inputs: loaded(inputs).float()


def _exports(model: nn.Module, x: Tensor) -> bool:
    """Whether ``torch.export`` holds a model where the number of steps is that of ``x``."""
    try:
        torch.export.export(_Inference(model), (x,), strict=False)
    except Exception:
        return False
    return True


def write_safetensors(predictor: Predictor | OwnExport, x: Tensor, path: Path) -> Answer:
    """Write the weights by name, with class, hyperparameters and encoder in the header."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from pipeline.models.saved import model_class

    weights = {name: tensor.detach().contiguous() for name, tensor in predictor.module.state_dict().items()}
    save_file(weights, str(path), metadata=description(predictor))
    with safe_open(str(path), framework="pt") as file:
        header = file.metadata()
        model: nn.Module
        if isinstance(predictor, OwnExport):
            model = copy.deepcopy(predictor.module)
        else:
            built = model_class(header["class"])(**json.loads(header["hyperparameters"]))
            built.settle(Settled.from_dict(json.loads(header["sureness"])))
            model = built
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    answers = _Inference(model)
    return lambda inputs: answers(inputs).float()


def free_axes(predictor: Predictor | OwnExport) -> dict[int, Any]:
    """The axes of the input that may have any size: the batch, and the steps of texts and series.

    What forecasts takes so many steps as it was trained on.
    """
    axes = {0: torch.export.Dim("batch", min=1)}
    spec = None if isinstance(predictor, OwnExport) else predictor.spec
    if spec is not None and spec.input in ("tokens", "series") and not spec.horizon:
        axes[1] = torch.export.Dim("steps", min=1)
    return axes


def description(predictor: Predictor | OwnExport) -> dict[str, str]:
    """What a user of the exported file needs beside it, as texts."""
    name = f"{type(predictor.module).__module__}.{type(predictor.module).__qualname__}"
    if isinstance(predictor, OwnExport):
        return {"class": name}
    module = predictor.module
    return {
        "class": name,
        "hyperparameters": json.dumps(module.hyperparameters),
        "classes": json.dumps(list(predictor.spec.classes)),
        "task": predictor.spec.task,
        "top_k": str(predictor.spec.top_k),
        "encoder": json.dumps(predictor.encoder.to_state()),
        "sureness": json.dumps(module.settled.to_dict()),
    }


class _Inference(nn.Module):
    """The model alone: what its trainer needs does not belong into an export.

    Its logits are those that become the probabilities which it gives anywhere: divided by its temperature.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return self.model.objective.cooled(logits) if isinstance(self.model, BaseModule) else logits


def _target(cfg: DictConfig, form: str) -> Path:
    asked = cfg.task.get("output")
    if not asked:
        return result_directory(cfg) / f"model{FORMATS[form]}"
    path = Path(str(asked)).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"task.output={asked}: expected a file in a directory that is there")
    return path
