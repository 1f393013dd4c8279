"""The inner walls: each floor knows the floors below it alone, and no file is part of a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"

# From the bottom to the top. Rooms of one floor may know each other as long as no files form a circle.
FLOORS = (
    ("errors", "files", "drawing", "process_life", "torchmetrics_inside", "dynamo_inside", "scipy_inside"),
    ("config",),
    ("metrics", "settings"),
    ("data",),
    ("models",),
    ("reports", "tracking"),
    ("training",),
    ("runs",),
    ("evaluation",),
    ("sweeps",),
    ("ladder", "exploring"),
    ("tasks",),
    ("jobs", "api", "projects", "__main__"),
)
LIBRARIES = {
    "torchtext": ("data.text",),
    # Decoders that start programs are refused in one place.
    "PIL": ("data.images",),
    "mlflow": ("tracking",),
    "optuna": ("sweeps",),
    "ray": ("sweeps.engines",),
}
LONGEST = 450


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``pipeline``."""
    found = {}
    for path in (SOURCE / "pipeline").rglob("*.py"):
        if "templates" in path.parts:
            continue
        parts = path.relative_to(SOURCE / "pipeline").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Every name that a file imports, wherever in it the import stands, those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports() -> dict[str, set[str]]:
    """Which modules of the package each of them imports."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for dotted in imported(path):
            if not dotted.startswith("pipeline."):
                continue
            inner = dotted.removeprefix("pipeline.")
            while inner and inner not in known:
                inner = inner.rpartition(".")[0]
            if inner and inner != name:
                graph[name].add(inner)
    return graph


def floor(module: str) -> int:
    room = module.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_its_floor() -> None:
    rooms = {name.split(".")[0] for name in modules() if name}
    assert rooms <= {room for rooms in FLOORS for room in rooms}


def test_no_import_runs_upwards() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in own_imports().items()
        if name
        for other in others
        if floor(other) > floor(name)
    ]
    assert not upward, "\n".join(sorted(upward))


def test_no_circle_of_files() -> None:
    graph = own_imports()
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        reached[start] = seen
    circle = sorted(name for name in graph if name in reached[name])
    assert not circle, f"parts of a circle: {circle}"


def test_each_library_is_imported_in_its_own_room_alone() -> None:
    strays = [
        f"{name} imports {dotted}"
        for name, path in modules().items()
        for dotted in imported(path)
        for library, rooms in LIBRARIES.items()
        if dotted.split(".")[0] == library and not name.startswith(rooms)
    ]
    assert not strays, "\n".join(strays)


def test_no_file_is_longer_than_one_sitting() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    longer = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert not longer, f"more than {LONGEST} lines: {longer}; split by what a reader looks for"
