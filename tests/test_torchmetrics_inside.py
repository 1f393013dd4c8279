"""torchmetrics stands there without having run, and nobody who uses it can tell."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "('scipy', 'torchvision', 'transformers', 'sklearn')"


def run(program: str) -> str:
    """Standard output of a program in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pipeline\n" + program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lightning_comes_without_the_rest_and_knows_the_same_classes() -> None:
    shown = run(
        f"""
import pytorch_lightning as pl
print([name for name in {HEAVY} if name in sys.modules])
import torchmetrics
from torchmetrics.classification import MulticlassAccuracy
print(isinstance(MulticlassAccuracy(3), pl.core.module.Metric), torchmetrics.Metric is torchmetrics.metric.Metric)
print(isinstance(torchmetrics.MetricCollection([MulticlassAccuracy(3)]), pl.core.module.MetricCollection))
print(torchmetrics.Accuracy.__name__, hasattr(torchmetrics, "nothing"))
"""
    )
    assert shown.splitlines() == ["[]", "True True", "True", "Accuracy False"]


@pytest.mark.parametrize("name", ["torchmetrics.metric", "torchmetrics.text.bert", "torchmetrics.functional"])
def test_a_file_of_it_that_is_asked_for_first_is_there_once(name: str) -> None:
    shown = run(
        f"""
import {name} as module, torchmetrics
print(module is sys.modules["{name}"], module is eval("{name}"))
print(torchmetrics.metric.Metric is torchmetrics.Metric is torchmetrics.utilities.checks.Metric)
"""
    )
    assert shown.split() == ["True", "True", "True"]


def test_what_is_not_in_it_is_the_usual_error() -> None:
    shown = run(
        """
for statement in ("import torchmetrics.nothing", "from torchmetrics import nothing"):
    try:
        exec(statement)
    except ImportError as error:
        print(type(error).__name__, error.name)
"""
    )
    assert shown.splitlines() == ["ModuleNotFoundError torchmetrics.nothing", "ImportError torchmetrics"]
