"""``import lightning`` where that package is not installed.

Most people write ``import lightning as L``, and its classes are those of ``pytorch_lightning`` and
``lightning_fabric`` by another name. Where only these are installed, the other name leads to them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any

_PLACES = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}


def offer_lightning() -> None:
    """Let ``lightning`` be imported, unless it is installed."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    try:
        distribution("lightning")
    except PackageNotFoundError:
        # In front: a directory of that name beside the user's modules does not hide the library, as it could not
        # if it were installed.
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "lightning":
            return ModuleSpec(fullname, _Top(), is_package=True)
        place = next((name for name in _PLACES if fullname == name or fullname.startswith(f"{name}.")), None)
        if place is None:
            return None
        real = _PLACES[place] + fullname[len(place) :]
        try:
            return ModuleSpec(fullname, _Same(import_module(real)), is_package=True)
        except ModuleNotFoundError as error:
            if error.name != real:
                raise
            return None


class _Top(Loader):
    """``lightning`` itself: what ``pytorch_lightning`` offers, and the two packages below it."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        found = import_module("pytorch_lightning")
        names: dict[str, Any] = {
            name: value
            for name, value in vars(found).items()
            if not name.startswith("__") or name == "__version__"
        }
        vars(module).update(names, pytorch=found, fabric=import_module("lightning_fabric"))


class _Same(Loader):
    """A module that is there already, by its other name."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the other name's spec into it.
        module.__spec__ = self.spec
