"""A person's own LightningModule and LightningDataModule: trained as they are written, with our record around them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tracking import drain
from pipeline.tracking.queries import Store
from pipeline.training.checkpoints import load_checkpoint

CODE = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import {library} as L


class Lit(L.LightningModule):
    def __init__(self, width: int = 8, lr: float = 0.01, fails_at: int = -1):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))

    def step(self, batch, split):
        x, y = batch
        logits = self.body(x)
        loss = nn.functional.cross_entropy(logits, y)
        self.log(f"{{split}}_loss", loss, on_step=split == "train", on_epoch=True)
        self.log(f"{{split}}_acc", (logits.argmax(1) == y).float().mean(), on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        if self.current_epoch == self.hparams.fails_at:
            raise RuntimeError("cut off")
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def forward(self, x):
        return self.body(x)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Shown(Lit):
    def __init__(self):
        super().__init__()
        self.example_input_array = torch.zeros(2, 4)

    def predict_step(self, batch, batch_idx):
        return {{"class": self(batch).argmax(1), "logit": self(batch)}}


class Gan(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer, layer in zip(self.optimizers(), (self.first, self.second)):
            loss = nn.functional.cross_entropy(layer(x), y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log("train/loss", loss, on_step=False, on_epoch=True)

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.first, self.second)]


class Blobs(L.LightningDataModule):
    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        generator = torch.Generator().manual_seed(3)
        y = torch.arange(180) % 3
        x = torch.randn(180, 4, generator=generator) + y[:, None].float()
        self.parts = [TensorDataset(x[a:b], y[a:b]) for a, b in ((0, 120), (120, 150), (150, 180))]

    def train_dataloader(self):
        return DataLoader(self.parts[0], self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.parts[1], 64)

    def test_dataloader(self):
        return DataLoader(self.parts[2], 64)
"""
LIBRARIES = ["pytorch_lightning", "lightning"]

Run = Callable[..., RunResult]


