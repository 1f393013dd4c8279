"""What is learnt by hand: the results that the arithmetic must come to, and the same as PyTorch's networks learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.data.text.characters import python_topics
from pipeline.errors import UserError
from pipeline.models.by_hand.character_rnn import Arrays, CharacterRNN
from pipeline.models.by_hand.neurons import Neuron, ReluNeurons
from pipeline.models.by_hand.twins import RNN_NAMES, LinearByHand, RNNByHand
from pipeline.models.saved import load
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train


@pytest.mark.parametrize(
    ("epochs", "answer"),
    [
        (100, 13.786374872617987),
        (200, 13.940),
        (300, 13.983),
        (400, 13.995),
        (1000, 13.999997550324043),
    ],
)
def test_one_neuron_comes_to_14(epochs: int, answer: float) -> None:
    neuron = Neuron()
    for _ in range(epochs):
        for x in (1, 2, 3, 4):
            neuron.learn(x, 2 * x, rate=0.01)
    assert neuron.forward(7) == pytest.approx(answer, abs=1e-14 if epochs in (100, 1000) else 5e-4)


def test_two_relu_units_come_to_18() -> None:
    units = ReluNeurons([0.1, -0.1], [0.0, 0.0], [0.1, 0.1], 0.0)
    for _ in range(100):
        for x in (1, 2, 3, 4, 5):
            units.learn(x, 2 * x, rate=0.01)
    assert units.forward(9) == pytest.approx(17.99692772369434, abs=1e-14)
    # The second unit is off for every x above 0: nothing reaches it.
    assert (units.weights[1], units.biases[1], units.outputs[1]) == (-0.1, 0.0, 0.1)


def test_the_gradients_are_how_the_loss_changes() -> None:
    tiny = 1e-6
    units = ReluNeurons([0.3, -0.4, 0.2], [0.1, 2.0, -0.1], [0.5, 0.6, -0.7], 0.2)
    hidden, outputs, bias = units.gradient(1.5, 2.0)
    for name, slopes in (
        ("weights", [weight for weight, _ in hidden]),
        ("biases", [slope for _, slope in hidden]),
        ("outputs", outputs),
    ):
        for i, slope in enumerate(slopes):
            values = getattr(units, name)
            values[i] += tiny
            above = units.loss(1.5, 2.0)
            values[i] -= 2 * tiny
            below = units.loss(1.5, 2.0)
            values[i] += tiny
            assert (above - below) / (2 * tiny) == pytest.approx(slope, abs=1e-7), (name, i)
    before = units.loss(1.5, 2.0)
    units.bias += tiny
    assert (units.loss(1.5, 2.0) - before) / tiny == pytest.approx(bias, abs=1e-4)


def weights(units: int = 6, characters: int = 5, spread: float = 0.5) -> Arrays:
    draw = np.random.default_rng(0)
    shapes = {"Wxh": (units, characters), "Whh": (units, units), "Why": (characters, units)}
    shapes |= {"bxh": (units,), "bhh": (units,), "by": (characters,)}  # type: ignore[dict-item]
    return {name: draw.normal(0, spread, shape) for name, shape in shapes.items()}


def test_the_chain_rule_through_time_is_how_the_loss_changes() -> None:
    x, y, tiny = np.array([1, 3, 2, 2, 4]), np.array([3, 2, 2, 4, 1]), 1e-6
    network = CharacterRNN(weights())
    start = np.linspace(-0.5, 0.5, 6)
    gradients = network.backward(x, y, *network.forward(x, start))

    def loss() -> float:
        return network.loss(network.forward(x, start)[1], y)

    for name, gradient in gradients.items():
        values = network.weights[name]
        for place in np.ndindex(*values.shape):
            kept = values[place]
            values[place] = kept + tiny
            above = loss()
            values[place] = kept - tiny
            below = loss()
            values[place] = kept
            assert (above - below) / (2 * tiny) == pytest.approx(gradient[place], abs=1e-7), (name, place)


def pieces(text: str) -> tuple[Spec, list[tuple[np.ndarray, np.ndarray]]]:
    """What a text's model has to know, and its first 100 pieces of 25 characters with those that come next."""
    characters = sorted(set(text))
    ids = np.array([1 + characters.index(c) for c in text[:2501]])
    count = len(characters) + 1
    spec = Spec(
        "multiclass",
        "tokens",
        (0,),
        count,
        ("�", *characters),
        per_step=True,
        stateful=True,
        vocabulary=count,
    )
    return spec, [(ids[place : place + 25], ids[place + 1 : place + 26]) for place in range(0, 2500, 25)]


