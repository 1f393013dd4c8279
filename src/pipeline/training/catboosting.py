"""Symmetric trees grown by CatBoost, read from its own description of a model (JSON)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.models.trees import CatBoost, Ensemble
from pipeline.training.grown import Grown, Table, said, thinned
from pipeline.training.joining import Part, joined, part
from pipeline.training.recorder import History
from pipeline.training.stopping import Stop

_ONE_THREAD_ROWS = 5000
"""Training samples up to which threads cost more than they save."""


def grow_by_catboost(
    model: CatBoost, train: Table, validation: Table | None, seed: int, workers: int, stop: Stop
) -> tuple[Ensemble, Grown]:
    """Boosted symmetric trees.

    Raises:
        UserError: CatBoost is not installed, or a setting does not fit it.
        Interrupted: A signal has come.
    """
    if find_spec("catboost") is None:
        raise UserError(
            "model=catboost needs the package catboost: pip install 'hydra-lightning-pipeline[catboost]'"
        )
    import catboost

    task, loss = model.spec.task, model.objective.loss_name
    if loss not in ("auto", "squared", "absolute"):
        raise UserError(f"model.loss={loss}: CatBoost takes auto, squared or absolute")
    numbers = "MAE" if loss == "absolute" else "RMSE"
    # What numbers are judged by stops the growth, whatever it reduces.
    objective, watched = {"regression": (numbers, "MAE"), "binary": ("Logloss", "Logloss")}.get(
        task, ("MultiClass", "MultiClass")
    )
    between = _Between(stop)
    booster = catboost.CatBoost(
        {
            "loss_function": objective,
            "eval_metric": watched,
            "iterations": model.n_estimators,
            "learning_rate": model.learning_rate,
            "depth": model.depth_of_trees,
            "l2_leaf_reg": model.l2_leaf_reg,
            "random_seed": seed,
            "thread_count": workers if len(train.y) > _ONE_THREAD_ROWS else 1,
            "logging_level": "Silent",
            "allow_writing_files": False,
            **({"classes_count": model.spec.outputs} if task == "multiclass" else {}),
            **(
                {"od_type": "Iter", "od_wait": model.early_stopping_rounds, "use_best_model": True}
                if validation is not None
                else {}
            ),
        }
    )
    held = None if validation is None else catboost.Pool(validation.x, validation.y)
    pool = catboost.Pool(train.x, train.y, weight=train.weights)
    try:
        booster.fit(pool, eval_set=held, callbacks=[between])
    except catboost.CatBoostError as error:
        # All that it refuses here is data that nothing can be learnt from.
        raise UserError(f"CatBoost cannot learn from this data: {error}") from error
    if between.raised is not None:
        raise between.raised
    best = int(booster.tree_count_)
    history, grown = _history(booster.get_evals_result(), watched)
    parts, start = trees_of(described(booster), model.spec.outputs)
    deep = max(int(np.log2((len(one.child) + 1) // 2)) for one in parts)
    return joined(parts, torch.zeros(0), start, deep), Grown(
        best, said(model, grown, best, stop), thinned(history, best), cut=stop.out_of_time
    )


class _Between:
    """Asks after each tree whether to stop; what a signal raises is kept until CatBoost has returned."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.raised: BaseException | None = None

    def after_iteration(self, info: Any) -> bool:
        try:
            return not self.stop()
        except BaseException as error:
            self.raised = error
            return False


def described(booster: Any) -> dict[str, Any]:
    """A fitted model in CatBoost's own words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        booster.save_model(str(path), format="json")
        words: dict[str, Any] = json.loads(path.read_text())
    return words


def trees_of(words: dict[str, Any], outputs: int) -> tuple[list[Part], torch.Tensor]:
    """Each tree, and what every sample begins with.

    A symmetric tree of n comparisons has 2^n leaves; the number of a sample's leaf has bit i set where comparison i
    says that the column is above its border.

    Args:
        words: See :func:`described`.
        outputs: Number of outputs.
    """
    scale, bias = words["scale_and_bias"]
    columns = [feature["flat_feature_index"] for feature in words["features_info"]["float_features"]]
    parts = []
    for tree in words["oblivious_trees"]:
        splits = tree.get("splits") or []
        values = scale * np.asarray(tree["leaf_values"], dtype=np.float64).reshape(-1, outputs)
        features = [columns[split["float_feature_index"]] for split in splits]
        parts.append(_symmetric(features, [float(split["border"]) for split in splits], values))
    start = torch.as_tensor(bias if isinstance(bias, list) else [bias], dtype=torch.float32)
    return parts, start.expand(outputs).clone()


def _symmetric(features: Sequence[int], borders: Sequence[float], values: np.ndarray) -> Part:
    """A symmetric tree as nodes: level by level, the last comparison at the root."""
    depth = len(features)
    inner = 2**depth - 1
    count = 2 * inner + 1
    feature, threshold = np.zeros(count, dtype=np.int32), np.zeros(count)
    left, right = np.full(count, -1), np.full(count, -1)
    places = np.arange(inner)
    left[:inner], right[:inner] = 2 * places + 1, 2 * places + 2
    for level in range(depth):
        nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
        # The root decides the highest bit, so that the leaves stand in their own order.
        feature[nodes], threshold[nodes] = features[depth - 1 - level], borders[depth - 1 - level]
    leaves = np.zeros((count, values.shape[1]))
    leaves[inner:] = values
    return part(feature, threshold, left, right, leaves)


def _history(seen: dict[str, dict[str, list[float]]], watched: str) -> tuple[History, int]:
    """What CatBoost measured after each tree, under the names that other models' metrics have, and the trees grown."""
    history: History = {}
    name = "mae" if watched == "MAE" else "loss"
    grown = 0
    for where, values in seen.items():
        split = {"learn": "train", "validation": "val"}.get(where)
        points = values.get(watched, [])
        grown = max(grown, len(points))
        if split and points:
            history[f"{split}/{name}"] = list(enumerate(points, 1))
    return history, grown
