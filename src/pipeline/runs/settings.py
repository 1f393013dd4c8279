"""What each part of the configuration is about; which settings make a run follows from it.

Runs are resumed, recorded, handed on, repeated and compared in studies. Each leaves out what is not about that, and
each for a reason of its own, so that the lists differ: they stand here side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict

Kind = Literal["computes", "several", "after", "named", "command", "where", "shown", "saving", "machine"]

ABOUT: dict[str, Kind] = {
    # What the fit computes.
    **dict.fromkeys(("data", "model", "optimizer", "scheduler", "trainer", "callbacks"), "computes"),
    **dict.fromkeys(("seed", "checkpoint", "objective", "train", "ckpt_path"), "computes"),
    # Of how many fits the run is made.
    **dict.fromkeys(("variants", "seeds", "success"), "several"),
    # What is done with the trained model.
    "test": "after",
    # What it is called.
    **dict.fromkeys(("name", "tags"), "named"),
    # What this command does with runs.
    **dict.fromkeys(("task", "resume", "ladder", "hydra"), "command"),
    # Where things lie and are recorded.
    **dict.fromkeys(("paths", "logger", "data.data_dir"), "where"),
    # What a person sees meanwhile.
    **dict.fromkeys(
        ("callbacks.progress", "trainer.enable_progress_bar", "trainer.record_every_n_steps"), "shown"
    ),
    # How much is lost when the process is killed.
    **dict.fromkeys(("checkpoint.every_n_steps", "checkpoint.every_seconds"), "saving"),
    # Which hardware computes, and how it is made use of.
    **dict.fromkeys(("trainer.accelerator", "trainer.devices", "trainer.strategy"), "machine"),
    **dict.fromkeys(("trainer.num_nodes", "trainer.steps_per_call", "trainer.threads"), "machine"),
}
"""Every section of the configuration, and the settings within a section that are about something else than it is."""


def keys(*kinds: Kind) -> tuple[str, ...]:
    """The sections and settings of some kinds, as dotted keys."""
    return tuple(key for key, kind in ABOUT.items() if kind in kinds)


def sections(*kinds: Kind) -> tuple[str, ...]:
    """The whole sections of some kinds."""
    return tuple(key for key in keys(*kinds) if "." not in key)


NOT_RESUMED_BY = (*sections("where"), *keys("command", "shown"), "tags")
"""What may differ where ``resume=auto`` goes on with a run.

The rest has to be the same, so that the run ends with the bits that it would have ended with. The name belongs to it,
since a run goes on under the name that it began with. ``data.data_dir`` could be left out, but is part of the
fingerprints of all runs that there are.
"""

NOT_RECORDED = (*sections("where"), "hydra")
"""What is no parameter of a tracked run: the store and the directories that it is in say so themselves."""

NOT_HANDED_ON = (*NOT_RECORDED, "resume")
"""What later steps do not get: they run elsewhere, and nothing of theirs goes on with this run."""

NOT_OF_A_STUDY = keys("where", "command", "shown", "named", "after", "saving", "machine")
"""What may change while a study goes on: its trials stay comparable. Bits need not be the same on another machine."""

NOT_COMPARED = (
    *keys("command", "named", "where", "shown", "saving", "machine", "after"),
    "variants",
    "train",
)
"""What does not tell one run from another where runs are listed."""

NOT_OF_AN_EXPERIMENT = sections("where", "command")
"""What the winner of a sweep is written down without, as an experiment that anyone runs in places of their own."""

OF_A_LADDER = (*sections("named", "command", "where"), "seed")
"""What is recorded of a ladder itself: its data and model are those of no rung."""

EVERY_FIT = ("experiment", "debug", *sections("computes", "where"), "tags")
"""Sections and groups whose typed settings hold for every fit of a task that makes several.

Such a task names its fits itself, and it alone knows when the test split is read.
"""


def without(values: Mapping[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """A copy of plain values without some dotted keys."""
    found = {}
    for key, value in values.items():
        if key in left_out:
            continue
        inner = [name.removeprefix(f"{key}.") for name in left_out if name.startswith(f"{key}.")]
        found[key] = without(value, inner) if inner and isinstance(value, Mapping) else value
    return found


def settings_of(cfg: DictConfig, left_out: Collection[str]) -> dict[str, Any]:
    """The resolved configuration as plain values, without some dotted keys."""
    # Hydra's own part may refer to what is only there while it runs.
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    values: Any = OmegaConf.to_container(own, resolve=True)
    return without(values, left_out)


def handed_on(cfg: DictConfig) -> DictConfig:
    """The configuration of a run as a later step takes it up, on whichever machine."""
    found = OmegaConf.create(settings_of(cfg, NOT_HANDED_ON))
    with open_dict(found):
        found.task.output = None
        if "data_dir" in found.data:
            found.data.data_dir = "data"
    return found


def taken_up(found: DictConfig, cfg: DictConfig) -> None:
    """Let a configuration that was recorded or handed on find its data and be recorded where this command is."""
    with open_dict(found):
        for section in sections("where"):
            found[section] = cfg[section]
        found.resume = None
        if isinstance(found.data, DictConfig) and "data_dir" in found.data:
            found.data.data_dir = cfg.paths.data_dir
