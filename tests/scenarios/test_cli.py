"""The command line: exit codes, messages, what lands where. The task is a stub: nothing heavy is imported."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.__main__ import main
from pipeline.errors import Diverged, Interrupted, UserError

Task = Callable[[DictConfig], Any]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test in a directory of its own; Hydra's log handlers are gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_ALLOW", raising=False)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[DictConfig]:
    """The configurations that the train task was run with."""
    seen: list[DictConfig] = []
    _install(monkeypatch, seen.append)
    return seen


def _install(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    module = ModuleType("pipeline.tasks.train")
    module.__spec__ = ModuleSpec("pipeline.tasks.train", None)
    module.run = task  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.tasks.train", module)


@pytest.fixture
def plain_sweeper(tmp_path: Path) -> list[str]:
    """Flags that let Hydra's own sweeper run the jobs, in this process."""
    home = tmp_path / "mine/hydra/sweeper"
    home.mkdir(parents=True)
    (home / "plain.yaml").write_text(
        "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\nmax_batch_size: null\nparams: null\n",
        encoding="utf-8",
    )
    return ["--config-dir", "mine", "hydra/sweeper=plain"]


def _raising(error: BaseException) -> Task:
    def task(cfg: DictConfig) -> None:
        raise error

    return task


def test_help_lists_experiments_tasks_groups_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "mnist_cnn",
        "digits_mlp",
        "find_lr",
        "overfit",
        "python -m pipeline +experiment=mnist_cnn",
        "adamw",
        "--config-dir",
        "Exit codes",
    ):
        assert word in text


def test_help_shows_the_first_comment_of_a_users_own_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/gulls.yaml").write_text(
        "# @package _global_\n# Counts gulls.\nseed: 7\n", encoding="utf-8"
    )
    assert main(["--help", "--config-dir", "mine"]) == 0
    assert "gulls" in (text := capsys.readouterr().out)
    assert "Counts gulls." in text


def test_a_run_leaves_hydras_files_in_its_own_directory(runs: list[DictConfig], tmp_path: Path) -> None:
    assert main(["+experiment=digits_mlp", "seed=3"]) == 0
    (directory,) = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    assert Path(runs[0].paths.run_dir) == directory
    assert OmegaConf.load(directory / ".hydra/config.yaml").seed == 3
    assert OmegaConf.load(directory / ".hydra/overrides.yaml") == ["experiment=digits_mlp", "seed=3"]


def test_two_runs_of_the_same_second_do_not_share_a_directory(runs: list[DictConfig]) -> None:
    assert main([]) == main([]) == 0
    assert runs[0].paths.run_dir != runs[1].paths.run_dir


def test_hydra_run_dir_moves_the_run(runs: list[DictConfig], tmp_path: Path) -> None:
    assert main([f"hydra.run.dir={tmp_path / 'here'}"]) == 0
    assert runs[0].paths.run_dir == str(tmp_path / "here")
    assert (tmp_path / "here/.hydra/config.yaml").is_file()


@pytest.mark.parametrize("words", [["experiment=digits_mlp"], ["+experiment=digits_mlp"]])
def test_an_experiment_is_chosen_with_and_without_plus(words: list[str], runs: list[DictConfig]) -> None:
    assert main([*words, "debug=fast"]) == 0
    assert (runs[0].name, runs[0].data.name, runs[0].trainer.fast_dev_run) == ("digits_mlp", "digits", True)


def test_the_last_choice_of_a_group_wins_with_and_without_plus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+experiment=digits_mlp", "experiment=digits_cnn", "--cfg", "job"]) == 0
    assert "name: digits_cnn" in capsys.readouterr().out


