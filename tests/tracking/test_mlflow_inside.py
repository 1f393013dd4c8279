"""What MLflow reads without a public name for it: each by name, compared with what MLflow itself writes and reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.data import get_source
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils import mlflow_tags, validation

from pipeline.tracking import mlflow_inside as inside
from pipeline.tracking import served_model, views
from pipeline.tracking.store import as_default, open_client


def broken(name: str, what: str) -> str:
    return (
        f"MLflow {mlflow.__version__}: {name} {what}. pipeline/tracking/mlflow_inside.py says what it is for."
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A store's address and a run in it."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    client = open_client(uri)
    experiment = client.create_experiment("x", (tmp_path_factory.mktemp("artifacts")).as_uri())
    yield uri, client.create_run(experiment).info.run_id
    open_client.cache_clear()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (inside.MAX_KEY, "MAX_ENTITY_KEY_LENGTH"),
        (inside.MAX_PARAM, "MAX_PARAM_VAL_LENGTH"),
        (inside.MAX_TAG, "MAX_TAG_VAL_LENGTH"),
        (inside.METRICS_AT_ONCE, "MAX_METRICS_PER_BATCH"),
        (inside.PARAMS_OR_TAGS_AT_ONCE, "MAX_PARAMS_TAGS_PER_BATCH"),
        (inside.METRICS_AT_ONCE + 2 * inside.PARAMS_OR_TAGS_AT_ONCE, "MAX_ENTITIES_PER_BATCH"),
    ],
)
def test_what_is_cut_and_parted_fits_a_stores_limits(ours: int, theirs: str) -> None:
    limit = getattr(validation, theirs, None)
    assert limit is not None and ours <= limit, broken(
        f"utils.validation.{theirs}", f"is {limit}, below {ours}"
    )


def test_the_longest_and_the_largest_are_taken(store: tuple[str, str]) -> None:
    uri, run_id = store
    names = [f"{number:03d}".ljust(inside.MAX_KEY, "x") for number in range(inside.METRICS_AT_ONCE)]
    open_client(uri).log_batch(
        run_id,
        [Metric(name, 0.0, 0, 0) for name in names],
        [Param(name, "y" * inside.MAX_PARAM) for name in names[: inside.PARAMS_OR_TAGS_AT_ONCE]],
    )
    open_client(uri).set_tag(run_id, "long", "z" * inside.MAX_TAG)
    with pytest.raises(MlflowException) as refused:
        open_client(uri).log_param(run_id, "x" * (inside.MAX_KEY + 1), "y")
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE", broken(
        "MlflowException.error_code", "has changed"
    )


def test_a_table_is_one_to_mlflow(store: tuple[str, str], tmp_path: Path) -> None:
    uri, run_id = store
    client = open_client(uri)
    (tmp_path / "ladder.json").write_text(json.dumps({"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}))
    client.log_artifact(run_id, str(tmp_path / "ladder.json"))
    for name, value in inside.shown_as_tables("ladder.json").items():
        client.set_tag(run_id, name, value)
    experiment = client.get_run(run_id).info.experiment_id
    with as_default(uri):
        read = client.load_table(experiment, "ladder.json", [run_id])
    assert read.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}, broken(
        "mlflow.load_table", "reads another form"
    )
    (own,) = json.loads(client.get_run(run_id).data.tags[mlflow_tags.MLFLOW_LOGGED_ARTIFACTS])
    assert own == {"path": "ladder.json", "type": "table"}, broken(
        "mlflow.loggedArtifacts", "holds something else"
    )


@pytest.mark.parametrize("address", ["https://example.org/x.csv", "/data/x.csv"])
def test_mlflow_reads_where_a_data_set_came_from(store: tuple[str, str], address: str) -> None:
    uri, _ = store
    client = open_client(uri)
    run_id = client.create_run("1").info.run_id
    kind, source = inside.dataset_source(address)
    tag = InputTag(inside.DATASET_CONTEXT, "training")
    client.log_inputs(run_id, datasets=[DatasetInput(Dataset("x", kind, kind, source), [tag])])
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    read = get_source(found)
    assert (getattr(read, "url", None) or read.uri) == address, broken(
        "DatasetSource", "is written another way"
    )
    known = mlflow_tags.MLFLOW_DATASET_CONTEXT
    assert known == inside.DATASET_CONTEXT, broken(inside.DATASET_CONTEXT, f"is {known} now")


def test_the_pages_know_the_kind_of_an_experiment() -> None:
    """Nothing but MLflow's pages themselves names it."""
    ((name, value),) = inside.EXPERIMENT_TAGS.items()
    pages = Path(mlflow.__file__).parent / "server/js/build/static/js"
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in pages.glob("*.js")]
    for word in (name, value):
        assert any(word in text for text in texts), broken(word, "is in none of the pages")


def test_the_pages_open_a_view_by_its_key(store: tuple[str, str]) -> None:
    """Every word of a saved view is one that the pages read, and a store takes the longest."""
    state = views.view("val/accuracy", "max", ["model.dropout"], ["val/loss", "test/accuracy"], "study")
    cards = state["compareRunCharts"]
    words = {
        inside.SHARED_VIEW,
        "viewStateShareKey",
        "workflowType",
        "compareRunsMode",
        *state,
        *(key for card in cards for key in card),
    }
    words |= {f'"{card["type"]}"' for card in cards} | {
        f'"{state["runsHiddenMode"]}"',
        f'"{state["lifecycleFilter"]}"',
    }
    pages = Path(mlflow.__file__).parent / "server/js/build/static/js"
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in pages.glob("*.js"))
    for word in sorted(words):
        assert word in text, broken(word, "is in none of the pages")
    limit = validation.MAX_EXPERIMENT_TAG_VAL_LENGTH
    assert limit >= inside.LONGEST_VIEW, broken("MAX_EXPERIMENT_TAG_VAL_LENGTH", f"is {limit}")
    open_client(store[0]).set_experiment_tag("0", inside.SHARED_VIEW + "x", "y" * inside.LONGEST_VIEW)


@pytest.mark.parametrize("before", [None, "http://example.org"])
def test_a_store_is_the_default_for_a_while_and_nothing_stays_of_it(
    store: tuple[str, str], before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    without = mlflow.get_tracking_uri()
    if before is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    with as_default(store[0]):
        assert mlflow.get_tracking_uri() == store[0]
    assert os.environ.get("MLFLOW_TRACKING_URI") == before, broken(
        "set_tracking_uri(None)", "leaves the variable"
    )
    assert mlflow.get_tracking_uri() == (before or without), broken(
        "set_tracking_uri(None)", "leaves the default"
    )


def test_a_model_is_saved_without_a_look_at_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.utils import environment

    name = "warn_dependency_requirement_mismatches"
    assert hasattr(environment, name), broken(f"utils.environment.{name}", "is gone")
    asked: list[list[str]] = []
    monkeypatch.setattr(environment, name, asked.append)
    code = Path(served_model.__file__)

    def save(folder: Path) -> str:
        mlflow.pyfunc.save_model(folder, python_model=str(code), pip_requirements=["numpy==1.0"])
        return (folder / "requirements.txt").read_text()

    usual = save(tmp_path / "usual")
    assert "numpy==1.0" in asked[0], broken("pyfunc.save_model", f"does not call {name}")
    with inside.without_comparing_requirements():
        assert save(tmp_path / "ours") == usual
    assert len(asked) == 1
    assert getattr(environment, name) == asked.append
