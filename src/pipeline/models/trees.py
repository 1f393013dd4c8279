"""Decision trees as tensors: grown by scikit-learn or LightGBM, kept and asked like any other network.

A fitted ensemble is five arrays. Kept as buffers they are saved as safetensors, exported by PyTorch's exporters, served
and compared as all models are, and the library that grew them is not needed to ask them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models import descent
from pipeline.models.base import BaseModule
from pipeline.models.mlp import flat_inputs
from pipeline.models.symmetric import Levels, leaves_of, levels_of, taken
from pipeline.settings import LOSS, Flag, Number, Word

_BUFFERS = ("feature", "threshold", "child", "value", "root", "output", "start_value", "columns")
_LEVELS = ("feature", "threshold", "bit", "leaf")
_CELLS = 4_000_000
"""Samples times trees, or comparisons, that are looked at together: of a larger batch, a part at a time."""
_LEAST_PROBABILITY = 1e-4
"""What a class gets that no tree has seen in a leaf: a logarithm needs more than 0."""


@dataclass(frozen=True)
class Ensemble:
    """Trees side by side in arrays of all their nodes.

    Args:
        feature: Number of the input that each node compares, (nodes,); 0 in a leaf.
        threshold: Largest value that goes to the left, (nodes,); infinite in a leaf.
        child: Number of each node's left child, the right one is the next, (nodes,); a leaf is its own child.
        value: What a leaf adds, (nodes, 1 or outputs).
        root: Number of each tree's root, (trees,).
        output: Output that each tree adds to, (trees,); empty where leaves hold a value for each output.
        start: What every sample begins with, (outputs,).
        depth: Most comparisons from a root to a leaf.
    """

    feature: Tensor
    threshold: Tensor
    child: Tensor
    value: Tensor
    root: Tensor
    output: Tensor
    start: Tensor
    depth: int


class Trees(BaseModule):
    """An ensemble of decision trees over the columns of a table.

    It has no gradient: ``training/growing.py`` fits it to the whole training split at once.

    Attributes:
        depth: Most comparisons from a root to a leaf; 0 before the fit.
        columns: (inputs, columns) what each input adds to a column that trees compare: 1 for a number, and for the
            one-hot inputs of a column of many categories the category's rank.
    """

    feature: Tensor
    threshold: Tensor
    child: Tensor
    value: Tensor
    root: Tensor
    output: Tensor
    start_value: Tensor
    columns: Tensor
    steps: Tensor
    level_feature: Tensor
    level_threshold: Tensor
    level_bit: Tensor
    level_leaf: Tensor

    differentiable = False
    at_once: ClassVar[Mapping[str, Any] | None] = {}

    one_hot_up_to = 0
    """Categories of a column up to which trees may compare each of them beside their order."""

    mean_of_probabilities = False
    """Whether leaves hold probabilities, whose mean is the answer, instead of logits, which are added up."""

    @classmethod
    def kept(
        cls, settings: Mapping[str, Any], facts: Mapping[str, Any], rounds: int | None
    ) -> dict[str, Any] | None:
        return {"n_estimators": rounds or settings["n_estimators"]}

    def __init__(self, spec: Spec | dict[str, Any], loss: str = "auto") -> None:
        super().__init__(spec, loss)
        if self.spec.per_step or self.spec.input not in ("vector", "bag", "image"):
            raise UserError(
                f"{type(self).__name__.lower()}: trees compare the numbers of a sample; this data is {self.spec.input}"
                f"{' with a target for each step' if self.spec.per_step else ''}: model=lstm or model=mlp fit it"
            )
        if self.spec.task == "regression" and self.spec.outputs != 1:
            raise UserError(
                f"{type(self).__name__.lower()}: trees predict one number; this data has {self.spec.outputs}"
            )
        if self.spec.task == "multilabel":
            raise UserError(
                f"{type(self).__name__.lower()}: trees predict one class a sample; this data has several labels a "
                "sample: model=linear, model=cnn or model=efficientnet_lite fit it"
            )
        inputs = flat_inputs(self.spec, type(self).__name__.lower())
        for name in _BUFFERS:
            self.register_buffer(name, torch.zeros(0))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for name in _LEVELS:
            # Follows from the others: a saved model holds none of it.
            self.register_buffer(f"level_{name}", torch.zeros(0), persistent=False)
        self.symmetric = False
        self.columns = torch.eye(inputs)
        self.depth = 0

    @property
    def leaves(self) -> int:
        """Number of leaves of all trees: what was learnt is a value for each."""
        return int((self.child == torch.arange(len(self.child), device=self.child.device)).sum())

    def hold(self, grown: Ensemble, columns: Tensor) -> None:
        """Take over what was grown.

        Args:
            grown: The trees.
            columns: See the attribute.
        """
        self.feature, self.threshold = grown.feature.int(), grown.threshold.float()
        self.child, self.value = grown.child.int(), grown.value.float()
        self.root, self.output = grown.root.int(), grown.output.long()
        self.start_value, self.columns = grown.start.float(), columns.float()
        self.steps, self.depth = torch.tensor(grown.depth), grown.depth
        self._find_levels()

    def _find_levels(self) -> None:
        """Look once whether the trees are symmetric, which can be asked faster."""
        place = self.columns.device
        kept = [buffer.cpu() for buffer in (self.feature, self.threshold, self.child, self.root)]
        found = levels_of(*kept) if len(self.root) and self.depth else None
        self.symmetric = found is not None
        for name in _LEVELS:
            empty = torch.zeros(0, device=place)
            setattr(self, f"level_{name}", empty if found is None else getattr(found, name).to(place))

    def compared(self, x: Tensor) -> Tensor:
        """Inputs as trees compare them, (samples, columns)."""
        return x.float().flatten(1) @ self.columns

    def forward(self, x: Tensor) -> Tensor:
        if not len(self.root):
            return torch.zeros(x.shape[0], self.spec.outputs, device=x.device)
        samples = max(1, _CELLS // max(len(self.root), len(self.level_feature)))
        if descent.taken_whole(x) or x.shape[0] <= samples:
            return self._answers(x)
        return torch.cat([self._answers(some) for some in x.split(samples)])

    def _answers(self, x: Tensor) -> Tensor:
        outputs = self.spec.outputs
        node = self._leaves(self.compared(x))
        if len(self.output) or outputs == 1:
            # Each tree speaks for one output.
            each = taken(self.value.squeeze(-1), node)
            output = self.output if len(self.output) else torch.zeros_like(self.root, dtype=torch.int64)
            summed = each.new_zeros(outputs, x.shape[0]).index_add(0, output, each).t()
        else:
            summed = F.embedding_bag(node.t(), self.value, mode="sum")
        if not self.mean_of_probabilities:
            return summed + self.start_value
        mean = summed / len(self.root)
        if self.spec.task == "regression":
            return mean
        if self.spec.task == "binary":
            return mean.logit(_LEAST_PROBABILITY)
        return mean.clamp_min(_LEAST_PROBABILITY).log()

    def _leaves(self, x: Tensor) -> Tensor:
        """The node that each sample ends in, (trees, samples), for inputs as trees compare them."""
        if self.symmetric:
            levels = Levels(self.level_feature, self.level_threshold, self.level_bit, self.level_leaf)
            return leaves_of(x, levels)
        return descent.leaves_of(x, self.feature, self.threshold, self.child, self.root, self.depth)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Fitted trees have any number of nodes.
        for name in _BUFFERS:
            if prefix + name in state_dict:
                setattr(self, name, torch.zeros_like(state_dict[prefix + name], device=self.columns.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        # As a plain number, which exporters unroll the loop by.
        self.depth = int(self.steps)
        self._find_levels()


class Forest(Trees):
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006): many deep trees, each a little different.

    They vote by the mean of their leaves' class frequencies, or of their leaves' means.

    Args:
        spec: Description of the data.
        n_estimators: Number of trees.
        max_features: Share of the columns that each split chooses from, or ``auto``: the square root of their number
            for classes, all of them for numbers.
        min_samples_leaf: Least number of training samples in a leaf, or ``auto``: 1, and more where the trees would
            come to more than ten million nodes.
        max_depth: Most comparisons from the root to a leaf; null for any number.
        loss: For numbers ``auto`` (squared error) or ``absolute``, which takes long; for classes ``auto``.
    """

    mean_of_probabilities = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        n_estimators: Annotated[int, Number(1, whole=True)] = 500,
        max_features: Annotated[float | str, Number(0, 1, above=True, words=("auto",))] = "auto",
        min_samples_leaf: Annotated[int | str, Number(1, whole=True, words=("auto",))] = "auto",
        max_depth: Annotated[int | None, Number(1, whole=True, null=True)] = None,
        loss: Annotated[str, LOSS] = "auto",
    ) -> None:
        super().__init__(spec, loss)
        self.n_estimators, self.max_features = n_estimators, max_features
        self.min_samples_leaf, self.max_depth = min_samples_leaf, max_depth

    @classmethod
    def kept(
        cls, settings: Mapping[str, Any], facts: Mapping[str, Any], rounds: int | None
    ) -> dict[str, Any] | None:
        return {"n_estimators": settings["n_estimators"]}


