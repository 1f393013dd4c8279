"""The table at the end of a run: what was trained on what, how good it is, does it beat common sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

HIGHER_IS_BETTER = ("accuracy", "f1", "auc", "precision", "recall", "r2", "hit_rate", "ndcg")
SPLITS = ("val", "test")


def print_summary(result: Mapping[str, Any], ui: str | None = None, console: Console | None = None) -> None:
    """Print a run's summary: a table in a terminal, plain lines (`name: value`) elsewhere.

    Args:
        result: the fields of a run's result, as in `result.json`; what is missing is left out of the table.
        ui: the command that opens the tracking UI on the run; None leaves the line out.
        console: where to print; None is the standard output.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    warnings, lines, scores = stand_in(result), facts(result, ui), metric_rows(result)
    if console.is_terminal:
        _print_table(console, str(result.get("experiment", "run")), warnings, lines, scores, verdict(result))
        return
    for line in (*warnings, *(f"{name}: {value}" for name, value in lines[0])):
        console.print(line, markup=False, soft_wrap=True)
    for name, *values in scores:
        named = zip(("validation", "test", "baseline"), values, strict=True)
        console.print(
            f"{name}: " + ", ".join(f"{of} {value}" for of, value in named if value), soft_wrap=True
        )
    for line in (*verdict(result), *(f"{name}: {value}" for name, value in lines[1])):
        console.print(line, markup=False, soft_wrap=True)


def stand_in(result: Mapping[str, Any]) -> list[str]:
    """The loud line when other data was used than asked for; empty otherwise."""
    data = result.get("data") or {}
    requested, used = data.get("requested"), data.get("used")
    if not used or used == requested:
        return []
    return [
        f"STAND-IN DATA: {requested} was not available, {used} was used. "
        f"The results are not those of {requested}."
    ]


def facts(
    result: Mapping[str, Any], ui: str | None = None
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The lines above the metrics (data, model, epoch) and those below (time, place), as (name, value)."""
    data, model, seconds = (result.get(key) or {} for key in ("data", "model", "seconds"))
    above = [("data", _data_words(data)), ("model", _model_words(model))]
    if result.get("best_epoch") is not None:
        above.append(("best epoch", str(result["best_epoch"])))
    below = [
        ("time", _seconds_words(seconds)),
        ("throughput", _throughput_words(result.get("samples_per_second"))),
        ("seed", str(result.get("seed", ""))),
        ("directory", str(result.get("directory", ""))),
        ("run", str(result.get("run_id") or "")),
        ("open", ui or ""),
    ]
    notes = [("note", str(note)) for note in result.get("notes") or ()]
    return [line for line in above if line[1]], notes + [line for line in below if line[1]]


def metric_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(metric, validation, test, baseline) for every metric of the validation or test split, as text."""
    metrics, baseline = result.get("metrics") or {}, baseline_metrics(result)
    names = {
        name.partition("/")[2] for name in metrics if name.startswith(tuple(f"{split}/" for split in SPLITS))
    }
    ordered = sorted(names, key=lambda name: (name != "loss", name not in baseline, name))
    return [
        (
            name.replace("_", " "),
            _number(metrics.get(f"val/{name}")),
            _number(metrics.get(f"test/{name}")),
            _number(baseline.get(name)),
        )
        for name in ordered
    ]


def baseline_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The baseline's metrics by plain name: `accuracy`, whatever prefix it was recorded under."""
    baseline = result.get("baseline") or {}
    inner = baseline.get("metrics", baseline)
    return {
        str(name).rpartition("/")[2]: float(value)
        for name, value in inner.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def verdict(result: Mapping[str, Any]) -> list[str]:
    """In plain words, whether the model beats the common-sense baseline; empty with nothing to compare.

    The metric is the one people read first: accuracy, then the absolute error, then bits per character, then
    what else both have; on the test split, else on the validation split. NaN beats nothing.
    """
    metrics, baseline = result.get("metrics") or {}, baseline_metrics(result)
    name = (result.get("baseline") or {}).get("name") or "common-sense"
    for split in reversed(SPLITS):
        shared = [metric for metric in baseline if f"{split}/{metric}" in metrics]
        for metric in sorted(shared, key=_read_first):
            model, other = metrics[f"{split}/{metric}"], baseline[metric]
            compared = f"{metric.replace('_', ' ')} {_number(model)} against {_number(other)}"
            if beats(metric, model, other):
                return [f"The model beats the {name} baseline: {compared}."]
            return [f"THE MODEL DOES NOT BEAT the {name} baseline, which takes no training: {compared}."]
    return []


def beats(metric: str, model: float | None, baseline: float) -> bool:
    """Whether the model's value is better than the baseline's; equal or NaN is not."""
    if model is None or math.isnan(model):
        return False
    return model > baseline if higher_is_better(metric) else model < baseline


def higher_is_better(metric: str) -> bool:
    """True for shares of what is right, False for losses and errors; told by the name."""
    return any(word in metric for word in HIGHER_IS_BETTER)


def _read_first(metric: str) -> tuple[int, str]:
    order = ("accuracy", "hit_rate", "mae", "bits_per_char", "mse")
    return next((place for place, word in enumerate(order) if metric.startswith(word)), len(order)), metric


def _print_table(
    console: Console,
    title: str,
    warnings: list[str],
    lines: tuple[list[tuple[str, str]], list[tuple[str, str]]],
    scores: list[tuple[str, str, str, str]],
    words: list[str],
) -> None:
    from rich.console import Group, RenderableType
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, style="bold black on yellow") for line in warnings]
    for block in lines:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in block:
            grid.add_row(name, Text(value))
        parts.append(grid)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("metric")
    for column in ("validation", "test", "baseline"):
        table.add_column(column, justify="right")
    for name, validation, test, baseline in scores:
        table.add_row(name, validation, Text(test, style="bold"), Text(baseline, style="dim"))
    style = "bold red" if words and "NOT" in words[0] else "green"
    middle: list[RenderableType] = [
        Text(),
        table,
        Text(),
        *(Text(line, style=style) for line in words),
        Text(),
    ]
    parts[-1:-1] = middle if scores else [Text()]
    console.print(Panel(Group(*parts), title=Text(title, style="bold"), expand=False, padding=(0, 1)))


def _data_words(data: Mapping[str, Any]) -> str:
    counts = [
        f"{value:,} {name}".replace("_", " ")
        for name, value in (data.get("samples") or data).items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    name = str(data.get("used") or data.get("requested") or "")
    return f"{name} ({', '.join(counts)})" if counts else name


def _model_words(model: Mapping[str, Any]) -> str:
    name = str(model.get("name") or model.get("class") or "").rpartition(".")[2]
    count = next(
        (value for key, value in model.items() if "parameters" in key and isinstance(value, int)), None
    )
    return f"{name}, {count:,} parameters" if count is not None else name


def _seconds_words(seconds: Mapping[str, float]) -> str:
    total = seconds.get("total")
    parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    if total is None:
        return parts and f"{parts} s"
    return f"{total:.1f} s" + (f" ({parts})" if parts else "")


def _throughput_words(samples_per_second: float | None) -> str:
    if not samples_per_second or not math.isfinite(samples_per_second):
        return ""
    return f"{samples_per_second:,.0f} samples/s in training"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"
