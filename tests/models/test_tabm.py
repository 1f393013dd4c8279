"""TabM: the published reference on the same inputs, and what its parts promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.core.encoder import TensorEncoder
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.models.tabm import RowEmbedding, SeparateLinear, SharedLinear, TabM, quantile_edges

NUMBERS = Spec("regression", "vector", (7,), 1, target_mean=20.0, target_std=5.0)
CLASSES = Spec("multiclass", "vector", (7,), 3, ("a", "b", "c"))
YES_NO = Spec("binary", "vector", (7,), 1, ("no", "yes"))
# Three numbers (the last of them is taken as it is), then a category of four values.
LEARNT = {
    "categories": [[3, 7]],
    "edges": [[-1.0, -0.2, 0.5, 2.0], [-2.0, 0.0, 0.1, 0.3, 1.0], [], [], [], [], []],
}
SETTINGS = {"members": 4, "hidden_units": 16, "embedding": 5, "dropout": 0.0, "learnt": LEARNT}


def rows(count: int = 50) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    numbers = 2 * torch.randn(count, 3, generator=drawn)
    return torch.cat([numbers, nn.functional.one_hot(torch.arange(count) % 4, 4).float()], 1)


def with_bent_numbers(model: TabM) -> TabM:
    """As after training: the encoding's weights are no longer zero."""
    nn.init.normal_(model.embedded.weight)
    for layer in model.hidden:
        if isinstance(layer, SharedLinear):
            nn.init.normal_(layer.output_scale)
    return model


@pytest.mark.parametrize("spec", [NUMBERS, CLASSES, YES_NO], ids=lambda spec: spec.task)
def test_every_member_answers_as_in_the_published_implementation(spec: Spec) -> None:
    reference = pytest.importorskip("tabm")
    embeddings = pytest.importorskip("rtdl_num_embeddings")
    model = with_bent_numbers(TabM(spec, **SETTINGS)).train()
    bins = [torch.tensor(edges) for edges in LEARNT["edges"] if edges]
    theirs = embeddings.PiecewiseLinearEmbeddings(bins, 5, activation=False, version="B")
    backbone = reference.make_tabm_backbone(
        d_in=2 * 5 + 5,
        n_blocks=2,
        d_block=16,
        dropout=0.0,
        k=4,
        arch_type="tabm",
        start_scaling_init="normal",
        start_scaling_init_chunks=[1, 5, 5, 4],
    )
    output = reference.LinearEnsemble(16, spec.outputs, k=4)
    with torch.no_grad():
        own = model.embedded
        theirs.linear0.weight.copy_(own.slope.squeeze(1))
        theirs.linear0.bias.copy_(own.bias.squeeze(1))
        for number, edges in enumerate(bins):
            # The reference keeps the last bin in the last place, whatever the number of bins.
            last = len(edges) - 2
            theirs.linear.weight[number, :last] = own.weight[number, :last]
            theirs.linear.weight[number, -1] = own.weight[number, last]
        shared = [layer for layer in model.hidden if isinstance(layer, SharedLinear)]
        for layer, (block, *_) in zip(shared, backbone.blocks, strict=True):
            block.weight.copy_(layer.weight)
            block.r.copy_(layer.input_scale.squeeze(1))
            block.s.copy_(layer.output_scale.squeeze(1))
            block.bias.copy_(layer.bias.squeeze(1))
        output.weight.copy_(model.output.weight)
        output.bias.copy_(model.output.bias.squeeze(1))
    x = rows()
    row = torch.cat([x[:, 2:], theirs(x[:, :2]).flatten(1)], 1)
    expected = output(backbone(row.unsqueeze(1).expand(-1, 4, -1)))
    expected = expected * spec.target_std + spec.target_mean
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-4)


