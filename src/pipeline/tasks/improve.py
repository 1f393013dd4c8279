"""``task=improve``: climb the ladder from the baseline to the tuned model."""

from __future__ import annotations

from omegaconf import DictConfig

from pipeline.evaluation.outputs import result_directory
from pipeline.ladder.improve import improve
from pipeline.runs.finished import TRAINING, typed_overrides


def run(cfg: DictConfig) -> None:
    """The task behind ``task=improve``."""
    from pipeline.ladder.report import in_words

    directory = result_directory(cfg)
    climb = improve(cfg, typed_overrides(*TRAINING, "debug"))
    print("\n".join([*in_words(climb), f"report: {directory / 'ladder.html'}"]))
