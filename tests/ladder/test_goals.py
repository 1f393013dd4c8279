"""Goal and constraints of a ladder, and figures by group, beside what was reached."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.config import config_directory
from pipeline.data.orders.own import OwnOrders
from pipeline.errors import UserError
from pipeline.evaluation.statistics import compare_hits
from pipeline.ladder.goals import check_groups, goal_lines, goal_rows, group_rows, weighed, wishes
from pipeline.ladder.rungs import Climb, Rung
from pipeline.training.gains import Interval


def climb(hit_rate: float, areas: dict[str, tuple[float, float]]) -> Climb:
    """A ladder whose model reached so much, in each area beside common sense."""
    baseline = Rung("baseline", Path(), metrics={"hit_rate_at_5": 0.3})
    final = Rung(
        "final-seed-0", Path(), metrics={"hit_rate_at_5": hit_rate}, milliseconds=12.5, bytes=3_000_000
    )
    final.gain = compare_hits([False] * 60 + [True] * 30, [True] * 80 + [False] * 10)  # type: ignore[arg-type]
    groups = [
        {"group": name, "samples": 10, "value": model, "low": 0.0, "high": 1.0, "baseline": common}
        for name, (model, common) in areas.items()
    ]
    by = {"name": "area", "metric": "hit_rate_at_5", "groups": groups}
    found = Climb("hit_rate_at_5", [baseline], final, "most ordered", final=[final], by=by)
    final.test = Interval(hit_rate, 0.0, 1.0)
    return found


def test_what_was_asked_stands_beside_what_was_reached() -> None:
    asked = wishes(
        {
            "goal": {"useful": "hit_rate_at_5 >= 0.55"},
            "constraints": {
                "fair": "worst_area >= 0.5",
                "fast": "milliseconds < 10",
                "small": "megabytes <= 5",
            },
        }
    )
    found = climb(0.6, {"north": (0.7, 0.3), "south": (0.45, 0.2)})
    assert found.confirmed
    found.goals = weighed(asked, found)
    assert [goal["met"] for goal in found.goals] == [True, False, False, True]
    assert [goal["reached"] for goal in found.goals] == [0.6, 0.45, 12.5, 3.0]
    assert goal_lines(found)[0] == "goal: useful: asked hit_rate_at_5 >= 0.55, reached 0.6: met"
    assert goal_lines(found)[1] == "constraint: fair: asked worst_area >= 0.5, reached 0.45: NOT MET"
    assert goal_rows(found)[2] == ["constraint", "fast", "milliseconds < 10", "12.5", "NO"]
    assert group_rows(found)[1] == ["south", "10", "0.4500 (0.0000 to 1.0000)", "0.2000"]


def test_a_baseline_that_is_kept_is_what_is_weighed() -> None:
    found = climb(0.6, {"north": (0.7, 0.3), "south": (0.45, 0.2)})
    found.final[0].gain = compare_hits([True] * 5, [True] * 5)  # type: ignore[arg-type]
    goal, fair, gain = weighed(
        wishes({"goal": ["hit_rate_at_5 >= 0.55", "worst_area > 0.1", "gain > 0"]}), found
    )
    assert (goal["reached"], goal["met"]) == (0.3, False) and (fair["reached"], fair["met"]) == (0.2, True)
    assert not gain["met"]


def test_the_worst_area_is_found_whatever_its_column_is_called() -> None:
    found = climb(0.6, {"north": (0.7, 0.3), "south": (0.45, 0.2)})
    found.by["name"] = "district"
    asked = wishes({"goal": ["worst_area >= 0.4", "worst_district < 0.4"]})
    assert [(goal["reached"], goal["met"]) for goal in weighed(asked, found)] == [(0.45, True), (0.45, False)]


def test_what_was_not_measured_meets_nothing() -> None:
    found = climb(0.6, {})
    found.by, found.final[0].milliseconds = {}, float("nan")
    found.goals = weighed(wishes({"constraints": ["milliseconds < 10", "seconds < 10"]}), found)
    assert [(goal["reached"], goal["met"]) for goal in found.goals] == [(None, False)] * 2
    assert goal_lines(found)[0].endswith("reached not measured: NOT MET")


def test_groups_that_the_data_does_not_have_are_refused_before_the_climb(tmp_path: Path) -> None:
    places = {"area": ["area"] * 30 + ["other"] * 30, "district": ["north", "south"] * 30}
    for column, values in places.items():
        frame = pd.DataFrame(
            {"customer": ["a", "b", "c"] * 20, "dish": ["x", "y", "z", "x"] * 15, column: values}
        )
        frame.to_csv(tmp_path / "orders.csv", index=False)
        data = OwnOrders(path=tmp_path / "orders.csv", area=column, validation_fraction=0.2)
        data.setup()
        check_groups(wishes({"goal": ["worst_area > 0", f"worst_{column} > 0", "accuracy > 0"]}), data)
        with pytest.raises(
            UserError, match=f"ladder.goal: worst_aera is not measured: .* by {column}; expected"
        ):
            check_groups(wishes({"goal": "worst_aera > 0"}), data)
    frame.drop(columns="district").to_csv(tmp_path / "orders.csv", index=False)
    nowhere = OwnOrders(path=tmp_path / "orders.csv", validation_fraction=0.2)
    nowhere.setup()
    with pytest.raises(UserError, match=r"ladder.constraints: worst_area is not measured: .* has no groups"):
        check_groups(wishes({"constraints": "worst_area > 0"}), nowhere)


def test_one_condition_needs_no_list_and_bad_ones_are_told() -> None:
    (wish,) = wishes({"goal": "accuracy > 0.9"})
    assert (wish.kind, wish.said, wish.asked) == ("goal", "", "accuracy > 0.9")
    assert wishes({}) == wishes({"goal": None, "constraints": {}}) == []
    for bad, said in (
        ("as good as it gets", "ladder.goal: .* is no condition"),
        ("milisekonds < 3", "ladder.goal: milisekonds is not measured"),
        ("accuracy > much", "expected a number behind >"),
    ):
        with pytest.raises(UserError, match=said):
            wishes({"goal": bad})


def test_what_the_shipped_ladders_ask_for_can_be_read() -> None:
    asked = 0
    for path in (config_directory() / "ladder").glob("*.yaml"):
        asked += len(wishes(yaml.safe_load(path.read_text(encoding="utf-8"))["ladder"]))
    assert asked >= 4
