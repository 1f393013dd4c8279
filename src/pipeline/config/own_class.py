"""``model._target_=mine.Net``, typed in the place of a class of ours: its settings are its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from pipeline.config.options import merged_file

_TYPED = re.compile(r"\+{0,2}(data|model|optimizer|scheduler)\._target_=(?!['\"]?pipeline\.)")
_LEFT_TO_THE_CLASS = {"data": ("batch_size",)}
"""Settings of a shipped file that another class may have a default of its own for; of ``model``, all of them."""


def typed_sections(overrides: Sequence[str]) -> tuple[str, ...]:
    """The sections whose class was typed and is none of ours."""
    return tuple(dict.fromkeys(found[1] for override in overrides if (found := _TYPED.match(override))))


def leave_behind(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Take out what the shipped file of another class set for itself.

    Without this ``model._target_=torchvision.models.vgg16`` would have the ``dropout`` of ``model=mlp``, whose name it
    shares, in the place of its own default. What was typed or set by an experiment stays.

    Args:
        cfg: The composed configuration, with Hydra's own part.
        overrides: What was typed.
    """
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for section in {"data", "model"} & {*typed_sections(overrides)}:
        node, option = cfg.get(section), cfg.hydra.runtime.choices.get(section)
        if not isinstance(node, DictConfig) or option is None:
            continue
        shipped: dict[str, Any] = merged_file(section, str(option))
        written: Any = OmegaConf.to_container(node, resolve=False)
        with read_write(node), open_dict(node):
            for key in _LEFT_TO_THE_CLASS.get(section, written):
                as_shipped = key in shipped and key in written and written[key] == shipped[key]
                if as_shipped and key != "_target_" and f"{section}.{key}" not in typed:
                    del node[key]
