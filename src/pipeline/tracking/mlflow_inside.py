"""What MLflow gives no public name: tags that its pages read, forms of its records and limits of its stores.

MLflow itself is not imported: recording must not wait for that. ``tests/tracking/test_mlflow_inside.py`` holds MLflow
to all of it, and fails by name where a version changes something.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

# A store refuses longer ones, and the whole batch with them: they are cut while they are recorded.
MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
# A store refuses batches of more than 1000 entries of all kinds, or of more than 100 parameters or tags.
METRICS_AT_ONCE = 800
PARAMS_OR_TAGS_AT_ONCE = 100

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without these an experiment's page opens on traces of language models instead of on runs."""

SHARED_VIEW = "mlflow.sharedViewState."
"""An experiment's tag of this name and a key holds the state of its page, which opens with the key in its address."""

LONGEST_VIEW = 5000
"""Of an experiment's tag, some databases hold so many characters."""


def view_address(experiment_id: str, key: str | None, charts: bool = False) -> str:
    """The part of an address, behind the server's, that opens an experiment's page as a saved view says.

    Args:
        experiment_id: MLflow's id of the experiment.
        key: Key of the view; None for the page as MLflow opens it.
        charts: Whether the page shows charts instead of the table.
    """
    # Its pages open on what is for language models otherwise.
    asked = {"workflowType": "machine_learning"}
    if key is not None:
        asked["viewStateShareKey"] = key
    if charts:
        asked["compareRunsMode"] = "CHART"
    return f"/#/experiments/{experiment_id}/runs?{urlencode(asked)}"


def view_column(kind: str, name: str) -> str:
    """How a saved view names a column: of the ``attributes``, ``params``, ``metrics`` or ``tags``."""
    return f"{kind}.`{name}`"


DATASET_CONTEXT = "mlflow.data.context"
"""The tag that says what a data set was used for. `mlflow.log_input` writes it, into a run of its own process alone."""


def dataset_source(address: str) -> tuple[str, str]:
    """The kind and the JSON of where a data set came from; MLflow's own classes for it want the file at hand."""
    remote = address.startswith(("http://", "https://"))
    return ("http" if remote else "local", json.dumps({"url" if remote else "uri": address}))


def shown_as_tables(*paths: str) -> dict[str, str]:
    """The tag by which a run's page shows JSON artefacts, ``{"columns": [...], "data": [[...], ...]}``, as tables.

    ``mlflow.log_table``, the public way, wants the store to answer.
    """
    return {"mlflow.loggedArtifacts": json.dumps([{"path": path, "type": "table"} for path in paths])}


@contextlib.contextmanager
def without_comparing_requirements() -> Iterator[None]:
    """Models saved meanwhile are not held against what is installed: MLflow reads each package's list of files for it.

    What they require was written down where they were trained. The warning would stand in the sender's log.
    """
    import mlflow.utils.environment

    environment: Any = mlflow.utils.environment
    compare = environment.warn_dependency_requirement_mismatches
    environment.warn_dependency_requirement_mismatches = lambda requirements: None
    try:
        yield
    finally:
        environment.warn_dependency_requirement_mismatches = compare
