"""Linear models solved to their minimum, by scikit-learn's Ridge and LogisticRegression."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.core.splits import RaggedRows, Rows
from pipeline.data.tables.rows import TableRows
from pipeline.errors import UserError
from pipeline.models.layers import Standardised
from pipeline.models.linear import Linear
from pipeline.training.grown import Grown

ALPHAS = tuple(10.0**power for power in range(4, -3, -1))
"""From the strongest penalty to the weakest: each solution is where the next search begins."""
_WORSE = 2
"""So many weaker penalties in a row that are worse on validation data, and the search ends."""
_MAX_ITERATIONS = 2000
_ROWS = 8192
_MOSTLY_ZEROS = 3
"""So many times as many inputs as numbers that are not 0, and a table is kept as those numbers."""
_WORDS = 2
"""Ids that are no words of the vocabulary: padding, and what is not known."""


def solve(
    model: Linear,
    train: Rows,
    held_out: Rows | None,
    stop: Callable[[], bool],
    scale: Sequence[float] | None = None,
    among: tuple[float, ...] = ALPHAS,
    precision: torch.dtype = torch.float64,
) -> Grown:
    """Give ``model`` the weights of the minimum.

    Args:
        model: With ``solver=exact``.
        train: The training split.
        held_out: The validation split, which chooses the penalty where ``alpha`` is ``auto``.
        stop: Asked between two penalties.
        scale: What stands for each word that occurs in a text, where the input is ids; None is 1.
        among: Penalties that are tried, from the strongest on.
        precision: What is computed in; 64 bits take twice as long.

    Raises:
        UserError: A setting does not fit, or the data is a sequence.
    """
    spec = model.spec
    if model.objective.loss_name not in ("auto", "squared") or (
        spec.task != "regression" and model.objective.loss_name != "auto"
    ):
        raise UserError(f"model.loss={model.objective.loss_name}: model.solver=exact has the loss auto alone")
    if spec.per_step or spec.horizon or (spec.task == "regression" and spec.outputs > 1):
        raise UserError(
            "model.solver=exact is for one target a sample; leave it out for model.solver=gradient"
        )
    y = _targets(train, spec.task == "multilabel")
    x: Any = _squares_of(model, train, y) if _in_blocks(model, train) else _inputs(model, train, precision)
    factors = np.ones(x.shape[1]) if scale is None else np.concatenate([np.zeros(_WORDS), scale])
    if scale is not None:
        x = x.multiply(factors).tocsr()
    weights = np.asarray(spec.class_weights)[y.astype(int)] if spec.class_weights else None
    alphas: tuple[float, ...] = (1.0,) if held_out is None else among
    if model.alpha != "auto":
        alphas = (float(model.alpha),)
    best, chosen, worse, untried, solver = math.inf, alphas[0], 0, 0, None
    for tried, alpha in enumerate(alphas, start=1):
        solver = _solved(solver, x, y, weights, alpha, model)
        _give(model, solver, factors)
        loss = 0.0 if held_out is None else _loss(model, held_out)
        if solver is not None and (loss < best or alpha == alphas[0]):
            best, chosen, worse = loss, alpha, 0
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        else:
            worse += 1
        if worse == _WORSE:
            break
        if stop():
            untried = len(alphas) - tried
            break
    model.load_state_dict(kept)
    note = f"solved to its minimum with alpha={chosen:g}"
    if untried:
        weaker = "a weaker penalty was" if untried == 1 else f"{untried} weaker penalties were"
        note += f"; {weaker} not tried when its time ran out"
    return Grown(1, note, facts={"alpha": chosen}, cut=bool(untried))


@dataclass(frozen=True)
class _Squares:
    """What the minimum of squared errors follows from, whatever the number of samples.

    Args:
        products: Sums over the samples of the products of two inputs, each less its mean, (inputs, inputs).
        with_target: Sums of the products of an input and the target, each less its mean, (inputs,).
        mean: Means of the inputs, (inputs,).
        target_mean: Mean of the target.
    """

    products: np.ndarray
    with_target: np.ndarray
    mean: np.ndarray
    target_mean: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.products.shape


@dataclass(frozen=True)
class _Weights:
    """A solution as scikit-learn's models have theirs."""

    coef_: np.ndarray
    intercept_: float


