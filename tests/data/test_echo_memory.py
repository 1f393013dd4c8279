"""What a recurrent network remembers: new bits in each epoch, what a unit holds, and what cutting the series costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.data.teaching.plots import held_bits
from pipeline.data.teaching.systems import Echo
from pipeline.errors import UserError
from pipeline.models.recurrent import Recurrent
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train


def bits_of(data: Echo, epoch: int, chunk: int = 1) -> torch.Tensor:
    """The bits that training reads in an epoch (from 0), (streams, length)."""
    loader = data.training_loader(0, chunk)
    loader.go_to(epoch)
    return torch.cat([x[..., 0] for some in loader for x, _ in some], 1)


def test_fresh_bits_are_new_in_every_epoch_and_the_same_when_it_is_done_again() -> None:
    data = Echo(length=300, batch_size=3, fresh=True)
    data.setup()
    epochs = [bits_of(data, epoch) for epoch in range(3)]
    assert data.validation is not None
    assert data.test is not None
    others = [data.validation.x[..., 0], data.test.x[..., 0]]
    for i, one in enumerate([*epochs, *others]):
        assert one.shape == (3, 100)
        for other in [*epochs, *others][i + 1 :]:
            assert 0.3 < float((one == other).double().mean()) < 0.7
    # A loader that begins with the third epoch, as a resumed run does.
    assert torch.equal(bits_of(data, 2, chunk=4), epochs[2])
    same = Echo(length=300, batch_size=3)
    same.setup()
    assert torch.equal(bits_of(same, 0), epochs[0])
    assert torch.equal(bits_of(same, 2), epochs[0])


def test_the_echo_of_fresh_bits_is_their_echo() -> None:
    data = Echo(length=300, batch_size=3, fresh=True, steps=7)
    data.setup()
    loader = data.training_loader(0)
    loader.go_to(5)
    parts = [part for some in loader for part in some]
    x, y = torch.cat([x for x, _ in parts], 1)[..., 0], torch.cat([y for _, y in parts], 1)
    assert torch.equal(y[:, 3:], x[:, :-3])
    assert (y[:, :3] == -1).all()


def test_a_unit_that_repeats_a_bit_is_said_to_hold_it() -> None:
    bits = np.random.default_rng(0).integers(0, 2, 500).astype(float)
    late = np.concatenate([np.zeros(2), bits[:-2]])
    states = np.column_stack([bits * 2 - 1, 1 - 2 * late, np.zeros(500)])
    ages, strengths = held_bits(bits, states, delay=3)
    assert ages[:2].tolist() == [0, 2]
    assert strengths == pytest.approx([1.0, -1.0, 0.0])


def run(directory: Path, *words: str) -> RunResult:
    small = ["data.length=6000", "trainer.max_epochs=4", "logger=none", "callbacks.progress=null"]
    return train(compose([*words, *small]), Hooks(directory=directory))


@pytest.mark.drawn
def test_what_is_carried_and_how_far_training_looks_back_decide_what_is_remembered(tmp_path: Path) -> None:
    result = run(tmp_path, "+experiment=echo_rnn_memory")
    found = {row["variant"]: row["metrics"]["test/accuracy"] for row in result.nested}
    assert list(found) == [
        f"{state}_{steps}_steps" for state in ("carried", "dropped") for steps in (15, 5, 3)
    ]
    assert min(found["carried_15_steps"], found["carried_5_steps"]) > 0.97
    # Training that looks back 3 steps never meets a bit together with its echo: nothing but luck.
    assert found["carried_3_steps"] < 0.75
    # Without the state the first 3 of n steps are guessed: right in half of the cases.
    for steps in (15, 5):
        assert found[f"dropped_{steps}_steps"] < 1 - 0.5 * 3 / steps + 0.06
    assert found["dropped_3_steps"] < 0.56
    assert (tmp_path / "carried_15_steps/plots/memory.png").stat().st_size > 5000


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_other_cells_are_drawn_too(tmp_path: Path, cell: str) -> None:
    run(tmp_path, "+experiment=echo_rnn", f"model={cell}", "model.hidden_units=6", "data.length=600")
    assert (tmp_path / "plots/memory.png").is_file()


SHARED: dict[str, Any] = {"task": "binary", "outputs": 1, "classes": ("a", "b")}
TEXTS = Spec(input="tokens", input_shape=(0,), vocabulary=20, **SHARED)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
def test_both_directions_read_the_whole_text_and_no_padding(cell: str, layers: int) -> None:
    torch.manual_seed(0)
    model = Recurrent(TEXTS, cell=cell, hidden_units=7, layers=layers, embedding=5, bidirectional=True).eval()
    x = torch.randint(1, 20, (4, 9))
    for row, length in enumerate([9, 3, 1, 6]):
        x[row, length:] = 0
    with torch.no_grad():
        together = model(x)
        assert together.shape == (4, 1)
        for row, length in enumerate([9, 3, 1, 6]):
            torch.testing.assert_close(model(x[row : row + 1, :length]), together[row : row + 1])
        outputs = model.hidden_states(x[1:2, :3])
        ends = torch.cat([outputs[:, -1, :7], outputs[:, 0, 7:]], -1)
        torch.testing.assert_close(model.output(ends), together[1:2])
        # What stands first reaches the answer through the direction from the end as well as what stands last.
        changed = x[:1].clone()
        changed[0, 0] = changed[0, 0] % 19 + 1
        assert not torch.allclose(model(changed), together[:1])


def test_the_future_is_not_read_to_predict_it() -> None:
    text = Spec("multiclass", "tokens", (0,), 5, ("?", *"abcd"), per_step=True, stateful=True, vocabulary=5)
    with pytest.raises(UserError, match="characters that it is to predict"):
        Recurrent(text, bidirectional=True)
    echo = {"input": "series", "input_shape": (0, 1), "per_step": True, **SHARED}
    with pytest.raises(UserError, match=r"data\.stateful=false"):
        Recurrent(Spec(stateful=True, **echo), bidirectional=True)
    assert Recurrent(Spec(**echo), bidirectional=True, hidden_units=3)(torch.zeros(2, 5, 1)).shape == (
        2,
        5,
        1,
    )
