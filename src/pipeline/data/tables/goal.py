"""What is predicted in a table: a number, or one of some classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.tables.features import canonical
from pipeline.data.tables.values import Column, listed
from pipeline.data.tables.words import spelling
from pipeline.errors import UserError

MOST_CLASSES = 1000
MANY = 10
"""Rows from which on a class for each is no classes."""
LARGEST_TARGET = 1e15
"""Largest size of a target: the squared error of larger ones leaves float32."""


@dataclass(frozen=True)
class Goal:
    """What is predicted.

    Args:
        task: ``regression``, ``binary`` or ``multiclass``.
        classes: Names of the classes, in order; none for regression.
        name: Name of the target column.
        folds: Whether classes whose spelling differs in case or blanks alone are one.
    """

    task: Any
    classes: tuple[str, ...]
    name: str
    folds: bool = False

    def targets(self, column: Column, source: str) -> Tensor:
        """Class numbers (float32 for two classes, int64 for more), or the numbers to predict (float32).

        Raises:
            UserError: The column has a class that the training and validation rows lack.
        """
        if self.task == "regression":
            if np.abs(column.values).max() > LARGEST_TARGET:
                raise UserError(
                    f"{source}: the target {self.name!r} has values beyond ±{LARGEST_TARGET:g}; rescale it"
                )
            return torch.from_numpy(column.values.astype(np.float32))
        text = column.as_text()
        place = {name: number for number, name in enumerate(self.classes)}
        words = list(text.words)
        if self.folds:
            place, words = (
                {spelling(name): number for name, number in place.items()},
                [spelling(word) for word in words],
            )
        numbers = np.array([*(place.get(word, -1) for word in words), -1])[text.values]
        if (numbers < 0).any():
            strange = sorted({text.words[code] for code in np.unique(text.values[numbers < 0])})
            raise UserError(
                f"{source}: test rows have the {self.name!r} {listed(strange)}, which no training row has; "
                "correct or remove these rows, or split in another way (data.split, data.seed)"
            )
        return torch.from_numpy(numbers.astype(np.float32 if self.task == "binary" else np.int64))


def is_classification(target: Column, kind: str) -> bool:
    """Whether a column is predicted as a class: by ``kind``, or by the rule in :class:`TableData`."""
    if kind != "auto":
        return kind == "classification"
    if target.kind == "text" or target.truth:
        return True
    known = target.values[~target.missing]
    # Most numbers with a fraction are recognised by the first few.
    if target.kind == "date" or any((some != np.floor(some)).any() for some in (known[:1000], known)):
        return False
    distinct = len(np.unique(known))
    return distinct <= 20 and len(known) >= 5 * distinct


def find_goal(target: Column, train: np.ndarray, pool: np.ndarray, kind: str, name: str, source: str) -> Goal:
    if target.kind == "date":
        raise UserError(f"{source}: the target {name!r} holds dates; turn it into a number or a class first")
    known, learnt = target.rows(pool), target.rows(train)
    classes = is_classification(known, kind)
    if not classes and target.kind == "text":
        words = [target.words[code] for code in np.unique(known.values)[:3]]
        raise UserError(
            f"{source}: data.kind=regression, but the target {name!r} holds text ({listed(words)})"
        )
    if (learnt.values == learnt.values[0]).all():
        value = learnt.as_text().words[learnt.as_text().values[0]]
        what = "only one class" if classes else "the same value everywhere"
        gaps = int(target.missing.sum())
        advice = f"; {gaps} rows have no value: where that means something, write it there" if gaps else ""
        raise UserError(
            f"{source}: the target {name!r} has {what} in the training rows ({value!r}): nothing to learn{advice}"
        )
    if target.kind == "text" and len(known) >= MANY and len(np.unique(known.values)) == len(known):
        words = [target.words[code] for code in known.values[:3]]
        raise UserError(
            f"{source}: the target {name!r} has another text in every row ({listed(words)}): nothing to learn; "
            "expected classes, each in several rows, or numbers"
        )
    if not classes:
        return Goal("regression", (), name)
    text = known.as_text()
    used = [text.words[code] for code in np.unique(text.values)]
    if len(used) > MOST_CLASSES:
        raise UserError(
            f"{source}: the target {name!r} has {len(used)} different values, more than {MOST_CLASSES} classes; "
            "is it the column to predict? Numbers are predicted with data.kind=regression"
        )
    # Numbers in their order, not 1, 10, 2.
    if target.kind == "text":
        used.sort()
    return Goal("binary" if len(used) == 2 else "multiclass", tuple(used), name)


def one_spelling(target: Column) -> Column:
    """The target with one spelling for each class: the most frequent one."""
    if target.kind != "text":
        return target
    counts = np.bincount(target.values[target.values >= 0], minlength=len(target.words))
    words = canonical(target.words, counts.tolist())
    distinct = list(dict.fromkeys(words))
    place = {word: code for code, word in enumerate(distinct)}
    codes = np.array([*(place[word] for word in words), -1], dtype=np.int32)[target.values]
    return replace(target, values=codes, words=tuple(distinct))
