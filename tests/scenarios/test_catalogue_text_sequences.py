"""The teaching experiments reach the results that can be computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.splits import Streams
from pipeline.models.base import BaseModule
from pipeline.models.by_hand.neurons import Neuron, ReluNeurons
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.training.watching import predicted_text


class Trained:
    """An experiment run in ``directory``: its result, data, model and history."""

    def __init__(self, directory: Path, *overrides: str) -> None:
        self.start: dict[str, torch.Tensor] = {}
        self.data: Any = None
        self.model: Any = None
        cfg = compose(
            [*overrides, "logger=none", "callbacks.progress=null", f"paths.data_dir={directory / 'data'}"]
        )
        hooks = Hooks(directory=directory / "run", reports=False, on_model=self._keep)
        self.result: RunResult = train(cfg, hooks)

    def _keep(self, data: Any, model: BaseModule) -> None:
        self.data, self.model = data, model
        self.start = {name: value.detach().clone() for name, value in model.named_parameters()}

    def predict(self, x: float) -> float:
        with torch.no_grad():
            return float(self.model(torch.tensor([[x]])))

    def history(self, name: str) -> dict[int, float]:
        return dict(self.result.history[name])


def neuron(points: list[tuple[float, float]], epochs: int, rate: float = 0.01) -> tuple[float, float, float]:
    """Weight, bias and the last epoch's summed loss of y = wx + b, trained on one point after the other."""
    by_hand, summed = Neuron(), 0.0
    for _ in range(epochs):
        summed = sum(by_hand.learn(x, y, rate) for x, y in points)
    return by_hand.weight, by_hand.bias, summed


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(100, 13.786375), (200, 13.940), (300, 13.983), (400, 13.995), (1000, 13.99999755)],
)
def test_line_linear_learns_what_a_plain_loop_learns(tmp_path: Path, epochs: int, expected: float) -> None:
    run = Trained(
        tmp_path, "+experiment=line_linear", f"trainer.max_epochs={epochs}", "callbacks.weights=null"
    )
    w, b, _ = neuron([(x, 2 * x) for x in (1, 2, 3, 4)], epochs)
    # Those in between are known to three places.
    assert w * 7 + b == pytest.approx(expected, abs=1e-6 if epochs in (100, 1000) else 5e-4)
    assert run.predict(7) == pytest.approx(w * 7 + b, abs=1e-4 if epochs < 1000 else 5e-6)
    assert run.result.metrics["test/mae"] == pytest.approx(14 - run.predict(7), abs=1e-6)


