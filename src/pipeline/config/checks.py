"""Refuse a configuration that cannot work, or must not, before anything is built.

One message for the first thing that is wrong: the key, the value, what was expected, what to do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml
from omegaconf import Container, DictConfig, Node
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from pipeline.config import template
from pipeline.config.allowlist import NODE_KEYS, check_name, check_shape, resolve, settings_of
from pipeline.config.devices import check_devices
from pipeline.config.masking import holds_secret, mask
from pipeline.config.nearest import suggest
from pipeline.config.omegaconf_inside import children, is_missing, is_null, is_reference, written
from pipeline.config.renamed import current
from pipeline.config.resolvers import READABLE_VARIABLES, allowed_names, refusal
from pipeline.config.rules import STRATEGIES, complaint
from pipeline.config.shipped import config_directory
from pipeline.config.signatures import argument_names, check_arguments
from pipeline.errors import UserError

Path = tuple[str | int, ...]

_MISSING = "???"

# How long to train, and what is expected of it beside its rule: 0 would be a run that trains nothing.
_LENGTHS = {
    "max_epochs": "at least 1",
    "max_steps": "at least 1, or -1 for no limit",
    "max_time": "a time above 0, or null for no limit",
    "limit_train_batches": "more than 0",
}

# What is added to a section beside the arguments of the class it names.
_OUR_KEYS: dict[str, frozenset[str]] = {
    "data": frozenset({"spec"}),
    "model": frozenset({"compile", "loss", "l1", "l2", "initializer", "initializer_std", "start"}),
    "optimizer": frozenset(),
    "scheduler": frozenset({"interval", "frequency", "monitor"}),
}
OF_TEST = re.compile(r"test([/_.-]|$)")
"""How names of metrics begin that are measured on the test split."""
# Records of the command line: text, not part of what it composed.
_AS_TYPED = (("hydra", "overrides"), ("hydra", "job", "override_dirname"))
# Names of a mapping in logging's own configuration that lead to something callable.
_LOGGING_CLASSES = frozenset({"class", "()"})
_LOGGING_ALLOWED = frozenset(
    {
        "logging.StreamHandler",
        "logging.FileHandler",
        "logging.NullHandler",
        "logging.Formatter",
        "logging.handlers.RotatingFileHandler",
        "logging.handlers.TimedRotatingFileHandler",
    }
)
# Variables that a job may set or copy: any other could load code into what it starts, or carry a secret into files.
_JOB_VARIABLES = READABLE_VARIABLES | {"MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM"}


def check(cfg: DictConfig, *, sweep: bool = False, for_this_machine: bool = True) -> None:
    """Check a composed configuration, Hydra's part (``hydra.*``) included where it is there.

    Args:
        cfg: Composed configuration; nothing in it is changed.
        sweep: Whether it is the common part of several jobs, each of which may bring what is still missing.
        for_this_machine: Whether to refuse a trainer that this machine cannot serve.

    Raises:
        UserError: The configuration is wrong; the message is about the first thing that is.
    """
    _check_literals(cfg, ())
    plain = _resolved(cfg, ())
    _check_targets(plain, ())
    if "hydra" in plain:
        _check_hydra(plain["hydra"], sweep)
    foreign = {section for section in _OUR_KEYS if _is_foreign(section, plain.get(section))}
    for path, value in _leaves(plain, ()):
        _check_value(_dotted(path), value, ruled=path[0] not in foreign)
    _check_keys(plain)
    if not sweep:
        _check_missing({key: value for key, value in plain.items() if key != "hydra"}, ())
    _check_together(plain)
    if for_this_machine and plain.get("trainer"):
        check_devices(plain["trainer"])


def check_classes(cfg: DictConfig) -> None:
    """Hold every setting against the class or function that takes it, before any of them is built.

    :func:`check` refuses what shows without importing torch. This is for what a class alone can tell: settings beyond
    those of the shipped files, and rules that stand on the arguments of a user's own class.

    Args:
        cfg: Configuration that was checked.

    Raises:
        UserError: A class may not be named, or does not take one of its settings.
    """
    for section in (*_OUR_KEYS, "callbacks", "trainer"):
        node = cfg.get(section)
        if isinstance(node, DictConfig):
            plain = without_left_overs(section, _resolved(node, (section,)))
            of = {"_target_": "pytorch_lightning.Trainer"} if section == "trainer" else {}
            _check_class({**of, **plain}, (section,))


def without_left_overs(section: str, node: dict[str, Any]) -> dict[str, Any]:
    """A section of a class of someone else's, without what the shipped file for another class has left in it.

    ``model._target_=my_package.Net`` stands beside the settings of ``model=mlp``. Those that the class does not take
    are left out, as long as they are as they were shipped: what was set to something else was meant for it.

    Args:
        section: Config group, which is the section too.
        node: The section, resolved.
    """
    target = node.get("_target_")
    if (
        not isinstance(target, str)
        or section not in _OUR_KEYS
        or shipped_settings(section, target) is not None
    ):
        return node
    taken = argument_names(resolve(target, f"{section}._target_"))
    shipped = [_merged(section, path.stem) for path in (config_directory() / section).glob("*.yaml")]
    kept = {*_OUR_KEYS[section], *NODE_KEYS}
    return {
        key: value
        for key, value in node.items()
        if key in kept or key in taken or not any(key in of and _as_shipped(value, of[key]) for of in shipped)
    }


def _as_shipped(value: Any, shipped: Any) -> bool:
    return value == shipped or (isinstance(shipped, str) and "${" in shipped)


def _check_class(value: Any, path: Path) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_class(inner, (*path, key))
        if "_target_" in value:
            key = _dotted(path)
            target = resolve(value["_target_"], f"{key}._target_")
            ours = _shipped("trainer/default") if key == "trainer" else _OUR_KEYS.get(key, ())
            settings = {name: given for name, given in settings_of(value).items() if name not in ours}
            check_arguments(target, settings, key)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_class(inner, (*path, position))


def check_overrides(overrides: list[str]) -> None:
    """Refuse secrets on the command line: Hydra writes it to files.

    Raises:
        UserError: An override holds an address with a password or a token.
    """
    for override in overrides:
        if holds_secret(override):
            raise UserError(
                f"{mask(override)}: the command line is written to files, so no password or token may stand "
                "in it. Put the address into an environment variable: MLFLOW_TRACKING_URI for tracking, "
                "PIPELINE_STORAGE for a sweep's storage (hydra.sweeper.storage='${oc.env:PIPELINE_STORAGE}')"
            )


def _check_literals(node: Container, path: Path) -> None:
    """Refuse class names that are put together and secrets that are written into the configuration."""
    for key, child in children(node):
        here = (*path, key)
        if isinstance(child, Container) and not is_reference(child):
            _check_literals(child, here)
            continue
        raw = written(child)
        if not isinstance(raw, str):
            continue
        if "${" in raw and (key == "_target_" or (key in _LOGGING_CLASSES and "hydra" in path)):
            raise UserError(f"{_dotted(here)}={raw}: a class is named by its plain name, without ${{...}}")
        if holds_secret(raw):
            raise UserError(
                f"{_dotted(here)}={mask(raw)}: the configuration is recorded with the run, so no "
                "password or token may stand in it; put the address into an environment variable such as "
                "MLFLOW_TRACKING_URI"
            )


def _resolved(node: Container, path: Path) -> Any:
    """Plain containers with every interpolation resolved; what is missing, or leads to it, stays ``???``."""
    if isinstance(node, DictConfig):
        return {str(key): _value(node, key, child, (*path, str(key))) for key, child in children(node)}
    return [_value(node, key, child, (*path, key)) for key, child in children(node)]


def _value(node: Container, key: Any, child: Node, path: Path) -> Any:
    if is_missing(child):
        return _MISSING
    if path in _AS_TYPED:
        return None
    if is_reference(child):
        try:
            found = node[key]
        except InterpolationToMissingValueError:
            return _MISSING
        except OmegaConfBaseException as error:
            if message := refusal(error):
                raise UserError(f"{_dotted(path)}: {message}") from error
            first_line = str(error).splitlines()[0]
            raise UserError(f"{_dotted(path)}={written(child)}: cannot be resolved: {first_line}") from error
        return _resolved(found, path) if isinstance(found, Container) else found
    if is_null(child):
        return None
    return _resolved(child, path) if isinstance(child, Container) else written(child)


def _check_targets(value: Any, path: Path) -> None:
    """Refuse any class that may not be named, wherever it is named, Hydra's own part included."""
    if isinstance(value, dict):
        if "_target_" in value:
            check_shape(value, _dotted(path))
            check_name(value["_target_"], _dotted((*path, "_target_")))
        for key, inner in value.items():
            _check_targets(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_targets(inner, (*path, position))


def _check_hydra(hydra: dict[str, Any], sweep: bool) -> None:
    """Refuse what Hydra would act on before any code of ours runs again, decided on the objects themselves."""
    acted_on = {"callbacks": hydra.get("callbacks")}
    if sweep:
        acted_on |= {"launcher": hydra.get("launcher"), "sweeper": hydra.get("sweeper")}
    for path, name in _leaves(acted_on, ("hydra",)):
        if path[-1] == "_target_":
            resolve(name, _dotted(path))
    for section in ("job_logging", "hydra_logging"):
        _check_logging(hydra.get(section), ("hydra", section))
    job = hydra.get("job") or {}
    for key in ("env_set", "env_copy"):
        for name in job.get(key) or ():
            if name not in _JOB_VARIABLES and f"env:{name}" not in allowed_names():
                raise UserError(
                    f"hydra.job.{key}: the variable {name} may not be set or copied by a configuration; "
                    f"set it in the shell, or allow it: --allow env:{name}"
                )


def _check_logging(value: Any, path: Path) -> None:
    """Refuse handlers of logging that do something else than write to the terminal or to a log file."""
    if isinstance(value, list):
        for position, inner in enumerate(value):
            _check_logging(inner, (*path, position))
    elif isinstance(value, dict):
        for key, inner in value.items():
            here = (*path, key)
            if key in _LOGGING_CLASSES and inner not in _LOGGING_ALLOWED and inner not in allowed_names():
                raise UserError(
                    f"{_dotted(here)}={inner}: not a handler or formatter that a configuration may name; "
                    f"there are {', '.join(sorted(_LOGGING_ALLOWED))}"
                )
            if key == "filename" and not str(inner).endswith(".log") and inner != _MISSING:
                raise UserError(f"{_dotted(here)}={inner}: a log file's name ends in .log")
            _check_logging(inner, here)
    elif isinstance(value, str) and "://" in value:
        protocol = value.split("://")[0]
        if protocol in ("ext", "cfg") and value not in ("ext://sys.stdout", "ext://sys.stderr"):
            raise UserError(f"{_dotted(path)}={value}: expected ext://sys.stdout or ext://sys.stderr")


def _check_keys(plain: dict[str, Any]) -> None:
    """Refuse keys that nothing would read, misspelt ones above all."""
    known = _shipped("config")
    groups = {path.name for path in config_directory().iterdir() if path.is_dir()}
    moved = template.MARK in plain
    _refuse_unknown(
        (), plain, set(known) | groups | {"hydra"} | _choosable(plain) | (template.KEYS if moved else set())
    )
    _check_sections(plain)
    for section in ("checkpoint", "objective"):
        _refuse_unknown((section,), plain.get(section), set(known.get(section) or ()))
    # A logger of Lightning's is named by its class.
    loggers = {key: node for key, node in (plain.get("logger") or {}).items() if not _is_node(node)}
    _refuse_unknown(("logger",), loggers, set(known["logger"]))
    if not moved:
        _refuse_unknown(("paths",), plain.get("paths"), set(_shipped("paths/default")))
    _check_task_keys(plain.get("task"))
    _check_callback_keys(plain.get("callbacks"))
    choices = ((plain.get("hydra") or {}).get("runtime") or {}).get("choices") or {}
    for section, ours in _OUR_KEYS.items():
        _check_arguments(section, plain.get(section), ours, choices.get(section))


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _choosable(plain: dict[str, Any]) -> set[str]:
    """Groups that the primary configuration lists, a user's own among them."""
    choices = ((plain.get("hydra") or {}).get("runtime") or {}).get("choices") or {}
    return {str(group).partition("@")[0].split("/")[0] for group in choices}


def _check_sections(plain: dict[str, Any]) -> None:
    """Refuse single values where settings with names of their own belong."""
    for section in ("checkpoint", "objective", "logger", "paths", "data", "model", "optimizer", "trainer"):
        if section in plain:
            _refuse_value(section, plain[section])
    for section in ("scheduler", "callbacks", "success"):
        if plain.get(section) is not None:
            _refuse_value(section, plain[section], "null or its settings")
    variants = plain.get("variants") or {}
    if not (isinstance(variants, dict) and all(isinstance(lines, list) for lines in variants.values())):
        raise UserError(
            f"variants={plain['variants']}: expected names with lists of settings, like"
            " 'variants={small: [model.hidden_units=8], large: [model.hidden_units=512]}'"
        )


def _refuse_value(key: str, value: Any, expected: str = "its settings", example: str = "KEY") -> None:
    """Refuse a single value where settings belong."""
    if not isinstance(value, dict):
        raise UserError(f"{key}={value}: expected {expected}, like {key}.{example}=VALUE")


def _check_task_keys(task: Any) -> None:
    if not isinstance(task, dict) or "name" not in task:
        return
    tasks = {path.stem for path in (config_directory() / "task").glob("*.yaml")}
    if task["name"] not in tasks:
        raise UserError(
            f"task.name={task['name']}: there is no such task. {suggest(str(task['name']), tasks)}"
        )
    _refuse_unknown(("task",), task, set(_shipped(f"task/{task['name']}")))


def _check_callback_keys(callbacks: Any) -> None:
    if not isinstance(callbacks, dict):
        return
    ours = _shipped("callbacks/default")
    for name, settings in callbacks.items():
        path: Path = ("callbacks", name)
        if isinstance(settings, dict) and "_target_" in settings:
            # What its class takes is known when it is imported: check_classes.
            continue
        if name in ours:
            if settings is not None:
                _refuse_value(_dotted(path), settings, "null or its settings", next(iter(ours[name])))
            _refuse_unknown(path, settings, set(ours[name] or ()))
        elif settings is not None:
            raise UserError(
                f"{_dotted(path)}: a callback needs a class: {_dotted(path)}._target_. {suggest(name, ours)}"
            )


def _check_arguments(section: str, node: Any, ours: frozenset[str], option: str | None) -> None:
    """Hold the keys of a node against the shipped files of the class that it names."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        if isinstance(node, dict) and node:
            raise UserError(f"{section}._target_ is not given: choose one of the group, like {section}=NAME")
        return
    known = shipped_settings(section, node["_target_"], option)
    if known is not None:
        _refuse_unknown((section,), node, {*known, *ours, *NODE_KEYS}, of=node["_target_"])


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
    found = (settings for name in names if (settings := _merged(section, name)).get("_target_") == target)
    return next((frozenset(settings) for settings in found), None)


@lru_cache(maxsize=64)
def _merged(section: str, option: str) -> dict[str, Any]:
    """A file of a group with those that it builds on; without them, where those are of another group."""
    written = _read(f"{section}/{option}")
    below = [name for name in written.get("defaults", []) if isinstance(name, str) and name != "_self_"]
    merged: dict[str, Any] = {}
    for name in below:
        merged |= _merged(section, name)
    return merged | _shipped(f"{section}/{option}")


def _refuse_unknown(path: Path, node: Any, known: set[str], of: str = "") -> None:
    if not isinstance(node, dict):
        return
    for key in node:
        if key not in known:
            names = {name for name in known if not name.startswith("_")}
            where = f" in {of}" if of else ""
            near = suggest(key, names, limit=40)
            near = near.replace("Did you mean ", f"Did you mean {_dotted(path)}.", 1) if path else near
            raise UserError(f"{_dotted((*path, key))}: there is no such setting{where}. {near}")


def _check_missing(value: Any, path: Path) -> None:
    for where, leaf in _leaves(value, path):
        if leaf == _MISSING:
            key = _dotted(where)
            raise UserError(f"{key} is not given: add {key}=VALUE to the command line")


def _is_foreign(section: str, node: Any) -> bool:
    """Whether a section's settings go to a class of someone else's, which the table of rules is not about."""
    target = node.get("_target_") if isinstance(node, dict) else None
    return isinstance(target, str) and not target.startswith(("pipeline.", "torch.optim."))


def _check_value(key: str, value: Any, *, ruled: bool) -> None:
    if ruled and value != _MISSING and (message := complaint(key, value)):
        raise UserError(message)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: expected a finite number")


def _check_together(plain: dict[str, Any]) -> None:
    """Refuse settings that are right by themselves and wrong beside others."""
    for path, value in _leaves(plain, ()):
        steers = path[-1] == "monitor" or path == ("objective", "metric")
        if steers and isinstance(value, str) and (of_test := OF_TEST.match(value)):
            raise UserError(
                f"{_dotted(path)}={value}: the test split is read once, at the end, so nothing may be chosen "
                f"by it; use val{of_test[1] or '/'}{value[of_test.end() :] or 'loss'}"
            )
    data, trainer = plain.get("data") or {}, plain.get("trainer") or {}
    folds, fold = data.get("folds"), data.get("fold")
    if fold is not None and folds is None:
        raise UserError(f"data.fold={fold}: data.folds is not given; say how many folds there are")
    if fold is not None and isinstance(folds, int) and fold >= folds:
        raise UserError(
            f"data.fold={fold}: expected a whole number from 0 to {folds - 1}, since data.folds={folds}"
        )
    if trainer:
        _check_length(trainer)
        if (tested := trainer.get("limit_test_batches")) == 0 and plain.get("test", True):
            raise UserError(
                f"trainer.limit_test_batches={tested}: expected more than 0; "
                "to leave the test out use test=false"
            )
        _check_validation_times(trainer)
        _check_strategy(trainer.get("strategy", "auto"))
    task = plain.get("task") or {}
    if {"min_lr", "max_lr"} <= set(task) and task["min_lr"] >= task["max_lr"]:
        raise UserError(f"task.min_lr={task['min_lr']}: expected less than task.max_lr={task['max_lr']}")


def _check_length(trainer: dict[str, Any]) -> None:
    for key, expected in _LENGTHS.items():
        length = trainer.get(key)
        if length == 0 or (isinstance(length, str) and not length.strip("0:")):
            raise UserError(
                f"trainer.{key}={length}: expected {expected}; to test without training use train=false"
            )
    epochs = trainer.get("max_epochs")
    bounded = (trainer.get("max_steps") or -1) > 0 or trainer.get("max_time")
    if epochs in (-1, None) and not bounded and not trainer.get("fast_dev_run"):
        shown = "null" if epochs is None else epochs
        raise UserError(
            f"trainer.max_epochs={shown}: the run would never end; give trainer.max_steps or trainer.max_time"
        )


def _check_validation_times(trainer: dict[str, Any]) -> None:
    every = trainer.get("val_check_interval")
    if isinstance(every, float) and trainer.get("check_val_every_n_epoch", 1) is None:
        raise UserError(
            f"trainer.val_check_interval={every}: trainer.check_val_every_n_epoch=null counts batches on through "
            "all epochs: expected a whole number of them"
        )


def _check_strategy(strategy: Any) -> None:
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise UserError(
            f"trainer.strategy={strategy}: there is no such strategy. {suggest(strategy, STRATEGIES)} "
            "Others are given by class: trainer.strategy._target_=pytorch_lightning.strategies.NAME"
        )


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value that a rule can be about: scalars, lists as a whole, mappings where a rule expects none."""
    if isinstance(value, dict) and (value or not path):
        if path and complaint(_dotted(path), value) and "_target_" not in value:
            yield path, value
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        yield path, value
        for position, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from _leaves(inner, (*path, position))
    else:
        yield path, value


def _shipped(name: str) -> dict[str, Any]:
    """A file of the shipped configuration as it is written, without its defaults list."""
    return {key: value for key, value in _read(name).items() if key != "defaults"}


@lru_cache(maxsize=64)
def _read(name: str) -> dict[str, Any]:
    text = (config_directory() / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
