"""Everything a worker needs to know of a sweep, as plain values that its study keeps for every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.sweeps.space import SearchSpace


@dataclass(frozen=True)
class Source:
    """Where configurations are composed from.

    Args:
        search_path: Pairs of provider and path, as Hydra lists them.
        config_name: The primary configuration.
        hydra_overrides: The overrides of Hydra's own part that were typed.
    """

    search_path: list[tuple[str, str]]
    config_name: str
    hydra_overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """One sweep.

    Args:
        study_name: Name of the study in the storage.
        directory: Directory of the trials' directories and of the results, absolute.
        n_trials: Number of the study's trials in all, whoever runs them.
        source: Place that configurations are composed from.
        runner: Dotted name of the function that runs one trial.
        metrics: Metrics that are optimised.
        directions: `maximize` or `minimize` for each of them.
        space: Varying keys as Optuna's JSON.
        fixed: Overrides that all trials share.
        jobs: Jobs of a plain multirun, by trial number: key to value as typed. None for an optimisation.
        first: System attributes of the first trials, by number: the experiment's own settings and known-good ones.
        sampler, pruner: Class (`_target_`) and arguments of each.
        seed: Seed of the sampler.
        n_jobs: Number of worker processes on this machine.
        retries: Number of times that a trial is run again after its worker vanished.
        max_failure_rate: Share of failed trials above which the study is given up.
        max_parameters: Largest number of parameters of a model that is trained, None for any.
        custom_search_space: Dotted name of a function that suggests more, None for none.
        skip_duplicates: Whether settings that were tried before get the known result.
        deadline: Time (seconds since 1970) after which no trial is started, and at which those that run end.
        ends: Time (seconds since 1970) at which the command is to be over, None for no limit.
        fold_reports: Whether trials report after each fold instead of after each epoch.
        grace: Seconds without a sign of life after which a worker on another machine counts as gone.
        parent: Key and directory of the tracking run that trials are nested under.
        launcher: `hydra.launcher` of an engine beyond this machine, empty for processes of this one.
        working_directory: Directory that the command was typed in; a worker on a machine that has it works there.
    """

    study_name: str
    directory: str
    n_trials: int
    source: Source
    runner: str
    metrics: list[str] = field(default_factory=lambda: ["val/loss"])
    directions: list[str] = field(default_factory=lambda: ["minimize"])
    space: dict[str, str] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    jobs: list[dict[str, str]] | None = None
    first: list[dict[str, Any]] = field(default_factory=list)
    sampler: dict[str, Any] = field(default_factory=lambda: {"_target_": "optuna.samplers.TPESampler"})
    pruner: dict[str, Any] | None = None
    seed: int = 0
    n_jobs: int = 1
    retries: int = 3
    max_failure_rate: float = 0.5
    max_parameters: int | None = None
    custom_search_space: str | None = None
    skip_duplicates: bool = True
    deadline: float | None = None
    ends: float | None = None
    fold_reports: bool = False
    grace: float = 60.0
    parent: tuple[str, str] | None = None
    launcher: dict[str, Any] = field(default_factory=dict)
    working_directory: str = ""

    @property
    def search_space(self) -> SearchSpace:
        """The space as distributions."""
        return SearchSpace.from_json(self.space, self.fixed)

    @property
    def allowed_failures(self) -> int:
        """How many trials may fail before the study is given up."""
        return int(self.max_failure_rate * self.n_trials)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a study keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`as_dict`, also after JSON made lists of its tuples."""
        values = dict(content)
        source = dict(values.pop("source"))
        source["search_path"] = [(provider, place) for provider, place in source["search_path"]]
        parent = values.pop("parent")
        return cls(source=Source(**source), parent=tuple(parent) if parent else None, **values)
