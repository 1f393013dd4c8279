"""torchmetrics stands there without having run, and nobody who uses it can tell."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "('scipy', 'torchvision', 'transformers', 'sklearn')"


def run(program: str) -> list[str]:
    """What a program prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pipeline\n" + program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


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
for statement in ("import torchmetrics.nothing", "from torchmetrics import nothing"):
    try:
        exec(statement)
    except ImportError as error:
        print(type(error).__name__, error.name)
"""
    )
    assert shown == [
        *("[]", "True True", "True", "Accuracy False"),
        *("ModuleNotFoundError torchmetrics.nothing", "ImportError torchmetrics"),
    ]


def test_a_file_of_it_that_is_asked_for_first_is_there_once() -> None:
    # Each in a process of its own, forked before anything else is imported than what all of them import.
    shown = run(
        """
import importlib, os, torch
for name in ("torchmetrics.metric", "torchmetrics.text.bert", "torchmetrics.functional"):
    sys.stdout.flush()
    if not os.fork():
        module = importlib.import_module(name)
        import torchmetrics
        print(module is sys.modules[name], module is eval(name))
        print(torchmetrics.metric.Metric is torchmetrics.Metric is torchmetrics.utilities.checks.Metric)
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0
"""
    )
    assert shown == 3 * ["True True", "True"]
