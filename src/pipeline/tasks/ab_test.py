"""``task=ab_test``: would customers take up more of a model's suggestions? Two groups, looked at rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from pipeline.data.orders.module import OrdersModule
from pipeline.errors import UserError
from pipeline.evaluation.ab_test import AbTest, in_words, planned, simulated, write
from pipeline.evaluation.evaluate import asked_model_of
from pipeline.evaluation.outputs import loader_of, outputs_on, result_directory, test_split
from pipeline.runs.finished import data_for, find_run, load_predictor, open_store

if TYPE_CHECKING:
    from pipeline.data.core.splits import Rows
    from pipeline.models.saved import Predictor
    from pipeline.runs.finished import FinishedRun


def run(cfg: DictConfig) -> None:
    """The task behind ``task=ab_test``."""
    found, files = ab_test(cfg)
    print("\n".join([*in_words(found), f"report: {files[0]}"]))


def ab_test(cfg: DictConfig) -> tuple[AbTest, list[Any]]:
    """Test the model that ``task.run_id``, ``task.model_uri`` or ``task.run_dir`` names against common sense.

    Returns:
        The test, and the files that were written: the page first.

    Raises:
        UserError: There is no such model, or it recommends nothing to customers.
    """
    finished, predictor, store = asked_model_of(cfg)
    own = data_for(finished.cfg, predictor)
    if not isinstance(own, OrdersModule):
        raise UserError(
            f"task=ab_test is for models that recommend to customers; {finished.title} learnt data={own.name}; "
            "expected one of data=food_orders or data=orders"
        )
    directory, split = result_directory(cfg), test_split(own, finished.title)
    if own.validation is None:
        raise UserError("task=ab_test plans by validation orders, but this run held none out")
    b = _takeup(predictor, own, split, finished)
    against = cfg.task.get("against")
    if against:
        other = find_run(open_store(cfg), str(against), cfg)
        rival = load_predictor(open_store(cfg), open_store(cfg).model_uri(other.record.run_id))
        rival_data = data_for(other.cfg, rival)
        if rival_data.digest != own.digest:
            raise UserError(f"task.against={against} learnt from other orders than {finished.title}")
        assert isinstance(rival_data, OrdersModule)
        name, a = other.record.name, _takeup(rival, rival_data, test_split(rival_data, other.title), other)
        planning = _takeup(rival, rival_data, _validation(rival_data), other)
    else:
        name, a = next(iter(own.baselines())), own.baseline_values(split).numpy()
        planning = own.baseline_values(own.validation).numpy()
    customers = own.judged["validation"].orders["customer"].tolist()
    plan = planned(
        deviation_of(customers, planning),
        float(cfg.task.effect),
        float(cfg.task.level),
        float(cfg.task.power),
        int(cfg.task.looks),
    )
    names = (str(name), str(finished.record.name) or "the model")
    who = own.judged["test"].orders["customer"].tolist()
    found = simulated(who, np.asarray(a), b, plan, names, int(cfg.seed))
    files = write(found, directory)
    if store is not None:
        for file in files:
            store.log_artifact(finished.record.run_id, file, "ab_test")
    return found, files


def deviation_of(customers: list[str | None], hits: Any) -> float:
    """Standard deviation of the customers' shares of visits with a take-up.

    Raises:
        UserError: There are too few customers, or all take up alike.
    """
    import pandas as pd

    rates = pd.Series(np.asarray(hits, dtype=float)).groupby(pd.Series(customers, dtype=object)).mean()
    deviation = float(rates.std()) if len(rates) > 1 else 0.0
    if not deviation > 0:
        raise UserError(
            f"the validation orders are of {len(rates)} customers who all take up alike: how many customers a test "
            "needs cannot be told from them"
        )
    return deviation


def _validation(data: OrdersModule) -> Rows:
    assert data.validation is not None
    return data.validation


def _takeup(predictor: Predictor, data: OrdersModule, split: Rows, finished: FinishedRun) -> Any:
    """Whether what was ordered is among the model's suggestions."""
    answers = outputs_on(predictor.module, loader_of(data, split), finished.cfg)
    return answers.judged()[1]
