"""task=explore: what is planted in the data is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.exploring import explore as task
from pipeline.exploring.report import write_report
from pipeline.runs.finished import data_of


class Planted(DataModule):
    """Two classes told apart by the first column; leaks, contradictions and an outlier as the tests ask for."""

    def setup(self, stage: str | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(400, 3, generator=generator)
        x[:, 2] = 7.0
        y = (x[:, 0] > 0).float()
        self.spec = Spec("binary", "vector", (3,), 1, ("no", "yes"), target_name="answer")
        self.encoder = VectorEncoder(["signal", "noise", "flat"])
        self.train, self.validation, self.test = (
            Rows(x[:300].clone(), y[:300].clone()),
            Rows(x[300:350].clone(), y[300:350]),
            Rows(x[350:].clone(), y[350:]),
        )


@pytest.fixture
def planted() -> Planted:
    data = Planted("planted")
    data.setup()
    return data


def test_clean_data_gives_no_warning_but_the_flat_column(planted: Planted) -> None:
    found = task.explore(planted)
    assert found.sizes == {"train": 300, "validation": 50, "test": 50}
    assert found.warnings == ["the same value everywhere: flat"]
    assert sum(found.targets.values()) == 300
    assert found.inputs[0]["mean"] == pytest.approx(float(planted.train.x[:, 0].mean()), abs=1e-6)


def test_leaks_contradictions_outliers_and_wrong_labels_are_found(planted: Planted, tmp_path: Path) -> None:
    assert planted.test is not None
    planted.test.x[:4] = planted.train.x[:4]
    planted.train.x[10], planted.train.y[10] = planted.train.x[11], 1 - planted.train.y[11]
    planted.train.x[20, 1] = 500.0
    wrong = int(planted.train.x[:, 0].argmax())
    planted.train.y[wrong] = 0.0
    found = task.explore(planted)
    assert any("LEAK: 4 of 50 test samples" in warning for warning in found.warnings)
    assert found.contradictions == 1
    assert found.inputs[1]["outliers"] == 1
    assert wrong in [row["row"] for row in found.suspects]
    report = write_report(planted, found, tmp_path)[0].read_text()
    assert "LEAK: 4 of 50" in report
    # Nothing is fetched from anywhere else.
    assert "http" not in report.replace("http-equiv", "")
    # The target and the columns.
    assert report.count("data:image/png;base64,") == 2


def test_the_embedded_digits_have_no_leak(command: Callable[..., DictConfig], tmp_path: Path) -> None:
    data = data_of(command("task=explore", "data=digits"))
    found = task.explore(data)
    assert not [warning for warning in found.warnings if "LEAK" in warning]
    assert found.sizes["test"] == 360
    assert data.test is not None
    assert len(set(task.sample_hashes(data.test))) == len(
        np.unique(data.test.x.numpy().reshape(360, -1), axis=0)
    )
    files = write_report(data, found, tmp_path)
    assert {"explore.html", "findings.json", "targets.png", "samples.png"} <= {path.name for path in files}


def test_columns_are_described_in_their_own_units_with_their_gaps(
    command: Callable[..., DictConfig], tmp_path: Path
) -> None:
    sizes = [50 + i % 100 for i in range(200)]
    rows = [
        f"{i},{size},{'' if i % 2 else i % 5},{('north', 'south', '')[i % 3]},{1000 * size + i}"
        for i, size in enumerate(sizes)
    ]
    (tmp_path / "houses.csv").write_text("\n".join(["id,size,rooms,area,price", *rows]), encoding="utf-8")
    cfg = command("task=explore", "data=csv", f"data.path={tmp_path}/houses.csv", "data.target=price")
    with task.noted() as notes:
        data = data_of(cfg)
    found = task.explore(data)
    assert any("id" in note for note in notes)
    by_name = {row["input"]: row for row in found.inputs}
    assert set(by_name) == {"size", "rooms"}
    assert (by_name["size"]["minimum"], by_name["size"]["maximum"]) == pytest.approx((50, 149), abs=1)
    assert by_name["size"]["missing"] == 0
    n = found.sizes["train"]
    assert by_name["rooms"]["missing"] == pytest.approx(n / 2, abs=0.1 * n)
    assert (by_name["rooms"]["minimum"], by_name["rooms"]["maximum"]) == pytest.approx((0, 4), abs=1e-4)
    (area,) = found.categories
    assert set(area.counts) == {"north", "south"}
    assert sum(area.counts.values()) + area.missing == n
    assert any("many values are missing: rooms" in warning for warning in found.warnings)
    page = write_report(data, found, tmp_path)[0].read_text(encoding="utf-8")
    assert "column of words" in page


def test_one_long_text_is_described_without_claims_about_duplicates(
    command: Callable[..., DictConfig], tmp_path: Path
) -> None:
    data = data_of(command("task=explore", "data=kafka", "model=rnn"))
    found = task.explore(data)
    page = write_report(data, found, tmp_path)[0].read_text(encoding="utf-8")
    assert "pieces of one sequence" in page
    # The blank is a character too, and must be seen.
    assert "&#x27; &#x27;" in page


def test_frequent_words_and_lengths_of_texts(command: Callable[..., DictConfig], tmp_path: Path) -> None:
    texts = [("good film" if i % 2 else "bad film") + " indeed" * (i % 3) for i in range(120)]
    rows = [f"{text},{'yes' if i % 2 else 'no'}" for i, text in enumerate(texts)]
    (tmp_path / "films.csv").write_text("\n".join(["text,liked", *rows]), encoding="utf-8")
    typed = ["data=text_csv", f"data.path={tmp_path}/films.csv", "data.text=text", "data.target=liked"]
    found = task.explore(data_of(command("task=explore", *typed)))
    n = found.sizes["train"]
    assert found.words["film"] == n
    assert found.words["good"] + found.words["bad"] == n
    assert (found.inputs[0]["minimum"], found.inputs[0]["maximum"]) == (2, 3)
