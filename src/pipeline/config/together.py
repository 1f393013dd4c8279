"""Refuse settings that are right by themselves and wrong beside others."""

from __future__ import annotations

import re
from typing import Any

from pipeline.config.keys import STRATEGIES
from pipeline.config.nearest import suggest
from pipeline.config.plain import dotted, leaves
from pipeline.errors import UserError

# How long to train, and what is expected of it beside its rule: 0 would be a run that trains nothing.
_LENGTHS = {
    "max_epochs": "at least 1",
    "max_steps": "at least 1, or -1 for no limit",
    "max_time": "a time above 0, or null for no limit",
    "limit_train_batches": "more than 0",
}
OF_TEST = re.compile(r"test([/_.-]|$)")
"""How names of metrics begin that are measured on the test split."""


def check_together(plain: dict[str, Any]) -> None:
    """Refuse settings that are right by themselves and wrong beside others."""
    for path, value in leaves(plain, ()):
        steers = path[-1] == "monitor" or path == ("objective", "metric")
        if steers and isinstance(value, str) and (of_test := OF_TEST.match(value)):
            raise UserError(
                f"{dotted(path)}={value}: the test split is read once, at the end, so nothing may be chosen "
                f"by it; use val{of_test[1] or '/'}{value[of_test.end() :] or 'loss'}"
            )
    data, trainer = plain.get("data") or {}, plain.get("trainer") or {}
    folds, fold = data.get("folds"), data.get("fold")
    if fold is not None and folds is None:
        raise UserError(f"data.fold={fold}: data.folds is not given; say how many folds there are")
    if fold is not None and isinstance(folds, int) and fold >= folds:
        raise UserError(
            f"data.fold={fold}: expected a whole number from 0 to {folds - 1}, since data.folds={folds}"
        )
    if trainer:
        _check_length(trainer)
        if (tested := trainer.get("limit_test_batches")) == 0 and plain.get("test", True):
            raise UserError(
                f"trainer.limit_test_batches={tested}: expected more than 0; "
                "to leave the test out use test=false"
            )
        _check_validation_times(trainer)
        _check_strategy(trainer.get("strategy", "auto"))
    task = plain.get("task") or {}
    if {"min_lr", "max_lr"} <= set(task) and task["min_lr"] >= task["max_lr"]:
        raise UserError(f"task.min_lr={task['min_lr']}: expected less than task.max_lr={task['max_lr']}")


def _check_length(trainer: dict[str, Any]) -> None:
    for key, expected in _LENGTHS.items():
        length = trainer.get(key)
        if length == 0 or (isinstance(length, str) and not length.strip("0:")):
            raise UserError(
                f"trainer.{key}={length}: expected {expected}; to test without training use train=false"
            )
    epochs = trainer.get("max_epochs")
    bounded = (trainer.get("max_steps") or -1) > 0 or trainer.get("max_time")
    if epochs in (-1, None) and not bounded and not trainer.get("fast_dev_run"):
        shown = "null" if epochs is None else epochs
        raise UserError(
            f"trainer.max_epochs={shown}: the run would never end; give trainer.max_steps or trainer.max_time"
        )


def _check_validation_times(trainer: dict[str, Any]) -> None:
    every = trainer.get("val_check_interval")
    if isinstance(every, float) and trainer.get("check_val_every_n_epoch", 1) is None:
        raise UserError(
            f"trainer.val_check_interval={every}: trainer.check_val_every_n_epoch=null counts batches on through "
            "all epochs: expected a whole number of them"
        )


def _check_strategy(strategy: Any) -> None:
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise UserError(
            f"trainer.strategy={strategy}: there is no such strategy. {suggest(strategy, STRATEGIES)} "
            "Others are given by class: trainer.strategy._target_=pytorch_lightning.strategies.NAME"
        )
