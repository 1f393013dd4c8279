"""Layers in any order are the layers of torch.nn that their names say, in that order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.saved import load, save
from pipeline.models.sequential import Sequential, layer_classes

IMAGES = Spec("multiclass", "image", (1, 8, 8), 3, ("a", "b", "c"))
NUMBERS = Spec("regression", "vector", (4,), 1, target_mean=50.0, target_std=10.0)


def test_layers_stand_in_the_order_of_the_list_each_with_its_own_activation() -> None:
    model = Sequential(
        NUMBERS, [{"linear": 20}, "relu", {"dropout": 0.3}, {"linear": 5}, {"leaky_relu": 0.2}]
    )
    assert [type(layer) for layer in model.layers] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
        nn.LeakyReLU,
    ]
    first, _, dropout, second, leaky = model.layers
    assert (first.in_features, first.out_features, second.in_features) == (4, 20, 20)
    assert (dropout.p, leaky.negative_slope, model.output.in_features) == (0.3, 0.2, 5)


def test_answers_are_those_of_a_numpy_loop() -> None:
    model = Sequential(NUMBERS, [{"linear": 3}, "tanh", {"linear": 2}, "sigmoid"]).double()
    x = np.random.default_rng(0).normal(size=(5, 4))
    w = [value.detach().numpy() for value in model.parameters()]
    hidden = 1 / (1 + np.exp(-(np.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3])))
    expected = (hidden @ w[4].T + w[5]) * 10 + 50
    with torch.no_grad():
        found = model.output(model.layers(torch.from_numpy(x)))
    assert found.numpy() == pytest.approx(expected, abs=1e-9)


def test_images_are_flattened_where_the_first_linear_layer_comes_and_before_the_output() -> None:
    model = Sequential(IMAGES, [{"conv2d": [6, 3]}, "relu", {"max_pool2d": 2}, {"linear": 7}])
    assert isinstance(model.layers[3], nn.Flatten)
    assert model.layers[4].in_features == 6 * 3 * 3
    assert Sequential(IMAGES, [{"conv2d": [6, 3]}]).output.in_features == 6 * 6 * 6
    assert Sequential(IMAGES, []).output.in_features == 64


def test_a_trial_leaves_no_trace_in_the_statistics_of_a_normalisation() -> None:
    layer = Sequential(IMAGES, [{"linear": 4}, "batch_norm1d"]).layers[2]
    assert layer.num_batches_tracked == 0
    assert torch.equal(layer.running_mean, torch.zeros(4))


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model = Sequential(
        NUMBERS, [{"linear": 20}, "gelu"], loss={"_target_": "torch.nn.HuberLoss", "delta": 2.0}
    )
    save(model.eval(), VectorEncoder(list("abcd")), tmp_path)
    read = load(tmp_path).module
    x = torch.randn(6, 4)
    assert torch.equal(read(x), model(x))
    assert type(read.objective._own.module) is nn.HuberLoss  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (["rellu"], ["layers[0]=rellu", "Did you mean relu"]),
        ([{"linear": 20}, {"linaer": 5}], ["layers[1]=linaer", "linear"]),
        ([{"linear": 20, "relu": None}], ["layers[0]", "expected a name like relu"]),
        ([{"linear": {"out_feature": 3}}], ["no out_feature", "out_features"]),
        ([{"conv2d": 20}], ["Conv2d refused its settings", "kernel_size"]),
        ([{"max_pool2d": 2}], ["does not take what comes before it", "(4,)"]),
        ([{"linear": -1}], ["refused its settings"]),
        (["lstm"], ["no layer of that name"]),
        (["sequential"], ["no layer of that name"]),
        (["mse_loss"], ["no layer of that name"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place_in_the_list(layers: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        Sequential(NUMBERS, layers)
    assert all(word in str(error.value) for word in words), error.value


def test_sequences_are_refused_with_the_models_that_take_them() -> None:
    tokens = Spec("binary", "tokens", (0,), 1, ("no", "yes"), vocabulary=50)
    with pytest.raises(UserError, match=r"samples of a fixed size.*model=lstm"):
        Sequential(tokens, ["relu"])


def test_every_short_name_leads_to_a_layer_of_torch() -> None:
    classes = layer_classes()
    assert {"linear", "conv2d", "relu", "dropout", "flatten", "layernorm", "batchnorm1d", "prelu"} <= set(
        classes
    )
    assert all(issubclass(kind, nn.Module) for kind in classes.values())


def test_a_loss_by_its_class_is_that_loss() -> None:
    logits, y = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0]]), torch.tensor([0, 2])
    p = np.exp(logits.double().numpy())
    log_p = np.log(p / p.sum(1, keepdims=True))
    smooth = [0.9 * -log_p[i, t] + 0.1 * -log_p[i].mean() for i, t in enumerate((0, 2))]
    smoothed = {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1}
    assert float(Sequential(IMAGES, [], loss=smoothed).objective.loss(logits, y)) == pytest.approx(
        np.mean(smooth)
    )

    absolute = Sequential(IMAGES, [], loss={"_target_": "torch.nn.L1Loss"})
    expected = np.abs(logits.double().numpy() - np.eye(3)[[0, 2]]).mean()
    assert float(absolute.objective.loss(logits, y)) == pytest.approx(expected)

    # In the target's standard deviations, as the losses by name are.
    huber = Sequential(NUMBERS, [], loss={"_target_": "torch.nn.HuberLoss", "delta": 0.5})
    found = huber.objective.loss(torch.tensor([[50.0], [70.0]]), torch.tensor([53.0, 50.0]))
    assert float(found) == pytest.approx((0.5 * 0.3**2 + 0.5 * (2.0 - 0.25)) / 2)


def test_a_binary_loss_of_numbers_makes_outputs_probabilities() -> None:
    spec = Spec("binary", "vector", (4,), 1, ("no", "yes"))
    numbers = Sequential(spec, [], loss={"_target_": "torch.nn.MSELoss"}).objective
    logits = Sequential(spec, [], loss={"_target_": "torch.nn.BCEWithLogitsLoss"}).objective
    outputs = torch.tensor([[0.4]])
    assert float(numbers.probabilities(outputs)[0, 1]) == pytest.approx(0.4)
    assert float(logits.probabilities(outputs)[0, 1]) == pytest.approx(1 / (1 + math.exp(-0.4)))
    assert (int(numbers.decided(outputs)), int(logits.decided(outputs))) == (0, 1)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("sqared", "there is no such loss. Did you mean squared"),
        ({"_target_": "torch.nn.NLLLoss"}, "use torch.nn.CrossEntropyLoss"),
        ({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, "does not take this task"),
        ({"_target_": "torch.nn.MSELoss", "reduction": "sum"}, "expected mean"),
        ({"_target_": "torch.nn.CosineEmbeddingLoss"}, "does not take this task"),
        ({"_target_": "torch.optim.Adam"}, "not given"),
        ({"_target_": "os.system"}, "not on the list"),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused(loss: Any, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        Sequential(IMAGES, [], loss=loss).objective.loss(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
