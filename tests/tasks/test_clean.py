"""task=clean: what goes, and that nothing goes that somebody could miss."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.runs.cleaning import Item, free, items, protected
from pipeline.runs.listing import row_of
from pipeline.tasks import clean as task
from pipeline.tracking.queries import RunRecord

DAY = 86400.0


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Make the directory of a run as training leaves it, a month old."""

    def make(name: str, status: str = "finished", key: str | None = "", size: int = 1000) -> Path:
        directory = tmp_path / "experiments/runs/x" / name
        (directory / "checkpoints").mkdir(parents=True)
        (directory / "checkpoints/best.ckpt").write_bytes(b"x" * size)
        (directory / "state.json").write_text(json.dumps({"status": status}))
        if key is not None:
            (directory / "tracking").mkdir()
            start = {"t": "start", "key": key or name, "owner": {}}
            (directory / "tracking/journal.jsonl").write_text(json.dumps(start) + "\n")
        then = time.time() - 30 * DAY
        for path in [*directory.rglob("*"), directory]:
            os.utime(path, (then, then))
        return directory

    return make


def found(
    tmp_path: Path, *kinds: str, spared: dict[str, str] | None = None, known: str = "a b c d"
) -> dict[str, Item]:
    keys = {key: f"id-{key}" for key in known.split()}
    every = items(tmp_path / "experiments", tmp_path / "data", kinds, 7 * DAY, spared or {}, keys)
    return {str(item.path.relative_to(tmp_path)): item for item in every}


def test_only_what_is_finished_recorded_elsewhere_and_not_spared_can_go(
    tmp_path: Path, made: Callable[..., Path]
) -> None:
    for name in "abcd":
        made(name)
    made("cut", status="interrupted")
    made("running", status="running")
    made("untracked", key=None)
    made("foreign", key="e")
    young = made("young", key="d")
    os.utime(young / "checkpoints/best.ckpt")
    kept = {
        name.rpartition("/")[2]: item.kept
        for name, item in found(tmp_path, "runs", spared={"id-b": "best"}).items()
    }
    assert [name for name, why in kept.items() if not why] == ["a", "c", "d"]
    assert kept["b"] == "best" and "resumed" in kept["cut"] and "resumed" in kept["running"]
    assert (
        "nowhere else" in kept["untracked"]
        and "does not know" in kept["foreign"]
        and "7 days" in kept["young"]
    )


def test_freeing_deletes_what_was_listed_and_the_figures_are_true(
    tmp_path: Path, made: Callable[..., Path]
) -> None:
    gone, stays = made("a", size=5000), made("b")
    cache = tmp_path / "data/cache/entry"
    cache.mkdir(parents=True)
    (cache / "x.npy").write_bytes(b"x" * 700)
    listed = found(tmp_path, "checkpoints", "caches", spared={"id-b": "best"})
    assert listed["data/cache/entry"].size == 700 and listed["data/cache/entry"].kept
    assert free(listed.values()) == 5000
    assert not (gone / "checkpoints").exists() and (gone / "state.json").exists()
    assert (stays / "checkpoints/best.ckpt").exists() and cache.exists()
    words = task.in_words(list(listed.values()), 0, done=False)
    assert words[-1] == "6.7 kB in all, 5.0 kB can go: the same command with task.free=true"


@pytest.mark.parametrize("what", ["runs", "checkpoints"])
def test_a_deletion_that_was_cut_off_is_listed_and_ended_by_the_next(
    tmp_path: Path, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run = made("a")

    def cut_off(path: Path) -> None:
        # The disk went away in the middle: what says that it was a run is gone already.
        next(path.rglob("*.json" if what == "runs" else "none"), path / "none").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.rmtree", cut_off)
        free(found(tmp_path, what).values())
    left = [item for path, item in found(tmp_path, what).items() if path.endswith(".deleted")]
    assert [(item.kind, item.size, item.kept) for item in left] == [(what, left[0].size, "")]
    assert left[0].size >= 1000
    assert free(found(tmp_path, what).values()) == left[0].size
    assert not list((tmp_path / "experiments").rglob("*.deleted"))
    assert run.exists() == (what == "checkpoints") and not (run / "checkpoints").exists()


def test_what_was_left_half_deleted_stands_in_nobodys_way(tmp_path: Path, made: Callable[..., Path]) -> None:
    run, cache = made("a"), tmp_path / "data/cache/entry"
    (run / "checkpoints").rename(run / ".checkpoints.deleted")
    # A cache whose deletion was cut off, and which was prepared again since.
    for folder in (cache, cache.with_name(".entry.deleted")):
        folder.mkdir(parents=True)
        (folder / "x.npy").write_bytes(b"x" * 700)
    then = time.time() - 30 * DAY
    for path in [cache, cache / "x.npy", run]:
        os.utime(path, (then, then))
    listed = found(tmp_path, "runs", "caches", "checkpoints")
    assert {Path(name).name for name in listed} == {
        "a",
        ".checkpoints.deleted",
        "entry",
        ".entry.deleted",
    }
    assert free(listed.values()) >= 2 * 700 + 1000
    assert not run.exists() and not list((tmp_path / "data/cache").iterdir())
    # As of a second command that listed the same and comes later.
    assert free(listed.values()) == 0


def test_the_best_of_each_experiment_and_registered_runs_are_protected() -> None:
    def run(name: str, experiment: str, value: float) -> RunRecord:
        metrics, tags = {"best/val/mae": value}, {"objective": "val/mae", "objective.mode": "min"}
        return RunRecord(name, "", name, experiment, "FINISHED", {}, metrics, tags, None, None)

    rows = [row_of(run(*one)) for one in (("a", "x", 3.0), ("b", "x", 1.0), ("c", "x", 2.0), ("d", "y", 9.0))]
    assert protected(rows, {"a"}, 1) == {
        "a": "its model is registered",
        "b": "among the 1 best of x",
        "d": "among the 1 best of y",
    }


def test_without_being_told_nothing_is_deleted(
    command: Callable[..., DictConfig],
    finished: object,
    experiments: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(experiments.rglob("*.ckpt"))
    cfg = command("task=clean", "task.older_than=0s")
    OmegaConf.update(cfg, "paths.data_dir", str(experiments / "no data"))
    task.run(cfg)
    assert "in all" in capsys.readouterr().out and sorted(experiments.rglob("*.ckpt")) == before
