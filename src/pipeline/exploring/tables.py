"""What a person looks at first in a table: what single columns tell, what is missing, leaks, drift to the test file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.tables.alone import most_common, score_alone, some
from pipeline.data.tables.files import read_table
from pipeline.data.tables.looking import DUPLICATES
from pipeline.data.tables.reading import column_of
from pipeline.data.tables.values import Column, Table

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.tables.features import Feature
    from pipeline.data.tables.table import TableData
    from pipeline.exploring.findings import Findings

DRIFT_LEVEL = 0.01
"""Probability of calling any column of a table drifted that is not, over all columns together (Holm)."""
MOST_DRAWN = 12
METRICS = {"accuracy": "accuracy", "r2": "R²"}
"""What the scores of single columns are called."""


def look_at_table(data: TableData, findings: Findings) -> None:
    """Add what is seen in the columns of a table as they are in its file."""
    seen = Seen(data)
    findings.columns = sorted(seen.columns(), key=lambda row: -row["score"])
    findings.baseline = {"metric": seen.metric, "value": most_common(seen.y, len(data.spec.classes))}
    findings.guesses = [guess.as_dict() for guess in data.guesses]
    # Rows that occur twice are counted for every kind of data.
    twice = [guess for guess in data.guesses if guess.key == DUPLICATES]
    findings.warnings += [guess.said() for guess in data.guesses if guess.costly and guess not in twice]
    if seen.has_other_rows:
        findings.drift, findings.drift_auc = seen.drift()
        drifted = [row["column"] for row in findings.drift if row["drifted"]]
        if drifted:
            findings.warnings.append(
                f"the test rows differ from the training rows in {', '.join(drifted[:8])} (a classifier tells them "
                f"apart with an area under the ROC curve of {findings.drift_auc:.3f}; 0.5 is chance)"
            )


class Seen:
    """The columns of a table beside what is predicted, some thousand rows of them.

    Args:
        data: The data set, set up.
    """

    def __init__(self, data: TableData) -> None:
        self.data = data
        self.table = read_table(data.path, data.format_found)
        self.rows = some(data.places["train"])
        # Encoded targets of the same rows: the training split is in the file's order, unless it was oversampled.
        self.y = data.targets_of(self.table, self.rows).numpy().astype(np.float64)
        self.metric = "accuracy" if data.spec.classes else "r2"

    def column(self, feature: Feature, rows: np.ndarray | None = None, table: Table | None = None) -> Column:
        """A column as it is understood, in the training rows or in others."""
        whole = column_of(table or self.table, feature.name, feature.understood, strict=False)
        return whole.rows(self.rows if rows is None else rows)

    def columns(self) -> list[dict[str, Any]]:
        """A row for each column: what it is, how much of it is missing, how well it alone predicts the target."""
        return [
            {
                "column": feature.name,
                "kind": {"number": "number", "date": "date", "text": "category"}[feature.kind],
                "missing": float(column.missing.mean()),
                "different": len(np.unique(column.values[~column.missing])),
                "score": score_alone(column, self.y, len(self.data.spec.classes)),
            }
            for feature in self.data.encoder.features
            for column in [self.column(feature)]
        ]

    @property
    def has_other_rows(self) -> bool:
        """Whether the test rows were not drawn at random from the same file."""
        return self.data.test is not None and (
            self.data.test_path is not None or self.data.plan.way != "fraction"
        )

    def drift(self) -> tuple[list[dict[str, Any]], float]:
        """How the columns differ between training and test rows; their targets are not looked at.

        Returns:
            A row for each column, those that differ most first: Kolmogorov and Smirnov's test for numbers and dates,
            chi-squared for categories, with probabilities corrected for the number of columns (Holm 1979). And the area
            under the ROC curve of a classifier that tells training from test rows (Lopez-Paz and Oquab 2017).
        """
        table, rows = self.table, self.data.places["test"]
        if self.data.test_path is not None:
            table = self.data.test_table(self.table)
            rows = np.arange(len(table))
        rows = some(rows)
        found: list[dict[str, Any]] = []
        for feature in self.data.encoder.features:
            ours, theirs = self.column(feature), self.column(feature, rows, table)
            name, size, p = difference(ours, theirs)
            missing = float(ours.missing.mean()), float(theirs.missing.mean())
            found.append(
                {
                    "column": feature.name,
                    "test": name,
                    "difference": size,
                    "p": p,
                    "missing": f"{missing[0]:.1%} → {missing[1]:.1%}",
                }
            )
        corrected = holm([row["p"] for row in found])
        for row, p in zip(found, corrected, strict=True):
            row |= {"p": p, "drifted": p < DRIFT_LEVEL}
        return sorted(found, key=lambda row: (row["p"], -row["difference"])), self._told_apart(table, rows)

    def _told_apart(self, table: Table, rows: np.ndarray) -> float:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.model_selection import StratifiedKFold, cross_val_score

        def encoded(source: Table, places: np.ndarray) -> np.ndarray:
            dense, codes = self.data.encoder.compact(source, places)
            return np.hstack([dense.numpy(), codes.numpy().astype(np.float32)])

        x = np.vstack([encoded(self.table, self.rows), encoded(table, rows)])
        which = np.repeat([0, 1], [len(self.rows), len(rows)])
        model = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, random_state=0)
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        return float(cross_val_score(model, x, which, cv=folds, scoring="roc_auc").mean())


def difference(ours: Column, theirs: Column) -> tuple[str, float, float]:
    """How a column differs between two sets of rows.

    Returns:
        The test's name, the size of the difference (largest distance of the cumulative shares; half the sum of the
        differences of the categories' shares), and the probability of so large a one by chance.
    """
    from scipy.stats import chi2_contingency, ks_2samp

    if ours.kind != "text":
        a, b = ours.values[~ours.missing], theirs.values[~theirs.missing]
        if not len(a) or not len(b):
            return "Kolmogorov-Smirnov", float(len(a) != len(b)), 1.0 if len(a) == len(b) else 0.0
        found = ks_2samp(a, b)
        return "Kolmogorov-Smirnov", float(found.statistic), float(found.pvalue)
    a, b = (
        [str(word) for word in np.array([*column.words, ""], dtype=object)[column.values]]
        for column in (ours, theirs)
    )
    names, codes = np.unique([*a, *b], return_inverse=True)
    counts = np.stack(
        [np.bincount(part, minlength=len(names)) for part in (codes[: len(a)], codes[len(a) :])]
    )
    # Chi-squared wants at least five of each: rarer categories are counted together.
    rare = counts.sum(0) < 10
    together = np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)]) if rare.any() else counts
    together = together[:, together.sum(0) > 0]
    shares = together / together.sum(1, keepdims=True)
    size = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p = float(chi2_contingency(together).pvalue) if together.shape[1] > 1 else 1.0
    return "chi-squared", size, p


def holm(p: list[float]) -> list[float]:
    """Probabilities corrected for their number (Holm 1979): the chance of any false alarm is what it says.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(
        1, np.maximum.accumulate([(len(p) - rank) * p[place] for rank, place in enumerate(order)])
    )
    found = np.empty(len(p))
    found[order] = corrected
    return [float(value) for value in found]


