"""The summary says what a reader needs to know, in a terminal and in a log file."""

from __future__ import annotations

import io
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.reports.summary import opening_command, print_summary, verdict


def judged(**changes: Any) -> dict[str, Any]:
    return {
        "against": "majority",
        "split": "test",
        "metric": "accuracy",
        "model": 0.9925,
        "baseline": 0.1135,
        "verdict": "beats",
        "gain": 0.879,
        "low": 0.871,
        "high": 0.887,
        "confidence": 0.95,
        "why": "",
        **changes,
    }


def result(**changes: Any) -> dict[str, Any]:
    return {
        "experiment": "mnist_cnn",
        "run_id": "8f0e2a",
        "directory": "/somewhere/runs/mnist_cnn/1",
        "data": {"requested": "mnist", "used": "mnist", "digest": "ab", "train": 55000, "validation": 5000},
        "model": {"class": "pipeline.models.cnn.CNN", "parameters": 3274634},
        "metrics": {"train/loss": 0.01, "val/loss": 0.03, "val/accuracy": 0.991, "test/accuracy": 0.9925},
        "baseline": {"name": "majority", "val/accuracy": 0.1121, "val/loss": 2.3012, "test/accuracy": 0.1135},
        "seconds": {"startup": 3.21, "fit": 60.0, "test": 1.0, "total": 66.04},
        "samples_per_second": 5400.4,
        "seed": 7,
        "best_epoch": 9,
        "verdicts": [judged()],
        "notes": ["the learning rate was halved once"],
        **changes,
    }


def printed(values: dict[str, Any], terminal: bool, ui: str | None = "mlflow ui --port 5000") -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=150, color_system=None)
    print_summary(values, ui=ui, console=console)
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_everything_a_reader_needs_is_there(terminal: bool) -> None:
    text = printed(result(), terminal)
    for words in (
        "mnist (55,000 train, 5,000 validation)",
        "CNN, 3,274,634 parameters",
        "best epoch",
        "0.9910",
        "0.9925",
        "0.1135",
        "beats the majority baseline: test accuracy 0.9925 against 0.1135",
        "gain +0.8790, 95% interval +0.8710 to +0.8870",
        "66.0 s (startup 3.2, fit 60.0, test 1.0)",
        "5,400 samples/s",
        "/somewhere/runs/mnist_cnn/1",
        "8f0e2a",
        "mlflow ui --port 5000",
        "the learning rate was halved once",
    ):
        assert words in text, words
    assert "STAND-IN" not in text
    assert "train/loss" not in text


def test_elsewhere_than_in_a_terminal_each_line_is_a_fact() -> None:
    lines = printed(result(), terminal=False).splitlines()
    assert "accuracy: validation 0.9910, test 0.9925, majority baseline 0.1135" in lines
    assert "loss: validation 0.0300, majority baseline 2.3012" in lines
    assert "best epoch: 9" in lines
    assert all(character.isascii() for line in lines for character in line)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stand_in_is_loud(terminal: bool) -> None:
    text = printed(result(data={"requested": "mnist", "used": "digits"}), terminal)
    assert "STAND-IN DATA: mnist was not available, digits was used." in text


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "cannot be told apart from",
            "THE MODEL CANNOT BE TOLD APART FROM the majority baseline: test accuracy",
        ),
        (
            "is worse than",
            "THE MODEL IS WORSE THAN the majority baseline: test accuracy 0.9925 against 0.1135",
        ),
    ],
)
def test_not_beating_the_baseline_is_said_in_plain_words(terminal: bool, said: str, words: str) -> None:
    assert words in printed(result(verdicts=[judged(verdict=said)]), terminal)


def test_where_there_is_no_verdict_the_reason_is_said() -> None:
    entry = judged(
        verdict="", why="there are too few samples to tell", low=math.nan, high=None, variant="wide"
    )
    assert verdict({"verdicts": [entry]}) == [
        "wide: NO VERDICT against the majority baseline: test accuracy 0.9925 against 0.1135; "
        "there are too few samples to tell."
    ]
    assert verdict({"metrics": {"test/accuracy": 1.0}}) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_undefined_is_not_shown(terminal: bool) -> None:
    metrics = {"test/mae": 2.5, "test/mae_std": math.nan, "test/r2": math.nan, "test/r2_std": math.nan}
    text = printed(result(metrics=metrics, baseline={}, verdicts=[]), terminal)
    assert "2.5000" in text
    assert "NaN" not in text and "nan" not in text and "r2" not in text and "±" not in text


def test_values_with_brackets_are_printed_as_they_are() -> None:
    text = printed(result(directory="/runs/[bold]x[/bold]", experiment="a[red]b"), terminal=True)
    assert "/runs/[bold]x[/bold]" in text
    assert "a[red]b" in text


def test_a_result_with_nothing_but_a_name_can_be_shown() -> None:
    for terminal in (True, False):
        printed({"experiment": "empty", "metrics": {}}, terminal, ui=None)
        printed({"data": None, "model": None, "baseline": None, "seconds": None, "metrics": None}, terminal)


@pytest.mark.parametrize("terminal", [True, False])
def test_several_baselines_and_deviations_over_fits(terminal: bool) -> None:
    folds = result(
        metrics={"val/mae": 2.5, "val/mae_std": 0.25},
        baseline={"name": "mean", "val/mae": 6.6, "others": {"linear_regression": {"val/mae": 2.4}}},
    )
    text = printed(folds, terminal)
    assert "2.5000 ± 0.2500" in text
    assert "mae std" not in text
    assert "linear regression baseline 2.4000" in printed(folds, terminal=False)


def test_where_nothing_was_held_out_the_training_metrics_are_shown() -> None:
    assert "loss: training 0.5000" in printed(
        result(metrics={"train/loss": 0.5}, baseline={}), terminal=False
    )


def test_the_command_opens_the_store_that_the_run_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = opening_command(f"sqlite:///{tmp_path}/experiments/mlflow.db", Path("experiments"), "mine")
    assert shlex.split(default)[1:] == ["-m", "pipeline", "task=ui", "task.experiment=mine"]
    elsewhere = shlex.split(opening_command("sqlite:///other.db", Path("/somewhere/with a blank")))
    assert elsewhere[4:] == [
        "paths.experiments_dir=/somewhere/with a blank",
        f"logger.tracking_uri=sqlite:///{tmp_path}/other.db",
    ]


def test_without_an_activated_environment_the_command_names_its_own_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert opening_command(None, Path("experiments")).startswith(".venv/bin/python -m pipeline task=ui")
    monkeypatch.setenv("PATH", str(tmp_path / ".venv/bin"))
    assert opening_command(None, Path("experiments")).startswith("python -m pipeline task=ui")


def test_a_server_is_opened_by_its_address_and_a_password_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opening_command("http://localhost:5000", Path("e")) == "http://localhost:5000"
    assert opening_command("https://me:hunter2@host/x", Path("e")) == "https://me:***@host/x"
    secret = "postgresql+psycopg://me:hunter2@host/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    assert opening_command(secret, Path("experiments")).endswith("-m pipeline task=ui")


def test_the_directory_is_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = printed(result(directory=tmp_path / "experiments/runs/x"), terminal=False)
    assert "directory: experiments/runs/x\n" in text
