"""What the files of the shipped configuration say: the options of each group and their settings."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml

from pipeline.config.renamed import current
from pipeline.config.shipped import config_directory


def shipped_file(name: str) -> dict[str, Any]:
    """A file of the shipped configuration as it is written, without its defaults list."""
    return {key: value for key, value in _read(name).items() if key != "defaults"}


def shipped_settings(section: str, target: str, option: str | None = None) -> frozenset[str] | None:
    """Every setting of a class of this package, as the files of its group list them; None for any other class.

    Args:
        section: Config group, which is the section too.
        target: Dotted name of the class.
        option: File of the group that was chosen, which is looked at first; reading all of them takes 20 ms.
    """
    if not target.startswith("pipeline."):
        return None
    target, directory = current(target), config_directory() / section
    names = [option] if option and (directory / f"{option}.yaml").is_file() else []
    names += sorted(path.stem for path in directory.glob("*.yaml"))
    found = (settings for name in names if (settings := merged_file(section, name)).get("_target_") == target)
    return next((frozenset(settings) for settings in found), None)


def merged_files(section: str) -> dict[str, dict[str, Any]]:
    """All shipped options of a group by name, see :func:`merged_file`."""
    names = sorted(path.stem for path in (config_directory() / section).glob("*.yaml"))
    return {name: merged_file(section, name) for name in names}


@lru_cache(maxsize=64)
def merged_file(section: str, option: str) -> dict[str, Any]:
    """A file of a group with those that it builds on; without them, where those are of another group."""
    written = _read(f"{section}/{option}")
    below = [name for name in written.get("defaults", []) if isinstance(name, str) and name != "_self_"]
    merged: dict[str, Any] = {}
    for name in below:
        merged |= merged_file(section, name)
    return merged | shipped_file(f"{section}/{option}")


@lru_cache(maxsize=64)
def _read(name: str) -> dict[str, Any]:
    text = (config_directory() / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
