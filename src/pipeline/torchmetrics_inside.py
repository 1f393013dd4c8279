"""Lightning's own use of torchmetrics without the rest of that package.

Lightning needs two of its classes. Importing them imports the whole package, and with it torchvision, scipy and,
where they are installed, transformers: half of the processor time from the command to the first step. Here the
package stands in `sys.modules` before it has run; it runs as soon as anybody asks it for more than Lightning does.
The two classes draw their values where they are asked to: the file that does so, and Matplotlib, come then.
"""

import contextlib
import importlib
import importlib.util
import logging
import sys
import threading
import types
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

PACKAGE = "torchmetrics"
_PLACES = {
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
_DRAWING = "torchmetrics.utilities.plot"


class _Axes(type):
    """The class of Matplotlib's axes, which is imported when something is held against it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, importlib.import_module(_DRAWING)._AX_TYPE)


class Axes(metaclass=_Axes):
    """In the place of Matplotlib's axes where a collection of metrics asks whether something is one."""


def _draw(*arguments: Any, **named: Any) -> Any:
    """In the place of the function that both classes draw with."""
    return importlib.import_module(_DRAWING).plot_single_or_multi_val(*arguments, **named)


def _undrawn() -> types.ModuleType:
    """What the files of the two classes import of the one that draws."""
    module = types.ModuleType(_DRAWING)
    module.__dict__.update(_AX_TYPE=Axes, _PLOT_OUT_TYPE=object, plot_single_or_multi_val=_draw)
    return module


class _Unrun(types.ModuleType):
    """The package, found and not run."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__package__, self.__path__ = spec.name, list(spec.submodule_search_locations or ())
        self._lock = threading.RLock()
        self._inside = 0

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules (inspect, warnings) is not interested in this one.
        if name.startswith("__") and name not in ("__version__", "__all__"):
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        with self._lock:
            if self._inside and name == "_logger":
                # The files of the two classes write to it.
                return logging.getLogger(PACKAGE)
            if name in _PLACES:
                with contextlib.suppress(ImportError), self._by_itself():
                    if name in ("Metric", "MetricCollection"):
                        # The files of both import this one, which imports theirs: this is the way in.
                        importlib.import_module("torchmetrics.utilities")
                    return getattr(importlib.import_module(_PLACES[name]), name)
        self.run()
        return getattr(self, name)

    @contextlib.contextmanager
    def _by_itself(self) -> Iterator[None]:
        self._inside += 1
        stands_in = _undrawn() if _DRAWING not in sys.modules else None
        if stands_in is not None:
            sys.modules[_DRAWING] = stands_in
        try:
            yield
        finally:
            self._inside -= 1
            if stands_in is not None:
                del sys.modules[_DRAWING]

    def run(self) -> None:
        """Become the package itself, unless that has happened or one of its files is being imported by itself."""
        with self._lock:
            if self._inside or type(self) is not _Unrun:
                return
            self.__class__ = types.ModuleType  # type: ignore[assignment]
            sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
            assert self.__spec__ is not None
            assert self.__spec__.loader is not None
            self.__spec__.loader.exec_module(self)


class _Finder(MetaPathFinder):
    """Runs the package before one of its files is imported by somebody else."""

    def __init__(self, package: _Unrun) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        self._package.run()
        # As long as it stands there, Python prefers its own spec to the one given here, and executes the file again.
        loaded = sys.modules.pop(fullname, None)
        return ModuleSpec(fullname, AlreadyThere(loaded)) if loaded is not None else None


class AlreadyThere(Loader):
    """A file that the package has imported while it ran; importing it once more would make second classes."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        sys.modules[self._module.__name__] = self._module


def put_off() -> None:
    """Have torchmetrics run when more of it is asked for than Lightning asks for."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.loader is not None:
        package = _Unrun(spec)
        sys.modules[PACKAGE] = package
        sys.meta_path.insert(0, _Finder(package))
