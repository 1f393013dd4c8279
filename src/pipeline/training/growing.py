"""Growing an ensemble of trees on the whole training split, until validation data stops it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.models.trees import Boosting, CatBoost, Ensemble, Forest, Trees
from pipeline.training.boosting_inside import histogram_trees
from pipeline.training.catboosting import grow_by_catboost
from pipeline.training.grown import Grown, Table, said, thinned
from pipeline.training.joining import Part, joined, part
from pipeline.training.recorder import History
from pipeline.training.stopping import Stop

log = logging.getLogger(__name__)

MOST_NODES = 10_000_000
MOST_CELLS = 20_000_000
"""Numbers that categories' own columns may come to."""
AT_ONCE = 25
"""Trees that are grown before it is looked whether the time is over, at most."""
_FIRST, _OF_THE_TIME = 2, 0.05
"""Trees before the first look where time is limited, and the share of it that may pass between two looks."""
_ROWS = 65_536
_ONE_THREAD_CELLS = 500_000
_SIGNIFICANT = 0.001
"""Chance up to which the means of categories are taken to differ."""
_PRIOR = 10.0
"""Training samples that a category's mean target is mixed with: rare categories stay near the overall mean."""


def grow(
    model: Trees, train: Rows, held_out: Rows | None, encoder: Encoder, seed: int, workers: int, stop: Stop
) -> Grown:
    """Fit the trees of ``model`` to the training split.

    Args:
        model: It holds the trees afterwards.
        train: The training split.
        held_out: The validation split, which stops boosting.
        encoder: The data's encoder, which knows its categories.
        seed: Of all that is random.
        workers: Number of threads.
        stop: Asked between two rounds.

    Raises:
        UserError: A setting does not fit trees.
    """
    _check_loss(model)
    columns = comparable(train, encoder, model)
    tables = _table(train, columns, model), None if held_out is None else _table(held_out, columns, model)
    grower: Any = grow_forest
    if isinstance(model, Boosting):
        grower = grow_by_lightgbm if _by_lightgbm(model) else grow_by_histograms
    elif isinstance(model, CatBoost):
        grower = grow_by_catboost
    ensemble: Ensemble
    found: Grown
    ensemble, found = grower(model, *tables, seed, workers, stop)
    model.hold(ensemble, columns)
    facts = {"parameters": model.leaves * model.value.shape[1], "trees": len(model.root)}
    return replace(found, facts=facts)


def comparable(train: Rows, encoder: Encoder, model: Trees) -> Tensor:
    """How the inputs become the columns that trees compare, (inputs, columns).

    The one-hot inputs of a category become one column, in which the categories stand in the order of their mean target
    in training (of their frequency, where there are more than two classes): trees split it in the middle, where
    one-hot inputs would take a split for each category. Where the means differ by no more than chance, that order would
    be noise of the training rows which trees learn, and the categories stand as they are. Boosted trees are given the
    inputs as well where there are few categories, for what is special of one.
    """
    width = model.columns.shape[0]
    blocks: list[range] = getattr(encoder, "blocks", list)()
    inside = {place for block in blocks for place in block}
    matrix = torch.zeros(width, width - len(inside) + len(blocks))
    for column, place in enumerate(place for place in range(width) if place not in inside):
        matrix[place, column] = 1.0
    if not blocks:
        return matrix
    sums, counts = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    target = train.y.double().reshape(-1)
    for rows in torch.arange(len(train)).split(_ROWS):
        x = train.take(rows)[0].double()
        counts += x.sum(0)
        sums += target[rows] @ x
    ordered = counts
    if model.spec.task != "multiclass":
        ordered = (sums + _PRIOR * target.mean()) / (counts + _PRIOR)
    squares = float((target**2).sum())
    for number, block in enumerate(blocks):
        within = slice(block.start, block.stop)
        ranks = ordered[within].argsort(stable=True).argsort()
        if model.spec.task != "multiclass" and _by_chance(sums[within], counts[within], squares):
            ranks = torch.arange(len(block))
        matrix[block.start : block.stop, width - len(inside) + number] = ranks.float()
    few = [place for block in blocks if len(block) <= model.one_hot_up_to for place in block]
    if len(few) * len(train) > MOST_CELLS:
        # They would take more memory than the table.
        return matrix
    return torch.cat([matrix, torch.eye(width)[:, few]], 1)


