"""A logged model, opened elsewhere or served: no pickle in it, the same predictions as the pipeline's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
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
    return train(compose(words), Hooks(directory=folder / "run"))


def test_a_fresh_process_predicts_with_exactly_the_logged_accuracy(
    tracked: RunResult, tmp_path: Path
) -> None:
    from pipeline.data.images.published import Images

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
        # Byte code lies there once a process has loaded the model: Python writes it, the run does not.
        files = [path for path in files if path.parent.name != "__pycache__"]
        assert {path.suffix for path in files} <= {"", ".py", ".json", ".yaml", ".txt", ".safetensors"}
        for path in files:
            # Neither a pickle of protocol 2 and later nor a zip archive, which PyTorch's files are.
            assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"), (
                path
            )


NAME = "served-digits"


@pytest.fixture(scope="module")
def port(tracked: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of MLflow's own server of the registered champion, started as docs/sweeps.md says."""
    store = Store(None, tracked.directory.parent / "experiments")
    version = store.register(str(tracked.run_id), NAME)
    store.set_alias(NAME, "champion", version.version)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    words += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(number)]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            words,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # As in an activated environment: it looks for uvicorn on the path.
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "MLFLOW_TRACKING_URI": store.uri,
                "OMP_NUM_THREADS": "1",
            },
        )
    try:
        _wait_for(server, number, log)
        yield number
    finally:
        # Its workers are processes of their own in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def _wait_for(server: subprocess.Popen[bytes], number: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if _asked(number, None, "GET", "/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()}")


def _asked(number: int, content: Any, method: str = "POST", path: str = "/invocations") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=60)
    body = None if content is None else content if isinstance(content, str) else json.dumps(content)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def _test_images(samples: int) -> np.ndarray:
    from pipeline.data.images.published import Images

    data = Images(name="digits")
    data.setup()
    assert data.test is not None
    pixels: np.ndarray = data.test.x[:samples, 0].numpy()
    return pixels


def test_the_served_champion_answers_many_clients_as_predict_does(
    port: int, tracked: RunResult, tmp_path: Path
) -> None:
    images = _test_images(200)
    np.save(tmp_path / "images.npy", images)
    words = [
        "task=predict",
        f"task.model_uri=models:/{NAME}@champion",
        f"task.input={tmp_path / 'images.npy'}",
    ]
    words += [f"task.output={tmp_path / 'out.csv'}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main([*words, f"paths.experiments_dir={tracked.directory.parent / 'experiments'}"]) == 0
    expected = pd.read_csv(tmp_path / "out.csv", dtype={"label": str})

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda image: _asked(port, {"inputs": [image.tolist()]}), images))
    assert [status for status, _ in answers] == [200] * 200
    served = pd.DataFrame([json.loads(text)["predictions"][0] for _, text in answers])
    assert list(served.columns) == list(expected.columns)
    assert list(served["label"]) == list(expected["label"])
    numbers = [column for column in served.columns if column != "label"]
    np.testing.assert_allclose(served[numbers].to_numpy(float), expected[numbers].to_numpy(float), atol=1e-5)


def test_malformed_requests_get_a_message_without_a_stack(port: int) -> None:
    image = np.zeros((8, 8), int).tolist()
    for content in (
        "{not json",
        {},
        {"inputs": []},
        {"inputs": [[1, 2], [3]]},
        {"inputs": [[[1, 2], [3, 4]]]},
        {"inputs": [[["a"] * 8] * 8]},
        {"inputs": [[[300] * 8] * 8]},
        {"inputs": [[[-1] * 8] * 8]},
        {"inputs": None},
        {"instances": "text"},
        {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
    ):
        status, text = _asked(port, content)
        assert 400 <= status < 500, (content, status, text)
        assert "Traceback" not in text, content
        assert "stack_trace" not in text, content
        assert len(text) < 2000, content
    assert _asked(port, {"inputs": [image]})[0] == 200


def test_the_request_that_the_documentation_shows_is_answered(port: int) -> None:
    page = (Path(__file__).parents[2] / "docs/sweeps.md").read_text(encoding="utf-8")
    (request,) = re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    status, text = _asked(port, request)
    assert status == 200
    (answer,) = json.loads(text)["predictions"]
    assert set(answer) == {"label", "probability", *(f"p_{digit}" for digit in range(10))}
    assert answer["probability"] == max(answer[f"p_{digit}"] for digit in range(10))
