"""What runs are called: by what was typed for them."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from pipeline.runs.naming import LONGEST, differences, run_name, shortened

CFG = OmegaConf.create({"name": "digits_mlp"})


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "digits_mlp"),
        ("+experiment=digits_mlp", "digits_mlp"),
        (
            "+experiment=digits_mlp model.hidden_units=[256,128] optimizer.lr=0.01",
            "hidden_units=256,128 lr=0.01",
        ),
        ("experiment=digits_mlp seed=3", "seed=3"),
        ("+experiment=digits_mlp model=cnn", "model=cnn"),
        # Where no experiment is asked for, data and model are its name already.
        (
            "data=csv model=mlp data.path=/home/me/houses.csv data.target=price",
            "path=houses.csv target=price",
        ),
        ("+experiment=digits_mlp data.seed=2 seed=1", "data.seed=2 seed=1"),
        (
            "+experiment=x scheduler.lr=0.2 trainer.max_epochs=3 optimizer.lr=0.1",
            "optimizer.lr=0.1 scheduler.lr=0.2 max_epochs=3",
        ),
        ("+experiment=digits_mlp optimizer.lr=0.00012345678", "lr=0.0001235"),
        ("+experiment=x +model.extra='a b' ~callbacks.early test=false name=n", "extra=a b"),
    ],
)
def test_a_run_is_called_by_what_was_typed_for_it(words: str, name: str) -> None:
    import shlex

    parts = words.split(" ") if "'" not in words else [*shlex.split(words)]
    assert run_name(CFG, [part for part in parts if part]) == name


@pytest.mark.parametrize(
    "word",
    ["paths.experiments_dir=/x", "logger=csv", "trainer.accelerator=cpu", "trainer.threads=1", "hydra.verbose=true",
     "callbacks.progress=null", "checkpoint.every_seconds=3", "tags=[a]", "task=train", "resume=auto"],
)  # fmt: skip
def test_what_does_not_change_the_fit_is_left_out(word: str) -> None:
    assert run_name(CFG, ["+experiment=digits_mlp", word]) == "digits_mlp"


def test_a_long_name_says_how_much_it_leaves_out() -> None:
    words = [f"model.setting_number_{number}={number}" for number in range(9)]
    name = differences(words)
    *shown, more = name.split(" ")
    assert len(name) <= LONGEST and shown[0] == "setting_number_0=0"
    assert more == f"+{9 - len(shown)}"
    assert len(shortened("x" * 100)) == 24
    assert "'" not in differences(["data.target=it's"])
