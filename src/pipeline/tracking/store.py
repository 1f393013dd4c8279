"""Opening a tracking store."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.addresses import sqlite_path
from pipeline.tracking.journal import locked
from pipeline.tracking.moved import adopt

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG = "pipeline.key"


@functools.cache
def open_client(uri: str) -> "MlflowClient":
    """A client of the tracking store and registry at an address; makes a SQLite store that is not there.

    Args:
        uri: Address, as `absolute_uri` gives it.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if uri.startswith("file:"):
        # The library wants the consent of whoever still uses its file store: a configuration that names one gives it.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    path = sqlite_path(uri)
    if path is None:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # The tables of a new store are made on first use: two processes must not both be first.
    with locked(path.with_name(f".{path.name}.lock")):
        adopt(path)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def as_default(uri: str) -> Iterator[None]:
    """Make a store the library's own default for a while: its registry and loader know no other way."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def artifact_location(uri: str, experiment: str, experiments_dir: Path) -> str | None:
    """Where a new experiment keeps artefacts: beside an embedded store, or where the server says (None)."""
    if uri.startswith(("http:", "https:", "file:", "databricks")):
        return None
    folder = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in experiment)
    return (experiments_dir / "artifacts" / folder).absolute().as_uri()