def _by_chance(sums: Tensor, counts: Tensor, squares: float) -> bool:
    """Whether the means of some groups may differ by chance, by the F test of an analysis of variance.

    Args:
        sums: Sum of the targets of each group.
        counts: Number of rows of each.
        squares: Sum of all squared targets.
    """
    from scipy.stats import f

    there = counts > 0
    sums, counts = sums[there], counts[there]
    groups, rows = len(counts), float(counts.sum())
    if groups < 2 or rows <= groups:
        return True
    within_means = float((sums**2 / counts).sum())
    between = (within_means - float(sums.sum()) ** 2 / rows) / (groups - 1)
    within = max((squares - within_means) / (rows - groups), 1e-300)
    return float(f.sf(between / within, groups - 1, rows - groups)) > _SIGNIFICANT


def _table(split: Rows, columns: Tensor, model: Trees) -> Table:
    """A split in memory: four bytes for each number."""
    x = np.empty((len(split), columns.shape[1]), dtype=np.float32)
    y = np.empty(len(split), dtype=np.float64)
    for rows in torch.arange(len(split)).split(_ROWS):
        inputs, targets = split.take(rows)
        place = slice(int(rows[0]), int(rows[-1]) + 1)
        x[place] = (model.normalised(inputs).flatten(1) @ columns).numpy()
        y[place] = targets.reshape(-1).double().numpy()
    known = model.spec.class_weights
    return Table(x, y, np.asarray(known)[y.astype(int)] if known else None)


def _check_loss(model: Trees) -> None:
    loss = model.objective.loss_name
    allowed = ("auto", "squared", "absolute", "huber") if model.spec.task == "regression" else ("auto",)
    if loss not in allowed:
        raise UserError(f"model.loss={loss}: trees for this task take {', '.join(allowed)}")


def _by_lightgbm(model: Boosting) -> bool:
    found = model.library != "scikit-learn" and _has_lightgbm()
    if model.extra_trees and not found:
        raise UserError("model.extra_trees=true: LightGBM alone draws thresholds at random; leave it out")
    if model.library == "scikit-learn":
        return False
    if model.library == "lightgbm" and not found:
        raise UserError(
            "model.library=lightgbm is not there: pip install lightgbm, or model.library=scikit-learn"
        )
    return found


def _has_lightgbm() -> bool:
    if find_spec("lightgbm") is None:
        return False
    try:
        import lightgbm  # noqa: F401
    except OSError as error:
        # Its compiled part needs libgomp, which some systems lack.
        log.warning("lightgbm is installed but cannot be loaded (%s); scikit-learn grows the trees", error)
        return False
    return True


