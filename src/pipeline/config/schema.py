"""JSON schemas of the configuration, so that an editor completes keys and marks wrong values.

``--schema`` writes one for each group, and ``global.json`` for files that set whole sections (``@package _global_``:
experiments, sweeps). What values a key may have comes from :func:`_values` alone, its meaning from the comment above.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import rules
from pipeline.config.keys import rules_for
from pipeline.config.shipped import config_directory
from pipeline.files import write_text

FOLDER = ".schema"
"""Where the schemas lie, beside the groups."""
GLOBAL = "global"
_DRAFT = "http://json-schema.org/draft-07/schema#"
_LATER = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
"""A value that is known later: an interpolation, or one that has to be given."""

Schema = dict[str, Any]


def command(config_dir: str | None) -> int:
    """The command line's ``--schema``; gives the exit code."""
    directory = Path(config_dir).expanduser() if config_dir else Path.cwd()
    place = write(directory)
    print(
        f"{place}: a schema for each group. A file names one in its first lines, behind Hydra's own:\n"
        f"# yaml-language-server: $schema=../{FOLDER}/model.json"
    )
    return 0


def write(directory: Path) -> Path:
    """Write the schemas of the shipped configuration and of a directory of configurations into its ``.schema/``.

    Args:
        directory: Directory of a user's configurations.

    Returns:
        The directory that they were written to.
    """
    place = directory / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas([config_directory(), directory]).items():
        write_text(place / f"{name}.json", json.dumps(schema, indent=1, sort_keys=True) + "\n")
    return place


def schemas(directories: Iterable[Path]) -> dict[str, Schema]:
    """The schema of each group by its name (``model``, ``hydra.sweeper``), and that of whole configurations.

    Args:
        directories: Directories of configurations, the shipped one first.
    """
    files: dict[str, list[Path]] = {}
    for directory in directories:
        for path in sorted(directory.glob("*/**/*.yaml")):
            if not path.is_relative_to(directory / FOLDER):
                files.setdefault(path.parent.relative_to(directory).as_posix(), []).append(path)
    sections = {
        group: _of_group(group, [path for path in paths if schema_name(path, group) != GLOBAL])
        for group, paths in files.items()
    }
    found = {
        group.replace("/", "."): {"$schema": _DRAFT, **section}
        for group, section in sections.items()
        if section
    }
    return found | {GLOBAL: {"$schema": _DRAFT, **_whole(sections)}}


def schema_name(path: Path, group: str) -> str:
    """Which schema a file of a group keeps: its group's, or that of whole configurations."""
    head = path.read_text(encoding="utf-8").splitlines()[:5]
    whole = any(line.startswith("#") and "@package _global_" in line for line in head)
    return GLOBAL if whole else group.replace("/", ".")


def _whole(sections: dict[str, Schema]) -> Schema:
    main = config_directory() / "config.yaml"
    properties = {**_properties("", [main]), "defaults": _DEFAULTS}
    properties |= {"hydra": {"type": "object"}, "ladder": {"type": "object"}}
    for group, section in sections.items():
        if "/" in group or not section or group == "hydra":
            continue
        # A section of an experiment changes some settings of what the group's file says: nothing has to be named.
        properties[group] = {
            "anyOf": [{"type": "object", "properties": section["properties"]}, {"type": "null"}, _LATER]
        }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _of_group(group: str, paths: list[Path]) -> Schema:
    properties = _properties(group, paths)
    if not properties:
        return {}
    properties["defaults"] = _DEFAULTS
    names = {"enum": sorted(properties)}
    # A class of one's own has arguments of its own; without one, a key that no file has is a slip.
    strict = {"if": {"not": {"required": ["_target_"]}}, "then": {"propertyNames": names}}
    free = group in ("callbacks", "logger") or group.startswith("hydra")
    return {"type": ["object", "null"], "properties": properties, **({} if free else strict)}


_DEFAULTS: Schema = {
    "type": "array",
    "description": "Files that this one begins with, and groups that it overrides.",
}


