"""``task=improve``: climb the ladder from the baseline to the tuned model."""

from __future__ import annotations

from omegaconf import DictConfig

from pipeline.config.typed import typed_overrides
from pipeline.evaluation.outputs import result_directory
from pipeline.ladder.improve import improve
from pipeline.runs.settings import EVERY_FIT
from pipeline.runs.several import refuse_several


def run(cfg: DictConfig) -> None:
    """The task behind ``task=improve``."""
    from pipeline.ladder.report import in_words

    refuse_several(cfg)
    directory = result_directory(cfg)
    climb = improve(cfg, typed_overrides(*EVERY_FIT))
    print("\n".join([*in_words(climb), f"report: {directory / 'ladder.html'}"]))