def test_line_linear_records_its_weights_and_its_answer_every_tenth_epoch(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=line_linear")
    expected = {epoch: neuron([(x, 2 * x) for x in (1, 2, 3, 4)], epoch)[:2] for epoch in range(10, 101, 10)}
    weights, biases = run.history("weights/output.weight/0/0"), run.history("weights/output.bias/0")
    said = run.history("prediction/7")
    assert list(weights) == list(biases) == list(said) == list(expected)
    for epoch, (w, b) in expected.items():
        assert weights[epoch] == pytest.approx(w, abs=1e-5)
        assert biases[epoch] == pytest.approx(b, abs=1e-5)
        assert said[epoch] == pytest.approx(7 * w + b, abs=1e-4)


def test_line_mlp_has_the_weights_of_a_plain_loop(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=line_mlp")
    units = ReluNeurons([0.1, -0.1], [0.0, 0.0], [0.1, 0.1], 0.0)
    for _ in range(100):
        for x in (1, 2, 3, 4, 5):
            units.learn(x, 2 * x, rate=0.01)
    answer = units.forward(9)
    assert answer == pytest.approx(17.996928, abs=1e-6)
    assert run.predict(9) == pytest.approx(17.996928, abs=1e-4)
    found = {name: value.detach().reshape(-1).tolist() for name, value in run.model.named_parameters()}
    expected = {
        "hidden.0.weight": units.weights,
        "hidden.0.bias": units.biases,
        "output.weight": units.outputs,
        "output.bias": [units.bias],
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=2e-5), name


def test_line_keras_learns_unless_its_units_are_dead(tmp_path: Path) -> None:
    learnt: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {}
    names = iter(("2_dead_units", "2_units", "20_units"))

    def keep(_: Any, model: BaseModule) -> None:
        start = {name: value.detach().clone() for name, value in model.named_parameters()}
        learnt[next(names)] = (model, start)

    words = ["logger=none", "callbacks.progress=null", f"paths.data_dir={tmp_path / 'data'}"]
    result = train(
        compose(["+experiment=line_keras", *words]),
        Hooks(directory=tmp_path / "run", reports=False, on_model=keep),
    )
    x = np.arange(1.0, 6.0)[:, None]
    for row in result.nested:
        model, start = learnt[row["variant"]]
        w, b, v, c = (value.double().numpy() for value in start.values())
        losses = []
        for _ in range(1000):
            before = x @ w.T + b
            hidden = np.maximum(before, 0)
            error = hidden @ v.T + c - 2 * x
            losses.append(float((error**2).mean()))
            back = 2 * error / 5
            down = (back @ v) * (before > 0)
            v, c = v - 0.001 * back.T @ hidden, c - 0.001 * back.sum(0)
            w, b = w - 0.001 * down.T @ x, b - 0.001 * down.sum(0)
        answer = float((np.maximum(9 * w.T + b, 0) @ v.T + c).item())
        with torch.no_grad():
            assert float(model(torch.tensor([[9.0]]))) == pytest.approx(answer, abs=2e-3)
        assert row["metrics"]["train/loss"] == pytest.approx(losses[-1], abs=1e-3)
        assert row["metrics"]["test/mae"] == pytest.approx(18 - answer, abs=2e-3)
        if row["variant"] == "2_dead_units":
            # Nothing but the last bias learns, from 0 towards the targets' mean, 6.
            assert losses[0] == pytest.approx(44.0)
            assert losses[-1] == pytest.approx(8.66, abs=0.005)
            assert answer == pytest.approx(6 * (1 - 0.998**1000))
        else:
            assert abs(18 - answer) < 0.9


def test_line_mlp_wide_counts_how_often_each_width_learns(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=line_mlp_wide", "seeds=3")
    assert [row["variant"] for row in run.result.nested] == ["2_units"] * 3 + ["20_units"] * 3
    for variant in ("2_units", "20_units"):
        errors = [row["metrics"]["test/mae"] for row in run.result.nested if row["variant"] == variant]
        learnt = sum(error < 0.05 * 180 for error in errors)
        assert f"{variant}: {learnt} of 3 fits reached test/mae below 9" in run.result.notes


def test_no_pattern_ends_with_the_loss_of_a_plain_loop(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=no_pattern", "data.folds=null")
    points = list(zip([3, 4, 7, 8, 9], [7, 5, 6, 8, 3], strict=True))
    summed = neuron(points, 1000)[2]  # type: ignore[arg-type]
    assert summed == pytest.approx(64.324, abs=0.001)
    assert 5 * run.history("train/loss")[1000] == pytest.approx(64.324, abs=0.01)


def test_no_pattern_does_not_beat_the_mean_leave_one_out_and_says_so(tmp_path: Path) -> None:
    from dataclasses import asdict

    from pipeline.reports.summary import verdict

    run = Trained(tmp_path, "+experiment=no_pattern", "trainer.max_epochs=50")
    xs, ys = [3, 4, 7, 8, 9], [7, 5, 6, 8, 3]
    errors, means = [], []
    for i in range(5):
        rest = [(x, y) for j, (x, y) in enumerate(zip(xs, ys, strict=True)) if j != i]
        w, b, _ = neuron(rest, 50)  # type: ignore[arg-type]
        errors.append(abs(w * xs[i] + b - ys[i]))
        means.append(abs(sum(y for _, y in rest) / 4 - ys[i]))
    assert run.result.metrics["baseline/val/mae"] == pytest.approx(sum(means) / 5, abs=1e-5)
    # The last epoch's errors: none was chosen by the point that is left out.
    assert sorted(row["metrics"]["val/mae"] for row in run.result.nested) == pytest.approx(
        sorted(errors), abs=1e-4
    )
    assert run.result.metrics["val/mae"] == pytest.approx(sum(errors) / 5, abs=1e-4)
    assert not any("The model beats" in line for line in verdict(asdict(run.result)))


def test_clusters_rmsprop_has_the_weights_of_a_numpy_loop(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=clusters_rmsprop")
    x, y = (part.double().numpy() for part in run.data.train.take(torch.arange(2000)))
    x = np.column_stack([x, np.ones(2000)])
    w = np.append(run.start["output.weight"][0].double().numpy(), float(run.start["output.bias"]))
    size = np.zeros(3)
    for _ in range(40):
        gradient = 2 * x.T @ (x @ w - y) / len(x)
        size = 0.9 * size + 0.1 * gradient**2
        w = w - 0.03 * gradient / (np.sqrt(size) + 1e-8)
    assert run.model.output.weight[0].detach().numpy() == pytest.approx(w[:2], abs=1e-4)
    assert run.model.output.bias.item() == pytest.approx(w[2], abs=1e-4)
    assert run.result.metrics["test/accuracy"] >= 0.99


def test_clusters_linear_has_the_weights_of_a_numpy_loop(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=clusters_linear")
    x, y = (part.double().numpy() for part in run.data.train.take(torch.arange(2000)))
    w, b = run.start["output.weight"][0].double().numpy(), float(run.start["output.bias"])
    for _ in range(40):
        error = x @ w + b - y
        w, b = w - 0.1 * 2 * x.T @ error / len(x), b - 0.1 * 2 * error.mean()
    assert run.model.output.weight[0].detach().numpy() == pytest.approx(w, abs=1e-4)
    assert run.model.output.bias.item() == pytest.approx(b, abs=1e-4)
    right = float((((x @ w + b) > 0.5) == (y > 0.5)).mean())
    assert right >= 0.99
    assert run.result.metrics["test/accuracy"] >= 0.99


@pytest.mark.parametrize("model", ["lstm", "gru"])
def test_help_lstm_goes_on_with_the_word(tmp_path: Path, model: str) -> None:
    run = Trained(tmp_path, "+experiment=help_lstm", f"model={model}", "model.hidden_units=8")
    assert predicted_text(run.model, "HEL") == "ELP"
    assert run.result.metrics["test/accuracy"] == 1.0
    written = (tmp_path / "run" / "written.txt").read_text(encoding="utf-8")
    assert [line for line in written.splitlines() if "---" in line] == [
        f"--- epoch {epoch} ---" for epoch in (50, 100, 150, 200)
    ]
    assert written.endswith("HEL → ELP\n")


def test_echo_rnn_needs_the_carried_state(tmp_path: Path) -> None:
    settings = ("+experiment=echo_rnn", "data.length=6000", "data.steps=5", "trainer.max_epochs=4")
    carried = Trained(tmp_path / "carried", *settings)
    dropped = Trained(tmp_path / "dropped", *settings, "data.stateful=false")
    assert carried.result.metrics["test/accuracy"] > 0.97
    # Of 5 steps the first 3 have an echo of bits that the piece does not hold: half of those can be guessed.
    assert dropped.result.metrics["test/accuracy"] < 0.75
    zeros = carried.result.baseline
    assert zeros["name"] == "echo of zero"
    assert isinstance(carried.data.test, Streams)
    known = carried.data.test.y[:, 3:]
    assert zeros["test/accuracy"] == pytest.approx(float((known == 0).double().mean()))


def test_echo_metrics_leave_out_the_unknown_first_steps(tmp_path: Path) -> None:
    run = Trained(tmp_path, "+experiment=echo_rnn", "data.length=500", "trainer.max_epochs=1")
    x, y = run.data.test.x, run.data.test.y
    with torch.no_grad():
        logits = run.model(x)[..., 0]
    known = y >= 0
    assert int(known.sum()) == 5 * 97
    accuracy = float(((logits > 0) == (y > 0.5))[known].double().mean())
    p = 1 / (1 + np.exp(-logits[known].double().numpy()))
    truth = y[known].double().numpy()
    loss = -np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    assert run.result.metrics["test/accuracy"] == pytest.approx(accuracy)
    assert run.result.metrics["test/loss"] == pytest.approx(loss, abs=1e-4)
    assert not math.isnan(loss)