def network_and_reference(spec: Spec, seed: int) -> tuple[RNNByHand, CharacterRNN]:
    """The start of kafka_char_rnn in float64, for PyTorch and by hand."""
    torch.manual_seed(seed)
    network = RNNByHand(spec, cell="rnn", hidden_units=100, initializer="normal", initializer_std=0.01)
    return network.double(), network.reference()


def torch_step(
    network: RNNByHand, x: np.ndarray, y: np.ndarray, carried: torch.Tensor | None
) -> tuple[float, Any]:
    """The gradient of a piece by autograd, clipped at 5; gives the summed loss and the state to carry on."""
    logits, carried = network.forward_state(torch.from_numpy(x)[None], carried)
    loss = torch.nn.functional.cross_entropy(logits[0], torch.from_numpy(y), reduction="sum")
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_value_(network.parameters(), 5)
    assert carried is not None
    return loss.item(), carried.detach()


@pytest.mark.real_data
def test_the_first_100_losses_are_those_of_pytorch(real_data: Path) -> None:
    """100 units, pieces of 25, clipping at 5, Adagrad 0.1, in float64, from the same start.

    From most starts the last digits of a float64 do not stay the last: a rate of 0.1 makes the network's first steps
    chaotic, and what PyTorch adds up in another order grows from piece to piece. This start is one where it stays
    small; the next test is for any start.
    """
    spec, parts = pieces((real_data / "kafka.txt").read_text(encoding="utf-8"))
    network, reference = network_and_reference(spec, seed=1)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.1)
    state, carried = reference.start(), None
    for step, (x, y) in enumerate(parts):
        mine, state = reference.learn(x, y, state, rate=0.1, clip=5)
        theirs, carried = torch_step(network, x, y, carried)
        optimizer.step()
        assert mine == pytest.approx(theirs, abs=1e-6, rel=0), step
    # It has learnt by then: a guess among all characters costs ln of their number for each.
    assert mine / 25 < 0.8 * math.log(spec.outputs)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_step_is_that_of_pytorch_from_the_same_weights(seed: int) -> None:
    spec, parts = pieces(python_topics(20_000))
    network, reference = network_and_reference(spec, seed)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.1)
    state = reference.start()
    for x, y in parts:
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, theirs in RNN_NAMES.items():
                parameters[theirs].copy_(torch.from_numpy(reference.weights[name]))
                optimizer.state[parameters[theirs]]["sum"].copy_(torch.from_numpy(reference.memory[name]))
        before, carried = state, torch.from_numpy(state)[None, None]
        mine, state = reference.learn(x, y, before, rate=0.1, clip=5)
        loss, carried = torch_step(network, x, y, carried)
        optimizer.step()
        assert mine == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(state, carried[0, 0].numpy(), rtol=0, atol=1e-9)
        for name, theirs in RNN_NAMES.items():
            # Where a gradient is 0 but for rounding, its sign decides a step of at most 1e-8.
            np.testing.assert_allclose(
                reference.weights[name], parameters[theirs].detach().numpy(), rtol=0, atol=1e-7, err_msg=name
            )


def test_what_it_writes_comes_as_often_as_it_says() -> None:
    network = CharacterRNN(weights(spread=1.0))
    p = network.forward(np.array([2]), network.start())[1][0]
    p[0] = 0
    draw = np.random.default_rng(1)
    found = np.bincount([network.sample(1, 2, draw)[0] for _ in range(2000)], minlength=5) / 2000
    assert found == pytest.approx(p / p.sum(), abs=0.05)
    assert network.sample(1, 2, draw, temperature=0) == [int(p.argmax())]
    assert len(network.sample(30, 2, draw)) == 30


def run(directory: Path, *words: str) -> RunResult:
    cfg = compose([*words, "logger=none", f"paths.data_dir={directory / 'data'}"])
    return train(cfg, Hooks(directory=directory / "run"))


def test_line_linear_by_hand_is_recorded_to_the_last_digit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, "+experiment=line_linear_by_hand")
    assert dict(result.history["prediction/7"])[100] == pytest.approx(13.786374872617987, abs=1e-14)
    assert list(dict(result.history["weights/output.weight/0/0"])) == list(range(10, 101, 10))
    assert result.metrics["test/mae"] == pytest.approx(14 - 13.786374872617987, abs=1e-6)
    said = capfd.readouterr().err
    assert "--- epoch 10 ---" in said
    assert "f(7) = 13.786374872617987" in said
    assert (tmp_path / "run/plots/learning_curves.png").is_file()
    assert (tmp_path / "run/plots/weights_and_answers.png").is_file()
    predicted = load(tmp_path / "run/model").predict(np.array([[7.0]]))
    assert float(predicted["prediction"].iloc[0]) == pytest.approx(13.786375, abs=1e-5)


