"""Plots show the numbers they are given; read back from the figures, the files decoded."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipeline import drawing
from pipeline.data.teaching import plots as teaching_plots
from pipeline.evaluation.statistics import calibration_error
from pipeline.reports import convolutions as convolution_plots
from pipeline.reports import curves, plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the test's plots drew, in order."""
    drawn: list[Figure] = []
    save = drawing.save

    def keep(figure: Figure, path: Path) -> Path:
        drawn.append(figure)
        return save(figure, path)

    for module in (curves, plots, teaching_plots, convolution_plots):
        monkeypatch.setattr(module, "save", keep)
    monkeypatch.setitem(drawing.STYLE, "savefig.dpi", 30)
    return drawn


def decoded(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        image.load()
        return np.asarray(image.convert("L"))


def line(axis: Any, label: str) -> Any:
    return next(line for line in axis.lines if line.get_label() == label)


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for axis in figure.axes for text in (*axis.texts, axis.title))


def test_learning_curves_show_every_value_and_the_best_epoch(tmp_path: Path, figures: list[Figure]) -> None:
    history = {
        "train/loss": [(1, 1.0), (2, 0.5), (3, 0.2)],
        "val/loss": [(1, 1.1), (2, 0.7), (3, 0.9)],
        "val/accuracy": [(1, 0.5), (2, 0.8), (3, 0.7)],
        "learning_rate": [(1, 0.1)],
    }
    path = curves.learning_curves(history, 2, tmp_path / "sub" / "curves.png", title="a run")
    assert decoded(path).std() > 0
    loss, accuracy = figures[0].axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    assert line(loss, "training").get_xydata().tolist() == [[1, 1.0], [2, 0.5], [3, 0.2]]
    assert line(loss, "validation").get_xydata().tolist() == [[1, 1.1], [2, 0.7], [3, 0.9]]
    assert [text.get_label() for text in accuracy.lines] == ["validation", "best: epoch 2 (0.8)", "_child2"]
    assert accuracy.lines[2].get_xydata().tolist() == [[2, 0.8]]


def test_learning_curves_of_an_interrupted_run(tmp_path: Path, figures: list[Figure]) -> None:
    curves.learning_curves({}, None, tmp_path / "none.png")
    assert "no epoch was finished" in texts(figures[0])
    curves.learning_curves(
        {"train/loss": [(1, math.nan), (2, 1.0)], "val/loss": []}, 5, tmp_path / "half.svg"
    )
    assert (tmp_path / "half.svg").read_text().startswith("<?xml")


def test_rates_are_no_learning_curves(tmp_path: Path, figures: list[Figure]) -> None:
    recorded = ("train/lr", "train/samples_per_second", "train/loss", "train/accuracy")
    curves.learning_curves({name: [(1, 1.0)] for name in (*recorded, "val/f1")}, None, tmp_path / "x.png")
    assert [axis.get_title() for axis in figures[0].axes] == ["loss", "f1"]
    curves.learning_curves({name: [(1, 1.0)] for name in recorded}, None, tmp_path / "x.png")
    assert [axis.get_title() for axis in figures[1].axes] == ["loss", "accuracy"]


def test_comparison_has_a_curve_for_each_variant(tmp_path: Path, figures: list[Figure]) -> None:
    variants = {f"variant {number}": [(1, 0.1 * number), (2, 0.2 * number)] for number in range(12)}
    curves.comparison_curves({**variants, "empty": []}, "val/accuracy", tmp_path / "x.png", baseline=0.4)
    axis = figures[0].axes[0]
    for number in range(12):
        drawn = line(axis, f"variant {number} ({0.2 * number:.4g})")
        assert drawn.get_ydata().tolist() == [0.1 * number, 0.2 * number]
    looks = {(drawn.get_color(), drawn.get_linestyle()) for drawn in axis.lines[:12]}
    assert len(looks) == 12
    assert line(axis, "baseline (0.4)").get_ydata() == [0.4, 0.4]
    assert line(axis, "empty (nothing recorded)").get_ydata().tolist() == []


