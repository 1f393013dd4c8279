"""How sure a table's model is: the same in the test, in predictions, served, exported and after a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors import safe_open
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss

from pipeline.__main__ import main
from pipeline.api import load, train
from pipeline.models.settled import Settled
from pipeline.runs.result import RunResult
from pipeline.tracking.queries import Store
from pipeline.tracking.store import as_default
from pipeline.training import fit as fit_room

SURE = [
    *("data=csv", "data.path=t.csv", "model=mlp", "model.hidden_units=[64,64]", "trainer=cpu"),
    *("trainer.max_epochs=60", "checkpoint.monitor=null", "optimizer.lr=0.01"),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(700, 4))
    logits = np.stack([x[:, 0], x[:, 1], 0.3 * x[:, 2]], 1)
    kind = (logits + draw.gumbel(size=logits.shape)).argmax(1)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(
        town=draw.choice(["north", "south"], 700),
        kind=np.array(["red", "green", "blue"])[kind],
        size=3 * x[:, 0] + draw.normal(size=700),
    )
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.fixture
def here(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(table.read_bytes())
    return tmp_path


@pytest.mark.delivered
def test_predictions_server_and_exports_give_the_same_probabilities(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SURE, "data.target=kind", "data.drop=[size]"]
    assert main([*words, "hydra.run.dir=run"]) == 0
    result = RunResult.read(here / "run")
    settled = Settled.from_dict(result.model["sureness"])
    # It was trained far too long: it is too sure of itself.
    assert settled.temperature > 1.3
    assert any(f"temperature {settled.temperature:.2f}" in note for note in result.notes)
    assert result.metrics["test/log_loss"] < 0.9 * result.metrics["test/loss"]

    rows = pd.read_csv("t.csv")[:64].drop(columns=["kind", "size"])
    rows.loc[0, "town"] = "nowhere"
    rows.to_csv("rows.csv", index=False)
    asked = [f"task.run_id={result.run_id}"]
    assert main(["task=predict", *asked, "task.input=rows.csv", "task.output=answers.csv"]) == 0
    answers = pd.read_csv("answers.csv")
    assert answers["unusual"].dtype == bool and answers["unusual"][0]
    assert (
        f"{answers['unusual'].sum()} of 64 rows are unlike the training data (column unusual)"
        in capsys.readouterr().out
    )
    p = answers[["p_blue", "p_green", "p_red"]].to_numpy()

    predictor = load("run")
    with torch.inference_mode():
        logits = predictor.module(predictor.encoder.encode(rows)).numpy()
    np.testing.assert_allclose(p, softmax(logits.astype(float) / settled.temperature, 1), atol=1e-6)

    store = Store(None, here / "experiments")
    client = mlflow.MlflowClient(store.uri)
    (logged,) = client.search_logged_models([client.get_run(str(result.run_id)).info.experiment_id])
    with as_default(store.uri):
        served = mlflow.pyfunc.load_model(logged.model_uri)
    outputs = [column.name for column in served.metadata.signature.outputs]
    assert outputs == ["label", "probability", "p_blue", "p_green", "p_red", "unusual"]
    found = served.predict(rows)
    np.testing.assert_allclose(found[["p_blue", "p_green", "p_red"]], p, atol=1e-6)
    assert (found["unusual"] == answers["unusual"]).all()

    encoded = predictor.encoder.encode(rows)
    for form in ("onnx", "pt2", "safetensors"):
        assert main(["task=export", *asked, f"task.format={form}", f"task.output=m.{form}"]) == 0
    (exported,) = onnxruntime.InferenceSession("m.onnx").run(["logits"], {"input": encoded.numpy()})
    np.testing.assert_allclose(softmax(exported, 1), p, atol=1e-6)
    exported = torch.export.load("m.pt2").module()(encoded).detach().numpy()
    np.testing.assert_allclose(softmax(exported, 1), p, atol=1e-6)
    with safe_open("m.safetensors", framework="pt") as file:
        assert Settled.from_dict(json.loads(file.metadata()["sureness"])) == settled

    assert main(["task=evaluate", *asked, "task.output=evaluated"]) == 0
    evaluated = json.loads(Path("evaluated/evaluation.json").read_text())
    assert evaluated["identical"] is True


@pytest.mark.delivered
def test_numbers_come_with_intervals_that_hold(here: Path) -> None:
    words = [*SURE, "data.target=size", "data.drop=[kind]", "data.target_unit=cm"]
    assert main([*words, "hydra.run.dir=run"]) == 0
    result = RunResult.read(here / "run")
    half = result.model["sureness"]["half_width"]
    assert result.model["sureness"]["level"] == 0.9
    rows = pd.read_csv("t.csv")
    rows.to_csv("rows.csv", index=False)
    asked = ["task=predict", f"task.run_id={result.run_id}", "task.input=rows.csv"]
    assert main([*asked, "task.output=answers.csv"]) == 0
    assert main([*asked, "task.output=answers.jsonl"]) == 0
    answers = pd.read_csv("answers.csv")
    assert list(answers.columns) == ["prediction", "low", "high", "unusual"]
    np.testing.assert_allclose(answers["high"] - answers["prediction"], half, rtol=1e-5)
    np.testing.assert_allclose(answers["prediction"] - answers["low"], half, rtol=1e-5)
    by_line = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["low"] for row in by_line], answers["low"], rtol=1e-6)
    assert main([*asked, "task.output=answers.parquet", "task.batch_size=20"]) == 0
    again = pd.read_parquet("answers.parquet")
    assert list(again) == list(answers) and again["unusual"].dtype == bool and len(again) == len(rows)
    np.testing.assert_allclose(again["high"], answers["high"], rtol=1e-5)
    held = result.metrics["test/coverage"]
    note = f"90 % intervals: ± {half:.3g} cm; hold for {100 * held:.1f} % of test rows"
    assert note in result.notes and 0.8 < held < 0.98


def test_without_them_a_model_answers_as_it_was_trained(here: Path) -> None:
    words = [*SURE, "data.drop=[size]", "data.target=kind", "data.calibrate=false", "logger=none"]
    result = train(*words)
    assert "sureness" not in result.model
    assert "sureness" not in json.loads((result.directory / "model/model.json").read_text())
    assert result.metrics["test/log_loss"] == pytest.approx(result.metrics["test/loss"], rel=1e-5)
    result = train(*SURE, "data.drop=[kind]", "data.target=size", "data.interval=null", "logger=none")
    assert list(load(result.directory).predict(pd.read_csv("t.csv")[:3])) == ["prediction", "unusual"]


def test_costs_decide_in_the_test_and_in_predictions(here: Path) -> None:
    words = [*SURE, "data.drop=[size]", "data.target=kind", "logger=none", "trainer.max_epochs=5"]
    result = train(*words, "data.costs={blue: {red: 20, green: 20}}")
    rows = pd.read_csv("t.csv")
    answers = load(result.directory).predict(rows)
    p = answers[["p_blue", "p_green", "p_red"]].to_numpy()
    costs = np.array([[0, 20, 20], [1, 0, 1], [1, 1, 0]])
    names = np.array(["blue", "green", "red"])
    assert (answers["label"] == names[(p @ costs).argmin(1)]).all()
    assert (answers["label"] != names[p.argmax(1)]).any()
    place = answers["label"].map({"blue": 0, "green": 1, "red": 2})
    np.testing.assert_allclose(answers["probability"], p[np.arange(len(p)), place])


def test_costs_need_no_validation_data_and_are_refused_where_they_do_not_fit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=csv", "data.path=t.csv", "data.target=town", "model=linear", "trainer=cpu", "logger=none"]
    words += ["trainer.max_epochs=1", "hydra.run.dir=run"]
    costs = "data.costs={false_positive: 1, false_negative: 3}"
    assert main([*words, costs, "data.calibrate=false"]) == 0
    assert "'south' is predicted above a probability of 0.25, which costs least" in capsys.readouterr().out
    assert main([*words, costs, "data.validation_fraction=0"]) == 0
    shown = capsys.readouterr().out
    assert "0.25, which costs least" in shown and "nothing is held out that says how sure" in shown
    assert main([*words, "data.costs={west: {south: 2}}"]) == 2
    assert "data.costs.west" in capsys.readouterr().err
    assert main([*words, "data.interval=1.5"]) == 2
    assert "data.interval=1.5: expected a number above 0 to below 1, or null" in capsys.readouterr().err


def test_a_threshold_decides_in_the_test_and_in_predictions(here: Path) -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(6000, 3))
    rare = x @ [1.2, -0.8, 0.5] + draw.logistic(size=6000) > 3.5
    frame = pd.DataFrame(x, columns=list("abc")).assign(sold=np.where(rare, "yes", "no"))
    frame[:4000].to_csv("train.csv", index=False)
    frame[4000:].to_csv("test.csv", index=False)
    words = ["data=csv", "data.path=train.csv", "data.test_path=test.csv", "data.target=sold", "logger=none"]
    words += ["model=linear", "model.solver=exact", "trainer=cpu"]
    plain = train(*words, "hydra.run.dir=plain")
    chosen = train(*words, "hydra.run.dir=chosen", "objective.metric=val/f1")
    assert chosen.metrics["test/f1"] > plain.metrics["test/f1"] + 0.02
    threshold = chosen.model["sureness"]["threshold"]
    assert any(f"'yes' is predicted above a probability of {threshold:.3g}" in note for note in chosen.notes)
    answers = load("chosen").predict(frame[4000:])
    assert ((answers["label"] == "yes") == (answers["p_yes"] > threshold)).all()
    by_hand = f1_score(frame["sold"][4000:], answers["label"], average="macro")
    assert chosen.metrics["test/f1"] == pytest.approx(by_hand)


class Cut(Exception):
    """The power is gone."""


class CutAt(pl.Callback):
    """Raises in the middle of a fit."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 30:
            raise Cut


