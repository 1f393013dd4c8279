"""What a class or function takes, asked of the object itself; and the rules that stand on its arguments.

``def __init__(self, width: Annotated[int, Number(1, whole=True)] = 64)``: the rule on an argument decides which
values a configuration may give it (:mod:`pipeline.settings` has the kinds of rules).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any, get_args, get_type_hints

from pipeline.config.nearest import suggest
from pipeline.config.rules import Rule, complaint
from pipeline.errors import UserError

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
# Arguments that are given when the object is built, never in a configuration.
_GIVEN_LATER = frozenset({"params", "optimizer", "spec"})
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")


def check_arguments(target: Any, settings: Mapping[str, Any], key: str) -> None:
    """Hold the settings of a node against what its class or function takes.

    Args:
        target: Class or function.
        settings: Its arguments by name, as the configuration has them.
        key: Key of the node in the configuration, for messages.

    Raises:
        UserError: The target does not take one of the settings, or a rule refuses a value.
    """
    parameters = _parameters(target)
    if parameters and not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        taken = {parameter.name for parameter in parameters if parameter.kind in _BY_NAME}
        for name in settings:
            if name not in taken:
                raise UserError(_no_such(name, target, key))
    for name, rule in rules_of(target).items():
        value = settings.get(name)
        built_first = isinstance(value, Mapping) and "_target_" in value
        if name in settings and not built_first and (wrong := complaint(_at(key, name), value, rule)):
            raise UserError(wrong)


def check_complete(
    target: Any, settings: Collection[str], key: str, given: Sequence[Any], named: Collection[str]
) -> None:
    """Refuse a call that lacks an argument.

    Args:
        target: Class or function.
        settings: Names of the arguments that the configuration gives.
        key: Key of the node in the configuration, for messages.
        given: Arguments that come first.
        named: Names of arguments that are given beside the settings.

    Raises:
        UserError: An argument without a default is missing.
    """
    parameters = _parameters(target)
    filled = {parameter.name for parameter in parameters if parameter.kind in _BY_PLACE}
    filled = set([parameter.name for parameter in parameters if parameter.name in filled][: len(given)])
    for parameter in parameters:
        there = parameter.name in {*filled, *settings, *named} or parameter.default is not Parameter.empty
        if parameter.kind in (*_BY_NAME, *_BY_PLACE) and not there:
            here = _at(key, parameter.name)
            raise UserError(f"{here} is not given, which {_named(target)} needs: add +{here}=VALUE")


def unexpected(error: Exception, settings: Collection[str], target: Any, key: str) -> str | None:
    """The message for a call that failed because a base class does not take one of the settings; else None."""
    found = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    return _no_such(found[1], target, key) if found and found[1] in settings else None


def argument_names(target: Any) -> set[str]:
    """The names of the arguments of a class or function, with those of bases where ``**kwargs`` may lead there."""
    return {p.name for function in called(target) for p in _parameters(function) if p.kind in _BY_NAME} - {
        "self"
    }


def rules_of(target: Any) -> dict[str, Rule]:
    """The rules on the arguments of a class or function, and of the bases to which it hands others on."""
    rules: dict[str, Rule] = {}
    for function in called(target):
        rules = rules_on(function) | rules
    return rules


def rules_on(function: Callable[..., Any]) -> dict[str, Rule]:
    """The rules on the arguments of one function."""
    rules: dict[str, Rule] = {}
    for name, annotation in inspect.get_annotations(function).items():
        for beside in _metadata(function, annotation) if "Annotated" in str(annotation) else ():
            if isinstance(beside, Rule):
                rules.setdefault(name, beside)
    return rules


def _metadata(function: Callable[..., Any], annotation: Any) -> Iterator[Any]:
    """What ``Annotated`` says beside the type, also where that is a part of ``… | None``."""
    holder = type("_", (), {"__annotations__": {"it": annotation}})
    try:
        hint = get_type_hints(holder, function.__globals__, include_extras=True)["it"]
    except (NameError, AttributeError, TypeError):
        # A name that is imported for type checkers alone.
        return
    for part in (hint, *get_args(hint)):
        yield from getattr(part, "__metadata__", ())


def _parameters(target: Any) -> list[Parameter]:
    """The parameters of a class or function; none where it does not tell (what is written in C)."""
    try:
        return list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return []


def called(target: Any) -> Iterator[Callable[..., Any]]:
    """The function that a call begins with, and the constructors of bases as long as ``**kwargs`` may lead there."""
    constructors = (
        [vars(one).get("__init__") for one in target.__mro__] if inspect.isclass(target) else [target]
    )
    for constructor in filter(inspect.isfunction, constructors):
        function = inspect.unwrap(constructor)
        yield function
        if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in _parameters(function)):
            return


def _no_such(name: str, target: Any, key: str) -> str:
    near = suggest(name, argument_names(target) - _GIVEN_LATER, limit=40)
    near = near.replace("Did you mean ", f"Did you mean {key}.", 1) if key else near
    return f"{_at(key, name)}: there is no such setting in {_named(target)}. {near}"


def _named(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _at(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