def test_folds_are_averaged_over_the_epochs_all_have(tmp_path: Path, figures: list[Figure]) -> None:
    folds = {0: [(1, 4.0), (2, 2.0), (3, 1.0)], 1: [(1, 6.0), (2, 3.0)]}
    curves.fold_curves(folds, "val/mae", tmp_path / "x.png")
    axis = figures[0].axes[0]
    assert line(axis, "average").get_xydata().tolist() == [[1, 5.0], [2, 2.5]]
    assert line(axis, "best average: 2.5, epoch 2").get_ydata().tolist() == [2.5]
    assert line(axis, "fold 0").get_xydata().tolist() == [[1, 4.0], [2, 2.0], [3, 1.0]]
    curves.fold_curves(folds, "val/accuracy", tmp_path / "y.png")
    assert line(figures[1].axes[0], "best average: 5, epoch 1")
    curves.fold_curves({}, "val/mae", tmp_path / "z.png")
    assert "no epoch" in texts(figures[2])
    curves.fold_curves(folds, "val/of_the_users_own", tmp_path / "u.png")
    assert not any("best" in drawn.get_label() for drawn in figures[3].axes[0].lines)


@pytest.mark.parametrize("classes", [2, 10, 46])
def test_confusion_matrix_shows_all_counts_and_names(
    tmp_path: Path, figures: list[Figure], classes: int
) -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 50, (classes, classes)) * (random.random((classes, classes)) < 8 / classes)
    counts[1] = 0
    names = [f"class {number} $" for number in range(classes)]
    plots.confusion_matrix(counts, names, tmp_path / "x.png")
    axis = figures[0].axes[0]
    written = np.zeros_like(counts)
    for text in axis.texts:
        column, row = text.get_position()
        written[int(row), int(column)] = int(text.get_text())
    assert (written == counts).all()
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    shares = axis.images[0].get_array()
    assert np.allclose(shares, counts / np.maximum(counts.sum(1, keepdims=True), 1))
    assert f"{np.trace(counts) / counts.sum():.2%}" in axis.get_title()
    assert max(figures[0].get_size_inches()) < 16


def test_most_wrong_are_the_surest_errors(tmp_path: Path, figures: list[Figure]) -> None:
    images = np.arange(6)[:, None, None] * np.ones((6, 4, 5), dtype=np.uint8)
    plots.most_wrong(
        images,
        true=[0, 0, 1, 1, 0, 1],
        predicted=[1, 0, 0, 0, 1, 1],
        confidence=[0.6, 0.99, 0.9, 0.7, 0.8, 1.0],
        class_names=["no", "yes"],
        path=tmp_path / "x.png",
        limit=3,
    )
    axis = figures[0].axes[0]
    assert [text.get_text() for text in axis.texts] == ["yes → no (90%)", "no → yes (80%)", "yes → no (70%)"]
    assert [float(image.get_array()[0, 0]) for image in axis.images] == [2, 4, 3]
    # Each below its words, as wide to its height as it is, beside the next and apart from it.
    places = [image.get_extent() for image in axis.images]
    for (left, right, bottom, top), words in zip(places, axis.texts, strict=True):
        assert (right - left) / (top - bottom) == pytest.approx(5 / 4)
        assert words.get_position() == pytest.approx(((left + right) / 2, top + 0.08))
    assert all(first[1] < second[0] for first, second in pairwise(places))


def test_most_wrong_takes_colour_images_of_either_layout_and_no_errors(
    tmp_path: Path, figures: list[Figure]
) -> None:
    last = np.random.default_rng(0).random((1, 8, 9, 3))
    first = last.transpose(0, 3, 1, 2)
    for number, images in enumerate((last, first, last[..., :1])):
        plots.most_wrong(images, [0], [1], [0.5], ["a" * 30, "b"], tmp_path / f"{number}.png")
    shown = [figure.axes[0].images[0].get_array() for figure in figures]
    assert np.allclose(shown[0], shown[1])
    assert shown[2].shape == (8, 9)
    assert "aaa…" in texts(figures[0])
    plots.most_wrong(last, [1], [1], [0.5], ["a", "b"], tmp_path / "none.png")
    assert "no sample was wrong" in texts(figures[3])


