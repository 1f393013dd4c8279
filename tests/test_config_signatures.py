"""Reading constructors from source gives what importing them would give."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from pipeline.config.allowlist import resolve
from pipeline.config.signatures import arguments, classes, definition

CLASSES = [
    "torch.optim.SGD",
    "torch.optim.Adam",
    "torch.optim.AdamW",
    "torch.optim.RMSprop",
    "torch.optim.Adagrad",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "torch.optim.lr_scheduler.StepLR",
    "torch.nn.Linear",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "optuna.samplers.TPESampler",
    "optuna.pruners.HyperbandPruner",
]


@pytest.mark.parametrize("name", CLASSES)
def test_the_source_says_what_the_class_says(name: str) -> None:
    read, target = arguments(name), resolve(name)
    assert read is not None
    signature = inspect.signature(target.__init__).parameters
    named = [p for p in list(signature.values())[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    assert sorted(read.names) == sorted(parameter.name for parameter in named)
    assert read.required == {parameter.name for parameter in named if parameter.default is parameter.empty}
    found = definition(name)
    assert found is not None
    assert (found.module, found.name, found.kind) == (target.__module__, target.__qualname__, "class")


def test_the_trainers_flags_are_those_of_lightning() -> None:
    import pytorch_lightning

    read = arguments("pytorch_lightning.Trainer")
    assert read is not None
    assert (
        list(read.names)
        == list(inspect.signature(inspect.unwrap(pytorch_lightning.Trainer.__init__)).parameters)[1:]
    )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package of a name of its own (what was read is remembered), with bases, aliases and re-exports."""
    name = f"birds_{abs(hash(request.node.nodeid))}"
    home = tmp_path / name
    home.mkdir()
    (home / "__init__.py").write_text(
        "from .water import *\nfrom .land import Hen as Chicken\n", encoding="utf-8"
    )
    (home / "land.py").write_text(
        "import os\n"
        "from dataclasses import dataclass\n"
        "class Bird:\n    def __init__(self, name, *, weight=1.0): ...\n"
        "class Hen(Bird):\n    def __init__(self, eggs, **rest):\n        super().__init__(**rest)\n"
        "class Pullet(Hen):\n    pass\n"
        "class Loose(Bird):\n    def __init__(self, **rest):\n        self.rest = rest\n"
        "class Orphan(os.Missing):\n    def __init__(self, a, **rest):\n        super().__init__(**rest)\n"
        "@dataclass\nclass Egg:\n    size: int\n    colour: str = 'white'\n"
        "Biddy = Hen\n"
        "def crow(): ...\n"
        "try:\n    from .water import Duck\nexcept ImportError:\n    Duck = None\n",
        encoding="utf-8",
    )
    (home / "water.py").write_text("class Duck:\n    def __init__(self, feet=2): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_arguments_are_those_of_the_bases_too(package: str) -> None:
    hen, pullet = arguments(f"{package}.land.Hen"), arguments(f"{package}.land.Pullet")
    assert hen is not None
    assert (hen.names, hen.required, hen.open) == (("eggs", "name", "weight"), {"eggs", "name"}, False)
    assert pullet == hen
    egg = arguments(f"{package}.land.Egg")
    assert egg is not None
    assert (egg.names, egg.required) == (("size", "colour"), {"size"})


@pytest.mark.parametrize("name", ["Loose", "Orphan"])
def test_what_cannot_be_read_is_taken_to_accept_anything(name: str, package: str) -> None:
    read = arguments(f"{package}.land.{name}")
    assert read is not None
    assert read.open


@pytest.mark.parametrize(
    ("name", "leads_to"),
    [
        ("Chicken", "land.Hen"),
        ("Duck", "water.Duck"),
        ("land.Duck", "water.Duck"),
        ("land.Biddy", "land.Hen"),
        ("land.crow", "land.crow"),
    ],
)
def test_names_are_followed_to_where_they_are_defined(name: str, leads_to: str, package: str) -> None:
    found = definition(f"{package}.{name}")
    assert found is not None
    assert f"{found.module}.{found.name}" == f"{package}.{leads_to}"


def test_what_an_import_brought_in_stays_what_it_is(package: str) -> None:
    found = definition(f"{package}.land.os.system")
    assert found is not None
    assert (found.module, found.name, found.kind) == ("os", "system", "object")
    assert definition(f"{package}.land.Nothing") is None
    assert definition("no_such_package.Nothing") is None


def test_classes_of_a_module_are_listed_for_suggestions(package: str) -> None:
    assert set(classes(f"{package}.land")) >= {"Bird", "Hen", "Egg", "Duck"}
