"""SciPy without the notes that it writes into its documentation while it is imported.

Since 1.16 it takes the docstrings of some hundred functions apart and adds to each which array libraries the function
was tested with: 0.3 s of processor time, wherever scikit-learn is imported. In a process that runs one command nobody
reads them.
"""

import sys
import types
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

MODULE = "scipy._lib._array_api"
DECORATOR = "xp_capabilities"


def _undecorated(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """A decorator, made of whatever words, that leaves the function as it is."""
    return lambda function: function


class _WithoutNotes(Loader):
    """Runs the file, and has the decorator replaced before anybody imports it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if hasattr(module, DECORATOR):
            setattr(module, DECORATOR, _undecorated)


class _Finder(MetaPathFinder):
    """Finds that one file of SciPy."""

    def find_spec(
        self, fullname: str, path: Any, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutNotes(spec.loader)
        return spec


def without_notes() -> None:
    """Have SciPy, unless it is there already, imported without writing them."""
    if MODULE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
