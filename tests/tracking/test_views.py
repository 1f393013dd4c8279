"""The saved view of an experiment: which columns, in which order; and names that are never alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.tracking import Run
from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.mlflow_inside import SHARED_VIEW
from pipeline.tracking.queries import Store
from pipeline.tracking.store import open_client
from pipeline.tracking.views import LEADERBOARD, UNCOMPARED_TAG, differing, objective_tags, sweep_key, view

Start = Callable[..., Run]
Deliver = Callable[..., Delivery]


def test_two_studies_never_share_a_view() -> None:
    names = ["a.b", "a-b", "a b", "a/b", "digits_mlp-1a2b"]
    assert len({sweep_key(name) for name in names}) == len(names)
    # As it has always been, where the name can stand in an address.
    assert sweep_key("digits_mlp-1a2b").endswith("digits_mlp-1a2b")


def test_settings_that_differ_are_told_and_others_are_not() -> None:
    runs = [
        {
            "model.units": "8",
            "optimizer.lr": "0.1",
            "seed": "0",
            "task.name": "train",
            "data.batch_size": "32",
        },
        {
            "model.units": "16",
            "optimizer.lr": "0.1",
            "seed": "1",
            "task.name": "tune",
            "data.batch_size": "64",
        },
        {"model.units": "16", "optimizer.lr": "0.1", "seed": "1", "model.rare": "1", "data.batch_size": "64"},
        # The run of a sweep itself has none of them.
        {"sweep.n_trials": "3"},
    ]
    assert differing(runs, ["task"]) == ["model.units", "data.batch_size", "seed"]


@pytest.mark.parametrize(
    ("metric", "mode", "ascending"), [("val/accuracy", "max", False), ("val/mae", "min", True)]
)
def test_the_best_run_comes_first(metric: str, mode: str, ascending: bool) -> None:
    name = metric.removeprefix("val/")
    state = view(metric, mode, ["model._target_", "model.dropout"], [f"test/{name}", f"baseline/val/{name}"])
    assert state["orderByKey"] == f"metrics.`best/{metric}`"
    assert state["orderByAsc"] is ascending
    assert state["selectedColumns"] == [
        f"metrics.`best/{metric}`",
        f"metrics.`test/{name}`",
        f"metrics.`baseline/{metric}`",
        "tags.`model`",
        "params.`model.dropout`",
        "attributes.`Dataset`",
    ]


def _record(start: Start, name: str, **settings: object) -> Run:
    parent, tags = settings.pop("parent", None), settings.pop("tags", {})
    shown = str(settings.pop("called", name))
    run = start(name, parent=parent, tags={"mlflow.runName": shown, UNCOMPARED_TAG: "task name", **tags})
    run.log_params({"model": settings, "task": {"name": name}})
    run.set_tags(objective_tags("val/accuracy", "max"))
    run.log_metrics({"best/val/accuracy": 0.5, "test/accuracy": 0.4})
    return run


def _tags(tmp_path: Path) -> dict[str, str]:
    client = open_client(absolute_uri(None, tmp_path / "experiments"))
    found = client.get_experiment_by_name("tests")
    assert found is not None
    return dict(found.tags)


def test_the_page_of_an_experiment_has_a_column_for_what_differs(
    tmp_path: Path, start_run: Start, deliver: Deliver, empty_store: Path
) -> None:
    for name, dropout in (("a", 0.1), ("b", 0.2)):
        run = _record(start_run, name, dropout=dropout, units=8)
        run.finish()
        deliver(run)
    state = json.loads(_tags(tmp_path)[SHARED_VIEW + LEADERBOARD])
    assert "params.`model.dropout`" in state["selectedColumns"]
    assert not {"params.`model.units`", "params.`task.name`"} & set(state["selectedColumns"])
    store = Store(None, tmp_path / "experiments")
    (page,) = store.views()
    assert page.title == "tests" and f"viewStateShareKey={LEADERBOARD}" in page.address


def test_a_sweep_has_a_view_of_its_own_trials(
    tmp_path: Path, start_run: Start, deliver: Deliver, empty_store: Path
) -> None:
    parent = start_run("s", tags={"sweep.study": "mine"})
    deliver(parent)
    for number in range(2):
        tags = {"sweep.study": "mine", "sweep.trial": str(number)}
        trial = _record(start_run, f"t{number}", parent=parent, tags=tags, dropout=number)
        trial.finish()
        deliver(trial)
    assert SHARED_VIEW + sweep_key("mine") not in _tags(tmp_path)
    parent.finish()
    deliver(parent)
    state = json.loads(_tags(tmp_path)[SHARED_VIEW + sweep_key("mine")])
    alone = _record(start_run, "alone", dropout=0.5)
    alone.finish()
    deliver(alone)
    # What MLflow lists by the filter of each page.
    store = Store(None, tmp_path / "experiments")
    leaderboard = json.loads(_tags(tmp_path)[SHARED_VIEW + LEADERBOARD])
    assert {run.name for run in store.runs(leaderboard["searchFilter"])} == {"s", "alone"}
    assert {run.name for run in store.runs(state["searchFilter"])} == {"t0", "t1"}
    assert [page.title for page in Store(None, tmp_path / "experiments").views()] == [
        "tests",
        "tests, sweep-mine",
    ]
    (parallel,) = (card for card in state["compareRunCharts"] if card["type"] == "PARALLEL")
    assert parallel["selectedParams"] == ["model.dropout"] and parallel["selectedMetrics"] == [
        "best/val/accuracy"
    ]


@pytest.mark.parametrize(
    ("study", "shown"), [("Ann's", True), ('the "best"', True), ('Ann\'s "best"', False)]
)
def test_a_sweep_whose_name_has_quotation_marks_has_a_view(
    tmp_path: Path, start_run: Start, deliver: Deliver, empty_store: Path, study: str, shown: bool
) -> None:
    trial = _record(start_run, "t", tags={"sweep.study": study, "sweep.trial": "0"}, dropout=1)
    trial.finish()
    deliver(trial)
    tags = _tags(tmp_path)
    assert (SHARED_VIEW + sweep_key(study) in tags) is shown
    if shown:
        state = json.loads(tags[SHARED_VIEW + sweep_key(study)])
        assert [run.name for run in Store(None, tmp_path / "experiments").runs(state["searchFilter"])] == [
            "t"
        ]


def test_a_sweep_has_its_view_where_its_end_arrives_before_its_trials(
    tmp_path: Path, start_run: Start, deliver: Deliver, empty_store: Path
) -> None:
    parent = start_run("s", tags={"sweep.study": "mine"})
    deliver(parent)
    tags = {"sweep.study": "mine", "sweep.trial": "0"}
    trial = _record(start_run, "t", parent=parent, tags=tags, dropout=1)
    trial.finish()
    parent.finish()
    deliver(parent)
    deliver(trial)
    assert {SHARED_VIEW + LEADERBOARD, SHARED_VIEW + sweep_key("mine")} <= set(_tags(tmp_path))


def test_no_two_runs_of_an_experiment_have_the_same_name(
    tmp_path: Path, start_run: Start, deliver: Deliver, empty_store: Path
) -> None:
    for number in range(3):
        run = _record(start_run, str(number), called="lr=0.01")
        run.finish()
        deliver(run)
    names = {run.name for run in Store(None, tmp_path / "experiments").runs()}
    assert names == {"lr=0.01", "lr=0.01 (2)", "lr=0.01 (3)"}
