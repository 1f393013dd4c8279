"""What a class is and which arguments it takes, read from its source: nothing is imported.

Importing torch to learn that a key is misspelt would cost seconds. What is read here decides messages and
cheap early refusals; what may be called is decided on the object itself, in :mod:`pipeline.config.allowlist`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

# The (module, name) pairs that a search has been at: imports may run in circles.
Seen = set[tuple[str, str]]


@dataclass(frozen=True)
class Definition:
    """Where a name leads.

    Args:
        module: the module that defines it.
        name: its name there; empty for the module itself.
        kind: ``class``, ``function``, ``module``, or ``object`` where its source cannot be read.
    """

    module: str
    name: str
    kind: str


@dataclass(frozen=True)
class Arguments:
    """What a constructor takes.

    Args:
        names: of its arguments, in order, without ``self``.
        required: those without a default.
        open: whether it takes any others as well (``**kwargs`` that lead out of what could be read).
    """

    names: tuple[str, ...]
    required: frozenset[str]
    open: bool


@lru_cache(maxsize=256)
def definition(name: str) -> Definition | None:
    """Follow a dotted name through imports and re-exports to where it is defined; None where that cannot be
    read.
    """
    return _follow(name, set())


@lru_cache(maxsize=256)
def arguments(name: str) -> Arguments | None:
    """The arguments of a class's constructor, and those of its bases where ``**kwargs`` hands them on."""
    found = definition(name)
    if found is None or found.kind != "class":
        return None
    return _constructor(found)


def classes(module: str) -> list[str]:
    """The names of classes that a module offers, as far as they show in its source."""
    names: list[str] = []
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.ImportFrom):
            names += [alias.asname or alias.name for alias in statement.names]
    return [name for name in names if name[:1].isupper()]


def _follow(name: str, seen: Seen) -> Definition | None:
    first, *rest = name.split(".")
    module = first
    for position, part in enumerate(rest):
        # A submodule goes first: reading the package's own source for each step would cost as much as
        # importing it.
        if _module_file(f"{module}.{part}") is not None:
            module = f"{module}.{part}"
            continue
        if _module_file(module) is None:
            return None
        found = _lookup(module, part, seen)
        remaining = rest[position + 1 :]
        if not remaining or found is None:
            return found
        if found.kind != "module":
            return None
        # Built-in modules have no source: still, os.system is os.system, wherever os was imported.
        return _follow(".".join([found.module, *remaining]), seen) or Definition(
            found.module, ".".join(remaining), "object"
        )
    return Definition(module, "", "module") if _module_file(module) is not None else None


def _lookup(module: str, name: str, seen: Seen) -> Definition | None:
    """What ``name`` is bound to at the top level of ``module``."""
    if _class_source(module, name) is not None:
        return Definition(module, name, "class")
    if (module, name) in seen:
        return None
    seen.add((module, name))
    found: Definition | None = None
    for statement in _statements(module):
        match statement:
            case ast.ClassDef(name=defined) if defined == name:
                found = Definition(module, name, "class")
            case ast.FunctionDef(name=defined) | ast.AsyncFunctionDef(name=defined) if defined == name:
                found = Definition(module, name, "function")
            case ast.Import(names=imported):
                for alias in imported:
                    if alias.asname == name:
                        found = _follow(alias.name, seen) or Definition(alias.name, "", "module")
                    elif alias.asname is None and alias.name.split(".")[0] == name:
                        found = Definition(name, "", "module")
            case ast.ImportFrom(names=imported):
                source = _absolute(module, statement)
                for alias in imported:
                    if (alias.asname or alias.name) == name:
                        found = _follow(f"{source}.{alias.name}", seen)
                    elif alias.name == "*" and (starred := _follow(f"{source}.{name}", seen)):
                        found = starred
            case ast.Assign(targets=[ast.Name(id=defined)], value=ast.Name(id=other)):
                if defined == name != other:
                    found = _lookup(module, other, seen)
    return found


