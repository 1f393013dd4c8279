"""Settings that say how much to train, at 0, tiny, huge and in between: each means something or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from pipeline.config.checks import check
from pipeline.config.loading import compose
from pipeline.errors import Diverged, UserError
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train

NUMBERS = [
    *(0, 0.0, 1e-320, 1e-9, 0.5, 1, 1.0, 1.5, 2, 2.0, 10**12, 10**20, 1e30, 1e300),
    *(-1, -1.0, -0.5, float("nan"), float("inf"), None, True, False, "many"),
]
TIMES = ["00:00:00:00", "00:00:00:01", "99:99:99:99", "999999:00:00:00", "9" * 14 + ":00:00:00", 0, 1e300]
KEYS = {
    "limit_train_batches": NUMBERS,
    "limit_val_batches": NUMBERS,
    "limit_test_batches": NUMBERS,
    "limit_predict_batches": NUMBERS,
    "overfit_batches": NUMBERS,
    "max_epochs": NUMBERS,
    "min_epochs": NUMBERS,
    "max_steps": NUMBERS,
    "min_steps": NUMBERS,
    "max_time": TIMES,
    "val_check_interval": NUMBERS,
    "check_val_every_n_epoch": NUMBERS,
    "num_sanity_val_steps": NUMBERS,
    "log_every_n_steps": NUMBERS,
    "accumulate_grad_batches": NUMBERS,
    "steps_per_call": NUMBERS,
    "fast_dev_run": NUMBERS,
    "reload_dataloaders_every_n_epochs": NUMBERS,
    "gradient_clip_val": NUMBERS,
    "threads": NUMBERS,
}
# One batch of training data, and five.
SIZES = {"one batch": (40, 64), "five batches": (300, 51)}


class Enough(Exception):
    """Ends a fit that would go on for ever."""


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """The linear model on the digits, two epochs."""
    words = ["experiment=digits_linear", "trainer=cpu", "logger=none", "callbacks.progress=null"]
    return compose([*words, "trainer.max_epochs=2"])


def run(composed: DictConfig, directory: Path, size: str, **settings: Any) -> RunResult:
    cfg = composed.copy()
    cfg.data.train_samples, cfg.data.batch_size = SIZES[size]
    for key, value in settings.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    check(cfg)

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 3:
            raise Enough

    hooks = Hooks(directory=directory, reports=False, baseline=False, on_epoch=on_epoch)
    return train(cfg, hooks)


def last_state(result: RunResult) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(result.directory / "checkpoints/last.ckpt", weights_only=True)
    return state


# An epoch of one batch is a case of its own for what counts batches.
COUNTS_BATCHES = [
    key for key in KEYS if "batch" in key or key in ("val_check_interval", "steps_per_call", "fast_dev_run")
]
CASES = [*((key, "five batches") for key in KEYS), *((key, "one batch") for key in COUNTS_BATCHES)]


@pytest.mark.parametrize(("key", "size"), CASES)
def test_an_extreme_value_trains_or_is_refused_by_name(
    key: str, size: str, composed: DictConfig, tmp_path: Path
) -> None:
    trained = 0
    for number, value in enumerate(KEYS[key]):
        place = tmp_path / str(number)
        try:
            result = run(composed, place, size, **{f"trainer__{key}": value})
        except Enough:
            trained += 1
        except UserError as error:
            message = str(error)
            assert message.startswith(f"trainer.{key}="), (value, message)
            assert "expected" in message or "never end" in message, (value, message)
            assert len(message) < 250 and message.count("\n") == 0, (value, message)
            # Refused before anything was trained.
            assert not list(place.glob("checkpoints/*")), value
        else:
            assert result.history["train/loss"] and "test/loss" in result.metrics, value
            trained += 1
    assert trained > 0


@pytest.mark.parametrize(
    ("key", "value", "batches"),
    [
        ("limit_train_batches", 1e-9, 1),
        ("limit_train_batches", 0.5, 2),
        ("limit_train_batches", 1, 1),
        ("limit_train_batches", 1.0, 5),
        ("limit_train_batches", 2.0, 2),
        ("limit_train_batches", 1e300, 5),
        ("overfit_batches", 0.0, 5),
        ("overfit_batches", 1e-9, 1),
        ("overfit_batches", 2.0, 2),
        ("overfit_batches", 1.0, 5),
        ("overfit_batches", 10**12, 5),
    ],
)
def test_a_fraction_is_a_share_of_the_batches_and_a_whole_number_counts_them(
    key: str, value: float, batches: int, composed: DictConfig, tmp_path: Path
) -> None:
    result = run(composed, tmp_path, "five batches", **{f"trainer__{key}": value})
    assert last_state(result)["global_step"] == 2 * batches


def test_more_batches_to_add_up_than_an_epoch_has_make_one_step_of_their_mean(
    composed: DictConfig, tmp_path: Path
) -> None:
    states = [
        last_state(run(composed, tmp_path / str(n), "five batches", trainer__accumulate_grad_batches=n))
        for n in (5, 10**12, 10**20)
    ]
    assert [state["global_step"] for state in states] == [2, 2, 2]
    for state in states[1:]:
        for name, weights in states[0]["state_dict"].items():
            assert torch.equal(state["state_dict"][name], weights)


def test_early_stopping_waits_where_an_epoch_ends_before_its_validation(
    composed: DictConfig, tmp_path: Path
) -> None:
    patient, steps = {"callbacks__early_stopping__patience": 1}, {"trainer__steps_per_call": 1}
    cut = run(composed, tmp_path / "cut", "five batches", trainer__max_steps=7, **steps, **patient)
    assert [epoch for epoch, _ in cut.history["train/loss"]] == [1, 2]
    assert [epoch for epoch, _ in cut.history["val/loss"]] == [1]
    # Watched in the middle of the first epoch, which has no training loss yet.
    early = {"trainer__val_check_interval": 0.5, "objective__metric": "train/loss"}
    watched = run(composed, tmp_path / "watched", "five batches", **early, **patient)
    assert len(watched.history["train/loss"]) == 2


LESS = {"objective__direction": "minimize"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trainer__limit_val_batches": 0}, "limit_val_batches=0 leaves no val/accuracy to watch"),
        ({"checkpoint__monitor": None}, "checkpoint.monitor=null names nothing to watch"),
        ({"data__validation_fraction": 0.0}, "set data.validation_fraction above 0"),
        (
            {"objective__metric": "val/nothing", "objective__direction": "minimize"},
            "There are: val/accuracy, val/f1, val/loss",
        ),
        ({"objective__metric": "val/los", **LESS}, "Did you mean val/loss"),
    ],
)
def test_early_stopping_with_nothing_to_watch_is_refused(
    settings: dict[str, Any], said: str, composed: DictConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run(composed, tmp_path, "one batch", callbacks__early_stopping__patience=1, **settings)


def test_weights_that_the_last_step_spoilt_are_told_as_a_divergence(
    composed: DictConfig, tmp_path: Path
) -> None:
    spoilt = {"optimizer__lr": 1e37, "trainer__max_steps": 1}
    with pytest.raises(Diverged, match=r"outputs are NaN or infinite.*Lower optimizer\.lr"):
        run(composed, tmp_path, "one batch", **spoilt)
