"""The winner of a ladder in the model registry: champion where it beats the present one, else challenger."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.evaluation.outputs import Outputs, loader_of, outputs_on, paired, test_split
from pipeline.ladder.budget import Budget
from pipeline.ladder.costs import ROWS
from pipeline.ladder.naming import model_name
from pipeline.ladder.rungs import Climb, Rung, chance
from pipeline.metrics import four_places, higher_is_better
from pipeline.runs.finished import data_of, find_run, load_predictor, open_store

if TYPE_CHECKING:
    from pipeline.tracking.queries import Store, Version

ASKING = "milliseconds_for_1000_rows"
"""Tag of a version: how long its model takes to answer."""


def register(cfg: DictConfig, climb: Climb, outputs: Outputs | None, budget: Budget) -> str:
    """Register the first of the last trainings.

    Args:
        cfg: Configuration of the command.
        climb: The ladder, with its test figures.
        outputs: Answers of the model on the test split; None where nothing was chosen.
        budget: The time, within which the present champion is asked for its answers.

    Returns:
        What became of it, in words.
    """
    if not climb.final or outputs is None:
        return "Nothing was registered: keep the baseline."
    if not climb.confirmed:
        return "Nothing was registered: on test data the model does not beat the baseline."
    if not cfg.logger.get("mlflow"):
        return "Not registered: nothing is tracked (logger=mlflow)."
    try:
        return _register(cfg, climb, climb.final[0], outputs, budget)
    except UserError as error:
        # The report must not be lost because a server is away.
        return f"Not registered: {error}"


def _register(cfg: DictConfig, climb: Climb, winner: Rung, outputs: Outputs, budget: Budget) -> str:
    from pipeline.ladder.report import model_card
    from pipeline.tracking.sender_link import link

    assert winner.result is not None
    if winner.result.run_id is None:
        raise UserError("the last training was not recorded")
    # A nested run is delivered in the background.
    link(Path(cfg.paths.experiments_dir)).wait([winner.result.directory], 120.0)
    store = open_store(cfg)
    run, name = store.run(winner.result.run_id), model_name(cfg)
    tags = {"rung": climb.chosen.name, f"test/{climb.metric}": f"{winner.metrics[climb.metric]:.6g}"}
    tags |= {} if math.isnan(winner.milliseconds) else {ASKING: f"{winner.milliseconds:.4g}"}
    version = store.register(run.run_id, name, tags, model_card(climb, cfg, winner, run.run_id))
    alias, why = alias_of(store, version, outputs, cfg, budget.left_for_tests())
    store.set_alias(name, alias, version.version)
    return f"Registered as {name} version {version.version}, {alias}: {why}."


def alias_of(
    store: Store, version: Version, outputs: Outputs, cfg: DictConfig, left: float = math.inf
) -> tuple[str, str]:
    """``champion`` or ``challenger``, and why: by a paired test against the present champion on the same samples.

    Args:
        store: The tracking store.
        version: The new version.
        outputs: Answers of its model on the test split.
        cfg: Configuration of the command.
        left: Seconds in which the present champion can be asked for its answers.
    """
    present = store.version(version.name, "champion")
    if present is None or present.version == version.version:
        return "champion", "there was none before"
    takes = float(present.tags.get(ASKING, 0.0)) / 1000 * len(outputs.targets) / ROWS
    if takes > left:
        return "challenger", (
            f"it was not compared with champion version {present.version}, whose answers would have taken {takes:.0f} "
            "s: task.budget was over"
        )
    try:
        test = paired(_answers_of(store, present, cfg), outputs)
    except (UserError, RuntimeError) as error:
        return "challenger", f"it could not be compared with champion version {present.version} ({error})"
    metric = outputs.judged()[0]
    better = (test.difference.value > 0) == higher_is_better(metric)
    figures = (
        f"{metric} {four_places(test.difference.value, '+')} against version {present.version} on the same test "
        f"samples ({test.method}, {chance(test)})"
    )
    if not test.significant():
        return "challenger", f"{figures}, no significant difference, so that one stays champion"
    if not better:
        return "challenger", f"{figures}, significantly worse, so that one stays champion"
    return "champion", f"{figures}, significantly better"


def _answers_of(store: Store, version: Version, cfg: DictConfig) -> Outputs:
    """A registered model's answers on the test split of the run that made it, inputs prepared as it learnt them."""
    if version.run_id is None:
        raise UserError("it does not say which run made it")
    run = find_run(store, version.run_id, cfg)
    data = data_of(run.cfg)
    model = load_predictor(store, version.model_uri).module
    return outputs_on(model, loader_of(data, test_split(data, run.title)), run.cfg)
