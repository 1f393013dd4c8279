"""Logged models: opened elsewhere, served, and moved through the registry."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.tracking import Run, signatures
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.queries import Store

Start = Callable[..., Run]
Deliver = Callable[..., Delivery]

CLASSES = ("zero", "one", "two")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A linear model of 4×4 images with fixed weights, saved."""
    import torch

    from pipeline.data.core.spec import Spec
    from pipeline.data.images.encoders import ImageEncoder
    from pipeline.models import saved
    from pipeline.models.linear import Linear

    spec = Spec("multiclass", "image", (1, 4, 4), 3, CLASSES, pixel_mean=(100.0,), pixel_std=(50.0,))
    torch.manual_seed(0)
    return saved.save(Linear(spec), ImageEncoder([1, 4, 4], [100.0], [50.0]), tmp_path / "bundle")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 4)).astype(np.uint8)


@pytest.fixture
def logged(
    start_run: Start, deliver: Deliver, bundle: Path, images: np.ndarray, tmp_path: Path, empty_store: Path
) -> Run:
    np.save(tmp_path / "example.npy", images[:2])
    run = start_run()
    run.log_model(
        bundle,
        "small",
        signature={
            "inputs": [signatures.tensor("uint8", [-1, 4, 4])],
            "outputs": signatures.class_outputs(CLASSES),
        },
        input_example=tmp_path / "example.npy",
        requirements=["mlflow==3.17.2"],
    )
    run.finish()
    deliver(run)
    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(None, tmp_path / "experiments")


