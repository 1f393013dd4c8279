"""Logging a saved bundle as an MLflow model: as code and safetensors, without pickle."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.journal import Record
from pipeline.tracking.mlflow_inside import without_comparing_requirements
from pipeline.tracking.signatures import to_mlflow
from pipeline.tracking.store import as_default

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVED_MODEL = Path(__file__).with_name("served_model.py")


def log_model(
    client: "MlflowClient",
    uri: str,
    run_id: str,
    folder: Path,
    record: Record,
    model_id: str | None,
    note_id: Callable[[str], None],
) -> str:
    """Upload a bundle as a model of a run and make it a registered version if asked to. Safe to repeat.

    Args:
        client: Client of the store.
        uri: Address of the store.
        run_id: MLflow's id of the run.
        folder: Folder that the paths in the record are relative to.
        record: The journal's record of the model.
        model_id: MLflow's id of the model, if an earlier try came as far as that.
        note_id: Function called with that id as soon as it is known, so that a repeat finds it.

    Returns:
        MLflow's id of the model.
    """
    run = client.get_run(run_id)
    if model_id is None:
        model_id = _create(client, run, record)
        note_id(model_id)
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "model"
        _save(local, client.get_logged_model(model_id), run_id, folder, record)
        client.log_model_artifacts(model_id, str(local))
    _attach(client, run_id, model_id)
    client.finalize_logged_model(model_id, "READY")
    if record["registered_name"]:
        register(client, uri, record["registered_name"], run_id, model_id)
    return model_id


def register(client: "MlflowClient", uri: str, name: str, run_id: str, model_id: str) -> str:
    """Make a model a version of a registered model, unless it is one already.

    Returns:
        The version.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    mark = '"' if "'" in name else "'"
    for version in client.search_model_versions(f"name = {mark}{name}{mark}"):
        if version.source == f"models:/{model_id}" or version.model_id == model_id:
            return str(version.version)
    source = f"models:/{model_id}"
    with as_default(uri):
        return str(client.create_model_version(name, source, run_id, model_id=model_id).version)


def _create(client: "MlflowClient", run: Any, record: Record) -> str:
    experiment_id, run_id = run.info.experiment_id, run.info.run_id
    # An earlier try may have created it without learning its id.
    query = f"source_run_id = '{run_id}' AND name = '{record['name']}'"
    for model in client.search_logged_models([experiment_id], filter_string=query):
        if model.tags.get("pipeline.recorded") == _identity(record):
            return str(model.model_id)
    model = client.create_logged_model(
        experiment_id,
        name=record["name"],
        source_run_id=run_id,
        tags={"pipeline.recorded": _identity(record)},
        params=dict(run.data.params),
    )
    return str(model.model_id)


def _identity(record: Record) -> str:
    """What tells a model from the others of its run: two may be recorded in the same millisecond."""
    return f"{record['time']} {record.get('digest', '')}".strip()


def _save(local: Path, logged: Any, run_id: str, folder: Path, record: Record) -> None:
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    description = Model(
        logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id
    )
    try:
        with without_comparing_requirements():
            mlflow.pyfunc.save_model(
                path=str(local),
                python_model=str(SERVED_MODEL),
                artifacts={"bundle": str(folder / record["bundle"])},
                mlflow_model=description,
                signature=to_mlflow(record["signature"]),
                input_example=_example(folder, record),
                pip_requirements=record["requirements"] or None,
                metadata=record["metadata"] or None,
            )
    except OSError:
        raise
    except Exception as error:
        # No later try does better with this signature, example and bundle.
        raise MlflowException.invalid_parameter_value(f"cannot log the model: {error}") from error


def _example(folder: Path, record: Record) -> Any:
    """The input example in the form that the signature takes: an array, a list, or a table."""
    import numpy as np

    example, inputs = record["example"], record["signature"]["inputs"]
    if example is None:
        return None
    if "npy" in example:
        return np.load(folder / example["npy"], allow_pickle=False)
    samples = example["json"]
    if "tensor" in inputs[0]:
        return np.asarray(samples, dtype=inputs[0]["tensor"])
    if inputs[0].get("name"):
        return _table(samples, inputs)
    return [next(iter(sample.values())) if isinstance(sample, dict) else sample for sample in samples]


def _table(rows: Any, inputs: Any) -> Any:
    """Rows as a table with the types of the signature: JSON has neither missing numbers nor dates."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for entry in inputs:
        name = entry["name"]
        if name in table and entry["type"] in ("double", "float"):
            table[name] = table[name].astype("float32" if entry["type"] == "float" else "float64")
        elif name in table and entry["type"] == "datetime":
            table[name] = pd.to_datetime(table[name])
    return table


def _attach(client: "MlflowClient", run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    known = [output.model_id for output in outputs.model_outputs] if outputs else []
    if model_id not in known:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
