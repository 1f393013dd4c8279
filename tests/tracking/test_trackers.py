"""What arrives in trackers beside MLflow: every record once, whoever is killed, whatever one of them refuses."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import pipeline.tracking
from pipeline.config.trackers import refuse_missing, trackers_of
from pipeline.errors import UserError
from pipeline.tracking import Run, journal, registry, sync
from pipeline.tracking.deliveries import Deliveries
from pipeline.tracking.delivery import Held
from pipeline.tracking.others import OtherDelivery, Sent
from pipeline.tracking.sender_link import is_delivered

Start = Callable[..., Run]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63600000000200014e2f9e6b0000000049454e44ae426082"
)


def delivery(run: Run, uri: str = "") -> Deliveries:
    return Deliveries(run.directory, uri, run.experiments_dir)


class StandIn:
    """A tracker that keeps what it is given, at once or at the end, and fails when it is told to."""

    live = True
    keeps_at_once = False
    fails = False

    def __init__(self) -> None:
        self.kept: list[Sent] = []
        self._open: list[Sent] = []

    def send(self, entries: Sequence[Sent]) -> None:
        if self.fails:
            raise OSError("away")
        (self.kept if self.keeps_at_once else self._open).extend(entries)

    def end(self) -> None:
        self.kept += self._open
        self._open = []

    def give_up(self) -> None:
        self._open = []

    def points(self, name: str) -> list[tuple[int, float]]:
        return [(sent.record["step"], sent.values[name]) for sent in self.kept if name in sent.values]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    kept = StandIn()
    monkeypatch.setattr(OtherDelivery, "_made", lambda self: kept)
    return kept


@pytest.mark.parametrize("keeps_at_once", [True, False])
def test_a_sender_that_is_killed_costs_no_record_and_doubles_none(
    start_run: Start, stand_in: StandIn, keeps_at_once: bool
) -> None:
    stand_in.keeps_at_once = keeps_at_once
    run = start_run(trackers=["wandb"])
    for step in range(5):
        run.log_metrics({"loss": 1.0 / (step + 1)}, step)
    first = delivery(run)
    first.deliver()
    # The next one knows nothing but what is on the disk; what was not kept is gone with the first.
    stand_in.give_up()
    for step in range(5, 8):
        run.log_metrics({"loss": 1.0 / (step + 1)}, step)
    run.finish()
    delivery(run).deliver()
    assert stand_in.points("loss") == [(step, 1.0 / (step + 1)) for step in range(8)]
    assert [sent.number for sent in stand_in.kept] == list(range(10))
    assert registry.pending_runs(run.experiments_dir) == []


def test_a_run_that_went_back_to_a_checkpoint_shows_each_epoch_once(
    start_run: Start, stand_in: StandIn
) -> None:
    run = start_run(trackers=["wandb"])
    for epoch in range(3):
        run.log_metrics({"loss": float(epoch)}, epoch)
    delivery(run).deliver()
    stand_in.give_up()
    for epoch in (3, 4):
        run.log_metrics({"loss": float(epoch)}, epoch)
    resumed = start_run(trackers=["wandb"], resume=True)
    resumed.rewind(1)
    for epoch in range(2, 6):
        resumed.log_metrics({"loss": 10.0 + epoch}, epoch)
    resumed.finish()
    delivery(resumed).deliver()
    # Epoch 2 may have arrived: it stays what it was. The later ones were never sent.
    assert stand_in.points("loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 13.0), (4, 14.0), (5, 15.0)]


def test_a_tracker_that_is_away_holds_up_none_of_the_others(
    start_run: Start, stand_in: StandIn, empty_store: Path, tmp_path: Path
) -> None:
    from pipeline.tracking.store import open_client

    stand_in.fails = True
    uri = f"sqlite:///{empty_store}"
    run = start_run(trackers=["mlflow", "wandb"])
    run.log_metrics({"loss": 0.5}, 0)
    (tmp_path / "plot.png").write_bytes(PNG)
    run.log_artifact(tmp_path / "plot.png", "plots")
    run.finish()
    with pytest.raises(OSError, match="away"):
        delivery(run, uri).deliver()
    client = open_client(uri)
    assert client.get_run(run.run_id).data.metrics["loss"] == 0.5
    assert "wandb: away" in (journal.cursors(run.directory / "tracking")["wandb"].error or "")
    assert [entry.directory for entry in registry.pending_runs(run.experiments_dir)] == [run.directory]

    stand_in.fails = False
    assert sync(run.experiments_dir).delivered == [run.directory]
    assert stand_in.points("loss") == [(0, 0.5)]
    assert not list((run.directory / "tracking" / "files").iterdir())
    assert len(client.get_metric_history(run.run_id, "loss")) == 1


def test_a_run_that_is_resumed_with_another_tracker_still_tells_mlflow(
    start_run: Start, stand_in: StandIn, empty_store: Path
) -> None:
    from pipeline.tracking.store import open_client

    uri = f"sqlite:///{empty_store}"
    run = start_run(trackers=["mlflow"])
    run.log_metrics({"loss": 0.5}, 0)
    delivery(run, uri).deliver()
    run.log_metrics({"loss": 0.25}, 1)
    resumed = start_run(trackers=["wandb"], resume=True)
    resumed.log_metrics({"loss": 0.125}, 2)
    resumed.finish()
    delivery(resumed).deliver()
    assert is_delivered(run.directory)
    history = open_client(uri).get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.25), (2, 0.125)]
    assert open_client(uri).get_run(run.run_id).info.status == "FINISHED"
    assert stand_in.points("loss") == [(0, 0.5), (1, 0.25), (2, 0.125)]


def test_each_tracker_has_pauses_of_its_own(
    start_run: Start, stand_in: StandIn, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.tracking.store import open_client

    tries: list[int] = []

    def away(self: StandIn, entries: Sequence[Sent]) -> None:
        tries.append(len(entries))
        raise OSError("away")

    monkeypatch.setattr(StandIn, "send", away)
    uri = f"sqlite:///{empty_store}"
    run = start_run(trackers=["mlflow", "wandb"])
    both = delivery(run, uri)
    with pytest.raises(OSError, match="away"):
        both.deliver()
    # MLflow is told at once what comes while the other one has its pause.
    run.log_metrics({"loss": 0.5}, 0)
    both.deliver()
    assert open_client(uri).get_run(run.run_id).data.metrics == {"loss": 0.5}
    assert len(tries) == 1 and (both.failures, both.first_failures) == (1, 0)


def test_what_was_given_up_is_tried_again_once_somebody_stepped_in(
    start_run: Start, empty_store: Path
) -> None:
    from pipeline.tracking.store import open_client

    uri = f"sqlite:///{empty_store}"
    client = open_client(uri)
    run = start_run(trackers=["mlflow"])
    kept = delivery(run, uri)
    kept.deliver()
    client.delete_run(run.run_id)
    run.log_metrics({"loss": 0.5}, 0)
    run.finish()
    with pytest.raises(Held):
        kept.deliver()
    client.restore_run(run.run_id)
    kept.try_again()
    kept.deliver()
    assert client.get_run(run.run_id).data.metrics == {"loss": 0.5}


def test_a_run_that_mlflow_is_not_told_of_makes_no_store(start_run: Start, stand_in: StandIn) -> None:
    run = start_run(trackers=["trackio"])
    run.log_metrics({"loss": 0.5}, 0)
    run.finish()
    assert sync(run.experiments_dir, "sqlite:///elsewhere.db").delivered == [run.directory]
    assert stand_in.points("loss") == [(0, 0.5)]
    assert not (run.experiments_dir / "mlflow.db").exists() and run.run_id == run.key


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.config.trackers.find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"comet_ml: pip install 'hydra-lightning-pipeline\[comet\]'"):
        refuse_missing({"mlflow": True, "comet": True})
    refuse_missing({"mlflow": True, "wandb": False})


def test_a_class_of_lightnings_under_the_name_of_a_tracker_stays_one() -> None:
    node = {"_target_": "pytorch_lightning.loggers.WandbLogger"}
    assert trackers_of({"mlflow": False, "wandb": node, "comet": True}) == ("comet",)


def record(run: Run, tmp_path: Path) -> None:
    """Three epochs, points within them, a value of the whole run, settings, a picture and a text."""
    run.log_params({"optimizer": {"lr": 0.01}})
    for epoch in range(3):
        run.log_metrics({"step/loss": 2.0 - epoch}, 10 * epoch, of_epochs=False)
        run.log_metrics({"val/loss": math.nan if epoch == 1 else 1.0 / (epoch + 1)}, epoch, 1000 * epoch)
    run.log_metrics({"test/accuracy": 0.75})
    (tmp_path / "curves.png").write_bytes(PNG)
    run.log_artifact(tmp_path / "curves.png", "plots")
    run.log_text("hello", "notes/a.txt")
    run.set_tags({"verdict": "beats"})


def offline_records(path: Path) -> Iterator[Any]:
    """The records of an offline run's file: protocol buffers in the log format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def test_wandb_offline_holds_everything_once(
    start_run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = start_run("lr=0.01", trackers=["wandb"], tags={"tag.first": "true"})
    record(run, tmp_path)
    lost = delivery(run)
    lost.deliver()
    # As where the sender is killed: what it had written is not looked at again.
    lost.close()
    run.finish()
    delivery(run).deliver()

    (folder,) = (run.experiments_dir / "wandb").glob("offline-run-*")
    records = list(offline_records(folder / f"run-{run.key}.wandb"))
    rows = [
        {
            item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
            for item in r.history.item
        }
        for r in records
        if r.HasField("history")
    ]
    points = [(row["epoch"], row["val/loss"]) for row in rows if "val/loss" in row]
    assert [step for step, _ in points] == [0, 1, 2] and points[0][1] == 1.0 and points[2][1] == 1 / 3
    assert math.isnan(float(points[1][1]))
    assert [(row["optimiser_step"], row["step/loss"]) for row in rows if "step/loss" in row] == [
        (0, 2.0),
        (10, 1.0),
        (20, 0.0),
    ]
    (begun,) = [r.run for r in records if r.HasField("run")][:1]
    assert (begun.display_name, begun.project, list(begun.tags)) == ("lr=0.01", "tests", ["first"])
    config = {
        item.key: json.loads(item.value_json)
        for r in records
        for item in (*r.run.config.update, *r.config.update)
    }
    assert config["optimizer.lr"] == "0.01" and config["tags.verdict"] == "beats"
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for r in records
        for item in r.summary.update
    }
    assert summary["test/accuracy"] == 0.75 and summary["status"] == "FINISHED"
    assert (folder / "files" / "notes" / "a.txt").read_text() == "hello"
    assert [path.read_bytes() for path in (folder / "files" / "media").rglob("*.png")] == [PNG]