@pytest.fixture(params=LIBRARIES)
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a person's own, written against one of the two packages of Lightning."""
    pytest.importorskip(request.param)
    name = f"own_{request.param}"
    (tmp_path / f"{name}.py").write_text(CODE.format(library=request.param), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PIPELINE_ALLOW", name)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def go(place: str, *words: str, **hooks: object) -> RunResult:
        always = [
            f"paths.experiments_dir={tmp_path}",
            "logger=none",
            "trainer=cpu",
            "callbacks.progress=null",
        ]
        directory = tmp_path / "runs" / place
        return train(compose([*always, *words]), Hooks(directory=directory, baseline=False, **hooks))  # type: ignore[arg-type]

    return go


def own(package: str) -> list[str]:
    return [f"data._target_={package}.Blobs", f"model._target_={package}.Lit", "trainer.max_epochs=4"]


def test_what_it_logs_is_its_history_and_its_best_epoch_is_tested(package: str, run: Run) -> None:
    result = run("one", *own(package), "optimizer=adam")
    assert [epoch for epoch, _ in result.history["val_acc"]] == [1, 2, 3, 4]
    accuracy = [value for _, value in result.history["val_acc"]]
    assert result.best_epoch == 1 + accuracy.index(max(accuracy))
    assert result.metrics["val_acc"] == max(accuracy)
    assert 0 < result.metrics["test_loss"] < 2 and "test_acc" in result.metrics
    best = load_checkpoint(result.directory / "checkpoints/best.ckpt")
    assert best["epoch"] + 1 == result.best_epoch
    assert result.data["train"] == 120 and result.data["validation"] == 30
    assert (result.directory / "plots/learning_curves.png").is_file()


def test_a_run_that_was_cut_off_ends_with_the_bits_of_one_that_was_not(package: str, run: Run) -> None:
    words = [*own(package), "checkpoint.every_seconds=0"]
    whole = run("whole", *words)
    with pytest.raises(RuntimeError, match="cut off"):
        run("cut", *words, "+model.fails_at=2")
    resumed = run("cut", *words, "resume=auto")
    assert resumed.history["train_loss"] == whole.history["train_loss"]
    assert resumed.history["val_acc"] == whole.history["val_acc"]
    first, second = (
        load_checkpoint(result.directory / "checkpoints/last.ckpt")["state_dict"]
        for result in (whole, resumed)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_manual_optimisation_and_several_optimisers(package: str, run: Run) -> None:
    result = run(
        "gan", f"data._target_={package}.Blobs", f"model._target_={package}.Gan", "trainer.max_epochs=2"
    )
    losses = [value for _, value in result.history["train/loss"]]
    assert losses[1] < losses[0]
    assert result.notes[-1] == "not tested: Gan has no test_step"


def test_it_stops_early_by_the_metric_that_was_asked_for(package: str, run: Run) -> None:
    words = [*own(package), "trainer.max_epochs=30", "objective.metric=val_loss", "+model.lr=0.0"]
    result = run("early", *words, "callbacks.early_stopping.patience=1")
    # Nothing is learnt: the second epoch is no better, and nor is any after it.
    assert len(result.history["val_loss"]) <= 3
    assert "best epoch by val_loss (min)" in result.notes


def test_an_objective_that_it_does_not_log_is_named_after_the_first_epoch(package: str, run: Run) -> None:
    with pytest.raises(UserError, match=r"logged no such metric in its first epoch\. Did you mean val_acc"):
        run("wrong", *own(package), "objective.metric=val_accu")


def test_a_callback_that_waits_for_what_it_does_not_log_names_what_there_is(package: str, run: Run) -> None:
    stops = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/accu}"
    with pytest.raises(UserError, match=r"metric `val/accu` which is not available.*`val_acc`"):
        run("stops", *own(package), f"+callbacks.stops={stops}")


def test_the_epochs_of_a_sweep_see_its_metrics(package: str, run: Run) -> None:
    seen: list[float] = []
    run("hooked", *own(package), on_epoch=lambda epoch, metrics: seen.append(metrics["val_loss"]))
    assert len(seen) == 4


def test_our_data_comes_as_pairs_of_normalised_images(package: str, run: Run) -> None:
    words = ["data=digits", f"model._target_={package}.Lit", "trainer.max_epochs=1"]
    # Images of 8 × 8 in batches: the linear layer for four numbers does not take them, which shows that they came.
    with pytest.raises(RuntimeError, match=r"\(.*x8 and 4x8\)"):
        run("digits", *words)


def test_our_models_train_on_a_data_module_of_ones_own(package: str, run: Run) -> None:
    words = [
        f"data._target_={package}.Blobs",
        "model=mlp",
        "trainer.max_epochs=6",
        "checkpoint.every_seconds=0",
    ]
    result = run("mlp", *words, "optimizer.lr=0.01")
    assert result.data["train"] == 120 and result.data["test"] == 30
    assert result.metrics["test/accuracy"] > 0.5
    assert (result.directory / "model/encoder.json").is_file()


def test_the_template_form_gets_its_optimiser_as_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    (tmp_path / "template_form.py").write_text(
        CODE.format(library="pytorch_lightning")
        + """

class Templated(Lit):
    def __init__(self, net, optimizer, scheduler, compile: bool):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.body = net

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.parameters())
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
""",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PIPELINE_ALLOW", "template_form")
    folder = tmp_path / "configs/model"
    folder.mkdir(parents=True)
    (folder / "templated.yaml").write_text(
        """_target_: template_form.Templated
optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 0.01}
scheduler: {_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: min, patience: 0}
net: {_target_: torch.nn.Linear, in_features: 4, out_features: 3}
compile: false
""",
        encoding="utf-8",
    )
    cfg = compose(
        [
            *("data._target_=template_form.Blobs", "model=templated", "trainer.max_epochs=2", "trainer=cpu"),
            *("logger=none", f"paths.experiments_dir={tmp_path}", "callbacks.progress=null"),
        ],
        config_dir=tmp_path / "configs",
    )
    result = train(cfg, Hooks(directory=tmp_path / "run"))
    losses = [value for _, value in result.history["val_loss"]]
    assert losses[1] < losses[0]
    # What pickle alone could write stays out of the checkpoint.
    kept = load_checkpoint(result.directory / "checkpoints/last.ckpt")["hyper_parameters"]
    assert "net" not in kept and kept["compile"] is False


@pytest.mark.delivered
def test_predict_and_export_ask_what_the_module_says(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    from pipeline.__main__ import main

    monkeypatch.chdir(tmp_path)
    words = [
        f"data._target_={package}.Blobs",
        "trainer.max_epochs=2",
        "trainer=cpu",
        "callbacks.progress=null",
    ]

    def trained(name: str) -> str:
        assert main([*words, f"model._target_={package}.{name}", f"hydra.run.dir={name}"]) == 0
        return str(RunResult.read(tmp_path / name).run_id)

    shown, silent = trained("Shown"), trained("Gan")
    inputs = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    asked = ["task=predict", "task.input=inputs.npy", "task.output=answers.csv"]
    assert main([*asked, f"task.run_id={shown}"]) == 0
    frame = pd.read_csv(tmp_path / "answers.csv")
    assert list(frame.columns) == ["class", "logit_0", "logit_1", "logit_2"]
    assert main(["task=export", f"task.run_id={shown}", "task.format=onnx", "task.output=own.onnx"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "own.onnx"))
    (logits,) = session.run(None, {session.get_inputs()[0].name: inputs})
    assert np.allclose(logits, frame[["logit_0", "logit_1", "logit_2"]], atol=1e-5)
    capsys.readouterr()
    assert main([*asked, f"task.run_id={silent}"]) == 2
    assert "add predict_step(self, batch, batch_idx)" in capsys.readouterr().err
    assert main(["task=export", f"task.run_id={silent}", "task.format=onnx"]) == 2
    assert "set self.example_input_array" in capsys.readouterr().err


DRAWS = """

class Draws(Lit):
    def __init__(self, width: int = 8):
        super().__init__()
        self.body = nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 3))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.step(batch, "val")

    def on_train_epoch_end(self):
        writer = self.logger.experiment
        writer.add_scalar("norm", 2.5, self.current_epoch)
        writer.add_image("first", torch.linspace(0, 1, 12).view(1, 3, 4), self.current_epoch)
        writer.add_histogram("weights", self.body[0].weight, self.current_epoch)
        writer.log({"wide": 4, "tensor": torch.tensor(0.5)}, step=self.current_epoch)
        self.logger.log_image(key="grid", images=[torch.zeros(3, 5, 6)])
        self.logger.log_image(key="of.numpy", images=[np.zeros((5, 6, 3), np.uint8)], step=self.current_epoch)
        self.logger.log_metrics({"by_hand": 3.5}, step=self.current_epoch)
        self.logger.watch(self)
        writer.config.update({"a": 1})
        writer.log({"odd": torch.zeros(3)})
        for part in "ab":
            writer.add_text("said", part, 7)


class Several(Blobs):
    def val_dataloader(self):
        return [DataLoader(self.parts[1], 64), DataLoader(self.parts[2], 64)]
"""


@pytest.fixture
def drawing(package: str, tmp_path: Path) -> str:
    with (tmp_path / f"{package}.py").open("a", encoding="utf-8") as file:
        file.write(DRAWS)
    return package


@pytest.mark.delivered
def test_what_it_gives_to_its_logger_is_of_the_run(
    drawing: str, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [f"data._target_={drawing}.Several", f"model._target_={drawing}.Draws", "model.width=5"]
    result = run("draws", *words, "logger=mlflow", "trainer.max_epochs=2")
    assert sorted(path.name for path in (result.directory / "logged").iterdir()) == [
        *("first_000000.png", "first_000001.png", "grid_000008.png", "grid_000016.png"),
        *("of.numpy_000000.png", "of.numpy_000001.png"),
        *("said_000007.txt", "said_000007_2.txt", "said_000007_3.txt", "said_000007_4.txt"),
    ]
    with Image.open(result.directory / "logged/first_000001.png") as picture:
        assert picture.size == (4, 3)
    said = [record.message for record in caplog.records if "add_histogram" in record.message]
    assert said == [
        "logger.experiment.add_histogram: not recorded; logger=tensorboard has a writer of its own"
    ]
    # A lazy layer has its weights after a batch: (4 + 1) × 5 and (5 + 1) × 3.
    assert result.model["parameters"] == 43
    assert drain(tmp_path, 60)
    (record,) = Store(None, tmp_path).runs()
    assert {"norm": 2.5, "wide": 4.0, "tensor": 0.5, "by_hand": 3.5}.items() <= record.metrics.items()
    # Each loader of several is judged under a name of its own.
    assert {"val_loss_epoch/dataloader_idx_0", "val_loss/dataloader_idx_1"} & result.metrics.keys()


def test_a_module_of_one_package_takes_a_data_module_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    for library in LIBRARIES:
        pytest.importorskip(library)
        (tmp_path / f"of_{library}.py").write_text(CODE.format(library=library), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PIPELINE_ALLOW", "of_lightning,of_pytorch_lightning")
    results = [
        run(
            f"{data}-{model}",
            f"data._target_=of_{data}.Blobs",
            f"model._target_=of_{model}.Lit",
            "trainer.max_epochs=2",
        )
        for data in LIBRARIES
        for model in LIBRARIES
    ]
    losses = [result.history["val_loss"] for result in results]
    assert losses[0] == losses[1] == losses[2] == losses[3]
    with (tmp_path / "of_lightning.py").open("a", encoding="utf-8") as file:
        file.write("\n\nclass Untested(L.LightningDataModule):\n")
        file.write("    batch_size = 16\n")
        for hook in ("setup", "train_dataloader", "val_dataloader"):
            file.write(f"    {hook} = Blobs.{hook}\n")
    # What the person has not written is not taken for theirs.
    del sys.modules["of_lightning"]
    words = ["data._target_=of_lightning.Untested", "model._target_=of_pytorch_lightning.Lit"]
    result = run("untested", *words, "trainer.max_epochs=1")
    assert result.notes[-1] == "not tested: Untested has no test_dataloader"


def test_a_module_that_brings_its_loaders_needs_no_other_data(package: str, run: Run, tmp_path: Path) -> None:
    with (tmp_path / f"{package}.py").open("a", encoding="utf-8") as file:
        file.write("""

class Whole(Lit):
    def train_dataloader(self):
        blobs = Blobs()
        blobs.setup()
        return blobs.train_dataloader()

    val_dataloader = train_dataloader
""")
    result = run("whole", f"model._target_={package}.Whole", "trainer.max_epochs=1")
    assert result.data["train"] == 120 and "val_loss" in result.metrics
    assert result.notes[-1] == "not tested: Whole has no test_dataloader"
    # Data that is chosen goes before: images, which it does not take.
    with pytest.raises(RuntimeError, match=r"\(.*x8 and 4x8\)"):
        run("chosen", f"model._target_={package}.Whole", "trainer.max_epochs=1", "data=digits")
    own_data = run(
        "typed", f"model._target_={package}.Whole", f"data._target_={package}.Blobs", "trainer.max_epochs=1"
    )
    assert "test_loss" in own_data.metrics
    with pytest.raises(UserError, match=r"Whole brings its own loaders, .* write the number where"):
        run("asked", f"model._target_={package}.Whole", "model.width=${spec:outputs}")


def test_a_number_of_threads_holds_for_its_steps_and_not_afterwards(
    package: str, run: Run, tmp_path: Path
) -> None:
    with (tmp_path / f"{package}.py").open("a", encoding="utf-8") as file:
        file.write("""

class Counting(Lit):
    def training_step(self, batch, batch_idx):
        self.log("threads", float(torch.get_num_threads()))
        return super().training_step(batch, batch_idx)
""")
    before = torch.get_num_threads()
    words = [f"model._target_={package}.Counting", "trainer.max_epochs=1", f"trainer.threads={before + 1}"]
    result = run("counting", f"data._target_={package}.Blobs", *words)
    assert result.history["threads"] == [(1, before + 1)]
    assert torch.get_num_threads() == before