class Boosting(Trees):
    """Gradient boosting (Friedman 2001): small trees, each of which mends what those before it left over.

    Grown by LightGBM (Ke et al. 2017), or by scikit-learn's HistGradientBoosting where that is not installed.

    Args:
        spec: Description of the data.
        n_estimators: Most trees (for each class); validation data stops the growth earlier.
        learning_rate: Share of each tree's values that is added.
        num_leaves: Most leaves of a tree.
        min_child_samples: Least number of training samples in a leaf, or ``auto``: 20, fewer for small data.
        subsample: Share of the training samples that each tree sees.
        colsample_bytree: Share of the columns that each tree sees.
        reg_lambda: Weight of the sum of squared leaf values that is added to the loss.
        extra_trees: Whether each column's threshold is drawn at random instead of searched, as in a forest of
            extremely randomised trees: a tree is worse, and their sum less alike. LightGBM alone does it.
        early_stopping_rounds: Number of trees without a better validation loss after which the growth stops.
        library: ``lightgbm``, ``scikit-learn``, or ``auto`` for the first that is installed.
        loss: For numbers ``auto`` (squared error), ``absolute`` or ``huber``; for classes ``auto`` (cross-entropy).
    """

    one_hot_up_to = 32

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        n_estimators: Annotated[int, Number(1, whole=True)] = 3000,
        learning_rate: Annotated[float, Number(0, 1, above=True)] = 0.05,
        num_leaves: Annotated[int, Number(2, whole=True)] = 31,
        min_child_samples: Annotated[int | str, Number(1, whole=True, words=("auto",))] = "auto",
        subsample: Annotated[float, Number(0, 1, above=True)] = 0.8,
        colsample_bytree: Annotated[float, Number(0, 1, above=True)] = 0.8,
        reg_lambda: Annotated[float, Number(0)] = 1.0,
        extra_trees: Annotated[bool, Flag()] = False,
        early_stopping_rounds: Annotated[int, Number(1, whole=True)] = 100,
        library: Annotated[str, Word(("auto", "lightgbm", "scikit-learn"))] = "auto",
        loss: Annotated[str, LOSS] = "auto",
    ) -> None:
        super().__init__(spec, loss)
        self.n_estimators, self.learning_rate, self.num_leaves = n_estimators, learning_rate, num_leaves
        self.min_child_samples, self.subsample = min_child_samples, subsample
        self.colsample_bytree, self.reg_lambda = colsample_bytree, reg_lambda
        self.extra_trees = extra_trees
        self.early_stopping_rounds, self.library = early_stopping_rounds, library


