"""JSON schemas of the configuration: every shipped file keeps its own, and wrong values are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from omegaconf import OmegaConf

from pipeline.__main__ import main
from pipeline.config import config_directory
from pipeline.config.schema import FOLDER, schema_name, schemas
from pipeline.projects import new

SHIPPED = schemas([config_directory()])
FILES = sorted(config_directory().glob("*/**/*.yaml"))


def errors(name: str, values: Any, found: dict[str, Any] = SHIPPED) -> list[str]:
    return [error.message for error in Draft7Validator(found[name]).iter_errors(values)]


def test_every_schema_is_one() -> None:
    for schema in SHIPPED.values():
        Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(config_directory()).as_posix())
def test_every_shipped_file_keeps_its_schema(path: Path) -> None:
    # As OmegaConf reads YAML: 1e-3 is a number.
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    name = schema_name(path, path.parent.relative_to(config_directory()).as_posix())
    if name in SHIPPED:
        assert errors(name, values) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model", {"_target_": "pipeline.models.mlp.MLP", "dropout": 1.5}),
        ("model", {"_target_": "pipeline.models.mlp.MLP", "hidden_units": [0]}),
        ("model", {"defaults": ["mlp"], "hiden_units": [3]}),
        ("optimizer", {"defaults": ["adam"], "lr": -1}),
        ("optimizer", {"defaults": ["adam"], "lr": "fast"}),
        ("data", {"defaults": ["digits"], "batch_size": 0}),
        ("trainer", {"defaults": ["default"], "max_epochs": "many"}),
        ("global", {"seed": -1}),
        ("global", {"optimiser": {"lr": 0.1}}),
        ("global", {"model": {"dropout": 2}}),
        ("global", {"objective": {"direction": "up"}}),
    ],
)
def test_a_wrong_value_is_refused_as_a_run_refuses_it(name: str, values: dict[str, Any]) -> None:
    assert errors(name, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model", {"_target_": "mine.Net", "whatever": 3}),
        ("model", {"defaults": ["mlp"], "dropout": "${oc.env:DROPOUT}"}),
        ("global", {"model": {"dropout": 0.5}, "defaults": [{"override /data": "digits"}], "seed": 3}),
        ("global", {"seeds": [1, 2], "data": {"batch_size": "???"}}),
    ],
)
def test_what_a_run_takes_is_taken(name: str, values: dict[str, Any]) -> None:
    assert errors(name, values) == []


def test_a_key_has_its_help_its_range_and_its_default() -> None:
    momentum = SHIPPED["optimizer"]["properties"]["momentum"]
    assert "Averages the gradient" in momentum["description"]
    assert momentum["markdownDescription"].startswith("Expected a number")
    assert SHIPPED["global"]["properties"]["seed"]["default"] == 0


def test_a_directory_of_ones_own_gets_schemas_that_know_its_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/own.yaml").write_text(
        "# How wide.\nwideness: 3\n_target_: mine.Net\n", encoding="utf-8"
    )
    assert main(["--schema", "--config-dir", str(tmp_path)]) == 0
    assert "yaml-language-server" in capsys.readouterr().out
    own = json.loads((tmp_path / FOLDER / "model.json").read_text(encoding="utf-8"))
    assert own["properties"]["wideness"] == {"description": "How wide.", "default": 3}
    assert errors("model", {"defaults": ["own"], "wideness": 4}, {"model": own}) == []


def test_a_new_projects_files_name_the_schema_that_they_keep(tmp_path: Path) -> None:
    place = new(str(tmp_path / "first-steps"))
    written = sorted((place / "conf").glob("*/*.yaml"))
    assert len(written) == 3
    for path in written:
        # Hydra wants its own line first.
        (line,) = (line for line in path.read_text(encoding="utf-8").splitlines()[:2] if "$schema=" in line)
        schema = path.parent / line.removeprefix("# yaml-language-server: $schema=")
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        assert errors("it", values, {"it": json.loads(schema.read_text(encoding="utf-8"))}) == []
