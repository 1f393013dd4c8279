"""The experiment learns what it is meant to learn."""

from pathlib import Path

import torch
from PACKAGE.model import Small

from pipeline import train

CONF = Path(__file__).parents[1] / "conf"


def test_a_point_gets_one_logit_a_class() -> None:
    assert Small(inputs=2, outputs=2)(torch.zeros(5, 2)).shape == (5, 2)


def test_the_experiment_beats_the_baseline(tmp_path: Path) -> None:
    result = train(
        "+experiment=first",
        "logger=none",
        f"paths.experiments_dir={tmp_path}",
        config_dir=CONF,
        allow=["PACKAGE"],
    )
    assert result.metrics["test/accuracy"] > 0.9 > result.baseline["test/accuracy"]
