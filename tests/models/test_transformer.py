"""The Transformer looks where it may, remembers what it is to, and is the formula that its papers give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.core.spec import Spec
from pipeline.data.text.encoders import CharacterEncoder
from pipeline.errors import UserError
from pipeline.models.generation import generate
from pipeline.models.saved import load, save
from pipeline.models.transformer import Transformer

LETTERS = ("?", *"abcdefg")
TEXT = Spec("multiclass", "tokens", (0,), 8, LETTERS, per_step=True, stateful=True, vocabulary=8)
REVIEWS = Spec("binary", "tokens", (0,), 1, ("no", "yes"), vocabulary=30)
SERIES = Spec("regression", "series", (12, 3), 2)


def made(spec: Spec, **settings: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(spec, **{"hidden_units": 16, "heads": 2, "layers": 2, "context": 6, **settings}).eval()


def test_no_step_sees_what_follows_it() -> None:
    model = made(TEXT)
    x = torch.randint(1, 8, (2, 10), generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, 6] = x[:, 6] % 7 + 1
    before, after = model(x), model(other)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_a_step_sees_as_far_back_as_its_context_in_one_block() -> None:
    model = made(TEXT, layers=1)
    x = torch.randint(1, 8, (1, 12), generator=torch.Generator().manual_seed(2))
    changes = []
    for place in range(12):
        other = x.clone()
        other[:, place] = x[:, place] % 7 + 1
        changes.append(not torch.allclose(model(x)[:, 11], model(other)[:, 11], atol=1e-7))
    assert changes == [False] * 5 + [True] * 7


@pytest.mark.parametrize("pieces", [[10], [5, 5], [1] * 10, [3, 7]])
def test_a_text_in_pieces_gives_what_it_gives_as_a_whole(pieces: list[int]) -> None:
    model = made(TEXT)
    x = torch.randint(1, 8, (3, 10), generator=torch.Generator().manual_seed(3))
    state, found = None, []
    for piece in x.split(pieces, 1):
        logits, state = model.forward_state(piece, state)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), model(x), atol=1e-5, rtol=1e-5)
    assert state.shape == (2, 3, 6, 32)


def test_a_block_is_the_formula_of_its_papers() -> None:
    """Attention with rotated queries and keys, computed place by place in NumPy."""
    model = made(TEXT, layers=1, context=100).double()
    x = torch.tensor([[3, 1, 5, 2]])
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def normed(v: np.ndarray, name: str) -> np.ndarray:
        scaled = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def turned(v: np.ndarray, place: int) -> np.ndarray:
        angle = place * 10000.0 ** (-np.arange(4) / 4)
        pairs = (v[:4] + 1j * v[4:]) * np.exp(1j * angle)
        return np.concatenate([pairs.real, pairs.imag])

    steps = w["embedding.weight"][x[0].numpy()]
    qkv = normed(steps, "blocks.0.before_attention") @ w["blocks.0.queries_keys_values.weight"].T
    qkv += w["blocks.0.queries_keys_values.bias"]
    attended = np.zeros((4, 16))
    for head in range(2):
        q, k, v = (qkv[:, part + 8 * head : part + 8 * head + 8] for part in (0, 16, 32))
        for i in range(4):
            scores = np.array([turned(q[i], i) @ turned(k[j], j) / math.sqrt(8) for j in range(i + 1)])
            weights = np.exp(scores) / np.exp(scores).sum()
            attended[i, 8 * head : 8 * head + 8] = weights @ v[: i + 1]
    steps = steps + attended @ w["blocks.0.attended.weight"].T + w["blocks.0.attended.bias"]
    up = normed(steps, "blocks.0.before_perceptron") @ w["blocks.0.perceptron.0.weight"].T
    up += w["blocks.0.perceptron.0.bias"]
    gelu = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
    steps = steps + gelu @ w["blocks.0.perceptron.2.weight"].T + w["blocks.0.perceptron.2.bias"]
    expected = normed(steps, "norm") @ w["output.weight"].T + w["output.bias"]
    assert model(x)[0].detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_padding_changes_nothing_and_the_order_of_words_does() -> None:
    model = made(REVIEWS)
    short, padded = torch.tensor([[4, 9, 2]]), torch.tensor([[4, 9, 2, 0, 0]])
    torch.testing.assert_close(model(short), model(padded), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(model(short), model(torch.tensor([[9, 4, 2]])), atol=1e-4)
    assert model(torch.zeros(1, 3, dtype=torch.long)).isfinite().all()


def test_series_and_the_rows_of_images_are_steps() -> None:
    assert made(SERIES)(torch.randn(4, 12, 3)).shape == (4, 2)
    images = Spec("multiclass", "image", (1, 8, 8), 3, ("a", "b", "c"), pixel_mean=(9.0,), pixel_std=(3.0,))
    assert made(images)(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)).shape == (4, 3)


def test_writing_with_its_memory_is_writing_without(tmp_path: Path) -> None:
    model = made(TEXT, context=4)
    written = generate(model, 30, "abc", temperature=0)
    encoder = CharacterEncoder(list(LETTERS[1:]))
    text = "abc"
    for _ in range(30):
        logits = model(encoder.ids(text)[None])[0, -1]
        logits[0] = -math.inf
        text += LETTERS[int(logits.argmax())]
    assert written == text[3:]
    save(model, encoder, tmp_path)
    assert load(tmp_path).generate("abc", 30, temperature=0) == written


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs sequences or images.*model=mlp"):
        made(Spec("binary", "vector", (4,), 1, ("no", "yes")))
    with pytest.raises(
        UserError, match=r"model.hidden_units=18: expected a multiple of 4, since model.heads=2"
    ):
        made(TEXT, hidden_units=18)
