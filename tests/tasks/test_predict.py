"""task=predict: what goes in as files comes out as labels with probabilities."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.data.text.encoders import BagEncoder
from pipeline.errors import UserError
from pipeline.models.linear import Linear
from pipeline.models.saved import Predictor, load
from pipeline.runs.result import RunResult
from pipeline.tasks import predict as task

Command = Callable[..., DictConfig]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)


@pytest.fixture
def predictor(finished: dict[str, RunResult]) -> Predictor:
    return load(finished["linear"].directory / "model")


def expected(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Class probabilities by hand: normalise, one matrix product, softmax."""
    spec, model = predictor.spec, predictor.module
    pixels = (images.reshape(len(images), -1) - spec.pixel_mean[0]) / spec.pixel_std[0]
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    logits = pixels @ weights["output.weight"].T + weights["output.bias"]
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", ["npy", "folder", "csv", "jsonl"])
def test_every_form_of_images_gives_the_models_probabilities(
    kind: str, tmp_path: Path, images: np.ndarray, predictor: Predictor
) -> None:
    source = tmp_path / f"in.{kind}"
    if kind == "npy":
        np.save(source, images)
    elif kind == "folder":
        source.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(source / f"{number:02}.png")
    elif kind == "csv":
        pd.DataFrame(images.reshape(20, -1)).to_csv(source, index=False, header=False)
    else:
        source.write_text("".join(json.dumps(image.tolist()) + "\n" for image in images))
    count = task.predict(predictor, str(source), str(tmp_path / "out.csv"), batch_size=3)
    table = pd.read_csv(tmp_path / "out.csv")
    p = table[[f"p_{digit}" for digit in range(10)]].to_numpy()
    assert count == len(table) == 20
    np.testing.assert_allclose(p, expected(predictor, images), atol=1e-5)
    assert (table["label"] == p.argmax(1)).all()
    assert table["probability"].to_numpy() == pytest.approx(p.max(1))
    if kind == "folder":
        assert table["file"].tolist() == [f"{number:02}.png" for number in range(20)]


def test_a_run_of_the_store_predicts_by_its_id_and_json_lines_hold_the_same_numbers(
    tmp_path: Path, images: np.ndarray, predictor: Predictor, finished: dict[str, RunResult], command: Command
) -> None:
    np.save(tmp_path / "in.npy", images)
    cfg = command(
        "task=predict",
        f"task.run_id={finished['linear'].run_id}",
        f"task.input={tmp_path}/in.npy",
        f"task.output={tmp_path}/out.jsonl",
    )
    task.run(cfg)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    frame = predictor.predict(images)
    assert [row["label"] for row in rows] == frame["label"].tolist()
    assert [row["p_3"] for row in rows] == frame["p_3"].tolist()


def test_texts_come_from_standard_input_and_go_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    spec = Spec("binary", "bag", (2,), 1, ("bad", "good"))
    model = Linear(spec)
    with torch.no_grad():
        model.output.weight.copy_(torch.tensor([[3.0, -3.0]]))
        model.output.bias.zero_()
    predictor = Predictor(model.eval(), BagEncoder(["fine", "awful"]))
    typed = io.TextIOWrapper(io.BytesIO("a fine film\nawful, “really”\n\n".encode()))
    monkeypatch.setattr(sys, "stdin", typed)
    assert task.predict(predictor, "-", "-") == 3
    table = pd.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    assert table["label"].tolist()[:2] == ["good", "bad"]
    assert table["p_good"].tolist() == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3)), 0.5])


def test_a_table_is_read_in_chunks_whatever_its_delimiter_and_column_order(tmp_path: Path) -> None:
    spec = Spec("regression", "vector", (2,), 1)
    model = Linear(spec)
    with torch.no_grad():
        model.output.weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.output.bias.fill_(0.5)
    predictor = Predictor(model.eval(), VectorEncoder(["a", "b"]))
    rows = pd.DataFrame({"b": np.arange(50.0), "other": "x", "a": 2.0})
    rows.to_csv(tmp_path / "in.csv", index=False, sep=";")
    task.predict(predictor, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), batch_size=2)
    predictions = pd.read_csv(tmp_path / "out.csv")["prediction"].to_numpy()
    np.testing.assert_allclose(predictions, 2 + 10 * np.arange(50.0) + 0.5)


def test_what_the_model_cannot_take_is_told_and_leaves_no_output(
    tmp_path: Path, predictor: Predictor
) -> None:
    (tmp_path / "words.txt").write_text("hello")
    np.save(tmp_path / "large.npy", np.zeros((2, 9, 9)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "bad.jsonl").write_text("[1, 2\n")
    (tmp_path / "unknown.xyz").write_text("")
    for name, words in {
        "words.txt": "holds plain text",
        "large.npy": "expected \\(samples, 8, 8\\)",
        "objects.npy": "no .npy file of numbers",
        "broken.png": "no image",
        "small.png": "8×5 pixels",
        "bad.jsonl": "line 1 is no JSON",
        "unknown.xyz": "does not follow from its name",
        "missing": "no such file",
    }.items():
        with pytest.raises(UserError, match=words):
            task.predict(predictor, str(tmp_path / name), str(tmp_path / "out.csv"))
    assert not list(tmp_path.glob("*out.csv*"))


def test_settings_that_would_do_harm_are_refused(tmp_path: Path, command: Command) -> None:
    source = tmp_path / "in.csv"
    source.write_text("1")
    for target, words in (
        (source, "is the input"),
        (tmp_path, "expected a file"),
        (tmp_path / "a/b.csv", "expected"),
    ):
        with pytest.raises(UserError, match=words):
            task.run(command("task=predict", f"task.input={source}", f"task.output={target}"))
    with pytest.raises(UserError, match=r"task\.format=xml"):
        task.run(command("task=predict", f"task.input={source}", "task.format=xml"))


def test_exactly_one_model_must_be_named(
    tmp_path: Path, command: Command, finished: dict[str, RunResult]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("1")
    with pytest.raises(UserError, match="needs one model and got 0"):
        task.run(command("task=predict", f"task.input={source}"))
    with pytest.raises(UserError, match="there is no run"):
        task.run(command("task=predict", f"task.input={source}", "task.run_id=nowhere"))
