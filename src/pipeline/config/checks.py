"""Refuse a configuration that cannot work, or must not, before anything is built.

One message for the first thing that is wrong: the key, the value, what was expected, what to do.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from omegaconf import Container, DictConfig

from pipeline.config import template
from pipeline.config.allowlist import NODE_KEYS, check_name, check_shape, resolve, settings_of
from pipeline.config.devices import check_devices
from pipeline.config.hydra_part import LOGGING_CLASSES, check_hydra
from pipeline.config.keys import rules_for
from pipeline.config.masking import holds_secret, mask
from pipeline.config.nearest import suggest
from pipeline.config.omegaconf_inside import children, is_reference, written
from pipeline.config.options import merged_files, shipped_file, shipped_settings
from pipeline.config.plain import MISSING, Path, dotted, leaves, resolved
from pipeline.config.rules import Rule, complaint
from pipeline.config.shipped import config_directory
from pipeline.config.signatures import argument_names, check_arguments
from pipeline.config.together import check_together
from pipeline.errors import UserError

# What is added to a section beside the arguments of the class it names.
_OUR_KEYS: dict[str, frozenset[str]] = {
    "data": frozenset({"spec"}),
    "model": frozenset(
        {"compile", "loss", "l1", "l2", "initializer", "initializer_std", "start"}
        | {"weights", "freeze", "solver", "alpha", "unfreeze", "unfreeze_epoch", "layer_decay"}
        | {"solve_first", "freeze_norm"}
    ),
    "optimizer": frozenset(),
    "scheduler": frozenset({"interval", "frequency", "monitor"}),
}


_OF_THIS_MACHINE = "hydra.sweeper.n_jobs=N, which runs N worker processes on this machine"
# Launchers of others, which would run each job once and know nothing of the ones that were lost.
_OTHER_LAUNCHERS = {
    "submitit_slurm": "hydra/launcher=slurm, which takes the same settings",
    "ray_aws": "hydra/launcher=ray with the address of a cluster that runs",
    "ray_jobs": "hydra/launcher=ray with the address of a cluster that runs",
    "submitit_local": _OF_THIS_MACHINE,
    "joblib": _OF_THIS_MACHINE,
}


def check(
    cfg: DictConfig, *, sweep: bool = False, for_this_machine: bool = True, unknown: Collection[str] = ()
) -> None:
    """Check a composed configuration, Hydra's part (``hydra.*``) included where it is there.

    Args:
        cfg: Composed configuration; nothing in it is changed.
        sweep: Whether it is the common part of several jobs, each of which may bring what is still missing.
        for_this_machine: Whether to refuse a trainer that this machine cannot serve.
        unknown: Sections whose class each job brings, so that their settings are held against it there.

    Raises:
        UserError: The configuration is wrong; the message is about the first thing that is.
    """
    _check_literals(cfg, ())
    plain = {key: value for key, value in resolved(cfg, ()).items() if key not in unknown}
    _check_targets(plain, ())
    if "hydra" in plain:
        check_hydra(plain["hydra"], sweep)
    rule_for = rules_for(plain)
    for path, value in leaves(plain, (), rule_for):
        _check_value(dotted(path), value, rule_for(dotted(path)))
    _check_keys(plain)
    if not sweep:
        _check_missing({key: value for key, value in plain.items() if key != "hydra"}, ())
    check_together(plain)
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
            plain = without_left_overs(section, resolved(node, (section,)))
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
    shipped = merged_files(section).values()
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
            key = dotted(path)
            target = resolve(value["_target_"], f"{key}._target_")
            ours = shipped_file("trainer/default") if key == "trainer" else _OUR_KEYS.get(key, ())
            settings = {name: given for name, given in settings_of(value).items() if name not in ours}
            check_arguments(target, settings, key)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_class(inner, (*path, position))


def check_overrides(overrides: list[str]) -> None:
    """Refuse secrets on the command line, which Hydra writes to files, and launchers that have another name here.

    Raises:
        UserError: An override holds an address with a password or a token, or names such a launcher.
    """
    for override in overrides:
        if holds_secret(override):
            raise UserError(
                f"{mask(override)}: the command line is written to files, so no password or token may stand "
                "in it. Put the address into an environment variable: MLFLOW_TRACKING_URI for tracking, "
                "PIPELINE_STORAGE for a sweep's storage (hydra.sweeper.storage='${oc.env:PIPELINE_STORAGE}')"
            )
        group, _, choice = override.partition("=")
        if group.lstrip("+") == "hydra/launcher" and choice in _OTHER_LAUNCHERS:
            raise UserError(f"{override}: use {_OTHER_LAUNCHERS[choice]}")


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
        if "${" in raw and (key == "_target_" or (key in LOGGING_CLASSES and "hydra" in path)):
            raise UserError(f"{dotted(here)}={raw}: a class is named by its plain name, without ${{...}}")
        if holds_secret(raw):
            raise UserError(
                f"{dotted(here)}={mask(raw)}: the configuration is recorded with the run, so no "
                "password or token may stand in it; put the address into an environment variable such as "
                "MLFLOW_TRACKING_URI"
            )


def _check_targets(value: Any, path: Path) -> None:
    """Refuse any class that may not be named, wherever it is named, Hydra's own part included."""
    if isinstance(value, dict):
        if "_target_" in value:
            check_shape(value, dotted(path))
            check_name(value["_target_"], dotted((*path, "_target_")))
        for key, inner in value.items():
            _check_targets(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_targets(inner, (*path, position))


def _check_keys(plain: dict[str, Any]) -> None:
    """Refuse keys that nothing would read, misspelt ones above all."""
    known = shipped_file("config")
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
        _refuse_unknown(("paths",), plain.get("paths"), set(shipped_file("paths/default")))
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
    _refuse_unknown(("task",), task, set(shipped_file(f"task/{task['name']}")))


def _check_callback_keys(callbacks: Any) -> None:
    if not isinstance(callbacks, dict):
        return
    ours = shipped_file("callbacks/default")
    for name, settings in callbacks.items():
        path: Path = ("callbacks", name)
        if isinstance(settings, dict) and "_target_" in settings:
            # What its class takes is known when it is imported: check_classes.
            continue
        if name in ours:
            if settings is not None:
                _refuse_value(dotted(path), settings, "null or its settings", next(iter(ours[name])))
            _refuse_unknown(path, settings, set(ours[name] or ()))
        elif settings is not None:
            raise UserError(
                f"{dotted(path)}: a callback needs a class: {dotted(path)}._target_. {suggest(name, ours)}"
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


def _refuse_unknown(path: Path, node: Any, known: set[str], of: str = "") -> None:
    if not isinstance(node, dict):
        return
    for key in node:
        if key not in known:
            names = {name for name in known if not name.startswith("_")}
            where = f" in {of}" if of else ""
            near = suggest(key, names, limit=40)
            near = near.replace("Did you mean ", f"Did you mean {dotted(path)}.", 1) if path else near
            raise UserError(f"{dotted((*path, key))}: there is no such setting{where}. {near}")


def _check_missing(value: Any, path: Path) -> None:
    for where, leaf in leaves(value, path):
        if leaf == MISSING:
            key = dotted(where)
            raise UserError(f"{key} is not given: add {key}=VALUE to the command line")


def _check_value(key: str, value: Any, rule: Rule | None) -> None:
    if value != MISSING and (message := complaint(key, value, rule)):
        raise UserError(message)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: expected a finite number")
