"""Which classes a configuration may name, and building objects of them.

A configuration can come from someone else, so ``_target_`` must not be a way to call anything. What counts is
the object that a name leads to, never how the name is spelt: ``logging.os.system`` is ``os.system``. A name
is looked at twice: before anything is built (:func:`check_name`, from source, without importing anything
heavy) and when it is built (:func:`resolve`, on the object).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from pipeline.config.hydra_inside import CORE_PLUGINS
from pipeline.config.nearest import suggest
from pipeline.config.renamed import current
from pipeline.config.resolvers import allowed_names
from pipeline.config.signatures import classes, definition
from pipeline.errors import UserError

# Modules whose classes may be named; each entry stands for itself and everything below it.
ALLOWED_MODULES = (
    "pipeline.data",
    "pipeline.models",
    "pipeline.training",
    "pipeline.tracking",
    "pipeline.sweeps",
    "torch.optim",
    "torch.nn",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.strategies",
    "pytorch_lightning.profilers",
    "pytorch_lightning.plugins",
    # Where Lightning's public strategies and plugins come from in part.
    "lightning_fabric.plugins",
    "lightning_fabric.strategies",
    "optuna.samplers",
    "optuna.pruners",
    CORE_PLUGINS,
    "hydra_plugins.pipeline_sweeper",
)

# What a section may name, where it is narrower than the list above: (modules, what they are called in a
# message).
SECTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "data._target_": (("pipeline.data",), "a data module of pipeline.data"),
    "model._target_": (("pipeline.models",), "a Lightning module of pipeline.models"),
    "optimizer._target_": (("torch.optim",), "an optimiser of torch.optim"),
    "scheduler._target_": (("torch.optim.lr_scheduler",), "a scheduler of torch.optim.lr_scheduler"),
    "hydra.launcher._target_": (
        (CORE_PLUGINS,),
        "Hydra's basic launcher: parallel trials are the sweeper's (hydra.sweeper.n_jobs)",
    ),
    "hydra.sweeper._target_": (
        (CORE_PLUGINS, "hydra_plugins.pipeline_sweeper"),
        "Hydra's basic sweeper or hydra/sweeper=optuna",
    ),
}

# Beside _target_ a node may say how Hydra should treat what is nested in it; nothing else that starts with _.
_HARMLESS = frozenset({"_target_", "_recursive_", "_convert_"})


def check_name(name: object, key: str) -> None:
    """Refuse a name that a configuration may not use, as far as that shows without importing it.

    Args:
        name: the value of a ``_target_``.
        key: where it stands (``optimizer._target_``), for the message.

    Raises:
        UserError: not a dotted name, no such class, not a class, or not in an allowed module.
    """
    dotted = _dotted(name, key)
    if dotted in allowed_names():
        return
    found = definition(dotted)
    if found is not None:
        _check_place(found.module, found.name, found.kind, dotted, key)
    elif _is_under(dotted, ALLOWED_MODULES):
        _refuse_missing(dotted, key)
    else:
        _refuse(dotted, key, "is not on the list of what a configuration may name")


def resolve(name: object, key: str = "_target_", *, functions: bool = False) -> Any:
    """The class that a configuration names, decided on the object itself.

    Args:
        name: dotted name.
        key: where it stands, for the message.
        functions: also accept a function, where the user allowed it by its full name (``--allow``).

    Raises:
        UserError: not allowed, or not there.
    """
    dotted = _dotted(name, key)
    by_user = dotted in allowed_names()
    if not by_user:
        # Importing a module runs it, so the name's own beginning has to be on the list before anything is
        # imported.
        check_name(dotted, key)
    found = _import(dotted, key)
    if by_user and (inspect.isclass(found) or (functions and inspect.isfunction(found))):
        return found
    kind = "class" if inspect.isclass(found) else "function" if inspect.isroutine(found) else "module"
    module = getattr(found, "__module__", None) or ""
    _check_place(module, getattr(found, "__qualname__", ""), kind, dotted, key)
    return found


def build(node: Any, *args: Any, key: str = "", functions: bool = False, **kwargs: Any) -> Any:
    """Build the object that a node of the configuration describes; nested nodes are built first.

    Args:
        node: a mapping with ``_target_`` and the constructor's arguments.
        *args: handed to the constructor first.
        key: where the node stands in the configuration (``optimizer``), for messages.
        functions: also accept a function that returns the object.
        **kwargs: handed to the constructor; they win over the node's own.

    Returns:
        The object.

    Raises:
        UserError: a class that may not be named, or arguments that its constructor refuses.

    Example:
        >>> build({"_target_": "torch.nn.Dropout", "p": 0.5})
        Dropout(p=0.5, inplace=False)
    """
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{key or 'this node'}: expected a mapping with _target_, got {node!r}")
    check_shape(node, key)
    target = resolve(node["_target_"], _join(key, "_target_"), functions=functions)
    settings = {
        name: _built(value, _join(key, name)) for name, value in node.items() if name not in _HARMLESS
    }
    try:
        return target(*args, **{**settings, **kwargs})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{key or node['_target_']}: {node['_target_']} refused its settings: {error}"
        ) from error


def check_shape(node: Mapping[Any, Any], key: str) -> None:
    """Refuse keys by which a node could change how it is called."""
    for name in node:
        if isinstance(name, str) and name.startswith("_") and name.endswith("_") and name not in _HARMLESS:
            raise UserError(
                f"{_join(key, name)}: a node with _target_ takes arguments by name only; remove {name}"
            )


def _built(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, key=key)
        return {name: _built(inner, _join(key, str(name))) for name, inner in value.items()}
    if isinstance(value, list):
        return [_built(inner, f"{key}[{position}]") for position, inner in enumerate(value)]
    return value


def _dotted(name: object, key: str) -> str:
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{key}={name!r}: expected the dotted name of a class, like torch.optim.Adam")
    return current(name)


def _check_place(module: str, name: str, kind: str, dotted: str, key: str) -> None:
    full = f"{module}.{name}" if name else module
    if full in allowed_names() and kind in ("class", "object"):
        return
    if not _is_under(module, ALLOWED_MODULES):
        what = f"is {full}, which " if full != dotted else ""
        _refuse(dotted, key, f"{what}is not on the list of what a configuration may name", kind)
    if kind != "class":
        _refuse(dotted, key, f"is a {kind}, not a class", kind)
    modules, described = SECTIONS.get(key, (ALLOWED_MODULES, ""))
    if not _is_under(module, modules):
        raise UserError(f"{key}={dotted}: expected {described}")


def _refuse(dotted: str, key: str, reason: str, kind: str = "class") -> None:
    message = (
        f"{key}={dotted}: {dotted} {reason}. Allowed are classes of this package, torch.optim, torch.nn, "
        "Lightning's callbacks, loggers, strategies, profilers and plugins, and Optuna's samplers and pruners"
    )
    if kind == "class":
        message += f". A class that you trust is allowed on the command line: --allow {dotted}"
    raise UserError(message)


def _refuse_missing(dotted: str, key: str) -> None:
    module, _, name = dotted.rpartition(".")
    raise UserError(
        f"{key}={dotted}: there is no {name} in {module}. {suggest(name, classes(module))}".strip()
    )


def _import(dotted: str, key: str) -> Any:
    parts = dotted.split(".")
    try:
        found: Any = import_module(parts[0])
        for position, part in enumerate(parts[1:], start=2):
            # A plugin that Hydra loaded by itself is a module, but no attribute of its package.
            found = (
                getattr(found, part) if hasattr(found, part) else import_module(".".join(parts[:position]))
            )
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}={dotted}: cannot be imported: {error}") from error
    return found


def _is_under(module: str, modules: tuple[str, ...]) -> bool:
    return any(module == allowed or module.startswith(allowed + ".") for allowed in modules)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
