"""Train again from what a finished run recorded, and say whether the result is the same."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.evaluation.outputs import result_directory
from pipeline.files import write_json
from pipeline.runs.describing import ENVIRONMENT, THREADS, final_metrics
from pipeline.runs.environment import environment
from pipeline.runs.finished import FinishedRun, find_run, open_store
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import git_state
from pipeline.runs.result import RunResult

if TYPE_CHECKING:
    from pipeline.tracking.queries import Store


@dataclass
class Comparison:
    """A run and its repetition.

    Args:
        run: Id of the original.
        again: Id of the repetition, None if it was not tracked.
        metrics: The metrics that differ: name → (original, repetition).
        compared: Number of metrics that were compared.
        weights: The weights that differ: name → largest absolute difference; None where the run kept no model.
        causes: What has changed (data, code, versions, hardware): name → (then, now).
        unknown: What cannot be said to be unchanged, and why.
    """

    run: str
    again: str | None
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    compared: int = 0
    weights: dict[str, float] | None = None
    causes: dict[str, tuple[str, str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether every metric and every weight has the same bits."""
        return not self.metrics and not self.weights


def run(cfg: DictConfig) -> int:
    """The task behind ``task=reproduce``.

    Returns:
        The exit code: 0 if the result is identical, 1 if it is not.
    """
    comparison = reproduce(cfg)
    print("\n".join(in_words(comparison)))
    return 0 if comparison.identical else 1


def reproduce(cfg: DictConfig) -> Comparison:
    """Train the run of ``task.run_id`` again and compare.

    Returns:
        What is written as ``reproduction.json``.

    Raises:
        UserError: There is no such run, or what it needs is not there any more.
    """
    from pipeline.runs.train import train

    store = open_store(cfg)
    original = find_run(store, str(cfg.task.run_id), cfg)
    directory = result_directory(cfg)
    tags = {"reproduces": original.record.run_id, "mlflow.runName": f"{original.record.name}-again"}
    # Another number of threads rounds differently.
    threads = _json_of(store, original, THREADS)
    result = train(original.cfg, Hooks(directory=directory / "again", tags=tags, threads=threads))
    comparison = Comparison(original.record.run_id, result.run_id)
    _compare_metrics(comparison, original, result)
    comparison.weights = _compare_weights(store, original, result.directory / "model")
    comparison.causes = _causes(store, original, result)
    comparison.unknown = _unknown(store, original)
    if (limit := original.cfg.trainer.get("max_time")) and not comparison.identical:
        comparison.unknown.append(
            f"time: trainer.max_time={limit} ends a fit, and a schedule with it, at another step each time"
        )
    values = {**vars(comparison), "identical": comparison.identical}
    write_json(directory / "reproduction.json", values)
    return comparison


def _compare_metrics(comparison: Comparison, original: FinishedRun, result: RunResult) -> None:
    logged, again = original.record.metrics, final_metrics(result)
    names = [name for name in again if name in logged]
    if not names:
        raise UserError(f"run {original.title} logged no metric that could be compared")
    comparison.compared = len(names)
    for name in names:
        then, now = float(logged[name]), float(again[name])
        if then != now and not (math.isnan(then) and math.isnan(now)):
            comparison.metrics[name] = (then, now)


def _compare_weights(store: Store, original: FinishedRun, now: Path) -> dict[str, float] | None:
    from safetensors.torch import load_file

    if not (now / "weights.safetensors").is_file():
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = store.bundle(original.record.run_id, Path(folder))
        except UserError:
            return None
        before = load_file(str(bundle / "weights.safetensors"))
    after = load_file(str(now / "weights.safetensors"))
    differing = {}
    for name in sorted({*before, *after}):
        if name not in before or name not in after or before[name].shape != after[name].shape:
            differing[name] = math.inf
        elif not bool((before[name] == after[name]).all()):
            differing[name] = float((before[name].double() - after[name].double()).abs().max())
    return differing


def _causes(store: Store, original: FinishedRun, result: RunResult) -> dict[str, tuple[str, str]]:
    tags = original.record.tags
    commit, dirty = git_state()
    pairs = {
        "data": (tags.get("data.used"), result.data.get("used")),
        "data digest": (tags.get("data.digest"), result.data.get("digest")),
        "code (git commit)": (tags.get("mlflow.source.git.commit"), commit),
        "code (uncommitted changes)": (tags.get("git.dirty"), str(dirty).lower() if commit else None),
    }
    before = _json_of(store, original, ENVIRONMENT)
    pairs |= {name: (before.get(name), value) for name, value in environment().items() if before}
    return {
        name: (str(then), str(now)) for name, (then, now) in pairs.items() if then and now and then != now
    }


def _unknown(store: Store, original: FinishedRun) -> list[str]:
    """What cannot be said to be unchanged, and why: the code is known only between two clean states of a repository."""
    found = (
        []
        if _json_of(store, original, ENVIRONMENT)
        else ["versions and hardware: the run did not record them"]
    )
    commit, dirty = git_state()
    then = original.record.tags.get("mlflow.source.git.commit")
    if not then or not commit:
        when = "then and now" if not then and not commit else "now" if then else "then"
        found.append(f"code: no git commit is known of {when}")
    elif dirty and then == commit and original.record.tags.get("git.dirty") == "true":
        found.append("code: there were uncommitted changes then and there are now")
    return found


def _json_of(store: Store, original: FinishedRun, name: str) -> dict[str, Any]:
    """What an artifact of the run says, empty where it has none of that name."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = store.download_artifact(original.record.run_id, name, Path(folder))
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (UserError, ValueError):
            return {}
    return found


def in_words(comparison: Comparison) -> list[str]:
    """Identical, or where it differs and why, line by line."""
    kept = "the weights" if comparison.weights is not None else "no weights were kept"
    if comparison.identical:
        lines = [f"IDENTICAL to run {comparison.run}: {comparison.compared} metrics and {kept}, bit for bit."]
        changed = [f"{name}: {then} → {now}" for name, (then, now) in comparison.causes.items()]
        lines += [f"although these changed: {'; '.join(changed)}"] if changed else []
        return lines + [f"unknown: {entry}" for entry in comparison.unknown]
    lines = [f"NOT identical to run {comparison.run}."]
    for name, (then, now) in comparison.metrics.items():
        lines.append(f"{name}: {then:.8g} → {now:.8g} ({now - then:+.3g})")
    if comparison.weights:
        largest = max(comparison.weights.values())
        lines.append(f"weights: {len(comparison.weights)} differ, by up to {largest:.3g}")
    if comparison.causes:
        lines.append("What is not as it was then:")
        lines += [f"  {name}: {then} → {now}" for name, (then, now) in comparison.causes.items()]
    lines += [f"unknown: {entry}" for entry in comparison.unknown]
    if not comparison.causes:
        known = not comparison.unknown
        same = "Data, code, versions and hardware are" if known else "All else that was recorded is"
        other = "an" if known else "either that changed, or an"
        lines.append(
            f"{same} the same: {other} operation of this model is not deterministic here; "
            "try trainer.deterministic=true"
        )
    return lines
