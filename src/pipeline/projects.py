"""``python -m pipeline new DIRECTORY``: a small project to begin with."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.config.schema import write
from pipeline.errors import UserError

TEMPLATE = Path(__file__).parent / "templates" / "project"
_TAKEN = frozenset({"pipeline", "tests", "conf", "data", "test", "hydra", "torch", "lightning"})


def new(directory: str) -> Path:
    """Write a project: a data set, a network, an experiment, a test, README, pyproject.toml and dvc.yaml.

    Args:
        directory: Directory of the project, which is made, or empty. Its name becomes the project's and the package's.

    Returns:
        The directory.

    Raises:
        UserError: There is something in the directory already, or its name is not one for a package.
    """
    place = Path(directory).expanduser()
    project = place.absolute().name
    package = re.sub(r"\W+", "_", project).strip("_").lower()
    if not package.isidentifier() or package in _TAKEN:
        raise UserError(
            f"new {directory}: {project!r} cannot be the name of a package; choose another, like first_steps"
        )
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(
            f"new {directory}: there is something there already; name a directory that is empty or not there"
        )
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_dir() or "__pycache__" in source.parts:
            continue
        target = place / str(source.relative_to(TEMPLATE)).replace("PACKAGE", package)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8").replace("PACKAGE", package).replace("PROJECT", project)
        target.write_text(text, encoding="utf-8")
    write(place / "conf")
    return place


def command(words: list[str]) -> int:
    """The command line's ``new``; gives the exit code."""
    if len(words) != 1 or words[0].startswith("-"):
        raise UserError("new takes one word: python -m pipeline new DIRECTORY")
    place = new(words[0])
    print(
        f"{place}: a data set, a network, an experiment and a test. Go there, and\n"
        "  python -m pipeline --config-dir conf +experiment=first\n"
        "  python -m pytest"
    )
    return 0
