"""task=evaluate: a finished run tested again, its figures per class, calibration, shifts and drift."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.loader import Loader
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.images.folder import ImageFolder
from pipeline.data.text.encoders import TokensEncoder
from pipeline.errors import UserError
from pipeline.evaluation import evaluate as task
from pipeline.evaluation.explaining import embedded_gradients, explain, explained_texts, integrated_gradients
from pipeline.evaluation.groups import classes_in_words
from pipeline.evaluation.other_data import rows_of_file
from pipeline.models.linear import Linear
from pipeline.models.mlp import MLP
from pipeline.models.recurrent import Recurrent
from pipeline.models.saved import Predictor
from pipeline.runs.result import RunResult

Command = Callable[..., DictConfig]


def test_a_line_for_each_of_the_first_classes_without_what_is_undefined() -> None:
    rows = {
        f"dish {n}": {"precision": math.nan if n == 0 else 0.5, "recall": 0.0, "samples": 4}
        for n in range(22)
    }
    lines = classes_in_words(rows)
    assert lines[0] == "class dish 0: recall 0, samples 4"
    assert lines[1] == "class dish 1: precision 0.5, recall 0, samples 4"
    assert len(lines) == 21 and lines[-1] == "and 2 more classes, all in evaluation.json"


def test_the_runs_own_test_split_gives_the_logged_figures_bit_for_bit(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    run = finished["linear"]
    cfg = command(
        "task=evaluate",
        f"task.run_id={run.run_id}",
        f"task.output={tmp_path}",
        "task.calibrate=true",
        "task.shift=invert",
        "task.explain=true",
    )
    result = task.evaluate(cfg)
    logged = {key[5:]: value for key, value in run.metrics.items() if key.startswith("test/")}
    assert result["identical"]
    assert result["metrics"] == logged
    assert "Identical, bit for bit" in "\n".join(task.in_words(result))
    assert json.loads((tmp_path / "evaluation.json").read_text())["samples"] == 360
    assert {"calibration.png", "confusion_matrix.png", "explanation.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    # Three epochs leave the linear model much less sure than it may be.
    assert result["calibration"]["temperature"] < 1
    assert result["calibration"]["error_after"] < result["calibration"]["error"]
    assert result["shift"][1]["accuracy"] < result["metrics"]["accuracy"]


def test_figures_per_class_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(3), size=200)
    labels = generator.integers(0, 3, 200)
    found = task.per_class(labels, p, ("a", "b", "c"))
    precision, recall, f1, support = precision_recall_fscore_support(labels, p.argmax(1))
    for number, row in enumerate(found.values()):
        expected = [
            precision[number],
            recall[number],
            f1[number],
            roc_auc_score(labels == number, p[:, number]),
        ]
        assert list(row.values()) == pytest.approx([*expected, support[number]])


def test_shifted_images_by_hand() -> None:
    image = torch.tensor([[[[0, 90], [180, 255]]]], dtype=torch.uint8)
    assert task.shifted(image, "invert", 1).tolist() == [[[[255, 165], [75, 0]]]]
    assert task.shifted(image, "shift", 1).tolist() == [[[[0, 0], [0, 0]]]]
    assert task.shifted(image, "blur", 1).tolist() == [[[[131, 131], [131, 131]]]]
    noisy = task.shifted(torch.full((1, 1, 100, 100), 128, dtype=torch.uint8), "noise", 16).float()
    assert float(noisy.std()) == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize("kind", ["noise", "shift"])
def test_images_that_are_not_in_memory_are_shifted_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        place = tmp_path / "pictures" / ("even", "odd")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02}.png")
    settings = {"image_size": 8, "eval_batch_size": 4, "prepared_gb": 0, "workers": 0}
    data = ImageFolder(path=tmp_path / "pictures", data_dir=tmp_path, **settings)
    data.setup()
    whole = data.train.take(torch.arange(len(data.train)))[0]
    seen = []

    def answers(model: object, loader: Loader, cfg: object) -> SimpleNamespace:
        seen.append(torch.cat([x for chunk in loader for x, _ in chunk]))
        return SimpleNamespace(interval=interval)

    def interval() -> tuple[str, SimpleNamespace]:
        return "accuracy", SimpleNamespace(value=1.0, low=1.0, high=1.0)

    monkeypatch.setattr(task, "outputs_on", answers)
    outputs: Any = SimpleNamespace(spec=data.spec, model=None, interval=interval)
    assert len(task._shifted(kind, outputs, data, data.train, DictConfig({}))) == 5
    for strength, x in zip(task.STRENGTHS[kind], seen, strict=True):
        assert torch.equal(x, task.shifted(whole, kind, strength)) and not torch.equal(x, whole)


def test_a_file_of_other_data_is_encoded_as_the_training_data_was(tmp_path: Path) -> None:
    spec = Spec("binary", "vector", (2,), 1, ("no", "yes"), target_name="answer")
    predictor = Predictor(Linear(spec).eval(), VectorEncoder(["a", "b"], shift=[1.0, 0.0], scale=[2.0, 1.0]))
    pd.DataFrame({"b": [5, 6], "answer": ["yes", "no"], "a": [3, 1]}).to_csv(
        tmp_path / "new.csv", index=False
    )
    rows = rows_of_file(str(tmp_path / "new.csv"), None, predictor)
    assert rows.take(torch.arange(2))[0].tolist() == [[1.0, 5.0], [0.0, 6.0]]
    assert rows.y.tolist() == [1.0, 0.0]
    with pytest.raises(UserError, match="lacks the target column 'truth'"):
        rows_of_file(str(tmp_path / "new.csv"), "truth", predictor)


def test_other_data_is_tested_for_drift_and_must_be_of_the_same_kind(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    typed = ["task=evaluate", f"task.run_id={finished['linear'].run_id}", f"task.output={tmp_path}"]
    result = task.evaluate(command(*typed, "data=digits", "data.seed=5"), other_data=True)
    assert "identical" not in result
    assert result["drift"]["moved"] == []
    with pytest.raises(UserError, match="not of the kind"):
        task.evaluate(command(*typed, "data=line"), other_data=True)


def test_contributions_add_up_to_the_change_of_the_output() -> None:
    torch.manual_seed(0)
    model = MLP(
        Spec("multiclass", "vector", (4,), 3, ("a", "b", "c")), hidden_units=[8], batch_norm=False
    ).eval()
    x = torch.randn(5, 4)
    logits = model(x).detach()
    expected = (logits - model(torch.zeros(1, 4)).detach()).gather(1, logits.argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(integrated_gradients(model, x).sum(1), expected, atol=0.05, rtol=0.05)


def test_words_contribute_as_much_as_the_output_changes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = ["dull", "fine", "grand", "plot"]
    spec = Spec("binary", "tokens", (0,), 1, ("no", "yes"), vocabulary=len(words) + 2)
    model = Recurrent(spec, hidden_units=4, embedding=3).eval()
    ids = torch.tensor([[4, 5, 2, 0], [3, 1, 0, 0], [2, 3, 4, 5]])
    given = embedded_gradients(model, ids)
    assert given.shape == ids.shape
    # A text of nothing but padding, as long as each of them.
    with torch.no_grad():
        assert model.embedding is not None
        padding = model.embedding(torch.zeros_like(ids))
        nothing = model.output(model._gathered_last(padding, (ids != 0).sum(1)))[:, 0]
        expected = model(ids)[:, 0] - nothing
    torch.testing.assert_close(given.sum(1), expected, atol=0.01, rtol=0.05)
    assert given[0, 3] == 0 == given[1, 2]

    rows = Rows(ids, torch.tensor([1.0, 0.0, 1.0]))
    predictor = Predictor(model, TokensEncoder(words))
    first, second, _ = explained_texts(predictor, rows)
    assert first.words == ["grand", "plot", "dull"]
    assert second.words == ["fine", "<?>"]
    assert (first.true, second.true) == ("yes", "no")
    files = explain(predictor, None, rows, tmp_path)  # type: ignore[arg-type]
    assert [file.name for file in files] == ["explanation.png", "explanation_words.png"]


def test_unknown_shifts_and_runs_that_are_not_there_are_refused(
    command: Command, finished: dict[str, RunResult]
) -> None:
    with pytest.raises(UserError, match="expected noise, blur"):
        task.evaluate(command("task=evaluate", "task.run_id=x", "task.shift=rain"))
    with pytest.raises(UserError, match="there is no run"):
        task.evaluate(command("task=evaluate", "task.run_id=nowhere"))


def test_of_very_many_classes_the_rarer_ones_are_confused_together() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = (generator.zipf(1.3, 3000) % 100 for _ in range(2))
    counts, names = task.confusions(labels, predicted, tuple(map(str, range(100))))
    assert len(names) == 31 and names[-1] == "all others" and counts.sum() == 3000
    common = np.argsort(-np.bincount(labels, minlength=100), kind="stable")[:30]
    assert set(names[:-1]) == {str(number) for number in common}
    place = names.index(str(common[0]))
    assert counts[place, place] == ((labels == common[0]) & (predicted == common[0])).sum()
    few = labels % 3, predicted % 3
    assert task.confusions(*few, ("a", "b", "c"))[0].tolist() == confusion_matrix(*few).tolist()
