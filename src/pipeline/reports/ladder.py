"""The outcome of a ladder: a table for the terminal, a page for a stakeholder, a card for the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipeline.reports.html import Page

if TYPE_CHECKING:
    from pipeline.run_result import RunResult
    from pipeline.tasks.improve import Climb, Rung

COLUMNS = ("rung", "parameters", "validation", "test (95 % interval)", "gain over the rung below", "seconds")


def rows(climb: Climb) -> list[list[str]]:
    """A row a rung, then one for each seed of the winner's last training."""
    return [_row(rung) for rung in [*climb.rungs, *climb.final]]


def conclusion(climb: Climb) -> str:
    """Which rung was chosen, in words."""
    if climb.chosen.result is None:
        return f"Keep the baseline: no model predicts better than always the same answer ({climb.metric})."
    tests = [rung.test.value for rung in climb.final if rung.test is not None]
    spread = ", ".join(f"{value:.4f}" for value in tests)
    return (
        f"Chosen: {climb.chosen.name}. Trained again on training and validation data with {len(tests)} seeds: "
        f"test {climb.metric} {spread}."
    )


def in_words(climb: Climb) -> list[str]:
    """The table as plain text, what each step showed, and the conclusion."""
    table = [list(COLUMNS), *rows(climb)]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines += [f"{rung.name}: {rung.showed}" for rung in climb.rungs]
    return [*lines, conclusion(climb), climb.registered, f"time: {climb.seconds:.0f} s"]


def write_report(climb: Climb, cfg: DictConfig, directory: Path) -> list[Path]:
    """``ladder.html``, ready to be sent to someone, and ``ladder.txt``."""
    page = Page(f"How well can it be predicted? {cfg.name}")
    page.text(conclusion(climb))
    page.text(
        f"Every step was judged by {climb.metric} on validation data. The test data was read once, for all steps at "
        "the same time, after the choice was final."
    )
    page.table(COLUMNS, rows(climb))
    page.heading("What each step showed")
    for rung in climb.rungs:
        page.text(f"{rung.name}: {rung.showed}")
    page.heading("In service")
    page.text(climb.registered)
    if climb.final and climb.final[0].cfg is not None:
        page.heading("To do it again")
        page.text("python -m pipeline " + " ".join(_shown(climb.final[0])))
    text = directory / "ladder.txt"
    text.write_text("\n".join(in_words(climb)) + "\n", encoding="utf-8")
    return [page.write(directory / "ladder.html"), text]


def model_card(climb: Climb, cfg: DictConfig, result: RunResult) -> str:
    """Markdown: data, use, figures with intervals, limits, how to reproduce."""
    data = result.data
    winner = climb.final[0]
    return "\n".join(
        [
            f"# {cfg.name}: {climb.chosen.name}",
            f"**Data**: {data.get('used')}, {data.get('train'):,} training samples, digest {data.get('digest')}.",
            f"**Use**: predict {data.get('target')} from raw input as in the model's signature; labels with "
            "probabilities, or a number.",
            f"**Test {climb.metric}**: {winner.test}; baseline {climb.rungs[0].test}.",
            "**Limits**: measured on data of the same source alone; probabilities are as calibrated as "
            "`task=evaluate` shows; inputs unlike the training data get an answer all the same.",
            f"**Reproduce**: `python -m pipeline task=reproduce task.run_id={result.run_id}`",
        ]
    )


def _row(rung: Rung) -> list[str]:
    test, gain = rung.test, rung.gain
    return [
        rung.name,
        f"{rung.parameters:,}" if rung.result is not None else "",
        _number(rung.validation),
        f"{test.value:.4f} ({test.low:.4f} to {test.high:.4f})" if test is not None else "",
        f"{gain.difference.value:+.4f}, p = {gain.p_value:.2g}" if gain is not None else "",
        f"{rung.seconds:.0f}",
    ]


def _number(value: float) -> str:
    return "" if value != value else f"{value:.4f}"


def _shown(rung: Rung) -> list[str]:
    words: list[Any] = [word for word in rung.overrides if not word.startswith(("paths.", "logger"))]
    return [f"'{word}'" if any(sign in word for sign in "[]{}() ,") else str(word) for word in words]
