"""The configuration of each trial, composed as Hydra's launcher does, in whichever process runs it."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterable, Iterator, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.config.checks import check
from pipeline.config.hydra_inside import Callbacks, run_job, search_path_of, set_override_dirname, set_values
from pipeline.config.loading import Loader, prepare
from pipeline.sweeps.plan import Plan, Source


def source_of(loader: ConfigLoader, config: DictConfig) -> Source:
    """What another process needs to compose the same configurations."""
    path = [(str(entry.provider), str(entry.path)) for entry in loader.get_search_path().get_path()]
    overrides = [str(override) for override in config.hydra.overrides.hydra]
    return Source(path, str(config.hydra.job.config_name), overrides)


class Composer:
    """Composes and runs jobs.

    Args:
        plan: The sweep.
        loader: Hydra's loader; None makes one from the plan, as worker processes do.
    """

    def __init__(self, plan: Plan, loader: ConfigLoader | None = None) -> None:
        self._plan = plan
        self._loader = loader or _make_loader(plan.source)
        self._callbacks: Callbacks | None = None
        self._common: DictConfig | None = None

    def get_ready(self, keys: Iterable[str]) -> None:
        """Compose what the trials share, so that the first need not, where all that differs are values.

        Args:
            keys: Keys that differ between the trials.
        """
        if all(self._is_value_key(key) for key in keys):
            self._take_common()

    def _take_common(self) -> DictConfig:
        if self._common is None:
            self._common = self.compose_only([*self._plan.source.hydra_overrides, *self._plan.fixed])
        return self._common

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """A job's configuration, Hydra's part included.

        Args:
            overrides: Overrides of the job; those that all trials share come first.
        """
        typed = [*self._plan.source.hydra_overrides, *self._plan.fixed]
        if not overrides:
            return self.compose_only(typed)
        quick = self._with_values(overrides)
        return self.compose_only([*typed, *overrides]) if quick is None else quick

    def _with_values(self, overrides: Sequence[str]) -> DictConfig | None:
        """The common configuration with some values set; None where Hydra itself has to compose.

        Composing takes a tenth of a second, for every trial again; only the choice of a config group needs it.
        """
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        if any(not self._is_value(override) for override in parsed):
            return None
        config = copy.deepcopy(self._take_common())
        try:
            set_values(config, parsed)
        except HydraException:
            return None
        config.hydra.overrides.task.extend(overrides)
        set_override_dirname(config)
        check(config)
        return config

    def _is_value(self, override: Override) -> bool:
        if override.type != OverrideType.CHANGE or override.package is not None:
            return False
        return self._is_value_key(override.key_or_group)

    def _is_value_key(self, key: str) -> bool:
        if key.endswith("._target_"):
            # What another class does not take is left behind where it is composed.
            return False
        return isinstance(self._loader, Loader) and not self._loader.group_exists(key)

    def compose_only(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of these overrides alone, Hydra's part included."""
        name = self._plan.source.config_name
        config: DictConfig = self._loader.load_configuration(name, list(overrides), RunMode.RUN)
        return config

    def subdirectory(self, config: DictConfig, number: int) -> str:
        """The name of a trial's directory below the sweep's (`hydra.sweep.subdir`); the number unless configured."""
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
            config.hydra.sweep.dir = self._plan.directory
        return str(config.hydra.sweep.subdir)

    def run(self, config: DictConfig, subdir: str, task: TaskFunction) -> JobReturn:
        """Run a job in its own directory, with Hydra's files beside what the job writes.

        Args:
            config: Configuration of the job.
            subdir: Name of the directory below the sweep's.
            task: Function to run; an exception it raises is in the result, not raised.
        """
        with open_dict(config):
            config.hydra.sweep.subdir = subdir
        if self._callbacks is None:
            self._callbacks = Callbacks(config)
        with _logging_kept():
            return run_job(
                hydra_context=HydraContext(config_loader=self._loader, callbacks=self._callbacks),
                task_function=task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """Put logging back after a job, which logs into a directory of its own."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def _make_loader(source: Source) -> ConfigLoader:
    prepare()
    return Loader(search_path_of(source.search_path))