def grow_forest(
    model: Forest, train: Table, validation: Table | None, seed: int, workers: int, stop: Stop
) -> tuple[Ensemble, Grown]:
    """Extremely randomised trees of scikit-learn."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    classes = model.spec.task != "regression"
    least = model.min_samples_leaf
    if least == "auto":
        least = max(1, -(-2 * len(train.y) * model.n_estimators // MOST_NODES))
    features = model.max_features
    if features == "auto":
        features = "sqrt" if classes else 1.0
    kind = ExtraTreesClassifier if classes else ExtraTreesRegressor
    criterion = {} if classes or model.objective.loss_name != "absolute" else {"criterion": "absolute_error"}
    forest = kind(
        max_features=features,
        min_samples_leaf=least,
        max_depth=model.max_depth,
        n_jobs=workers,
        random_state=seed,
        warm_start=True,
        **criterion,
    )
    note = ""
    for count in _counts(model.n_estimators, stop):
        forest.set_params(n_estimators=count)
        forest.fit(train.x, train.y, sample_weight=train.weights)
        if stop() and count < model.n_estimators:
            note = f"its time ran out after {count} of {model.n_estimators} trees"
            break
    parts = [_of_scikit_learn(tree.tree_, model, forest) for tree in forest.estimators_]
    depth = max(int(tree.tree_.max_depth) for tree in forest.estimators_)
    ensemble = joined(parts, torch.zeros(0), torch.zeros(model.spec.outputs), depth)
    return ensemble, Grown(len(forest.estimators_), note, cut=bool(note))


def _of_scikit_learn(tree: Any, model: Forest, forest: Any) -> Part:
    values = tree.value[:, 0, :]
    if model.spec.task != "regression":
        # Each class's share of the leaf; classes without a training sample have no column.
        shares = values / values.sum(1, keepdims=True)
        values = np.zeros((len(shares), len(model.spec.classes) or model.spec.outputs))
        values[:, forest.classes_.astype(int)] = shares
        if model.spec.task == "binary":
            values = values[:, 1:]
    return part(tree.feature, tree.threshold, tree.children_left, tree.children_right, values)


def grow_by_lightgbm(
    model: Boosting, train: Table, validation: Table | None, seed: int, workers: int, stop: Stop
) -> tuple[Ensemble, Grown]:
    """Boosted trees of LightGBM."""
    import lightgbm

    task, names = (
        model.spec.task,
        {"auto": "regression", "squared": "regression", "absolute": "regression_l1"},
    )
    metrics = {"regression": ["l1", "l2"], "binary": ["binary_logloss", "binary_error"]}.get(
        task, ["multi_logloss", "multi_error"]
    )
    settings = {
        "objective": names.get(model.objective.loss_name, "huber") if task == "regression" else task,
        "metric": metrics,
        "learning_rate": model.learning_rate,
        "num_leaves": model.num_leaves,
        "min_child_samples": _least(model, len(train.y)),
        "subsample": model.subsample,
        "subsample_freq": 1,
        "colsample_bytree": model.colsample_bytree,
        "reg_lambda": model.reg_lambda,
        "extra_trees": model.extra_trees,
        # Threads that wait for each other after every column cost more than they save on small data.
        "num_threads": workers if train.x.size > _ONE_THREAD_CELLS else 1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        **({"num_class": model.spec.outputs} if task == "multiclass" else {}),
    }
    seen: dict[str, dict[str, list[float]]] = {}

    def between(state: Any) -> None:
        if stop():
            raise lightgbm.callback.EarlyStopException(state.iteration, state.evaluation_result_list)

    # After the metrics of the round are recorded (20), before early stopping looks at them (30).
    between.order = 25  # type: ignore[attr-defined]
    callbacks: list[Any] = [lightgbm.record_evaluation(seen), between]
    held = lightgbm.Dataset(train.x, train.y, weight=train.weights)
    watched, called = [held], ["train"]
    if validation is not None:
        watched.append(held.create_valid(validation.x, validation.y))
        called.append("val")
        callbacks.append(
            lightgbm.early_stopping(model.early_stopping_rounds, first_metric_only=True, verbose=False)
        )
    booster = lightgbm.train(
        settings, held, model.n_estimators, valid_sets=watched, valid_names=called, callbacks=callbacks
    )
    grown = booster.current_iteration()
    history = _history(model, seen, metrics)
    best = _best(seen, metrics[0]) if validation is not None else grown
    classes = model.spec.outputs if task == "multiclass" else 1
    parts = list(_of_lightgbm(booster.model_to_string(num_iteration=best)))
    output = torch.arange(len(parts)) % classes
    ensemble = joined([one for one, _ in parts], output, torch.zeros(classes), max(deep for _, deep in parts))
    return ensemble, Grown(best, said(model, grown, best, stop), thinned(history, best), cut=stop.out_of_time)


def grow_by_histograms(
    model: Boosting, train: Table, validation: Table | None, seed: int, workers: int, stop: Stop
) -> tuple[Ensemble, Grown]:
    """Boosted trees of scikit-learn's HistGradientBoosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    classes = model.spec.task != "regression"
    loss = (
        "log_loss"
        if classes
        else {"absolute": "absolute_error"}.get(model.objective.loss_name, "squared_error")
    )
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    booster = kind(
        loss=loss,
        learning_rate=model.learning_rate,
        max_leaf_nodes=model.num_leaves,
        min_samples_leaf=_least(model, len(train.y)),
        max_features=model.colsample_bytree,
        l2_regularization=model.reg_lambda,
        early_stopping=validation is not None,
        n_iter_no_change=model.early_stopping_rounds,
        random_state=seed,
        warm_start=True,
    )
    held = {}
    if validation is not None:
        # Of classes that training does not have nothing can be learnt, and scikit-learn refuses them.
        known = np.isin(validation.y, train.y) if classes else np.ones(len(validation.y), dtype=bool)
        held = {"X_val": validation.x[known], "y_val": validation.y[known]}
    for count in _counts(model.n_estimators, stop):
        booster.set_params(max_iter=count)
        booster.fit(train.x, train.y, sample_weight=train.weights, **held)
        if stop() or booster.n_iter_ < count:
            break
    grown = booster.n_iter_
    # Its scores are negative losses, the first one before any tree.
    losses = [-float(score) for score in booster.validation_score_[1:]] if validation is not None else []
    best = int(np.argmin(losses)) + 1 if losses else grown
    trees, start = histogram_trees(booster)
    kept = [tree for round_ in trees[:best] for tree in round_]
    parts = [part(*tree[:5]) for tree in kept]
    depth = max(tree[5] for tree in kept)
    output = torch.arange(len(parts)) % len(trees[0])
    history = (
        {"val/loss": [(number, value) for number, value in enumerate(losses, 1)]}
        if classes and losses
        else {}
    )
    ensemble = joined(parts, output, torch.from_numpy(start), depth)
    return ensemble, Grown(best, said(model, grown, best, stop), thinned(history, best), cut=stop.out_of_time)


