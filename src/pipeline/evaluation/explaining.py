"""Which inputs mattered for a prediction: integrated gradients (ablation for trees) as heat maps, columns and words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.metrics import four_digits

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.data.core.spec import Spec
    from pipeline.data.series.encoder import ForecastEncoder
    from pipeline.models.base import BaseModule
    from pipeline.models.saved import Predictor

IMAGES, SAMPLES, BARS = 8, 200, 25
TEXTS, SHOWN_TEXTS, SHOWN_WORDS = 24, 5, 60
ACROSS = 140
"""Characters in a line of a coloured text."""
STEPS = 32
"""Points between the reference and the sample at which the gradient is taken."""


@dataclass(frozen=True)
class ExplainedText:
    """A text with what each word adds to its prediction.

    Args:
        words: Words in their order; ``<?>`` stands for one outside the vocabulary.
        contributions: What each word adds to the prediction.
        predicted, true: Predicted and true class, or number.
    """

    words: list[str]
    contributions: np.ndarray
    predicted: str
    true: str


def explain(predictor: Predictor, data: DataModule, split: Rows, directory: Path) -> list[Path]:
    """Draw which inputs the model's predictions rest on.

    Args:
        predictor: Model with its encoder.
        data: Data that the model was trained on. Contributions are measured against an input of zeros: a black image,
            the mean row, an empty text.
        split: Split whose samples are explained.
        directory: Directory that receives the plots.

    Returns:
        The files written.

    Raises:
        UserError: Captum is not installed, or the model's input has no gradient.
    """
    spec = predictor.spec
    embedded = getattr(predictor.module, "embedding", None) is not None
    if spec.per_step or not (
        spec.horizon or spec.input in ("image", "vector", "bag") or (spec.input == "tokens" and embedded)
    ):
        what = "tokens without an embedding" if spec.input == "tokens" and not spec.per_step else spec.input
        raise UserError(
            "task.explain=true is for images, tables, forecasts, bags of words and embedded words, one prediction a "
            f"sample; this model takes {what}{', with a prediction for each step' if spec.per_step else ''}"
            f"{_instead(spec)}"
        )
    if spec.input == "tokens":
        texts = explained_texts(predictor, split)
        return [
            _coloured(texts[:SHOWN_TEXTS], directory / "explanation.png", _favours(predictor)),
            _word_bars(texts, directory / "explanation_words.png", _favours(predictor)),
        ]
    rows = torch.arange(min(len(split), IMAGES if spec.input == "image" else SAMPLES))
    x = split.take(rows)[0].float()
    if spec.horizon:
        sums = forecast_gradients(predictor, x)
        return [_bars(np.array(list(sums.values())), list(sums), directory / "explanation.png")]
    attributions = integrated_gradients(predictor.module, x)
    path = directory / "explanation.png"
    if spec.input == "image":
        return [_heat_maps(x.numpy(), attributions.numpy(), path, _favours(predictor))]
    return [_bars(attributions.abs().mean(0).numpy(), _names(predictor, data, x.shape[1]), path)]


def _instead(spec: Spec) -> str:
    """What tells more of a model that cannot be explained in this way."""
    if not spec.per_step:
        return "; train it with model.embedding=32" if spec.input == "tokens" else ""
    return (
        "; task=generate shows what it writes"
        if spec.input == "tokens"
        else "; its run's plots show what it does"
    )


def forecast_gradients(predictor: Predictor, x: Tensor) -> dict[str, float]:
    """How much each column adds to the mean of the steps ahead: mean absolute contributions in the target's unit.

    Against a series that stays at its level, whose other columns are as they are on average.

    Args:
        predictor: A model that forecasts.
        x: Encoded windows, (samples, steps, features).
    """
    model, x = predictor.module, x.to(predictor.module.device)
    names = cast("ForecastEncoder", predictor.encoder).inputs()
    reference = x * torch.tensor([not name for name in names], device=x.device)

    def mean_ahead(inputs: Tensor) -> Tensor:
        found: Tensor = model(inputs).mean(1)
        return found

    # On a GPU the fast recurrent layers have no gradient outside training.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        found = _captum("IntegratedGradients")(mean_ahead).attribute(x, reference, n_steps=STEPS)
    parts = found.detach().cpu().float().abs().mean(0)
    ahead = parts[-predictor.spec.horizon :, 0].sum()
    sums: dict[str, float] = defaultdict(float)
    for name, value in zip(names, parts.sum(0).tolist(), strict=True):
        if name:
            sums[name] += value
    sums[names[0]] -= float(ahead)
    sums[f"{names[0]}, a season before"] = float(ahead)
    return dict(sums)


def integrated_gradients(model: BaseModule, x: Tensor) -> Tensor:
    """How much each input of ``x`` adds to the output for the predicted class, against an input of zeros.

    They add up to the difference of the two outputs. Trees have no gradient: what each input adds is then how far the
    output falls without it.
    """
    x = x.to(model.device)
    outputs, target = _outputs(model), _predicted(model, x)
    if not model.differentiable:
        with torch.inference_mode():
            without = _captum("FeatureAblation")(outputs).attribute(x, torch.zeros_like(x), target=target)
        return torch.as_tensor(without).cpu().float()
    with torch.enable_grad():
        found = _captum("IntegratedGradients")(outputs).attribute(
            x, torch.zeros_like(x), target=target, n_steps=STEPS
        )
    attributions: Tensor = found.detach().cpu().float()
    return attributions


def embedded_gradients(model: BaseModule, ids: Tensor) -> Tensor:
    """How much each word of ``ids`` (samples, steps) adds, summed over its embedding, against padding alone."""
    ids = ids.to(model.device)
    outputs, target = _outputs(model), _predicted(model, ids)
    method = _captum("LayerIntegratedGradients")(outputs, model.embedding)
    # On a GPU the fast recurrent layers have no gradient outside training.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        found = method.attribute(
            ids, torch.zeros_like(ids), target=target, n_steps=STEPS, internal_batch_size=64
        )
    attributions: Tensor = found.detach().cpu().float().sum(-1)
    return attributions


def explained_texts(predictor: Predictor, split: Rows, most: int = TEXTS) -> list[ExplainedText]:
    """The first texts of a split, word by word."""
    spec, vocabulary = predictor.spec, list(getattr(predictor.encoder, "words", []))
    ids, targets = split.take(torch.arange(min(len(split), most)))
    attributions = embedded_gradients(predictor.module, ids)
    predicted = predictor.frame(predictor.logits(ids))
    column = "prediction" if spec.task == "regression" else "label"
    found = []
    for row, (numbers, given) in enumerate(zip(ids.tolist(), attributions.numpy(), strict=True)):
        # Of an empty text its padding is shown: a word that nobody knows.
        length = max(1, sum(number != 0 for number in numbers))
        words = ["<?>" if number < 2 else vocabulary[number - 2] for number in numbers[:length]]
        true = targets.reshape(len(ids), -1)[row, 0].item()
        shown = spec.classes[int(true)] if spec.classes else four_digits(true)
        found.append(ExplainedText(words, given[:length], str(predicted[column][row]), shown))
    return found


def _captum(name: str) -> Any:
    try:
        from captum import attr
    except ImportError:
        raise UserError(
            "task.explain=true needs captum: pip install 'hydra-lightning-pipeline[explain]'"
        ) from None
    return getattr(attr, name)


def _outputs(model: BaseModule) -> Any:
    def outputs(inputs: Tensor) -> Tensor:
        found: Tensor = model(inputs).reshape(len(inputs), -1)
        return found

    return outputs


def _predicted(model: BaseModule, x: Tensor) -> Any:
    """The output that each sample's explanation is about: the predicted class's, or the only one."""
    with torch.no_grad():
        logits = _outputs(model)(x)
    return logits.argmax(1) if logits.shape[1] > 1 else 0


def _favours(predictor: Predictor) -> str:
    """What a positive contribution speaks for."""
    spec = predictor.spec
    if spec.task == "regression":
        return "a larger prediction"
    if spec.task == "multilabel":
        return "the most probable label"
    return f"“{spec.classes[1]}”" if spec.outputs == 1 else "the predicted class"


def _names(predictor: Predictor, data: DataModule, width: int) -> list[str]:
    encoder = predictor.encoder
    inputs = getattr(encoder, "inputs", None)
    for names in (
        inputs() if callable(inputs) else None,
        getattr(encoder, "columns", None),
        getattr(encoder, "words", None),
    ):
        if names is not None and len(names) == width:
            return [str(name) for name in names]
    return [f"input {number}" for number in range(width)]


def _heat_maps(images: np.ndarray, attributions: np.ndarray, path: Path, favours: str) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * len(images), 3.4), layout="constrained")
    axes: Any = figure.subplots(2, len(images), squeeze=False)
    for column, (image, attribution) in enumerate(zip(images, attributions.sum(1), strict=True)):
        photograph = len(image) >= 3
        bound = float(np.abs(attribution).max()) or 1.0
        if photograph:
            axes[0, column].imshow(image[:3].transpose(1, 2, 0).astype(np.uint8))
            # Over what is seen, and as strong as what it says: single pixels of a photograph say little by themselves.
            attribution = _smoothed(attribution)
            bound = float(np.quantile(np.abs(attribution), 0.99)) or 1.0
            axes[1, column].imshow(image[:3].mean(0), cmap="gray", vmin=0, vmax=255)
        else:
            axes[0, column].imshow(image[0], cmap="gray_r", vmin=0, vmax=255)
        strength = np.clip(np.abs(attribution) / bound, 0, 1) if photograph else None
        axes[1, column].imshow(attribution, cmap="RdBu_r", vmin=-bound, vmax=bound, alpha=strength)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(f"Red speaks for {favours}, blue against it")
    figure.savefig(path, dpi=130)
    return path


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The mean over a neighbourhood of a sixteenth of the sides, (height, width)."""
    side = max(1, min(values.shape) // 16) | 1
    padded = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    found: np.ndarray = torch.nn.functional.avg_pool2d(padded, side, 1, side // 2, count_include_pad=False)[
        0, 0
    ].numpy()
    return found


def _bars(weights: np.ndarray, names: list[str], path: Path) -> Path:
    from matplotlib.figure import Figure

    top = np.argsort(weights)[-BARS:]
    figure = Figure(figsize=(7, 0.3 * len(top) + 1.2), layout="constrained")
    axis = figure.add_subplot()
    axis.barh([names[i][:40] for i in top], weights[top])
    axis.set(xlabel="mean absolute contribution to the output")
    figure.savefig(path, dpi=130)
    return path


def _coloured(texts: list[ExplainedText], path: Path, favours: str) -> Path:
    """Draw texts with their words on red and blue; of a long one the part that matters most."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    laid_out = [_lines(text) for text in texts]
    heights = [len(lines) + 2 for lines in laid_out]
    figure = Figure(figsize=(10, 0.23 * sum(heights) + 0.5), layout="constrained")
    axes: Any = figure.subplots(len(texts), 1, squeeze=False, height_ratios=heights)
    colours = colormaps["RdBu_r"]
    for axis, text, lines in zip(axes.flat, texts, laid_out, strict=True):
        bound = float(np.abs(text.contributions).max()) or 1.0
        axis.set(xlim=(0, ACROSS), ylim=(len(lines), -2))
        axis.set_axis_off()
        axis.text(0, -0.8, f"predicted {text.predicted}, true {text.true}", fontsize=9, fontweight="bold")
        for place, line in enumerate(lines):
            for column, word, value in line:
                box = {"facecolor": colours(0.5 + value / bound / 2.5), "edgecolor": "none", "pad": 1.0}
                style: dict[str, Any] = {
                    "fontsize": 8,
                    "family": "monospace",
                    "va": "center",
                    "parse_math": False,
                }
                axis.text(column, place + 0.5, word, bbox=box, **style)
    figure.suptitle(f"Red speaks for {favours}, blue against it", fontsize=10)
    figure.savefig(path, dpi=130)
    return path


def _lines(text: ExplainedText) -> list[list[tuple[int, str, float]]]:
    """Lines of (column, word, contribution): of a long text the stretch that matters most."""
    start = _weightiest(text.contributions)
    shown = slice(start, start + SHOWN_WORDS)
    lines: list[list[tuple[int, str, float]]] = [[]]
    column = 0
    for word, value in zip(text.words[shown], text.contributions[shown].tolist(), strict=True):
        word = word[:40]
        if column + len(word) > ACROSS:
            lines.append([])
            column = 0
        lines[-1].append((column, word, value))
        column += len(word) + 1
    return lines


def _weightiest(contributions: np.ndarray) -> int:
    """Where the stretch of words begins that carries most of the prediction."""
    sums = np.convolve(np.abs(contributions), np.ones(min(SHOWN_WORDS, len(contributions))), mode="valid")
    return int(sums.argmax()) if len(sums) else 0


def _word_bars(texts: list[ExplainedText], path: Path, favours: str) -> Path:
    from matplotlib.figure import Figure

    sums: dict[str, float] = defaultdict(float)
    for text in texts:
        for word, value in zip(text.words, text.contributions.tolist(), strict=True):
            sums[word] += value / len(texts)
    top = sorted(sorted(sums.items(), key=lambda item: -abs(item[1]))[:BARS], key=lambda item: item[1])
    figure = Figure(figsize=(7, 0.3 * len(top) + 1.2), layout="constrained")
    axis = figure.add_subplot()
    axis.barh(
        [word[:30].replace("$", r"\$") for word, _ in top],
        [value for _, value in top],
        color=["#b2182b" if value > 0 else "#2166ac" for _, value in top],
    )
    axis.axvline(0, color="#666", linewidth=0.8)
    axis.set(xlabel=f"mean contribution over {len(texts)} texts; to the right: for {favours}")
    figure.savefig(path, dpi=130)
    return path
