"""From the command line and conf/ to a configuration that can be trusted, and from its nodes to objects.

The parts: ``loading`` composes, ``checks`` refuses what cannot work before anything is built (``hydra_part`` what Hydra
would act on, ``together`` what goes wrong side by side, ``options`` knows what the shipped files set), ``allowlist``
decides which classes a configuration may name and builds them, ``allowing`` reads what the user allows beyond that,
``rules`` has the kinds of ranges, ``keys`` and ``arguments`` say which one a setting has, ``signatures`` which
arguments a class takes, ``resolvers`` holds what
``${...}`` may do, ``overview`` writes ``--help``. Each is imported when it is used, so that help and errors answer at
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.config.shipped import config_directory

if TYPE_CHECKING:
    from pipeline.config.allowlist import build, resolve
    from pipeline.config.checks import check
    from pipeline.config.loading import compose

__all__ = ["build", "check", "compose", "config_directory", "resolve"]

_HOMES = {"build": "allowlist", "resolve": "allowlist", "check": "checks", "compose": "loading"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f"pipeline.config.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
