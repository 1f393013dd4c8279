"""Where rows are few, several fits answer together: each is what a fit without its rows comes to."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.errors import Diverged, UserError
from pipeline.models.blend import Blend
from pipeline.models.saved import load
from pipeline.models.tabm import TabM
from pipeline.runs import folded
from pipeline.runs.alone import fit_alone
from pipeline.runs.folded import answers_of, folds_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.plan import plan_of
from pipeline.runs.train import train
from pipeline.training.building import build_data, build_model

ROWS = 120
SHORT = ["trainer.max_epochs=3", "trainer.threads=1", "logger=none", "callbacks.progress=null"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with a number and two classes that follow from two others."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(ROWS, 2)).round(3)
    noise = draw.normal(size=ROWS)
    path = tmp_path_factory.mktemp("folded") / "few.csv"
    kind = np.where(x[:, 0] + 0.5 * noise > 0, "yes", "no")
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": (x.sum(1) + noise).round(3), "kind": kind}).to_csv(
        path, index=False
    )
    return path


def of(table: Path, target: str, *words: str) -> list[str]:
    """The words of a run on the table."""
    return ["data=csv", f"data.path={table}", f"data.target={target}", f"data.drop=[{other(target)}]", *words]


def other(target: str) -> str:
    return "kind" if target == "y" else "y"


def folds_for(words: list[str], hooks: Hooks | None = None) -> int:
    """How many folds such a run's model is fitted to."""
    plan = plan_of(compose(words))
    data = build_data(plan.data, plan.model)
    return folds_of(plan, data, build_model(plan.model, data, plan.fit), hooks or Hooks())


@pytest.mark.parametrize("target", ["y", "kind"])
def test_the_model_is_the_mean_of_the_first_fit_and_one_without_each_fold(
    table: Path, target: str, tmp_path: Path
) -> None:
    cfg = compose(of(table, target, *SHORT, "task.bag_folds=3"))
    result = train(cfg, Hooks(directory=tmp_path / "run"))

    plan = plan_of(cfg)
    data = build_data(plan.data, plan.model)
    views = data.refolded(3)
    # The rows that a fit of a fold learns from are all others, and what is held out there stops it.
    each = [fit_alone(plan, data, tmp_path / "first")]
    each += [fit_alone(plan, view, tmp_path / str(number)) for number, (view, _) in enumerate(views)]
    kept = load(tmp_path / "run" / "model").module
    assert isinstance(kept, Blend) and len(kept.members) == 4
    for member, one in zip(kept.members, each, strict=True):
        assert all(torch.equal(member.state_dict()[key], value) for key, value in one.state_dict().items())

    # Validation figures are those of fits that have not seen the rows, not of all.
    unseen = torch.zeros(ROWS - result.data["test"], 2 if target == "kind" else 1)
    for model, (view, held_out) in zip(each[1:], views, strict=True):
        unseen[held_out] = answers_of(model, view.validation)
    said, true = unseen[len(data.train) :], data.validation.y.reshape(-1)
    if target == "y":
        expected, name = float((said[:, 0] - true).abs().mean()), "val/mae"
    else:
        expected, name = float(-said[torch.arange(len(true)), true.long()].log().mean()), "val/log_loss"
    assert result.metrics[name] == pytest.approx(expected, rel=1e-4)
    assert result.model["bag_folds"] == 3
    assert result.model["parameters"] == 4 * sum(one.numel() for one in each[0].parameters())
    assert any("3 more fits, each without another part of the 102 rows" in note for note in result.notes)


def test_how_sure_it_is_all_rows_say(table: Path, tmp_path: Path) -> None:
    # 15 validation rows are too few to calibrate by (20), and for a 99 % interval (99); the 102 of all folds do.
    words = of(table, "kind", *SHORT)
    alone = train(compose([*words, "task.bag_folds=null"]), Hooks(directory=tmp_path / "alone"))
    assert any("15 validation rows are too few" in note for note in alone.notes)
    several = train(compose([*words, "task.bag_folds=3"]), Hooks(directory=tmp_path / "several"))
    assert any("102 validation rows" in note for note in several.notes)
    words = of(table, "y", *SHORT, "data.interval=0.99", "task.bag_folds=3")
    wide = train(compose(words), Hooks(directory=tmp_path / "wide"))
    assert wide.model["sureness"]["half_width"] > 0