def test_a_debug_run_wins_over_its_experiment_and_stays_out_of_the_tracking_store(
    runs: list[DictConfig], tmp_path: Path
) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/long.yaml").write_text(
        "# @package _global_\ntrainer:\n  max_epochs: 90\n  profiler: simple\nlogger:\n  mlflow: true\n",
        encoding="utf-8",
    )
    assert main(["--config-dir", "mine", "debug=overfit", "+experiment=long"]) == 0
    (cfg,) = runs
    assert (cfg.trainer.overfit_batches, cfg.trainer.max_epochs, cfg.trainer.profiler) == (10, 50, "simple")
    assert cfg.logger.mlflow is False
    assert Path(cfg.paths.run_dir).parent == tmp_path / "experiments/debug/long"


def test_a_plus_is_right_for_settings_that_are_there_and_for_those_that_are_not(
    runs: list[DictConfig],
) -> None:
    assert (
        main(["+trainer.accumulate_grad_batches=4", "+trainer.val_check_interval=0.5", "+optimizer.eps=1e-7"])
        == 0
    )
    (cfg,) = runs
    assert (cfg.trainer.accumulate_grad_batches, cfg.trainer.val_check_interval, cfg.optimizer.eps) == (
        4,
        0.5,
        1e-7,
    )


def test_flags_may_stand_between_overrides(runs: list[DictConfig], plain_sweeper: list[str]) -> None:
    assert main(["seed=1", *plain_sweeper, "--multirun", "model.dropout=0.1,0.2"]) == 0
    assert [(cfg.seed, cfg.model.dropout) for cfg in runs] == [(1, 0.1), (1, 0.2)]


def test_jobs_of_a_multirun_have_directories_of_their_own_under_one(
    runs: list[DictConfig], plain_sweeper: list[str]
) -> None:
    assert main(["-m", *plain_sweeper, "+experiment=digits_mlp,digits_cnn"]) == 0
    directories = [Path(cfg.paths.run_dir) for cfg in runs]
    assert [directory.name for directory in directories] == ["0", "1"]
    assert directories[0].parent == directories[1].parent
    assert [cfg.name for cfg in runs] == ["digits_mlp", "digits_cnn"]


def test_a_sweep_that_sets_the_mode_itself_needs_no_flag(
    runs: list[DictConfig], tmp_path: Path, plain_sweeper: list[str]
) -> None:
    (tmp_path / "mine/sweep").mkdir(parents=True)
    (tmp_path / "mine/sweep/seeds.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n",
        encoding="utf-8",
    )
    assert main([*plain_sweeper, "+sweep=seeds", "model.dropout=0.1,0.3"]) == 0
    assert [(cfg.seed, cfg.model.dropout) for cfg in runs] == [(1, 0.1), (1, 0.3), (2, 0.1), (2, 0.3)]


