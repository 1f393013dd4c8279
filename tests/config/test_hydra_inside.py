"""What of Hydra's private side the pipeline relies on: each by name, with what it must take and do."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from pipeline.config import hydra_inside as inside
from pipeline.config.loading import Loader, compose, loader
from pipeline.errors import UserError

SMALL = ["experiment=digits_linear", "logger=none", "trainer=cpu"]


def broken(name: str, what: str) -> str:
    return f"Hydra {hydra.__version__}: {name} {what}. pipeline/config/hydra_inside.py says what it is for."


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("_internal.callbacks.Callbacks", ["config"]),
        ("_internal.callbacks.Callbacks.on_run_start", ["config"]),
        ("_internal.callbacks.Callbacks.on_run_end", ["config"]),
        ("_internal.callbacks.Callbacks.on_multirun_start", ["config"]),
        ("_internal.callbacks.Callbacks.on_multirun_end", ["config"]),
        (
            "_internal.config_loader_impl.ConfigLoaderImpl.load_configuration",
            ["config_name", "overrides", "run_mode", "from_shell", "validate_sweep_overrides"],
        ),
        (
            "_internal.config_loader_impl.ConfigLoaderImpl.load_sweep_config",
            ["master_config", "sweep_overrides"],
        ),
        (
            "_internal.config_loader_impl.ConfigLoaderImpl.compute_defaults_list",
            ["config_name", "overrides", "run_mode"],
        ),
        (
            "_internal.config_loader_impl.ConfigLoaderImpl._process_config_searchpath",
            ["config_name", "parsed_overrides", "repo"],
        ),
        (
            "_internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config",
            ["overrides", "cfg"],
        ),
        ("_internal.config_search_path_impl.ConfigSearchPathImpl.append", ["provider", "path"]),
        ("_internal.hydra.Hydra", ["task_name", "config_loader"]),
        ("_internal.hydra.Hydra.hydra_help", ["config_name", "args_parser", "args"]),
        ("_internal.hydra.Hydra.shell_completion", ["config_name", "overrides"]),
        ("_internal.hydra.Hydra.show_cfg", ["config_name", "overrides", "cfg_type", "package", "resolve"]),
        ("_internal.hydra.Hydra.show_info", ["info", "config_name", "overrides"]),
        ("_internal.utils.create_config_search_path", ["search_path_dir"]),
        ("_internal.utils.get_args_parser", []),
        (
            "core.utils.run_job",
            ["task_function", "config", "job_dir_key", "job_subdir_key", "hydra_context"],
        ),
    ],
)
def test_a_private_name_is_there_and_takes_what_it_is_given(path: str, parameters: list[str]) -> None:
    found: Any = hydra
    for position, part in enumerate(names := path.split(".")):
        if not hasattr(found, part):
            with contextlib.suppress(ImportError):
                import_module(".".join(["hydra", *names[: position + 1]]))
        assert hasattr(found, part), broken(path, "is gone")
        found = getattr(found, part)
    taken = inspect.signature(found).parameters
    missing = [name for name in parameters if name not in taken]
    assert not missing, broken(path, f"does not take {', '.join(missing)}")
    required = [
        name
        for name, parameter in taken.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    wanted = [name for name in required if name not in ("self", *parameters)]
    assert not wanted, broken(path, f"wants {', '.join(wanted)} too")


def test_the_command_line_has_the_flags_that_are_read() -> None:
    arguments = vars(inside.get_args_parser().parse_args([]))
    read = {
        *("overrides", "run", "multirun", "cfg", "resolve", "package", "info", "shell_completion"),
        *("config_dir", "config_path", "config_name", "hydra_help", "experimental_rerun"),
    }
    assert read <= set(arguments), broken("get_args_parser", f"has no {read - set(arguments)}")


def test_the_core_plugins_are_where_hydras_own_files_say() -> None:
    cfg = loader().load_configuration("config", list(SMALL), RunMode.RUN)
    assert cfg.hydra.launcher._target_ == f"{inside.CORE_PLUGINS}.basic_launcher.BasicLauncher", broken(
        inside.CORE_PLUGINS, "does not hold the launcher"
    )


def test_composing_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compose(SMALL)


def test_a_run_stays_in_its_directory_as_since_hydra_1_3() -> None:
    assert not loader().load_configuration("config", list(SMALL), RunMode.RUN).hydra.job.chdir


def test_groups_and_defaults_are_read_through_the_repository() -> None:
    loads = loader()
    assert loads.group_exists("model") and not loads.group_exists("seed"), broken(
        "ConfigLoaderImpl.repository.group_exists", "answers otherwise"
    )
    assert {"data", "model", "experiment", "hydra"} <= loads.groups_of("config"), broken(
        "ConfigLoaderImpl.repository.load_config", "has no defaults_list of GroupDefault"
    )


@pytest.mark.parametrize(
    "composing",
    [
        lambda loads, word: loads.load_configuration("config", [*SMALL, word], RunMode.RUN),
        lambda loads, word: loads.load_configuration("config", [*SMALL, word], RunMode.MULTIRUN),
        lambda loads, word: loads.load_sweep_config(
            loads.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN), [*SMALL, word]
        ),
        lambda loads, word: inside.Hydra(task_name="x", config_loader=loads).compose_config(
            "config", [*SMALL, word], RunMode.RUN
        ),
    ],
    ids=["run", "multirun", "job of a sweep", "what --cfg shows"],
)
def test_whatever_composes_is_checked(composing: Callable[[Loader, str], DictConfig]) -> None:
    assert composing(loader(), "seed=1").seed == 1
    with pytest.raises(UserError, match=r"model\._target_=os\.system"):
        composing(loader(), "model._target_=os.system")


@pytest.mark.parametrize(
    "word",
    [
        "hydra.searchpath=[pkg://planted_by_search]",
        # How Hydra 1.4 lets the same be said; 1.3 cannot read these.
        "hydra[searchpath]=[pkg://planted_by_search]",
        "hydra.searchpath=extend_list(pkg://planted_by_search)",
    ],
)
def test_no_package_is_imported_to_search_it(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted_by_search").mkdir()
    (tmp_path / "planted_by_search/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for show in (
        lambda loads: loads.load_configuration("config", [word], RunMode.RUN),
        lambda loads: loads.compute_defaults_list("config", [word], RunMode.RUN),
    ):
        with pytest.raises(Exception, match="searchpath"):
            show(loader())
    assert "planted_by_search" not in sys.modules, broken("_process_config_searchpath", "comes too late")


def test_a_search_path_of_given_places_is_searched_in_their_order() -> None:
    path = inside.search_path_of([("first", "file:///a"), ("second", "file:///b")])
    assert [(entry.provider, entry.path) for entry in path.get_path()] == [
        ("first", "file:///a"),
        ("second", "file:///b"),
    ]


def test_values_set_afterwards_are_those_that_composing_sets() -> None:
    loads = loader()
    words = ["optimizer.lr=0.5", "+trainer.val_check_interval=0.5", "seed=3"]
    composed = loads.load_configuration("config", [*SMALL, *words], RunMode.RUN)
    cfg = loads.load_configuration("config", list(SMALL), RunMode.RUN)
    understood = [*words[:1], "++trainer.val_check_interval=0.5", *words[2:]]
    inside.set_values(cfg, OverridesParser.create().parse_overrides(understood))
    cfg.hydra.overrides.task.extend(understood)
    inside.set_override_dirname(cfg)
    for config in (cfg, composed):
        # Each composing makes its own.
        config.hydra.run.dir = config.hydra.sweep.dir = "somewhere"
    name = composed.hydra.job.override_dirname
    assert "optimizer.lr=0.5" in name and cfg.hydra.job.override_dirname == name, broken(
        "hydra.job.override_dirname", "does not follow"
    )
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(composed), broken(
        "ConfigLoaderImpl._apply_overrides_to_config", "sets something else"
    )


def test_a_failed_job_hands_over_its_error_and_writes_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = loader()
    cfg = loads.load_configuration("config", [*SMALL, f"hydra.run.dir={tmp_path}"], RunMode.RUN)
    error = ValueError("cannot reach db://me:secret@host")

    def task(_: DictConfig) -> None:
        logging.getLogger("ours").warning("said by the task")
        raise error

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        job = inside.run_job(
            task,
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=loads, callbacks=inside.Callbacks(cfg)),
        )
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    assert job.status == JobStatus.FAILED
    assert inside.outcome(job) is error, broken("JobReturn._return_value", "is not the error")
    written = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert "said by the task" in written
    assert "secret" not in written + "".join(capsys.readouterr()), broken("run_job", "writes tracebacks")


def test_what_a_job_returned_is_handed_over() -> None:
    job = JobReturn()
    job.status, job.return_value = JobStatus.COMPLETED, 3
    assert inside.outcome(job) == 3, broken("JobReturn._return_value", "is not what was returned")
