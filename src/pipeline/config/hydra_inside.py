"""The only door to Hydra's private side: each private thing that is used here, with the reason, for Hydra 1.3 and 1.4.

``tests/config/test_hydra_inside.py`` holds Hydra to all of it, and fails by name where a version changes something.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hydra
from hydra import version

# Makes and calls the callbacks of a configuration. Running a job wants them, and only Hydra's own `run` makes them.
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

# Help, --cfg, --info and completion. `@hydra.main`, the public way to them, has exit codes and messages of its own.
from hydra._internal.hydra import Hydra

# Hydra's flags, for `--allow` to stand among them, and the search path with what plugins add to it.
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core import utils
from hydra.core.default_element import GroupDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

if TYPE_CHECKING:
    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from hydra.types import TaskFunction

__all__ = [
    "AT_LEAST_1_4",
    "CORE_PLUGINS",
    "Callbacks",
    "Hydra",
    "HydraLoader",
    "create_config_search_path",
    "get_args_parser",
    "outcome",
    "run_job",
    "search_path_of",
    "set_override_dirname",
    "set_values",
    "set_version_base",
]

AT_LEAST_1_4 = tuple(int(part) for part in hydra.__version__.split(".")[:2]) >= (1, 4)

CORE_PLUGINS = "hydra._internal.core_plugins"
"""The module of Hydra's own launcher and sweepers, which its configuration files name by ``_target_``."""


class HydraLoader(ConfigLoaderImpl):
    """Hydra's own loader, as a class to build on.

    The public ``ConfigLoader`` is an interface without code, and Hydra has no public place to step in between composing
    and use.
    """

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job of a sweep, composed as any other.

        What Hydra 1.3 does. 1.4 composes past :meth:`load_configuration`, and with that past every check that a
        subclass puts there.
        """
        shared = OmegaConf.to_container(master_config.hydra.overrides.hydra)
        assert isinstance(shared, list)
        name = master_config.hydra.job.config_name
        cfg = self.load_configuration(name, [*shared, *sweep_overrides], RunMode.RUN)
        # One time stamp, and one of whatever else is remembered, for all jobs.
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
        return cfg

    def check_search_path(self, places: Sequence[Any]) -> None:
        """Look at places that a configuration or the command line adds to the search path, before Hydra does."""

    def group_exists(self, group: str) -> bool:
        """Whether there is a config group of this name."""
        return bool(self.repository.group_exists(group))

    def groups_of(self, config_name: str) -> frozenset[str]:
        """The groups in the defaults list of a configuration file."""
        found = self.repository.load_config(config_name)
        defaults = found.defaults_list if found is not None and found.defaults_list is not None else []
        return frozenset(
            default.group for default in defaults if isinstance(default, GroupDefault) and default.group
        )

    # The one place that every kind of composing passes before a directory, or a package, is searched.
    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        found = repo.load_config(config_name) if config_name is not None else None
        searched: list[Any] = [
            override.value() for override in parsed_overrides if _sets_search_path(override)
        ]
        if found is not None:
            searched.append(OmegaConf.select(found.config, "hydra.searchpath"))
        for places in searched:
            self.check_search_path(list(places) if isinstance(places, list | ListConfig) else [])
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


def _sets_search_path(override: Override) -> bool:
    # Hydra 1.4 also takes hydra[searchpath]=[...] and hydra.searchpath=extend_list(...).
    key = override.key_or_group.replace("[", ".").replace("]", "")
    added_or_gone = override.is_add() or override.is_force_add() or override.is_delete()
    return key == "hydra.searchpath" and not added_or_gone


def set_version_base() -> None:
    """Behave as 1.3: Hydra 1.3 behaves as 1.1 unless it is told, 1.4 has one behaviour and warns when it is told."""
    if not AT_LEAST_1_4:
        version.setbase("1.3")


def search_path_of(entries: Sequence[tuple[str, str]]) -> ConfigSearchPath:
    """A search path made of (provider, path); Hydra has no public one to fill."""
    path = ConfigSearchPathImpl()
    for provider, place in entries:
        path.append(provider=provider, path=place)
    return path


def set_values(config: DictConfig, overrides: list[Override]) -> None:
    """Apply overrides of values to a composed configuration, as composing does at its end.

    The public way composes again, a tenth of a second for every trial of a sweep.
    """
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)


def set_override_dirname(config: DictConfig) -> None:
    """Have ``hydra.job.override_dirname`` follow what was added to ``hydra.overrides.task`` after composing.

    Hydra 1.4 reads them when it is asked, and has no function for it any more.
    """
    if AT_LEAST_1_4:
        return
    from hydra._internal.config_loader_impl import get_overrides_dirname

    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    naming = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides, naming.exclude_keys, naming.item_sep, naming.kv_sep
    )


def run_job(task_function: TaskFunction, **job: Any) -> JobReturn:
    """Hydra's ``run_job`` without the traceback that 1.4 writes to the log of a job that fails.

    It may hold passwords; ours are masked and stand in ``traceback.txt``.
    """

    @functools.wraps(task_function)
    def task(cfg: DictConfig) -> Any:
        # The log's handlers are made just before the task begins.
        for handler in logging.getLogger().handlers:
            handler.addFilter(_not_from_running_jobs)
        return task_function(cfg)

    return utils.run_job(task_function=task, **job)


def _not_from_running_jobs(record: logging.LogRecord) -> bool:
    return record.name != utils.__name__


def outcome(job: JobReturn) -> Any:
    """What a job returned, or the exception that it raised; the public property prints lines of its own first."""
    return job._return_value
