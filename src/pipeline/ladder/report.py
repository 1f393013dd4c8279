"""The outcome of a ladder: a table for the terminal, a page for a stakeholder, a card for the model."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipeline.files import write_text
from pipeline.ladder.costs import size_in_words
from pipeline.ladder.goals import GOAL_COLUMNS, goal_lines, goal_rows, group_columns, group_rows
from pipeline.ladder.naming import file_and_target
from pipeline.ladder.rungs import amount, chance, simple_one
from pipeline.metrics import four_digits, four_places, unit_of
from pipeline.metrics import in_words as in_figures
from pipeline.models.settled import Settled
from pipeline.reports.html import Page
from pipeline.runs.settings import sections
from pipeline.training.sureness import sureness_words

if TYPE_CHECKING:
    from pipeline.ladder.rungs import Climb, Rung

_MEANING = {"majority": "always the most frequent class", "mean": "always the mean"}


# A page has room for the figures in one table and for what they cost in another.
_QUALITY, _COSTS = (0, 2, 3, 4, 5), (0, 1, 6, 7, 8)


def columns(climb: Climb) -> list[str]:
    """Names of the table's columns, with the unit of the figures."""
    unit = f", {climb.unit}" if climb.unit and climb.unit != climb.metric else ""
    simple = simple_one(climb)
    return [
        "rung",
        "parameters",
        f"validation {climb.metric.replace('_', ' ')}{unit}",
        f"test {climb.metric.replace('_', ' ')}{unit} (95 % interval)",
        "gain over the rung below",
        f"gain over {simple.name if simple else 'linear'}",
        "seconds to fit",
        "ms for 1,000 rows",
        "size on disk",
    ]


def rows(climb: Climb) -> list[list[str]]:
    """A row a rung, then one for each seed of the winner's last training."""
    return [_row(climb, rung) for rung in [*climb.rungs, *climb.final]]


def entries(climb: Climb) -> list[dict[str, Any]]:
    """The same table as plain values."""
    return [
        {
            "rung": rung.name,
            "parameters": rung.parameters,
            f"val/{climb.metric}": rung.validation,
            **{f"test/{name}": value for name, value in rung.metrics.items()},
            "test_low": rung.test.low if rung.test else None,
            "test_high": rung.test.high if rung.test else None,
            "gain": climb.gain(rung.gain) if rung.gain else None,
            "p_value": rung.gain.p_value if rung.gain else None,
            "over": ("baseline" if rung in climb.final else "the rung below") if rung.gain else None,
            "gain_over_simple": climb.gain(rung.over_simple) if rung.over_simple else None,
            "p_value_over_simple": rung.over_simple.p_value if rung.over_simple else None,
            "seconds": rung.seconds,
            "seconds_to_fit": rung.fit_seconds,
            "milliseconds_for_1000_rows": rung.milliseconds,
            "bytes_on_disk": rung.bytes,
            "showed": rung.showed,
            "overrides": rung.overrides,
            "run_id": rung.result.run_id if rung.result else None,
        }
        for rung in [*climb.rungs, *climb.final]
    ]


def conclusion(climb: Climb) -> str:
    """Which rung was chosen, in words."""
    if not climb.final:
        return f"Keep the baseline ({_baseline(climb)}): no model predicts better by {climb.metric} on validation data."
    tests = ", ".join(four_places(rung.test.value) for rung in climb.final if rung.test is not None)
    tests += f" {climb.unit}" if climb.unit else ""
    if climb.chosen.made_of:
        trained = f"It is made of {climb.length}: test {climb.metric} {tests}."
    elif climb.retrained:
        trained = (
            f"Trained again on training and validation data for {climb.length}, with {len(climb.final)} seeds: "
            f"test {climb.metric} {tests}."
        )
    else:
        trained = (
            "It is kept as it was judged, since the time to train it again on validation data as well was over: "
            f"test {climb.metric} {tests}."
        )
    test = climb.final[0].gain
    assert test is not None
    if not climb.confirmed:
        return (
            f"Keep the baseline ({_baseline(climb)}): {climb.chosen.name} was better on validation data, but not on "
            f"test data ({chance(test)}). {trained}"
        )
    return (
        f"Chosen: {climb.chosen.name}. {trained} The first beats the baseline by {amount(climb, test)} "
        f"({chance(test)})."
    )


