"""The table at the end of a run: what was trained on what, how good it is, does it beat common sense."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.metrics import four_places, in_order, with_slash, without_deviations

if TYPE_CHECKING:
    from rich.console import Console

SPLITS = {"train": "training", "val": "validation", "test": "test"}


def print_summary(result: Mapping[str, Any], ui: str | None = None, console: Console | None = None) -> None:
    """Print a run's summary: a table in a terminal, plain lines (`name: value`) elsewhere.

    Args:
        result: Fields of a run's result, as in `result.json`; what is missing is left out of the table.
        ui: Command that opens the tracking UI on the run; None leaves the line out.
        console: Console to print to, None for the standard output.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    warnings, lines, (columns, rows) = stand_in(result), facts(result, ui), metric_table(result)
    if console.is_terminal:
        title = str(result.get("experiment", "run"))
        _print_table(console, title, warnings, lines, columns, rows, verdict(result))
        return
    for line in (*warnings, *(f"{name}: {value}" for name, value in lines[0])):
        console.print(line, markup=False, soft_wrap=True)
    for name, *values in rows:
        named = [f"{of} {value}" for of, value in zip(columns[1:], values, strict=True) if value]
        console.print(f"{name}: {', '.join(named)}", markup=False, soft_wrap=True)
    for line in (*verdict(result), *(f"{name}: {value}" for name, value in lines[1])):
        console.print(line, markup=False, soft_wrap=True)


def opening_command(tracking_uri: str | None, experiments_dir: Path, experiment: str | None = None) -> str:
    """What to type, or which address to open, to see runs side by side in MLflow's own pages.

    Args:
        tracking_uri: Address of the store that has the runs, None for the default store.
        experiments_dir: Directory of the default store.
        experiment: Name of the experiment to open.

    Returns:
        A server's own address; for a database or a folder a command that shows it. Passwords are left out.
    """
    from pipeline.config.masking import holds_secret, mask
    from pipeline.tracking import absolute_uri

    uri = absolute_uri(tracking_uri, experiments_dir)
    if uri.startswith(("http://", "https://", "databricks")):
        return mask(uri)
    words = [_python(), "-m", "pipeline", "task=ui"]
    if experiment is not None:
        words.append(f"task.experiment={experiment}")
    if experiments_dir.absolute() != Path("experiments").absolute():
        words.append(f"paths.experiments_dir={_from_here(experiments_dir.absolute())}")
    # One with a password can only have been named by the environment, which names it to the command too.
    if uri != absolute_uri(None, experiments_dir) and not holds_secret(uri):
        words.append(f"logger.tracking_uri={uri}")
    return shlex.join(words)


def _python() -> str:
    """How to call this environment's Python from here."""
    own = Path(sys.executable)
    found = shutil.which("python")
    return "python" if found and Path(found) == own else str(_from_here(own))


def _from_here(path: Path) -> Path:
    """A place below the working directory relative to that, any other as it is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def stand_in(result: Mapping[str, Any]) -> list[str]:
    """The loud line when other data was used than asked for; empty otherwise."""
    data = result.get("data") or {}
    requested, used = data.get("requested"), data.get("used")
    if not used or used == requested:
        return []
    return [
        f"STAND-IN DATA: {requested} was not available, {used} was used. "
        f"The results are not those of {requested}."
    ]


def facts(
    result: Mapping[str, Any], ui: str | None = None
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The lines above the metrics (data, model, epoch) and those below (time, place), as (name, value)."""
    data, model, seconds = (result.get(key) or {} for key in ("data", "model", "seconds"))
    above = [("data", _data_words(data)), ("model", _model_words(model))]
    if result.get("best_epoch") is not None:
        above.append(("best epoch", str(result["best_epoch"])))
    below = [
        ("time", _seconds_words(seconds)),
        ("throughput", _throughput_words(result.get("samples_per_second"))),
        ("seed", str(result.get("seed", ""))),
        ("directory", str(_from_here(Path(result["directory"]))) if result.get("directory") else ""),
        ("run", str(result.get("run_id") or "")),
        ("open", ui or ""),
    ]
    notes = [("note", str(note)) for note in result.get("notes") or ()]
    return [line for line in above if line[1]], notes + [line for line in below if line[1]]


