"""A table's ladder: trees among the rungs, one model made of all of them, within the time it is given."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.data.tables.table import TableData
from pipeline.errors import UserError
from pipeline.ladder.bagging import (
    ENOUGH_FOLDS,
    Bag,
    _of_a_fold,
    answers_of,
    bagged,
    bagged_again,
    blended,
    fitted_once,
    folds_in,
    loss_of,
    seconds_of_folds,
    weights_of,
)
from pipeline.ladder.blending import _folded, add_blend
from pipeline.ladder.budget import Budget
from pipeline.ladder.improve import _retrain
from pipeline.ladder.naming import model_name
from pipeline.ladder.pace import seconds_for
from pipeline.ladder.report import in_words
from pipeline.ladder.rungs import Climb, Rung
from pipeline.ladder.testing import read_test
from pipeline.models.blend import Blend, as_logits, greedy_weights
from pipeline.models.linear import Linear
from pipeline.models.saved import load, save
from pipeline.runs import beside
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.plan import plan_of
from pipeline.runs.recording import NoRun
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training.stopping import in_full

CLASSES = Spec("multiclass", "vector", (4,), 3, ("a", "b", "c"))
YES_NO = Spec("binary", "vector", (4,), 1, ("no", "yes"))
NUMBERS = Spec("regression", "vector", (4,), 1)
WITH_CATBOOST = ["catboost"] if find_spec("catboost") else []
RUNGS = ["baseline", "linear", "forest", "boosting", *WITH_CATBOOST, "network"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    made = pd.DataFrame(generator.normal(size=(500, 4)), columns=list("abcd"))
    made["town"] = generator.choice(["x", "y", "z"], 500)
    made["price"] = 10 * np.sin(2 * made["a"]) + 5 * made["b"] + 8 * (made["town"] == "x")
    made["price"] += generator.normal(size=500)
    path = tmp_path_factory.mktemp("table") / "houses.csv"
    made.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("spec", [CLASSES, YES_NO, NUMBERS])
def test_a_blend_is_the_weighted_mean_of_its_models_answers(tmp_path: Path, spec: Spec) -> None:
    torch.manual_seed(0)
    models = [Linear(spec).eval() for _ in range(3)]
    blend, x = Blend.of(models, [1, 2, 1]), torch.randn(9, 4)
    with torch.inference_mode():
        parts = [model.objective.probabilities(model(x)) for model in models]
        found = blend.objective.probabilities(blend(x))
    expected = (parts[0] + 2 * parts[1] + parts[2]) / 4
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(as_logits(expected, spec).reshape(blend(x).shape), blend(x), atol=1e-5)


def test_weights_are_taken_one_at_a_time_where_the_loss_falls_most() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(200, 1, generator=generator)
    noises = [0.5 * torch.randn(200, 1, generator=generator) for _ in range(3)]
    answers = [true + noise for noise in noises] + [true + 5]
    weights = greedy_weights(answers, lambda mean: (mean - true).abs().mean())
    assert weights[3] == 0 and sum(weights) <= 10
    # By hand: the best alone is the first.
    alone = [float((answer - true).abs().mean()) for answer in answers]
    assert weights[alone.index(min(alone))] >= 1

    def loss(parts: list[int]) -> float:
        mean = sum(n * answer for n, answer in zip(parts, answers, strict=True)) / sum(parts)
        return float((mean - true).abs().mean())

    assert loss(weights) < 0.7 * min(alone)
    assert all(loss(weights) <= loss([int(i == j) for j in range(4)]) for i in range(4))


def test_what_weights_are_chosen_by_is_the_log_loss_and_the_absolute_error() -> None:
    data = TableData.__new__(TableData)
    data.spec = CLASSES
    p = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    assert loss_of(data, torch.tensor([1, 2]))(p) == pytest.approx(
        log_loss([1, 2], p.double().numpy(), labels=[0, 1, 2])
    )
    data.spec = NUMBERS
    answers = torch.tensor([[2.0], [4.0]])
    assert loss_of(data, torch.tensor([1.0, 2.0]))(answers) == pytest.approx(1.5)
    assert loss_of(data, torch.tensor([1.0, 2.0]), "mse")(answers) == pytest.approx(2.5)


@pytest.mark.parametrize(("objective", "weightiest"), [("val/mae", 0), ("val/rmse", 1), ("val/r2", 1)])
def test_a_blend_s_weights_follow_the_objective(objective: str, weightiest: int) -> None:
    data = cast(Any, SimpleNamespace(spec=NUMBERS, pooled_targets=torch.zeros(4), train=range(4)))
    # One is exact but for a single row that is far off, the other is off by the same in each.
    answers = [torch.tensor([[0.0], [0.0], [0.0], [4.0]]), torch.full((4, 1), 1.5)]
    cfg = OmegaConf.create({"objective": {"metric": objective}})
    bags = [Bag(Rung("one", Path(), cfg=cfg), [], answer) for answer in answers]
    weights = weights_of(bags, data)
    assert weights[weightiest] > weights[1 - weightiest]


@pytest.mark.parametrize(
    ("asked", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("45", 45), ("0.5m", 30), (60, 60)]
)
def test_a_budget_is_read_as_it_is_written(asked: str | int, seconds: float) -> None:
    budget = Budget(asked, began=time.time())
    assert budget.seconds == seconds and budget.limited
    assert seconds * 0.8 < budget.left() + 3 <= seconds


def test_an_end_is_expected_to_be_as_slow_as_the_start() -> None:
    # 10 seconds are gone and another 12 are kept back, but never more than a quarter.
    assert Budget("100s", began=time.time() - 10).left() == pytest.approx(78, abs=0.5)
    assert Budget("100s", began=time.time() - 40).left() == pytest.approx(35, abs=0.5)


def test_a_blend_has_its_time_before_a_search() -> None:
    # Three tenths of what is left, but for what the blend takes; too little for a search is nothing.
    assert seconds_for(0, 100.0, None) == pytest.approx(30.0)
    assert seconds_for(0, 100.0, 25.0) == pytest.approx(30.0)
    assert seconds_for(0, 100.0, 80.0) == pytest.approx(20.0)
    assert seconds_for(0, 100.0, 90.0) == 0.0


def test_a_budget_that_cannot_be_kept_is_refused() -> None:
    for wrong in ("soon", "-3s", "0s", "nan", "m"):
        with pytest.raises(UserError, match="expected a time like 90s, 20m or 2h"):
            Budget(wrong)
    with pytest.raises(UserError, match="is over before anything was tried"):
        Budget("5s", began=time.time() - 3)
    with pytest.raises(UserError, match=r"task\.budget=soon: expected a time like 90s"):
        compose(["task=improve", "task.budget=soon"])
    assert not Budget(None).limited and Budget(None).left() == float("inf")


def test_what_is_kept_back_for_the_test_is_not_spent() -> None:
    budget = Budget("100s", began=time.time())
    before = budget.left()
    budget.keep_back(30.0)
    assert budget.left() == pytest.approx(before - 30, abs=0.5)
    # When it comes to the tests, half of the other five seconds are the report's.
    assert budget.left_for_tests() == pytest.approx(before + 2.5, abs=0.5)


def test_where_the_time_is_short_what_goes_into_service_is_tested_first(tmp_path: Path, table: Path) -> None:
    words = ["data=csv", f"data.path={table}", "data.target=price", "model=linear", "model.solver=exact"]
    rungs = [Rung("baseline", tmp_path / "baseline", cfg=compose([*words, "logger=none", "trainer=cpu"]))]
    for name, alpha in (("linear", 1), ("other", 2), ("third", 3)):
        cfg = compose([*words, f"model.alpha={alpha}", "logger=none", "trainer=cpu"])
        rung = Rung(name, tmp_path / name, words, cfg, asking=0.01)
        rung.result = train(cfg, Hooks(directory=rung.directory, test=False))
        rungs.append(rung)
    rungs[3].asking = 0.0
    climb = Climb("mae", rungs, rungs[2], "mean", final=[replace(rungs[2], name="final")])
    # Seven seconds are left, and a rung that answers in a hundredth of a second takes 11 (100 and 1,032 rows).
    budget = Budget("100s", began=time.time())
    budget.began -= 93
    outputs = read_test(climb, NoRun(), budget)
    assert outputs is not None and climb.final[0].test is not None
    assert climb.final[0].metrics["mae"] == pytest.approx(outputs.metrics()["mae"])
    assert rungs[1].test is None and "not tested, since the time was over" in rungs[1].showed
    assert rungs[2].test is not None and rungs[3].test is not None
    # The gain is over the rung below that was tested.
    assert rungs[2].gain is not None and rungs[3].gain is not None
    assert all(rung.milliseconds > 0 for rung in rungs[2:])
    climb.simplest = climb.best = rungs[2]
    assert "linear: ; not tested" in "\n".join(in_words(climb))


def test_what_folds_take_follows_from_the_trees_that_were_grown_and_from_the_answers(table: Path) -> None:
    words = ["data=csv", f"data.path={table}", "data.target=price", "model=forest"]
    facts = {"train": 400}, {"trees": 100}
    result = RunResult(table.parent, None, "", *facts, {}, {}, {"fit": 1.7}, 0.0, 0, None)
    forest = Rung("forest", table.parent, cfg=compose(words), result=result)
    # Its time ran out after 100 of 500 trees; a fold of five has 200.
    assert seconds_of_folds(forest, 5) == pytest.approx(5 * 2.0 * 200 / 100)
    forest.asking = 0.001
    assert seconds_of_folds(forest, 5) == pytest.approx((5 * 2.0 + 2 * 0.4) * 200 / 100)


def test_folds_and_times_follow_from_what_is_left() -> None:
    assert [folds_in(seconds, lambda folds: 3.0 * folds) for seconds in (100, 23, 14, 8)] == [8, 5, 3, 0]
    assert in_full(0.2) == "00:00:00:01" and in_full(93_784.9) == "01:02:03:04"


def test_rows_are_dealt_out_anew_and_each_is_held_out_once(table: Path) -> None:
    data = data_of(compose(["data=csv", f"data.path={table}", "data.target=price"]))
    assert isinstance(data, TableData) and data.can_be_refolded
    assert data.validation is not None and data.test is not None
    places = []
    for view, held_out in data.refolded(4):
        assert view.validation is not None
        assert len(view.train) + len(view.validation) == len(data.train) + len(data.validation)
        assert torch.equal(view.validation.y, data.pooled_targets[held_out])
        assert view.test is data.test
        places.append(held_out)
    assert torch.cat(places).sort().values.tolist() == list(range(len(data.pooled_targets)))
    # None of them is kept in memory.
    folds = data.refolded(4)
    assert len(folds) == 4 and len(list(folds)[1:]) == 2 + 1 and folds[0][0].train is not folds[0][0].train
    pooled = data.pooled()
    assert torch.equal(pooled.train.y, data.pooled_targets) and pooled.validation is None
    own = data_of(
        compose(
            [
                "data=csv",
                f"data.path={table}",
                "data.target=price",
                "data.split=hash",
                "data.split_column=town",
            ]
        )
    )
    # Rows that belong together may not be parted.
    assert isinstance(own, TableData) and not own.can_be_refolded


def test_two_tables_never_meet_under_one_name() -> None:
    def named(*words: str) -> str:
        return model_name(compose(["task=improve", "data=csv", *words]))

    assert named("data.path=a/houses.csv", "data.target=price") == "houses_price"
    assert named("data.path=b/flats.v2.csv", "data.target=price") == "flats_v2_price"
    # A name ends no address and no question to the registry.
    assert named("data.path=it's #1@home%.csv", "data.target=y") == "it_s_1_home__y"
    assert named("data.path=b/flats.csv", "data.target=price", "task.model_name=mine") == "mine"
    # A name that says nothing gives way to the directory's, and a packed file is called as the one in it.
    assert named("data.path=tables/flats/train.csv", "data.target=price") == "flats_price"
    assert named("data.path=tables/houses/train.csv.gz", "data.target=price") == "houses_price"
    assert named("data.path=b/houses.csv.gz", "data.target=price") == "houses_price"
    assert model_name(compose(["task=improve", "+ladder=digits"])) == "digits"


@pytest.mark.slow
@pytest.mark.delivered
def test_the_climb_ends_with_one_model_of_all_that_helps(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.ladder.budget.process_start", time.time)
    # What time is left would go into more folds, and into other ones.
    monkeypatch.setattr("pipeline.ladder.bagging.FOLDS", (ENOUGH_FOLDS,))
    monkeypatch.setattr("pipeline.ladder.blending._ROUNDS", 1)
    words = ["task=improve", "data=csv", f"data.path={table}", "data.target=price", "trainer=cpu"]
    short = ["task.trials=3", "trainer.max_epochs=8"]
    assert main([*words, *short, "task.budget=5m", "hydra.run.dir=run"]) == 0
    shown = capsys.readouterr().out
    result = RunResult.read(tmp_path / "run")
    rungs = {entry["rung"]: entry for entry in result.nested}
    assert list(rungs)[: len(RUNGS)] == RUNGS
    assert rungs["forest"]["test/mae"] < rungs["linear"]["test/mae"] < rungs["baseline"]["test/mae"]
    assert "blend" in rungs and "over all rows, each by models that have not seen it" in shown
    page = (tmp_path / "run/ladder.html").read_text()
    assert "How well can price be predicted from houses?" in page
    assert "houses_price version 1, champion" in shown
    # What was registered answers for a file as the report says.
    asked = ["task=predict", "task.model_uri=models:/houses_price@champion", "task.output=answers.csv"]
    assert main([*asked, f"task.input={table}"]) == 0
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert list(answers) == ["prediction", "low", "high", "unusual"]
    half = answers["high"] - answers["prediction"]
    assert f"90 % intervals: ± {half[0]:.3g}; hold for" in shown
    assert np.abs(answers["prediction"] - pd.read_csv(table)["price"]).mean() < rungs["linear"]["test/mae"]


def test_a_blend_is_as_sure_as_its_models_are_of_rows_that_they_have_not_seen(
    tmp_path: Path, table: Path
) -> None:
    words = ["data=csv", f"data.path={table}", "data.target=price", "model=linear", "model.solver=exact"]
    cfg = compose([*words, "model.alpha=1", "logger=none", "trainer=cpu"])
    rung = Rung("linear", tmp_path / "linear", words, cfg)
    rung.result = train(cfg, Hooks(directory=rung.directory, test=False))
    climb = Climb("mae", [rung], rung, "mean")
    add_blend(climb, tmp_path / "blend", NoRun(), Budget(None))
    found = load(tmp_path / "blend/model").module.settled
    # The same folds by scikit-learn, with the intercept that is not penalised.
    data = data_of(cfg)
    assert isinstance(data, TableData)
    residuals = []
    for view, _ in data.refolded(8):
        assert view.validation is not None
        (x, y), (new, true) = (
            split.take(torch.arange(len(split))) for split in (view.train, view.validation)
        )
        ridge = Ridge(alpha=1.0).fit(x.double(), y.double())
        residuals += np.abs(ridge.predict(new.double()) - true.numpy()).tolist()
    place = math.ceil((len(residuals) + 1) * 0.9)
    assert found.level == 0.9
    assert found.half_width == pytest.approx(np.sort(residuals)[place - 1], rel=0.01)
    assert climb.rungs[-1].result is not None
    assert climb.rungs[-1].result.model["sureness"] == found.to_dict()


def test_a_saved_blend_is_the_same_model(tmp_path: Path, table: Path) -> None:
    data = data_of(compose(["data=csv", f"data.path={table}", "data.target=price"]))
    models = [Linear(data.spec).eval() for _ in range(2)]
    blend = Blend.of(models, [3, 1])
    kept = load(save(blend, data.encoder, tmp_path / "model")).module
    assert torch.equal(answers_of(kept, data.test), answers_of(blend, data.test))
    state = json.loads((tmp_path / "model/model.json").read_text())
    state["hyperparameters"]["members"][0]["class"] = "subprocess.Popen"
    (tmp_path / "model/model.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"subprocess\.Popen is not on the list"):
        load(tmp_path / "model")


@pytest.mark.slow
def test_what_the_time_does_not_allow_is_left_out_and_said(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Of a minute, two thirds went into the start, and the end is taken to be slow as well: about a second is
    # left for a rung.
    monkeypatch.setattr("pipeline.ladder.budget.process_start", lambda: time.time() - 41)
    monkeypatch.setattr("pipeline.training.building._prepared", {})
    setup, read = TableData.setup, []

    def watched(self: TableData, stage: str | None = None) -> None:
        read.append(self.path)
        setup(self, stage)

    monkeypatch.setattr(TableData, "setup", watched)
    words = ["task=improve", "data=csv", f"data.path={table}", "data.target=price", "trainer=cpu"]
    assert main([*words, "task.budget=60s", "hydra.run.dir=run"]) == 0
    # Once for all rungs.
    assert len(read) == 1
    result = RunResult.read(tmp_path / "run")
    rungs = {entry["rung"]: entry for entry in result.nested}
    assert list(rungs) == RUNGS
    page = (tmp_path / "run/ladder.html").read_text()
    assert page.count("left out, since the time was over") >= 4
    assert "left out, since the time was over" in capsys.readouterr().out


def test_a_network_has_fewer_epochs_where_a_fold_has_less_time(table: Path) -> None:
    words = ["data=csv", f"data.path={table}", "data.target=price", "recipe=table", "trainer.max_epochs=60"]
    network = plan_of(compose(words))
    # Five sixths of the time that is taken to be easy, and so many epochs; with time enough, all of them.
    assert _of_a_fold(network, 5, 10.0, 10.0).fit.trainer["max_epochs"] == 50
    assert _of_a_fold(network, 5, 20.0, 10.0).fit.trainer["max_epochs"] == 60
    boosting = plan_of(compose([*words[:3], "model=boosting"]))
    assert _of_a_fold(boosting, 5, 1.0, 10.0).fit.trainer["max_epochs"] == "auto"


def test_the_best_models_get_folds_and_a_slow_one_stays_as_it_is(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "at_once", lambda: 1)
    words = ["data=csv", f"data.path={table}", "data.target=price"]

    def rung(name: str, seconds: float, *more: str) -> Rung:
        result = RunResult(table.parent, None, "", {"train": 400}, {}, {}, {}, {"fit": seconds}, 0.0, 0, None)
        return Rung(name, table.parent, cfg=compose([*words, *more]), result=result)

    network = rung("network", 10.0, "recipe=table", "trainer.max_epochs=60")
    boosting, linear = rung("boosting", 2.0, "model=boosting"), rung("linear", 0.1, "model=linear")
    budget = Budget("100s", began=time.time())
    budget.keep_back(budget.left() - 30)
    # Two fifths of ten seconds five times, and the others' seconds: 20.6 + 11.5 are more than 30.
    chosen, once = _folded([boosting, network, linear], budget)
    assert [one.name for one in chosen] == ["boosting", "linear"] and once == [network]
    assert seconds_of_folds(network, 5) == pytest.approx(51.5)
    assert seconds_of_folds(network, 5, least=True) == pytest.approx(20.6)
    # With two cores, each a third slower beside the other.
    monkeypatch.setattr(beside, "at_once", lambda: 2)
    assert seconds_of_folds(boosting, 5) == pytest.approx(5 * 2.3 * 0.65)
    assert _folded([boosting, network, linear], budget)[1] == []


def test_a_winner_is_kept_as_it_was_judged_where_the_time_to_train_it_again_is_over(table: Path) -> None:
    result = RunResult(table.parent, None, "", {"train": 400}, {}, {}, {}, {"fit": 10.0}, 0.0, 0, None)
    cfg = compose(["data=csv", f"data.path={table}", "data.target=price", "model=boosting"])
    winner = Rung("boosting", table.parent, cfg=cfg, result=result)
    climb, budget = Climb("mae", [winner], winner, "mean"), Budget("100s", began=time.time())
    budget.keep_back(budget.left() - 12)
    _retrain(cfg, climb, table.parent, NoRun(), budget)
    assert not climb.retrained and [rung.name for rung in climb.final] == ["final"]
    assert climb.final[0].directory == winner.directory and climb.final[0].result is result


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bag_has_a_model_for_each_fold_and_a_second_round_its_mean(
    tmp_path: Path, table: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "at_once", lambda: workers)
    words = ["data=csv", f"data.path={table}", "data.target=price", "model=linear", "model.solver=exact"]
    cfg = compose([*words, "model.alpha=1", "logger=none", "trainer=cpu"])
    rung = Rung("linear", tmp_path / "linear", words, cfg)
    rung.result = train(cfg, Hooks(directory=rung.directory, test=False))
    data = data_of(cfg)
    assert isinstance(data, TableData)
    [bag] = bagged([rung], [], data, 3, lambda: 100.0)
    first = bag.answers.clone()
    for model, (view, held_out) in zip(bag.models, data.refolded(3), strict=True):
        assert torch.equal(answers_of(model, view.validation), first[held_out])
    assert bagged_again(bag, data, 3, lambda: 100.0, data.seed + 1) and len(bag.models) == 6
    other = torch.empty_like(first)
    for model, (view, held_out) in zip(bag.models[3:], data.refolded(3, data.seed + 1), strict=True):
        other[held_out] = answers_of(model, view.validation)
    assert torch.allclose(bag.answers, (first + other) / 2) and not torch.equal(first, other)
    assert not bagged_again(bag, data, 3, lambda: 0.0, data.seed + 2) and len(bag.models) == 6
    # Fitted once, it answers for the validation rows alone, by which weights are chosen then.
    once = fitted_once(rung, data, load(rung.directory / "model").module)
    assert (
        torch.isnan(once.answers[: len(data.train)]).all()
        and not torch.isnan(once.answers[len(data.train) :]).any()
    )
    found = blended([bag, once], data, lambda: 100.0)
    assert len(found.answers) == len(data.validation or ())


def test_trees_of_many_rows_are_fitted_to_one_fold_after_another(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "at_once", lambda: 2)
    asked = []

    def fitted_beside(jobs: Any, encoder: Any, workers: int) -> Any:
        asked.append(workers)
        return [job() for job in jobs]

    monkeypatch.setattr(beside, "fitted_beside", fitted_beside)
    words = ["data=csv", f"data.path={table}", "data.target=price", "model=boosting", "logger=none"]
    cfg = compose([*words, "model.n_estimators=5"])
    result = RunResult(tmp_path, None, "", {"train": 20_000}, {}, {}, {}, {"fit": 1.0}, 0.0, 0, None)
    rung = Rung("boosting", tmp_path, words, cfg, result=result)
    data = data_of(cfg)
    assert isinstance(data, TableData)
    beside_each_other = seconds_of_folds(rung, 3)
    assert len(bagged([rung], [], data, 3, lambda: 100.0)) == 1
    result.data["train"] += 1
    assert seconds_of_folds(rung, 3) > beside_each_other
    assert len(bagged([rung], [], data, 3, lambda: 100.0)) == 1
    assert asked == [2, 1]
