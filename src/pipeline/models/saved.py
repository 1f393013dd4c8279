"""A trained model on disk, without pickle: its class by name, weights as safetensors, everything else as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.spec import Spec
from pipeline.data.encoders import restored
from pipeline.errors import UserError
from pipeline.files import written
from pipeline.models.base import BaseModule
from pipeline.models.settled import Settled

if TYPE_CHECKING:
    import pandas as pd

FILES = ("weights.safetensors", "model.json", "encoder.json")


def save(module: BaseModule, encoder: Encoder, directory: Path) -> Path:
    """Write ``module`` and its ``encoder`` into ``directory``, whole or not at all.

    Returns:
        The directory.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    # The description, which holds the checksums of the others, is the last to be renamed.
    with (
        written(directory / FILES[1]) as description,
        written(directory / FILES[0]) as weights_file,
        written(directory / FILES[2]) as encoder_file,
    ):
        save_file(weights, str(weights_file))
        encoder_file.write_text(json.dumps(encoder.to_state()), encoding="utf-8")
        values = {
            "class": f"{type(module).__module__}.{type(module).__qualname__}",
            "hyperparameters": module.hyperparameters,
            "format": 1,
            **({"sureness": sureness} if (sureness := module.settled.to_dict()) else {}),
            "sha256": {FILES[0]: _sha256(weights_file), FILES[2]: _sha256(encoder_file)},
        }
        description.write_text(json.dumps(values, indent=2), encoding="utf-8")
    return directory


