"""What the user lets a configuration name: ``--allow``, and ``[tool.pipeline] allow`` in the working directory.

Both end in the environment variable PIPELINE_ALLOW, which holds for one command and for the processes that it
starts. Nothing that a configuration says gets there.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.nearest import suggest
from pipeline.errors import UserError

_VARIABLE = "PIPELINE_ALLOW"
_SETTINGS = ("allow",)


@contextmanager
def allowing(names: Sequence[str]) -> Iterator[None]:
    """What ``names`` and the working directory's pyproject.toml allow holds for as long as the block lasts.

    Raises:
        UserError: A name is not a dotted one, or the file cannot be read.
    """
    for name in names:
        _check(name, f"--allow {name}")
    before = os.environ.get(_VARIABLE)
    every = [*([before] if before else []), *names, *_of_the_project(Path.cwd())]
    if every:
        os.environ[_VARIABLE] = ",".join(every)
    try:
        yield
    finally:
        if every:
            os.environ.pop(_VARIABLE, None)
        if every and before is not None:
            os.environ[_VARIABLE] = before


def import_from_working_directory() -> None:
    """Let modules of the working directory be imported, behind all that is installed."""
    directory = str(working_directory())
    if not {directory, ""} & set(sys.path):
        sys.path.append(directory)


def working_directory() -> Path:
    """The directory that the command was typed in, also where a job has one of its own (``hydra.job.chdir``)."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.cwd if HydraConfig.initialized() else Path.cwd())


def _of_the_project(directory: Path) -> list[str]:
    """``[tool.pipeline] allow`` of the pyproject.toml in ``directory``."""
    file = directory / "pyproject.toml"
    try:
        settings: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("pipeline", {})
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    where = f"[tool.pipeline] in {file}"
    if not isinstance(settings, dict):
        raise UserError(f'{where}: expected a table, like allow = ["my_package"]')
    for key in settings:
        if key not in _SETTINGS:
            raise UserError(f"{where}: there is no such setting {key}. {suggest(key, _SETTINGS)}")
    names = settings.get("allow", [])
    if not isinstance(names, list):
        raise UserError(f'{where}: allow = {names!r}: expected a list of names, like allow = ["my_package"]')
    for name in names:
        _check(name, f"{where}: allow = [{name!r}]")
    return names


def _check(name: object, shown: str) -> None:
    plain = name.removeprefix("env:") if isinstance(name, str) else ""
    if not all(part.isidentifier() for part in plain.split(".")):
        raise UserError(
            f"{shown}: expected the dotted name of a package, a module, a class or a function, "
            "like my_package, or env:NAME for an environment variable"
        )
