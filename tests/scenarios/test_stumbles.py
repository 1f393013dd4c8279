"""What people stumble over, typed as they type it: each ends in what was meant, or in one message that says the way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.data.core.cache import cached
from pipeline.data.core.spec import Spec
from pipeline.data.tables.files import TableFormat, read_table
from pipeline.errors import UserError
from pipeline.models.foreign import Foreign
from pipeline.models.recurrent import Recurrent
from pipeline.reports.summary import metric_table
from pipeline.sweeps.objective import read_objectives

OWN = ["data=csv", "data.path=t.csv", "data.target=y"]


def test_a_place_that_cannot_be_written_to_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["+experiment=digits_linear", f"paths.experiments_dir={tmp_path}/file/runs"]) == 2
    said = capsys.readouterr().err
    assert "cannot be written to" in said and "paths.experiments_dir=" in said and "Traceback" not in said


def test_data_is_prepared_where_nothing_can_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    assert cached(tmp_path / "data", "entry", lambda: ({}, "built")) == ({}, "built")
    assert "cannot be written to" in caplog.text


def test_a_directory_may_have_blanks_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "my dir (é)"
    here.mkdir()
    monkeypatch.chdir(here)
    cfg = compose(["data=digits", "model=mlp"])
    assert str(cfg.logger.tracking_uri) == f"sqlite:///{here}/experiments/mlflow.db"
    storage = f"sqlite:///{here}/sweeps.db"
    assert str(compose(["task=sweep_status", f"task.storage='{storage}'"]).task.storage) == storage
    with pytest.raises(UserError, match="expected an address or a path"):
        compose(["data=digits", "model=mlp", "logger.tracking_uri=' '"])


def test_paths_are_meant_from_where_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = compose([*OWN, "hydra.job.chdir=true", "ckpt_path=best.ckpt"])
    assert (cfg.data.path, cfg.ckpt_path) == (str(tmp_path / "t.csv"), str(tmp_path / "best.ckpt"))
    assert compose(OWN).data.path == "t.csv"


def test_a_list_of_params_yaml_reaches_a_stage_of_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("train:\n  hidden_units: [32, 16]\n")
    word = "model.hidden_units=${params:train.hidden_units}"
    cfg = compose(["data=digits", "model=mlp", word])
    assert OmegaConf.to_container(cfg.model, resolve=True)["hidden_units"] == [32, 16]  # type: ignore[call-overload, index]
    with pytest.raises(UserError, match=r"params\.yaml has no train\.units"):
        compose(["data=digits", "model=mlp", "model.hidden_units=${params:train.units}"])
    Path("params.yaml").write_text("train:\n  hidden_units: [-1]\n")
    with pytest.raises(UserError, match=r"model\.hidden_units=\[-1\]: expected"):
        compose(["data=digits", "model=mlp", word])


@pytest.mark.parametrize(("direction", "warned"), [("minimize", True), ("maximize", False)])
def test_looking_for_the_worst_is_warned_of(
    direction: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cfg = compose(["data=digits", "objective.metric=val/accuracy", f"objective.direction={direction}"])
    assert read_objectives(cfg, None, None) == (["val/accuracy"], [direction])
    assert ("more of val/accuracy is better" in caplog.text) is warned


def test_a_network_that_ends_in_a_softmax_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    spec = Spec("multiclass", "vector", (4,), outputs=3, classes=("a", "b", "c"))
    layers = [{"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 3}]
    for end, warned in ((None, False), ({"_target_": "torch.nn.Softmax", "dim": 1}, True)):
        caplog.clear()
        Foreign(spec, {"_target_": "torch.nn.Sequential", "_args_": layers + ([end] if end else [])})
        assert ("leave its softmax out" in caplog.text) is warned


def test_an_address_as_data_is_told_to_be_downloaded() -> None:
    with pytest.raises(UserError, match="is an address; download the file first"):
        read_table(Path("https://example.org/t.csv"), TableFormat())


def test_f1_says_that_it_is_the_mean_over_the_classes() -> None:
    metrics = {"test/f1": 0.5, "test/balanced_accuracy": 0.6, "test/loss": 1.0}
    _, rows = metric_table({"metrics": metrics})
    assert ["f1 (macro)", "0.5000"] in rows
    # What someone else's module logs under that name may be another figure.
    assert ["f1", "0.5000"] in metric_table({"metrics": {"test/f1": 0.5}})[1]


def test_a_recurrent_model_of_texts_says_how_to_get_their_order() -> None:
    bag = Spec("binary", "bag", (5,), outputs=1, classes=("a", "b"))
    with pytest.raises(UserError, match=r"set data\.input=tokens"):
        Recurrent(bag)
    with pytest.raises(UserError, match="use model=mlp"):
        Recurrent(Spec("binary", "vector", (5,), outputs=1, classes=("a", "b")))
