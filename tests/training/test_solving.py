"""Linear models by their exact solution are scikit-learn's, whatever the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.models.saved import load
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training.stopping import Stop


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    made = pd.DataFrame(generator.normal(size=(500, 5)) * [1, 10, 100, 1, 1], columns=list("abcde"))
    made["word"] = generator.choice(["x", "y", "z"], 500)
    value = made["a"] + made["b"] / 10 + 2 * (made["word"] == "x") + generator.normal(size=500)
    made["value"] = 1000 + 300 * value
    made["kind"] = np.where(value > 0, "yes", "no")
    made["class"] = np.array(["low", "middle", "high"])[np.digitize(value, [-1, 1])]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    made.to_csv(path, index=False)
    return path


def solved(directory: Path, table: Path, target: str, *more: str) -> tuple[RunResult, Any, Any]:
    others = ",".join({"value", "kind", "class"} - {target})
    cfg = compose(
        [
            *(
                "data=csv",
                f"data.path={table}",
                f"data.target={target}",
                f"data.drop=[{others}]",
                "model=linear",
            ),
            *(
                "model.solver=exact",
                "logger=none",
                "trainer=cpu",
                f"paths.experiments_dir={directory}",
                *more,
            ),
        ]
    )
    result = train(cfg, Hooks(directory=directory / "run"))
    return result, load(directory / "run/model").module, data_of(cfg)


def rows(split: Any) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    x, y = split.take(torch.arange(len(split)))
    return x, x.numpy().astype(float), y.reshape(-1).numpy()


@pytest.mark.parametrize("alpha", ["1.0", "0.1", "0"])
@pytest.mark.parametrize("target", ["value", "kind", "class"])
def test_the_weights_are_those_of_the_minimum(tmp_path: Path, table: Path, target: str, alpha: str) -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

    _, model, data = solved(tmp_path, table, target, f"model.alpha={alpha}", "data.calibrate=false")
    _, x, y = rows(data.train)
    inputs, held, _ = rows(data.test)
    with torch.inference_mode():
        found = model.objective.probabilities(model(inputs)).numpy()
    if target == "value":
        least = Ridge(alpha=float(alpha)) if float(alpha) else LinearRegression()
        assert np.allclose(found[:, 0], least.fit(x, y).predict(held), rtol=1e-4)
    else:
        own = LogisticRegression(C=1 / float(alpha) if float(alpha) else np.inf, tol=1e-8, max_iter=10_000)
        assert np.allclose(found, own.fit(x, y).predict_proba(held), atol=2e-3)


@pytest.mark.parametrize("target", ["value", "kind"])
def test_the_penalty_is_the_one_that_is_best_on_validation_data(tmp_path: Path, target: str) -> None:
    generator = np.random.default_rng(1)
    made = pd.DataFrame(generator.normal(size=(120, 80))).add_prefix("x")
    value = made["x0"] + generator.normal(size=120)
    made["value"], made["kind"], made["class"] = value, np.where(value > 0, "yes", "no"), "a"
    made.to_csv(tmp_path / "wide.csv", index=False)
    auto, _, _ = solved(tmp_path / "auto", tmp_path / "wide.csv", target)
    metric = "val/mae" if target == "value" else "val/loss"
    each = {}
    for power in range(-2, 5):
        more = f"model.alpha={10.0**power:g}"
        each[power] = solved(tmp_path / str(power), tmp_path / "wide.csv", target, more)[0].metrics[metric]
    assert auto.metrics[metric] == pytest.approx(min(each.values()), rel=0.01)
    assert each[-2] > 1.2 * auto.metrics[metric]
    best = min(each, key=each.__getitem__)
    assert f"solved to its minimum with alpha={10.0**best:g}" in auto.notes


def test_a_table_of_many_categories_is_kept_as_what_is_not_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression, Ridge

    generator = np.random.default_rng(2)
    made = pd.DataFrame({name: generator.choice(list("abcdefghijklmnopqrst"), 2000) for name in ("p", "q")})
    made["a"] = generator.normal(size=2000) + 1e3
    value = made["a"] + 3 * (made["p"] > "j") - 2 * (made["q"] < "e") + generator.normal(size=2000)
    made["value"], made["class"] = value, np.array(["low", "middle", "high"])[np.digitize(value, [999, 1002])]
    made["kind"] = np.where(value > 1001, "yes", "no")
    made.to_csv(tmp_path / "many.csv", index=False)
    fitted = []
    whole = LogisticRegression.fit

    def fit(self: Any, x: Any, y: Any, **more: Any) -> Any:
        fitted.append(sparse.issparse(x) and x.nnz / x.shape[0])
        return whole(self, x, y, **more)

    for target, own in {"value": Ridge(alpha=0.1), "kind": None, "class": None}.items():
        with monkeypatch.context() as patch:
            patch.setattr(LogisticRegression, "fit", fit)
            words = ("model.alpha=0.1", "data.calibrate=false")
            _, model, data = solved(tmp_path / target, tmp_path / "many.csv", target, *words)
        _, x, y = rows(data.train)
        inputs, held, _ = rows(data.test)
        with torch.inference_mode():
            found = model.objective.probabilities(model(inputs)).numpy()
        if own is not None:
            assert np.allclose(found[:, 0], own.fit(x, y).predict(held), rtol=1e-6)
        else:
            least = LogisticRegression(C=10, tol=1e-8, max_iter=10_000).fit(x, y)
            assert np.allclose(found, least.predict_proba(held), atol=2e-3)
    # The number and one of each column's categories.
    assert fitted == [3.0, 3.0]


def test_a_solver_without_time_says_what_it_did_not_try_and_gets_no_verdict(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stop, "__call__", lambda self: True)
    result, *_ = solved(tmp_path, table, "kind")
    assert (
        "solved to its minimum with alpha=10000; 6 weaker penalties were not tried when its time ran out"
        in (result.notes)
    )
    # The first penalty is so strong that the majority is all that it answers.
    assert [verdict["verdict"] for verdict in result.verdicts] == [""]
    assert "its time ran out" in result.unfinished == result.verdicts[0]["why"]


def test_bags_of_words_and_images_are_solved_too(tmp_path: Path) -> None:
    for name, words in {
        "images": ["data=digits"],
        "words": ["+experiment=imdb_linear"],
    }.items():
        common = ["model=linear", "model.solver=exact", "logger=none", f"paths.experiments_dir={tmp_path}"]
        result = train(compose([*words, *common]), Hooks(directory=tmp_path / name))
        assert result.metrics["test/accuracy"] > 0.75


def test_a_class_without_training_rows_is_unlikely_and_not_impossible(tmp_path: Path) -> None:
    made = pd.DataFrame(
        {"x": np.arange(40.0) % 2, "y": ["a", "b"] * 20, "part": ["train"] * 30 + ["test"] * 10}
    )
    made.loc[29, "y"] = "c"
    made.loc[25:29, "part"] = "validation"
    made.to_csv(tmp_path / "t.csv", index=False)
    cfg = compose(
        [
            *("data=csv", f"data.path={tmp_path}/t.csv", "data.target=y", "data.split=column"),
            *("data.split_column=part", "model=linear", "model.solver=exact", "logger=none"),
            f"paths.experiments_dir={tmp_path}",
        ]
    )
    result = train(cfg, Hooks(directory=tmp_path / "run"))
    assert np.isfinite(result.metrics["test/loss"]) and result.metrics["test/accuracy"] == 1
    assert result.metrics["val/accuracy"] == pytest.approx(0.8) and np.isfinite(result.metrics["val/loss"])


def test_other_losses_and_series_are_refused(tmp_path: Path, table: Path) -> None:
    with pytest.raises(UserError, match=r"model\.solver=exact has the loss auto alone"):
        solved(tmp_path, table, "kind", "model.loss=focal")
