"""How much of few samples is held out to choose between the rungs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from pipeline.config import resolve
from pipeline.config.typed import key_of
from pipeline.data.images.folder import ImageFolder
from pipeline.data.text.documents import Documents
from pipeline.runs.finished import data_of

log = logging.getLogger(__name__)

ENOUGH = 100
"""So many samples tell a model that is right in three of four from one that guesses, many models tried."""
_MOST = 1 / 3
_KEY = "data.validation_fraction"


def held_out(cfg: DictConfig, typed: Sequence[str]) -> list[str]:
    """The override by which enough of few texts or images are held out, empty where they are or somebody chose.

    A tenth of 300 texts is 30, by which nothing can be told apart: the ladder would keep the baseline whatever its
    models have learnt. The winner is trained on all of them at the end. Tables are judged by folds of all rows instead.

    Args:
        cfg: The configuration of a rung.
        typed: What was typed for all rungs.
    """
    if any(key_of(word) == _KEY for word in typed) or "validation_fraction" not in cfg.data:
        return []
    # Other data, which may be a large table, is not read for this.
    kind = resolve(cfg.data["_target_"], "data._target_")
    if not isinstance(kind, type) or not issubclass(kind, Documents | ImageFolder):
        return []
    data = data_of(cfg)
    if data.validation is None:
        return []
    held, samples = len(data.validation), len(data.train) + len(data.validation)
    # Where the data comes with samples to validate on, the setting says nothing. Classes of one sample give none.
    ours = abs(held - float(cfg.data.validation_fraction) * samples) <= 1 + len(data.spec.classes)
    if held >= ENOUGH or not ours:
        return []
    fraction = min(_MOST, ENOUGH / samples)
    log.info(
        "%.0f of %d samples are held out to choose between the rungs, since %d would tell little; the winner learns "
        "from all of them at the end (%s fixes the share)",
        *(fraction * samples, samples, held, _KEY),
    )
    return [f"{_KEY}={fraction:.4f}"]
