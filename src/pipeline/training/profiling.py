"""Where the time of a fit goes."""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

from pytorch_lightning.profilers import Profiler

LINES = 10


def lightning_profiler(name: str | None, directory: Path) -> Any:
    """Lightning's ``simple`` or ``pytorch`` profiler, writing into ``directory``; ``advanced`` is :func:`profiled`."""
    if name == "simple":
        from pytorch_lightning.profilers import SimpleProfiler

        return SimpleProfiler(dirpath=directory, filename="profile")
    if name == "pytorch":
        from pytorch_lightning.profilers import PyTorchProfiler

        return PyTorchProfiler(dirpath=str(directory), filename="profile")
    return NoProfiler()


class NoProfiler(Profiler):
    """Measures nothing and costs nothing: Lightning's own makes a new context for each of forty calls a step."""

    _nothing = nullcontext()

    def start(self, action_name: str) -> None: ...

    def stop(self, action_name: str) -> None: ...

    def profile(self, action_name: str) -> Any:
        """A context that does nothing."""
        return self._nothing


@contextmanager
def profiled(wanted: bool, directory: Path) -> Iterator[None]:
    """Profile the block by function, where that is ``wanted`` (``trainer.profiler=advanced``).

    ``profile.prof`` (for snakeviz and the like) and ``profile.txt`` go into ``directory``; the ten functions that took
    most time themselves are printed.
    """
    if not wanted:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        directory.mkdir(parents=True, exist_ok=True)
        profile.dump_stats(directory / "profile.prof")
        (directory / "profile.txt").write_text(_report(profile, None), encoding="utf-8")
        print(
            f"{_report(profile, LINES).strip()}\nAll of it: {directory / 'profile.txt'}",
            file=sys.stderr,
            flush=True,
        )


def _report(profile: cProfile.Profile, lines: int | None) -> str:
    text = StringIO()
    stats = pstats.Stats(profile, stream=text).sort_stats("tottime")
    stats.print_stats(*([lines] if lines else []))
    return text.getvalue()