def test_the_encoding_counts_the_bins_below_and_the_way_in_its_own() -> None:
    edges = [0.0, 1.0, 3.0, 7.0]
    embedding = RowEmbedding(1, [], [edges], embedding=4)
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 6.0, 7.0, 11.0])
    by_hand = [[(value - low) / (high - low) for low, high in pairwise(edges)] for value in values]
    expected = np.array(by_hand)
    # Inner bins end at 0 and 1; the first goes on below, the last above the training values.
    expected[:, 1] = expected[:, 1].clip(0, 1)
    expected[:, 0] = expected[:, 0].clip(max=1)
    expected[:, 2] = expected[:, 2].clip(min=0)
    found = embedding.encoded(torch.tensor(values, dtype=torch.float32)[:, None])
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("spec", [NUMBERS, CLASSES, YES_NO], ids=lambda spec: spec.task)
def test_the_answer_is_the_members_mean(spec: Spec) -> None:
    model = with_bent_numbers(TabM(spec, **SETTINGS))
    each = model.train()(rows())
    together = model.eval()(rows())
    assert each.shape == (50, 4, spec.outputs) and together.shape == (50, spec.outputs)
    if spec.task == "regression":
        torch.testing.assert_close(together, each.mean(1))
        return
    p = each.softmax(-1).mean(1) if spec.task == "multiclass" else each.sigmoid().mean(1)
    found = model.objective.probabilities(together)
    torch.testing.assert_close(found if spec.task == "multiclass" else found[:, 1:], p)


def test_far_logits_give_finite_answers() -> None:
    model = TabM(YES_NO, **SETTINGS)
    logits = torch.tensor([[[200.0], [300.0]], [[-200.0], [-250.0]]])
    found = model.joined(logits)
    assert found.isfinite().all()
    assert found[:, 0].tolist() == pytest.approx([200 + math.log(2), -200 - math.log(2)])


def test_members_are_judged_one_by_one() -> None:
    model = TabM(NUMBERS, **SETTINGS).train()
    y = torch.linspace(10, 30, 50)
    each = model(rows()).detach()
    single = [float(model.objective.loss(each[:, member], y)) for member in range(4)]
    assert float(model.objective.loss(each, y)) == pytest.approx(np.mean(single), rel=1e-6)


def test_members_share_their_weights() -> None:
    few, many = (
        sum(p.numel() for p in TabM(NUMBERS, **{**SETTINGS, "members": k}).parameters()) for k in (1, 16)
    )
    width = 2 * 5 + 5
    # For each further member: the scales and biases of two layers, and a last layer.
    assert many - few == 15 * ((width + 16 + 16) + (16 + 16 + 16) + (16 + 1))


def test_edges_are_quantiles_of_what_is_known() -> None:
    values = np.concatenate([np.arange(1000.0), [np.nan]])
    assert quantile_edges(values, 4) == pytest.approx(np.quantile(np.arange(1000.0), [0, 0.25, 0.5, 0.75, 1]))
    assert quantile_edges(np.array([3.0, 1.0, 2.0, 3.0]), 8) == [1.0, 2.0, 3.0]
    # A number of two values needs no bend.
    assert quantile_edges(np.array([0.0, 1.0, 1.0]), 8) == []
    # Nine in ten are 0: the others are told apart all the same.
    assert quantile_edges(np.array([0.0] * 90 + list(range(1, 11))), 5) == pytest.approx([0, 2, 4, 6, 8, 10])


@pytest.mark.parametrize(("count", "asked", "bins"), [(60, 32, 2), (200, 32, 5), (2000, 32, 32), (200, 0, 0)])
def test_a_bin_holds_forty_rows_or_more(count: int, asked: int, bins: int) -> None:
    """Of few rows many bins would be learnt by heart."""
    x = torch.randn(count, 1, generator=torch.Generator().manual_seed(0))
    split = Rows(x, torch.zeros(count))
    edges = TabM.from_data(split, TensorEncoder([1]), {"bins": asked})["learnt"]["edges"]
    assert len(edges[0]) == (bins + 1 if bins else 0)


def test_sequences_and_images_are_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="rows of a table; this data is image"):
        TabM(Spec("multiclass", "image", (1, 8, 8), 3, ("a", "b", "c")))


def test_the_last_layer_is_a_linear_layer_for_each_member() -> None:
    layer = SeparateLinear(6, 2, members=3)
    x = torch.randn(3, 5, 6)
    expected = torch.stack([x[m] @ layer.weight[m] + layer.bias[m] for m in range(3)])
    torch.testing.assert_close(layer(x), expected)
