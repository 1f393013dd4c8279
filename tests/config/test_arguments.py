"""Range, default and help of a setting stand once, in its class, and what is written from there is current."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

from pipeline.config import resolve
from pipeline.config.arguments import FILE, arguments_of
from pipeline.config.keys import rules_for
from pipeline.config.rules import (
    Batches,
    Flag,
    FlagOrNode,
    FlagOrNull,
    Number,
    Rule,
    Text,
    Texts,
    Word,
    from_plain,
    to_plain,
)
from pipeline.config.signatures import rules_of
from pipeline.config.write_arguments import shipped_classes, text


def test_the_written_file_says_what_the_classes_say() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m pipeline.config.write_arguments"


@pytest.mark.parametrize("name", shipped_classes())
def test_what_is_known_early_is_what_the_class_itself_decides(name: str) -> None:
    cls, known = resolve(name), arguments_of(name)
    assert {key: argument.rule for key, argument in known.items() if argument.rule} == rules_of(cls)
    own = inspect.signature(cls).parameters
    assert {key for key, parameter in own.items() if parameter.kind is not parameter.VAR_KEYWORD} <= {
        *known,
        *("spec", "optimizer"),
    }
    for key, parameter in own.items():
        if key in known and not known[key].required:
            default = parameter.default
            expected = [*default] if isinstance(default, tuple) else default
            assert _listed(known[key].default) == _listed(expected), key


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def test_an_argument_says_its_range_default_and_help() -> None:
    dropout = arguments_of("pipeline.models.mlp.MLP")["dropout"]
    assert dropout.rule == Number(0, 1, below=True)
    assert (dropout.required, dropout.default) == (False, 0.0)
    assert "share" in dropout.help.lower()
    # Those of the bases, to which the class hands them on.
    assert arguments_of("pipeline.models.mlp.MLP")["l2"].rule == Number(0)
    # A class under the name of an earlier version.
    assert arguments_of("pipeline.data.imdb.Imdb") == arguments_of("pipeline.data.text.imdb.Imdb")
    assert arguments_of("somebody.elses.Class") == {}


def test_each_class_has_a_range_of_its_own_for_a_name_that_several_use() -> None:
    for target, expected in (("pipeline.models.tabm.TabM", False), ("pipeline.models.mlp.MLP", True)):
        rule = rules_for({"model": {"_target_": target}})("model.layers")
        assert rule is not None
        assert rule.holds(None) is expected
    assert rules_for({"model": {"_target_": "my.Net"}})("model.layers") is None


@pytest.mark.parametrize(
    "rule",
    [
        Number(0, 1, above=True, null=True, words=("auto",)),
        Number(),
        Batches(none=False),
        Word((True, "warn", 3), null=True),
        Flag(),
        FlagOrNull(),
        FlagOrNode(),
        Text("a path", r"[^\0]+"),
        Texts("two", least=2, most=2, alone=True),
    ],
)
def test_a_rule_is_the_same_after_writing_and_reading(rule: Rule) -> None:
    assert from_plain(to_plain(rule)) == rule


def test_ranges_on_constructors_are_known_without_torch() -> None:
    code = (
        "import sys\n"
        "from pipeline.config.arguments import arguments_of\n"
        "print(arguments_of('pipeline.models.trees.Boosting')['num_leaves'].rule.expected())\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a whole number of at least 2\n"


def test_the_help_of_a_setting_ends_where_that_of_the_others_begins() -> None:
    written = json.loads(FILE.read_text(encoding="utf-8"))
    helps = [entry.get("help", "") for cls in written.values() for entry in cls["arguments"].values()]
    assert len(helps) > 200 and not [text for text in helps if "**" in text]
