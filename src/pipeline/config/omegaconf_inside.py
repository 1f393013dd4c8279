"""The only door to OmegaConf's private side: nodes as they are written, and the resolvers that there are.

``tests/config/test_omegaconf_inside.py`` holds OmegaConf to it, and fails by name where a version changes something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import omegaconf
from omegaconf import Container, DictConfig, Node, OmegaConf
from omegaconf.basecontainer import BaseContainer

AT_LEAST_2_4 = tuple(int(part) for part in omegaconf.__version__.split(".")[:2]) >= (2, 4)


def children(container: Container) -> Iterator[tuple[Any, Node]]:
    """The keys or positions of a container with what is written there; nothing of one that is null or missing.

    Public access resolves ``${...}`` on the way: what is written is to be judged before anything of it runs.
    """
    if container._is_none() or container._is_missing():
        return
    mapping = isinstance(container, DictConfig)
    keys: list[Any] = list(container) if mapping else list(range(len(container)))  # type: ignore[arg-type]
    for key in keys:
        child = container._get_node(key)
        assert isinstance(child, Node)
        yield key, child


def is_reference(node: Node) -> bool:
    """Whether ``${...}`` is written there."""
    return node._is_interpolation()


def is_missing(node: Node) -> bool:
    """Whether ``???`` is written there."""
    return node._is_missing()


def is_null(node: Node) -> bool:
    """Whether null is written there."""
    return node._is_none()


def written(node: Node) -> Any:
    """The value as it is written: ``${...}`` as text."""
    return node._value()


def resolver_names() -> list[str]:
    """Every resolver that ``${name:...}`` can call; the public interface only tells whether a known name is one."""
    return list(BaseContainer._resolvers)


def register_resolver(name: str, function: Callable[..., Any], *, use_cache: bool = False) -> None:
    """Have ``${name:...}`` call a function, in the place of one of that name.

    Nothing private, but the public function has another name in OmegaConf 2.4, where it also compares annotations.
    """
    if AT_LEAST_2_4:
        register: Callable[..., None] = OmegaConf.register_resolver
        register(name, function, replace=True, use_cache=use_cache, annotation_validation="off")
    else:
        OmegaConf.register_new_resolver(name, function, replace=True, use_cache=use_cache)
