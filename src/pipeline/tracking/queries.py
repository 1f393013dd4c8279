"""Looking up runs and models in the tracking store, and moving models through its registry."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.config.masking import mask
from pipeline.errors import UserError
from pipeline.tracking.addresses import absolute_uri, sqlite_path
from pipeline.tracking.mlflow_inside import view_address
from pipeline.tracking.store import KEY_TAG, as_default, open_client
from pipeline.tracking.views import save_view, studies

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion

# Below a logged model's location; the bundle keeps the name of the directory that it was logged from.
_MODEL_FILES = "artifacts"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RunRecord:
    """A run as the tracking store has it.

    Args:
        run_id: MLflow's id of the run.
        key: Client-side key; empty for a run that other software recorded.
        name: Name of the run.
        experiment: Name of its experiment.
        status: RUNNING, FINISHED, FAILED or KILLED.
        params: Settings by name.
        metrics: Last value of each metric.
        tags: Tags, MLflow's own included.
        directory: Directory of the run, where it still is on this machine.
        config_path: Resolved configuration in that directory.
        started: When it began, in seconds since 1970.
        ended: When it ended; None where it has not.
        samples: Number of samples by split, of the data that it was trained on.
    """

    run_id: str
    key: str
    name: str
    experiment: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    directory: Path | None
    config_path: Path | None
    started: float = 0.0
    ended: float | None = None
    samples: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Args:
        name: Name of the registered model.
        version: Number of the version.
        run_id: MLflow's id of the run that made it, if known.
        model_uri: Address that `mlflow.pyfunc.load_model` takes.
        aliases: Aliases, such as `champion`.
        description: Model card, Markdown.
        tags: Tags of this version.
    """

    name: str
    version: str
    run_id: str | None
    model_uri: str
    aliases: list[str]
    description: str
    tags: dict[str, str]


@dataclass(frozen=True)
class View:
    """A page of MLflow on which runs are compared.

    Args:
        experiment: Name of the experiment.
        title: What it shows.
        address: Its address behind the server's.
    """

    experiment: str
    title: str
    address: str


