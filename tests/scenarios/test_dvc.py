"""The chain of dvc.yaml: what its stages say they depend on is what they depend on."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.config import build
from pipeline.config.loading import compose

pytest.importorskip("dvc")

ROOT = Path(__file__).resolve().parents[2]
CHAIN = ["prepare", "explore", "baseline", "train", "sweep", "evaluate", "report"]
COPIED = (
    "conf",
    "src",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
)


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return values


def commands(stage: dict[str, Any]) -> list[str]:
    """A stage's commands with the parameters put in."""
    params = read("params.yaml")

    def value(reference: re.Match[str]) -> str:
        node: Any = params
        for key in reference[1].split("."):
            node = node[key]
        return str(node)

    several = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
    # A dollar after a backslash is not DVC's.
    return [re.sub(r"(?<!\\)\$\{([\w.]+)\}", value, command).replace(r"\${", "${") for command in several]


def outputs(stage: dict[str, Any]) -> list[str]:
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def test_the_stages_are_the_chain_from_the_data_to_a_report() -> None:
    assert list(read("dvc.yaml")["stages"]) == CHAIN


@pytest.mark.parametrize("name", CHAIN)
@pytest.mark.parametrize("data", ["digits", "mnist", "food_orders"])
def test_every_command_composes_and_writes_where_its_outputs_are(name: str, data: str) -> None:
    stage = read("dvc.yaml")["stages"][name]
    for command in commands(stage):
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "pipeline"]
        cfg = compose([f"data={data}" if word.startswith("data=") else word for word in words[3:]])
        assert any(path.startswith(f"{cfg.task.output}/") for path in outputs(stage))


@pytest.mark.parametrize("name", CHAIN)
def test_a_stage_depends_on_every_parameter_that_its_command_holds(name: str) -> None:
    stage, params = read("dvc.yaml")["stages"][name], read("params.yaml")
    declared = stage.get("params", [])
    used = set(re.findall(r"\$\{([\w.]+)\}", str(stage["cmd"])))
    assert all(any(key == entry or key.startswith(f"{entry}.") for entry in declared) for key in used)
    assert all(entry.split(".")[0] in params for entry in declared)


