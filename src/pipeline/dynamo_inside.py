"""Training that compiles nothing without torch's compiler.

Lightning imports `torch._dynamo` for one `isinstance`, and torch's optimisers for functions that do nothing outside of
compiled code. Importing it imports Inductor, Triton, SymPy and half of torch.distributed: a quarter of the processor
time from the command to the first step. Here the package stands in `sys.modules` before it has run; it runs as soon as
anybody asks it for more than these few (``torch.compile`` does). So does `torch.utils.flop_counter`, which Lightning
imports for its own summary of a model, and which imports Triton.
"""

import contextlib
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from pipeline.torchmetrics_inside import AlreadyThere

PACKAGE = "torch._dynamo"
_ASKED = {
    "OptimizedModule": ("lightning_fabric.wrappers", "pytorch_lightning.utilities.compile"),
    "graph_break": ("torch.optim.optimizer",),
    "disable": ("torch._compile", "torch.compiler"),
}
"""What is answered without running the package, and whom."""
FLOPS = "torch.utils.flop_counter"
_SUMMARIES = tuple(
    f"{name}.utilities.model_summary.model_summary" for name in ("pytorch_lightning", "lightning.pytorch")
)


class _OptimizedModule(type):
    """What torch.compile makes of a module: nothing is one as long as the package has not run."""

    def __instancecheck__(cls, instance: object) -> bool:
        package = sys.modules[PACKAGE]
        return not isinstance(package, _Unrun) and isinstance(instance, package.OptimizedModule)


class OptimizedModule(metaclass=_OptimizedModule):
    """In the place of `torch._dynamo.OptimizedModule` where Lightning asks whether something is one."""


class _Unrun(types.ModuleType):
    """The package, found and not run."""

    def __init__(self, name: str, loader: Loader) -> None:
        super().__init__(name)
        self._loader = loader
        self._lock = threading.RLock()
        self._called: list[Callable[..., Any]] = []

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules (inspect, warnings) is not interested in this one.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        asking = _asking()
        if asking in _ASKED.get(name, ()):
            if name == "disable":
                return self._as_it_is if asking == "torch._compile" else self._when_called
            return {"OptimizedModule": OptimizedModule, "graph_break": _nothing}[name]
        self.run()
        return getattr(self, name)

    def _as_it_is(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """The function itself: what compiles nothing need not be kept from it. torch keeps the answer."""
        self._called.append(function)
        return function

    def _when_called(self, function: Any = None, recursive: bool = True, **words: Any) -> Any:
        """torch's own way to keep a function from being compiled that asks for the package when it is called."""
        if not isinstance(function, types.FunctionType):
            self.run()
            return self.disable(function, recursive, **words)
        return sys.modules["torch._compile"]._disable_dynamo(function, recursive)

    def run(self) -> None:
        """Become the package itself, unless that has happened."""
        with self._lock:
            if type(self) is not _Unrun:
                return
            called, loader = self._called, self._loader
            self.__class__ = types.ModuleType  # type: ignore[assignment]
            sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
            loader.exec_module(self)
            for function in called:
                # torch asks once more, and is answered by the package.
                function.__dict__.pop("__dynamo_disable", None)


class _UncountedFlops(types.ModuleType):
    """The file that counts operations, found and not run."""

    def __init__(self, name: str, loader: Loader) -> None:
        super().__init__(name)
        self._loader = loader
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {FLOPS!r} has no attribute {name!r}")
        if name == "FlopCounterMode" and _asking() in _SUMMARIES:
            return _flop_counter
        with self._lock:
            if type(self) is _UncountedFlops:
                self.__class__ = types.ModuleType  # type: ignore[assignment]
                self._loader.exec_module(self)
        return getattr(self, name)


def _flop_counter(*arguments: Any, **named: Any) -> Any:
    """What Lightning's summary takes for the class, and only ever calls."""
    return sys.modules[FLOPS].FlopCounterMode(*arguments, **named)


def _nothing() -> None:
    """What a break in compiled code is outside of such."""


def _asking() -> str:
    """Name of the module that asks the package for something."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_globals.get("__name__", ""):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "") if frame is not None else ""


class _Finder(MetaPathFinder):
    """Finds the package without running it, and runs it before one of its files is imported; finds the other file."""

    def find_spec(
        self, fullname: str, path: Any, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in (PACKAGE, FLOPS):
            spec = PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Later(spec.loader)
            return spec
        package = sys.modules.get(PACKAGE) if fullname.startswith(f"{PACKAGE}.") else None
        if not isinstance(package, _Unrun):
            return None
        package.run()
        # As long as it stands there, Python prefers its own spec to the one given here, and executes the file again.
        loaded = sys.modules.pop(fullname, None)
        return ModuleSpec(fullname, AlreadyThere(loaded)) if loaded is not None else None


class _Later(Loader):
    """Leaves running the package to the one who asks it for something."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return (_Unrun if spec.name == PACKAGE else _UncountedFlops)(spec.name, self._loader)

    def exec_module(self, module: types.ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader


@contextlib.contextmanager
def telling_nobody() -> Iterator[None]:
    """Lightning's trainers switch nondeterministic kernels on without importing Inductor in order to tell it so.

    torch tells it whatever the mode; this one is what Inductor begins with.
    """
    told = sys.modules["torch"].use_deterministic_algorithms

    def use(mode: bool, *, warn_only: bool = False) -> None:
        if mode or "torch._inductor.config" in sys.modules or "TORCHINDUCTOR_DETERMINISTIC" in os.environ:
            told(mode, warn_only=warn_only)
        else:
            sys.modules["torch"]._C._set_deterministic_algorithms(mode, warn_only=warn_only)

    sys.modules["torch"].use_deterministic_algorithms = use  # type: ignore[attr-defined]
    try:
        yield
    finally:
        sys.modules["torch"].use_deterministic_algorithms = told  # type: ignore[attr-defined]


def put_off() -> None:
    """Have torch's compiler imported when more of it is asked for than training asks for that compiles nothing."""
    if PACKAGE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
