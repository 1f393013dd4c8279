"""``model._target_=mine.Net`` in the place of a class of ours: its settings are its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from pipeline.config.options import merged_file
from pipeline.config.shipped import config_directory

_TYPED = re.compile(r"\+{0,2}(data|model|optimizer|scheduler)\._target_=(?!['\"]?pipeline\.)")
_VARIED = re.compile(r"\+{0,2}(\w+)\._target_=.*[,(]")
_LEFT_TO_THE_CLASS = {"data": ("batch_size",)}
"""Settings of a shipped file that another class may have a default of its own for; of ``model``, all of them."""


def typed_sections(overrides: Sequence[str]) -> tuple[str, ...]:
    """The sections whose class was typed and is none of ours."""
    return tuple(dict.fromkeys(found[1] for override in overrides if (found := _TYPED.match(override))))


def varied_sections(overrides: Sequence[str]) -> tuple[str, ...]:
    """The sections whose class is another one in each job of a sweep."""
    return tuple(dict.fromkeys(found[1] for override in overrides if (found := _VARIED.match(override))))


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
    for section in ("data", "model"):
        node = cfg.get(section)
        written: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
        target = written.get("_target_")
        if not isinstance(target, str) or target.startswith("pipeline.") or "${" in target:
            continue
        shipped = _shipped(section, options)
        with read_write(node), open_dict(node):
            for key in _LEFT_TO_THE_CLASS.get(section, written):
                as_shipped = key in written and any(key in of and of[key] == written[key] for of in shipped)
                if as_shipped and key != "_target_" and f"{section}.{key}" not in meant:
                    del node[key]


def _shipped(section: str, options: Mapping[str, str | None] | None) -> list[dict[str, Any]]:
    files = {path.stem for path in (config_directory() / section).glob("*.yaml")}
    names = files if options is None else {str(options.get(section))} & files
    return [merged_file(section, name) for name in sorted(names)]
