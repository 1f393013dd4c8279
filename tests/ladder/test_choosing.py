"""What is said of a rung, which one is chosen, and what it costs in service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.splits import RaggedRows
from pipeline.errors import UserError
from pipeline.ladder.blending import holds_its_own
from pipeline.ladder.choosing import choose
from pipeline.ladder.costs import (
    bytes_on_disk,
    milliseconds_for_a_thousand,
    seconds_at_the_end,
    seconds_for_a_row,
    size_in_words,
)
from pipeline.ladder.report import conclusion, simplest_words
from pipeline.ladder.rungs import Climb, Rung, judge, simple_one
from pipeline.models.linear import Linear
from pipeline.runs.finished import data_of
from pipeline.runs.result import RunResult


def rung(
    name: str, judged: np.ndarray, parameters: int = 1, model: str = "MLP", unfinished: str = ""
) -> Rung:
    described = {"parameters": parameters, "class": model}
    result = RunResult(Path(), None, name, {"unit": "MPa"}, described, {}, {}, {"fit": 1.5}, 0.0, 0, None)
    result.unfinished = unfinished
    return Rung(name, Path(), result=result, validation=float(judged.mean()), judged=judged)


def hits(right: int, of: int = 400) -> np.ndarray:
    return np.arange(of) < right


@pytest.fixture
def climb() -> Climb:
    """A baseline that is right in 100 of 400 cases, and three models."""
    baseline = rung("baseline", hits(100))
    baseline.result = None
    rungs = [baseline, rung("linear", hits(340), 10, "Linear"), rung("network", hits(344), 1000)]
    rungs.append(rung("poor", hits(250), 2))
    return Climb("accuracy", rungs, rungs[2], "majority", tried=4)


def test_a_blend_is_not_chosen_over_a_rung_that_is_none_of_its_parts_and_better(climb: Climb) -> None:
    """The one that leads took too long to be fitted to folds: it is better by 94 of 400, and then by 4."""
    _, linear, network, poor = climb.rungs
    blend = rung("blend", hits(250))
    assert holds_its_own(climb, blend, [linear, network])
    assert not blend.showed
    assert not holds_its_own(climb, blend, [linear, poor])
    assert (
        "on validation rows worse than network, which is none of its parts (accuracy 0.6250" in blend.showed
    )
    blend = rung("blend", hits(340))
    assert holds_its_own(climb, blend, [linear, poor])
    assert "cannot be told apart from network" in blend.showed


def test_the_simplest_within_noise_of_the_best_is_named_and_may_be_preferred(climb: Climb) -> None:
    """Four of 400 are no difference (McNemar: p = 0.125), 94 are one."""
    _, linear, network, _ = climb.rungs
    choose(climb, "best", 0.0125)
    assert (climb.best, climb.simplest, climb.chosen) == (network, linear, network)
    assert "linear cannot be told apart from network" in simplest_words(climb)
    assert "task.prefer=simple chooses it" in simplest_words(climb)
    choose(climb, "simple", 0.0125)
    assert (climb.best, climb.simplest, climb.chosen) == (network, linear, linear)
    assert "was preferred" in simplest_words(climb)


def test_where_validation_rows_cannot_tell_models_apart_folds_of_all_rows_do(climb: Climb) -> None:
    _, linear, network, poor = climb.rungs
    # Both are right about each of the 400 validation rows; the folds of 2,000 rows differ.
    linear.judged = network.judged = hits(400)
    linear.folds, network.folds, poor.folds = hits(1950, 2000), hits(1990, 2000), hits(2000, 2000)
    climb.chosen = linear
    choose(climb, "best", 0.0125)
    assert climb.chosen is climb.best is network and climb.simplest is linear
    assert (
        "over all rows, each by models that have not seen it, accuracy 0.9950 against 0.9750"
        in network.showed
    )
    climb.chosen = linear
    choose(climb, "simple", 0.0125)
    assert climb.best is network and climb.chosen is linear


def test_folds_do_not_overrule_validation_rows_that_tell_models_apart(climb: Climb) -> None:
    _, linear, network, _ = climb.rungs
    linear.folds, network.folds = hits(1990, 2000), hits(1950, 2000)
    network.judged = hits(370)
    choose(climb, "best", 0.0125)
    assert climb.chosen is network
    # What was fitted once has no such rows, and stays as it was chosen.
    network.judged, network.folds = hits(340), np.zeros(0)
    choose(climb, "best", 0.0125)
    assert climb.chosen is network


def test_a_simpler_model_has_to_beat_the_baseline_as_surely(climb: Climb) -> None:
    climb.rungs[0].judged = hits(335)
    choose(climb, "simple", 0.0125)
    # Nine more than the baseline are a gain at the level (p = 0.004), five are none (p = 0.06).
    assert climb.chosen is climb.simplest is climb.best is climb.rungs[2]


def test_where_nothing_beats_the_baseline_there_is_nothing_to_prefer(climb: Climb) -> None:
    climb.chosen = climb.rungs[0]
    choose(climb, "simple", 0.0125)
    assert climb.best is None and climb.chosen is climb.rungs[0] and simplest_words(climb) == ""
    assert conclusion(climb).startswith("Keep the baseline")


def test_what_may_be_preferred_is_checked_before_anything_is_run() -> None:
    assert compose(["task=improve"]).task.prefer == "best"
    with pytest.raises(UserError, match=r"task\.prefer=cheap.*best, simple"):
        compose(["task=improve", "task.prefer=cheap"])


@pytest.mark.parametrize(
    ("right", "said", "chosen"),
    [
        (380, "better than linear", True),
        (343, "cannot be told apart from linear", True),
        (337, "cannot be told apart from linear", False),
        (250, "worse than linear", False),
    ],
)
def test_a_rung_is_better_only_where_the_test_says_so(
    climb: Climb, right: int, said: str, chosen: bool
) -> None:
    climb.chosen = climb.rungs[1]
    new = rung("new", hits(right), 500)
    assert judge(climb, new, 0.0125) is chosen
    assert new.showed.startswith(said)
    assert "95 % interval of the gain" in new.showed


def test_what_is_said_of_a_rung_is_said_at_level_005_and_the_choice_takes_more(climb: Climb) -> None:
    """Seven more of 400 than the baseline: p = 0.016."""
    climb.chosen = climb.rungs[0]
    new = rung("new", hits(107))
    assert not judge(climb, new, 0.0125)
    assert new.showed.startswith("beats the baseline by 1.8 points")
    assert "kept the baseline, which 4 fits are given the chance to beat" in new.showed
    assert judge(climb, new, 0.05)


def test_of_a_model_that_was_still_improving_nothing_is_said_but_that_it_is_better(climb: Climb) -> None:
    why = "it was still improving when it ended, so no verdict on this kind of model: trainer.max_epochs=20 goes on"
    climb.chosen = climb.rungs[0]
    for right, start in (
        (90, "no verdict (accuracy 0.2250 against 0.2500"),
        (300, "beats the baseline by 50.0"),
    ):
        new = rung("new", hits(right), unfinished=why)
        judge(climb, new, 0.0125)
        assert new.showed.startswith(start)
        assert (why in new.showed) is (right == 90)


def test_the_best_linear_rung_is_what_others_are_compared_with(climb: Climb) -> None:
    assert simple_one(climb) is climb.rungs[1]
    climb.rungs.append(rung("linear again", hits(341), 10, "Linear"))
    assert simple_one(climb) is climb.rungs[-1]
    del climb.rungs[-1], climb.rungs[1]
    assert simple_one(climb) is climb.rungs[1]


def test_a_texts_time_is_told_by_its_length_though_the_shortest_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{'word ' * (1 + n % 97)},{'ab'[n % 2]}" for n in range(2000)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    words = [f"data.path={tmp_path / 'texts.csv'}", "data.input=tokens", "data.batch_size=64"]
    data = data_of(compose(["data=text_csv", *words, "data.validation_fraction=0.4"]))
    assert isinstance(data.validation, RaggedRows)
    now = 0.0

    def reading(x: torch.Tensor) -> None:
        nonlocal now
        now += x.numel()

    monkeypatch.setattr("pipeline.ladder.costs.time.perf_counter", lambda: now)
    found = seconds_for_a_row(cast(Any, reading), data, data.validation)
    assert found == pytest.approx(float(data.validation.lengths().float().mean()))


def test_time_and_room_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(compose(["data=digits"]))
    model, rows = Linear(data.spec), []
    plain = Linear.forward

    def forward(self: Linear, x: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(Linear, "forward", forward)
    # A clock that goes on by a second with each look: a pass takes one, once is enough, and a few rows go before it.
    ticks = iter(range(100))
    monkeypatch.setattr("pipeline.ladder.costs.time.perf_counter", lambda: float(next(ticks)))
    took = milliseconds_for_a_thousand(model, data)
    assert took == pytest.approx(1000 * 1000 / sum(rows[1:]))
    # Before the test there is time for its rows and for those by which this is measured.
    assert seconds_at_the_end(0.01, data) == pytest.approx(0.01 * (len(data.test or ()) + 1000 + 32))
    assert data.validation is not None
    asked = len(rows)
    # The clock goes on by a second in between: so long is a row's share of up to 256.
    found = seconds_for_a_row(model, data, data.validation)
    assert len(rows) == asked + 2 and found == pytest.approx(1 / rows[-1]) and rows[-1] <= 256
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/a").write_bytes(b"x" * 1500)
    (tmp_path / "b").write_bytes(b"x" * 500)
    assert bytes_on_disk(tmp_path) == 2000
    assert [size_in_words(size) for size in (0, 2000, 3_400_000)] == ["", "2 kB", "3.4 MB"]
