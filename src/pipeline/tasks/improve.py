"""Climb the ladder: baseline, linear, small, overfitting, tuned; then one look at the test split and one report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from pipeline.errors import UserError
from pipeline.run_result import RunResult
from pipeline.tasks.finished import data_of, load_predictor, open_store, typed_overrides
from pipeline.tasks.hooks import Hooks
from pipeline.tasks.outputs import Outputs, loader_of, outputs_on, paired, result_directory, test_split
from pipeline.tasks.recording import NoRun, open_run, recorded

if TYPE_CHECKING:
    from pipeline.data.module import DataModule
    from pipeline.data.splits import Rows
    from pipeline.statistics import Interval, PairedTest
    from pipeline.tasks.recording import AnyRun
    from pipeline.tracking.queries import Store

log = logging.getLogger(__name__)

_SECTIONS = (
    "data",
    "model",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "seed",
    "checkpoint",
    "paths",
)


@dataclass
class Rung:
    """One step of the ladder.

    Args:
        name: of the rung.
        overrides: that it was composed with.
        cfg: its configuration; None for the baseline.
        result: of its fit; None for the baseline.
        validation: the judged metric on validation data.
        showed: what the step showed, in words.
        seconds: that it cost.
        test: the judged metric on the test split with its interval, once that was read.
        gain: the paired test against the rung below on the test split.
    """

    name: str
    overrides: list[str] = field(default_factory=list)
    cfg: DictConfig | None = None
    result: RunResult | None = None
    validation: float = math.nan
    showed: str = ""
    seconds: float = 0.0
    test: Interval | None = None
    gain: PairedTest | None = None

    @property
    def parameters(self) -> int:
        """Trainable numbers; none for the baseline."""
        return 0 if self.result is None else int(self.result.model["parameters"])


@dataclass
class Climb:
    """What came of a ladder.

    Args:
        metric: that everything is judged by: ``accuracy`` or ``mae``.
        rungs: all of them, the baseline first.
        chosen: the winner.
        final: the winner trained on training and validation data, once for each seed.
        registered: what became of the winner in the model registry, in words.
        seconds: in all.
    """

    metric: str
    rungs: list[Rung]
    chosen: Rung
    final: list[Rung] = field(default_factory=list)
    registered: str = ""
    seconds: float = 0.0


def run(cfg: DictConfig) -> None:
    """The task behind ``task=improve``."""
    from pipeline.reports.ladder import in_words

    directory = result_directory(cfg)
    climb = improve(cfg, typed_overrides(*_SECTIONS))
    print("\n".join([*in_words(climb), f"report: {directory / 'ladder.html'}"]))


def improve(cfg: DictConfig, typed: Sequence[str] = ()) -> Climb:
    """Climb the ladder of ``cfg`` (``+ladder=NAME``, or the default one for the data that was typed).

    Args:
        cfg: of this command.
        typed: overrides that hold for every rung.

    Raises:
        UserError: the ladder or the data cannot be used.
    """
    from pipeline.reports.ladder import write_report

    began = time.time()
    directory, ladder = result_directory(cfg), _ladder(cfg)
    parent = open_run(cfg, directory, Hooks(), f"{cfg.name}-improve")
    with recorded(parent):
        base = [*ladder["base"], *typed, *_places(cfg), "test=false"]
        climb = _climb(cfg, ladder, base, directory, parent)
        if climb.chosen.result is not None:
            climb.final = _retrained(cfg, climb.chosen, directory, parent)
        tested = _read_test(climb, directory)
        climb.registered = _registered(cfg, climb, tested, parent)
        climb.seconds = time.time() - began
        for path in write_report(climb, cfg, directory):
            parent.log_artifact(path, "report")
        parent.log_metrics(_summary(climb))
        parent.set_tags({"chosen": climb.chosen.name})
    parent.finish("FINISHED")
    parent.wait(60.0)
    return climb


def _ladder(cfg: DictConfig) -> dict[str, Any]:
    from pipeline.config import config_directory

    node = cfg.get("ladder")
    if node is None:
        node = OmegaConf.load(config_directory() / "ladder" / "default.yaml").ladder
    values: Any = OmegaConf.to_container(node, resolve=True)
    if missing := {"base", "rungs", "tuned", "sweep"} - set(values):
        raise UserError(f"ladder lacks {', '.join(sorted(missing))}; see conf/ladder/default.yaml")
    return dict(values)


def _places(cfg: DictConfig) -> list[str]:
    places = [f"paths.data_dir={cfg.paths.data_dir}", f"paths.experiments_dir={cfg.paths.experiments_dir}"]
    logger = (
        f"logger.experiment_name={cfg.logger.experiment_name}" if cfg.logger.get("mlflow") else "logger=none"
    )
    return [*places, logger]


def _climb(
    cfg: DictConfig, ladder: dict[str, Any], base: list[str], directory: Path, parent: AnyRun
) -> Climb:
    """Every rung, judged on validation data alone."""
    rungs = [Rung("baseline")]
    chosen, metric, baseline_values = rungs[0], "", np.zeros(0)
    steps = {**ladder["rungs"], "tuned": ladder["tuned"]}
    for name, overrides in steps.items():
        started = time.time()
        wanted = [*base, *overrides]
        if name == "tuned" and ladder["sweep"]:
            wanted += _tuned(cfg, wanted, str(ladder["sweep"]), directory)
        rung = Rung(name, wanted)
        rung.cfg = _composed(wanted)
        rung.result = _trained(rung.cfg, directory / name, parent, name)
        rung.seconds = time.time() - started
        data = data_of(rung.cfg)
        if data.validation is None or len(data.validation) == 0:
            raise UserError(
                "a ladder needs validation data to climb by; set data.validation_fraction above 0"
            )
        answers = _answers(rung, directory, data, data.validation)
        metric, interval = answers.interval()
        rung.validation = interval.value
        if len(rungs) == 1:
            baseline_values = _baseline_values(data, data.validation, metric)
            rungs[0].validation = float(baseline_values.mean())
            rungs[0].showed = f"always the same answer: {metric} {rungs[0].validation:.4f}"
        rung.showed = _judged(rung, chosen, answers, baseline_values, metric, len(steps))
        if rung.showed.startswith("better"):
            chosen = rung
        rungs.append(rung)
        log.info("%s: %s", name, rung.showed)
    return Climb(metric, rungs, chosen)


def _composed(overrides: list[str]) -> DictConfig:
    from pipeline.config import compose

    return compose(overrides)


def _trained(cfg: DictConfig, directory: Path, parent: AnyRun, name: str) -> RunResult:
    from pipeline.tasks.train import train

    tags = {"rung": name, "mlflow.runName": f"{cfg.name}-{name}"}
    tracked = None if isinstance(parent, NoRun) else parent
    return train(cfg, Hooks(directory=directory, parent=tracked, tags=tags, quiet=True, reports=True))


def _answers(rung: Rung, directory: Path, data: DataModule, split: Rows) -> Outputs:
    from pipeline.models.saved import load

    assert rung.cfg is not None
    predictor = load(directory / rung.name / "model")
    return outputs_on(predictor.module, loader_of(data, split), rung.cfg)


def _baseline_values(data: DataModule, split: Rows, metric: str) -> np.ndarray:
    """What the constant answer scores on each sample: the most frequent class, or the mean."""
    known, y = data.train.y.reshape(-1), split.y.reshape(-1)
    if metric == "mae":
        return np.asarray((y.double() - known.double().mean()).abs().numpy())
    commonest = known[known >= 0].long().bincount().argmax()
    return np.asarray((y[y >= 0].long() == commonest).numpy(), dtype=bool)


def _judged(rung: Rung, below: Rung, answers: Outputs, baseline: np.ndarray, metric: str, rungs: int) -> str:
    """What the step showed; it begins with ``better`` where the rung is to be kept."""
    from pipeline.statistics import compare_hits, compare_values

    assert rung.result is not None
    better = (
        rung.validation > below.validation if metric == "accuracy" else rung.validation < below.validation
    )
    gain = f"{metric} {rung.validation:.4f} against {below.validation:.4f}"
    if below.result is None:
        values = answers.values()[1]
        test = compare_hits(baseline, values) if metric == "accuracy" else compare_values(baseline, values)
        # Each rung is one more chance to look better than the baseline by luck.
        if better and test.p_value < 0.05 / rungs:
            shown = f"better than the baseline ({gain}): the inputs do predict the target"
        else:
            shown = f"not better than the baseline ({gain}, p = {test.p_value:.2g}): kept the baseline"
    elif better:
        shown = f"better than {below.name} ({gain})"
    else:
        shown = f"not better than {below.name} ({gain}): kept the simpler one"
    train = rung.result.metrics.get(f"train/{metric}")
    if train is not None:
        gap = train - rung.validation if metric == "accuracy" else rung.validation / max(train, 1e-12) - 1
        if gap > (0.02 if metric == "accuracy" else 0.2):
            shown += f"; training {metric} {train:.4f}: it overfits, so regularise"
    return shown


def _tuned(cfg: DictConfig, overrides: list[str], sweep: str, directory: Path) -> list[str]:
    """The best settings that the sweeper finds on validation data, as overrides."""
    from hydra._internal.callbacks import Callbacks
    from hydra.types import HydraContext, RunMode

    from pipeline.config.loading import loader
    from pipeline.sweeps.space import as_override
    from pipeline.sweeps.sweeper import optimise

    loads = loader()
    typed = [*overrides, f"sweep={sweep}", f"hydra.sweeper.n_trials={cfg.task.trials}"]
    typed.append(f"hydra.sweep.dir={directory / 'sweep'}")
    config = loads.load_configuration("config", typed, RunMode.MULTIRUN)
    context = HydraContext(config_loader=loads, callbacks=Callbacks(config))
    finished = optimise(config, context, [str(word) for word in config.hydra.overrides.task])
    return (
        [as_override(key, value) for key, value in finished.best[0].params.items()] if finished.best else []
    )


def _retrained(cfg: DictConfig, chosen: Rung, directory: Path, parent: AnyRun) -> list[Rung]:
    """The winner on training and validation data together, once for each seed, as long as its best epoch took."""
    assert chosen.result is not None
    fixed = ["data.train_on_all=true", "checkpoint.monitor=train/loss", "callbacks=none"]
    if chosen.result.best_epoch:
        fixed.append(f"trainer.max_epochs={chosen.result.best_epoch}")
    found = []
    for seed in cfg.task.seeds:
        started = time.time()
        name = f"final-seed-{seed}"
        rung = Rung(name, [*chosen.overrides, *fixed, f"seed={seed}"])
        rung.cfg = _composed(rung.overrides)
        rung.result = _trained(rung.cfg, directory / name, parent, name)
        rung.seconds = time.time() - started
        found.append(rung)
    return found


def _read_test(climb: Climb, directory: Path) -> dict[str, Outputs]:
    """The one look at the test split, for every rung at once: the choice is made."""
    from pipeline.statistics import bootstrap_mean, compare_hits, compare_values

    tested: dict[str, Outputs] = {}
    last: np.ndarray | None = None
    for rung in [*climb.rungs[1:], *climb.final]:
        assert rung.cfg is not None
        data = data_of(rung.cfg)
        split = test_split(data, f"data={data.name}")
        if last is None:
            last = _baseline_values(data, split, climb.metric)
            climb.rungs[0].test = bootstrap_mean(last)
        tested[rung.name] = _answers(rung, directory, data, split)
        values = tested[rung.name].values()[1]
        rung.test = bootstrap_mean(values)
        if rung not in climb.final:
            rung.gain = (compare_hits if climb.metric == "accuracy" else compare_values)(last, values)
            last = values
    return tested


def _registered(cfg: DictConfig, climb: Climb, tested: dict[str, Outputs], parent: AnyRun) -> str:
    """Register the first of the final models; it becomes champion only if it beats the present one."""
    if not climb.final:
        return "nothing was registered: keep the baseline"
    if isinstance(parent, NoRun):
        return "not registered: nothing is tracked (logger=mlflow)"
    winner = climb.final[0]
    try:
        return _register(cfg, climb, winner, tested[winner.name])
    except UserError as error:
        # The report must not be lost because a server is away.
        return f"not registered: {error}"


def _register(cfg: DictConfig, climb: Climb, winner: Rung, outputs: Outputs) -> str:
    from pipeline.reports.ladder import model_card
    from pipeline.tracking.sender_link import link

    assert winner.result is not None
    if winner.result.run_id is None:
        raise UserError("the final run was not recorded")
    # A nested run is delivered in the background.
    link(Path(cfg.paths.experiments_dir)).wait([winner.result.directory], 120.0)
    store = open_store(cfg)
    name = str(cfg.task.get("model_name") or str(cfg.name).removesuffix("_ladder"))
    card = model_card(climb, cfg, winner.result)
    version = store.register(winner.result.run_id, name, {"rung": climb.chosen.name}, card)
    alias, why = _alias(store, name, version.version, winner, outputs)
    store.set_alias(name, alias, version.version)
    return f"{name} version {version.version} is {alias}: {why}"


def _alias(store: Store, name: str, version: str, winner: Rung, outputs: Outputs) -> tuple[str, str]:
    """``champion`` or ``challenger``, and why: by a paired test against the present champion on the same samples."""
    present = store.version(name, "champion")
    if present is None or present.version == version:
        return "champion", "there was none before"
    assert winner.cfg is not None
    data = data_of(winner.cfg)
    try:
        champion = load_predictor(store, present.model_uri)
        if data.spec.input != "image" and champion.encoder.to_state() != data.encoder.to_state():
            raise UserError("it takes inputs that are prepared in another way")
        test = paired(
            outputs_on(champion.module, loader_of(data, test_split(data, name)), winner.cfg), outputs
        )
    except (UserError, RuntimeError) as error:
        return "challenger", f"it could not be compared with champion {present.version}: {error}"
    difference = test.difference.value if outputs.values()[0] == "accuracy" else -test.difference.value
    words = f"against champion {present.version}: {test.difference.value:+.4f}, p = {test.p_value:.3g}"
    return ("champion", words) if test.significant() and difference > 0 else ("challenger", words)


def _summary(climb: Climb) -> dict[str, float]:
    metrics = {f"val/{climb.metric}": climb.chosen.validation, "seconds/total": climb.seconds}
    shown = climb.final[0] if climb.final else climb.chosen
    if shown.test is not None:
        metrics[f"test/{climb.metric}"] = shown.test.value
    return metrics
