"""Several labels an image, from training to predictions: every figure beside scikit-learn's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, roc_auc_score

from pipeline.__main__ import main
from pipeline.data.core.baselines import majority, values
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.sums import Sums
from pipeline.errors import UserError
from pipeline.models.linear import Linear
from pipeline.models.saved import load
from pipeline.models.trees import Forest
from pipeline.tasks.export import write_onnx
from pipeline.training.scoring import scores
from pipeline.training.solving import solve

NAMES = ("left", "right", "top")
SPEC = Spec("multilabel", "vector", (5,), outputs=3, classes=NAMES, target_name="label")


def samples(count: int, seed: int) -> Rows:
    """Labels that follow from weighted sums with noise; the second is rare."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 5))
    y = x @ random.normal(size=(5, 3)) + random.normal(size=(count, 3)) > [0, 2, -1]
    return Rows(torch.from_numpy(x).float(), torch.from_numpy(y).float())


def test_figures_are_those_of_scikit_learn() -> None:
    model, split = Linear(SPEC), samples(300, 0)
    torch.manual_seed(0)
    logits = torch.randn(300, 3) + 2 * split.y - 1
    p, true = logits.double().sigmoid().numpy(), split.y.numpy().astype(int)
    said = (p > 0.5).astype(int)
    expected = {
        "accuracy": accuracy_score(true, said),
        "f1": f1_score(true, said, average="macro"),
        "f1_micro": f1_score(true, said, average="micro"),
        "roc_auc": roc_auc_score(true, p, average="macro"),
        "average_precision": average_precision_score(true, p, average="macro"),
        "log_loss": np.mean([log_loss(true[:, k], p[:, k]) for k in range(3)]),
    }
    expected["loss"] = expected["log_loss"]
    found = scores(model, logits, split.y)
    assert found == pytest.approx(expected, abs=1e-6)
    # Batch by batch, and out of a checkpoint, as at once.
    sums = Sums(SPEC)
    for rows in torch.arange(300).split(70):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[rows], split.y[rows])
        sums.add(loss, logits[rows], split.y[rows], 0.0)
    again = Sums(SPEC)
    again.load(json.loads(json.dumps(sums.dump())))
    assert again.metrics() == pytest.approx(
        {name: expected[name] for name in ("loss", "accuracy", "f1_micro")}, abs=1e-6
    )


def test_the_baseline_says_what_labels_are_together_most_often() -> None:
    known = torch.tensor([[1, 0, 1]] * 4 + [[0, 1, 0]] * 3 + [[0, 0, 1]] * 3).float()
    split = Rows(torch.zeros(10, 5), known)
    other = Rows(torch.zeros(4, 5), torch.tensor([[1, 0, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1]]).float())
    found = majority(split, other, SPEC)
    said = np.array([[1, 0, 1]] * 4)
    assert values(split, other, SPEC).tolist() == [True, True, False, False]
    assert found["accuracy"] == 0.5
    assert found["f1_micro"] == pytest.approx(f1_score(other.y.numpy(), said, average="micro"))
    # The loss is that of saying how frequent each label is (with one more of either).
    shares = (known.sum(0) + 1) / 12
    assert found["loss"] == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy(shares.expand(4, 3), other.y)), abs=1e-6
    )


def test_each_label_of_a_linear_model_is_solved_to_its_minimum() -> None:
    split, held_out = samples(300, 0), samples(200, 1)
    split.y[:, 2] = 1.0
    model = Linear(SPEC, solver="exact", alpha=2.0)
    solve(model, split, held_out, lambda: False)
    with torch.no_grad():
        p = model(held_out.x).sigmoid()
    for label in range(2):
        alone = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000).fit(
            split.x.numpy(), split.y[:, label].numpy()
        )
        assert p[:, label].numpy() == pytest.approx(alone.predict_proba(held_out.x.numpy())[:, 1], abs=1e-3)
    assert (p[:, 2] > 0.99).all(), "what all training samples have is expected everywhere"
    with pytest.raises(UserError, match="trees predict one class a sample"):
        Forest(SPEC)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey noise, brighter on the left, on the right and above, each of it or none."""
    root, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    (root / "new").mkdir()
    rows = []
    for number in range(220):
        pixels, own = random.integers(0, 90, (16, 16, 3)), random.random(3) < (0.5, 0.3, 0.4)
        for bright, where in zip(own, (np.s_[:, :6], np.s_[:, 10:], np.s_[:6]), strict=True):
            pixels[where] += 70 * bright
        place = root / ("new" if number >= 200 else "") / f"{number}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(place)
        rows.append((place.name, *own.astype(int)))
    for name, some in (("labels.csv", rows[:200]), ("new/truth.csv", rows[200:])):
        with (root / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("file", *NAMES))
            writer.writerows(some)
    return root


def words(labelled: Path, directory: Path) -> list[str]:
    return [
        *(
            "data=image_folder",
            f"data.path={labelled / 'labels.csv'}",
            "data.labels=multi",
            "data.image_size=16",
        ),
        *(
            f"paths.data_dir={labelled / 'data'}",
            f"paths.experiments_dir={directory}",
            "trainer=cpu",
            "logger=none",
        ),
        *("callbacks.progress=null", f"hydra.run.dir={directory}/run"),
    ]


def truth(labelled: Path) -> dict[str, list[int]]:
    with (labelled / "new/truth.csv").open() as file:
        return {name: [int(value) for value in own] for name, *own in list(csv.reader(file))[1:]}


@pytest.mark.drawn
def test_a_network_learns_tests_and_predicts_labels_of_new_pictures(labelled: Path, tmp_path: Path) -> None:
    small = [
        "model=cnn",
        "model.channels=[8]",
        "model.hidden_units=16",
        "trainer.max_epochs=12",
        "optimizer.lr=0.01",
    ]
    assert main([*words(labelled, tmp_path), *small, "data.calibrate=true"]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["metrics"]["test/accuracy"] > 0.9 > result["baseline"]["test/accuracy"] + 0.3
    assert {"test/f1", "test/f1_micro", "test/average_precision", "test/roc_auc"} <= set(result["metrics"])
    assert (tmp_path / "run/plots/wrong_labels.png").is_file()
    predictor, known = load(tmp_path / "run/model"), truth(labelled)
    frame = predictor.predict([Image.open(labelled / "new" / name) for name in known])
    assert list(frame.columns) == ["labels", *(f"p_{name}" for name in NAMES)]
    said = [[int(row[f"p_{name}"] > 0.5) for name in NAMES] for _, row in frame.iterrows()]
    assert frame["labels"].tolist() == [
        "|".join(n for n, one in zip(NAMES, row, strict=True) if one) for row in said
    ]
    assert np.mean(np.array(said) == np.array(list(known.values()))) > 0.9
    pixels = predictor.encoder.encode([Image.open(labelled / "new" / name) for name in known])
    onnx: Any = write_onnx(predictor, pixels[:2], tmp_path / "model.onnx")
    assert (onnx(pixels) - predictor.logits(pixels) / predictor.module.settled.temperature).abs().max() < 1e-4


def test_labels_are_learnt_from_the_features_of_a_frozen_network(labelled: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), tmp_path / "weights.pth")
    network = [
        "model=torchvision",
        "model.name=shufflenet_v2_x0_5",
        f"model.weights={tmp_path / 'weights.pth'}",
    ]
    assert main([*words(labelled, tmp_path), *network, "model.freeze=true", "data.image_size=32"]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["metrics"]["test/average_precision"] > result["baseline"]["test/average_precision"] + 0.2
    assert result["metrics"]["test/accuracy"] > result["baseline"]["test/accuracy"]
