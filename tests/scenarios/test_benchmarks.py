"""The benchmarks run; what they measure is for a quiet machine and in benchmarks/README.md."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import against

# A second, on data that is generated.
QUICK = ["clusters_linear"]


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


def test_a_comparison_says_what_is_surely_better_and_whether_the_time_was_kept() -> None:
    generator = np.random.default_rng(0)
    rows: list[against.Row] = []
    for table, factor, seconds in (("concrete", 0.9, 61.0), ("biomass", 1.2, 64.0)):
        theirs = generator.exponential(size=300)
        ours = theirs * factor * generator.uniform(0.99, 1.01, size=300)
        for what, losses in (("improve-60", ours), ("autogluon-60", theirs)):
            row = {"table": table, "what": what, "mae": losses.mean(), "losses": losses, "seconds": seconds}
            rows.append(row)
        rows.append({"table": table, "what": "sklearn-linear", "mae": 1.1 * factor})
    said = against.report(rows, ["concrete", "biomass", "scat"], 60.0)
    lines = said.splitlines()
    assert "| better | 61 s |" in lines[2] and "| worse | 64 s, **not kept** |" in lines[3]
    mean = float(said.partition("geometric mean of the ratios: ")[2].split()[0])
    assert mean == pytest.approx((0.9 * 1.2) ** 0.5, abs=0.005)
    assert "not significantly worse: 1 of 2 tables" in said
    assert "budget kept (at most 1.05 times it): 1 of 2 commands, the longest 64.0 s" in said
    low, high = against.interval_of_ratio([1.0, 2.0, 3.0] * 50, [2.0, 2.0, 2.0] * 50)
    # By hand: a mean of 150 with a deviation of sqrt(2 / 3), of half its size.
    assert (low, high) == pytest.approx((1 - 0.0653, 1 + 0.0653), abs=0.01)
    assert [against.seconds_of(word) for word in ("60s", "3m", "90")] == [60, 180, 90]
