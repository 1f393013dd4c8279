"""`python -m pipeline new`: what it writes works at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.__main__ import main


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=place,
        capture_output=True,
        text=True,
        env=environment,
        timeout=250,
    )


@pytest.mark.slow
def test_its_two_commands_work_at_once(tmp_path: Path, with_store: Callable[[Path], Path]) -> None:
    place = tmp_path / "first-steps"
    made = run(tmp_path, "pipeline", "new", "first-steps")
    assert made.returncode == 0 and "python -m pytest" in made.stdout
    with_store(place / "experiments")
    trained = run(place, "pipeline", "--config-dir", "conf", "+experiment=first", "hydra.run.dir=here")
    assert trained.returncode == 0, trained.stderr
    result = json.loads((place / "here/result.json").read_text(encoding="utf-8"))
    assert result["metrics"]["test/accuracy"] > 0.9 and result["model"]["class"] == "Small"
    tested = run(place, "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout


def test_what_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    assert main(["new", str(tmp_path)]) == 2
    assert "something there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "said"), [(["torch"], "cannot be the name of a package"), ([], "takes one word")]
)
def test_names_that_no_package_can_have_are_refused(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", *words]) == 2
    assert said in capsys.readouterr().err