def _in_blocks(model: Linear, split: Rows) -> bool:
    """Whether the penalised squared error is solved from sums over blocks of samples.

    A large table's inputs never lie in memory at once then. With fewer samples than inputs, or no penalty, the sums are
    not enough.
    """
    spec = model.spec
    dense = spec.task == "regression" and not model.of_words and spec.input != "bag"
    return dense and model.alpha != 0 and len(split) > math.prod(spec.input_shape)


def _squares_of(model: Linear, split: Rows, y: np.ndarray) -> _Squares:
    width, n = math.prod(model.spec.input_shape), len(split)
    total = np.zeros(width)
    for _, block in _blocks(model, split, torch.float64):
        total += block.sum(0)
    # Sums of what is less its mean: sums of squares would lose the digits of inputs that are far from 0.
    mean, target_mean = total / n, float(y.mean())
    products, with_target = np.zeros((width, width)), np.zeros(width)
    for place, block in _blocks(model, split, torch.float64):
        block = block - mean
        products += block.T @ block
        with_target += block.T @ (y[place] - target_mean)
    return _Squares(products, with_target, mean, target_mean)


def _blocks(model: Linear, split: Rows, precision: torch.dtype) -> Iterator[tuple[slice, np.ndarray]]:
    """The inputs, so many samples at a time: which they are, and (samples, inputs)."""
    for rows in torch.arange(len(split)).split(_ROWS):
        place = slice(int(rows[0]), int(rows[-1]) + 1)
        yield place, model.normalised(split.take(rows)[0]).flatten(1).to(precision).numpy()


def _inputs(model: Linear, split: Rows, precision: torch.dtype) -> Any:
    """What the weights are multiplied by, (samples, inputs); sparse where most of it is 0."""
    from scipy import sparse

    if model.of_words:
        assert isinstance(split, RaggedRows)
        ids = (np.ones(len(split.tokens)), split.tokens.numpy(), split.indptr.numpy())
        found = sparse.csr_matrix(ids, shape=(len(split), model.spec.vocabulary))
        # Words that occur several times count as often.
        found.sum_duplicates()
        return found
    if isinstance(split, TableRows) and (kept := split.mostly_zeros(_MOSTLY_ZEROS)) is not None:
        values, places = kept
        ends = np.arange(len(split) + 1) * values.shape[1]
        numbers, indices = values.to(precision).flatten().numpy(), places.flatten().numpy()
        return sparse.csr_matrix((numbers, indices, ends), shape=(len(split), split.width))
    if model.spec.input == "bag":
        blocks = [sparse.csr_matrix(block) for _, block in _blocks(model, split, precision)]
        return sparse.vstack(blocks, format="csr")
    dense = torch.empty(len(split), math.prod(model.spec.input_shape), dtype=precision).numpy()
    for place, block in _blocks(model, split, precision):
        dense[place] = block
    return dense


def _targets(split: Rows, labels: bool) -> np.ndarray:
    """Targets (samples,), of several labels (samples, labels)."""
    y = split.y.double()
    found: np.ndarray = (y if labels else y.reshape(-1)).numpy()
    return found


