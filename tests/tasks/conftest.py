"""Two finished runs on the embedded digits, recorded in a store of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from pipeline.runs.result import RunResult

RUNS = {"linear": ["+experiment=digits_linear"], "mlp": ["+experiment=digits_mlp", "model.hidden_units=[32]"]}


@pytest.fixture(autouse=True, scope="package")
def _no_study_plots() -> Iterator[None]:
    """Sweeps inside of tasks draw nothing: it takes seconds each, and tests/sweeps looks at the plots."""
    from pipeline.sweeps import engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "write_plots", lambda *_: [])
        yield


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the runs are recorded in."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="session")
def finished(experiments: Path) -> dict[str, RunResult]:
    """A linear model and an MLP, trained for three epochs each and delivered to the tracking store."""
    from pipeline.config.loading import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    results = {}
    for name, overrides in RUNS.items():
        small = ["trainer.max_epochs=3", "trainer.accelerator=cpu", f"paths.experiments_dir={experiments}"]
        cfg = compose([*overrides, *small])
        results[name] = train(cfg, Hooks(directory=experiments / "runs" / name, quiet=True))
    return results


@pytest.fixture
def command(experiments: Path) -> Callable[..., DictConfig]:
    """The configuration of a command that looks at those runs."""
    from pipeline.config.loading import compose

    def composed(*overrides: str) -> DictConfig:
        return compose([*overrides, f"paths.experiments_dir={experiments}"])

    return composed