class CatBoost(Trees):
    """Ordered boosting of symmetric trees (Prokhorenkova et al. 2018): all nodes of a level compare the same column.

    Grown by CatBoost, an extra. Such trees are hard to fit to noise, so that its defaults do well on small tables.

    Args:
        spec: Description of the data.
        n_estimators: Most trees; validation data stops the growth earlier.
        learning_rate: Share of each tree's values that is added.
        depth: Comparisons from the root to a leaf.
        l2_leaf_reg: Weight of the sum of squared leaf values that is added to the loss.
        early_stopping_rounds: Number of trees without a better validation loss after which the growth stops.
        loss: For numbers ``auto`` (squared error) or ``absolute``; for classes ``auto`` (cross-entropy).
    """

    one_hot_up_to = 32

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        n_estimators: Annotated[int, Number(1, whole=True)] = 3000,
        learning_rate: Annotated[float, Number(0, 1, above=True)] = 0.05,
        depth: Annotated[int, Number(1, 12, whole=True)] = 6,
        l2_leaf_reg: Annotated[float, Number(0)] = 3.0,
        early_stopping_rounds: Annotated[int, Number(1, whole=True)] = 100,
        loss: Annotated[str, LOSS] = "auto",
    ) -> None:
        super().__init__(spec, loss)
        self.n_estimators, self.learning_rate, self.depth_of_trees = n_estimators, learning_rate, depth
        self.l2_leaf_reg, self.early_stopping_rounds = l2_leaf_reg, early_stopping_rounds
