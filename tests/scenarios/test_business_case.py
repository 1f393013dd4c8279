"""Food orders from a look at them to a ranked list in service, and to the day when a new dish is on the menu."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig

from pipeline.__main__ import main
from pipeline.data.orders.generated import CHAI_DRINKER, GREEN_SAUCE, generate_orders
from pipeline.models.saved import Predictor, load
from pipeline.runs.result import RunResult

Command = Callable[..., DictConfig]
"""Composes a task's configuration beside the runs of this file."""
SMALL = ["data.orders=9000", "data.customers=200", "data.areas=3", "trainer.max_epochs=3", "trainer=cpu"]
LATER = [*SMALL[:3], "data.green_sauce=0.5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


@pytest.fixture
def command(place: Path) -> Command:
    from pipeline.config.loading import compose

    return lambda *words: compose([*words, f"paths.experiments_dir={place / 'experiments'}"])


@pytest.fixture(scope="module")
def run(place: Path) -> RunResult:
    """A tracked model of orders before the new dish."""
    from pipeline.config.loading import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    words = ["+experiment=food_orders", *SMALL, f"paths.experiments_dir={place / 'experiments'}"]
    return train(compose(words), Hooks(directory=place / "run"))


@pytest.fixture(scope="module")
def predictor(run: RunResult) -> Predictor:
    return load(run.directory / "model")


@pytest.fixture(scope="module")
def asked(run: RunResult, predictor: Predictor) -> pd.DataFrame:
    orders = generate_orders(9000, 200, 3).tail(50)
    return orders[["customer", "area", "time"]].reset_index(drop=True)


def test_the_answer_is_a_ranked_list(predictor: Predictor, asked: pd.DataFrame) -> None:
    found = predictor.predict(asked)
    p = torch.softmax(predictor.logits(predictor.encoder.encode(asked)).double(), 1)
    best = p.topk(5, dim=1)
    names = np.asarray(predictor.spec.classes)
    for rank in range(5):
        assert found[f"label_{rank + 1}"].tolist() == names[best.indices[:, rank]].tolist()
        assert found[f"probability_{rank + 1}"].to_numpy() == pytest.approx(
            best.values[:, rank].numpy(), rel=1e-5
        )
    assert (found.label == found.label_1).all() and (found.probability == found.probability_1).all()
    assert list(found.columns[:4]) == ["label", "probability", "label_1", "probability_1"]


def test_predict_mlflow_and_export_give_the_same_list(
    run: RunResult, predictor: Predictor, asked: pd.DataFrame, place: Path, command: Command
) -> None:
    import mlflow
    import onnxruntime

    from pipeline.tasks import export, predict
    from pipeline.tracking.queries import Store
    from pipeline.tracking.sender_link import link
    from pipeline.tracking.store import as_default

    expected = predictor.predict(asked)
    asked.to_csv(place / "asked.csv", index=False)
    typed = [f"task.run_id={run.run_id}"]
    link(place / "experiments").wait([run.directory], 120.0)
    predict.run(
        command("task=predict", *typed, f"task.input={place}/asked.csv", f"task.output={place}/said.csv")
    )
    said = pd.read_csv(place / "said.csv")
    lists = [f"{kind}_{rank}" for rank in range(1, 6) for kind in ("label", "probability")]
    pd.testing.assert_frame_equal(said[lists], expected[lists], check_exact=False, rtol=1e-6)

    store = Store(None, place / "experiments")
    with as_default(store.uri):
        served = mlflow.pyfunc.load_model(store.model_uri(str(run.run_id)))
    asked_as_text = asked.assign(time=asked.time.astype(str).where(asked.time.notna(), None))
    pd.testing.assert_frame_equal(served.predict(asked_as_text)[lists], expected[lists])
    outputs = [column.name for column in served.metadata.signature.outputs.inputs]
    assert outputs[:12] == ["label", "probability", *lists]

    path, _, _ = export.export(command("task=export", *typed, f"task.output={place}/orders.onnx"))
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    (logits,) = session.run(None, {"input": predictor.encoder.encode(asked).numpy()})
    classes = np.asarray(json.loads(facts["classes"]))
    ranked = classes[np.argsort(-logits, axis=1, kind="stable")[:, : int(facts["top_k"])]]
    assert ranked.tolist() == expected[[f"label_{rank}" for rank in range(1, 6)]].to_numpy().tolist()


def test_a_new_dish_is_noticed_by_name_and_training_again_mends_it(
    run: RunResult, place: Path, command: Command
) -> None:
    from pipeline.evaluation.evaluate import evaluate, in_words

    typed = ["task=evaluate"]
    same = evaluate(
        command(
            *typed, f"task.run_id={run.run_id}", f"task.output={place}/same", "data=food_orders", *SMALL[:3]
        ),
        other_data=True,
    )
    assert same["drift"]["moved"] == [] and "unknown" not in same
    assert same["metrics"]["hit_rate_at_5"] == run.metrics["test/hit_rate_at_5"]
    words = ["data=food_orders", *LATER]
    before = evaluate(
        command(*typed, f"task.run_id={run.run_id}", f"task.output={place}/before", *words), other_data=True
    )
    moved = before["drift"]["moved"]
    assert moved and all(GREEN_SAUCE in name for name in moved)
    # All of it, counted by hand.
    orders = generate_orders(9000, 200, 3, green_sauce=0.5)
    kept = orders[~orders.returned]
    test = kept.tail(len(kept) - round(0.85 * len(kept)))
    strange = before["unknown"]
    assert strange["samples"] == (test.dish == GREEN_SAUCE).sum()
    assert sum(strange["classes"].values()) == strange["samples"]
    assert before["samples"] + strange["samples"] == len(test)
    assert any("does not know: cafe" in line and GREEN_SAUCE in line for line in in_words(before))

    assert (
        main(["+experiment=food_orders", *LATER, *SMALL[3:], "logger=none", f"task.output={place}/again"])
        == 0
    )
    after = evaluate(
        command(*typed, f"task.run_dir={place}/again", f"task.output={place}/after", *words), other_data=True
    )
    assert "unknown" not in after
    assert after["interval"]["low"] > strange["value_with_them"]


def test_figures_by_area_are_those_of_its_orders(run: RunResult, place: Path, command: Command) -> None:
    from pipeline.evaluation.evaluate import evaluate

    found = evaluate(command("task=evaluate", f"task.run_id={run.run_id}", f"task.output={place}/own"))
    groups = found["by"]["groups"]
    assert found["by"]["name"] == "area" and {row["group"] for row in groups} == {
        f"area {i}" for i in (1, 2, 3)
    }
    total = sum(row["samples"] for row in groups)
    assert total == found["samples"]
    mean = sum(row["samples"] * row["value"] for row in groups) / total
    assert mean == pytest.approx(found["metrics"]["hit_rate_at_5"])


def test_customers_take_up_more_of_the_models_suggestions(
    run: RunResult, place: Path, command: Command
) -> None:
    from pipeline.tasks.ab_test import ab_test

    typed = ["task=ab_test", f"task.run_id={run.run_id}", f"task.output={place}/ab", "task.effect=0.15"]
    found, files = ab_test(command(*typed))
    assert found.names[0] == "most ordered in the area"
    assert found.stopped and found.looks[-1].low > 0 and "is better than most ordered" in found.verdict()
    # Everybody's take-up, by hand.
    orders = generate_orders(9000, 200, 3)
    kept = orders[~orders.returned]
    test = kept.tail(len(kept) - round(0.85 * len(kept)))
    train = kept.head(run.data["train"])
    item = train.restaurant + ": " + train.dish
    best = {area: set(item[train.area == area].value_counts().index[:5]) for area in train.area.unique()}
    hits = [a in best[b] for a, b in zip(test.restaurant + ": " + test.dish, test.area, strict=True)]
    by_hand = pd.Series(hits).groupby(test.customer.to_numpy()).mean().mean()
    assert found.takeup[0] == pytest.approx(by_hand, abs=0.01)
    said = json.loads((place / "ab/ab_test.json").read_text(encoding="utf-8"))
    assert said["verdict"] == found.verdict() and len(files) == 3
    # The same suggestions for both groups: no difference.
    same, _ = ab_test(command(*typed, f"task.against={run.run_id}"))
    assert not same.stopped and same.takeup[0] == same.takeup[1] == found.takeup[1]


def test_a_look_at_orders_shows_what_is_to_be_seen(place: Path) -> None:
    from pipeline.data.orders.orders import Orders
    from pipeline.exploring.explore import explore
    from pipeline.exploring.report import write_report

    data = Orders(orders=9000, customers=200, areas=3, validation_fraction=0.15)
    data.setup()
    seen = explore(data)
    orders = generate_orders(9000, 200, 3)
    known = orders[~orders.returned]
    first_test = known.index[round(0.85 * len(known))]
    frame = orders.loc[: first_test - 1]
    by = seen.orders["by"]
    assert by["hour"] == {str(hour): int((frame.time.dt.hour == hour).sum()) for hour in range(24)}
    assert by["weekday"]["Sunday"] == (frame.time.dt.dayofweek == 6).sum()
    assert by["area"] == frame.area.value_counts().to_dict()
    assert by["dish"]["pizza"] == (frame.dish == "pizza").sum()
    assert seen.orders["gaps"]["without time"] == frame.time.isna().sum()
    assert seen.orders["returned"]["orders"] == frame.returned.sum()
    assert seen.orders["returned"]["more_often"] == []
    busiest = seen.orders["busiest"][0]
    assert (busiest["customer"], busiest["favourite"]) == (CHAI_DRINKER, "chai")
    assert busiest["orders"] == (frame.customer == CHAI_DRINKER).sum() and busiest["hours of the day"] == 24
    assert any("chai is one of the busiest customers" in warning for warning in seen.warnings)
    page = write_report(data, seen, place)[0].read_text(encoding="utf-8")
    assert "Busiest customers" in page and (place / "samples.png").exists()


def test_a_dish_that_comes_back_more_often_and_a_pause_are_found(tmp_path: Path) -> None:
    from pipeline.data.orders.own import OwnOrders
    from pipeline.exploring.explore import explore

    random = np.random.default_rng(0)
    count = 1200
    dish = random.choice(["soup", "pie", "rice", "tea"], count)
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(count), unit="h")
    time = time.where(np.arange(count) < 500, time + pd.Timedelta(days=10))
    back = random.random(count) < np.where(dish == "pie", 0.25, 0.03)
    pd.DataFrame(
        {"customer": random.integers(0, 30, count), "dish": dish, "time": time, "returned": back}
    ).to_csv(tmp_path / "orders.csv", index=False)
    data = OwnOrders(path=tmp_path / "orders.csv", validation_fraction=0.15)
    data.setup()
    seen = explore(data)
    assert [row["name"] for row in seen.orders["returned"]["more_often"]] == ["pie"]
    gaps = seen.orders["gaps"]
    assert gaps["days without an order"] == 9 and gaps["longest pause, hours"] == 241
    assert gaps["longest pause begins"] == str(pd.Timestamp("2024-01-01") + pd.Timedelta(hours=499))
    assert any("no column says where" in guess["what"] for guess in seen.guesses)


def test_goal_constraints_and_areas_stand_in_the_ladders_report_and_card(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rungs = ["~ladder.rungs.small", "~ladder.rungs.overfitting", "ladder.sweep=null"]
    rungs.append("ladder.tuned=['trainer.max_epochs=2']")
    typed = ["task=improve", "+ladder=food_orders", "data=food_orders", *SMALL, *rungs, "task.seeds=[0]"]
    goal = "ladder.goal='hit_rate_at_5 >= 0.99'"
    words = [*typed, goal, f"paths.experiments_dir={place / 'ladder'}", f"task.output={place}/climb"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "goal: asked hit_rate_at_5 >= 0.99, reached 0." in said and "NOT MET" in said
    assert "constraint: no area is left behind: asked worst_area >= 0.5, reached 0." in said
    page = (place / "climb/ladder.html").read_text(encoding="utf-8")
    assert "Goal and constraints" in page and "By area" in page and "area 3" in page
    from pipeline.tracking.queries import Store

    store = Store(None, place / "ladder")
    card = store.version("food_orders", "champion")
    assert card is not None
    assert "**Goal and constraints**: goal: asked" in card.description and "| area 3 |" in card.description
