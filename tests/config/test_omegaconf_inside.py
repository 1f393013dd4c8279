"""What of OmegaConf's private side the checks rely on."""

from __future__ import annotations

import sys
from pathlib import Path

import omegaconf
import pytest
from omegaconf import Container, ListConfig, OmegaConf

from pipeline.config import omegaconf_inside as inside
from pipeline.config.loading import compose, prepare
from pipeline.errors import UserError


def broken(what: str) -> str:
    return (
        f"OmegaConf {omegaconf.__version__}: {what}. pipeline/config/omegaconf_inside.py says what it is for."
    )


def test_nodes_are_seen_as_they_are_written() -> None:
    asked: list[str] = []
    inside.register_resolver("asked", lambda: asked.append("once") or "answer")
    try:
        cfg = OmegaConf.create(
            {"plain": 1, "reference": "${asked:}", "missing": "???", "null": None, "list": ["${plain}", 2]}
        )
        nodes = dict(inside.children(cfg))
        assert {key: inside.written(node) for key, node in nodes.items() if key != "list"} == {
            "plain": 1,
            "reference": "${asked:}",
            "missing": "???",
            "null": None,
        }, broken("Node._value is not what is written")
        for judge, name in (
            (inside.is_reference, "reference"),
            (inside.is_missing, "missing"),
            (inside.is_null, "null"),
        ):
            assert [key for key, node in nodes.items() if judge(node)] == [name], broken(
                f"{judge.__name__} differs"
            )
        listed = nodes["list"]
        assert isinstance(listed, ListConfig)
        assert [(key, inside.written(node)) for key, node in inside.children(listed)] == [
            (0, "${plain}"),
            (1, 2),
        ]
        assert not asked, broken("looking at a node resolves it")
        assert cfg.reference == "answer"
    finally:
        OmegaConf.clear_resolver("asked")


@pytest.mark.parametrize("content", [None, "???"])
def test_a_container_that_is_not_there_has_no_children(content: str | None) -> None:
    cfg = OmegaConf.create({"section": OmegaConf.create({"key": 1})})
    cfg.section = content
    assert list(inside.children(omegaconf.DictConfig(content))) == []


def test_every_kind_of_container_is_known() -> None:
    """The checks walk through mappings by key and through all others by position."""
    kinds: set[type] = set()
    waiting: list[type] = [Container]
    while waiting:
        kind = waiting.pop()
        kinds.add(kind)
        waiting += kind.__subclasses__()
    known = {"Container", "BaseContainer", "DictConfig", "ListConfig", "TupleConfig"}
    new = {kind.__name__ for kind in kinds if kind.__module__.startswith("omegaconf.")} - known
    assert not new, broken(f"new containers that no check has met: {new}")


def test_every_resolver_is_known() -> None:
    """Decided for each: what does more than look at another place is replaced or switched off."""
    prepare()
    ours = {"oc.env", "params", "run_dir", "spec", "unique"}
    switched_off = {"oc.coerce", "oc.create", "oc.decode"}
    harmless = {
        *("oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.select"),
        *("hydra", "now", "python_version", "hydra_override_dirname", "hydra_deprecated_override_dirname"),
    }
    new = set(inside.resolver_names()) - ours - switched_off - harmless
    assert not new, broken(f"new resolvers: {new}; is each of them harmless?")
    assert ours | (harmless - {"hydra_override_dirname", "hydra_deprecated_override_dirname"}) <= set(
        inside.resolver_names()
    ), broken("BaseContainer._resolvers does not hold them all")


def test_no_reference_imports_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_by_resolver.py").write_text("class Kind: ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in inside.resolver_names():
        with pytest.raises(UserError):
            compose([f"name='${{{name}:planted_by_resolver.Kind,1}}'"])
    assert "planted_by_resolver" not in sys.modules


def test_a_resolver_is_replaced_and_remembers_where_it_should() -> None:
    counted: list[int] = []

    def count() -> int:
        counted.append(1)
        return len(counted)

    try:
        for cached, expected in ((True, [1, 1]), (False, [2, 3])):
            inside.register_resolver("count", count, use_cache=cached)
            cfg = OmegaConf.create({"a": "${count:}", "b": "${count:}"})
            assert [cfg.a, cfg.b] == expected
    finally:
        OmegaConf.clear_resolver("count")
