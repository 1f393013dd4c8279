"""Losses against their formulas, starting weights against what their names promise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.cnn import CNN
from pipeline.models.layers import ACTIVATIONS
from pipeline.models.linear import Linear
from pipeline.models.mlp import MLP
from pipeline.models.saved import model_class

CLASSES = Spec("multiclass", "vector", (4,), 3, ("a", "b", "c"))
YES_NO = Spec("binary", "vector", (4,), 1, ("no", "yes"))
NUMBERS = Spec("regression", "vector", (4,), 1)
IMAGES = Spec("multiclass", "image", (1, 8, 8), 3, ("a", "b", "c"), pixel_mean=(100.0,), pixel_std=(50.0,))

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0], [1.0, 1.0, 4.0], [-3.0, 0.2, 0.1]])
TARGETS = torch.tensor([0, 2, 2, 1])
WEIGHTS = (0.5, 2.0, 1.5)


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    values = logits.double().numpy()
    return np.asarray(values - np.log(np.exp(values).sum(1, keepdims=True)))


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("loss", ["auto", "focal", "squared"])
def test_losses_of_classes(loss: str, weights: tuple[float, ...]) -> None:
    log_p = log_softmax(LOGITS)[range(4), TARGETS]
    own = np.array([weights[y] for y in TARGETS]) if weights else np.ones(4)
    expected = {
        "auto": -(own * log_p).sum() / own.sum(),
        "focal": -(own * (1 - np.exp(log_p)) ** 2 * log_p).mean(),
        "squared": ((LOGITS.double().numpy() - np.eye(3)[TARGETS]) ** 2).mean(),
    }
    module = Linear(replace(CLASSES, class_weights=weights), loss=loss)
    assert float(module.objective.loss(LOGITS, TARGETS)) == pytest.approx(expected[loss], rel=1e-5)


@pytest.mark.parametrize("weights", [(), (0.25, 1.75)])
@pytest.mark.parametrize("loss", ["auto", "focal", "squared"])
def test_losses_of_yes_and_no(loss: str, weights: tuple[float, ...]) -> None:
    logits, y = torch.tensor([[1.5], [-0.5], [0.2]]), torch.tensor([1.0, 1.0, 0.0])
    z = logits[:, 0].double().numpy()
    p = 1 / (1 + np.exp(-z))
    log_p = np.log(np.where(y == 1, p, 1 - p))
    own = np.array([weights[int(label)] for label in y]) if weights else np.ones(3)
    expected = {
        "auto": -(own * log_p).mean(),
        "focal": -(own * (1 - np.exp(log_p)) ** 2 * log_p).mean(),
        "squared": ((z - y.numpy()) ** 2).mean(),
    }
    module = Linear(replace(YES_NO, class_weights=weights), loss=loss)
    assert float(module.objective.loss(logits, y)) == pytest.approx(expected[loss], rel=1e-5)


@pytest.mark.parametrize("loss", ["auto", "absolute", "huber"])
@pytest.mark.parametrize("std", [1.0, 4.0])
def test_losses_of_numbers_are_in_standard_deviations_of_the_target(loss: str, std: float) -> None:
    predicted, y = torch.tensor([[1.0], [9.0], [-2.0]]), torch.tensor([[2.0], [1.0], [-2.5]])
    error = np.array([1.0, 8.0, 0.5]) / std
    huber = np.where(error <= 1, error**2 / 2, error - 0.5)
    expected = {"auto": (error**2).mean(), "absolute": error.mean(), "huber": huber.mean()}
    module = Linear(replace(NUMBERS, target_mean=1.0, target_std=std), loss=loss)
    assert float(module.objective.loss(predicted, y)) == pytest.approx(expected[loss], rel=1e-6)


def test_unknown_targets_of_a_sequence_are_left_out() -> None:
    spec = Spec("multiclass", "tokens", (0,), 3, ("", "a", "b"), per_step=True, vocabulary=3)
    from pipeline.models.recurrent import Recurrent

    module = Recurrent(spec, hidden_units=4)
    y = torch.tensor([[0, -1], [2, 1]])
    logits = LOGITS.view(2, 2, 3)
    known = log_softmax(LOGITS)[[0, 2, 3], [0, 2, 1]]
    assert float(module.objective.loss(logits, y)) == pytest.approx(-known.mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("he_normal", math.sqrt(2 / 400)),
        ("he_uniform", math.sqrt(2 / 400)),
        ("glorot_normal", math.sqrt(2 / (400 + 300))),
        ("glorot_uniform", math.sqrt(2 / (400 + 300))),
        ("normal", 0.05),
        ("zeros", 0.0),
    ],
)
def test_initializers_have_the_deviation_of_their_formula(name: str, std: float) -> None:
    torch.manual_seed(0)
    module = MLP(replace(CLASSES, input_shape=(400,)), hidden_units=[300], initializer=name)
    weights = module.hidden[0].weight.detach()
    assert weights.shape == (300, 400)
    assert float(weights.std()) == pytest.approx(std, rel=0.02)
    assert float(weights.abs().max()) <= (math.sqrt(3) * std * 1.001 if "uniform" in name else 10 * std)
    assert not module.hidden[0].bias.any()


def test_starting_values_win_and_wrong_ones_say_what_there_is() -> None:
    values = [[1.0, 2.0, 3.0, 4.0]]
    module = Linear(NUMBERS, initializer="zeros", start={"output.weight": values})
    assert module.output.weight.tolist() == values
    assert module.output.bias.tolist() == [0.0]
    with pytest.raises(UserError, match=r"output\.bias.*output\.weight"):
        Linear(NUMBERS, start={"weights": values})
    with pytest.raises(UserError, match=r"shape \(1, 3\), not \(1, 4\)"):
        Linear(NUMBERS, start={"output.weight": [[1.0, 2.0, 3.0]]})
    with pytest.raises(UserError, match="he_normal"):
        Linear(NUMBERS, initializer="lecun")


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_pooling_first_changes_nothing(activation: str) -> None:
    torch.manual_seed(0)
    module = CNN(IMAGES, channels=[3], kernel_size=3, hidden_units=5, activation=activation).eval()
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    convolution = module.convolutions[0]
    with torch.no_grad():
        activated = ACTIVATIONS[activation]()(convolution((images.float() - 100) / 50))
        expected = torch.nn.functional.max_pool2d(activated, 2)
        found = module.convolutions(module.normalised(images))
    torch.testing.assert_close(found, expected)


def test_images_are_normalised_inside_the_model() -> None:
    module = Linear(IMAGES, start={"output.weight": [[1.0] * 64] * 3})
    images = torch.full((1, 1, 8, 8), 150, dtype=torch.uint8)
    logits = module(images) - module.output.bias
    # (150 − 100) / 50 = 1 for each of 64 pixels.
    torch.testing.assert_close(logits, torch.full((1, 3), 64.0))


@pytest.mark.parametrize(
    ("cls", "spec", "advice"),
    [
        (CNN, CLASSES, "model=mlp"),
        (MLP, Spec("binary", "tokens", (0,), 1, ("no", "yes"), vocabulary=9), "model=lstm"),
    ],
)
def test_a_model_that_does_not_fit_the_data_names_one_that_does(cls: Any, spec: Spec, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        cls(spec)


def test_widths_as_a_list_or_as_a_number_of_layers() -> None:
    listed, counted = MLP(CLASSES, hidden_units=[6, 6]), MLP(CLASSES, hidden_units=6, layers=2)
    assert [p.shape for p in listed.parameters()] == [p.shape for p in counted.parameters()]
    with pytest.raises(UserError, match="hidden_units"):
        MLP(CLASSES, hidden_units=[6, 6], layers=3)
    with pytest.raises(UserError, match="relu"):
        MLP(CLASSES, activation="reluu")


def test_only_models_of_this_project_are_loaded_by_name() -> None:
    assert model_class("pipeline.models.cnn.CNN") is CNN
    for name in ("subprocess.Popen", "torch.nn.Linear", "pipeline.models.layers.Standardised"):
        with pytest.raises(UserError):
            model_class(name)
