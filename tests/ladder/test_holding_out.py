"""Few texts and pictures: enough of them choose between the rungs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.config.loading import compose
from pipeline.ladder.holding_out import held_out
from pipeline.runs.finished import data_of


def texts(path: Path, rows: int) -> list[str]:
    draw = random.Random(0)
    lines = [f"{draw.choice(['good', 'fine'])} {n % 7} film,pos" for n in range(rows // 2)]
    lines += [f"{draw.choice(['bad', 'dull'])} {n % 7} film,neg" for n in range(rows - rows // 2)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return ["data=text_csv", f"data.path={path}"]


@pytest.mark.parametrize(
    ("rows", "asked", "held"), [(300, 1 / 3, 80), (600, 100 / 480, 100), (1500, None, 120)]
)
def test_a_hundred_are_held_out_or_a_third(
    tmp_path: Path, rows: int, asked: float | None, held: int, caplog: pytest.LogCaptureFixture
) -> None:
    words = texts(tmp_path / "texts.csv", rows)
    caplog.set_level("INFO", "pipeline")
    found = held_out(compose(words), words)
    assert found == ([] if asked is None else [f"data.validation_fraction={asked:.4f}"])
    data = data_of(compose([*words, *found]))
    assert data.validation is not None and len(data.validation) == held
    assert ("are held out to choose between the rungs" in caplog.text) == bool(found)


def test_a_share_that_somebody_chose_is_kept(tmp_path: Path) -> None:
    words = [*texts(tmp_path / "texts.csv", 300), "data.validation_fraction=0.2"]
    assert held_out(compose(words), words) == []


def test_tables_are_judged_by_folds(tmp_path: Path) -> None:
    rows = "\n".join(f"{n % 5},{'ab'[n % 2]}" for n in range(200))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}\n", encoding="utf-8")
    words = ["data=csv", f"data.path={tmp_path / 't.csv'}", "data.target=y"]
    assert held_out(compose(words), words) == []
