"""``task=clean``: what old runs, checkpoints and caches take, and freeing it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pipeline.runs.cleaning import Item, free, items, protected
from pipeline.runs.finished import open_store
from pipeline.runs.listing import listed
from pipeline.tasks.runs import span

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def run(cfg: DictConfig) -> None:
    """The task behind ``task=clean``: say what could go, and with ``task.free=true`` delete it."""
    found = look(cfg)
    freed = free(found) if cfg.task.free else 0
    if cfg.task.json:
        print(json.dumps([{**asdict(item), "path": str(item.path)} for item in found], indent=2))
    else:
        print("\n".join(in_words(found, freed, bool(cfg.task.free))))


def look(cfg: DictConfig) -> list[Item]:
    """Everything that ``task.what`` asks for.

    Raises:
        UserError: There is no tracking store, which says what is best and what is registered.
    """
    experiments_dir = Path(cfg.paths.experiments_dir).absolute()
    wanted = set(cfg.task.what)
    spared: dict[str, str] = {}
    known: dict[str, str] = {}
    if wanted & {"checkpoints", "runs"}:
        store = open_store(cfg)
        rows = listed(store, nested=True)
        known = {record.key: record.run_id for record in store.runs(limit=5000) if record.key}
        if not cfg.task.protected_too:
            spared = protected(rows, store.registered_runs(), int(cfg.task.keep))
    ours = Path(HydraConfig.get().runtime.output_dir) if HydraConfig.initialized() else None
    text = str(cfg.task.older_than)
    older_than = float(text[:-1]) * _UNITS[text[-1]]
    return items(
        experiments_dir, Path(cfg.paths.data_dir).absolute(), wanted, older_than, spared, known, ours
    )


def in_words(found: list[Item], freed: int, done: bool) -> list[str]:
    """What takes how much, what stays and why, and what to type."""
    lines = []
    for item in found:
        what = f"stays: {item.kept}" if item.kept else "deleted" if done else "can go"
        lines.append(f"{_size(item.size):>9}  {item.kind:<11}  {span(item.age):>6} old  {what}  {item.path}")
    could = sum(item.size for item in found if not item.kept)
    total = f"{_size(sum(item.size for item in found))} in all"
    if done:
        return [*lines, f"{total}, {_size(freed)} freed"]
    return [
        *lines,
        f"{total}, {_size(could)} can go" + (": the same command with task.free=true" if could else ""),
    ]


def _size(size: int) -> str:
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"