def metric_table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The metrics as text: column names, and one row a metric.

    Columns are the splits that have metrics (training only where it is the one) and the baselines, the
    common-sense one first. A mean over several fits has its standard deviation behind it.
    """
    metrics = {with_slash(name): value for name, value in (result.get("metrics") or {}).items()}
    splits = [split for split in ("val", "test") if _names(metrics, split)] or ["train"]
    baselines = baselines_of(result)
    names = set().union(*(_names(metrics, split) for split in splits))
    columns = ["metric", *(SPLITS[split] for split in splits), *(_words(name) for name in baselines)]
    rows = []
    for name in in_order(names):
        own = [_with_deviation(metrics, f"{split}/{name}") for split in splits]
        others = [_number(_baseline(values, name, splits)) for values in baselines.values()]
        # A metric that is undefined, as R² is of a single sample, is not shown.
        if any(own):
            # The mean over the classes, also where there are two: that of a library for one of them is another figure.
            macro = " (macro)" if name == "f1" and "balanced_accuracy" in names else ""
            rows.append([_words(name) + macro, *own, *others])
    return columns, rows


def baselines_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Each baseline's metrics (`test/accuracy`) by the baseline's name, the common-sense one first."""
    baseline = result.get("baseline") or {}
    values = {name: value for name, value in baseline.items() if name not in ("name", "others")}
    own = {f"{baseline.get('name') or 'common-sense'} baseline": values} if values else {}
    return own | {f"{name} baseline": other for name, other in (baseline.get("others") or {}).items()}


def verdict(result: Mapping[str, Any]) -> list[str]:
    """In plain words, what a run's ``verdicts`` say of the model and each baseline; empty with nothing to compare."""
    return [_verdict(entry) for entry in result.get("verdicts") or ()]


def _verdict(entry: Mapping[str, Any]) -> str:
    model, other = _number(entry["model"]), _number(entry["baseline"])
    compared = f"{SPLITS[entry['split']]} {_words(entry['metric'])} {model} against {other}"
    name = f"the {_words(entry['against'])} baseline"
    start = f"{entry['variant']}: " if entry.get("variant") else ""
    if not entry["verdict"]:
        return f"{start}NO VERDICT against {name}: {compared}; {entry['why']}."
    low, high = (_number(end, sign="+") for end in (entry["low"], entry["high"]))
    interval = f"gain {_number(entry['gain'], sign='+')}, {entry['confidence']:.0%} interval {low} to {high}"
    said = f"model {entry['verdict']}"
    if entry["verdict"] == "beats":
        return f"{start}The {said} {name}: {compared} ({interval})."
    return f"{start}THE {said.upper()} {name}: {compared} ({interval})."


def _names(metrics: Mapping[str, Any], split: str) -> set[str]:
    """Plain names of a split's metrics; those that are a deviation of another one are not counted."""
    return set(without_deviations(name.partition("/")[2] for name in metrics if name.startswith(f"{split}/")))


def _baseline(values: Mapping[str, Any], metric: str, splits: list[str]) -> float | None:
    return next(
        (value for split in reversed(splits) if (value := values.get(f"{split}/{metric}")) is not None), None
    )


def _with_deviation(metrics: Mapping[str, Any], name: str) -> str:
    value, deviation = _number(metrics.get(name)), _number(metrics.get(f"{name}_std"))
    return f"{value} ± {deviation}" if value and deviation else value


def _print_table(
    console: Console,
    title: str,
    warnings: list[str],
    lines: tuple[list[tuple[str, str]], list[tuple[str, str]]],
    columns: list[str],
    rows: list[list[str]],
    words: list[str],
) -> None:
    from rich.console import Group, RenderableType
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(line, style="bold black on yellow") for line in warnings]
    for block in lines:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in block:
            grid.add_row(name, Text(value))
        parts.append(grid)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        styles = {"metric": "", "test": "bold"}
        style = styles.get(column, "dim" if "baseline" in column else "")
        table.add_column(column, justify="left" if column == "metric" else "right", style=style)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    judged = [Text(line, style=_style(line)) for line in words]
    parts[-1:-1] = [Text(), table, Text(), *judged, Text()] if rows else [Text()]
    console.print(Panel(Group(*parts), title=Text(title, style="bold"), expand=False, padding=(0, 1)))


def _style(line: str) -> str:
    """Green for what beats a baseline, red for what is worse, yellow where nothing can be told."""
    if "The model beats" in line:
        return "green"
    return "bold red" if "THE MODEL IS WORSE" in line else "bold yellow"


def _data_words(data: Mapping[str, Any]) -> str:
    counts = [
        f"{value:,} {name}".replace("_", " ")
        for name, value in (data.get("samples") or data).items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    name = str(data.get("used") or data.get("requested") or "")
    return f"{name} ({', '.join(counts)})" if counts else name


def _model_words(model: Mapping[str, Any]) -> str:
    name = str(model.get("name") or model.get("class") or "").rpartition(".")[2]
    count = next(
        (value for key, value in model.items() if "parameters" in key and isinstance(value, int)), None
    )
    return f"{name}, {count:,} parameters" if count is not None else name


def _seconds_words(seconds: Mapping[str, float]) -> str:
    total = seconds.get("total")
    parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    if total is None:
        return parts and f"{parts} s"
    return f"{total:.1f} s" + (f" ({parts})" if parts else "")


def _throughput_words(samples_per_second: float | None) -> str:
    if not samples_per_second or not math.isfinite(samples_per_second):
        return ""
    return f"{samples_per_second:,.0f} samples/s in training"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None, sign: str = "") -> str:
    """A figure in words; nothing for what is undefined."""
    if value is None or math.isnan(value):
        return ""
    return four_places(value, sign)
