"""task=sync: records that a server did not take are delivered later, and the command says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.loading import compose
from pipeline.tasks import sync as task
from pipeline.tracking import Run, Summary
from pipeline.tracking.queries import Store
from pipeline.tracking.sender_link import SenderLink


def test_a_run_that_nobody_sent_is_delivered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SenderLink, "start", lambda self: None)
    run = Run.start(
        tmp_path / "runs" / "late",
        experiment="late",
        name="late",
        tracking_uri=None,
        experiments_dir=tmp_path,
    )
    run.log_metrics({"val/accuracy": 0.75}, step=1)
    run.finish("FINISHED")
    cfg = compose(["task=sync", f"paths.experiments_dir={tmp_path}"])
    assert task.run(cfg) == 0
    assert f"delivered: {tmp_path / 'runs' / 'late'}" in capsys.readouterr().out
    assert Store(None, tmp_path).run("late").metrics == {"val/accuracy": 0.75}
    assert task.run(cfg) == 0
    assert "Nothing was waiting" in capsys.readouterr().out


def test_what_could_not_be_delivered_is_said_without_the_secret() -> None:
    address = "http://user:secret@host"  # pragma: allowlist secret
    lines = task.in_words(Summary([Path("a")], {Path("b"): f"{address} is away"}, [Path("c")]))
    assert lines[-1].startswith("1 delivered, 1 not, 1 still running")
    assert "secret" not in "\n".join(lines)