def simplest_words(climb: Climb) -> str:
    """Which rung is the simplest within noise of the best, in words; empty where nothing beats the baseline."""
    best, simplest = climb.best, climb.simplest
    if best is None or simplest is None:
        return ""
    if simplest is best:
        return (
            f"Simplest within noise: {best.name} itself; every smaller one is worse on validation data, or beats the "
            "baseline less surely than is asked for."
        )
    figures = (
        f"validation {climb.metric} {four_places(simplest.validation)} against {four_places(best.validation)}"
    )
    return f"Simplest within noise: {simplest.name} cannot be told apart from {best.name} ({figures})" + (
        ", and was preferred (task.prefer=simple)."
        if climb.chosen is simplest
        else "; task.prefer=simple chooses it."
    )


def in_words(climb: Climb) -> list[str]:
    """The table as plain text, what each step showed, and the conclusion."""
    table = [columns(climb), *rows(climb)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines += ["", *(f"{rung.name}: {rung.showed}" for rung in climb.rungs)]
    if climb.others:
        lines.append(_others(climb))
    sure = _sure(climb.final[0]) if climb.final else ""
    sure = f"How sure it is: {sure}." if sure else ""
    said = [
        *filter(None, [conclusion(climb), simplest_words(climb), sure]),
        *goal_lines(climb),
        climb.registered,
    ]
    return [*lines, "", *said, f"time: {climb.seconds:.0f} s"]


def write_report(climb: Climb, cfg: DictConfig, directory: Path) -> list[Path]:
    """Write ``ladder.html``, ready to be sent to someone, its picture ``ladder.png``, and ``ladder.txt``."""
    picture = draw(climb, directory / "ladder.png")
    about = file_and_target(cfg)
    page = Page(
        f"How well can {about[1]} be predicted from {about[0]}?"
        if about
        else f"How well can it be predicted? {cfg.name}"
    )
    page.text(in_service(climb))
    page.text(conclusion(climb))
    if said := simplest_words(climb):
        page.text(said)
    page.image(picture, f"Test {climb.metric} of each step with its interval")
    names, table = columns(climb), [_html_row(climb, rung) for rung in [*climb.rungs, *climb.final]]
    page.table([names[i] for i in _QUALITY], [[row[i] for i in _QUALITY] for row in table])
    # The baseline costs nothing.
    page.table([names[i] for i in _COSTS], [[row[i] for i in _COSTS] for row in table[1:]])
    if climb.others:
        page.text(_others(climb))
    if climb.goals:
        page.heading("Goal and constraints")
        page.table(GOAL_COLUMNS, goal_rows(climb))
    if climb.by:
        page.heading(f"By {climb.by['name']}")
        page.table(group_columns(climb), group_rows(climb))
    page.heading("What each step showed")
    for rung in climb.rungs:
        page.text(f"{rung.name}: {rung.showed}.")
    page.heading("In the model registry")
    page.text(climb.registered)
    page.heading("How to read it")
    for line in _reading(climb):
        page.text(line)
    if climb.final:
        page.heading("To do it again")
        page.text(command_of(climb.final[0]))
    text = write_text(directory / "ladder.txt", "\n".join(in_words(climb)) + "\n")
    return [page.write(directory / "ladder.html"), picture, text]


def in_service(climb: Climb) -> str:
    """What the model would do on new samples, for someone who does not train models."""
    rung = climb.final[0] if climb.confirmed else climb.rungs[0]
    source = next((step.result for step in [*climb.final, *climb.rungs] if step.result), None)
    unit = str(source.data.get("unit") or "") if source else ""
    who = "the model" if climb.confirmed else f"the baseline ({_baseline(climb)})"
    said = f"On samples that nothing was fitted to or chosen by, {who} {_says(climb.metric, rung, unit)}"
    if not climb.confirmed:
        return f"{said}. No model that was tried does better."
    baseline = climb.rungs[0].test
    assert baseline is not None
    without = in_figures(climb.metric, baseline.value)
    return f"{said}; without learning ({_baseline(climb)}) it would be {without}."


def _says(metric: str, rung: Rung, unit: str) -> str:
    assert rung.test is not None
    figure, low, high = (in_figures(metric, end) for end in (rung.test.value, rung.test.low, rung.test.high))
    counted = f"{figure} {unit_of(metric, unit)}".strip()
    if metric == "accuracy":
        said = f"is right in {figure} of cases"
    elif metric == "bits_per_char":
        said = f"needs {counted}"
    elif metric == "mae":
        said = f"is off by {counted} on average"
    elif metric == "mse":
        said = f"has a mean squared error of {counted}"
    elif metric == "log_loss":
        said = f"has a log loss of {counted}"
    else:
        said = f"has the right answer among its first {metric.rpartition('_')[2]} in {figure} of cases"
    return f"{said} (95 % interval {low} to {high})"


def _reading(climb: Climb) -> list[str]:
    better = "Higher" if climb.higher else "Lower"
    meant = {
        "mae": "mae is the mean absolute error: how far a prediction is off on average.",
        "mse": "mse is the mean of the squared errors; rmse is its root.",
        "accuracy": "accuracy is the share of samples that are answered rightly.",
        "log_loss": "log_loss is the mean of minus the logarithm of the true class's probability.",
    }.get(climb.metric)
    return [
        *([meant] if meant else []),
        f"{better} {climb.metric} is better. Every step was judged by it on validation data; the test data was read "
        "once, for all steps at the same time, after the choice was final. Validation figures are a little too good, "
        "since the best epoch and settings were chosen by them; test figures are not.",
        "An interval holds the true value in 95 of 100 such experiments. A gain is counted so that more is better; p "
        "is the chance of a difference as large if there were none: from 0.05 on, two steps cannot be told apart. The "
        "rows of the last training (final) are compared with the baseline.",
        "Time for 1,000 rows is that of the model alone on this machine's CPU, with rows that are read and encoded.",
    ]


def draw(climb: Climb, path: Path) -> Path:
    """Draw test figures with their intervals, validation figures beside them, a line a rung.

    The baseline is only pointed to where it lies so far away that the models could not be told apart beside it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from pipeline.drawing import STYLE

    shown = [rung for rung in [*climb.rungs, *climb.final] if rung.test is not None]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 1.1 + 0.36 * len(shown)), layout="constrained")
        axis = figure.add_subplot()
        left, right = _limits(climb, shown)
        axis.set_xlim(left, right)
        for place, rung in enumerate(shown):
            assert rung.test is not None
            if left <= rung.test.value <= right:
                _draw_rung(axis, place, rung)
            else:
                low = rung.test.value < left
                axis.annotate(
                    f"← {four_digits(rung.test.value)}" if low else f"{four_digits(rung.test.value)} →",
                    (left if low else right, place),
                    xytext=(6 if low else -6, 0),
                    textcoords="offset points",
                    ha="left" if low else "right",
                    va="center",
                )
        axis.set_yticks(range(len(shown)), [_name(climb, rung) for rung in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        unit = f", {climb.unit}" if climb.unit else ""
        axis.set_xlabel(
            f"{climb.metric.replace('_', ' ')}{unit} ({'higher' if climb.higher else 'lower'} is better)"
        )
        handles, labels = axis.get_legend_handles_labels()
        first = {label: handle for handle, label in zip(handles, labels, strict=True)}
        figure.legend(list(first.values()), list(first), loc="outside upper right", ncols=2)
        figure.savefig(path, facecolor="white")
    return path


def _limits(climb: Climb, shown: list[Rung]) -> tuple[float, float]:
    """The part of the axis that the models take, and the baseline where it is near them."""
    models = [rung for rung in shown if rung.result is not None]
    ends = [end for rung in models for end in _ends(rung)]
    baseline = _ends(climb.rungs[0])
    if not ends or max(abs(a - b) for a in ends for b in baseline) < 4 * (max(ends) - min(ends)):
        ends += baseline
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    return min(ends) - margin, max(ends) + margin


def _ends(rung: Rung) -> list[float]:
    assert rung.test is not None
    validation = [rung.validation] if rung.validation == rung.validation else []
    return [rung.test.low, rung.test.high, *validation]


def _draw_rung(axis: Any, place: int, rung: Rung) -> None:
    from pipeline.drawing import TRAIN, VALIDATION

    assert rung.test is not None
    axis.plot([rung.test.low, rung.test.high], [place, place], color=TRAIN, linewidth=5, alpha=0.35)
    axis.plot(rung.test.value, place, "o", color=TRAIN, label="test, 95 % interval")
    if rung.validation == rung.validation:
        axis.plot(rung.validation, place, "o", color=VALIDATION, fillstyle="none", label="validation")


def model_card(climb: Climb, cfg: DictConfig, winner: Rung, run_id: str) -> str:
    """The model card, Markdown: data, use, figures with intervals, limits, how to reproduce."""
    assert winner.result is not None and winner.gain is not None
    data = winner.result.data
    seeds = ", ".join(four_places(rung.test.value) for rung in climb.final if rung.test is not None)
    stand_in = "" if data["used"] == data["requested"] else f" (a stand-in for {data['requested']})"
    sure = _sure(winner)
    how = f"{'made of' if climb.chosen.made_of else 'trained for'} {climb.length}"
    if not climb.retrained:
        how = "not trained again on validation data, since the time was over"
    included = ", validation included" if climb.retrained else ""
    return "\n\n".join(
        [
            f"# {' '.join(file_and_target(cfg) or [str(cfg.name)])}: {climb.chosen.name}",
            f"**Data**: {data['used']}{stand_in}, {data['train']:,} samples to learn from{included}, "
            f"{data['test']:,} for the test; digest `{data['digest']}`.",
            f"**Intended use**: predict {data['target']}{_in(data)} of single samples like those, from raw input as "
            "in the model's signature; it answers with labels and probabilities, or with a number.",
            f"**Test {climb.metric}**: {winner.test}; other seeds of the same training: {seeds}. "
            f"Baseline ({_baseline(climb)}): {climb.rungs[0].test}. Gain {amount(climb, winner.gain)}, "
            f"{winner.gain.method}, {chance(winner.gain)}. Chosen among {climb.tried} fits on validation data; "
            f"{how}.",
            *([f"**Goal and constraints**: {'; '.join(goal_lines(climb))}."] if climb.goals else []),
            *([_by_group(climb)] if climb.by else []),
            *([f"**How sure it is**, read off data that it had not learnt from: {sure}."] if sure else []),
            "**Limits**: measured on samples of the same source alone; inputs unlike the training data get an answer "
            "all the same. `task=evaluate` shows how good the probabilities are, which classes are confused, and with "
            "`task.shift=…` what shifted inputs cost.",
            f"**Reproduce**: `python -m pipeline task=reproduce task.run_id={run_id}`, or from the start "
            f"`{command_of(winner)}`",
        ]
    )


def _by_group(climb: Climb) -> str:
    rows = [f"| {' | '.join(cells)} |" for cells in group_rows(climb)]
    heads = group_columns(climb)
    return "\n".join([f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *rows])


def _sure(rung: Rung) -> str:
    """How sure a rung's model is, in words; empty where that was not settled."""
    if rung.result is None:
        return ""
    settled = Settled.from_dict(rung.result.model.get("sureness"))
    unit = str(rung.result.data.get("unit") or "")
    return sureness_words(settled, unit, rung.metrics.get("coverage"))


def command_of(rung: Rung) -> str:
    """The command line that trains a rung again, each setting once and without places."""
    last: dict[str, str] = {}
    for word in rung.overrides:
        key = word.lstrip("+").partition("=")[0]
        if key.split(".")[0] not in sections("where"):
            last[key] = word
    words = [f"+{word}" if word.startswith("experiment=") else word for word in last.values()]
    return shlex.join(["python", "-m", "pipeline", *words])


def _row(climb: Climb, rung: Rung) -> list[str]:
    test, gain = rung.test, ""
    if rung.gain is not None:
        gain = f"{four_places(climb.gain(rung.gain), '+')}, {chance(rung.gain)}"
        gain = f"{gain} (baseline)" if rung in climb.final else gain
    return [
        _name(climb, rung),
        f"{rung.parameters:,}" if rung.result is not None else "",
        "" if rung.validation != rung.validation else four_places(rung.validation),
        f"{four_places(test.value)} ({four_places(test.low)} to {four_places(test.high)})"
        if test is not None
        else "",
        gain,
        f"{four_places(climb.gain(rung.over_simple), '+')}, {chance(rung.over_simple)}"
        if rung.over_simple
        else "",
        "" if math.isnan(rung.fit_seconds) else f"{rung.fit_seconds:.1f}",
        _milliseconds(rung),
        size_in_words(rung.bytes),
    ]


def _html_row(climb: Climb, rung: Rung) -> list[Any]:
    # A figure and its interval stay on one line.
    row: list[Any] = [cell.replace(" ", "\u00a0") for cell in _row(climb, rung)]
    row[1] = rung.parameters if rung.result is not None else ""
    row[6] = "" if math.isnan(rung.fit_seconds) else round(rung.fit_seconds, 1)
    return row


def _milliseconds(rung: Rung) -> str:
    if math.isnan(rung.milliseconds):
        return ""
    return f"{rung.milliseconds:.2f}" if rung.milliseconds < 10 else f"{rung.milliseconds:,.0f}"


def _name(climb: Climb, rung: Rung) -> str:
    return f"{rung.name} (chosen)" if rung is climb.chosen else rung.name


def _baseline(climb: Climb) -> str:
    return _MEANING.get(climb.baseline, climb.baseline)


def _others(climb: Climb) -> str:
    named = ", ".join(f"{name} {four_places(value)}" for name, value in climb.others.items())
    return f"Other predictors without a training loop, test {climb.metric}: {named}."


def _in(data: dict[str, Any]) -> str:
    return f" ({data['unit']})" if data.get("unit") else ""