def probabilities(bundle: Path, images: np.ndarray) -> np.ndarray:
    """The linear model by hand: softmax of a weighted sum of normalised pixels."""
    from safetensors.numpy import load_file

    weights = load_file(bundle / "weights.safetensors")
    x = (images.reshape(len(images), -1).astype(np.float64) - 100.0) / 50.0
    logits = x @ weights["output.weight"].astype(np.float64).T + weights["output.bias"]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_a_logged_model_opens_where_pipeline_was_never_imported(
    logged: Run, store: Store, bundle: Path, images: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", images)
    program = """
import json, sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(model.predict(np.load(sys.argv[3])).to_json(orient="split"))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, store.uri, store.model_uri(logged.key), str(tmp_path / "images.npy")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    table = json.loads(answer.stdout.splitlines()[-1])
    expected = probabilities(bundle, images)
    assert table["columns"] == ["label", "probability", "p_zero", "p_one", "p_two"]
    assert [row[0] for row in table["data"]] == [CLASSES[index] for index in expected.argmax(1)]
    np.testing.assert_allclose([row[2:] for row in table["data"]], expected, atol=1e-5)


def test_a_resumed_run_records_the_same_model_once(
    start_run: Start, deliver: Deliver, bundle: Path, tmp_path: Path
) -> None:
    def record(run: Run) -> None:
        signature = {
            "inputs": [signatures.tensor("uint8", [-1, 4, 4])],
            "outputs": signatures.class_outputs(CLASSES),
        }
        run.log_model(bundle, signature=signature, input_example=[[[0] * 4] * 4], requirements=["mlflow"])

    run = start_run()
    record(run)
    record(run)
    (bundle / "model.json").write_text((bundle / "model.json").read_text() + " ")
    record(run)
    run.finish()
    deliver(run)
    models = [path for path in (tmp_path / "experiments/artifacts").rglob("MLmodel") if path.is_file()]
    assert len(models) == 2


def test_nothing_logged_is_a_pickle(logged: Run, store: Store, tmp_path: Path) -> None:
    files = [path for path in (tmp_path / "experiments" / "artifacts").rglob("*") if path.is_file()]
    assert {"weights.safetensors", "MLmodel"} <= {path.name for path in files}
    for path in files:
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".pt2", ".pth")
        assert not path.read_bytes().startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"))


def test_the_served_model_refuses_bad_input_by_name(logged: Run, store: Store, images: np.ndarray) -> None:
    from mlflow.exceptions import MlflowException

    model = store.load_model(logged.key).unwrap_python_model()
    for bad in (images[:, :3], np.zeros((0, 4, 4), np.uint8), np.zeros((70_000, 4, 4), np.uint8)):
        with pytest.raises(MlflowException) as raised:
            model.predict(None, bad)
        assert (
            raised.value.error_code == "INVALID_PARAMETER_VALUE"
            and raised.value.get_http_status_code() == 400
        )


@pytest.fixture
def scoring_server(logged: Run, store: Store, free_port: Callable[[], int]) -> Iterator[str]:
    """MLflow's scoring application with the logged model, on loopback."""
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    port = free_port()
    config = uvicorn.Config(init(store.load_model(logged.key)), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/invocations"
    server.should_exit = True
    thread.join()


def test_the_scoring_server_answers_400_without_a_stack(scoring_server: str, images: np.ndarray) -> None:
    import requests

    good = requests.post(scoring_server, json={"inputs": images.tolist()}, timeout=10)
    assert good.status_code == 200 and set(good.json()["predictions"][0]) >= {"label", "probability", "p_one"}
    for bad in (images[:, :3].tolist(), "text", [], [[[1e9] * 4] * 4], {"a": 1}):
        answer = requests.post(scoring_server, json={"inputs": bad}, timeout=10)
        assert answer.status_code == 400, answer.text
        assert "Traceback" not in answer.text and "/site-packages/" not in answer.text


def test_a_model_that_cannot_be_logged_is_put_aside(start_run: Start, deliver: Deliver, bundle: Path) -> None:
    run = start_run()
    wrong = {"inputs": [signatures.tensor("uint8", [-1, 9, 9])]}
    run.log_model(bundle, signature=wrong, input_example=[[[0]]], requirements=["mlflow"])
    run.log_metrics({"later": 1.0})
    run.finish()
    deliver(run)
    assert "signature" in json.loads((run.directory / "tracking" / "rejected.jsonl").read_text())["reason"]


@pytest.mark.parametrize(
    ("inputs", "example"),
    [
        ([signatures.column("string")], [{"text": "one"}, {"text": "two"}]),
        (
            [signatures.column("double", "a", required=False), signatures.column("string", "b")],
            [{"a": None, "b": "x"}],
        ),
        (
            [signatures.column("datetime", "day"), signatures.column("double", "n")],
            [{"day": "2020-01-02", "n": 1}],
        ),
        ([signatures.column(["long"], "tokens")], [{"tokens": [1, 2, 3]}, {"tokens": [4]}]),
        ([signatures.tensor("float32", [-1, -1, 2])], [[[0.5, 1.0]]]),
    ],
)
def test_every_kind_of_raw_input_has_a_signature(
    inputs: list[Any], example: Any, start_run: Start, deliver: Deliver, bundle: Path, store_at: Any
) -> None:
    run = start_run()
    signature = {"inputs": inputs, "outputs": [signatures.column("double", "prediction")]}
    run.log_model(bundle, signature=signature, input_example=example, requirements=["mlflow"])
    deliver(run)
    assert not (run.directory / "tracking" / "rejected.jsonl").exists()


@pytest.fixture
def store_at(tmp_path: Path, empty_store: Path) -> None:
    """The tables are there already."""


def test_the_registry(logged: Run, store: Store, bundle: Path, tmp_path: Path) -> None:
    first = store.version("small", "1")
    assert first is not None and first.run_id == logged.run_id
    assert store.version("small", "2") is None
    again = store.register(logged.key, "small", {"test/accuracy": 0.9}, "# Model card")
    assert (
        again.version == "1"
        and again.description == "# Model card"
        and again.tags == {"test/accuracy": "0.9"}
    )
    assert store.version("small", "champion") is None and store.version("none", "champion") is None
    assert [store.register(logged.key, "it's", {}, "").version for _ in range(2)] == ["1", "1"]
    store.set_alias("small", "champion", "1")
    champion = store.version("small", "champion")
    assert champion is not None and champion.version == "1" and champion.aliases == ["champion"]
    copy = store.bundle("models:/small@champion", tmp_path / "copy")
    for name in ("weights.safetensors", "model.json", "encoder.json"):
        assert (copy / name).read_bytes() == (bundle / name).read_bytes()
    with pytest.raises(UserError, match="cannot get the model"):
        store.bundle("models:/small@challenger", tmp_path / "none")


def test_runs_are_found_by_id_key_and_name(
    start_run: Start, deliver: Deliver, tmp_path: Path, empty_store: Path
) -> None:
    with pytest.raises(UserError, match="no tracking store"):
        Store(None, tmp_path / "nowhere")
    parent = start_run("parent")
    children = [start_run(f"child-{number}", parent=parent) for number in range(2)]
    for number, run in enumerate([parent, *children]):
        run.log_metrics({"loss": 0.5}, 3)
        run.log_metrics({"loss": 0.25 + number}, 4)
        run.log_params({"seed": number})
        run.log_text("hello", "a/b.txt")
        run.finish()
        deliver(run)
    store = Store(None, tmp_path / "experiments")
    by_id, by_key, by_name = (store.run(word) for word in (parent.run_id, parent.key, "parent"))
    assert by_id == by_key == by_name
    assert by_id.metrics == {"loss": 0.25} and by_id.params == {"seed": "0"} and by_id.status == "FINISHED"
    assert by_id.directory == parent.directory and by_id.experiment == "tests"
    assert [child.name for child in store.children(parent.key)] == ["child-0", "child-1"]
    assert store.download_artifact(parent.key, "a/b.txt", tmp_path / "got").read_text() == "hello"
    with pytest.raises(UserError, match=r"no artefact 'none\.txt'"):
        store.download_artifact(parent.key, "none.txt", tmp_path / "got")
    with pytest.raises(UserError, match=r"did you mean .*child-0"):
        store.run("child-7")
    with pytest.raises(UserError, match="is not a run id"):
        store.run("a' OR '1")
    with pytest.raises(UserError, match="logged no model"):
        store.model_uri(parent.key)