def test_weights_are_shown_on_one_symmetric_scale(tmp_path: Path, figures: list[Figure]) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(32, 2, 5, 5))
    plots.filters(weights, tmp_path / "filters.png")
    images = [axis.images[0] for axis in figures[0].axes[:32]]
    assert np.allclose([image.get_array() for image in images], weights.mean(1))
    assert {image.get_clim() for image in images} == {
        (-np.abs(weights.mean(1)).max(), np.abs(weights.mean(1)).max())
    }
    linear = random.normal(size=(3, 12))
    plots.linear_weights(linear, (3, 4), ["a", "b", "c"], tmp_path / "linear.png")
    assert [axis.get_title() for axis in figures[1].axes[:3]] == ["a", "b", "c"]
    assert np.allclose(figures[1].axes[1].images[0].get_array(), linear[1].reshape(3, 4))
    plots.filters(np.zeros((1, 1, 3, 3)), tmp_path / "zeros.png")


def test_convolutions_show_each_filter_above_what_it_finds(tmp_path: Path, figures: list[Figure]) -> None:
    random = np.random.default_rng(0)
    first = ("first", random.normal(size=(12, 1, 3, 3)), random.normal(size=(12, 8, 8)))
    second = ("second", random.normal(size=(2, 12, 3, 3)), random.normal(size=(2, 4, 4)))
    convolution_plots.convolutions(random.random((1, 8, 8)), [first, second], tmp_path / "x.png")
    shown = [[axis.images[0].get_array() for axis in part.axes] for part in figures[0].subfigs]
    assert [len(part) for part in shown] == [1, 16, 1, 4]
    assert np.allclose(shown[1][3], first[1][3].mean(0))
    assert np.allclose(shown[1][8 + 3], first[2][3])
    assert np.allclose(shown[3][3], second[2][1])


def test_decision_boundary_shows_points_and_who_is_right(tmp_path: Path, figures: list[Figure]) -> None:
    points = np.array([[0.0, 1.0], [0.2, 2.0], [3.0, 0.0], [1.0, 0.5]])
    teaching_plots.decision_boundary(
        points, [0, 0, 1, 0], lambda x: (x[:, 0] > x[:, 1]).astype(int), tmp_path / "x.png"
    )
    axis = figures[0].axes[0]
    assert axis.get_title() == "75.00% of 4 points on their side"
    scatters = {
        item.get_label(): item.get_offsets() for item in axis.collections if item.get_label()[0] != "_"
    }
    assert np.allclose(scatters["class 0"], points[[0, 1, 3]])
    assert np.allclose(scatters["class 1"], points[[2]])
    teaching_plots.decision_boundary(
        points, [0, 0, 0, 0], lambda x: np.zeros(len(x)), tmp_path / "y.png", ["only"]
    )


def test_echo_marks_the_wrong_bits(tmp_path: Path, figures: list[Figure]) -> None:
    inputs, echo = np.array([1, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 0])
    prediction = np.array([0.1, 0.7, 0.2, 0.9, 0.4])
    teaching_plots.series_echo(inputs, echo, prediction, tmp_path / "x.png", delay=3)
    top, middle, bottom = figures[0].axes
    assert top.get_title() == "echo, 3 steps later: 1 of 5 bits wrong (▼)"
    assert [axis.lines[0].get_ydata().tolist() for axis in (top, middle, bottom)] == [
        inputs.tolist(),
        echo.tolist(),
        prediction.tolist(),
    ]
    assert bottom.lines[1].get_xdata().tolist() == [1]


