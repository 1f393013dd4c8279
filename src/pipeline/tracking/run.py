"""Recording one run: every call appends to a journal on the local disk and returns; a sender delivers it."""

import getpass
import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.config.masking import mask
from pipeline.errors import UserError
from pipeline.tracking import journal, registry
from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.mlflow_inside import MAX_KEY, MAX_PARAM, MAX_TAG
from pipeline.tracking.process import this_process
from pipeline.tracking.sender_link import link

Status = Literal["FINISHED", "FAILED", "KILLED"]

_BAD_IN_NAME = re.compile(r"[^\w.\- :/]")


@dataclass(frozen=True)
class Reference:
    """Names a run to another process, which can then record runs nested under it."""

    key: str
    directory: Path


class Run:
    """One tracked run.

    Made by `Run.start`. Nothing here waits for, or imports, the tracking library. What is recorded keeps the
    time at which it was recorded.
    """

    def __init__(
        self,
        directory: Path,
        experiments_dir: Path,
        key: str,
        pending: registry.Pending,
        writer: journal.Writer,
    ) -> None:
        self.directory = directory
        self.experiments_dir = experiments_dir
        self.key = key
        self._pending = pending
        self._writer = writer
        self._finished = False

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        experiment: str,
        name: str,
        tracking_uri: str | None,
        experiments_dir: Path,
        parent: "Run | Reference | None" = None,
        tags: Mapping[str, str] | None = None,
        resume: bool = False,
        system_metrics: bool = True,
        trackers: Sequence[str] = ("mlflow",),
    ) -> Self:
        """Begin recording a run, or go on recording one that was interrupted.

        Args:
            directory: Directory of the run; the journal goes into its `tracking/`.
            experiment: MLflow experiment that the run belongs to.
            name: Name of the run.
            tracking_uri: Address to deliver to; None for MLFLOW_TRACKING_URI, else `mlflow.db` in `experiments_dir`.
            experiments_dir: Directory in which undelivered journals are kept track of.
            parent: Run that this one is nested under.
            tags: First tags of the run.
            resume: Whether to continue the run whose journal lies in the directory (a new run where there is none).
            system_metrics: Whether the sender samples processor, memory and GPU use every five seconds.
            trackers: Trackers that the journal goes to: ``mlflow``, and those of ``pipeline.config.trackers``. A
                run that is resumed goes on telling those that it told before.

        Raises:
            UserError: The directory already holds a run and `resume` is false, or its process still runs.
        """
        directory, experiments_dir = directory.absolute(), experiments_dir.absolute()
        uri = absolute_uri(tracking_uri, experiments_dir) if "mlflow" in trackers else ""
        folder = registry.tracking_folder(directory)
        owner = this_process()
        with journal.locked(folder / "writer.lock"):
            life = registry.life(directory)
            _check_free(directory, life, resume)
            if not uri and (before := journal.mlflow_address(folder)):
                # The configured address is the one that has the password.
                configured = absolute_uri(tracking_uri, experiments_dir)
                uri = configured if mask(configured) == before else before
            key = life.key or uuid.uuid4().hex
            pending = registry.Pending(key, directory, owner, mask(uri), False)
            registry.register(experiments_dir, pending, name=name, experiment=experiment)
            writer = journal.Writer(folder / journal.JOURNAL)
            for other in {*trackers} - {"mlflow"}:
                if not (folder / journal.other_cursor(other)).exists():
                    journal.Cursor().save(folder, journal.other_cursor(other))
            first = {"owner": owner, "uri": mask(uri), "system_metrics": system_metrics, "time": _now()}
            if life.key is None:
                reference = parent.reference if isinstance(parent, Run) else parent
                writer.append(
                    {
                        "t": "start",
                        **first,
                        "key": key,
                        "experiment": experiment,
                        "name": name,
                        "parent": reference and {"key": reference.key, "directory": str(reference.directory)},
                        "tags": _clean_tags({**_standard_tags(directory), **(tags or {})}),
                    }
                )
            else:
                writer.append({"t": "resume", **first})
        run = cls(directory, experiments_dir, key, pending, writer)
        if life.key is not None and tags:
            run.set_tags(tags)
        link(experiments_dir).watch(directory, uri)
        return run

    @property
    def reference(self) -> Reference:
        """What another process needs in order to nest runs under this one."""
        return Reference(self.key, self.directory)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run once it is known, the client-side key until then; both find the run."""
        return journal.Cursor.load(registry.tracking_folder(self.directory)).run_id or self.key

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int | None = None,
        timestamp: int | None = None,
        *,
        of_epochs: bool = True,
    ) -> None:
        """Record values, NaN and infinities included.

        Args:
            metrics: Values by name.
            step: Epoch or step that they belong to; None for values that stand for the whole run.
            timestamp: Time in milliseconds since 1970; None for now.
            of_epochs: Whether `step` counts epochs, as a run's curves do, or optimiser steps.
        """
        values = {clean_name(name): journal.encode_value(value) for name, value in metrics.items()}
        record = {"t": "metrics", "time": timestamp or _now(), "step": step, "v": values}
        self._writer.append(record if of_epochs else {**record, "by": "step"})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings: nested ones as `optimizer.lr`, long values cut to MLflow's 6000 characters."""
        self._writer.append({"t": "params", "v": dict(_flatten(params))})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; one that is set again gets the new value."""
        self._writer.append({"t": "tags", "v": _clean_tags(tags)})

    def log_artifact(self, path: Path, folder: str = "", *, link_only: bool = False) -> None:
        """Record a file or directory as it is now.

        Args:
            path: File or directory to record.
            folder: Folder among the run's artefacts that it goes to.
            link_only: Whether to link instead of copying: only for files that are replaced, never written to, when they
                change.

        Raises:
            FileNotFoundError: There is nothing at `path`.
        """
        kept = self._keep(path, link_only)
        self._writer.append({"t": "artifact", "file": kept, "folder": folder})

    def log_text(self, text: str, path: str) -> None:
        """Record a text as an artefact.

        Args:
            text: The text.
            path: Path among the run's artefacts, such as `summaries/model.txt`.
        """
        folder, _, name = path.rpartition("/")
        slot = self._slot()
        (slot / name).write_text(mask(text), encoding="utf-8")
        self._writer.append({"t": "artifact", "file": self._relative(slot / name), "folder": folder})

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: str,
        context: str,
        schema: Mapping[str, Any] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the data that went in.

        Args:
            name: Name of the data set.
            digest: Fingerprint of its content, at most 36 characters.
            source: Origin of the data.
            context: Purpose that it was used for: `training`, `testing` …
            schema: What a sample looks like, as plain values.
            profile: Numbers of rows, classes and so on, as plain values.
        """
        self._writer.append(
            {
                "t": "dataset",
                "name": name[:500],
                "digest": digest[:36],
                "source": mask(source),
                "context": context,
                "schema": json.dumps(schema) if schema is not None else None,
                "profile": json.dumps(profile) if profile is not None else None,
            }
        )

    def log_model(
        self,
        bundle_dir: Path,
        registered_name: str | None = None,
        *,
        signature: Mapping[str, Any],
        input_example: Any = None,
        requirements: Sequence[str] = (),
        name: str = "model",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a model that `mlflow.pyfunc.load_model` opens and `mlflow models serve` serves.

        The same model under the same name is recorded once: a run that was killed after that computes it again when
        it is resumed.

        Args:
            bundle_dir: Directory that `pipeline.models.saved.save` wrote.
            registered_name: Name of a registered model that it becomes a version of too, None for none.
            signature: What goes in and comes out, as `pipeline.tracking.signatures` describes it.
            input_example: Raw inputs as JSON values (a list of samples, or of rows by column), or the path of a `.npy`
                file of them.
            requirements: Pinned pip requirements.
            name: Name of the model within the run.
            metadata: Plain values kept with the model.
        """
        # The description of a saved model holds the checksums of its other files.
        digest = hashlib.sha256((bundle_dir / "model.json").read_bytes()).hexdigest()
        for earlier, _ in journal.read(self._writer.path):
            if earlier.get("t") == "model" and earlier.get("digest") == digest and earlier["name"] == name:
                return
        example = input_example
        if isinstance(input_example, Path):
            example = {"npy": self._keep(input_example, False)}
        elif input_example is not None:
            example = {"json": _plain(input_example)}
        self._writer.append(
            {
                "t": "model",
                "time": _now(),
                "bundle": self._keep(bundle_dir, False),
                "digest": digest,
                "name": name,
                "registered_name": registered_name,
                "signature": dict(signature),
                "example": example,
                "requirements": list(requirements),
                "metadata": dict(metadata or {}),
            }
        )

    def rewind(self, step: int, optimiser_step: int | None = None) -> None:
        """Say that training went back to a checkpoint and runs again what came after it.

        Each `(metric, step)` then counts once: records of later steps that were not delivered yet are
        replaced by the new ones; of those already delivered the first stays (a bit-exact resume computes the
        same again). Metrics recorded without a step are simply updated.

        Args:
            step: Last epoch that the checkpoint holds.
            optimiser_step: Last optimiser step that it holds; None leaves what was recorded by such steps as it is.
        """
        self._writer.append({"t": "rewind", "step": step, "optimiser_step": optimiser_step})

    def finish(self, status: Status = "FINISHED", error: str | None = None) -> None:
        """Record how the run ended, on disk for certain, without waiting for the delivery. Works once.

        Args:
            status: FINISHED, FAILED or KILLED.
            error: What went wrong, for a failed run; it becomes the tag `error`.
        """
        if self._finished:
            return
        self._finished = True
        message = None if error is None else mask(error)[:MAX_TAG]
        with journal.locked(registry.tracking_folder(self.directory) / "writer.lock"):
            self._writer.append({"t": "finish", "time": _now(), "status": status, "error": message})
            self._writer.sync()
            self._writer.close()
            registry.mark_finished(self.experiments_dir, self._pending)
        link(self.experiments_dir).flush()

    def wait(self, timeout: float) -> bool:
        """Wait until everything recorded so far is delivered.

        Args:
            timeout: Longest time to wait, in seconds; it returns early when the tracking server does not answer.

        Returns:
            Whether everything arrived.
        """
        return link(self.experiments_dir).wait([self.directory], timeout)

    def _keep(self, path: Path, link_only: bool) -> str:
        target = self._slot() / path.name
        copy = os.link if link_only else shutil.copy2
        if path.is_dir():
            shutil.copytree(path, target, copy_function=copy)
        else:
            try:
                copy(path, target)
            except OSError:
                # Links do not cross file systems.
                shutil.copy2(path, target)
        return self._relative(target)

    def _slot(self) -> Path:
        slot = registry.tracking_folder(self.directory) / "files" / uuid.uuid4().hex[:12]
        slot.mkdir(parents=True)
        return slot

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(registry.tracking_folder(self.directory)))


@lru_cache(maxsize=1024)
def clean_name(name: str) -> str:
    """A name as MLflow accepts it: other characters than letters, digits and `_-. :/` become underscores."""
    return _BAD_IN_NAME.sub("_", name)[:MAX_KEY]


def _check_free(directory: Path, life: registry.Life, resume: bool) -> None:
    if life.key is None or life.owner is None:
        return
    if not resume:
        raise UserError(
            f"{directory} already holds a tracked run ({life.key}); resume it or choose another directory"
        )
    if not life.finished and registry.is_running(directory, life.owner) and life.owner != this_process():
        raise UserError(
            f"the run in {directory} is still being written by process {life.owner['pid']}; wait or stop it"
        )


def _standard_tags(directory: Path) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return {
        "mlflow.user": user,
        "mlflow.source.name": "python -m pipeline",
        "mlflow.source.type": "LOCAL",
        "pipeline.directory": str(directory),
    }


def _clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {clean_name(name): mask(str(value))[:MAX_TAG] for name, value in tags.items()}


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield clean_name(f"{prefix}{name}"), mask(str(value))[:MAX_PARAM]


def _plain(value: Any) -> Any:
    """A value as JSON holds it: dates as text, missing numbers as null, NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _now() -> int:
    return int(time.time() * 1000)
