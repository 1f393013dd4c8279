"""What a run is called in the tracking store: by what was typed for it, beside the experiment that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from omegaconf import DictConfig

from pipeline.runs.settings import ABOUT, Kind

LONGEST = 80
"""A name is cut to so many characters: a list of runs shows no more."""
_LONGEST_VALUE = 24
_SAID: tuple[Kind, ...] = ("computes", "several")
_UNTOLD = ("variants", "train")
# What a run can be looked up by (pipeline.tracking.queries).
_UNUSUAL = re.compile(r"[^\w.\- :@+=,()]")


def run_name(cfg: DictConfig, words: Sequence[str]) -> str:
    """The name of a run: what was typed for it (``hidden_units=256,128 lr=0.01``), else its experiment's.

    Args:
        cfg: Configuration of the run.
        words: Overrides as typed, those of a sweep's trial included.
    """
    return differences(words, with_groups=_asks_for_experiment(words)) or str(cfg.name)


def typed_words() -> list[str]:
    """The overrides of the command, or of the job, that is being run; none where Hydra runs nothing."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    return [str(word) for word in HydraConfig.get().overrides.task]


def differences(words: Sequence[str], with_groups: bool = True) -> str:
    """What overrides change about a fit, in few words.

    Args:
        words: Overrides as typed.
        with_groups: Whether data and model are told; where no experiment is asked for, they are its name.
    """
    told: dict[str, str] = {}
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        key = key.split("@")[0]
        if key.startswith("~") or not _is_told(key) or (key in ("data", "model") and not with_groups):
            continue
        told[key] = shortened(value)
    # What says most comes first: a list shows the beginning of a name.
    told = dict(sorted(told.items(), key=lambda item: _place(item[0])))
    last = [key.rpartition(".")[2] for key in told]
    shown: list[str] = []
    for (key, value), name in zip(told.items(), last, strict=True):
        # `data.seed` is not `seed`, and two of a name are told apart.
        short = name if last.count(name) == 1 and name not in ABOUT else key
        shown.append(f"{short}={value}")
    return _fitting(shown)


def shortened(value: str) -> str:
    """A value as it stands in a name: no brackets and quotes, numbers to four digits, of a path its last part."""
    bare = value.strip().strip("'\"")
    if bare.startswith("[") and bare.endswith("]"):
        return shortened(",".join(shortened(part) for part in bare[1:-1].split(",")))
    try:
        number = float(bare)
    except ValueError:
        bare = PurePath(bare).name if "/" in bare else bare
    else:
        bare = bare if len(bare) <= 6 else f"{number:.4g}"
    bare = _UNUSUAL.sub("_", bare)
    return bare if len(bare) <= _LONGEST_VALUE else bare[: _LONGEST_VALUE - 2] + ".."


def _is_told(key: str) -> bool:
    parts = key.split(".")
    kinds = [ABOUT[name] for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in ABOUT]
    return bool(kinds) and kinds[0] in _SAID and key not in _UNTOLD


def _place(key: str) -> int:
    order = ("data", "model", "optimizer", "scheduler")
    section = key.partition(".")[0]
    return order.index(section) if section in order else len(order) + (section in ("trainer", "callbacks"))


def _asks_for_experiment(words: Sequence[str]) -> bool:
    return any(word.lstrip("+").startswith("experiment=") for word in words)


def _fitting(parts: list[str]) -> str:
    """As many of the parts as there is room for, and how many more there are."""
    for count in range(len(parts), 0, -1):
        rest = f" +{len(parts) - count}" if count < len(parts) else ""
        if len(name := " ".join(parts[:count]) + rest) <= LONGEST:
            return name
    return ""
