"""What single columns of a table tell about the target, each alone, and what gives it away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.data.tables.values import Column

BINS = 64
MOST_WORDS = 200
FOLDS = 4
MOST_ROWS = 4000


def some(rows: np.ndarray, most: int = MOST_ROWS) -> np.ndarray:
    """At most so many of some rows, spread over all of them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def bins_of(column: Column, most: int = BINS) -> np.ndarray:
    """The bin of each row: quantiles of numbers and dates, the most frequent words; missing values have their own.

    Args:
        column: The column, of which no more than some thousand rows are needed.
        most: Number of bins for numbers.
    """
    missing = column.missing
    if column.kind == "text":
        used, codes = np.unique(column.values, return_inverse=True)
        counts = np.bincount(codes)
        kept = np.argsort(-counts, kind="stable")[:MOST_WORDS]
        place = np.full(len(used), len(kept))
        place[kept] = np.arange(len(kept))
        return np.asarray(place[codes])
    known = column.values[~missing]
    if not len(known):
        return np.zeros(len(column), dtype=np.int64)
    distinct = np.unique(known)
    if len(distinct) <= most:
        edges = distinct[1:]
    else:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, most + 1)[1:-1]))
    found = np.searchsorted(edges, np.where(missing, 0, column.values), side="right")
    found[missing] = len(edges) + 1
    return found


def score_alone(column: Column, y: np.ndarray, classes: int) -> float:
    """How well a column alone predicts the target on rows that were not learnt from (4-fold).

    Numbers are cut into bins like a tree's leaves; a single cut (for classes) or a straight line is tried as well.

    Args:
        column: The column, (rows,).
        y: Class numbers, or the numbers to predict, (rows,).
        classes: Number of classes; 0 for numbers.

    Returns:
        Accuracy, or R².
    """
    codes = bins_of(column)
    fold = np.random.default_rng(0).permutation(len(y)) % FOLDS
    right, wrong = np.zeros(FOLDS), np.zeros(FOLDS)
    for number in range(FOLDS):
        held = fold == number
        if classes:
            table = np.zeros((codes.max() + 1, classes))
            np.add.at(table, (codes[~held], y[~held].astype(int)), 1)
            common = np.bincount(y[~held].astype(int), minlength=classes).argmax()
            guess = np.where(table.sum(1) > 0, table.argmax(1), common)
            right[number] = (guess[codes[held]] == y[held]).sum()
            if column.kind != "text":
                right[number] = max(right[number], _cut_right(column.values, y.astype(int), held, classes))
            continue
        count = np.bincount(codes[~held], minlength=codes.max() + 1)
        total = np.bincount(codes[~held], weights=y[~held], minlength=codes.max() + 1)
        mean = y[~held].mean()
        # A leaf of few rows says little: it is drawn to the mean as if three more rows had it.
        leaf = (total + 3 * mean) / (count + 3)
        errors = [((leaf[codes[held]] - y[held]) ** 2).sum()]
        if column.kind != "text":
            errors.append(_line_error(column.values, y, held))
        wrong[number] = min(errors)
    if classes:
        return float(right.sum() / len(y))
    spread = ((y - y.mean()) ** 2).sum()
    return float(1 - wrong.sum() / spread) if spread else 0.0


def _cut_right(x: np.ndarray, y: np.ndarray, held: np.ndarray, classes: int) -> float:
    """How many held-out rows are right when the column is cut in two where that is best for the others."""
    fit = ~held & np.isfinite(x)
    if fit.sum() < 3:
        return 0.0
    order = np.argsort(x[fit], kind="stable")
    values, labels = x[fit][order], y[fit][order]
    below = np.cumsum(np.eye(classes)[labels], axis=0)
    above = below[-1] - below
    score = below.max(1) + above.max(1)
    # Between equal values there is no cut.
    score[:-1][values[:-1] == values[1:]] = -1
    place = int(score.argmax())
    edge = (values[place] + values[min(place + 1, len(values) - 1)]) / 2
    guess = np.where(x > edge, above[place].argmax(), below[place].argmax())
    return float((guess == y)[held].sum())


def _line_error(x: np.ndarray, y: np.ndarray, held: np.ndarray) -> float:
    known = np.isfinite(x)
    fit = known & ~held
    if fit.sum() < 3 or x[fit].std() == 0:
        return float("inf")
    slope, start = np.polyfit((x[fit] - x[fit].mean()) / x[fit].std(), y[fit], 1)
    guess = np.where(
        known, slope * (np.where(known, x, 0) - x[fit].mean()) / x[fit].std() + start, y[fit].mean()
    )
    return float(((guess - y) ** 2)[held].sum())


def most_common(y: np.ndarray, classes: int) -> float:
    """The score of predicting the most frequent class (its share), or the mean (R² 0)."""
    return float(np.bincount(y.astype(int), minlength=classes).max() / len(y)) if classes else 0.0


def gives_away(score: float, baseline: float) -> bool:
    """Whether a column that scores so well alone is hardly known before the target is."""
    return baseline < 1 and (score - baseline) / (1 - baseline) >= 0.985


def computed_from(columns: dict[str, np.ndarray], y: np.ndarray) -> list[str]:
    """The columns that the target is a weighted sum of, exactly; none where it is not.

    Args:
        columns: Columns of numbers without missing values, (rows,) each.
        y: The numbers to predict, (rows,).
    """
    names: Sequence[str] = [name for name, values in columns.items() if values.std() > 0]
    half = np.arange(len(y)) % 2 == 0
    if not names or len(y) < 4 * (len(names) + 2) or y.std() == 0:
        return []
    x = np.stack([(columns[name] - columns[name].mean()) / columns[name].std() for name in names], axis=1)
    x = np.column_stack([x, np.ones(len(y))])
    goal = (y - y.mean()) / y.std()
    weights = np.linalg.lstsq(x[half], goal[half], rcond=1e-10)[0]
    if ((x[~half] @ weights - goal[~half]) ** 2).mean() > 1e-6:
        return []
    return [name for name, weight in zip(names, weights, strict=False) if abs(weight) > 1e-3]