def test_regression_scatter_states_the_error(tmp_path: Path, figures: list[Figure]) -> None:
    plots.regression_scatter(
        np.array([1.0, 2.0, 5.0]), np.array([2.0, np.nan, 8.0]), tmp_path / "x.png", "price", "k$"
    )
    axis = figures[0].axes[0]
    assert axis.get_title() == "mean absolute error 2 k$, 2 samples"
    assert axis.collections[0].get_offsets().tolist() == [[1.0, 2.0], [5.0, 8.0]]
    assert axis.get_xlabel() == "true price (k$)"
    plots.regression_scatter(np.array([]), np.array([]), tmp_path / "y.png")
    assert "no prediction" in texts(figures[1])


def test_calibration_compares_confidence_with_what_is_right(tmp_path: Path, figures: list[Figure]) -> None:
    confidence = np.array([0.62, 0.64, 0.95, 0.95, 1.0, 0.93])
    correct = np.array([1, 0, 1, 1, 1, 0])
    by_hand = (2 * abs(0.63 - 0.5) + 4 * abs(0.9575 - 0.75)) / 6
    assert calibration_error(confidence, correct, bins=10) == pytest.approx(by_hand)
    curves.calibration_curve(confidence, correct, tmp_path / "x.png", by_hand, bins=10)
    axis, below = figures[0].axes
    assert np.allclose(line(axis, "model").get_xydata(), [[0.63, 0.5], [0.9575, 0.75]])
    assert axis.get_title() == f"expected calibration error {by_hand:.4f}"
    assert [bar.get_height() for bar in below.patches] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 4]


def test_areas_under_curves(tmp_path: Path, figures: list[Figure]) -> None:
    positive, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    curves.roc_curve(positive, score, tmp_path / "roc.png")
    # Of the four pairs of a positive and a negative sample, three are in order.
    assert figures[0].axes[0].get_title() == "area under the curve 0.7500"
    curves.precision_recall_curve(positive, score, tmp_path / "pr.png")
    assert figures[1].axes[0].get_title() == f"average precision {(1 + 2 / 3) / 2:.4f}"
    assert line(figures[1].axes[0], "chance").get_ydata().tolist() == [0.5, 0.5]
    for plot in (curves.roc_curve, curves.precision_recall_curve):
        plot(np.ones(3), np.ones(3), tmp_path / "one.png")
    assert all("only one class" in texts(figure) for figure in figures[2:])


def test_weights_and_answers_are_drawn_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[tuple[str, list[float]]]] = {}

    def kept(figure: Any, path: Path) -> Path:
        for axis in figure.axes:
            lines = [(str(line.get_label()), line.get_ydata().tolist()) for line in axis.lines]
            drawn[axis.get_title()] = lines
        return path

    monkeypatch.setattr(curves, "save", kept)
    history = {
        "train/loss": [(1, 9.0), (2, 4.0)],
        "weights/output.weight/0/0": [(10, 1.5), (20, 1.9)],
        "prediction/7": [(10, 11.0), (20, 13.5)],
    }
    assert curves.watched_curves(history, tmp_path / "a.png") == tmp_path / "a.png"
    assert drawn == {"weights": [("output.weight/0/0", [1.5, 1.9])], "answers": [("f(7)", [11.0, 13.5])]}
    many = {f"weights/{number}": [(1, 1.0)] for number in range(30)}
    assert curves.watched_curves(many, tmp_path / "b.png") is None


def test_a_learning_rate_that_stays_the_same_is_no_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []

    def kept(figure: Any, path: Path) -> Path:
        drawn.append([axis.get_title() for axis in figure.axes])
        return path

    monkeypatch.setattr(curves, "save", kept)
    loss = {"step/loss": [(1, 2.0), (2, 1.0)]}
    for rates in ([(1, 0.1), (2, 0.1)], [(1, 0.1), (2, 0.05)]):
        curves.step_curves({**loss, "step/lr": rates}, tmp_path / "a.png")
    assert drawn == [["training loss"], ["training loss", "learning rate"]]