def test_what_a_killed_sender_wrote_offline_for_wandb_is_not_there_twice(
    start_run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = start_run(trackers=["wandb"])
    run.log_metrics({"val/loss": 0.5}, 0)
    # Another run of the same name, and what was kept of this one, stay.
    other = run.experiments_dir / "wandb" / f"offline-run-20200101_000000-{run.key}"
    other.mkdir(parents=True)
    script = (
        "import os, signal, sys; from pathlib import Path; from pipeline.tracking.deliveries import Deliveries\n"
        "Deliveries(Path(sys.argv[1]), '', Path(sys.argv[2])).deliver(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    words = [sys.executable, "-c", script, str(run.directory), str(run.experiments_dir)]
    # With a process of the library's own, which ends with it.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    assert subprocess.run(words, env=environment, timeout=120, check=False).returncode == -signal.SIGKILL
    assert len({*other.parent.glob("offline-run-*")} - {other}) == 1
    run.finish()
    delivery(run).deliver()
    assert other.exists()
    # One again, in a directory of the same name where it began within the same second.
    (folder,) = {*other.parent.glob("offline-run-*")} - {other}
    records = list(offline_records(folder / f"run-{run.key}.wandb"))
    rows = [r for r in records if r.HasField("history")]
    assert len(rows) == 1


def test_wandb_online_that_is_away_is_given_up_soon_and_leaves_nothing(
    start_run: Start, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    run = start_run(trackers=["wandb"])
    run.finish()
    began = time.monotonic()
    with pytest.raises(OSError, match="refused"):
        delivery(run).deliver()
    assert time.monotonic() - began < 30

    # A server that answers, and not to what the library asks.
    def begins(**settings: Any) -> Any:
        (Path(settings["dir"]) / "wandb" / f"run-20200101_000000-{run.key}").mkdir(parents=True)
        raise RuntimeError("no such project")

    ended: list[int] = []
    monkeypatch.setattr("pipeline.tracking.to_wandb._refuse_unreachable", lambda address: None)
    monkeypatch.setattr(wandb, "init", begins)
    monkeypatch.setattr(wandb, "teardown", lambda exit_code: ended.append(exit_code))
    with pytest.raises(RuntimeError, match="no such project"):
        delivery(run).deliver()
    assert ended == [1] and not list((run.experiments_dir / "wandb").glob("run-*"))


@pytest.fixture(scope="session")
def trackio_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Trackio keeps its databases: it reads that once."""
    folder = tmp_path_factory.mktemp("trackio")
    os.environ["TRACKIO_DIR"] = str(folder)
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    return folder


def test_trackio_holds_everything_once_with_its_times(
    start_run: Start, tmp_path: Path, trackio_dir: Path
) -> None:
    run = start_run("lr=0.01", trackers=["trackio"], experiment="once")
    record(run, tmp_path)
    delivery(run).deliver()
    # The place in the journal is lost, and with it what arrived already.
    journal.Cursor().save(run.directory / "tracking", journal.other_cursor("trackio"))
    run.finish("FAILED", error="it broke")
    delivery(run).deliver()

    with sqlite3.connect(trackio_dir / "once.db") as database:
        rows = [
            (step, json.loads(values), moment)
            for step, values, moment in database.execute(
                "SELECT step, metrics, timestamp FROM metrics ORDER BY id"
            )
        ]
        ((name, config),) = database.execute("SELECT run_name, config FROM configs").fetchall()
    points = [(step, values["val/loss"]) for step, values, _ in rows if "val/loss" in values]
    assert points[0] == (0, 1.0) and points[2] == (2, 1 / 3) and len(points) == 3
    assert [moment[:19] for _, values, moment in rows if "val/loss" in values][1:] == [
        "1970-01-01T00:00:01",
        "1970-01-01T00:00:02",
    ]
    assert [(step, values["step/loss"]) for step, values, _ in rows if "step/loss" in values] == [
        (0, 2.0),
        (10, 1.0),
        (20, 0.0),
    ]
    assert name == "lr=0.01" and [v["test/accuracy"] for _, v, _ in rows if "test/accuracy" in v] == [0.75]
    settings = json.loads(config)
    assert (settings["optimizer.lr"], settings["tags.verdict"]) == ("0.01", "beats")
    assert (settings["status"], settings["error"]) == ("FAILED", "it broke")
    (picture,) = [values["plots/curves.png"] for _, values, _ in rows if "plots/curves.png" in values]
    assert (trackio_dir / "media" / picture["file_path"]).is_file()


def test_trackio_keeps_all_settings_when_the_sender_changes_and_the_run_is_resumed(
    start_run: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[dict[str, Any]] = []

    class Inside:
        """As the database has it: the configuration that comes replaces the one that is there."""

        @staticmethod
        def write(project: str, name: str, key: str, rows: Any, config: dict[str, Any]) -> None:
            written.append(dict(config))

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setattr(pipeline.tracking, "trackio_inside", Inside, raising=False)
    run = start_run(trackers=["trackio"], tags={"first": "1"})
    run.log_params({"lr": 0.1})
    run.log_dataset("digits", "abc", "/d", "training")
    run.finish("KILLED")
    delivery(run).deliver()
    assert written[-1]["status"] == "KILLED"
    resumed = start_run(trackers=["trackio"], resume=True)
    resumed.log_metrics({"loss": 0.5}, 0)
    delivery(resumed).deliver()
    settings = {"lr": "0.1", "dataset.training": "digits abc", "tags.first": "1"}
    assert settings.items() <= written[-1].items() and "status" not in written[-1]
    resumed.finish()
    delivery(resumed).deliver()
    assert {**settings, "status": "FINISHED"}.items() <= written[-1].items()


def test_comet_gets_one_archive_for_each_time_that_the_run_ended(start_run: Start, tmp_path: Path) -> None:
    pytest.importorskip("comet_ml", reason="the extra comet is not installed")
    run = start_run("lr=0.01", trackers=["comet"], tags={"tag.first": "true"})
    record(run, tmp_path)
    delivery(run).deliver()
    assert not list((run.experiments_dir / "comet").glob("*.zip"))
    run.finish()
    delivery(run).deliver()
    resumed = start_run("lr=0.01", trackers=["comet"], resume=True)
    resumed.log_metrics({"val/loss": 0.125}, 3)
    resumed.finish()
    delivery(resumed).deliver()

    first, second = sorted((run.experiments_dir / "comet").iterdir(), key=lambda path: len(path.name))
    assert first.name == f"{run.key}.zip"

    def told(archive: Path) -> list[dict[str, Any]]:
        with zipfile.ZipFile(archive) as packed:
            return [json.loads(line) for line in packed.read("messages.json").splitlines()]

    def points(archive: Path, name: str) -> list[tuple[Any, Any]]:
        metrics = [line["payload"]["metric"] for line in told(archive) if line["type"] == "metric_msg"]
        return [(metric["step"], metric["metricValue"]) for metric in metrics if metric["metricName"] == name]

    assert points(first, "val/loss") == [(0, 1.0), (1, "NaN"), (2, 1 / 3)]
    assert points(first, "step/loss") == [(0, 2.0), (10, 1.0), (20, 0.0)]
    assert points(second, "val/loss") == [(3, 0.125)]
    others = {
        line["payload"]["key"]: line["payload"]["value"]
        for line in told(first)
        if line["type"] == "log_other"
    }
    assert (others["Name"], others["verdict"], others["status"]) == ("lr=0.01", "beats", "FINISHED")
    files = [
        line["payload"]["additional_params"]["fileName"]
        for line in told(first)
        if line["type"] == "file_upload"
    ]
    assert files == ["plots/curves.png", "notes/a.txt"]