@pytest.mark.parametrize("data", ["digits", "food_orders"])
def test_the_commands_of_the_chain_end_in_a_report(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.sweeps import engine

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "write_plots", lambda *_: [])
    # The search is to find an experiment of the user's own.
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text(
        "# @package _global_\ntrainer:\n  max_epochs: 1\n", encoding="utf-8"
    )
    few = ["data.orders=2000", "data.customers=40", "data.areas=2"] if data == "food_orders" else []
    short = {
        "train": ["trainer.max_epochs=1"],
        "sweep": ["--config-dir=mine", "experiment=own", "trainer.max_epochs=1", "task.trials=2"],
    }
    for name, stage in read("dvc.yaml")["stages"].items():
        for command in commands(stage):
            words = [
                f"data={data}" if word.startswith("data=") else word for word in shlex.split(command)[3:]
            ]
            fewer = few if any(word.startswith("data=") for word in words) else []
            assert main([*words, *fewer, *short.get(name, []), "logger=none"]) == 0, command
        missing = [path for path in outputs(stage) if not (tmp_path / path).exists()]
        assert not missing
    report = json.loads((tmp_path / "results/report/metrics.json").read_text(encoding="utf-8"))
    assert report["chosen"] in ("train", "sweep")
    page = (tmp_path / "results/report/report.html").read_text(encoding="utf-8")
    assert "Chosen on validation data" in page
    if data == "food_orders":
        assert f"{report['test/hit_rate_at_5']:.4f}" in page
        return
    assert f"{report['test/accuracy']:.4f}" in page
    # It says what a run's own table says, from the same two answers to every test sample.
    chosen = tmp_path / "results/evaluate" / report["chosen"]
    judged = json.loads((chosen / "metrics.json").read_text(encoding="utf-8"))["verdict"]
    with (chosen / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [row["actual"] for row in rows]
    hits = np.array([row["actual"] == row["predicted"] for row in rows], dtype=float)
    assert judged["model"] == pytest.approx(hits.mean())
    assert judged["baseline"] == pytest.approx(labels.count(most_frequent()) / len(labels))
    assert judged["gain"] == pytest.approx(judged["model"] - judged["baseline"])
    assert judged["low"] < judged["gain"] < judged["high"]
    assert f"The model beats the {judged['against']} baseline" in page and judged["low"] > 0


def most_frequent() -> str:
    """The class of digits that most training samples have."""
    data = build(compose(["data=digits"]).data, key="data")
    data.setup()
    return str(data.spec.classes[int(data.train.y.bincount().argmax())])


def test_what_is_read_is_written_by_an_earlier_stage_or_is_in_the_repository() -> None:
    written: list[str] = []
    for stage in read("dvc.yaml")["stages"].values():
        for path in stage["deps"]:
            made = any(
                path == one or one.startswith(f"{path}/") or path.startswith(f"{one}/") for one in written
            )
            assert made if path.startswith("results/") else (ROOT / path).exists(), path
        written += outputs(stage)


def test_ids_and_times_are_no_metrics_and_no_result_depends_on_them() -> None:
    stages = read("dvc.yaml")["stages"]
    for name in ("train", "sweep"):
        assert f"results/{name}/run.json" in stages[name]["outs"]
    metrics = [path for stage in stages.values() for path in map(str, stage.get("metrics", []))]
    assert len(metrics) == 6
    assert not [path for path in metrics if "run.json" in path or "cache': False" not in path]
    assert not [dep for dep in stages["evaluate"]["deps"] if "run" in dep.split("/")[-1]]


def test_the_committed_lock_is_of_these_commands() -> None:
    locked, stages = read("dvc.lock")["stages"], read("dvc.yaml")["stages"]
    assert set(locked) == set(CHAIN)
    for name, stage in stages.items():
        said = locked[name]["cmd"]
        assert [" ".join(one.split()) for one in (said if isinstance(said, list) else [said])] == [
            # DVC takes the backslash off what it is not to put in itself.
            " ".join(one.split()).replace(r"\${", "${")
            for one in commands(stage)
        ]


def test_nothing_is_sent_to_anyone() -> None:
    settings = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    assert re.search(r"^\s*analytics = false$", settings, re.MULTILINE)
    assert re.search(r"^\s*check_update = false$", settings, re.MULTILINE)


class Clone:
    """A fresh copy of the repository with DVC at work in it, offline and away from the user's settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in COPIED:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, directory / name)
        settings = {
            f"DVC_{kind}_DIR": str(directory.parent / f"{directory.name}-{kind.lower()}")
            for kind in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")
        }
        self.environment = {
            **os.environ,
            **settings,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(directory / "src"),
            "PIPELINE_OFFLINE": "1",
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        self.run("git", "init", "--quiet")
        self.commit()

    def commit(self) -> None:
        self.run("git", "add", "--all")
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        self.run("git", *who, "commit", "--quiet", "--allow-empty", "--message", "a state")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def repro(self, *targets: str) -> list[str]:
        """The stages that ran."""
        return re.findall(r"^Running stage '(\w+)'", self.run("dvc", "repro", *targets), re.MULTILINE)

    def metrics(self) -> dict[str, str]:
        """A digest of each metrics file."""
        found = sorted((self.directory / "results").rglob("metrics.json"))
        return {
            str(path.relative_to(self.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
        }

    def set(self, **values: Any) -> None:
        """Change parameters; a dot in a name is written as two underscores."""
        path = self.directory / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            *sections, key = name.split("__")
            node = params
            for section in sections:
                node = node[section]
            node[key] = value
        path.write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.mark.slow
def test_stages_run_once_and_only_for_what_they_depend_on(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    assert clone.repro("baseline") == ["prepare", "baseline"]
    clone.set(seed=5, train__max_epochs=3)
    assert clone.repro("baseline") == []
    assert (clone.directory / "results/baseline/metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_chain(tmp_path: Path, long_form: bool) -> None:
    if not long_form:
        pytest.skip("takes minutes: --long")
    one, other = Clone(tmp_path / "one"), Clone(tmp_path / "other")
    for clone in (one, other):
        clone.set(train__max_epochs=3, sweep__trials=2, sweep__max_epochs=2)
        assert sorted(clone.repro()) == sorted(CHAIN)
        assert clone.repro() == []
    assert len(one.metrics()) == 6
    assert one.metrics() == other.metrics()
    one.commit()
    one.set(train__max_epochs=4)
    assert one.repro() == ["train", "evaluate", "report"]
    assert "results/train/metrics.json" in one.run("dvc", "metrics", "diff")
    shown = one.run("dvc", "exp", "run", "--name", "shorter", "-S", "train.max_epochs=2")
    assert "Running stage 'train'" in shown
    assert "Running stage 'sweep'" not in shown
    assert "shorter" in one.run("dvc", "exp", "show", "--no-pager", "--csv")
    assert '"dvc_experiment": "shorter"' in (one.directory / "results/train/run.json").read_text(
        encoding="utf-8"
    )
    assert Path(one.run("dvc", "plots", "show").strip().splitlines()[-1].removeprefix("file://")).is_file()
