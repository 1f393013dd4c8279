"""What is installed: pinned versions that fit the stated ranges, a wheel that carries its configuration."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = [
        re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._+!-]+)", line)
        for line in lines
        if not line.startswith("#")
    ]
    assert all(named), "names and exact versions only"
    return {canonicalize_name(match[1]): match[2] for match in named if match}


def stated() -> list[Requirement]:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    everything = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    return [requirement for requirement in everything if requirement.name != PROJECT["name"]]


def test_every_stated_requirement_is_pinned_within_its_range() -> None:
    pinned = pins()
    wrong = [
        str(requirement)
        for requirement in stated()
        # It wants an older Pillow than the one that everything else is tested with: its extra is installed unpinned.
        if requirement.name != "trackio"
        and not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]
    assert wrong == []


def test_no_pinned_version_is_below_a_known_advisory() -> None:
    floors = (ROOT / ".ci" / "floors.txt").read_text(encoding="utf-8").splitlines()
    pinned = pins()
    for line in floors:
        if not line.startswith("#"):
            floor = Requirement(line.partition("#")[0])
            assert floor.specifier.contains(pinned[canonicalize_name(floor.name)]), line


def test_the_wheel_carries_configuration_and_plugin(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (
        ("conf", "pipeline/conf"),
        ("src/pipeline", "pipeline"),
        ("src/hydra_plugins", "hydra_plugins"),
    ):
        files = [
            path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in (".py", ".yaml")
        ]
        assert {f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" for path in files} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "data", "experiments"))]


def test_make_lists_every_target() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    for target in ("install", "run", "test", "ui", "bench", "audit", "test-faults"):
        assert re.search(rf"make {target} ", shown)
