"""Search spaces: Hydra's override syntax as Optuna's distributions, and back."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config.quoting import understood
from pipeline.errors import UserError
from pipeline.sweeps.space import SearchSpace, as_override, describe, grid, jobs, own_settings, read_space

# What a params block of hydra-optuna-sweeper means, by its documentation.
SYNTAX = {
    "choice(1,2)": CategoricalDistribution([1, 2]),
    "0.1,relu,true,null": CategoricalDistribution([0.1, "relu", True, None]),
    "a,b": CategoricalDistribution(["a", "b"]),
    "range(1,5)": IntDistribution(1, 5),
    "range(2,10,step=2)": IntDistribution(2, 10, step=2),
    "range(0.0,1.0,step=0.25)": FloatDistribution(0.0, 1.0, step=0.25),
    "interval(0,1.5)": FloatDistribution(0.0, 1.5),
    "interval(1,5)": FloatDistribution(1.0, 5.0),
    "int(interval(1.0,9.0))": IntDistribution(1, 9),
    "tag(log, interval(0.001, 0.1))": FloatDistribution(0.001, 0.1, log=True),
    "tag(log, int(interval(4, 64)))": IntDistribution(4, 64, log=True),
}


@pytest.mark.parametrize("text", SYNTAX)
def test_syntax_of_params_means_what_it_does_in_hydras_plugin(text: str) -> None:
    assert read_space({"k": text}, []).distributions == {"k": SYNTAX[text]}


def test_plain_values_are_shared_by_all_trials_and_the_command_line_wins() -> None:
    params = {"a": "interval(0,1.0)", "b": 3, "c": "choice(1,2)"}
    found = read_space(params, ["a=0.5", "c=choice(7,8)", "+experiment=x"])
    assert found.distributions == {"c": CategoricalDistribution([7, 8])}
    assert found.fixed == ["b=3", "a=0.5", "+experiment=x"]


def test_space_survives_json() -> None:
    found = read_space({"a": "tag(log,interval(1e-4,1e-1))", "b": "[64,32],null,'x y'"}, ["c=1"])
    assert SearchSpace.from_json(found.as_json(), found.fixed) == found


@pytest.mark.parametrize(
    "text", ["tag(log,interval(0.0,1.0))", "interval(1.0,0.0)", "choice()", "interval(1"]
)
def test_impossible_spaces_are_refused_with_the_text(text: str) -> None:
    with pytest.raises(UserError, match="k"):
        read_space({"k": text}, [])


@pytest.mark.parametrize("value", [[64, 32], None, True, 0.5, 1e-05, 3, "relu", "two words"])
def test_a_choice_comes_back_from_its_override_as_it_was(value: object) -> None:
    text = {str: f"'{value}'", type(None): "null"}.get(type(value), str(value))
    choice = read_space({"k": f"{text},99"}, []).distributions["k"].choices[0]
    assert OverridesParser.create().parse_override(as_override("k", choice)).value() == value


def test_own_settings_are_found_by_what_they_mean() -> None:
    config = OmegaConf.create(
        {
            "units": [64, 32],
            "lr": 0.001,
            "layers": 2,
            "flag": False,
            "hydra": {"runtime": {"choices": {"model": "mlp"}}},
        }
    )
    params = {
        "units": "choice([8], [64, 32])",
        "lr": "tag(log, interval(1e-4, 1e-1))",
        "layers": "range(1, 4)",
        "flag": "choice(true, false)",
        "model": "choice(linear, mlp)",
    }
    values, outside = own_settings(read_space(params, []), config)
    assert outside == []
    assert values == {"units": "[64,32]", "lr": 0.001, "layers": 2, "flag": False, "model": "mlp"}


@pytest.mark.parametrize(
    "text", ["interval(0.0, 0.4)", "choice(0, 1)", "range(0, 3)", "range(0.0, 1.0, step=0.4)"]
)
def test_own_settings_outside_the_space_are_named(text: str) -> None:
    _, outside = own_settings(read_space({"x": text}, []), OmegaConf.create({"x": 0.5}))
    assert len(outside) == 1
    assert "x=0.5 is not in" in outside[0]


def test_false_is_not_zero() -> None:
    values, outside = own_settings(read_space({"x": "choice(0, 1)"}, []), OmegaConf.create({"x": False}))
    assert not values
    assert outside


@pytest.mark.parametrize(
    "text", ["interval(0.0, 0.5)", "tag(log, interval(0.001, 0.1))", "int(interval(1, 5))", "choice(1, relu)"]
)
def test_description_reads_as_what_was_typed(text: str) -> None:
    found = read_space({"k": text}, []).distributions["k"]
    assert describe(found) == text
    assert read_space({"k": describe(found)}, []).distributions["k"] == found


def test_grid_is_every_combination_and_leaves_the_end_of_a_range_out() -> None:
    found = read_space({"a": "choice(x,y)", "b": "range(1,4)", "c": "range(0.0,0.5,step=0.25)"}, [])
    assert grid(found) == [{"a": a, "b": b, "c": c} for a in "xy" for b in (1, 2, 3) for c in (0.0, 0.25)]
    with pytest.raises(UserError, match="discrete"):
        grid(read_space({"a": "interval(0.0,1.0)"}, []))


@pytest.mark.parametrize(
    ("choices", "meant"),
    [
        ("choice(null,1.0)", [None, 1.0]),
        ("choice([64,32],[16])", [[64, 32], [16]]),
        ("choice(null,{a: {b: 2.0}})", [None, {"a": {"b": 2.0}}]),
        ("choice(',',';')", [",", ";"]),
        ("choice('a b',c)", ["a b", "c"]),
    ],
)
def test_choices_of_any_kind_are_tried_by_both_sweepers(choices: str, meant: list[object]) -> None:
    (word,) = understood([f"data.costs={choices}"])
    space = read_space({"k": choices}, [])
    tried = [as_override("k", choice) for choice in space.distributions["k"].choices]  # type: ignore[attr-defined]
    for words in (tried, [f"k={job['data.costs']}" for job in jobs([word])]):
        assert [OverridesParser.create().parse_override(one).value() for one in words] == meant


def test_jobs_of_a_multirun_are_hydras() -> None:
    assert jobs(["seed=1,2", "name=x", "d=range(0,3)"]) == [
        {"seed": str(seed), "d": str(d)} for seed in (1, 2) for d in (0, 1, 2)
    ]
    assert jobs(["name=x"]) == [{}]
    with pytest.raises(UserError, match="hydra/sweeper=optuna"):
        jobs(["lr=interval(0.0,1.0)"])
