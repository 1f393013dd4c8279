"""A logged model, opened elsewhere: no pickle in it, the same predictions to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.loading import compose
from pipeline.run_result import RunResult
from pipeline.tasks.hooks import Hooks
from pipeline.tasks.train import train
from pipeline.tracking.queries import Store

PROGRAM = """
import json, sys
import mlflow, numpy as np
assert "pipeline" not in sys.modules
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
images = np.load(sys.argv[3])
labels = np.load(sys.argv[4])
whole = model.predict(images)
print(json.dumps({
    "accuracy": float((whole["label"].to_numpy(str) == labels.astype(str)).mean()),
    "columns": list(whole.columns),
    "whole": whole.drop(columns="label").to_numpy().tolist(),
    "pieces": [row for start in range(0, len(images), 7)
               for row in model.predict(images[start:start + 7]).drop(columns="label").to_numpy().tolist()],
}))
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("tracked")
    # A model that trains in bfloat16: what is tested and served is float32 all the same.
    words = ["experiment=digits_cnn", "model.channels=[8,8]", "model.hidden_units=32", "trainer.max_epochs=2"]
    words += [
        "trainer.precision=bf16-mixed",
        "trainer=cpu",
        f"paths.experiments_dir={folder / 'experiments'}",
    ]
    return train(compose(words), Hooks(directory=folder / "run", quiet=True))


def test_a_fresh_process_predicts_with_exactly_the_logged_accuracy(
    tracked: RunResult, tmp_path: Path
) -> None:
    from pipeline.data.images import Images

    experiments = tracked.directory.parent / "experiments"
    store = Store(None, experiments)
    record = store.run(str(tracked.run_id))
    data = Images(name="digits")
    data.setup()
    assert data.test is not None
    np.save(tmp_path / "images.npy", data.test.x[:, 0])
    np.save(tmp_path / "labels.npy", data.test.y)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            store.uri,
            model_uri(store, record.run_id),
            "images.npy",
            "labels.npy",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["accuracy"] == tracked.metrics["test/accuracy"] == record.metrics["test/accuracy"]
    assert found["columns"] == ["label", "probability", *(f"p_{digit}" for digit in range(10))]
    assert np.abs(np.array(found["whole"]) - np.array(found["pieces"])).max() < 1e-4
    assert np.array(found["whole"])[:, 1:].sum(1) == pytest.approx(1, abs=1e-5)


def model_uri(store: Store, run_id: str) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(store.uri)
    experiment = client.get_run(run_id).info.experiment_id
    (model,) = client.search_logged_models(experiment_ids=[experiment])
    return str(model.model_uri)


def test_nothing_in_the_logged_model_is_a_pickle(tracked: RunResult) -> None:
    folders = [path.parent for path in (tracked.directory.parent / "experiments").rglob("MLmodel")]
    assert folders
    for folder in folders:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} <= {"", ".py", ".json", ".yaml", ".txt", ".safetensors"}
        for path in files:
            # Neither a pickle of protocol 2 and later nor a zip archive, which PyTorch's files are.
            assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"), (
                path
            )