def test_auto_is_for_few_rows_where_nothing_else_was_asked_for(table: Path, tmp_path: Path) -> None:
    plain = of(table, "kind", "logger=none")
    assert folds_for(plain) == 5
    for asked in (
        *("trainer.max_epochs=3", "trainer.max_time=00:00:01:00", "+trainer.overfit_batches=1"),
        *("model=mlp", "model=linear", "model=boosting", "task.bag_folds=null", "task=improve"),
        *("data.validation_fraction=0", "train=false"),
    ):
        assert folds_for([*plain, asked]) == 0, asked
    assert folds_for([*plain, "data.folds=4", "data.fold=0"]) == 0
    # A sweep compares its trials, and may end them early.
    assert folds_for(plain, Hooks(on_epoch=lambda epoch, metrics: None)) == 0
    many = pd.concat([pd.read_csv(table)] * 20, ignore_index=True)
    many.to_csv(tmp_path / "many.csv", index=False)
    assert folds_for(of(tmp_path / "many.csv", "kind", "logger=none", "data.drop=[y]")) == 0
    dated = many.assign(day=pd.date_range("2020-01-01", periods=len(many)).astype(str)).head(200)
    dated.to_csv(tmp_path / "dated.csv", index=False)
    words = of(tmp_path / "dated.csv", "kind", "logger=none", "data.split=date", "data.split_column=day")
    assert folds_for(words) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.validation_fraction=0"], "nothing is held out; set data.validation_fraction above 0"),
        (["data.folds=4", "data.fold=0"], "dealt out at random"),
        (["ckpt_path=best.ckpt"], "begin anew, not with the weights of ckpt_path"),
        (["task.bag_folds=500"], "there are 102 rows; expected at most so many folds"),
    ],
)
def test_a_number_of_folds_that_cannot_be_is_refused(table: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        folds_for([*of(table, "kind", "logger=none"), "task.bag_folds=3", *words])
    assert "task.bag_folds=null is one fit" in str(caught.value)


def test_other_data_and_models_of_ones_own_are_one_fit() -> None:
    words = ["data=line", "model=linear", "logger=none"]
    assert folds_for(words) == 0
    with pytest.raises(UserError, match="rows of a table"):
        folds_for([*words, "task.bag_folds=3"])
    plan = replace(plan_of(compose(words)), bag_folds=3)
    data = build_data(plan.data, plan.model)
    with pytest.raises(UserError, match="models of this project"):
        folds_of(plan, data, torch.nn.Linear(1, 1), Hooks())


def test_the_first_fit_stays_where_another_one_comes_to_nothing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise Diverged("the loss became NaN")

    monkeypatch.setattr(folded, "fitted_to", fails)
    with caplog.at_level(logging.WARNING):
        result = train(compose(of(table, "y", *SHORT, "task.bag_folds=3")), Hooks(directory=tmp_path / "run"))
    assert isinstance(load(tmp_path / "run" / "model").module, TabM)
    assert "one of 3 others came to nothing (the loss became NaN)" in caplog.text
    assert "bag_folds" not in result.model


def test_trees_may_be_fitted_to_folds_too(table: Path, tmp_path: Path) -> None:
    cfg = compose(of(table, "y", "logger=none", "model=boosting", "task.bag_folds=4"))
    result = train(cfg, Hooks(directory=tmp_path / "run"))
    kept = load(tmp_path / "run" / "model").module
    assert isinstance(kept, Blend) and len(kept.members) == 5
    assert result.model["bag_folds"] == 4


@pytest.mark.delivered
def test_evaluated_again_it_answers_alike_and_is_not_judged_by_rows_that_it_knows(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = [f"paths.experiments_dir={tmp_path}/kept"]
    words = [word for word in of(table, "kind", *SHORT, "task.bag_folds=3", *record) if word != "logger=none"]
    result = train(compose(words), Hooks(directory=tmp_path / "run"))
    again = [f"task.run_id={result.run_id}", *record]

    assert main(["task=evaluate", *again, "task.output=again"]) == 0
    found = json.loads(Path("again/evaluation.json").read_text())
    assert {name: found["metrics"][name] for name in ("log_loss", "accuracy")} == {
        name: result.metrics[f"test/{name}"] for name in ("log_loss", "accuracy")
    }
    assert main(["task=reproduce", *again, "task.output=reproduced"]) == 0
    assert main(["task=evaluate", *again, "task.calibrate=true"]) == 2
    assert "this model has learnt from all rows, and is calibrated" in capsys.readouterr().err
