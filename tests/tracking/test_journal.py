"""What a killed or full disk leaves of a journal, and what comes out of it again."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import Run, journal, life, recover, registry


def test_values_survive_json_exactly() -> None:
    for value in (0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf):
        assert journal.decode_value(json.loads(json.dumps(journal.encode_value(value)))) == value
    assert math.isnan(
        journal.decode_value(json.loads(json.dumps(journal.encode_value(math.nan), allow_nan=False)))
    )


def test_a_torn_last_line_is_not_read_and_cut_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = journal.Writer(path)
    writer.append({"t": "tags", "v": {"a": "1"}})
    writer.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"t":"tags","v":{"b"')
    assert [record["v"] for record, _ in journal.read(path)] == [{"a": "1"}]
    writer = journal.Writer(path)
    assert path.read_bytes() == whole
    writer.append({"t": "tags", "v": {"c": "3"}})
    assert [record["v"] for record, _ in journal.read(path)] == [{"a": "1"}, {"c": "3"}]


def test_a_line_torn_beyond_the_read_block_is_cut_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"t":"tags","v":{}}\n' + b"x" * 200_000)
    journal.Writer(path)
    assert path.read_bytes() == b'{"t":"tags","v":{}}\n'
    path.write_bytes(b"x" * 200_000)
    journal.Writer(path)
    assert path.read_bytes() == b""


def test_offsets_let_a_reader_go_on_where_it_stopped(tmp_path: Path) -> None:
    writer = journal.Writer(tmp_path / "journal.jsonl")
    for number in range(5):
        writer.append({"t": "tags", "v": {"n": str(number)}})
    offsets = [offset for _, offset in journal.read(writer.path)]
    assert offsets[-1] == writer.path.stat().st_size
    assert [record["v"]["n"] for record, _ in journal.read(writer.path, offsets[2])] == ["3", "4"]


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = journal.Writer(tmp_path / "journal.jsonl")
    writer.append({"t": "tags", "v": {"a": "1"}})
    real_write = journal.os.write
    monkeypatch.setattr(journal.os, "write", lambda file, data: real_write(file, data[:7]))
    with pytest.raises(OSError, match="cannot record in the run's journal"):
        writer.append({"t": "tags", "v": {"b": "2"}})
    monkeypatch.undo()
    writer.append({"t": "tags", "v": {"c": "3"}})
    assert [record["v"] for record, _ in journal.read(writer.path)] == [{"a": "1"}, {"c": "3"}]


def test_a_damaged_cursor_counts_as_none(tmp_path: Path) -> None:
    journal.Cursor(run_id="x", offset=7).save(tmp_path)
    assert journal.Cursor.load(tmp_path) == journal.Cursor(run_id="x", offset=7)
    (tmp_path / journal.CURSOR).write_text('{"run_id": "x", "off')
    assert journal.Cursor.load(tmp_path) == journal.Cursor()


def test_a_directory_holds_one_run(start_run: Callable[..., Run]) -> None:
    run = start_run("a")
    with pytest.raises(UserError, match="already holds a tracked run"):
        start_run("a")
    run.finish()
    assert start_run("a", resume=True).key == run.key


def test_a_run_whose_process_still_writes_is_not_resumed(
    start_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = start_run("a")
    path = run.directory / "tracking" / "journal.jsonl"
    record = json.loads(path.read_text())
    # Process 1 always runs; its identity is read as any other's.
    record["owner"] = {**record["owner"], "pid": 1, "started": registry_started(1)}
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match="still being written by process 1"):
        start_run("a", resume=True)


def registry_started(pid: int) -> str:
    from pipeline.tracking import process

    started = process._started(pid)
    assert started is not None
    return started


def test_only_runs_without_a_process_are_marked_killed(start_run: Callable[..., Run], tmp_path: Path) -> None:
    experiments = tmp_path / "experiments"
    alive, dead, done = start_run("alive"), start_run("dead"), start_run("done")
    done.finish()
    for run in (dead, done):
        _give_to_a_vanished_process(run, experiments)
    assert recover(experiments) == [dead.directory]
    assert recover(experiments) == []
    assert [life(run.directory).status for run in (alive, dead, done)] == ["RUNNING", "KILLED", "FINISHED"]


def _give_to_a_vanished_process(run: Run, experiments: Path) -> None:
    for path in (
        run.directory / "tracking" / "journal.jsonl",
        experiments / ".tracking" / "pending" / f"{run.key}.json",
    ):
        path.write_text(
            path.read_text().replace('"started": "', '"started": "9').replace('"started":"', '"started":"9')
        )


def test_runs_are_found_by_key_without_a_server(start_run: Callable[..., Run], tmp_path: Path) -> None:
    run = start_run("a")
    assert registry.find_directory(tmp_path / "experiments", run.key) == run.directory
    assert registry.find_directory(tmp_path / "experiments", "nothing") is None


def test_secrets_never_reach_the_disk(start_run: Callable[..., Run], tmp_path: Path) -> None:
    secret = "hunter2"
    uri = f"http://me:{secret}@example.invalid:5000"
    run = start_run("a", tracking_uri=uri, tags={"where": uri})
    run.log_params({"logger": {"tracking_uri": uri, "storage": f"postgresql+psycopg://u:{secret}@h/db"}})
    run.log_text(f"connecting to {uri}?password={secret}", "log.txt")
    run.log_dataset("d", "1", uri, "training")
    run.finish("FAILED", error=f"cannot reach {uri}")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret not in path.read_text(errors="replace"), path
