"""The contributor's guide works as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_files_of_the_guide_make_an_experiment(tmp_path: Path) -> None:
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(
        r"^`((?:src|conf)/[\w/]+\.(?:py|yaml))`.*?```\w+\n(.*?)^```", guide, re.DOTALL | re.MULTILINE
    )
    assert [path for path, _ in named] == [
        "src/pipeline/data/moons.py",
        "conf/data/moons.yaml",
        "src/pipeline/models/wide.py",
        "conf/model/wide.yaml",
        "conf/experiment/moons_wide.yaml",
    ]
    for path, text in named:
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(text, encoding="utf-8")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-m", "pipeline", "+experiment=moons_wide", "trainer=cpu", "logger=none"]
    settings = ["trainer.max_epochs=6", "optimizer.lr=0.02"]
    run = subprocess.run(
        [*command, *settings],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "data: moons (1,467 train" in run.stdout
    assert "The model beats the majority baseline" in run.stdout
