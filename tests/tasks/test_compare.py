"""task=compare: two runs on the same test samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.evaluation.outputs import Outputs, paired
from pipeline.models.linear import Linear
from pipeline.models.saved import load
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import open_run
from pipeline.runs.result import RunResult
from pipeline.tasks import compare as task

Command = Callable[..., DictConfig]


def test_two_runs_are_compared_as_their_saved_models_predict(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    a, b = finished["linear"], finished["mlp"]
    result = task.compare(
        command("task=compare", f"task.runs=[{a.run_id},{b.run_id}]", f"task.output={tmp_path}")
    )
    images, digits = load_digits(return_X_y=True)
    _, test = train_test_split(np.arange(len(digits)), test_size=0.2, random_state=0, stratify=digits)
    pixels = np.rint(images[test] * (255 / 16)).astype(np.uint8)
    right = [
        load(run.directory / "model").predict(pixels)["label"].astype(int).to_numpy() == digits[test]
        for run in (a, b)
    ]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (result["only_a"], result["only_b"]) == (only_a, only_b)
    assert result["p_value"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert result["difference"]["value"] == pytest.approx(right[1].mean() - right[0].mean())
    assert result["per_class"]["8"]["a"] == pytest.approx(right[0][digits[test] == 8].mean())
    assert ("significantly better" in result["verdict"]) == result["significant"]
    assert (tmp_path / "comparison.json").exists()
    assert {row["run_id"] for row in result["table"]} == {a.run_id, b.run_id}
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    # A table, the verdict, and a picture for each of the objective and the losses: nothing to be fetched.
    assert page.count("data:image/png;base64,") == 3 and result["verdict"].split(":")[0] in page
    assert "http" not in page


def test_of_several_runs_each_is_tested_against_the_first_where_it_can_be(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    a, b = finished["linear"], finished["mlp"]
    cut = open_run(command("task=train", "+experiment=digits_mlp"), tmp_path / "cut", Hooks(), "cut off")
    cut.finish("KILLED")
    assert cut.wait(60)
    several = f"task.runs=[{a.run_id},{b.run_id},{cut.run_id}]"
    result = task.compare(command("task=compare", several, f"task.output={tmp_path / 'three'}"))
    two = command("task=compare", f"task.runs=[{a.run_id},{b.run_id}]", f"task.output={tmp_path / 'two'}")
    assert result["against_first"][0]["p_value"] == task.compare(two)["p_value"]
    assert "KILLED" in result["against_first"][1]["untested"]
    assert "is not tested against" in task.in_words(result)[1]
    assert [row["state"] for row in result["table"]] == ["finished", "finished", "killed"]


def regression(*errors: float) -> Outputs:
    model = Linear(Spec("regression", "vector", (1,), 1))
    return Outputs(model, torch.tensor(errors)[:, None], torch.zeros(len(errors), 1))


def test_a_smaller_error_is_better() -> None:
    worse, better = regression(*[2.0, 3.0] * 20), regression(*[-1.0, 1.0] * 20)
    test = paired(worse, better)
    assert test.difference.value == pytest.approx(-1.5)
    assert task.verdict("mae", test, "A", "B").startswith("B is significantly better than A")
    assert task.verdict("mae", paired(worse, worse), "A", "B").startswith("No significant difference")


def test_other_samples_are_refused(command: Command, finished: dict[str, RunResult]) -> None:
    with pytest.raises(UserError, match="not tested on the same samples"):
        paired(regression(1.0, 2.0), regression(1.0))
    run = finished["linear"].run_id
    with pytest.raises(UserError, match="two different run ids or more"):
        task.compare(command("task=compare", f"task.runs=[{run},{run}]"))