def test_a_bad_value_among_many_is_refused_before_the_first_run(
    runs: list[DictConfig], plain_sweeper: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", *plain_sweeper, "model.dropout=0.1,1.5"]) == 2
    assert "model.dropout=1.5" in capsys.readouterr().err
    assert runs == []


def test_several_values_without_multirun_say_what_could_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed=1,2"]) == 2
    error = capsys.readouterr().err
    assert "add -m" in error
    assert "seed=[1,2]" in error


def test_cfg_shows_the_configuration_and_runs_nothing(
    runs: list[DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--cfg", "job", "--package", "optimizer"]) == 0
    assert "_target_: torch.optim.Adam" in capsys.readouterr().out
    assert main(["--cfg", "job", "--resolve"]) == 0
    assert f"sqlite:///{tmp_path}/experiments/mlflow.db" in capsys.readouterr().out
    assert runs == []
    assert not (tmp_path / "experiments").exists()


def test_cfg_masks_the_password_of_the_tracking_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@host/x")
    assert main(["--cfg", "job", "--resolve"]) == 0
    text = capsys.readouterr().out
    assert "https://me:***@host/x" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("what", ["defaults", "defaults-tree", "searchpath", "config"])
def test_info_answers(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--info", what, "+experiment=digits_mlp"]) == 0


def test_shell_completion_offers_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "python -m pipeline optimizer=ad"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    assert "optimizer=adamw" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("data.path is empty"), 2, "Error: data.path is empty\n"),
        (Diverged("the loss is NaN at step 12"), 3, "Error: the loss is NaN at step 12\n"),
        (Interrupted(130), 130, "interrupted (Ctrl-C)\n"),
        (Interrupted(143), 143, "terminated (SIGTERM)\n"),
        (KeyboardInterrupt(), 130, "interrupted (Ctrl-C)\n"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _install(monkeypatch, _raising(error))
    assert main([]) == code
    assert capsys.readouterr().err == said


def test_an_exit_code_of_the_task_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, lambda cfg: 3)
    assert main([]) == 3


def test_an_unexpected_error_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, _raising(RuntimeError("no luck at http://me:hunter2@host")))
    assert main([]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "Error: RuntimeError: no luck at http://me:***@host"
    kept = Path(second.removeprefix("Traceback: "))
    assert kept.is_relative_to(tmp_path / "experiments/runs")
    assert "Traceback (most recent call last)" in (text := kept.read_text(encoding="utf-8"))
    assert "hunter2" not in text


def test_hydra_full_error_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    _install(monkeypatch, _raising(RuntimeError("no luck")))
    assert main([]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_task_that_is_not_installed_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pipeline.tasks

    monkeypatch.setattr(pipeline.tasks, "find_spec", lambda name: None)
    assert main(["task=sync"]) == 2
    assert "task=sync: this task is not part of the installed version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--experimental-rerun", "job.pickle"], ["--experimental-rerun is refused", "unpickles"]),
        (["--experimental-re=job.pickle"], ["--experimental-rerun is refused"]),
        (["--config-path", "elsewhere"], ["--config-dir elsewhere"]),
        (["--config-dir", "nowhere"], ["--config-dir nowhere: there is no such directory"]),
        (["--help", "--config-dir=nowhere"], ["--config-dir nowhere: there is no such directory"]),
        (["--cfg", "job", "-m"], ["only one of"]),
        (["--resolve"], ["--cfg"]),
        (["--cfg", "everything"], ["--cfg", "everything"]),
        (["--nonsense"], ["--nonsense"]),
    ],
)
def test_flags_that_are_refused(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for part in parts:
        assert part in error


def test_allow_holds_for_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[DictConfig]
) -> None:
    target = "callbacks.mine._target_"
    assert main([f"+{target}=collections.OrderedDict"]) == 2
    assert main(["--allow", "collections.OrderedDict", f"+{target}=collections.OrderedDict"]) == 0
    assert main([f"+{target}=collections.OrderedDict"]) == 2
    monkeypatch.setenv("PIPELINE_ALLOW", "x.y, collections.OrderedDict")
    assert main([f"+{target}=collections.OrderedDict", "--allow", "a.b"]) == 0
    assert len(runs) == 2


def test_help_configurations_and_errors_import_nothing_heavy(tmp_path: Path) -> None:
    commands: list[list[str]] = [
        ["--help"],
        ["--cfg", "job", "+experiment=mnist_cnn"],
        ["model.hiden_units=3"],
        ["+model.hiden_units=3"],
        ["model.dropout=2"],
        ["+experiment=mnist_cn"],
        ["optimizer._target_=torch.hub.load"],
        ["model._target_=my_package.Net"],
        ["trainer=cpu", "trainer.devices=1000"],
    ]
    program = (
        "import json, sys\n"
        "from pipeline.__main__ import main\n"
        "codes = [main(words) for words in json.loads(sys.argv[1])]\n"
        "heavy = {'torch', 'pytorch_lightning', 'mlflow', 'optuna', 'pandas', 'numpy', 'matplotlib', 'sklearn'}\n"
        "print(json.dumps([codes, sorted(heavy & set(sys.modules))]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    codes, heavy = json.loads(done.stderr.splitlines()[-1])
    assert codes == [0, 0, *[2] * 7]
    assert heavy == []


def test_as_a_process_a_bad_setting_is_one_line_and_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "optimizer.lr=-1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: optimizer.lr=-1: expected a number above 0\n"
    assert list(tmp_path.iterdir()) == []


def test_whoever_stops_reading_help_causes_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m pipeline --help | true",
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
