"""Which classes and functions a configuration may name, and building what it describes.

A configuration can come from someone else, so ``_target_`` must not be a way to call anything. What counts is
the object that a name leads to, never how the name is spelt: ``logging.os.system`` is ``os.system``. A name
is looked at twice: before anything is imported its beginning has to be on the list (:func:`check_name`), and
when it is built the object itself decides (:func:`resolve`). The user adds to the list by ``--allow`` and in
the working directory's pyproject.toml (:mod:`pipeline.config.allowing`); a configuration cannot.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from pipeline.config.allowing import import_from_working_directory, working_directory
from pipeline.config.hydra_inside import CORE_PLUGINS
from pipeline.config.lightning_alias import offer_lightning
from pipeline.config.nearest import suggest
from pipeline.config.renamed import current
from pipeline.config.resolvers import allowed_names
from pipeline.config.signatures import check_arguments, check_complete, unexpected
from pipeline.errors import UserError

_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
_FABRIC = ("lightning_fabric", "lightning.fabric")
_PARTS = ("callbacks", "loggers", "strategies", "profilers", "plugins")

# Modules whose classes may be named; each entry stands for itself and everything below it.
ALLOWED_MODULES = (
    "pipeline.data",
    "pipeline.models",
    "pipeline.training",
    "pipeline.tracking",
    "pipeline.sweeps",
    "torch.optim",
    "torch.nn",
    "torchvision.transforms",
    *(f"{package}.{part}" for package in _LIGHTNING for part in _PARTS),
    # Where Lightning's public strategies and plugins come from in part.
    *(f"{package}.{part}" for package in _FABRIC for part in ("strategies", "plugins")),
    "optuna.samplers",
    "optuna.pruners",
    CORE_PLUGINS,
    "hydra_plugins.pipeline_sweeper",
)

# Of these, models alone: classes that are modules, and the functions that torchvision lists as its models.
TORCHVISION_MODELS = "torchvision.models"

# What a section may name of the above, where it is narrower or other: (modules, what they are called in a message).
SECTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "optimizer._target_": (("torch.optim",), "an optimiser of torch.optim"),
    "scheduler._target_": (
        ("torch.optim.lr_scheduler", "pipeline.training.schedules"),
        "a scheduler of torch.optim.lr_scheduler",
    ),
    "trainer._target_": (tuple(f"{package}.trainer" for package in _LIGHTNING), "Lightning's Trainer"),
    "hydra.launcher._target_": (
        (CORE_PLUGINS, "pipeline.sweeps.engines"),
        "no launcher for this machine (hydra.sweeper.n_jobs), hydra/launcher=slurm or hydra/launcher=ray",
    ),
    "hydra.sweeper._target_": (
        (CORE_PLUGINS, "hydra_plugins.pipeline_sweeper"),
        "Hydra's basic sweeper or hydra/sweeper=optuna",
    ),
}

# The Trainer's names that are not below the module that defines it.
_SHORT_NAMES = {f"{package}.Trainer": f"{package}.trainer.Trainer" for package in (*_LIGHTNING, "lightning")}

# Beside _target_ a node may say how Hydra should treat what is nested in it, that it is to be called later, and what
# a class that takes any number of parts (torch.nn.Sequential) is to hold; nothing else that starts with _.
NODE_KEYS = frozenset({"_target_", "_recursive_", "_convert_", "_partial_", "_args_"})
# Built by the pipeline itself, which has arguments of its own for them: complete, and by name.
_WHOLE = ("data", "optimizer", "scheduler", "trainer")


def check_name(name: object, key: str) -> None:
    """Refuse a name that a configuration may not use, as far as its beginning shows that.

    Args:
        name: Value of a ``_target_``.
        key: Key that it stands at (``optimizer._target_``), for the message.

    Raises:
        UserError: The name is no dotted one, or does not begin with an allowed module.
    """
    dotted = _dotted(name, key)
    if _is_under(dotted, allowed_names()):
        return
    modules, described = _allowed_for(key)
    if _is_under(_SHORT_NAMES.get(dotted, dotted), modules):
        # Of torchvision's models alone functions are allowed; no class of the others begins with a small letter.
        if not _is_under(dotted, (TORCHVISION_MODELS,)) and dotted.rpartition(".")[2][0].islower():
            _refuse(dotted, key, "names no class")
        return
    if described and _is_under(dotted, (*ALLOWED_MODULES, TORCHVISION_MODELS)):
        raise UserError(f"{key}={dotted}: expected {described}{_or_allowed(dotted)}")
    _refuse(dotted, key, "is not on the list of what a configuration may name")


def resolve(name: object, key: str = "_target_") -> Any:
    """The class or function that a configuration names, decided on the object itself.

    Args:
        name: Dotted name.
        key: Key that it stands at, for the message.

    Raises:
        UserError: The object is not allowed, or there is none of that name.
    """
    dotted = _dotted(name, key)
    # Importing a module runs it, so the name's own beginning has to be on the list before anything is imported.
    check_name(dotted, key)
    found = _import(dotted, key)
    if not _is_admitted(found, dotted, key):
        _refuse_object(found, dotted, key)
    return found


def build(node: Any, *args: Any, key: str = "", **kwargs: Any) -> Any:
    """Build the object that a node of the configuration describes; nested nodes are built first.

    Args:
        node: Mapping with ``_target_`` and the constructor's arguments. With ``_partial_: true`` the object is not
            built but returned as a function that builds it.
        *args: Handed to the constructor first.
        key: Key of the node in the configuration (``optimizer``), for messages.
        **kwargs: Handed to the constructor; they win over the node's own.

    Returns:
        The object.

    Raises:
        UserError: The class may not be named, or its constructor refuses the arguments.

    Example:
        >>> build({"_target_": "torch.nn.Dropout", "p": 0.5})
        Dropout(p=0.5, inplace=False)
    """
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{key or 'this node'}: expected a mapping with _target_, got {node!r}")
    check_shape(node, key)
    target = resolve(node["_target_"], _join(key, "_target_"))
    written = settings_of(node)
    positional = node.get("_args_") or []
    check_arguments(target, written, key)
    settings = {name: _built(value, _join(key, name)) for name, value in written.items()} | kwargs
    parts = (*args, *_built(positional, _join(key, "_args_")))
    if node.get("_partial_"):
        return functools.partial(target, *parts, **settings)
    check_complete(target, written, key, parts, kwargs)
    ours = not _is_the_users(target, str(node["_target_"]))
    # Where torchvision loads weights, the network or a file may be what is wrong.
    refusals = (
        (Exception,) if _is_under(_place(target)[0], (TORCHVISION_MODELS,)) else (TypeError, ValueError)
    )
    try:
        with _weights_only() if ours else nullcontext():
            return target(*parts, **settings)
    except refusals as error:
        if wrong := unexpected(error, written, target, key):
            raise UserError(wrong) from error
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key or node['_target_']}: {node['_target_']} refused its settings: {said}"
        ) from error


def settings_of(node: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments of a node with ``_target_``, without what is about the node itself."""
    return {str(name): value for name, value in node.items() if name not in NODE_KEYS}


