"""One run from a configuration to its result: what it computes, what it leaves behind, what it does not touch."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.types import RunMode
from PIL import Image
from sklearn.metrics import f1_score

from pipeline.config.loading import compose, loader
from pipeline.data.core.loader import Loader
from pipeline.data.core.splits import Rows
from pipeline.data.images.published import Images
from pipeline.errors import Diverged, UserError
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tracking import drain
from pipeline.tracking.queries import Store

Run = Callable[..., RunResult]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Train in this process for two epochs; the words given win."""

    def once(name: str, *words: str, **hooks: Any) -> RunResult:
        small = ["experiment=digits_mlp", "callbacks.progress=null", "logger=none"]
        if not any(word.startswith("debug=") for word in words):
            small.append("trainer.max_epochs=2")
        cfg = compose([*small, f"paths.experiments_dir={tmp_path / 'experiments'}", *words])
        return train(cfg, Hooks(directory=tmp_path / name, **hooks))

    return once


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(
        result.directory / "checkpoints/last.ckpt", weights_only=True
    )["state_dict"]
    return state


def computed(result: RunResult) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if "per_second" not in name}


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(run: Run) -> None:
    options: dict[str, Any] = {"reports": False, "baseline": False}
    words = ["trainer=cpu", "model.dropout=0.2"]
    first, again = run("first", *words, **options), run("again", *words, **options)
    other, split = run("other", *words, "seed=1", **options), run("split", *words, "data.seed=1", **options)
    assert computed(first) == computed(again)
    assert {k: v for k, v in first.history.items() if "per_second" not in k} == {
        k: v for k, v in again.history.items() if "per_second" not in k
    }
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(again)[name])
    assert not torch.equal(weights(first)["output.weight"], weights(other)["output.weight"])
    assert first.data["digest"] == again.data["digest"] == other.data["digest"] != split.data["digest"]


def test_the_test_split_is_read_once_and_after_the_fit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    take, begin = Rows.take, Loader.__iter__
    owner: dict[int, str] = {}

    def note(data: Images) -> None:
        owner.update({id(data.train): "train", id(data.validation): "validation", id(data.test): "test"})

    def counted(self: Rows, rows: torch.Tensor) -> Any:
        name = owner.get(id(self), "?")
        if not reads or reads[-1] != name:
            reads.append(name)
        return take(self, rows)

    def counted_epoch(self: Loader) -> Any:
        return begin(self)

    monkeypatch.setattr(Rows, "take", counted)
    monkeypatch.setattr(Loader, "__iter__", counted_epoch)
    run("run", on_data=note, reports=False, baseline=False)
    assert reads == ["train", "validation", "train", "validation", "test"]
    reads.clear()
    run("untested", "test=false", on_data=note, baseline=True)
    assert "test" not in reads


def test_the_test_metrics_are_those_of_the_logged_outputs(run: Run) -> None:
    kept: list[Any] = []
    result = run("run", on_model=lambda data, model: kept.extend([data, model]), reports=False)
    data, model = kept
    with torch.no_grad():
        predicted = model.eval()(data.test.x).argmax(1)
    assert result.metrics["test/accuracy"] == float((predicted == data.test.y).double().mean())
    assert result.metrics["test/f1"] == pytest.approx(f1_score(data.test.y, predicted, average="macro"))
    assert result.metrics["baseline/test/accuracy"] == result.baseline["test/accuracy"] < 0.15