def draw_by_target(data: TableData, findings: Findings, path: Path) -> Path:
    """Draw the columns that tell most, by what is predicted."""
    from matplotlib.figure import Figure

    seen = Seen(data)
    features = {feature.name: feature for feature in data.encoder.features}
    shown = [row["column"] for row in findings.columns[:MOST_DRAWN]]
    across = 3
    down = -(-len(shown) // across)
    metric = METRICS[findings.baseline["metric"]]
    figure = Figure(figsize=(10, 2.5 * down), layout="constrained")
    axes: Any = figure.subplots(down, across, squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, findings.columns[:MOST_DRAWN], strict=False):
        column = seen.column(features[row["column"]])
        axis.set_title(f"{row['column'][:30]} ({metric} {row['score']:.3f})", fontsize=9)
        axis.tick_params(labelsize=7)
        if data.spec.classes:
            _classes(axis, column, seen.y.astype(int), data.spec.classes)
        else:
            _numbers(axis, column, seen.y, data.spec.target_name)
    if data.spec.classes:
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=110)
    return path


COLOURS = ("#4878a8", "#d1611f", "#4c9a5b", "#8a5fa8", "#b0902f", "#7f7f7f")


def _classes(axis: Any, column: Column, y: np.ndarray, names: tuple[str, ...]) -> None:
    """The distribution in each of the most frequent classes."""
    common = np.argsort(-np.bincount(y, minlength=len(names)), kind="stable")[: len(COLOURS)]
    if column.kind == "text":
        words, places = _frequent(column)
        for number, (colour, label) in enumerate(zip(COLOURS, common, strict=False)):
            rows = y == label
            share = [np.mean(column.values[rows] == place) for place in places]
            width = 0.8 / len(common)
            axis.bar(
                np.arange(len(words)) + number * width, share, width, color=colour, label=names[label][:20]
            )
        axis.set_xticks(np.arange(len(words)) + 0.4 - 0.4 / len(common), words, rotation=30, ha="right")
        return
    known = column.values[~column.missing]
    low, high = np.quantile(known, [0.005, 0.995])
    bins = np.linspace(low, high if high > low else low + 1, 25)
    for colour, label in zip(COLOURS, common, strict=False):
        values = column.values[(y == label) & ~column.missing]
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values, bins, weights=weights, histtype="step", color=colour, label=names[label][:20])
    _dated(axis, column)


def _numbers(axis: Any, column: Column, y: np.ndarray, name: str) -> None:
    """The target's mean, and where eight of ten values lie, along the column."""
    if column.kind == "text":
        words, places = _frequent(column)
        groups = [y[column.values == place] for place in places]
        axis.boxplot(groups, showfliers=False, medianprops={"color": COLOURS[1]})
        axis.set_xticks(np.arange(1, len(words) + 1), words, rotation=30, ha="right")
    else:
        known = ~column.missing
        edges = np.unique(np.quantile(column.values[known], np.linspace(0, 1, 13)))
        place = np.searchsorted(edges[1:-1], column.values[known], side="right")
        used = np.unique(place)
        x = [column.values[known][place == one].mean() for one in used]
        parts = [y[known][place == one] for one in used]
        low, high = zip(*(np.quantile(part, [0.1, 0.9]) for part in parts), strict=True)
        axis.fill_between(x, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
        axis.plot(x, [part.mean() for part in parts], color=COLOURS[0], marker=".")
        _dated(axis, column)
    axis.set_ylabel(name[:20], fontsize=8)


def _dated(axis: Any, column: Column) -> None:
    if column.kind == "date":
        low, high = axis.get_xlim()
        ticks = np.linspace(low, high, 4)
        axis.set_xticks(ticks, [str(np.datetime64(int(tick), "s").astype("datetime64[D]")) for tick in ticks])


def _frequent(column: Column, most: int = 8) -> tuple[list[str], list[int]]:
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.words))
    places = [int(place) for place in np.argsort(-counts, kind="stable")[:most] if counts[place]]
    return [column.words[place][:14] for place in places], places
