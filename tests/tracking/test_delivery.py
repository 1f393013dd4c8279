"""What arrives in an MLflow store, compared with what was recorded."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import Reference, Run, journal, registry, sync
from pipeline.tracking.delivery import Delivery, Held
from pipeline.tracking.store import open_client

Start = Callable[..., Run]
Deliver = Callable[..., Delivery]


@pytest.fixture
def client(empty_store: Path) -> Any:
    return open_client(f"sqlite:///{empty_store}")


def points(client: Any, run: Run, key: str) -> list[tuple[int, float]]:
    history = client.get_metric_history(run.run_id, key)
    return sorted((point.step, point.value) for point in history)


def test_everything_recorded_arrives(start_run: Start, deliver: Deliver, client: Any, tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"png")
    run = start_run(tags={"data.used": "digits"})
    for step in range(3):
        run.log_metrics(
            {"train/loss": 1 / (step + 1), "val/loss": math.nan, "x": math.inf}, step, 1000 + step
        )
    run.log_params({"seed": 0, "optimizer": {"lr": 0.001, "betas": [0.9, 0.999]}, "long": "y" * 7000})
    run.log_artifact(tmp_path / "plot.png", "plots")
    (tmp_path / "plot.png").write_bytes(b"changed later")
    run.log_text("hello", "notes/a.txt")
    run.log_dataset("digits", "abc123", "/data/digits", "training", schema={"shape": [8, 8]})
    run.finish("FAILED", error="it broke")
    deliver(run)

    known = client.get_run(run.run_id)
    assert points(client, run, "train/loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert [p.timestamp for p in client.get_metric_history(run.run_id, "train/loss")] == [1000, 1001, 1002]
    assert math.isnan(known.data.metrics["val/loss"])
    assert known.data.metrics["x"] > 1e308
    assert known.data.params == {
        "seed": "0",
        "optimizer.lr": "0.001",
        "optimizer.betas": "[0.9, 0.999]",
        "long": "y" * 6000,
    }
    assert known.info.status == "FAILED" and known.data.tags["error"] == "it broke"
    assert known.data.tags["data.used"] == "digits" and known.info.run_name == "run"
    dataset = known.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "abc123")
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}
    local = client.download_artifacts(run.run_id, "", str(tmp_path))
    assert Path(local, "plots", "plot.png").read_bytes() == b"png"
    assert Path(local, "notes", "a.txt").read_text() == "hello"
    assert registry.pending_runs(tmp_path / "experiments") == []


def test_delivering_again_from_the_start_doubles_nothing(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    run = start_run()
    for step in range(50):
        run.log_metrics({"a": step, "nan": math.nan}, step)
    run.log_params({"p": 1})
    run.log_dataset("d", "1", "/d", "training")
    run.log_text("x", "x.txt")
    run.finish()
    deliver(run)
    first = run.run_id
    (run.directory / "tracking" / journal.CURSOR).unlink()
    deliver(run)
    assert run.run_id == first
    assert points(client, run, "a") == [(step, float(step)) for step in range(50)]
    assert len(client.get_metric_history(first, "nan")) == 50
    assert len(client.get_run(first).inputs.dataset_inputs) == 1


def test_a_crash_between_sending_and_noting_it_doubles_nothing(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    run = start_run()
    run.log_metrics({"a": 1.0}, 0)
    deliver(run)
    before = journal.Cursor.load(run.directory / "tracking")
    run.log_metrics({"a": 2.0}, 1)
    deliver(run)
    after = journal.Cursor.load(run.directory / "tracking")
    before.sending = after.sending
    before.save(run.directory / "tracking")
    # Resumed meanwhile: what may have arrived must not be replaced by a newer record of the same step.
    resumed = start_run(resume=True)
    resumed.log_metrics({"a": 2.5}, 1)
    resumed.log_metrics({"a": 3.0}, 2)
    deliver(resumed)
    assert points(client, run, "a") == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_a_resumed_run_replaces_what_was_not_delivered(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    run = start_run()
    for epoch in range(4):
        run.log_metrics({"val/loss": float(epoch), "seconds": 0.1 * epoch}, epoch)
    run.log_metrics({"test/accuracy": 0.5})
    resumed = start_run(resume=True)
    resumed.rewind(1)
    for epoch in range(2, 6):
        resumed.log_metrics({"val/loss": float(epoch), "seconds": 10.0 + epoch}, epoch)
    resumed.log_metrics({"test/accuracy": 0.75})
    resumed.finish()
    deliver(resumed)
    assert resumed.key == run.key
    assert points(client, run, "val/loss") == [(epoch, float(epoch)) for epoch in range(6)]
    assert points(client, run, "seconds") == [(0, 0.0), (1, 0.1), (2, 12.0), (3, 13.0), (4, 14.0), (5, 15.0)]
    assert client.get_run(run.run_id).data.metrics["test/accuracy"] == 0.75


def test_a_resumed_run_keeps_its_points_within_epochs(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    run = start_run()
    for step in range(10, 60, 10):
        run.log_metrics({"step/loss": float(step)}, step, of_epochs=False)
    run.log_metrics({"val/loss": 1.0}, 1)
    resumed = start_run(resume=True)
    # The checkpoint is from the second epoch, after 35 steps: what was recorded until there is not recorded again.
    resumed.rewind(1, 35)
    for step in (40, 50, 60):
        resumed.log_metrics({"step/loss": step + 0.5}, step, of_epochs=False)
    resumed.finish()
    deliver(resumed)
    expected = [(10, 10.0), (20, 20.0), (30, 30.0), (40, 40.5), (50, 50.5), (60, 60.5)]
    assert points(client, run, "step/loss") == expected
    assert points(client, run, "val/loss") == [(1, 1.0)]


def test_a_resumed_run_leaves_delivered_steps_alone(start_run: Start, deliver: Deliver, client: Any) -> None:
    run = start_run()
    for epoch in range(3):
        run.log_metrics({"val/loss": float(epoch), "seconds": 0.1 * epoch}, epoch)
    run.log_params({"max_epochs": 3, "seed": 0})
    run.log_metrics({"test/accuracy": 0.5})
    run.finish("KILLED")
    deliver(run)
    assert client.get_run(run.run_id).info.status == "KILLED"

    resumed = start_run(resume=True)
    resumed.rewind(1)
    resumed.log_params({"max_epochs": 5, "seed": 0, "new": 1})
    for epoch in range(2, 5):
        resumed.log_metrics({"val/loss": float(epoch), "seconds": 7.0}, epoch)
    deliver(resumed)
    assert client.get_run(run.run_id).info.status == "RUNNING"
    resumed.log_metrics({"test/accuracy": 0.75})
    resumed.finish()
    deliver(resumed)
    known = client.get_run(run.run_id)
    assert known.info.status == "FINISHED"
    assert points(client, run, "val/loss") == [(epoch, float(epoch)) for epoch in range(5)]
    assert [step for step, _ in points(client, run, "seconds")] == [0, 1, 2, 3, 4]
    assert known.data.metrics["test/accuracy"] == 0.75
    assert known.data.params == {"max_epochs": "3", "seed": "0", "new": "1"}
    assert known.data.tags["changed.max_epochs"] == "5"


def test_children_are_nested_even_when_they_come_first(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    parent = start_run("parent")
    child = start_run("child", parent=Reference(parent.key, parent.directory))
    deliver(child)
    deliver(parent)
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert len(client.search_runs(["1"])) == 2


def test_more_than_a_batch_holds(start_run: Start, deliver: Deliver, client: Any) -> None:
    run = start_run()
    run.log_params({f"p{number}": number for number in range(250)})
    run.log_metrics({f"m{number}": number for number in range(1700)}, 0)
    for step in range(2100):
        run.log_metrics({"a": step}, step)
    deliver(run)
    known = client.get_run(run.run_id).data
    assert len(known.params) == 250 and len(known.metrics) == 1701
    assert [step for step, _ in points(client, run, "a")] == list(range(2100))


def test_names_that_mlflow_refuses_are_made_acceptable(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    run = start_run()
    run.log_metrics({"f1 (macro)%": 0.5}, 0)
    run.log_params({"a=b": 1})
    deliver(run)
    known = client.get_run(run.run_id).data
    assert known.metrics == {"f1 _macro__": 0.5} and known.params == {"a_b": "1"}


def test_what_the_store_refuses_is_put_aside_and_the_rest_arrives(
    start_run: Start, deliver: Deliver, client: Any
) -> None:
    run = start_run()
    run.log_metrics({"good": 1.0}, 0)
    # Backwards paths are refused by MLflow.
    run.log_metrics({"../bad": 1.0, "also good": 2.0}, 0)
    run.finish()
    deliver(run)
    assert client.get_run(run.run_id).data.metrics == {"good": 1.0, "also good": 2.0}
    lines = (run.directory / "tracking" / "rejected.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    assert [record["v"] for record in rejected] == [{"../bad": 1.0}] and rejected[0]["reason"]


def test_a_run_deleted_in_the_store_is_reported_and_kept(
    start_run: Start, deliver: Deliver, client: Any, tmp_path: Path
) -> None:
    run = start_run()
    deliver(run)
    client.delete_run(run.run_id)
    run.log_metrics({"a": 1.0}, 0)
    run.finish()
    with pytest.raises(Held, match="was deleted"):
        deliver(run)
    summary = sync(tmp_path / "experiments")
    assert "was deleted" in summary.failed[run.directory]
    client.restore_run(run.run_id)
    assert sync(tmp_path / "experiments").delivered == [run.directory]
    assert client.get_run(run.run_id).data.metrics == {"a": 1.0}


def test_sync_delivers_to_another_store_from_the_start(
    start_run: Start, deliver: Deliver, tmp_path: Path
) -> None:
    run = start_run()
    run.log_metrics({"a": 1.0}, 0)
    deliver(run)
    run.finish()
    uri = f"sqlite:///{tmp_path}/other.db"
    assert sync(tmp_path / "experiments", uri).delivered == [run.directory]
    assert open_client(uri).get_run(run.run_id).data.metrics == {"a": 1.0}
    assert sync(tmp_path / "experiments") == type(sync(tmp_path / "experiments"))()


def test_sync_leaves_a_running_process_its_run(start_run: Start, tmp_path: Path) -> None:
    run = start_run()
    assert sync(tmp_path / "experiments").running == [run.directory]


def test_a_password_that_is_not_kept_is_asked_for(
    start_run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(tracking_uri="http://me:hunter2@127.0.0.1:9")
    run.finish()
    assert "MLFLOW_TRACKING_URI" in sync(tmp_path / "experiments").failed[run.directory]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    failure = sync(tmp_path / "experiments").failed[run.directory]
    assert "MLFLOW_TRACKING_URI" not in failure and "hunter2" not in failure


def test_the_file_store_doubles_nothing_either(start_run: Start, deliver: Deliver, tmp_path: Path) -> None:
    uri = (tmp_path / "mlruns").as_uri()
    run = start_run(tracking_uri=uri)
    run.log_metrics({"a": 1.0, "b": math.nan}, 0)
    run.finish()
    deliver(run, uri)
    (run.directory / "tracking" / journal.CURSOR).unlink()
    deliver(run, uri)
    assert len(open_client(uri).get_metric_history(run.run_id, "a")) == 1
    assert len(open_client(uri).get_metric_history(run.run_id, "b")) == 1
