"""An experiments directory that was moved or renamed with everything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.tracking import Run, find_directory, journal, registry
from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.queries import Store
from pipeline.tracking.store import open_client
from pipeline.tracking.syncing import sync


@pytest.fixture
def moved(tmp_path: Path, no_sender: None) -> tuple[Path, str]:
    """Where the directory is now, and the id of the run in it."""
    old = tmp_path / "old place" / "experiments"
    run = Run.start(
        old / "runs" / "first", experiment="tests", name="first", tracking_uri=None, experiments_dir=old
    )
    run.log_text("seed: 3", "config.yaml")
    run.finish("FINISHED")
    Delivery(run.directory, absolute_uri(None, old), old).deliver()
    run_id = run.run_id
    new = tmp_path / "elsewhere" / "kept"
    new.parent.mkdir()
    old.rename(new)
    open_client.cache_clear()
    return new, run_id


def test_what_a_run_recorded_is_found_where_its_directory_was_moved_to(
    moved: tuple[Path, str], tmp_path: Path
) -> None:
    place, run_id = moved
    store = Store(None, place)
    assert store.download_artifact(run_id, "config.yaml", tmp_path / "got").read_text() == "seed: 3"
    assert store.run(run_id).directory == place / "runs" / "first"
    assert find_directory(place, run_id) == place / "runs" / "first"
    again = Run.start(
        place / "runs" / "second", experiment="tests", name="second", tracking_uri=None, experiments_dir=place
    )
    again.log_text("seed: 4", "config.yaml")
    again.finish("FINISHED")
    Delivery(again.directory, absolute_uri(None, place), place).deliver()
    assert (
        list((place / "artifacts").rglob("config.yaml"))
        and not (tmp_path / "old place" / "experiments").exists()
    )
    assert store.download_artifact(again.run_id, "config.yaml", tmp_path / "more").read_text() == "seed: 4"


def test_what_was_not_delivered_before_the_move_is_delivered_after_it(
    tmp_path: Path, no_sender: None
) -> None:
    old, new = tmp_path / "experiments", tmp_path / "kept"
    run = Run.start(
        old / "runs" / "first", experiment="tests", name="first", tracking_uri=None, experiments_dir=old
    )
    run.log_text("seed: 3", "config.yaml")
    run.finish("FINISHED")
    old.rename(new)
    open_client.cache_clear()
    assert [entry.directory for entry in registry.pending_runs(new)] == [new / "runs" / "first"]
    summary = sync(new, absolute_uri(None, new))
    assert (summary.delivered, summary.failed) == ([new / "runs" / "first"], {})
    assert registry.pending_runs(new) == []
    run_id = journal.Cursor.load(new / "runs" / "first" / "tracking").run_id
    assert run_id is not None
    assert (
        Store(None, new).download_artifact(run_id, "config.yaml", tmp_path / "got").read_text() == "seed: 3"
    )
