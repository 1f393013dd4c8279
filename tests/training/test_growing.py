"""Trees grown by scikit-learn and LightGBM answer as these do, and are kept and asked like any other model."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import f_oneway

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.errors import Interrupted, UserError
from pipeline.models.saved import load
from pipeline.models.trees import Boosting, Forest, Trees
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training import catboosting, growing, grown, joining
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.signals import Signals
from pipeline.training.stopping import Stop

SMALL = {
    "forest": ["model.n_estimators=20"],
    "boosting": ["model.n_estimators=60", "model.early_stopping_rounds=20"],
    "catboost": ["model.n_estimators=60", "model.early_stopping_rounds=20", "model.learning_rate=0.2"],
}
WITHOUT_CATBOOST = pytest.mark.skipif(find_spec("catboost") is None, reason="catboost is not installed")
MODELS = [
    pytest.param("forest", []),
    pytest.param("boosting", ["model.library=lightgbm"]),
    pytest.param("boosting", ["model.library=lightgbm", "model.extra_trees=true"]),
    pytest.param("boosting", ["model.library=scikit-learn"]),
    pytest.param("catboost", [], marks=WITHOUT_CATBOOST),
]


def frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Numbers, a category with an order that its target alone knows, gaps, and a target of each kind."""
    generator = np.random.default_rng(seed)
    size, town = generator.normal(size=rows), generator.integers(0, 6, rows)
    effect = np.array([3.0, -2.0, 1.0, -3.0, 2.0, 0.0])[town]
    value = np.sin(2 * size) + effect + 0.1 * generator.normal(size=rows)
    made = pd.DataFrame(
        {"size": size, "town": np.array(list("fbdaec"))[town], "noise": generator.normal(size=rows)}
    )
    made.loc[::17, "noise"] = np.nan
    made["value"] = value
    made["kind"] = np.where(value > 0.5, "high", "low")
    made["class"] = np.array(["a", "b", "c"])[np.digitize(value, [-1, 1])]
    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    frame().to_csv(path, index=False)
    return path


def words(table: Path, model: str, target: str, *more: str) -> list[str]:
    others = ",".join({"value", "kind", "class"} - {target})
    return [
        *(
            "data=csv",
            f"data.path={table}",
            f"data.target={target}",
            f"data.drop=[{others}]",
            f"model={model}",
        ),
        *SMALL[model],
        *("trainer=cpu", "callbacks.progress=null", *more),
    ]


def trained(
    directory: Path, table: Path, model: str, target: str, *more: str
) -> tuple[RunResult, Trees, Any]:
    cfg = compose([*words(table, model, target, "logger=none", *more), f"paths.experiments_dir={directory}"])
    result = train(cfg, Hooks(directory=directory / "run"))
    kept = load(directory / "run/model").module
    assert isinstance(kept, Trees)
    return result, kept, data_of(cfg)


def arrays(data: Any, kept: Trees, split: str = "train") -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    rows = getattr(data, split)
    x, y = rows.take(torch.arange(len(rows)))
    return kept.compared(x).numpy(), y.reshape(-1).numpy(), x


@pytest.mark.parametrize("target", ["value", "kind", "class"])
def test_a_forest_answers_as_scikit_learns_own(tmp_path: Path, table: Path, target: str) -> None:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    _, kept, data = trained(tmp_path, table, "forest", target, "data.calibrate=false")
    x, y, _ = arrays(data, kept)
    held, _, held_inputs = arrays(data, kept, "test")
    with torch.inference_mode():
        found = kept.objective.probabilities(kept(held_inputs)).numpy()
    if target == "value":
        own = ExtraTreesRegressor(20, random_state=0).fit(x, y)
        assert np.allclose(found[:, 0], own.predict(held), rtol=1e-5, atol=1e-5)
    else:
        own = ExtraTreesClassifier(20, random_state=0).fit(x, y)
        # A logarithm needs more than 0: a class that no tree has seen there gets a ten thousandth.
        assert np.allclose(found, own.predict_proba(held), atol=5e-4)
        assert (found.argmax(1) == own.predict(held)).all()


