"""Where runs are delivered to."""

import os
from pathlib import Path
from urllib.parse import unquote, urlparse


def absolute_uri(tracking_uri: str | None, experiments_dir: Path) -> str:
    """The tracking store's address, independent of the working directory.

    Args:
        tracking_uri: Address in the configuration; None for MLFLOW_TRACKING_URI, else `mlflow.db` in `experiments_dir`.
        experiments_dir: Directory of the embedded store.
    """
    uri = (
        tracking_uri
        or os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{experiments_dir.absolute()}/mlflow.db"
    )
    path = sqlite_path(uri)
    if path is not None:
        return f"sqlite:///{path}"
    if uri.startswith("file:"):
        return Path(unquote(urlparse(uri).path)).absolute().as_uri()
    return uri if "://" in uri or uri == "databricks" else Path(uri).absolute().as_uri()


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()