def test_line_mlp_by_hand_is_what_line_mlp_learns(tmp_path: Path) -> None:
    by_hand = run(tmp_path / "by_hand", "+experiment=line_mlp_by_hand")
    torchs = run(tmp_path / "torch", "+experiment=line_mlp")
    assert dict(by_hand.history["prediction/9"])[100] == pytest.approx(17.99692772369434, abs=1e-14)
    for name, points in torchs.history.items():
        if name.startswith(("weights/", "prediction/")) or name == "train/loss":
            mine, theirs = dict(by_hand.history[name]), dict(points)
            assert mine.keys() == theirs.keys()
            assert [mine[epoch] for epoch in theirs] == pytest.approx(list(theirs.values()), abs=2e-4), name
    same_curves(by_hand, torchs)


def same_curves(by_hand: RunResult, torchs: RunResult, of_a_sum: int = 1) -> None:
    """The points within epochs are at the same steps, and of the same values (float32 has fewer digits)."""
    assert set(by_hand.steps) == set(torchs.steps) and "step/grad_norm" in by_hand.steps
    for name, points in torchs.steps.items():
        steps, values = zip(*points, strict=True)
        factor = of_a_sum if name == "step/grad_norm" else 1
        found = dict(by_hand.steps[name])
        assert tuple(found) == steps and len(steps) > 2
        expected = [factor * value for value in values]
        assert list(found.values()) == pytest.approx(expected, rel=2e-3, abs=2e-4 * factor), name


def test_the_numpy_rnn_learns_what_the_torch_one_learns(tmp_path: Path) -> None:
    # Whole pieces alone: of a shorter last one the mean weighs each step more than the sum does.
    text = ("Gregor opened the door, and then the door was shut again. " * 6)[: 25 * 12 + 1]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    small = [f"data.path={tmp_path / 'text.txt'}", "model.hidden_units=7", "trainer.max_steps=30"]
    small += [
        "callbacks.samples.every_n_steps=20",
        "callbacks.samples.length=12",
        "trainer.record_every_n_steps=10",
    ]
    numpy = run(tmp_path / "numpy", "+experiment=kafka_char_rnn_numpy", *small)
    torchs = run(tmp_path / "torch", "+experiment=kafka_char_rnn", *small)
    # By hand it is the sum over the 25 steps of a piece.
    same_curves(numpy, torchs, of_a_sum=25)
    mine, theirs = (load(tmp_path / kind / "run/model") for kind in ("numpy", "torch"))
    for name in RNN_NAMES.values():
        found, expected = (predictor.module.state_dict()[name] for predictor in (mine, theirs))
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    assert [epoch for epoch, _ in numpy.history["train/loss"]] == [1, 2, 3]
    written = (tmp_path / "numpy/run/written.txt").read_text(encoding="utf-8")
    assert written.count("--- step") == 2
    assert len(mine.generate("door", 9)) == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+experiment=line_linear_by_hand", "optimizer=adam"], "optimizer=sgd"),
        (["+experiment=line_linear_by_hand", "optimizer.momentum=0.9"], r"optimizer\.momentum"),
        (["+experiment=line_linear_by_hand", "data.batch_size=4"], r"data\.batch_size"),
        (["+experiment=line_mlp_by_hand", "model.dropout=0.5"], "one hidden layer of relu"),
        (["+experiment=line_linear_by_hand", "data=clusters"], "single numbers"),
        (["+experiment=line_linear_by_hand", "scheduler=cosine"], "constant rate"),
        (["+experiment=line_linear_by_hand", "trainer.ema=0.9"], r"trainer\.ema: .* its last weights"),
    ],
)
def test_what_is_not_written_out_by_hand_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(tmp_path, *words)


def test_the_start_of_a_network_is_the_start_by_hand() -> None:
    spec = Spec("regression", "vector", (1,), 1)
    model = LinearByHand(spec, start={"output.weight": [[0.1]], "output.bias": [0.3]})
    neuron = model.reference()
    assert (neuron.weight, neuron.bias) == (0.1, 0.3)
    neuron.learn(1.0, 2.0, rate=0.25)
    model.hold(neuron)
    assert model.reference().weight == pytest.approx(neuron.weight, abs=1e-7)