def load(directory: str | Path) -> Predictor:
    """Read what :func:`save` wrote.

    Raises:
        UserError: A file is missing or damaged, or the class is not one of this project's models.
    """
    from safetensors.torch import load_file

    folder = Path(directory)
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder} is not a saved model: it lacks {', '.join(missing)}")
    try:
        description = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
        for name, expected in description.get("sha256", {}).items():
            if name not in FILES or _sha256(folder / name) != expected:
                raise ValueError(f"the checksum of {name} is wrong")
        module = model_class(description["class"])(**description["hyperparameters"])
        module.load_state_dict(load_file(str(folder / FILES[0])))
        module.settle(Settled.from_dict(description.get("sureness")))
        encoder = restored(json.loads((folder / FILES[2]).read_text(encoding="utf-8")))
    except UserError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the saved model in {folder} is damaged: {reason}") from None
    return Predictor(module.eval(), encoder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_class(name: str) -> type[BaseModule]:
    """The model class called ``name`` (``pipeline.models.cnn.CNN``, or one that the user allowed).

    Raises:
        UserError: The name is not allowed, or is no model.
    """
    from pipeline.config import resolve

    found = resolve(name, "class")
    if not (isinstance(found, type) and issubclass(found, BaseModule)):
        raise UserError(f"{name} is not a model of this project")
    return found


class Predictor:
    """A model with the encoder it was trained on: raw input in, predictions out, in float32.

    Args:
        module: Trained model, in evaluation mode.
        encoder: Fitted encoder of the model.
    """

    def __init__(self, module: BaseModule, encoder: Encoder) -> None:
        self.module, self.encoder = module, encoder

    @property
    def spec(self) -> Spec:
        """What the model was trained on."""
        return self.module.spec

    def logits(self, inputs: Tensor, batch_size: int = 1024) -> Tensor:
        """Raw outputs for encoded inputs, computed ``batch_size`` samples at a time."""
        device = self.module.device
        with torch.inference_mode():
            parts = [self.module(batch.to(device)).float().cpu() for batch in inputs.split(batch_size)]
        return torch.cat(parts) if parts else torch.zeros(0, self.spec.outputs)

    def predict(self, raw: Any, batch_size: int = 1024) -> pd.DataFrame:
        """Predictions for raw samples.

        Args:
            raw: Raw samples as the encoder takes them: arrays of pixels, strings, rows.
            batch_size: Number of samples computed at once.

        Returns:
            A row a sample: ``labels`` (``sea|sky``, empty for none) and ``p_<label>`` for several labels a sample;
            ``label``, ``probability`` and ``p_<class>`` for classes, where K are recommended with
            ``label_1`` … ``label_K`` and ``probability_1`` …, the most probable first; ``prediction`` for numbers, with
            ``low`` and ``high`` where the model has intervals; ``unusual`` where the encoder can tell which samples
            are unlike those of the training. For sequences with an output a step these are lists.
        """
        inputs = self.encoder.encode(raw)
        frame = self.frame(self.logits(inputs, batch_size))
        unusual = self.encoder.unusual(inputs)
        return self.encoder.unfolded(raw, frame if unusual is None else frame.assign(unusual=unusual))

    def generate(
        self,
        prompt: str = "",
        length: int = 300,
        temperature: float = 1.0,
        seed: int = 0,
        top_k: int | None = None,
    ) -> str:
        """Go on with a text, for a model that was trained to say which character comes next.

        Args:
            prompt: Text that the model reads first; an empty one begins with a character drawn at random.
            length: Number of characters to write.
            temperature: Below 1 the likely characters get likelier, above 1 less likely; 0 takes the likeliest.
            seed: Seed of the choice.
            top_k: Number of likeliest characters to choose among, None for all.

        Returns:
            The new characters, without the prompt.

        Raises:
            UserError: The model does not predict characters, the prompt holds one that it cannot know, or an argument
                is out of its range.

        Example:
            >>> load("experiments/runs/help_lstm/TIME/model").generate("H", length=3, temperature=0)
            'ELP'
        """
        from pipeline.models.generation import check_prompt, generate, predicts_characters

        if predicts_characters(self.spec):
            check_prompt(self.module, prompt)
        return generate(self.module, length, prompt, temperature, top_k, seed)

    def frame(self, logits: Tensor) -> pd.DataFrame:
        """The table of :meth:`predict` from raw outputs."""
        import pandas as pd

        if self.spec.task == "regression":
            values = logits.numpy()
            single = self.spec.outputs == 1 and values.ndim == 2
            numbers = {"prediction": values[:, 0] if single else list(values)}
            if self.spec.horizon and self.module.settled.half_width is not None:
                half = self.module.settled.half_widths(values)
                numbers |= {"low": list(values - half), "high": list(values + half)}
            if single and self.module.settled.half_width is not None:
                middle = values[:, 0].astype(np.float64)
                half = self.module.settled.half_widths(middle)
                numbers |= {"low": middle - half, "high": middle + half}
            return pd.DataFrame(numbers)
        p = self.module.objective.probabilities(logits).numpy()
        if self.spec.task == "multilabel":
            said = [self.spec.named(row) for row in self.module.objective.decided(logits)]
            each = {f"p_{name}": p[:, i].astype(np.float64) for i, name in enumerate(self.spec.classes)}
            return pd.DataFrame({"labels": pd.Series(said, dtype=object), **each})
        best = self.module.objective.decided(logits).numpy()
        chosen = np.take_along_axis(p, best[..., None], -1)[..., 0]
        names = np.asarray(self.spec.classes, dtype=object)
        if self.spec.per_step:
            return pd.DataFrame(
                {"label": [list(row) for row in names[best]], "probability": [list(row) for row in chosen]}
            )
        columns = {"label": names[best], "probability": chosen.astype(np.float64)}
        columns |= self._ranked(p)
        columns |= {f"p_{name}": p[:, i].astype(np.float64) for i, name in enumerate(self.spec.classes)}
        return pd.DataFrame(columns)

    def _ranked(self, p: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a ranked list, from probabilities (samples, classes); none where nothing is recommended."""
        names = np.asarray(self.spec.classes, dtype=object)
        # Of equally probable ones the first in the order of the classes is the first.
        places = np.argsort(-p, axis=1, kind="stable")[:, : self.spec.top_k]
        found: dict[str, np.ndarray] = {}
        for rank in range(places.shape[1]):
            found[f"label_{rank + 1}"] = names[places[:, rank]]
            chosen = np.take_along_axis(p, places[:, rank, None], 1)[:, 0]
            found[f"probability_{rank + 1}"] = chosen.astype(np.float64)
        return found