@pytest.mark.parametrize("target", ["value", "kind", "class"])
def test_boosted_trees_answer_as_lightgbms_own(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    boosters = []
    own_train = lightgbm.train

    def watched(*arguments: Any, **options: Any) -> Any:
        boosters.append(own_train(*arguments, **options))
        return boosters[-1]

    monkeypatch.setattr(lightgbm, "train", watched)
    result, kept, data = trained(tmp_path, table, "boosting", target)
    held, _, inputs = arrays(data, kept, "test")
    raw = boosters[0].predict(held, raw_score=True, num_iteration=result.best_epoch)
    with torch.inference_mode():
        found = kept(inputs).numpy()
    assert np.allclose(found, raw.reshape(found.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["value", "kind", "class"])
def test_boosted_trees_answer_as_scikit_learns_own(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    boosters = []
    own = growing.histogram_trees
    monkeypatch.setattr(growing, "histogram_trees", lambda booster: boosters.append(booster) or own(booster))
    alone = ["data.validation_fraction=0", "model.n_estimators=30", "model.library=scikit-learn"]
    _, kept, data = trained(tmp_path, table, "boosting", target, *alone)
    held, _, inputs = arrays(data, kept, "test")
    with torch.inference_mode():
        found = kept.objective.probabilities(kept(inputs)).numpy()
    if target == "value":
        assert np.allclose(found[:, 0], boosters[0].predict(held), rtol=1e-4, atol=1e-4)
    else:
        assert np.allclose(found, boosters[0].predict_proba(held), atol=1e-5)


@WITHOUT_CATBOOST
@pytest.mark.parametrize("target", ["value", "kind", "class"])
def test_symmetric_trees_answer_as_catboosts_own(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    boosters = []
    own = catboosting.described
    monkeypatch.setattr(catboosting, "described", lambda booster: boosters.append(booster) or own(booster))
    result, kept, data = trained(tmp_path, table, "catboost", target)
    held, _, inputs = arrays(data, kept, "test")
    raw = boosters[0].predict(held, prediction_type="RawFormulaVal")
    with torch.inference_mode():
        found = kept(inputs).numpy()
    assert np.allclose(found, raw.reshape(found.shape), rtol=1e-4, atol=1e-5)
    assert len(kept.root) == boosters[0].tree_count_ == result.best_epoch


def test_a_library_that_is_not_there_is_named(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catboosting, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package catboost: pip install .*\[catboost\]"):
        trained(tmp_path, table, "catboost", "kind")
    more = ["model.library=scikit-learn", "model.extra_trees=true"]
    with pytest.raises(UserError, match=r"model\.extra_trees=true: LightGBM alone"):
        trained(tmp_path, table, "boosting", "kind", *more)


def test_thresholds_decide_for_every_float32_as_they_did_in_float64() -> None:
    generator = np.random.default_rng(0)
    thresholds = np.concatenate(
        [generator.normal(size=500), np.float32(generator.normal(size=500)), [0.1, -0.1]]
    )
    single = joining.rounded_down(thresholds)
    for x in (single, np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))):
        assert ((x <= single) == (x.astype(np.float64) <= thresholds)).all()


@pytest.mark.parametrize(("model", "more"), MODELS)
@pytest.mark.parametrize("target", ["value", "class"])
def test_they_learn_and_beat_the_baselines(
    tmp_path: Path, table: Path, model: str, more: list[str], target: str
) -> None:
    result, kept, _ = trained(tmp_path, table, model, target, *more)
    if target == "value":
        assert result.metrics["test/mae"] < 0.6 < result.baseline["test/mae"]
    else:
        assert result.metrics["test/accuracy"] > 0.8 > result.baseline["test/accuracy"]
    assert {"val/loss", "test/loss"} <= set(result.metrics)
    assert result.model["trees"] == len(kept.root) and result.model["parameters"] > kept.leaves - 1


@pytest.mark.parametrize(("model", "more"), MODELS)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(
    tmp_path: Path, table: Path, model: str, more: list[str]
) -> None:
    first, kept, _ = trained(tmp_path / "a", table, model, "kind", *more)
    second, again, _ = trained(tmp_path / "b", table, model, "kind", *more)
    other, _, _ = trained(tmp_path / "c", table, model, "kind", *more, "seed=1")
    assert first.metrics == second.metrics
    # scikit-learn's booster draws columns alone, of which there are few here.
    assert first.metrics != other.metrics or "model.library=scikit-learn" in more
    assert all(torch.equal(kept.state_dict()[name], value) for name, value in again.state_dict().items())


def test_a_category_is_one_column_in_the_order_of_its_mean_target(tmp_path: Path, table: Path) -> None:
    _, kept, data = trained(tmp_path, table, "forest", "value")
    names = data.encoder.inputs()
    town = [place for place, name in enumerate(names) if name.startswith("town = ") and "other" not in name]
    ranks = {names[place][-1]: int(kept.columns[place].max()) for place in town}
    # By the effects in frame(): a −3, b −2, c 0, d 1, e 2, f 3.
    assert sorted(ranks, key=ranks.__getitem__) == list("abcdef")
    assert kept.columns.shape == (len(names), 4)  # size, noise, "noise is missing", town
    # Boosted trees have each category beside that.
    _, boosted, _ = trained(tmp_path / "boosted", table, "boosting", "value")
    block = data.encoder.blocks()[0]
    assert torch.equal(boosted.columns[:, :4], kept.columns)
    assert torch.equal(boosted.columns[:, 4:], torch.eye(len(names))[:, list(block)])


def test_the_order_of_means_that_differ_by_chance_is_not_learnt(tmp_path: Path) -> None:
    made = frame()
    made["street"] = np.random.default_rng(1).choice(list("pqrstu"), len(made))
    made.to_csv(tmp_path / "t.csv", index=False)
    _, kept, data = trained(tmp_path / "run", tmp_path / "t.csv", "forest", "value")
    town, street = data.encoder.blocks()
    assert kept.columns[list(street), -1].tolist() == list(range(len(street)))
    assert kept.columns[list(town), -2].tolist() != list(range(len(town)))
    # The same test by SciPy, of the training rows.
    x, y = data.train.take(torch.arange(len(data.train)))
    for block, differ in ((town, True), (street, False)):
        groups = [y[x[:, place] > 0].double().numpy() for place in block]
        sums = torch.tensor([float(group.sum()) for group in groups], dtype=torch.float64)
        counts = torch.tensor([len(group) for group in groups], dtype=torch.float64)
        chance = f_oneway(*[group for group in groups if len(group)]).pvalue
        assert (chance < 0.001) == differ
        assert growing._by_chance(sums, counts, float((y.double() ** 2).sum())) != differ


def test_validation_stops_the_growth_and_the_best_number_is_kept(tmp_path: Path, table: Path) -> None:
    more = ["model.n_estimators=2000", "model.learning_rate=0.3"]
    result, kept, _ = trained(tmp_path, table, "boosting", "kind", *more)
    assert f"stopped improving after {result.best_epoch} trees" in result.notes
    assert len(kept.root) == result.best_epoch < 2000
    losses = dict(result.history["val/loss"])
    assert result.metrics["val/loss"] == pytest.approx(losses[result.best_epoch], rel=1e-4)
    assert min(losses.values()) == pytest.approx(losses[result.best_epoch], rel=1e-4)
    assert len(losses) <= grown.POINTS + 3


@pytest.mark.parametrize(("model", "more"), MODELS)
def test_what_runs_out_of_time_says_so(tmp_path: Path, table: Path, model: str, more: list[str]) -> None:
    more = [*more, "trainer.max_time=00:00:00:01", "model.n_estimators=100000"]
    more += ["model.early_stopping_rounds=100000"] if model != "forest" else []
    result, kept, _ = trained(tmp_path, table, model, "kind", *more)
    assert any("its time ran out after" in note for note in result.notes)
    assert "no verdict on this kind of model" in result.unfinished
    assert 1 <= len(kept.root) < 100_000 and result.seconds["fit"] < 30


@pytest.mark.parametrize(
    ("limit", "of_a_tree", "steps"),
    [
        (None, 4.0, {25}),
        # A twentieth of 100 seconds is one tree of four seconds, and more trees than the most of a hundredth.
        ("00:00:01:40", 4.0, {1}),
        ("00:00:01:40", 0.01, {25}),
        ("00:00:01:40", 0.5, {10}),
    ],
)
def test_the_time_is_looked_at_more_often_where_a_tree_takes_long(
    limit: str | None, of_a_tree: float, steps: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(growing.time, "monotonic", lambda: now[0])
    stop, looks = Stop(Signals(Checkpoints(tmp_path, None, "min")), limit), [0]
    for count in growing._counts(200, stop):
        now[0] += of_a_tree * (count - looks[-1])
        looks.append(count)
    first = looks[1] - looks[0]
    assert first == (25 if limit is None else 2) and looks[-1] == 200
    assert set(np.diff(looks)[1:-1]) == steps


def test_a_signal_ends_the_growth(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    seen = []

    def kill(stop: Any) -> bool:
        seen.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        stop.signals.check()
        return False

    monkeypatch.setattr(Stop, "__call__", kill)
    with pytest.raises(Interrupted) as raised:
        trained(tmp_path, table, "forest", "kind", "model.n_estimators=200")
    assert raised.value.exit_code == 143 and len(seen) == 1


@pytest.mark.delivered
@pytest.mark.parametrize("model", ["forest", "boosting", pytest.param("catboost", marks=WITHOUT_CATBOOST)])
def test_files_and_exports_answer_as_the_run_was_tested(
    tmp_path: Path,
    table: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words(table, model, "class"), "hydra.run.dir=run"]) == 0
    run_id = RunResult.read(tmp_path / "run").run_id
    asked = [f"task.run_id={run_id}"]
    assert main(["task=predict", *asked, f"task.input={table}", "task.output=answers.csv"]) == 0
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert (answers["label"] == frame()["class"]).mean() > 0.9
    for form in ("onnx", "pt2", "safetensors"):
        assert main(["task=export", *asked, f"task.format={form}", f"task.output=m.{form}"]) == 0
        assert "largest difference from the original" in capsys.readouterr().out
    assert main(["task=evaluate", *asked, "task.calibrate=true", "task.output=evaluated"]) == 0
    assert main(["task=evaluate", *asked, "task.explain=true", "task.output=explained"]) == 0
    assert (tmp_path / "explained/explanation.png").is_file()
    assert main(["task=reproduce", *asked]) == 0


def test_folds_and_sweeps_take_trees(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words(table, "forest", "value", "logger=none"), "data.folds=3", "hydra.run.dir=folds"]) == 0
    folds = json.loads((tmp_path / "folds/result.json").read_text())
    assert len(folds["nested"]) == 3 and folds["metrics"]["val/mae"] < 0.6
    sweep = ["sweep=boosting", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=swept"]
    assert main([*words(table, "boosting", "kind", "logger=none"), *sweep]) == 0
    assert "num_leaves" in (tmp_path / "swept/experiment/best.yaml").read_text()


def test_rare_classes_weigh_more_where_that_is_asked_for(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rare = generator.random(600) < 0.05
    x = generator.normal(size=600) + 1.2 * rare
    path = tmp_path / "rare.csv"
    pd.DataFrame({"x": x, "y": np.where(rare, "yes", "no")}).to_csv(path, index=False)
    shares = []
    for number, balance in enumerate(["none", "class_weights"]):
        cfg = compose(
            [
                *(
                    "data=csv",
                    f"data.path={path}",
                    "data.target=y",
                    "model=boosting",
                    f"data.balance={balance}",
                ),
                *("logger=none", f"paths.experiments_dir={tmp_path}", "model.n_estimators=30"),
            ]
        )
        result = train(cfg, Hooks(directory=tmp_path / str(number)))
        kept = load(result.directory / "model").module
        data = data_of(cfg)
        with torch.inference_mode():
            shares.append(float((kept(data.test.take(torch.arange(len(data.test)))[0]) > 0).float().mean()))
    assert shares[1] > shares[0]


def test_what_trees_cannot_do_is_said() -> None:
    with pytest.raises(UserError, match="trees compare the numbers of a sample"):
        Forest(Spec("multiclass", "tokens", (0,), 2, ("a", "b"), vocabulary=10))
    with pytest.raises(UserError, match="trees predict one number; this data has 2"):
        Boosting(Spec("regression", "vector", (3,), 2))


def test_losses_and_settings_that_do_not_fit_are_refused(tmp_path: Path, table: Path) -> None:
    with pytest.raises(UserError, match=r"model\.loss=focal: trees for this task take auto"):
        trained(tmp_path / "a", table, "boosting", "kind", "model.loss=focal")
    with pytest.raises(UserError, match=r"model\.num_leaves=1: expected a whole number of at least 2"):
        trained(tmp_path / "b", table, "boosting", "kind", "model.num_leaves=1")


def test_a_class_without_training_rows_and_a_target_of_one_value_are_survived(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    made = pd.DataFrame({"x": generator.normal(size=60), "y": ["a", "b"] * 30})
    made["part"] = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    made.loc[49, "y"] = "c"
    made.to_csv(tmp_path / "t.csv", index=False)
    for number, (model, *more) in enumerate(
        [["forest"], ["boosting"], ["boosting", "model.library=scikit-learn"]]
    ):
        cfg = compose(
            [
                *(
                    "data=csv",
                    f"data.path={tmp_path}/t.csv",
                    "data.target=y",
                    f"model={model}",
                    *SMALL[model],
                    *more,
                ),
                *(
                    "data.split=column",
                    "data.split_column=part",
                    "logger=none",
                    f"paths.experiments_dir={tmp_path}",
                ),
            ]
        )
        result = train(cfg, Hooks(directory=tmp_path / str(number)))
        assert np.isfinite(result.metrics["val/loss"]) and np.isfinite(result.metrics["test/loss"])
