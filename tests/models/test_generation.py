"""Writing with a character model: what is drawn is what the model says, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.generation import generate
from pipeline.models.linear import Linear
from pipeline.models.recurrent import Recurrent

CLASSES = ("�", "a", "b", "c", "d")
SPEC = Spec(
    task="multiclass",
    input="tokens",
    input_shape=(0,),
    outputs=5,
    classes=CLASSES,
    per_step=True,
    stateful=True,
    vocabulary=5,
)


def model(cell: str = "lstm", spread: float = 3.0) -> Recurrent:
    torch.manual_seed(0)
    made = Recurrent(SPEC, cell=cell, hidden_units=6, dropout=0.5)
    made.output.weight.data.mul_(spread)
    return made


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_likeliest_text_is_that_of_a_plain_loop(cell: str) -> None:
    network = model(cell)
    network.eval()
    ids = [1, 2]
    with torch.no_grad():
        for _ in range(12):
            logits = network(torch.tensor([ids]))[0, -1]
            ids.append(1 + int(logits[1:].argmax()))
    assert generate(network, 12, prompt="ab", temperature=0) == "".join(CLASSES[i] for i in ids[2:])


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    network = model()
    network.train()
    before = torch.get_rng_state()
    texts = [generate(network, 50, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert len(texts[0]) == 50


def test_characters_come_as_often_as_the_model_and_the_temperature_say() -> None:
    network = model(spread=1.0)
    network.eval()
    with torch.no_grad():
        logits = network(torch.tensor([[1]]))[0, -1, 1:].double()
    for temperature in (0.5, 1.0, 2.0):
        drawn = Counter(
            generate(network, 1, prompt="a", temperature=temperature, seed=seed) for seed in range(600)
        )
        for character, p in zip("abcd", (logits / temperature).softmax(0).tolist(), strict=True):
            assert drawn[character] / 600 == pytest.approx(p, abs=4 * (p * (1 - p) / 600) ** 0.5)


def test_top_k_keeps_the_likeliest_and_the_unknown_sign_is_never_written() -> None:
    network = model(spread=1.0)
    network.output.bias.data[0] = 100.0
    network.eval()
    with torch.no_grad():
        logits = network(torch.tensor([[1]]))[0, -1, 1:]
    best = {"abcd"[i] for i in logits.topk(2).indices.tolist()}
    assert {generate(network, 1, prompt="a", top_k=2, seed=seed) for seed in range(60)} == best
    assert "�" not in generate(network, 200, top_k=50)


def test_an_unknown_character_in_the_prompt_is_read_as_unknown() -> None:
    assert len(generate(model(), 5, prompt="xyz")) == 5
    assert generate(model(), 0) == ""


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"length": -1}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="expected"):
        generate(model(), **wrong)  # type: ignore[arg-type]


def test_a_model_of_something_else_is_refused() -> None:
    other = Linear(Spec(task="regression", input="vector", input_shape=(1,), outputs=1))
    with pytest.raises(UserError, match="characters"):
        generate(other)
