"""Experiments on words and characters: every cell runs wherever the LSTM does, and text models beat their baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.by_hand.character_rnn import CharacterRNN
from pipeline.models.by_hand.twins import RNN_NAMES
from pipeline.models.recurrent import Recurrent
from pipeline.models.saved import load, save
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train

TEXTS = ["a wonderful film.", "dull and awful", "", "words that nobody has seen: qwzx"]


def run(directory: Path, experiment: str, *overrides: str) -> tuple[RunResult, Any, Any]:
    kept: list[Any] = []
    cfg = compose(
        [
            f"+experiment={experiment}",
            "logger=none",
            "callbacks.progress=null",
            f"paths.data_dir={directory / 'data'}",
            *overrides,
        ]
    )
    hooks = Hooks(
        directory=directory / "run", reports=False, on_model=lambda data, model: kept.extend((data, model))
    )
    return train(cfg, hooks), *kept[-2:]  # type: ignore[return-value]


@pytest.mark.parametrize("experiment", ["imdb_linear", "imdb_mlp", "reuters_mlp"])
def test_bags_of_words_beat_the_majority_on_the_stand_in(tmp_path: Path, experiment: str) -> None:
    result, data, model = run(tmp_path, experiment, "trainer.max_epochs=4", "data.batch_size=64")
    assert result.data["used"] == "generated_reviews"
    assert result.metrics["test/accuracy"] > 0.7 > result.baseline["test/accuracy"]
    # The saved model takes the user's own strings.
    predictor = load(save(model, data.encoder, tmp_path / "model"))
    predicted = predictor.predict(TEXTS, batch_size=2)
    assert predicted["label"].tolist()[:2] == ["positive", "negative"]
    assert len(predicted) == 4


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("imdb_lstm", ["data.max_length=12", "model.embedding=8", "trainer.max_epochs=1"]),
        ("help_lstm", ["trainer.max_epochs=3"]),
        ("echo_rnn", ["data.length=600", "trainer.max_epochs=1"]),
        ("kafka_char_rnn", ["data.characters=2000", "trainer.max_steps=10", "callbacks.samples.length=5"]),
        ("kafka_char_lstm", ["data.characters=4000", "trainer.max_epochs=1", "callbacks.samples.length=5"]),
    ],
)
def test_every_cell_runs_wherever_the_lstm_does(
    tmp_path: Path, experiment: str, settings: list[str], cell: str
) -> None:
    result, _, model = run(tmp_path, experiment, f"model={cell}", "model.hidden_units=6", *settings)
    assert type(model.recurrent).__name__.lower() == cell
    assert np.isfinite(result.metrics["train/loss"])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("layers", [1, 2])
def test_packed_and_gathered_states_are_equal(cell: str, layers: int) -> None:
    torch.manual_seed(0)
    spec = Spec(task="binary", input="tokens", input_shape=(0,), outputs=1, classes=("a", "b"), vocabulary=20)
    model = Recurrent(spec, cell=cell, hidden_units=7, layers=layers, embedding=5, pack=True)
    x = torch.randint(1, 20, (6, 11))
    for row, length in enumerate([11, 1, 5, 8, 2, 0]):
        x[row, length:] = 0
    grads = []
    for training in (True, False):
        model.train(training)
        model.zero_grad()
        logits = model(x)
        logits.square().sum().backward()
        grads.append((logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (packed, packed_grads), (gathered, gathered_grads) = grads
    assert torch.allclose(packed, gathered, atol=1e-6)
    for one, other in zip(packed_grads, gathered_grads, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("experiment", ["imdb_lstm"])
def test_a_text_alone_and_in_a_padded_batch_gets_the_same_probability(
    tmp_path: Path, experiment: str
) -> None:
    settings = ("data.max_length=12", "model.embedding=8", "model.hidden_units=6", "trainer.max_epochs=1")
    _, data, model = run(tmp_path, experiment, *settings)
    predictor = load(save(model, data.encoder, tmp_path / "model"))
    together = predictor.predict(TEXTS, batch_size=4)["probability"].to_numpy()
    alone = [predictor.predict([text], batch_size=1)["probability"].iloc[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_l1_and_l2_variants_pull_the_weights_towards_zero(tmp_path: Path) -> None:
    sizes = {}
    for experiment in ("imdb_mlp", "imdb_mlp_l1", "imdb_mlp_l2"):
        _, _, model = run(tmp_path / experiment, experiment, "trainer.max_epochs=3")
        sizes[experiment] = float(sum(p.detach().abs().sum() for p in model.parameters() if p.dim() > 1))
    assert sizes["imdb_mlp_l1"] < sizes["imdb_mlp"] > sizes["imdb_mlp_l2"]


def test_the_variants_are_compared_in_one_run(tmp_path: Path) -> None:
    result, *_ = run(tmp_path, "imdb_mlp_variants", "trainer.max_epochs=1")
    assert [row["variant"] for row in result.nested] == ["base", "small", "large", "l1", "l2", "dropout"]
    assert (tmp_path / "run" / "plots").is_dir()
    assert any((tmp_path / "run" / "plots").iterdir())


def test_a_bag_is_no_sequence_and_a_sequence_no_bag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set data\.input=tokens"):
        run(tmp_path, "imdb_lstm", "data.input=bag")
    with pytest.raises(UserError, match="model=lstm"):
        run(tmp_path, "imdb_mlp", "data.input=tokens")


@pytest.mark.parametrize("experiment", ["kafka_char_rnn", "kafka_char_lstm"])
def test_characters_of_a_stand_in_beat_the_most_frequent_one(tmp_path: Path, experiment: str) -> None:
    result, *_ = run(
        tmp_path,
        experiment,
        "data.characters=20000",
        "data.test_fraction=0.1",
        "data.steps=20",
        "data.batch_size=8",
        "model.hidden_units=32",
        "trainer.max_steps=300",
        "trainer.max_epochs=20",
        "callbacks.samples.length=20",
    )
    assert result.data["used"] == "python_topics"
    assert set(result.baseline) >= {"name", "test/bits_per_char"}
    assert result.baseline["name"] == "most frequent character"
    assert "bigram" in result.baseline["others"]
    assert result.metrics["test/bits_per_char"] < result.baseline["test/bits_per_char"]
    assert result.metrics["test/bits_per_char"] == pytest.approx(result.metrics["test/loss"] / np.log(2))


def test_the_character_rnn_learns_what_a_numpy_loop_learns(tmp_path: Path) -> None:
    # Nine whole pieces and the character after them: a shorter piece weighs less in a sum than in a mean.
    text = ("Gregor opened the door, and then the door was shut again. " * 4)[: 9 * 25 + 1]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    starts: list[dict[str, np.ndarray]] = []
    cfg = compose(
        [
            "+experiment=kafka_char_rnn",
            f"data.path={tmp_path / 'text.txt'}",
            "model.hidden_units=7",
            "trainer.max_steps=12",
            "callbacks=none",
            "logger=none",
        ]
    )
    kept: list[Any] = []

    def keep(data: Any, model: Any) -> None:
        kept.extend((data, model))
        starts.append({name: p.detach().double().numpy().copy() for name, p in model.named_parameters()})

    train(cfg, Hooks(directory=tmp_path / "run", reports=False, on_model=keep))
    data, model = kept
    expected = character_rnn(starts[0], data.encoder.ids(text).numpy(), updates=12)
    for name, p in model.named_parameters():
        assert p.detach().numpy() == pytest.approx(expected[name], abs=1e-4), name


def character_rnn(start: dict[str, np.ndarray], ids: np.ndarray, updates: int) -> dict[str, np.ndarray]:
    """What the RNN by hand learns: 25 steps of truncated backpropagation, summed loss, clip 5, Adagrad 0.1."""
    network = CharacterRNN({name: start[theirs] for name, theirs in RNN_NAMES.items()})
    place, state = 0, network.start()
    for _ in range(updates):
        if place >= len(ids) - 1:
            place, state = 0, network.start()
        x, y = ids[place : place + 25][: len(ids) - 1 - place], ids[place + 1 : place + 26]
        _, state = network.learn(x, y, state, rate=0.1, clip=5)
        place += 25
    return {theirs: network.weights[name] for name, theirs in RNN_NAMES.items()}
