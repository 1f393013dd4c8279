"""What a class takes is asked of the class; what the shipped files list is known without it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.config import build, compose, config_directory, resolve
from pipeline.config.checks import check_classes, without_left_overs
from pipeline.config.options import shipped_settings
from pipeline.config.signatures import check_arguments, check_complete, rules_of
from pipeline.errors import UserError
from pipeline.models.base import SHARED
from pipeline.settings import Flag, Number, Text, Word

if TYPE_CHECKING:
    from nowhere import Anything


class Bird:
    def __init__(self, name: str = "x", *, weight: Annotated[float, Number(0, above=True)] = 1.0) -> None:
        self.name, self.weight = name, weight


class Hen(Bird):
    def __init__(
        self,
        eggs: Annotated[int, Number(0, 12, whole=True), "Eggs in the nest."],
        colour: Annotated[str, Word(("white", "brown"))] | None = None,
        where: Anything = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.eggs, self.colour = eggs, colour


class Loose(Bird):
    def __init__(self, **rest: Any) -> None:
        super().__init__()
        self.rest = rest


@dataclass
class Egg:
    size: Annotated[int, Number(1, whole=True)]
    boiled: Annotated[bool, Flag()] = False


def crow(
    times: Annotated[int, Number(1, whole=True)] = 1, word: Annotated[str, Text("a word")] = "kikeriki"
) -> str:
    return word * times


@pytest.mark.parametrize(
    ("target", "settings", "said"),
    [
        (
            Bird,
            {"wieght": 1.0},
            r"model\.wieght: there is no such setting in .*Bird. Did you mean model\.weight\?",
        ),
        (
            Egg,
            {"size": 1, "sise": 2},
            r"model\.sise: there is no such setting in .*Egg. Did you mean model\.size\?",
        ),
        (crow, {"time": 2}, r"model\.time: .* Did you mean model\.times\?"),
        (Hen, {"eggs": 13}, r"model\.eggs=13: expected a whole number from 0 to 12"),
        (
            Hen,
            {"eggs": 1, "colour": "brwon"},
            r"model\.colour=brwon: expected one of white, brown. Did you mean brown",
        ),
        # A rule of the base class, to which the argument is handed on.
        (Hen, {"eggs": 1, "weight": 0}, r"model\.weight=0: expected a number above 0"),
        (Egg, {"size": 1, "boiled": "yes"}, r"model\.boiled=yes: expected true or false"),
        (crow, {"times": 1.5}, r"model\.times=1\.5: expected a whole number of at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_call(
    target: Callable[..., Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_arguments(target, settings, "model")


def test_what_fits_is_let_through() -> None:
    check_arguments(
        Hen, {"eggs": 12, "colour": "white", "weight": 0.5, "name": "Berta", "anything": 1}, "model"
    )
    check_arguments(Loose, {"anything": 1}, "model")
    # What is built first is no value yet.
    check_arguments(Egg, {"size": {"_target_": "x.Y"}}, "model")
    assert set(rules_of(Hen)) == {"eggs", "colour", "weight"}


def test_an_argument_that_a_base_class_refuses_is_named_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_ALLOW", __name__)
    with pytest.raises(
        UserError, match=r"model\.wieght: there is no such setting in .*Hen. Did you mean model\.weigh"
    ):
        build({"_target_": f"{__name__}.Hen", "eggs": 1, "wieght": 2}, key="model")
    # A class that keeps what it is given is asked itself.
    assert build({"_target_": f"{__name__}.Loose", "wieght": 2}, key="model").rest == {"wieght": 2}


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(
        UserError, match=r"model\.eggs is not given, which .*Hen needs: add \+model\.eggs=VALUE"
    ):
        check_complete(Hen, {"weight"}, "model", (), ())
    check_complete(Hen, {"eggs"}, "model", (), ())
    check_complete(Hen, (), "model", (3,), ())
    check_complete(Hen, (), "model", (), ("eggs",))


def shipped_classes() -> list[tuple[str, str]]:
    """Config group and name of every class that a shipped file of the group names."""
    found = []
    for group in ("data", "model", "optimizer", "scheduler"):
        for path in (config_directory() / group).glob("*.yaml"):
            target = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("_target_")
            found += [(group, target)] if target else []
    return sorted(set(found))


@pytest.mark.parametrize(
    ("group", "name"), [pair for pair in shipped_classes() if pair[1].startswith("pipeline.")]
)
def test_the_shipped_files_list_every_setting_of_our_classes(group: str, name: str) -> None:
    """So that a misspelt one is refused before torch is imported."""
    listed = shipped_settings(group, name)
    taken, cls = set(), resolve(name)
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            taken |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    # What a class gives to its own base: the name of the target of texts, the points of a line, torchvision's network;
    # and what a model finds in the data itself.
    # A schedule gets the optimiser, and is moved every so often by the training.
    handed_on = {"target_name", "inputs", "targets", "test_targets", "net", "learnt", "optimizer"}
    assert listed is not None
    assert taken - {"self", "spec"} - handed_on <= listed
    assert listed - {"_target_", "compile", "interval"} <= taken


@pytest.mark.parametrize(
    ("group", "name"), [pair for pair in shipped_classes() if pair[1].startswith("torch.")]
)
def test_what_the_shipped_files_set_is_taken_by_pytorch(group: str, name: str) -> None:
    assert shipped_settings(group, name) is None
    choice = next(
        path.stem
        for path in (config_directory() / group).glob("*.yaml")
        if f"_target_: {name}\n" in path.read_text()
    )
    check_classes(compose([f"{group}={choice}", "data=digits"]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "+optimizer.beta=[0.9,0.99]",
            r"optimizer\.beta: .* torch\.optim\.adam\.Adam. Did you mean optimizer\.betas\?",
        ),
        (
            "+trainer.acumulate_grad=2",
            r"trainer\.acumulate_grad: .*Trainer. Did you mean trainer\.accumulate_grad_b",
        ),
        (
            "+trainer.strategy={_target_:pytorch_lightning.strategies.SingleDeviceStrategy,devize:cpu}",
            r"trainer\.strategy\.devize: .* Did you mean trainer\.strategy\.device\?",
        ),
        (
            "+callbacks.t={_target_:pytorch_lightning.callbacks.Timer,durration:3}",
            r"Did you mean callbacks\.t\.duration",
        ),
        ("optimizer._target_=torch.optim.Adm", r"there is no Adm in torch\.optim. Did you mean .*Adam"),
        ("optimizer._target_=torch.optim.Optional", r"optimizer\._target_=torch\.optim\.Optional: "),
    ],
)
def test_what_only_the_class_can_tell_is_told_before_anything_is_built(override: str, said: str) -> None:
    cfg = compose([override])
    with pytest.raises(UserError, match=said):
        check_classes(cfg)


@pytest.mark.parametrize(
    "override",
    [
        "+optimizer.betas=[0.9,0.99]",
        "+trainer.val_check_interval=0.5",
        "+trainer.fast_dev_run=true",
        "scheduler=plateau",
        "model.compile=true",
        "+callbacks.t={_target_:lightning.pytorch.callbacks.Timer,duration:'00:00:01:00'}",
    ],
)
def test_what_the_class_takes_is_let_through(override: str) -> None:
    check_classes(compose([override]))


def test_another_class_in_a_section_leaves_the_settings_of_the_first_behind() -> None:
    cfg = compose(["model._target_=torchvision.models.resnet18", "+model.num_classes=10", "data=digits"])
    check_classes(cfg)
    assert OmegaConf.to_container(cfg.model) == {
        "_target_": "torchvision.models.resnet18",
        "num_classes": 10,
    }
    # Of one that a file names, what the training takes stays, whatever is trained.
    cfg = compose(["data=digits"])
    training = {key: cfg.model[key] for key in SHARED}
    node = {**OmegaConf.to_container(cfg.model), "_target_": "torchvision.models.resnet18"}
    assert without_left_overs("model", node) == {
        **training,
        "_target_": "torchvision.models.resnet18",
        "compile": False,
    }
    # What was typed for it is not left behind.
    cfg = compose(["model._target_=torch.nn.Linear", "model.dropout=0.5", "data=digits"])
    with pytest.raises(
        UserError, match=r"model\.dropout: there is no such setting in torch\.nn\.modules\.linear\.Linear"
    ):
        check_classes(cfg)


def test_the_table_of_rules_is_not_about_classes_of_someone_else() -> None:
    cfg = compose(["model._target_=torchvision.models.ResNet", "+model.layers=[2,2,2,2]", "data=digits"])
    assert list(cfg.model.layers) == [2, 2, 2, 2]
    with pytest.raises(UserError, match=r"model\.layers=\[2,2\]: expected a whole number"):
        compose(["model=mlp", "model.layers=[2,2]"])


def test_what_is_typed_beside_a_class_is_an_argument_of_it_and_the_rest_is_left_to_it() -> None:
    words = ["data=digits", "model._target_=torchvision.models.vgg16"]
    # A name that it shares with model=mlp: its own default is 0.5, not 0.
    assert "dropout" not in compose(words).model
    assert compose([*words, "model.dropout=0.0", "model.num_classes=7"]).model == {
        "_target_": "torchvision.models.vgg16",
        "dropout": 0.0,
        "num_classes": 7,
    }
    with pytest.raises(UserError, match=r"model\.num_clases: there is no such setting in .*num_classes"):
        check_classes(
            compose(["data=digits", "model._target_=torchvision.models.ResNet", "model.num_clases=7"])
        )


def test_wherever_a_class_is_named_its_own_defaults_hold(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /data: digits\n  - override /model: mlp\n"
        "model: {_target_: torchvision.models.vgg16, batch_norm: false}\n",
        encoding="utf-8",
    )
    model = compose(["+experiment=own"], config_dir=tmp_path).model
    # What the file sets is meant, also where it is as shipped for model=mlp.
    assert model == {"_target_": "torchvision.models.vgg16", "batch_norm": False}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("_target_: torch.nn.Linear\ndropout: 0.0\n", encoding="utf-8")
    words = ["model=mine", "model._target_=torchvision.models.vgg16", "data=digits"]
    assert compose(words, config_dir=tmp_path).model.dropout == 0.0