@pytest.mark.drawn
def test_what_a_run_leaves_behind(run: Run, tmp_path: Path) -> None:
    words = ["model=cnn", "model.channels=[4,4]", "model.hidden_units=16", "trainer.precision=32-true"]
    result = run("run", *words, "logger=[csv,tensorboard]", "logger.mlflow=false")
    values = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert {
        "run_id",
        "experiment",
        "data",
        "model",
        "schema_version",
        "metrics",
        "baseline",
        "seconds",
    } <= set(values)
    assert {"samples_per_second", "seed", "git_commit"} <= set(values)
    assert set(values["seconds"]) == {"startup", "fit", "test", "total"}
    assert values["data"]["requested"] == values["data"]["used"] == "digits"
    assert values["data"]["train"] + values["data"]["validation"] + values["data"]["test"] == 1797
    assert values["model"]["parameters"] == (25 * 4 + 4) + (25 * 16 + 4) + (16 * 16 + 16) + (16 * 10 + 10)
    assert RunResult.read(tmp_path / "run").metrics == result.metrics
    plots = {path.name for path in (tmp_path / "run/plots").iterdir()}
    expected = {"learning_curves", "confusion_matrix", "most_confidently_wrong", "first_layer_filters"}
    assert plots >= {f"{name}.png" for name in expected}
    for path in (tmp_path / "run/plots").iterdir():
        with Image.open(path) as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or range(99)) > 10, path.name
    with next((tmp_path / "run/csv").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    accuracy = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert accuracy == pytest.approx([value for _, value in result.history["val/accuracy"]])
    assert list((tmp_path / "run/tensorboard").rglob("events.*"))
    # Nothing was tracked.
    assert not (tmp_path / "experiments").exists()


@pytest.mark.delivered
def test_a_tracked_run_says_what_it_was_and_a_stand_in_is_named(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["data=mnist", f"paths.data_dir={tmp_path / 'none'}", "tags=[first,try]", "logger=mlflow"]
    with caplog.at_level(logging.WARNING):
        result = run("run", *words, "trainer.max_epochs=1")
    assert "stand-in" in caplog.text
    assert (result.data["requested"], result.data["used"]) == ("mnist", "digits")
    record = Store(None, tmp_path / "experiments").run(str(result.run_id))
    assert record.status == "FINISHED"
    assert (record.tags["data.requested"], record.tags["data.used"]) == ("mnist", "digits")
    assert record.tags["tag.first"] == record.tags["tag.try"] == "true"
    assert record.params["optimizer.lr"] == "0.001"
    for name in ("test/accuracy", "val/loss", "baseline/test/accuracy"):
        assert record.metrics[name] == pytest.approx(result.metrics[name])


@pytest.mark.delivered
def test_a_run_that_raises_is_failed_and_says_why(run: Run, tmp_path: Path) -> None:
    def stop(epoch: int, metrics: dict[str, float]) -> None:
        raise RuntimeError("the roof fell in")

    with pytest.raises(RuntimeError, match="the roof"):
        run("run", "logger=mlflow", on_epoch=stop)
    state = json.loads((tmp_path / "run/state.json").read_text())
    assert state["status"] == "interrupted"
    assert drain(tmp_path / "experiments", 60)
    (record,) = Store(None, tmp_path / "experiments").runs()
    assert record.status == "FAILED"
    assert "RuntimeError: the roof fell in" in record.tags["error"]


def test_bad_input_leaves_nothing_in_the_store(run: Run, tmp_path: Path) -> None:
    words = ["data=mnist", f"paths.data_dir={tmp_path / 'none'}", "data.fallback=null", "logger=mlflow"]
    with pytest.raises(UserError) as error:
        run("run", *words)
    for way in ("PIPELINE_DATA_PATH", str(tmp_path / "none"), "with a network"):
        assert way in str(error.value)
    assert not list((tmp_path / "experiments").rglob("*.jsonl"))
    assert not (tmp_path / "run/result.json").exists()


def test_a_metric_of_an_unknown_direction_is_refused_before_anything_is_recorded(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="Did you mean accuracy"):
        run("run", "logger=mlflow", "objective.metric=val/akkuracy")
    assert not list((tmp_path / "experiments").rglob("*.jsonl"))
    with pytest.raises(UserError, match="Did you mean val/accuracy"):
        run("said", "objective.metric=val/akkuracy", "objective.direction=maximize", reports=False)


@pytest.mark.parametrize("steps", [1, 16])
def test_a_loss_that_is_no_number_stops_the_run(run: Run, tmp_path: Path, steps: int) -> None:
    words = [
        "optimizer=sgd",
        "optimizer.lr=1e30",
        f"trainer.steps_per_call={steps}",
        "model.batch_norm=false",
    ]
    with pytest.raises(Diverged, match=r"loss became (nan|inf).*learning rate 1e\+30") as error:
        run("run", *words)
    assert error.value.exit_code == 3


def test_a_run_can_go_on_with_half_the_rate_after_diverging(run: Run) -> None:
    words = ["trainer.on_divergence=lower_lr", "checkpoint.every_seconds=0", "trainer.max_epochs=4"]
    lowered: list[float] = []

    class Once:
        done = False

        def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
            lowered.append(metrics["train/lr"])
            if epoch == 2 and not self.done:
                self.done = True
                raise Diverged("the loss became nan")

    result = run("run", *words, "optimizer.lr=0.002", on_epoch=Once(), reports=False)
    assert lowered == pytest.approx([0.002, 0.002, 0.001, 0.001, 0.001])
    assert len(result.history["val/loss"]) == 4


DEBUG = {
    "fast": {"epochs": 1},
    "overfit": {"epochs": 3, "words": ["trainer.max_epochs=3"]},
    "limit": {"epochs": 3},
    "profile": {"epochs": 1},
    "nan": {"epochs": 2, "words": ["trainer.max_epochs=2"]},
}


@pytest.mark.parametrize("kind", DEBUG)
def test_debug_modes(run: Run, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = DEBUG[kind].get("words", [])
    result = run("run", "logger=mlflow", f"debug={kind}", *words, reports=False)  # type: ignore[misc]
    assert len(result.history["train/loss"]) == DEBUG[kind]["epochs"]
    assert result.run_id is None
    assert not (tmp_path / "experiments").exists()
    if kind == "overfit":
        assert "test/accuracy" not in result.metrics
    if kind == "profile":
        listing = (tmp_path / "run/profile.txt").read_text()
        shown = capfd.readouterr().err
        assert "function calls" in shown
        hottest = [
            line for line in shown.splitlines() if line.strip()[:1].isdigit() and "." in line.split()[1]
        ]
        assert len(hottest) == 10
        assert listing.count("\n") > 100
        assert (tmp_path / "run/profile.prof").stat().st_size > 1000


@pytest.mark.parametrize("name", ["simple", "pytorch"])
def test_lightnings_own_profilers_write_a_file(run: Run, tmp_path: Path, name: str) -> None:
    run(
        "run",
        f"trainer.profiler={name}",
        "trainer.max_epochs=1",
        "+trainer.limit_train_batches=2",
        reports=False,
    )
    assert any(path.stat().st_size for path in (tmp_path / "run").glob("fit-profile*"))


def test_debug_runs_have_a_folder_of_their_own() -> None:

    assert compose(["experiment=digits_mlp", "debug=fast"]).logger.mlflow is False
    whole = loader(None).load_configuration("config", ["experiment=digits_mlp", "debug=fast"], RunMode.RUN)
    assert "/debug/digits_mlp/" in whole.hydra.run.dir


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["+trainer.accumulate_grad_batches=4"], 2 * 10),
        (["trainer.max_steps=7"], 7),
        (["trainer.limit_train_batches=5"], 2 * 5),
        (["trainer.limit_train_batches=0.1"], 2 * 3),
        (["trainer.overfit_batches=0.5"], 2 * 19),
        (["data.batch_size=100"], 2 * 13),
        (["trainer.precision=bf16-mixed", "model.dropout=0.1"], 2 * 39),
        (["+callbacks.mine._target_=pytorch_lightning.callbacks.LearningRateMonitor", "logger=csv"], 2 * 39),
    ],
)
def test_flags_of_the_trainer_mean_what_lightning_means(run: Run, words: list[str], steps: int) -> None:
    result = run("run", *words, reports=False, baseline=False)
    last = torch.load(result.directory / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == steps


def test_a_compiled_model_learns_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with = torch.compile
    compiled: list[Any] = []

    def without_generating_code(function: Any) -> Any:
        compiled.append(function)
        return compile_with(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", without_generating_code)
    words = ["trainer.max_epochs=1", "model=linear"]
    plain = run("plain", *words, reports=False)
    assert not compiled
    faster = run("compiled", *words, "model.compile=true", reports=False)
    assert compiled
    assert faster.metrics["train/loss"] == pytest.approx(plain.metrics["train/loss"], rel=1e-4)
    assert faster.metrics["test/accuracy"] == pytest.approx(plain.metrics["test/accuracy"], abs=0.01)


def test_early_stopping_stops(run: Run) -> None:
    words = ["callbacks.early_stopping.patience=1", "trainer.max_epochs=9", "optimizer.lr=1e-9"]
    result = run("run", *words, reports=False)
    assert len(result.history["val/loss"]) <= 4
    with pytest.raises(UserError, match="validation_fraction"):
        run("none", *words, "data.validation_fraction=0")


def test_folds_are_fits_of_their_own_under_one_result(run: Run, tmp_path: Path) -> None:
    result = run("run", "data.folds=3", "trainer.max_epochs=1", reports=False)
    values = [fit["metrics"]["val/accuracy"] for fit in result.nested]
    assert len(values) == 3
    assert result.metrics["val/accuracy"] == pytest.approx(sum(values) / 3)
    assert not any(name.startswith("test/") for name in result.metrics)
    assert (tmp_path / "run/fold-1/result.json").is_file()


@pytest.mark.real_data
def test_a_linear_model_learns_mnist(run: Run) -> None:
    words = ["experiment=mnist_linear", "trainer.max_epochs=1"]
    result = run("run", *words, reports=False)
    assert result.data["used"] == "mnist"
    assert result.metrics["test/accuracy"] > 0.9


@pytest.mark.parametrize(
    ("typed", "epochs"),
    [
        ([], 28),
        (["trainer.max_epochs=2"], 2),
        (["data.stand_in_steps=20"], 5),
        (["data.stand_in_steps=null"], 5),
    ],
)
def test_a_stand_in_is_trained_for_as_long_as_it_needs(typed: list[str], epochs: int, tmp_path: Path) -> None:
    from pipeline.runs.length import long_enough
    from pipeline.runs.plan import plan_of
    from pipeline.training.building import build_data

    # 1,320 digits in 11 batches: 300 steps are 28 epochs.
    cfg = compose(["experiment=mnist_cnn", f"paths.data_dir={tmp_path}", *typed])
    plan = plan_of(cfg)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_OFFLINE", "1")
        patch.delenv("PIPELINE_DATA_PATH", raising=False)
        data = build_data(plan.data)
        # How long is no matter of what was read.
        again = build_data({**plan.data, "stand_in_steps": 7})
    longer, notes = long_enough(plan, data)
    assert longer.fit.trainer["max_epochs"] == epochs
    assert bool(notes) == (epochs == 28)
    assert again.train is data.train and again.stand_in_steps == 7
