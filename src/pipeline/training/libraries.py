"""The two packages that Lightning comes in, ``pytorch_lightning`` and ``lightning``: each has classes of its own.

Either one's Trainer refuses the other's modules and calls callbacks and plugins of its own classes alone. A person's
LightningModule decides which one trains it; what this package adds is made part of that one.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from importlib import import_module
from typing import Any

LIBRARIES = {"pytorch_lightning": "lightning_fabric", "lightning.pytorch": "lightning.fabric"}
"""Each package with the one below it that holds strategies and plugins."""

_OURS = ("pytorch_lightning.", "lightning_fabric.")
_ROOTS = ("Callback", "Checkpoint", "CheckpointIO", "Logger")
"""Base classes by which a Trainer knows what it is given."""


def library_of(found: Any, root: str = "LightningModule") -> str | None:
    """The package whose ``root`` a class (or an object's class) descends from, None if it does not."""
    kind = found if inspect.isclass(found) else type(found)
    for base in kind.__mro__:
        if base.__name__ == root:
            for library in LIBRARIES:
                if base.__module__.startswith(f"{library}."):
                    return library
    return None


@lru_cache(maxsize=64)
def in_library(kind: Any, library: str) -> Any:
    """A callback or plugin class of ours, as a class of ``library`` too.

    The classes of both packages are alike but for their place, so that it is enough to descend from the other one's
    base class as well.
    """
    if library == "pytorch_lightning":
        return kind
    base = next(
        base for base in kind.__mro__ if base.__module__.startswith(_OURS) and base.__name__ in _ROOTS
    )
    module = base.__module__.replace("pytorch_lightning.", "lightning.pytorch.")
    module = module.replace("lightning_fabric.", "lightning.fabric.")
    other = getattr(import_module(module), base.__name__)
    return type(
        kind.__name__, (kind, other), {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    )


def name_in_library(dotted: str, library: str) -> str:
    """A class of Lightning's by the name that it has in ``library``; any other name as it is."""
    fabric = LIBRARIES[library]
    for other, below in LIBRARIES.items():
        if dotted.startswith(f"{other}."):
            return library + dotted[len(other) :]
        if dotted.startswith(f"{below}."):
            return fabric + dotted[len(below) :]
    return dotted


def adopt_data_module(inner: Any, library: str) -> Any:
    """Make a person's LightningDataModule, which may be of the other package, one that ``library``'s Trainer takes.

    It stays the same object: its class is followed by one that descends from the other package's base class too, whose
    hooks stand where the person wrote none, so that the Trainer knows which are the person's own.
    """
    written_for = library_of(inner, "LightningDataModule")
    if written_for in (library, None):
        return inner
    base, other = (import_module(name).LightningDataModule for name in (str(written_for), library))
    untouched = {
        name: getattr(other, name)
        for name in dir(other)
        if not name.startswith("_")
        and inspect.isfunction(getattr(other, name))
        and getattr(type(inner), name, None) is getattr(base, name, None)
    }
    kind = type(inner)
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    inner.__class__ = type(kind.__name__, (kind, other), {**untouched, **named})
    return inner