def _counts(most: int, stop: Stop) -> Iterator[int]:
    """Numbers of trees after which it is looked whether the time is over: after few where a tree takes long."""
    count, step = 0, AT_ONCE if stop.seconds is None else _FIRST
    while count < most:
        began, before = time.monotonic(), count
        count = min(most, count + step)
        yield count
        if stop.seconds is not None:
            of_a_tree = (time.monotonic() - began) / (count - before)
            step = int(np.clip(_OF_THE_TIME * stop.seconds / max(of_a_tree, 1e-9), 1, AT_ONCE))


def _least(model: Boosting, samples: int) -> int:
    """Training samples that a leaf has at least: LightGBM's 20, fewer where that would leave next to no leaves."""
    if model.min_child_samples != "auto":
        return int(model.min_child_samples)
    return int(np.clip(samples // 100, 3, 20))


def _best(seen: dict[str, dict[str, list[float]]], metric: str) -> int:
    return int(np.argmin(seen["val"][metric])) + 1


def _history(model: Boosting, seen: dict[str, dict[str, list[float]]], metrics: list[str]) -> History:
    """What LightGBM measured after each tree, under the names that other models' metrics have."""
    first, second = metrics
    history: History = {}
    for split, values in seen.items():
        if model.spec.task == "regression":
            scale = model.spec.target_std**2 or 1.0
            named = {"mae": values[first], "loss": [value / scale for value in values[second]]}
        else:
            named = {"loss": values[first], "accuracy": [1 - value for value in values[second]]}
        for name, points in named.items():
            history[f"{split}/{name}"] = [(number, value) for number, value in enumerate(points, 1)]
    return history


def _of_lightgbm(text: str) -> Iterator[tuple[Part, int]]:
    """Each tree of LightGBM's own text of a model, and its depth; of thousands JSON takes several times as long."""
    for block in text.partition("end of trees")[0].split("\nTree=")[1:]:
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        value = np.array(said["leaf_value"].split(), dtype=np.float64)
        inner = len(value) - 1
        if not inner:
            none = np.array([-1])
            yield part(none, np.zeros(1), none, none, value[:, None]), 0
            continue
        # Leaves stand behind the comparisons; there, leaf 0 is -1, leaf 1 is -2 and so on.
        left, right = (np.array(said[name].split(), dtype=np.int64) for name in ("left_child", "right_child"))
        depths = [0] * inner
        for node, below in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            for child in below:
                if child >= 0:
                    # A node is split after the one above it.
                    depths[child] = depths[node] + 1
        feature = np.array(said["split_feature"].split(), dtype=np.int64)
        threshold = np.array(said["threshold"].split(), dtype=np.float64)
        none = np.full(len(value), -1)
        left, right = (
            np.concatenate([np.where(side < 0, inner - 1 - side, side), none]) for side in (left, right)
        )
        yield (
            part(
                np.concatenate([feature, none]),
                np.concatenate([threshold, np.zeros(len(value))]),
                left,
                right,
                np.concatenate([np.zeros(inner), value])[:, None],
            ),
            max(depths) + 1,
        )
