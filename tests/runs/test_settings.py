"""Which settings make a run: each list leaves out what is not about its purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.__main__ import main
from pipeline.config import config_directory
from pipeline.config.loading import compose
from pipeline.ladder.report import command_of
from pipeline.ladder.rungs import Rung
from pipeline.runs import settings
from pipeline.runs.state import fingerprint
from pipeline.sweeps.sweeper import experiment_of

DIGITS = ["experiment=digits_mlp"]


def composed(*words: str) -> DictConfig:
    return compose([*DIGITS, *words])


def test_of_every_section_it_is_said_what_it_is_about() -> None:
    written = OmegaConf.load(config_directory() / "config.yaml")
    named = {str(key) for key in composed()} | {str(key) for key in written if key != "defaults"}
    assert {key for key in settings.ABOUT if "." not in key} == named | {"ladder", "hydra"}
    cfg = composed()
    for key in settings.ABOUT:
        section, _, name = key.partition(".")
        assert not name or name in cfg[section], f"{key} is no setting"


SAME_RUN = ["tags=[again]", "logger=none", "callbacks.progress=null", "trainer.enable_progress_bar=false"]
ANOTHER_RUN = ["seed=1", "name=other", "trainer.threads=1", "data.batch_size=16", "test=false", "seeds=2"]


@pytest.mark.parametrize(
    "word", [*SAME_RUN, "resume=auto", "paths.experiments_dir=elsewhere", "task.output=out"]
)
def test_a_run_goes_on_whatever_it_is_called_and_wherever_it_is_recorded(word: str) -> None:
    assert fingerprint(composed(word)) == fingerprint(composed())


@pytest.mark.parametrize("word", ANOTHER_RUN)
def test_a_run_does_not_go_on_with_other_settings(word: str) -> None:
    assert fingerprint(composed(word)) != fingerprint(composed())


@pytest.mark.parametrize(
    "word",
    [*SAME_RUN, "name=other", "test=false", "trainer=cpu", "checkpoint.every_n_steps=5", "data.data_dir=/x"],
)
def test_a_study_goes_on_on_another_machine(word: str) -> None:
    assert experiment_of(composed(word), {}) == experiment_of(composed(), {})
    assert experiment_of(composed(word, "optimizer.lr=0.5"), {}) != experiment_of(composed(), {})


def test_what_is_handed_on_is_found_again_where_a_command_is(tmp_path: Path) -> None:
    cfg = composed("paths.data_dir=/there", "resume=auto", "task.output=/there/out")
    found = settings.handed_on(cfg)
    text = OmegaConf.to_yaml(found)
    assert "/there" not in text
    assert set(found) == set(cfg) - {"paths", "logger", "resume"}
    here = composed(f"paths.data_dir={tmp_path}", "logger=none")
    settings.taken_up(found, here)
    assert found.data.data_dir == str(tmp_path)
    assert found.paths == here.paths and found.logger == here.logger and found.resume is None
    # What was trained is what will be trained again.
    assert fingerprint(found) == fingerprint(composed(f"paths.data_dir={tmp_path}"))


def test_a_command_to_repeat_names_no_places() -> None:
    words = ["experiment=digits_mlp", "paths.data_dir=/x", "paths=other", "logger=none", "optimizer.lr=0.1"]
    assert (
        command_of(Rung("tuned", Path(), words))
        == "python -m pipeline +experiment=digits_mlp optimizer.lr=0.1"
    )


@pytest.mark.parametrize("task", ["tune", "improve"])
@pytest.mark.parametrize("word", ["seeds=2", "data.folds=3", 'variants={a: ["optimizer.lr=1"]}'])
def test_a_task_that_hands_on_one_model_refuses_several_fits_of_each_at_once(
    task: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        f"task={task}",
        "data=digits",
        "model=linear",
        "logger=none",
        word,
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    assert main(words) == 2
    assert f"task={task} makes fits of its own" in (error := capsys.readouterr().err)
    assert word.partition("=")[0] in error


def test_what_was_typed_holds_for_every_trial_of_a_tuning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "task=tune",
        "task.trials=2",
        "data=digits",
        "model=linear",
        "logger=none",
        "callbacks.progress=null",
    ]
    places = [f"hydra.run.dir={tmp_path / 'run'}", f"paths.experiments_dir={tmp_path / 'experiments'}"]
    assert main([*words, *places, f"ckpt_path={tmp_path / 'none.ckpt'}"]) == 2
    assert "Trial 0 failed: UserError: no checkpoint at" in (said := capsys.readouterr().out)
    assert "none.ckpt" in said