def check_shape(node: Mapping[Any, Any], key: str) -> None:
    """Refuse keys by which a node could change how it is called.

    Raises:
        UserError: There is such a key, or one of those that are allowed has a value of the wrong kind.
    """
    for name, value in node.items():
        if not (isinstance(name, str) and name.startswith("_") and name.endswith("_")):
            continue
        here = _join(key, name)
        if name not in NODE_KEYS or (name in ("_args_", "_partial_") and key in _WHOLE):
            raise UserError(f"{here}: a node with _target_ takes arguments by name only; remove {name}")
        if name == "_partial_" and not isinstance(value, bool):
            raise UserError(f"{here}={value}: expected true or false")
        if name == "_args_" and not isinstance(value, list):
            raise UserError(f"{here}={value}: expected a list")


def _built(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, key=key)
        return {name: _built(inner, _join(key, str(name))) for name, inner in value.items()}
    if isinstance(value, list):
        return [_built(inner, f"{key}[{position}]") for position, inner in enumerate(value)]
    return value


@contextmanager
def _weights_only() -> Iterator[None]:
    """Read nothing but weights from any file that is loaded in the block.

    torchvision loads what ``weights=`` names by way of ``torch.hub``, which would unpickle what lies in its cache.
    """
    changed = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ |= changed
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _dotted(name: object, key: str) -> str:
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{key}={name!r}: expected the dotted name of a class, like torch.optim.Adam")
    return current(name)


def _allowed_for(key: str) -> tuple[tuple[str, ...], str]:
    return SECTIONS.get(key, ((*ALLOWED_MODULES, TORCHVISION_MODELS), ""))


