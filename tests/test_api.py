"""The pipeline from Python: the same runs as the command line makes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline
from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.runs.result import RunResult
from pipeline.training.checkpoints import load_checkpoint

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/notebook.ipynb"
WORDS = ("+experiment=digits_mlp", "trainer.max_epochs=2", "callbacks.progress=null", "trainer=cpu")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_twice_in_one_process_and_as_the_command_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = (pipeline.train(*WORDS, "model.dropout=0.2", "logger=none") for _ in range(2))
    assert main([*WORDS, "model.dropout=0.2", "logger=none", "hydra.run.dir=typed"]) == 0
    typed = RunResult.read(tmp_path / "typed")
    assert first.directory != second.directory
    weights = [
        load_checkpoint(result.directory / "checkpoints/best.ckpt")["state_dict"]
        for result in (first, second, typed)
    ]
    for name, tensor in weights[0].items():
        assert all(torch.equal(tensor, other[name]) for other in weights[1:])
    timed = "per_second"
    for other in (second, typed):
        assert {k: v for k, v in first.metrics.items() if timed not in k} == {
            k: v for k, v in other.metrics.items() if timed not in k
        }
    assert (first.directory / ".hydra/overrides.yaml").is_file() and (
        first.directory / "pipeline.log"
    ).is_file()
    assert json.loads((first.directory / "result.json").read_text())["metrics"].keys() == first.metrics.keys()


def test_the_result_as_tables_and_figures() -> None:
    result = pipeline.train(*WORDS, "logger=none")
    frame, table = result.frame(), result.table()
    assert list(frame.index) == [1, 2]
    assert frame["val/accuracy"].tolist() == [value for _, value in result.history["val/accuracy"]]
    assert table.loc["accuracy", "test"] == result.metrics["test/accuracy"]
    assert {"learning_curves", "confusion_matrix"} <= set(result.figures())
    # The time is that of the call, not of a process that may be hours old.
    assert result.seconds["startup"] < 60


def test_everything_is_afterwards_as_it_was_before() -> None:
    root = logging.getLogger()
    handlers, level, threads = list(root.handlers), root.level, torch.get_num_threads()
    pipeline.train(*WORDS, "logger=none", "trainer.threads=1", "train=false", "test=false")
    with pytest.raises(UserError, match=r"Did you mean model\.dropout"):
        pipeline.train("model.dropuot=0.2")
    assert (root.handlers, root.level, torch.get_num_threads()) == (handlers, level, threads)


def test_other_tasks_are_the_command_lines() -> None:
    with pytest.raises(UserError, match=r"train\(\) trains"):
        pipeline.train("task=explore", "data=digits")


@pytest.mark.delivered
def test_a_sweep_gives_its_trials_and_a_run_its_model(tmp_path: Path) -> None:
    found = pipeline.sweep(*WORDS, "+sweep=mlp", "trainer.max_epochs=1", n_trials=2)
    assert len(found.trials) == 2 and found.best_value == found.trials["value"].max()
    assert any(key.startswith(("model.", "optimizer.")) for key in found.best_params)
    result = pipeline.train(*WORDS)
    images = np.zeros((3, 8, 8), dtype=np.uint8)
    by_directory, by_id = (
        pipeline.load(place).predict(images) for place in (result.directory, str(result.run_id))
    )
    assert by_directory.equals(by_id) and len(by_id) == 3


def test_a_class_beside_the_script_is_allowed_by_name(tmp_path: Path) -> None:
    (tmp_path / "beside_the_script.py").write_text(
        "from torch import nn\n\n\nclass Flat(nn.Module):\n"
        "    def __init__(self, outputs):\n        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))\n\n"
        "    def forward(self, x):\n        return self.layers(x)\n",
        encoding="utf-8",
    )
    words = [
        "data=digits",
        "model._target_=beside_the_script.Flat",
        "+model.outputs=${spec:outputs}",
        "logger=none",
    ]
    result = pipeline.train(*words, "trainer.max_epochs=1", allow=["beside_the_script"])
    assert result.model["class"] == "Flat"


def test_importing_it_is_quick() -> None:
    code = "import sys, pipeline; pipeline.train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_notebook_runs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 - it is ours
    assert names["result"].metrics["test/accuracy"] > 0.9  # type: ignore[attr-defined]
    assert len(names["answers"]) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_data_frame_is_trained_on_and_predicted(library: str, tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(
        {"size": np.arange(80) % 17 / 2, "city": ["Bern", "Oslo"] * 40, "price": np.arange(80) % 17 * 3.5}
    )
    frame: object = table
    if library == "polars":
        frame = pytest.importorskip("polars").from_pandas(table)
    elif library == "pyarrow":
        import pyarrow

        frame = pyarrow.Table.from_pandas(table)
    words = (
        "data.target=price",
        "trainer.max_epochs=1",
        "callbacks.progress=null",
        "logger=none",
        "model=linear",
    )
    result = pipeline.train(*words, data=frame)
    assert result.data["train"] + result.data["validation"] + result.data["test"] == 80
    predictor = pipeline.load(result.directory)
    table.to_csv(tmp_path / "same.csv", index=False)
    from pipeline.tasks.predict import predict

    predict(predictor, str(tmp_path / "same.csv"), str(tmp_path / "out.csv"))
    expected = predictor.predict(frame)["prediction"].to_numpy()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out.csv")["prediction"], expected, rtol=1e-5)
    assert {"data.drop=[size]", "data.duplicates=drop"} == {guess["key"] for guess in result.guesses}
    assert json.loads((result.directory / "result.json").read_text())["guesses"] == result.guesses
    if library == "pandas":
        with pytest.raises(UserError, match="leave one of them out"):
            pipeline.train(*words, "data.path=x.csv", data=frame)
        with pytest.raises(UserError, match="expected a data frame"):
            pipeline.train(*words, data=[1, 2])