def _properties(section: str, paths: list[Path]) -> dict[str, Schema]:
    """What the keys of some files are: help, values, and the default where all files agree on it."""
    found: dict[str, Schema] = {}
    defaults: dict[str, list[Any]] = {}
    loaded = [yaml.safe_load(path.read_text(encoding="utf-8")) or {} for path in paths]
    targets = dict.fromkeys(str(values["_target_"]) for values in loaded if "_target_" in values)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) or {}
        comments = _comments(text)
        for key, value in values.items():
            if key == "defaults":
                continue
            dotted = f"{section}.{key}" if section else str(key)
            schema = found.setdefault(str(key), _values(dotted, targets))
            if comments.get(str(key)):
                schema.setdefault("description", comments[str(key)])
            if isinstance(value, dict) and "_target_" not in value and "anyOf" not in schema:
                inner = {name: _values(f"{dotted}.{name}", targets) for name in map(str, value)}
                schema.setdefault("properties", {}).update(inner)
            defaults.setdefault(str(key), []).append(value)
    for key, values in defaults.items():
        simple = not isinstance(values[0], dict) and all(value == values[0] for value in values)
        if simple and not (isinstance(values[0], str) and "${" in values[0]):
            found[key]["default"] = values[0]
    return found


def _comments(text: str) -> dict[str, str]:
    """The comment above each key at the margin, or of the key before where several share one."""
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            if "@package" not in line and "yaml-language-server" not in line:
                lines.append(line.lstrip("# ").rstrip())
        elif line[:1].strip():
            found[line.partition(":")[0].strip()] = " ".join(lines)
            lines = []
    return found


def _values(key: str, targets: Collection[str]) -> Schema:
    """What a key may be, for any of the classes of its group. The one place that asks where ranges are written down."""
    section = key.partition(".")[0]
    asked = [rules_for({section: {"_target_": target}})(key) for target in targets] or [rules_for({})(key)]
    known = list(dict.fromkeys(rule for rule in asked if rule is not None))
    if not known:
        return {}
    kinds = [kind for rule in known for kind in _alternatives(rule)]
    expected = ", or ".join(dict.fromkeys(rule.expected() for rule in known))
    return {"anyOf": [*kinds, _LATER], "markdownDescription": f"Expected {expected}."}


def _alternatives(rule: rules.Rule) -> list[Schema]:
    """The kinds of values that a rule takes; a rule of another kind takes anything here, and is kept by the run."""
    null: list[Schema] = [{"type": "null"}] if rule.holds(None) else []
    if isinstance(rule, rules.Number):
        number: Schema = {"type": "integer" if rule.whole else "number"}
        if rule.low != -math.inf:
            number["exclusiveMinimum" if rule.above else "minimum"] = rule.low
        if rule.high != math.inf:
            number["exclusiveMaximum" if rule.below else "maximum"] = rule.high
        lists = [{"type": "array", "items": number, "minItems": 1}] if rule.many else []
        flags = [{"type": "boolean"}] if rule.flag else []
        words = [{"enum": list(rule.words)}] if rule.words else []
        return [number, *lists, *flags, *words, *null]
    node: list[Schema] = [{"type": "object", "required": ["_target_"]}]
    node = node if rule.holds({"_target_": "x"}) else []
    if isinstance(rule, rules.Word):
        return [{"enum": list(rule.words)}, *node, *null]
    if isinstance(rule, rules.Flag):
        return [{"type": "boolean"}, *node, *null]
    if isinstance(rule, rules.Text):
        # Patterns are Python's: an editor's JavaScript knows no flags in them.
        pattern = {} if "(?" in rule.pattern else {"pattern": f"^(?:{rule.pattern})$"}
        return [{"type": "string", **pattern}, *null]
    if isinstance(rule, rules.Texts):
        texts: Schema = {"type": "array", "items": {"type": ["string", "number"]}, "minItems": rule.least}
        if rule.most is not None:
            texts["maxItems"] = rule.most
        return [texts, *([{"type": ["string", "number"]}] if rule.alone else []), *null]
    return [{}]