def _absolute(module: str, statement: ast.ImportFrom) -> str:
    """The module that a ``from … import`` names, relative ones counted from ``module``."""
    if not statement.level:
        return statement.module or ""
    file = _module_file(module)
    is_package = file is not None and file.name == "__init__.py"
    parts = module.split(".")
    base = parts[: len(parts) - statement.level + is_package]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _constructor(found: Definition) -> Arguments:
    tree = _class_tree(found)
    if tree is None:
        return Arguments((), frozenset(), open=True)
    written = next((s for s in tree.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
    parents = [_base(found.module, node) for node in tree.bases if not _is_plain(node)]
    # A base of the same name as the class is an import that the class itself hides.
    bases = [parent for parent in parents if parent is not None and parent != found]
    unknown_base = len(bases) < len(parents)
    if written is None:
        if fields := _dataclass_fields(tree):
            return fields
        if bases:
            return _constructor(bases[0])
        return Arguments((), frozenset(), open=unknown_base)
    own = _signature(written)
    if written.args.kwarg is None:
        return own
    inherited = [_constructor(parent) for parent in bases]
    names = dict.fromkeys(own.names)
    for base in inherited:
        names.update(dict.fromkeys(base.names))
    required = own.required.union(*(base.required - set(own.names) for base in inherited))
    handed_on = any(
        isinstance(call, ast.Call)
        and "super()" in ast.unparse(call.func)
        and any(k.arg is None for k in call.keywords)
        for call in ast.walk(written)
    )
    open_ = not handed_on or unknown_base or not bases or any(base.open for base in inherited)
    return Arguments(tuple(names), required, open_)


def _signature(function: ast.FunctionDef) -> Arguments:
    given = function.args
    positional = [argument.arg for argument in [*given.posonlyargs, *given.args]][1:]
    without_default = positional[: max(0, len(positional) - len(given.defaults))]
    keywords = [argument.arg for argument in given.kwonlyargs]
    needed = [name for name, default in zip(keywords, given.kw_defaults, strict=True) if default is None]
    return Arguments(
        (*positional, *keywords), frozenset([*without_default, *needed]), open=given.kwarg is not None
    )


def _dataclass_fields(tree: ast.ClassDef) -> Arguments | None:
    if not any("dataclass" in ast.unparse(decorator) for decorator in tree.decorator_list):
        return None
    fields = [s for s in tree.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    names = [field.target.id for field in fields if isinstance(field.target, ast.Name)]
    needed = [f.target.id for f in fields if f.value is None and isinstance(f.target, ast.Name)]
    return Arguments(tuple(names), frozenset(needed), open=False)


def _base(module: str, node: ast.expr) -> Definition | None:
    if isinstance(node, ast.Subscript):
        node = node.value
    written = ast.unparse(node)
    first, _, rest = written.partition(".")
    found = _lookup(module, first, set())
    if found is not None and rest:
        found = _follow(f"{found.module}.{rest}", set()) if found.kind == "module" else None
    return found if found is not None and found.kind == "class" else None


def _is_plain(node: ast.expr) -> bool:
    """Bases without a constructor of their own that matters."""
    return ast.unparse(node).split("[")[0].split(".")[-1] in {"object", "ABC", "Generic", "Protocol"}


@lru_cache(maxsize=512)
def _module_file(module: str) -> Path | None:
    """The source of a module, found without importing the packages it lies in."""
    first, *rest = module.split(".")
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        path = Path(location).joinpath(*rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@lru_cache(maxsize=128)
def _source(module: str) -> str:
    file = _module_file(module)
    return file.read_text(encoding="utf-8") if file is not None else ""


@lru_cache(maxsize=128)
def _statements(module: str) -> tuple[ast.stmt, ...]:
    """The statements at the top level of a module, those under ``if`` and ``try`` included."""
    try:
        tree = ast.parse(_source(module))
    except SyntaxError:
        return ()
    found: list[ast.stmt] = []
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop(0)
        found.append(statement)
        if isinstance(statement, ast.If | ast.Try):
            waiting = [*statement.body, *getattr(statement, "handlers", []), *statement.orelse, *waiting]
        elif isinstance(statement, ast.ExceptHandler):
            waiting = [*statement.body, *waiting]
    return tuple(found)


@lru_cache(maxsize=256)
def _class_source(module: str, name: str) -> str | None:
    """The lines of one class: parsing these alone is much quicker than a whole file of torch."""
    source = _source(module)
    start = re.search(rf"^class {re.escape(name)}\b", source, re.MULTILINE)
    if start is None:
        return None
    end = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE).search(source, start.end())
    return source[start.start() : end.start() if end else len(source)]


def _class_tree(found: Definition) -> ast.ClassDef | None:
    if "dataclass" not in _source(found.module):
        try:
            tree = ast.parse(_class_source(found.module, found.name) or "")
        except SyntaxError:
            tree = ast.Module([], [])
        if tree.body and isinstance(tree.body[0], ast.ClassDef):
            return tree.body[0]
    classes = (s for s in _statements(found.module) if isinstance(s, ast.ClassDef) and s.name == found.name)
    return next(classes, None)
