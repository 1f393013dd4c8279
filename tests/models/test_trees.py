"""Trees kept as tensors, against a walk from the root in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.data.core.spec import Spec
from pipeline.models import descent, trees
from pipeline.models.trees import CatBoost, Forest, Trees
from pipeline.training.catboosting import _symmetric
from pipeline.training.joining import joined, part


def walked(model: Trees, row: list[float]) -> np.ndarray:
    """What a sample is answered, comparison by comparison."""
    total = np.zeros(model.spec.outputs)
    for root in model.root.tolist():
        node = root
        while int(model.child[node]) != node:
            above = row[int(model.feature[node])] > float(model.threshold[node])
            node = int(model.child[node]) + above
        total += model.value[node].numpy()
    return total + model.start_value.numpy()


def symmetric_trees(depths: list[int], outputs: int) -> CatBoost:
    rng = np.random.default_rng(0)
    parts = [
        _symmetric(
            rng.integers(0, 5, depth).tolist(),
            rng.choice([-1.0, -0.5, 0.0, 0.25, 1.0], depth).tolist(),
            rng.normal(size=(2**depth, outputs)),
        )
        for depth in depths
    ]
    spec = Spec("regression", "vector", (5,), outputs=1)
    if outputs > 1:
        spec = Spec("multiclass", "vector", (5,), outputs=outputs, classes=tuple("abc"))
    model = CatBoost(spec)
    model.hold(joined(parts, torch.zeros(0), torch.full((outputs,), 0.5), max(depths)), torch.eye(5))
    return model.eval()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("depths", [[3], [6, 6, 6], [0, 1, 4, 2, 6], [9, 2], [12]])
def test_symmetric_trees_are_read_off_as_they_would_be_walked_through(
    depths: list[int], outputs: int
) -> None:
    model = symmetric_trees(depths, outputs)
    assert model.symmetric
    rows = np.random.default_rng(1).choice([-1.0, -0.75, 0.0, 0.25, 0.3, 2.0], (40, 5))
    answers = model(torch.from_numpy(rows).float())
    np.testing.assert_allclose(answers, [walked(model, row) for row in rows.tolist()], rtol=1e-6, atol=1e-6)

    # A large batch is taken in parts.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_CELLS", 7 * max(len(model.root), len(model.level_feature)))
        assert torch.equal(model(torch.from_numpy(rows).float()), answers)

    # Node by node the sums are the same bits; so they are from a saved model, which holds the nodes alone.
    model.symmetric = False
    assert torch.equal(model(torch.from_numpy(rows).float()), answers)
    again = CatBoost(model.spec)
    again.load_state_dict(model.state_dict())
    assert again.symmetric and torch.equal(again(torch.from_numpy(rows).float()), answers)


def test_trees_with_one_level_of_two_columns_are_walked_through() -> None:
    model = symmetric_trees([3, 3], 1)
    model.feature[2] = (model.feature[2] + 1) % 5
    changed = CatBoost(model.spec)
    changed.load_state_dict(model.state_dict())
    assert not changed.symmetric
    rows = np.random.default_rng(1).normal(size=(20, 5))
    answers = changed(torch.from_numpy(rows).float())
    np.testing.assert_allclose(answers, [walked(changed, row) for row in rows.tolist()], rtol=1e-6, atol=1e-6)


def uneven_trees(branches: int) -> Forest:
    """Trees most of whose leaves are near the root: each comparison leaves one leaf behind, and the last two."""
    rng = np.random.default_rng(0)
    parts = []
    for length in (branches, 1, 2 * branches):
        feature = np.where(np.arange(2 * length + 1) % 2 == 0, rng.integers(0, 5, 2 * length + 1), -2)
        feature[-1] = -2
        left = np.where(feature >= 0, np.arange(2 * length + 1) + 1, -1)
        values = rng.normal(size=(2 * length + 1, 1))
        right = np.where(feature >= 0, left + 1, -1)
        parts.append(part(feature, rng.normal(size=2 * length + 1), left, right, values))
    model = Forest(Spec("regression", "vector", (5,), outputs=1))
    model.hold(joined(parts, torch.zeros(0), torch.zeros(1), 2 * branches), torch.eye(5))
    return model.eval()


@pytest.mark.parametrize("pairs", [1, 50, 10_000])
def test_who_is_in_a_leaf_goes_no_further(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    model = uneven_trees(9)
    assert not model.symmetric
    monkeypatch.setattr(descent, "_PAIRS", pairs)
    rows = np.random.default_rng(1).normal(size=(40, 5))
    x = torch.from_numpy(rows).float()
    answers = model(x)
    np.testing.assert_allclose(
        3 * answers.double(), [walked(model, row) for row in x.tolist()], rtol=1e-5, atol=1e-6
    )
    assert model(x[:0]).shape == (0, 1)
    # What is exported has no number of samples in it that depends on the values.
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    assert torch.equal(program.module()(x[:7]), answers[:7])
