"""Writes ``arguments.json`` from the classes that the shipped files name.

Run ``python -m pipeline.config.write_arguments`` after a constructor or its docstring changed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from inspect import Parameter
from typing import Any

import yaml

from pipeline.config.allowlist import resolve
from pipeline.config.arguments import FILE
from pipeline.config.rules import to_plain
from pipeline.config.shipped import config_directory
from pipeline.config.signatures import called, rules_on
from pipeline.files import write_text

# Given when the object is built, never in a configuration.
_GIVEN_LATER = frozenset({"self", "spec", "optimizer"})
_ENTRY = re.compile(r"^(\*{0,2}\w[\w, ]*): (.*)$")


def described() -> dict[str, Any]:
    """What :data:`~pipeline.config.arguments.FILE` has to hold: each class by name, with its arguments and bases."""
    found: dict[str, Any] = {}
    for name in shipped_classes():
        cls = resolve(name)
        owners = [(_owner(function, cls), function) for function in called(cls)]
        for owner, function in owners:
            found.setdefault(owner, {"bases": [], "arguments": _arguments(function, resolve(owner))})
        found[name] = {
            "bases": [owner for owner, _ in owners if owner != name],
            "arguments": found[name]["arguments"] if name in found else {},
        }
    return dict(sorted(found.items()))


def shipped_classes() -> list[str]:
    """The classes of ours that the shipped files of data sets, models and schedules name."""
    sections = ("data", "model", "scheduler")
    files = [path for section in sections for path in (config_directory() / section).glob("*.yaml")]
    named = {(yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("_target_") for path in files}
    return sorted(name for name in named if name and name.startswith("pipeline."))


def text() -> str:
    """The file's text: one argument a line."""
    classes = []
    for name, of in described().items():
        arguments = ",\n".join(f"  {_json(key)}: {_json(state)}" for key, state in of["arguments"].items())
        classes.append(f'{_json(name)}: {{"bases": {_json(of["bases"])}, "arguments": {{\n{arguments}\n}}}}')
    return "{\n" + ",\n".join(classes) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _owner(function: Callable[..., Any], cls: type) -> str:
    """The name of the class that a constructor stands in."""
    for one in cls.__mro__:
        if inspect.unwrap(vars(one).get("__init__", object.__init__)) is function:
            return f"{one.__module__}.{one.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _arguments(function: Callable[..., Any], cls: type) -> dict[str, Any]:
    rules, helps = rules_on(function), _helps(cls)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _GIVEN_LATER or parameter.kind in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL):
            continue
        state: dict[str, Any] = {"rule": to_plain(rules[name])} if name in rules else {}
        if parameter.default is not Parameter.empty:
            state["default"] = parameter.default
        found[name] = state | ({"help": helps[name]} if name in helps else {})
    return found


def _helps(cls: type) -> dict[str, str]:
    """The help of each argument: the entries below ``Args:`` of the class's docstring, each as one line."""
    lines = iter(inspect.cleandoc(cls.__doc__ or "").splitlines())
    helps: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line == "Args:":
            break
    for line in lines:
        if line and not line.startswith("    "):
            break
        entry = _ENTRY.match(line[4:])
        if entry:
            names = entry[1].split(", ")
            helps |= dict.fromkeys(names, entry[2])
        elif line.strip():
            helps |= {name: f"{helps[name]} {line.strip()}" for name in names}
    return helps


if __name__ == "__main__":
    write_text(FILE, text())
