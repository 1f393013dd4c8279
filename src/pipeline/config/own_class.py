"""``model._target_=mine.Net`` in the place of a class of ours: its settings are its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from pipeline.config.options import merged_files

_TYPED = re.compile(r"\+{0,2}(data|model|optimizer|scheduler)\._target_=(?!['\"]?pipeline\.)")
_VARIED = re.compile(r"\+{0,2}(\w+)\._target_=.*[,(]")
SECTIONS = ("data", "model")
"""Sections in which another class is left its own defaults."""
_LEFT_TO_THE_CLASS = {"data": ("batch_size",)}
"""Settings of a shipped file that another class may have a default of its own for; of ``model``, all of them."""


def typed_sections(overrides: Sequence[str]) -> tuple[str, ...]:
    """The sections whose class was typed and is none of ours."""
    return tuple(dict.fromkeys(found[1] for override in overrides if (found := _TYPED.match(override))))


def varied_sections(overrides: Sequence[str]) -> tuple[str, ...]:
    """The sections whose class is another one in each job of a sweep."""
    return tuple(dict.fromkeys(found[1] for override in overrides if (found := _VARIED.match(override))))


def of_someone_else(cfg: DictConfig) -> list[str]:
    """The sections of ``SECTIONS`` whose class is none of ours."""
    return [section for section in SECTIONS if _is_foreign(cfg.get(section))]


def _is_foreign(node: Any) -> bool:
    written: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
    target = written.get("_target_")
    return isinstance(target, str) and not target.startswith("pipeline.") and "${" not in target


def leave_behind(
    cfg: DictConfig, meant: Collection[str], options: Mapping[str, str | None] | None = None
) -> None:
    """Take out what the shipped file of another class set for itself.

    Without this ``model._target_=torchvision.models.vgg16`` would have the ``dropout`` of ``model=mlp``, whose name it
    shares, in the place of its own default.

    Args:
        cfg: The composed configuration.
        meant: Keys that were typed, or set by an experiment: they stay.
        options: The shipped option that each section (``data``, ``model``) was made of, None for one that is not
            shipped; without it, any option of the section.
    """
    for section in of_someone_else(cfg):
        node = cfg[section]
        written: Any = OmegaConf.to_container(node, resolve=False)
        files = merged_files(section)
        shipped = [
            files[name] for name in (files if options is None else {str(options.get(section))} & files.keys())
        ]
        with read_write(node), open_dict(node):
            for key in _LEFT_TO_THE_CLASS.get(section, written):
                as_shipped = key in written and any(key in of and of[key] == written[key] for of in shipped)
                if as_shipped and key != "_target_" and f"{section}.{key}" not in meant:
                    del node[key]