def _solved(before: Any, x: Any, y: np.ndarray, weights: Any, alpha: float, model: Linear) -> Any:
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

    if isinstance(x, _Squares):
        from scipy.linalg import solve as solution

        # As Ridge does it of inputs that lie in memory.
        penalised = x.products + alpha * np.eye(len(x.products))
        coefficients = solution(penalised, x.with_target, assume_a="pos")
        return _Weights(coefficients, x.target_mean - float(x.mean @ coefficients))
    if model.spec.task == "regression":
        if not alpha:
            # Columns that follow from others, as one-hot ones do: the solution with the least weights.
            return LinearRegression().fit(x, y, sample_weight=weights)
        return Ridge(alpha=alpha).fit(x, y, sample_weight=weights)
    if y.ndim == 2:
        # Each label is a question of its own.
        before = before or [None] * y.shape[1]
        return [
            _solved(one, x, y[:, k], weights, alpha, model)
            if len(np.unique(y[:, k])) > 1
            else _always(y[:, k])
            for k, one in enumerate(before)
        ]
    if len(np.unique(y)) < 2:
        raise UserError(
            "model.solver=exact: the training rows have one class alone: there is nothing to tell apart"
        )
    solver = before or LogisticRegression(max_iter=_MAX_ITERATIONS, tol=1e-5, warm_start=True)
    # A penalty of 0 is none at all.
    solver.set_params(C=1 / alpha if alpha else math.inf)
    with _scipy_on_one_thread():
        return solver.fit(x, y, sample_weight=weights)


def _scipy_on_one_thread() -> Any:
    """L-BFGS's small sums on one thread, the products of the data on as many as there are.

    SciPy and NumPy each come with a BLAS of their own. Each time that the work goes from one to the other, the threads
    of both wait for work in the same cores: that takes five times as long as the work.
    """
    import scipy.linalg  # noqa: F401  (loads its BLAS)
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController()
    of_scipy = [
        one["filepath"]
        for one in found.info()
        if one["user_api"] == "blas" and "scipy.libs" in Path(one["filepath"]).parts
    ]
    return found.select(filepath=of_scipy).limit(limits=1)


def _always(y: np.ndarray) -> _Weights:
    """The solution for a label that all training samples have, or none."""
    return _Weights(np.zeros(1), math.log(1000) * (1 if y[0] else -1))


def _give(model: Linear, solver: Any, factors: np.ndarray) -> None:
    """The solution's weights, for the model's own outputs.

    Args:
        model: The model.
        solver: The solution.
        factors: What each input was multiplied by.
    """
    spec = model.spec
    weight = np.zeros((spec.outputs, len(factors)))
    bias = np.zeros(spec.outputs)
    if spec.task == "multilabel":
        for k, one in enumerate(solver):
            weight[k], bias[k] = np.reshape(one.coef_, -1), float(np.reshape(one.intercept_, -1)[0])
    elif spec.task == "multiclass":
        present = solver.classes_.astype(int)
        # A class that training does not have: less likely than all others by a factor of 1,000.
        least = float(np.min(solver.intercept_)) - math.log(1000)
        bias[:] = least
        if len(present) == 2:
            weight[present[1]], bias[present[1]] = solver.coef_[0], solver.intercept_[0]
            bias[present[0]] = 0.0
        else:
            weight[present], bias[present] = solver.coef_, solver.intercept_
    else:
        weight[0], bias[0] = solver.coef_.reshape(-1), float(np.asarray(solver.intercept_).reshape(-1)[0])
        if not model.of_words and isinstance(model.output, Standardised):
            weight, bias = weight / model.output.std, (bias - model.output.mean) / model.output.std
    weight = weight * factors
    with torch.no_grad():
        if model.of_words:
            model.words.weight.copy_(torch.from_numpy(weight.T))
            model.words.weight[0] = 0.0
            model.bias.copy_(torch.from_numpy(bias))
        else:
            model.output.weight.copy_(torch.from_numpy(weight))
            model.output.bias.copy_(torch.from_numpy(bias))


def _loss(model: Linear, split: Rows) -> float:
    """Mean loss on a split; for numbers the mean absolute error, which such models are judged by."""
    total = 0.0
    model.eval()
    with torch.inference_mode():
        for rows in torch.arange(len(split)).split(_ROWS):
            x, y = split.take(rows)
            logits = model(x)
            if model.spec.task == "regression":
                total += float((logits.reshape(-1) - y.reshape(-1)).abs().sum())
            else:
                total += float(model.objective.loss(logits, y)) * len(rows)
    model.train()
    return total / max(len(split), 1)
