"""``task=evaluate``: test a finished run, on its own test split or on other data."""

from __future__ import annotations

from omegaconf import DictConfig

from pipeline.config.typed import typed_overrides
from pipeline.evaluation.evaluate import evaluate, in_words
from pipeline.evaluation.outputs import result_directory


def run(cfg: DictConfig) -> None:
    """The task behind ``task=evaluate``."""
    result = evaluate(cfg, other_data=bool(typed_overrides("data", "experiment")))
    print("\n".join([*in_words(result), f"directory: {result_directory(cfg)}"]))