def test_a_run_that_was_cut_off_and_resumed_has_the_same_temperature(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SURE, "data.drop=[size]", "data.target=kind", "logger=none"]
    whole = train(*words, "hydra.run.dir=whole")
    original: Callable[..., list[Any]] = fit_room._callbacks
    with monkeypatch.context() as patch:
        patch.setattr(fit_room, "_callbacks", lambda *arguments: [*original(*arguments), CutAt()])
        with pytest.raises(Cut):
            train(*words, "hydra.run.dir=cut", "resume=auto")
    again = train(*words, "hydra.run.dir=cut", "resume=auto")
    assert again.model["sureness"] == whole.model["sureness"]
    assert again.metrics["test/log_loss"] == whole.metrics["test/log_loss"]


def test_the_log_loss_is_that_of_the_probabilities_that_are_given(here: Path) -> None:
    words = [*SURE, "data.drop=[size]", "data.target=kind", "logger=none", "trainer.max_epochs=20"]
    pd.read_csv("t.csv")[:100].to_csv("test.csv", index=False)
    result = train(*words, "data.test_path=test.csv")
    rows = pd.read_csv("test.csv")
    answers = load(result.directory).predict(rows)
    expected = log_loss(
        rows["kind"], answers[["p_blue", "p_green", "p_red"]], labels=["blue", "green", "red"]
    )
    assert result.metrics["test/log_loss"] == pytest.approx(expected, rel=1e-5)
