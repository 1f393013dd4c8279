"""A worker's environment: what it takes along from the command that started the sweep, and its share of a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.masking import holds_secret
from pipeline.process_life import SHARE_OF_CORES, cores, finding_this_package

_CARRIED = ("PIPELINE_", "MLFLOW_", "PG", "OMP_", "HF_", "TORCH_")
# Of machines that are made alike; others have these of their own.
_NEEDED = ("PATH", "HOME", "USER", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TZ")
# An engine keeps what it is given in files and tables of its own, which others read.
_NEVER = ("PASSWORD", "TOKEN", "SECRET", "_KEY")


def names_to_carry(environment: Mapping[str, str], alike: bool = True) -> list[str]:
    """The names of the variables that workers elsewhere take along: what this project and its libraries read.

    Passwords and tokens are not among them.

    Args:
        environment: Variables of this process.
        alike: Whether the other machines are made like this one, with the same home and programs.
    """
    names = ("PYTHONPATH", *(_NEEDED if alike else ()))
    return sorted(
        name
        for name, value in environment.items()
        if (name in names or name.startswith(_CARRIED))
        and not name.endswith(_NEVER)
        and not holds_secret(value)
    )


def worker_environment(number: int, workers: int, url: str) -> dict[str, str]:
    """The environment of a worker of this machine: the storage's address, its GPU and its share of the cores."""
    environment = finding_this_package({**os.environ, "PIPELINE_STORAGE": url})
    # Each library would start a thread for every core, and the workers would get in each other's way.
    if not environment.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = str(max(cores() // workers, 1))
        if not environment.get("MKL_NUM_THREADS"):
            environment[SHARE_OF_CORES] = "1"
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return environment


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, without asking CUDA, which takes seconds and memory on each."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    devices = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(devices.iterdir())))] if devices.is_dir() else []


def last_line(path: Path | None) -> str:
    """The last line of a log, and where all of it is."""
    lines = (
        path.read_text(errors="replace").strip().splitlines() if path is not None and path.exists() else []
    )
    said = lines[-1] if lines else "they leave no word"
    return f"the workers keep dying: {said}" + (f" (all of it: {path})" if path is not None else "")