class Store:
    """A tracking store with its model registry.

    Args:
        tracking_uri: Address of the store; None for MLFLOW_TRACKING_URI, else `mlflow.db` in `experiments_dir`.
        experiments_dir: Directory of the embedded store.

    Raises:
        UserError: The store cannot be reached, or there is none yet.

    Example:
        store = Store(None, Path("experiments"))
        print(store.run("3f2a…").metrics["test/accuracy"])
    """

    def __init__(self, tracking_uri: str | None, experiments_dir: Path) -> None:
        self.uri = absolute_uri(tracking_uri, experiments_dir)
        path = sqlite_path(self.uri)
        if path is not None and not path.exists():
            raise UserError(f"there is no tracking store at {path} yet; run an experiment first")
        # Someone waits for the answer: the library's own several minutes of retries are too long.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self._client: MlflowClient = self._asked(lambda: open_client(self.uri))

    def run(self, run: str) -> RunRecord:
        """A run by MLflow's id (or how it begins), by its client-side key, or by its name where only one run has it.

        Raises:
            UserError: There is no such run, or there are several.
        """
        return self._record(self._find(run))

    def runs(
        self, query: str = "", experiments: list[str] | None = None, limit: int = 1000
    ) -> list[RunRecord]:
        """Runs that an MLflow search expression selects, newest first.

        Args:
            query: MLflow search expression, such as `tags.sweep = 'mlp' and metrics."val/accuracy" > 0.9`.
            experiments: Names of experiments; None for all.
            limit: Largest number of runs.
        """
        names = {
            str(experiment.experiment_id): str(experiment.name)
            for experiment in self._asked(self._client.search_experiments)
            if experiments is None or experiment.name in experiments
        }
        ids = list(names)
        if not ids:
            return []
        # Of runs that began in the same millisecond the name decides.
        order = ["start_time DESC", "tags.`mlflow.runName` DESC"]
        found = self._asked(lambda: self._client.search_runs(ids, query, max_results=limit, order_by=order))
        return [self._record(run, names[str(run.info.experiment_id)]) for run in found]

    def children(self, run: str) -> list[RunRecord]:
        """The runs nested directly under a run, oldest first."""
        parent = self._find(run).info.run_id
        return self.runs(f"tags.mlflow.parentRunId = '{parent}'")[::-1]

    @property
    def shown_uri(self) -> str:
        """Address of the store without its password."""
        return mask(self.uri)

    def views(self) -> list[View]:
        """The pages on which runs are compared: those of the newest runs first, each experiment before its sweeps.

        What they show is made anew as the runs are now.
        """
        found: list[tuple[int, list[View]]] = []
        for experiment in self._asked(self._client.search_experiments):
            name, number = str(experiment.name), str(experiment.experiment_id)
            newest = self._newest(number)
            if newest is None:
                continue
            key = self._asked(save_view, self._client, number)
            pages = [View(name, name, view_address(number, key))]
            pages += [
                View(name, f"{name}, {study}", view_address(number, study, charts=True))
                for study in studies(experiment.tags)
            ]
            found.append((newest, pages))
        return [page for _, pages in sorted(found, key=lambda pair: -pair[0]) for page in pages]

    def _newest(self, experiment_id: str) -> int | None:
        """When the newest run of an experiment began, in milliseconds since 1970; None where it has none."""
        order = ["start_time DESC"]
        runs = self._asked(lambda: self._client.search_runs([experiment_id], order_by=order, max_results=1))
        return int(runs[0].info.start_time) if runs else None

    def curves(self, run: str, metrics: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """The values of metrics that a run has, as (step, value) pairs in their order."""
        run_id = self._find(run).info.run_id
        found = {}
        for name in metrics:
            points = self._asked(self._client.get_metric_history, run_id, name)
            if points:
                found[name] = sorted({point.step: float(point.value) for point in points}.items())
        return found

    def set_tags(self, run: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run that has ended (one that is being recorded has `Run.set_tags`)."""
        run_id = self._find(run).info.run_id
        for name, value in tags.items():
            self._asked(self._client.set_tag, run_id, name, mask(str(value)))

    def log_artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Add a file or directory to a run that has ended."""
        run_id = self._find(run).info.run_id
        self._asked(lambda: self._client.log_artifact(run_id, str(path), folder or None))

    def log_metrics(self, run: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a run that has ended."""
        run_id = self._find(run).info.run_id
        for name, value in metrics.items():
            self._asked(self._client.log_metric, run_id, name, value)

    def download_artifact(self, run: str, path: str, target: Path) -> Path:
        """Copy a run's artefact (a file or folder) into a directory.

        Raises:
            UserError: The run has no such artefact.
        """
        run_id = self._find(run).info.run_id
        target.mkdir(parents=True, exist_ok=True)
        try:
            local = Path(self._asked(lambda: self._client.download_artifacts(run_id, path, str(target))))
        except (UserError, OSError):
            raise UserError(f"run {run_id} has no artefact {path!r} in the tracking store") from None
        if not local.exists():
            raise UserError(f"run {run_id} has no artefact {path!r} in the tracking store")
        return local

    def model_uri(self, run: str) -> str:
        """The address of the model that a run logged, as `mlflow.pyfunc.load_model` takes it.

        Raises:
            UserError: The run logged no model.
        """
        found = self._find(run)
        models = found.outputs.model_outputs if found.outputs else []
        if not models:
            raise UserError(
                f"run {found.info.run_id} ({found.info.run_name}) logged no model; its status is {found.info.status}"
            )
        return f"models:/{models[-1].model_id}"

    def bundle(self, model: str, target: Path) -> Path:
        """Copy what `pipeline.models.saved.load` opens into a directory.

        Args:
            model: Address of a model (`models:/mnist@champion`, `models:/mnist/3`, `models:/m-…`), or a run.
            target: Directory to copy to; made if it is not there.

        Raises:
            UserError: There is no such model, or this project did not log it.
        """
        uri = model if ":/" in model else self.model_uri(model)
        target.mkdir(parents=True, exist_ok=True)
        from mlflow.artifacts import download_artifacts

        try:
            address = f"{self._location(uri.rstrip('/'))}/{_MODEL_FILES}"
            with as_default(self.uri):
                local = self._asked(lambda: download_artifacts(artifact_uri=address, dst_path=str(target)))
        except (UserError, OSError) as error:
            raise UserError(f"cannot get the model {uri}: {error}") from None
        bundles = [path.parent for path in Path(local).glob("*/model.json")]
        if len(bundles) != 1:
            raise UserError(f"the model {uri} was not logged by this project: it holds no saved model")
        return bundles[0]

    def _location(self, uri: str) -> str:
        """Where a model's files lie; the library takes a path behind a registered model's address only."""
        model_id = uri.removeprefix("models:/")
        if not re.fullmatch(r"m-[0-9a-f]+", model_id):
            return uri
        return str(self._asked(lambda: self._client.get_logged_model(model_id)).artifact_location)

    def load_model(self, model: str) -> Any:
        """Open a logged model with MLflow's pyfunc loader.

        Args:
            model: Address of a model, or a run.
        """
        import mlflow.pyfunc

        uri = model if ":/" in model else self.model_uri(model)
        with as_default(self.uri):
            return self._asked(lambda: mlflow.pyfunc.load_model(uri))

    def register(
        self, run: str, name: str, tags: Mapping[str, Any] | None = None, description: str = ""
    ) -> Version:
        """Make the model of a run a version of a registered model; the same version if it is one already.

        Args:
            run: The run.
            name: Name of the registered model, which is made if it is not there.
            tags: Tags of the version.
            description: Model card, Markdown.
        """
        from pipeline.tracking.model_logging import register

        run_id = self._find(run).info.run_id
        model_id = self.model_uri(run).removeprefix("models:/")
        version = self._asked(lambda: register(self._client, self.uri, name, run_id, model_id))
        self.describe(name, version, tags, description)
        return self._version(self._asked(lambda: self._client.get_model_version(name, version)))

    def registered_runs(self) -> set[str]:
        """The ids of the runs that made a version of any registered model."""
        versions = self._asked(self._client.search_model_versions)
        return {str(version.run_id) for version in versions if version.run_id}

    def describe(
        self, name: str, version: str, tags: Mapping[str, Any] | None = None, description: str = ""
    ) -> None:
        """Set tags and the model card (Markdown) of a version."""
        if description:
            self._asked(lambda: self._client.update_model_version(name, version, mask(description)))
        for key, value in (tags or {}).items():
            self._asked(self._client.set_model_version_tag, name, version, key, mask(str(value)))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Have an alias such as `champion` name a version; it moves away from any other one."""
        self._asked(lambda: self._client.set_registered_model_alias(name, alias, version))

    def version(self, name: str, alias_or_number: str) -> Version | None:
        """The version that an alias or number names; None where there is none."""
        from mlflow.exceptions import MlflowException

        numbered = alias_or_number.isdigit()
        look_up = self._client.get_model_version if numbered else self._client.get_model_version_by_alias
        try:
            return self._version(look_up(name, alias_or_number))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise self._unreachable(error) from None

    def _find(self, run: str) -> MlflowRun:
        from mlflow.exceptions import MlflowException

        if not run or not re.fullmatch(r"[\w.\- :@+=,()]+", run):
            raise UserError(f"{run!r} is not a run id; expected MLflow's id, the run's key or its name")
        try:
            return self._client.get_run(run)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise self._unreachable(error) from None
        ids = [experiment.experiment_id for experiment in self._asked(self._client.search_experiments)]
        for query in (f"tags.`{KEY_TAG}` = '{run}'", f"attributes.run_name = '{run}'"):
            found = self._asked(self._client.search_runs, ids, query)
            if len(found) > 1:
                known = ", ".join(match.info.run_id for match in found[:5])
                raise UserError(f"{len(found)} runs are named {run!r}; give one's id: {known}")
            if found:
                return found[0]
        if re.fullmatch(r"[0-9a-f]{6,31}", run):
            everything = self._asked(lambda: self._client.search_runs(ids, max_results=5000))
            begins = [match for match in everything if match.info.run_id.startswith(run)]
            if len(begins) == 1:
                return begins[0]
        raise UserError(f"there is no run {run!r} in {mask(self.uri)}{self._nearest(run, ids)}")

    def _nearest(self, run: str, ids: list[str]) -> str:
        """The runs that could have been meant: alike by id or name, else the newest."""
        known = self._asked(
            lambda: self._client.search_runs(ids, order_by=["start_time DESC"], max_results=200)
        )
        names = {
            name: found for found in reversed(known) for name in (found.info.run_name, found.info.run_id)
        }
        near = [names[name] for name in difflib.get_close_matches(run, names, n=3)] or list(known)[:3]
        if not near:
            return "; it holds no run yet"
        return "; did you mean " + ", ".join(f"{one.info.run_id} ({one.info.run_name})" for one in near) + "?"

    def _record(self, run: MlflowRun, experiment: str | None = None) -> RunRecord:
        tags = dict(run.data.tags)
        directory = Path(tags["pipeline.directory"]) if "pipeline.directory" in tags else None
        if directory is not None and not directory.is_dir():
            directory = None
        config = directory / ".hydra" / "config.yaml" if directory is not None else None
        return RunRecord(
            run_id=run.info.run_id,
            key=tags.get(KEY_TAG, ""),
            name=run.info.run_name,
            experiment=experiment
            or self._asked(lambda: self._client.get_experiment(run.info.experiment_id)).name,
            status=run.info.status,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=tags,
            directory=directory,
            config_path=config if config is not None and config.is_file() else None,
            started=run.info.start_time / 1000,
            ended=run.info.end_time / 1000 if run.info.end_time else None,
            samples=_samples(run),
        )

    def _version(self, version: ModelVersion) -> Version:
        return Version(
            name=version.name,
            version=str(version.version),
            run_id=version.run_id,
            model_uri=f"models:/{version.name}/{version.version}",
            aliases=sorted(version.aliases or []),
            description=version.description or "",
            tags=dict(version.tags or {}),
        )

    def _asked(self, question: Callable[..., Answer], *arguments: Any) -> Answer:
        """Ask the store; what it says no to, and its silence, become a message for the user."""
        from mlflow.exceptions import MlflowException

        try:
            return question(*arguments)
        except MlflowException as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(f"the tracking store {mask(self.uri)} answered: {mask(str(error))}")


def _samples(run: MlflowRun) -> dict[str, int]:
    """The numbers of samples that a run recorded with its data; other software records what it likes."""
    for data in run.inputs.dataset_inputs if run.inputs else []:
        try:
            profile = json.loads(data.dataset.profile or "{}")
        except ValueError:
            continue
        if isinstance(profile, dict):
            return {name: count for name, count in profile.items() if isinstance(count, int)}
    return {}
