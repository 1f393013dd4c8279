"""Where the shipped configuration lies."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UserError


def config_directory() -> Path:
    """The shipped configuration's directory: inside an installed package, at the top of a working copy."""
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "conf", package.parents[1] / "conf"):
        if (directory / "config.yaml").is_file():
            return directory
    raise UserError(
        f"the configuration is missing: no conf/config.yaml in {package} nor in {package.parents[1]}"
    )
