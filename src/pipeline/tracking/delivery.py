"""Delivering the journal of one run to the tracking store: in order, each record once."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.masking import mask
from pipeline.tracking import journal, registry
from pipeline.tracking.backlog import BATCHED, WITHOUT_DELIVERY, Backlog, Entry, OfOneRun
from pipeline.tracking.journal import Record
from pipeline.tracking.mlflow_inside import (
    DATASET_CONTEXT,
    EXPERIMENT_TAGS,
    METRICS_AT_ONCE,
    PARAMS_OR_TAGS_AT_ONCE,
    dataset_source,
)
from pipeline.tracking.store import KEY_TAG, artifact_location, open_client
from pipeline.tracking.views import STUDY_TAG, save_view

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}


class Held(Exception):
    """The store will not take this journal, now or later, unless someone steps in."""


class NotYet(Exception):
    """Something else has to be delivered first."""


def remove_copy(folder: Path, record: Record) -> None:
    """Remove the files that a record was written with, once nobody needs them any more."""
    for name in ("file", "bundle"):
        if isinstance(record.get(name), str):
            shutil.rmtree((folder / record[name]).parent, ignore_errors=True)
    if isinstance(record.get("example"), dict) and "npy" in record["example"]:
        shutil.rmtree((folder / record["example"]["npy"]).parent, ignore_errors=True)


class Delivery(OfOneRun):
    """Delivers one run's journal. Whoever holds one must hold the run's `sender.lock`.

    Args:
        directory: Directory of the run.
        uri: Address of the store to deliver to.
        experiments_dir: Directory in which the run is registered, and in which an embedded store keeps artefacts.
        keeps_copies: Whether to leave the files that it has sent, for others to send them too.
    """

    def __init__(self, directory: Path, uri: str, experiments_dir: Path, keeps_copies: bool = False) -> None:
        self.keeps_copies = keeps_copies
        self.directory = directory
        self.folder = registry.tracking_folder(directory)
        self.uri = uri
        self.experiments_dir = experiments_dir
        self.cursor = journal.Cursor.load(self.folder)
        if self.cursor.uri != mask(uri):
            self.cursor = journal.Cursor(uri=mask(uri))
        self._backlog = Backlog(self.folder / journal.JOURNAL, self.cursor)

    @property
    def drained(self) -> bool:
        """Whether nothing is left to deliver at this moment."""
        return self._backlog.drained and not journal.pending_bytes(
            self.folder / journal.SYSTEM_JOURNAL, self.cursor.system_offset
        )

    def deliver(self) -> None:
        """Deliver what there is.

        Raises:
            Held: Someone has to step in; the cursor's `error` says why.
            NotYet: Something else has to be delivered first; try again soon.
            Exception: The store is down, slow or failing; try again later.
        """
        self._backlog.read()
        self._deliver_system()
        while group := self._backlog.next_group():
            self._ensure_run()
            self.cursor.sending = max(self.cursor.sending, group[-1].end)
            self.cursor.save(self.folder)
            self._send(group)
            self._backlog.drop(group)
            self.cursor.offset = group[-1].end
            self._succeeded()
            if not self.keeps_copies:
                for entry in group:
                    remove_copy(self.folder, entry.record)
            self._backlog.read()
        if self.finished and self.cursor.unsure:
            self._remove_twins()

    def failed(self, error: Exception) -> None:
        """Note a failed delivery where the run's owner and `sync` see it."""
        if self.cursor.failing_since is None:
            self.cursor.failing_since = time.time()
        self.cursor.error = mask(str(error))[:500] or type(error).__name__
        self.cursor.save(self.folder)

    def _succeeded(self) -> None:
        self.cursor.failing_since = self.cursor.error = None
        self.cursor.save(self.folder)

    def _send(self, group: Sequence[Entry]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._send_once(group)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" or error.error_code in _REFUSED:
                self._check_run_is_there(error)
            if error.error_code not in _REFUSED:
                raise
            self._send_singly(group, error)

    def _send_singly(self, group: Sequence[Entry], error: Exception) -> None:
        """Put aside what the store refuses for good, with the reason, and deliver the rest."""
        from mlflow.exceptions import MlflowException

        if len(group) > 1:
            for entry in group:
                self._send([entry])
            return
        record = group[0].record
        if record["t"] == "params":
            self._send_changed_params(record)
            return
        if record["t"] in BATCHED and len(record["v"]) > 1:
            for name, value in record["v"].items():
                single = {**record, "v": {name: value}}
                try:
                    self._send_once([Entry(single, group[0].end, group[0].attempt)])
                except MlflowException as single_error:
                    if single_error.error_code not in _REFUSED:
                        raise
                    self._put_aside(single, single_error)
            return
        self._put_aside(record, error)

    def _send_changed_params(self, record: Record) -> None:
        """Send parameters of a resumed run: each keeps its first value in MLflow, and a new one becomes a tag."""
        known = self._client.get_run(self._run_id).data.params
        new = {name: value for name, value in record["v"].items() if name not in known}
        changed = {
            f"changed.{name}"[:250]: value
            for name, value in record["v"].items()
            if known.get(name, value) != value
        }
        self._log_batch([], new, changed)

    def _put_aside(self, record: Record, error: Exception) -> None:
        reason = mask(str(error))
        print(
            f"{self.directory}: refused by the tracking store, kept in rejected.jsonl: {reason}",
            file=sys.stderr,
        )
        with (self.folder / "rejected.jsonl").open("a") as file:
            file.write(json.dumps({**record, "reason": reason}) + "\n")

    def _send_once(self, group: Sequence[Entry]) -> None:
        kind = group[0].record["t"]
        if kind in BATCHED | WITHOUT_DELIVERY:
            self._send_batch(group)
            return
        {
            "start": lambda record: None,
            "resume": lambda record: self._client.update_run(self._run_id, status="RUNNING"),
            "artifact": self._send_artifact,
            "dataset": self._send_dataset,
            "model": lambda record: self._send_model(record, group[0].end),
            "finish": self._send_finish,
        }[kind](group[0].record)

    def _send_batch(self, group: Sequence[Entry]) -> None:
        from mlflow.entities import Metric

        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for entry in group:
            record = entry.record
            if record["t"] == "metrics":
                metrics += [
                    Metric(name, journal.decode_value(value), record["time"], record["step"] or 0)
                    for name, value in record["v"].items()
                    if not self._backlog.is_repeated(entry, name, value)
                ]
            elif record["t"] == "params":
                params |= record["v"]
            elif record["t"] == "tags":
                tags |= record["v"]
        self._log_batch(metrics, params, tags)

    def _log_batch(self, metrics: Sequence[Any], params: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        if metrics and self.uri.startswith("file:"):
            metrics = self._not_yet_in_file_store(metrics)
        all_params = [Param(name, value) for name, value in params.items()]
        all_tags = [RunTag(name, value) for name, value in tags.items()]
        while metrics or all_params or all_tags:
            self._client.log_batch(
                self._run_id,
                metrics=metrics[:METRICS_AT_ONCE],
                params=all_params[:PARAMS_OR_TAGS_AT_ONCE],
                tags=all_tags[:PARAMS_OR_TAGS_AT_ONCE],
            )
            metrics = metrics[METRICS_AT_ONCE:]
            all_params = all_params[PARAMS_OR_TAGS_AT_ONCE:]
            all_tags = all_tags[PARAMS_OR_TAGS_AT_ONCE:]

    def _not_yet_in_file_store(self, metrics: Sequence[Any]) -> list[Any]:
        """The points that MLflow's file store lacks: it would double one that it holds, where databases drop it."""

        def identity(metric: Any) -> tuple[str, int, int, str]:
            return metric.key, metric.step, metric.timestamp, repr(metric.value)

        known = {
            identity(point)
            for key in {metric.key for metric in metrics}
            for point in self._client.get_metric_history(self._run_id, key)
        }
        return [metric for metric in metrics if identity(metric) not in known]

    def _send_artifact(self, record: Record) -> None:
        path = self.folder / record["file"]
        # A copy is removed once it is delivered: it can be missing only when the cursor was lost after that.
        if path.exists():
            self._client.log_artifact(self._run_id, str(path), record["folder"] or None)

    def _send_dataset(self, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind, source = dataset_source(record["source"])
        dataset = Dataset(
            name=record["name"],
            digest=record["digest"],
            source_type=kind,
            source=source,
            schema=record["schema"],
            profile=record["profile"],
        )
        tag = InputTag(DATASET_CONTEXT, record["context"])
        self._client.log_inputs(self._run_id, datasets=[DatasetInput(dataset, [tag])])

    def _send_model(self, record: Record, end: int) -> None:
        from pipeline.tracking.model_logging import log_model

        if not (self.folder / record["bundle"]).exists():
            return

        def note_id(model_id: str) -> None:
            self.cursor.models[str(end)] = model_id
            self.cursor.save(self.folder)

        log_model(
            self._client,
            self.uri,
            self._run_id,
            self.folder,
            record,
            self.cursor.models.get(str(end)),
            note_id,
        )

    def _send_finish(self, record: Record) -> None:
        if record["error"]:
            self._client.set_tag(self._run_id, "error", record["error"])
        self._client.set_terminated(self._run_id, record["status"], record["time"])
        # The runs of a sweep may arrive after its end, which is the last thing that it records.
        parent = self.start["parent"]
        if parent is None or registry.life(Path(parent["directory"])).finished:
            self._save_views()

    def _save_views(self) -> None:
        """Have the experiment's page show its runs as they are now."""
        from mlflow.exceptions import MlflowException

        experiment_id = self._experiment_id(self.start["experiment"])
        try:
            save_view(self._client, experiment_id)
            if study := self.start["tags"].get(STUDY_TAG):
                save_view(self._client, experiment_id, study)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            # A page that looks otherwise is no reason to keep a run from its end.
            print(f"{self.directory}: the view was not saved: {mask(str(error))}", file=sys.stderr)

    @property
    def _client(self) -> "MlflowClient":
        return open_client(self.uri)

    @property
    def _run_id(self) -> str:
        assert self.cursor.run_id is not None
        return self.cursor.run_id

    def ensure_run(self) -> str:
        """MLflow's id of the run, which is created if it is not there."""
        self._ensure_run()
        return self._run_id

    def _ensure_run(self) -> None:
        if self.cursor.run_id is not None:
            return
        if not self.start:
            raise Held("the journal does not begin with the start of a run")
        experiment_id = self._experiment_id(self.start["experiment"])
        known = self._find_run(experiment_id, self.start["key"])
        self.cursor.run_id = known or self._create_run(experiment_id)
        self._succeeded()

    def _create_run(self, experiment_id: str) -> str:
        # MLflow writes the name there, which may have got a number.
        tags = {name: value for name, value in self.start["tags"].items() if name != "mlflow.runName"}
        tags[KEY_TAG] = self.start["key"]
        parent = self.start["parent"]
        if parent and (parent_id := self._parent_run_id(experiment_id, parent)):
            tags["mlflow.parentRunId"] = parent_id
        try:
            with journal.locked(self.experiments_dir / registry.FOLDER / "names.lock"):
                name = self.start["tags"].get("mlflow.runName", self.start["name"])
                name = self._free_name(experiment_id, name)
                run = self._client.create_run(experiment_id, self.start["time"], tags, name)
        except Exception:
            # The answer may be lost while the run was made, or is still being made.
            self.cursor.unsure = True
            raise
        return str(run.info.run_id)

    def _free_name(self, experiment_id: str, name: str) -> str:
        """The name of a new run, with a number behind it where the experiment has a run of that name."""

        def taken(condition: str) -> set[str]:
            runs = self._client.search_runs([experiment_id], f"attributes.run_name {condition}")
            return {str(run.info.run_name) for run in runs}

        if "'" in name or name not in taken(f"= '{name}'"):
            return name
        others = taken(f"LIKE '{name} (%'")
        return next(other for number in count(2) if (other := f"{name} ({number})") not in others)

    def _find_run(self, experiment_id: str, key: str) -> str | None:
        found = self._client.search_runs(
            [experiment_id], f"tags.`{KEY_TAG}` = '{key}'", order_by=["start_time ASC"]
        )
        return str(found[0].info.run_id) if found else None

    def _remove_twins(self) -> None:
        experiment_id = self._experiment_id(self.start["experiment"])
        for run in self._client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{self.start['key']}'"):
            if run.info.run_id != self._run_id:
                self._client.delete_run(run.info.run_id)
        self.cursor.unsure = False
        self.cursor.save(self.folder)

    def _parent_run_id(self, experiment_id: str, parent: dict[str, str]) -> str | None:
        """MLflow's id of the run that this one is nested under; None where nothing is left of it."""
        directory = Path(parent["directory"])
        cursor = journal.Cursor.load(registry.tracking_folder(directory))
        if cursor.run_id is not None and cursor.uri == mask(self.uri):
            return cursor.run_id
        if found := self._find_run(experiment_id, parent["key"]):
            return found
        if registry.life(directory).key is None:
            return None
        # The parent's own sender has not come to it (or is gone with its process): its run is made here.
        with journal.locked(registry.tracking_folder(directory) / "sender.lock", wait=False) as got:
            if not got:
                raise NotYet("the parent's run is not there yet")
            return Delivery(directory, self.uri, self.experiments_dir).ensure_run()

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                location = artifact_location(self.uri, name, self.experiments_dir)
                made = self._client.create_experiment(name, location, tags=EXPERIMENT_TAGS)
                return str(made)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _check_run_is_there(self, error: Exception) -> None:
        """Tell a refused record from a run that someone deleted."""
        from mlflow.exceptions import MlflowException

        try:
            deleted = self._client.get_run(self._run_id).info.lifecycle_stage == "deleted"
        except MlflowException as lookup:
            if lookup.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise Held(f"the tracking store does not know run {self._run_id} any more") from error
            raise
        if deleted:
            raise Held(
                f"run {self._run_id} was deleted in the tracking store; restore it to have the rest delivered"
            )

    def _deliver_system(self) -> None:
        """Deliver the samples of processor, memory and GPU use, which the sender itself takes."""
        from mlflow.entities import Metric

        metrics: list[Metric] = []
        offset = self.cursor.system_offset
        for record, end in journal.read(self.folder / journal.SYSTEM_JOURNAL, offset):
            if record["t"] == "metrics":
                metrics += [
                    Metric(name, value, record["time"], record["step"]) for name, value in record["v"].items()
                ]
            offset = end
        if metrics:
            self._ensure_run()
            self._log_batch(metrics, {}, {})
        if offset != self.cursor.system_offset:
            self.cursor.system_offset = offset
            self._succeeded()
