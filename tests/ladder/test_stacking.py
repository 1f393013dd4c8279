"""A second level of trees: it answers as its parts say, is saved whole, and is there where it helps alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.data.tables.table import TableData
from pipeline.errors import UserError
from pipeline.ladder.bagging import Bag, answers_of, bagged, blended, loss_of
from pipeline.ladder.blending import add_blend
from pipeline.ladder.budget import Budget
from pipeline.ladder.rungs import Climb, Rung
from pipeline.ladder.stacking import LEAST_ROWS, second_level
from pipeline.models.linear import Linear
from pipeline.models.saved import load, save
from pipeline.models.stack import Stack, above
from pipeline.runs.describing import describe
from pipeline.runs.finished import data_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import NoRun
from pipeline.runs.result import RunResult
from pipeline.runs.train import train

YES_NO = Spec("binary", "vector", (4,), 1, ("no", "yes"))
CLASSES = Spec("multiclass", "vector", (4,), 3, ("a", "b", "c"))
NUMBERS = Spec("regression", "vector", (4,), 1)
SHORT = {
    "linear": ["model=linear", "model.solver=exact", "model.alpha=1"],
    "boosting": ["model=boosting", "model.n_estimators=40"],
}


def stacked(spec: Spec) -> tuple[Stack, list[list[Linear]], list[list[Linear]]]:
    torch.manual_seed(0)
    first = [[Linear(spec).eval() for _ in range(2)], [Linear(spec).eval()]]
    second = [[Linear(above(spec, 2)).eval() for _ in range(2)]]
    return Stack.of(first, second, [1, 0, 3]), first, second


@pytest.mark.parametrize(("spec", "columns"), [(YES_NO, [1]), (CLASSES, [0, 1, 2]), (NUMBERS, [0])])
def test_a_stack_hands_the_first_levels_answers_on(spec: Spec, columns: list[int]) -> None:
    stack, first, second = stacked(spec)
    x = torch.randn(9, 4)

    def mean(group: list[Linear], x: Tensor) -> Tensor:
        return sum(model.objective.probabilities(model(x)) for model in group) / len(group)  # type: ignore[return-value]

    with torch.inference_mode():
        below = [mean(group, x).reshape(9, -1) for group in first]
        over = mean(second[0], torch.cat([x, *(answers[:, columns] for answers in below)], 1)).reshape(9, -1)
        found = stack.objective.probabilities(stack(x)).reshape(9, -1)
    assert torch.allclose(found, (below[0] + 3 * over) / 4, atol=1e-6)


def test_a_stack_is_exported_for_any_number_of_rows() -> None:
    stack, _, _ = stacked(YES_NO)
    rows = {0: torch.export.Dim("rows", min=1)}
    exported = torch.export.export(stack, (torch.randn(5, 4),), dynamic_shapes=(rows,)).module()
    x = torch.randn(11, 4)
    assert torch.allclose(exported(x), stack(x))


def test_a_stack_needs_groups_and_their_weights() -> None:
    with pytest.raises(UserError, match="a stack of 0 and 0 groups needs a model in each"):
        Stack(NUMBERS, [], [], [])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TableData:
    generator = np.random.default_rng(0)
    rows = LEAST_ROWS + 250
    made = pd.DataFrame(generator.normal(size=(rows, 3)), columns=list("abc"))
    made["y"] = 6 * made["a"] + 5 * (made["b"] > 0.5) + generator.normal(scale=0.5, size=rows)
    path = tmp_path_factory.mktemp("table") / "t.csv"
    made.to_csv(path, index=False)
    found = data_of(compose(["data=csv", f"data.path={path}", "data.target=y", "data.test_fraction=0.2"]))
    assert isinstance(found, TableData)
    return found


def bags_of(data: TableData, folder: Path) -> list[Bag]:
    """A straight line, which has the slope, and few small trees, which have the step."""
    shared = ["data=csv", f"data.path={data.path}", "data.target=y", "logger=none", "trainer=cpu"]
    rungs = []
    for name, words in SHORT.items():
        result = RunResult(folder, "", name, describe(data), {"alpha": 1.0}, {}, {}, {"fit": 1.0}, 0.0, 0, "")
        rungs.append(Rung(name, folder, [*shared, *words], compose([*shared, *words]), result))
    return bagged(rungs, [], data, 3, lambda: 1000.0)


def test_trees_learn_from_a_line_what_is_left_over(data: TableData, tmp_path: Path) -> None:
    bags = bags_of(data, tmp_path)
    second = second_level(bags, data, 3, lambda: 1000.0)
    assert [bag.rung.name for bag in second] == ["boosting on top"]
    one, both = blended(bags, data, lambda: 1000.0), blended(bags, data, lambda: 1000.0, second)
    assert isinstance(both.model, Stack) and both.parts["boosting on top"] > 0
    assert data.test is not None
    loss = loss_of(data, data.test.y)
    # What is said of rows that the models have not seen holds for the test.
    tested = loss(answers_of(both.model, data.test))
    assert tested < 0.9 * loss(answers_of(one.model, data.test))
    assert tested == pytest.approx(loss_of(data, data.pooled_targets)(both.answers), rel=0.2)
    # Saved and read again it is the same; what it may be made of is checked.
    kept = load(save(both.model, data.encoder, tmp_path / "model")).module
    assert torch.equal(answers_of(kept, data.test), answers_of(both.model, data.test))
    state = json.loads((tmp_path / "model/model.json").read_text())
    state["hyperparameters"]["second"][0][0]["class"] = "subprocess.Popen"
    (tmp_path / "model/model.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"subprocess\.Popen is not on the list"):
        load(tmp_path / "model")


def test_there_is_no_second_level_where_it_does_not_help(
    data: TableData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = bags_of(data, tmp_path)
    assert (
        second_level(bags, data, 3, lambda: 0.0) == []
        and second_level(bags[:1], data, 3, lambda: 1000.0) == []
    )
    # What is right already leaves nothing to learn.
    true = data.pooled_targets.reshape(-1, 1)
    right = replace(
        bags[0], answers=true + 0.01 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    )
    assert second_level([right, bags[1]], data, 3, lambda: 1000.0) == []
    monkeypatch.setattr("pipeline.ladder.stacking.LEAST_ROWS", 10_000)
    assert second_level(bags, data, 3, lambda: 1000.0) == []


def test_the_blend_of_a_ladder_has_two_levels_where_they_help(
    data: TableData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ladder.bagging.FOLDS", (5,))
    shared = ["data=csv", f"data.path={data.path}", "data.target=y", "logger=none", "trainer=cpu"]
    rungs = []
    for name, words in SHORT.items():
        rung = Rung(name, tmp_path / name, [*shared, *words], compose([*shared, *words]))
        rung.result = train(rung.cfg, Hooks(directory=rung.directory, test=False))
        rungs.append(rung)
    climb = Climb("mae", rungs, rungs[0], "mean")
    add_blend(climb, tmp_path / "blend", NoRun(), Budget(None))
    assert climb.chosen.name == "blend" and "boosting on top" in climb.chosen.made_of
    kept = load(tmp_path / "blend/model")
    assert isinstance(kept.module, Stack)
    said = kept.predict(pd.read_csv(data.path).drop(columns="y"))
    assert list(said) == ["prediction", "low", "high", "unusual"]