def _is_admitted(found: Any, dotted: str, key: str) -> bool:
    if _is_the_users(found, dotted):
        return inspect.isclass(found) or inspect.isfunction(found)
    module, _ = _place(found)
    modules, _ = _allowed_for(key)
    if not _is_under(module, modules):
        return False
    return _is_a_model(found) if _is_under(module, (TORCHVISION_MODELS,)) else inspect.isclass(found)


def _is_the_users(found: Any, dotted: str) -> bool:
    """Whether the user allowed an object: by the name that leads to it, or by where it is defined."""
    names = allowed_names()
    return dotted in names or _is_under(".".join(_place(found)), names)


def _is_a_model(found: Any) -> bool:
    """Whether something of torchvision.models makes a model, rather than a file of weights or a graph of one."""
    from torch import nn
    from torchvision.models import get_model, get_model_builder, list_models

    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    return found is get_model or any(found is get_model_builder(name) for name in list_models())


def _place(found: Any) -> tuple[str, str]:
    """The module that defines an object, and its name there."""
    if inspect.ismodule(found):
        return found.__name__, ""
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return (
        module if isinstance(module, str) else "",
        name if isinstance(name, str) else type(found).__name__,
    )


def _refuse_object(found: Any, dotted: str, key: str) -> None:
    module, name = _place(found)
    kinds = ((inspect.isclass, "class"), (inspect.isroutine, "function"), (inspect.ismodule, "module"))
    kind = next((kind for is_one, kind in kinds if is_one(found)), f"{type(found).__name__} object")
    full = ".".join(part for part in (module, name) if part)
    modules, described = _allowed_for(key)
    if kind == "class" and described and _is_under(module, (*ALLOWED_MODULES, *modules)):
        raise UserError(f"{key}={dotted}: expected {described}{_or_allowed(dotted)}")
    if _is_under(module, (*modules, *allowed_names())):
        _refuse(dotted, key, f"is a {kind}, not a class")
    what = f"is {full}, which " if full != dotted else ""
    _refuse(dotted, key, f"{what}is not on the list of what a configuration may name")


def _refuse(dotted: str, key: str, reason: str) -> None:
    raise UserError(
        f"{key}={dotted}: {dotted} {reason}. Allowed are classes of this package, torch.optim, torch.nn, "
        "torchvision's models and transforms, Lightning's callbacks, loggers, strategies, profilers and plugins, and "
        f"Optuna's samplers and pruners{_or_allowed(dotted)}"
    )


def _or_allowed(dotted: str) -> str:
    """How to allow a name; nothing for what is Python's own or a library that is on the list in part."""
    package = dotted.split(".")[0]
    if package in sys.stdlib_module_names or package in {name.split(".")[0] for name in ALLOWED_MODULES}:
        return ""
    return (
        f". What you trust is allowed on the command line: --allow {dotted}; or for good, with all that {package} "
        f'defines, in the pyproject.toml of the working directory: [tool.pipeline] allow = ["{package}"]'
    )


def _import(dotted: str, key: str) -> Any:
    by_user = _is_under(dotted, allowed_names())
    if by_user:
        import_from_working_directory()
    offer_lightning()
    parts = dotted.split(".")
    found: Any = None
    for position, part in enumerate(parts, start=1):
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
            continue
        # A plugin that Hydra loaded by itself is a module, but no attribute of its package.
        module = ".".join(parts[:position])
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not _is_under(module, [error.name]):
                raise UserError(f"{key}={dotted}: cannot be imported: {error}") from error
            raise UserError(f"{key}={dotted}: {_missing(found, parts[: position - 1], part)}") from None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"{key}={dotted}: {module} cannot be imported: {type(error).__name__}: {error} "
                f"({where.filename}, line {where.lineno})"
            ) from error
    return found


def _missing(place: Any, parts: list[str], name: str) -> str:
    """What to say of a name that is not there."""
    if place is None:
        return f"there is no module {name}, neither in the working directory nor installed"
    there = [
        other
        for other, value in (vars(place) if inspect.ismodule(place) else {}).items()
        if not other.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    ]
    message = f"there is no {name} in {'.'.join(parts)}. {suggest(name, there)}"
    home = working_directory()
    own = next((path for path in (home / parts[0], home / f"{parts[0]}.py") if path.exists()), None)
    file = getattr(sys.modules[parts[0]], "__file__", None)
    if own is not None and (file is None or not Path(file).is_relative_to(home)):
        message += f" {own} is hidden by a module of that name in {file or 'Python itself'}: rename it"
    return message


def _is_under(module: str, modules: Iterable[str]) -> bool:
    return any(module == allowed or module.startswith(allowed + ".") for allowed in modules)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
