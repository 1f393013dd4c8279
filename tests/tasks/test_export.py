"""task=export: what other software opens answers as the original does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from omegaconf import DictConfig
from safetensors.numpy import load_file

from pipeline.data.core.encoder import SeriesEncoder
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Streams
from pipeline.data.text.encoders import TokensEncoder
from pipeline.errors import UserError
from pipeline.models.cnn import CNN
from pipeline.models.recurrent import Recurrent
from pipeline.models.saved import Predictor, load
from pipeline.models.transformer import Transformer
from pipeline.runs.result import RunResult
from pipeline.tasks import export as task

Command = Callable[..., DictConfig]


def test_an_onnx_file_stands_alone_and_takes_any_batch(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    run = finished["mlp"]
    path, difference, _ = task.export(
        command("task=export", f"task.run_id={run.run_id}", f"task.output={tmp_path}/digits.onnx")
    )
    assert difference <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["digits.onnx"]
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["input", "logits"]
    assert all(node.name for node in graph.graph.node)
    assert json.loads({p.key: p.value for p in graph.metadata_props}["classes"]) == [
        str(i) for i in range(10)
    ]
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 8, 8)).astype(np.uint8)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"input": images})
    expected = load(run.directory / "model").predict(images)["label"].astype(int)
    assert (logits.argmax(1) == expected).all()


def test_pt2_and_safetensors_hold_the_same_model(
    tmp_path: Path, finished: dict[str, RunResult], command: Command
) -> None:
    run = finished["linear"]
    typed = ["task=export", f"task.run_id={run.run_id}"]
    path, difference, _ = task.export(command(*typed, "task.format=pt2", f"task.output={tmp_path}/m.pt2"))
    assert difference <= 1e-4
    images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
    original = load(run.directory / "model").module
    torch.testing.assert_close(torch.export.load(path).module()(images), original(images))
    path, difference, _ = task.export(
        command(*typed, "task.format=safetensors", f"task.output={tmp_path}/m.safetensors")
    )
    # Batches of other sizes differ in the last bits.
    assert difference < 1e-6
    weights = load_file(path)
    assert {name: value.tolist() for name, value in weights.items()} == {
        name: value.tolist() for name, value in original.state_dict().items()
    }


def test_an_export_that_differs_is_refused_and_leaves_no_file(
    tmp_path: Path, finished: dict[str, RunResult], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["task=export", f"task.run_id={finished['linear'].run_id}", "task.format=safetensors"]
    honest = task.write_safetensors

    def wrong(predictor: Predictor, x: torch.Tensor, path: Path) -> task.Answer:
        answer = honest(predictor, x, path)
        return lambda inputs: answer(inputs) + 0.001

    monkeypatch.setattr(task, "write_safetensors", wrong)
    with pytest.raises(UserError, match=r"differs from the original by 0\.001"):
        task.export(command(*typed, f"task.output={tmp_path}/m.safetensors"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="expected onnx, pt2, safetensors"):
        task.export(command(*typed, "task.format=h5"))


def network(kind: str) -> tuple[Any, torch.Tensor]:
    """A small network of a kind, and inputs for it."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 12, (7, 9))
    small: dict[str, Any] = {"hidden_units": 8, "heads": 2, "layers": 1}
    if kind == "cnn":
        spec = Spec("multiclass", "image", (1, 8, 8), 3, ("a", "b", "c"), pixel_mean=(9.0,), pixel_std=(3.0,))
        images = torch.randint(0, 255, (7, 1, 8, 8), dtype=torch.uint8)
        return CNN(spec, channels=[4], hidden_units=8), images
    if kind in ("tokens", "transformer of texts"):
        spec = Spec("binary", "tokens", (0,), 1, ("no", "yes"), vocabulary=12)
        transformer = kind != "tokens"
        return (
            Transformer(spec, **small) if transformer else Recurrent(spec, hidden_units=5, embedding=4)
        ), tokens
    if kind == "transformer of characters":
        letters = tuple("?abcdefghijk")
        spec = Spec("multiclass", "tokens", (0,), 12, letters, per_step=True, stateful=True, vocabulary=12)
        return Transformer(spec, context=4, **small), tokens
    if "forecast" in kind:
        spec = Spec("regression", "series", (11, 5), 3, horizon=3, target_std=2.0)
        x = torch.randn(7, 11, 5)
        return (Recurrent(spec, hidden_units=5) if "lstm" in kind else Transformer(spec, **small)), x
    spec = Spec("multiclass", "series", (0, 1), 2, ("a", "b"), per_step=True)
    return Recurrent(spec, cell="gru", hidden_units=5), torch.randn(7, 6, 1)


FORECASTS = ["lstm that forecasts", "transformer that forecasts"]
TRANSFORMERS = ["transformer of texts", "transformer of characters"]
IN_ONNX = ["cnn", "tokens", "series", *TRANSFORMERS, *FORECASTS]


@pytest.mark.parametrize(
    ("kind", "form"),
    [*((kind, "onnx") for kind in IN_ONNX), *((kind, "pt2") for kind in ("cnn", *TRANSFORMERS, *FORECASTS))],
)
def test_other_architectures_export_with_free_batch_and_steps(kind: str, form: str, tmp_path: Path) -> None:
    model, x = network(kind)
    encoder = TokensEncoder(list("abcdefghij")) if "tokens" in kind else SeriesEncoder()
    writer = {"onnx": task.write_onnx, "pt2": task.write_pt2}[form]
    answer = writer(Predictor(model.eval(), encoder), x, tmp_path / "model")
    assert task.largest_difference(model, answer, x) < 1e-5
    if kind != "cnn" and "forecast" not in kind:
        assert task.largest_difference(model, answer, x[:, :4]) < 1e-5
        assert task.largest_difference(model, answer, torch.cat([x, x, x], 1)) < 1e-5


def test_what_pt2_cannot_hold_is_said_with_what_can(tmp_path: Path) -> None:
    model, x = network("tokens")
    with pytest.raises(UserError, match=r"cannot leave the number of steps .* set task\.format=onnx"):
        task.write_pt2(Predictor(model.eval(), TokensEncoder(list("abc"))), x, tmp_path / "m.pt2")


def test_what_pt2_cannot_hold_whatever_its_steps_is_not_blamed_on_them(tmp_path: Path) -> None:
    class Unready(Recurrent):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("this model was never ready")

    spec = Spec("binary", "tokens", (0,), 1, ("no", "yes"), vocabulary=12)
    model = Unready(spec, hidden_units=5, embedding=4).eval()
    with pytest.raises(RuntimeError, match="this model was never ready"):
        task.write_pt2(Predictor(model, TokensEncoder(list("abc"))), network("tokens")[1], tmp_path / "m.pt2")


@pytest.mark.parametrize("streams", [1, 6])
def test_one_long_text_is_tried_as_several_samples(streams: int) -> None:
    ids = torch.arange(1, 241) % 11
    split = Streams.from_series(ids[:-1], ids[1:], streams, 50)
    x = task.real_samples(cast(Any, SimpleNamespace(validation=split, train=split)))
    assert x.flatten().tolist() == split.x[:, : x.numel() // streams].flatten().tolist()
    assert x.shape == ((4, 12) if streams == 1 else (6, 39))


def test_it_says_how_the_file_is_opened(
    tmp_path: Path, finished: dict[str, RunResult], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.safetensors"
    typed = ["task=export", "task.format=safetensors", f"task.run_id={finished['linear'].run_id}"]
    task.run(command(*typed, f"task.output={path}"))
    assert f"netron {path}" in capsys.readouterr().out
