"""A configuration as plain containers: resolved, walked through, its keys named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import Container, DictConfig, Node
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from pipeline.config.omegaconf_inside import children, is_missing, is_null, is_reference, written
from pipeline.config.resolvers import refusal
from pipeline.config.rules import Rule
from pipeline.errors import UserError

Path = tuple[str | int, ...]

MISSING = "???"
# Records of the command line: text, not part of what it composed.
_AS_TYPED = (("hydra", "overrides"), ("hydra", "job", "override_dirname"))


def resolved(node: Container, path: Path) -> Any:
    """Plain containers with every interpolation resolved; what is missing, or leads to it, stays ``???``."""
    if isinstance(node, DictConfig):
        return {str(key): _value(node, key, child, (*path, str(key))) for key, child in children(node)}
    return [_value(node, key, child, (*path, key)) for key, child in children(node)]


def _value(node: Container, key: Any, child: Node, path: Path) -> Any:
    if is_missing(child):
        return MISSING
    if path in _AS_TYPED:
        return None
    if is_reference(child):
        try:
            found = node[key]
        except InterpolationToMissingValueError:
            return MISSING
        except OmegaConfBaseException as error:
            if message := refusal(error):
                raise UserError(f"{dotted(path)}: {message}") from error
            first_line = str(error).splitlines()[0]
            raise UserError(f"{dotted(path)}={written(child)}: cannot be resolved: {first_line}") from error
        return resolved(found, path) if isinstance(found, Container) else found
    if is_null(child):
        return None
    return resolved(child, path) if isinstance(child, Container) else written(child)


def leaves(
    value: Any, path: Path, rule_for: Callable[[str], Rule | None] | None = None
) -> Iterator[tuple[Path, Any]]:
    """Every value that a rule can be about: scalars, lists as a whole, mappings that a rule of ``rule_for`` refuses."""
    if isinstance(value, dict) and (value or not path):
        rule = rule_for(dotted(path)) if rule_for and path and "_target_" not in value else None
        if rule and not rule.holds(value):
            yield path, value
        for key, inner in value.items():
            yield from leaves(inner, (*path, key), rule_for)
    elif isinstance(value, list):
        yield path, value
        for position, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from leaves(inner, (*path, position), rule_for)
    else:
        yield path, value


def dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
