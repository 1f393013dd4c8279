"""The benchmarks run; what they measure is for a quiet machine and in benchmarks/README.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks import __main__ as benchmarks

# A second each, on data that is generated or embedded.
QUICK = ["help_lstm", "clusters_linear"]


@pytest.mark.slow
def test_rows_of_the_table_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--repetitions", "1", "--only", *QUICK])
    benchmarks.main()
    shown = capsys.readouterr().out
    for row in QUICK:
        assert f"  {row}: " in shown and "loop: " in shown


@pytest.mark.slow
def test_predictions_are_timed_on_the_stand_in_too(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import prediction

    rows = prediction.measure(1)
    assert rows and all(row.value > 0 for row in rows)


def test_every_module_of_the_benchmarks_is_importable() -> None:
    import importlib

    for path in Path(benchmarks.__file__).parent.glob("*.py"):
        importlib.import_module(f"benchmarks.{path.stem}")
