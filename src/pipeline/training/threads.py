"""How many threads compute a fit: as many as are fast, which is written down, so that it can be done again."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import psutil
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from pipeline.data.core.splits import Chunk
from pipeline.models.base import BaseModule
from pipeline.process_life import SHARE_OF_CORES

log = logging.getLogger(__name__)

Schedule = Sequence[tuple[int, int]]
"""Pairs of an optimiser step and the number of threads from there on."""

_ONE_THREAD_OPERATIONS = 200_000_000
_BUSY = 0.25
"""Share of the machine's time that others have taken from which on it is worth a comparison."""
_FIRST_LOOK_SECONDS = 5.0
"""Short fits end with the same bits whatever else the machine is doing."""
_LOOK_SECONDS, _SOONEST_SECONDS = 2.0, 0.5
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 80.0
_COST = 20
"""A comparison is not made again before this many times as long as it took is over."""
_SLOW = 1.5
_GAIN = 1.1
"""What another number has to gain, and to be ahead in most rounds of a comparison: beside others steps are uneven."""
_ROUNDS, _TIMED = 3, 3


class Threads(Callback):
    """Has a fit compute with ``trainer.threads`` threads on the processor; afterwards there are as many as before.

    Used as a context manager around the fit, and given to the trainer as a callback.

    ``auto`` begins with one thread where a step is so small that sharing it out saves little (for the MLP on MNIST, one
    was within 6 % of two, on two cores), and with all there are elsewhere. On a machine that others compute on, steps
    with fewer and with more threads are compared now and then, and at once when steps have grown slow: the fit goes on
    with what was fastest. On a machine of its own, and in the first seconds of any fit, nothing is compared, since
    another number of threads rounds differently: there the same seed gives the same bits. A number in
    ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS`` holds.

    Args:
        settings: The ``trainer`` settings.
        model: Model to train.
        batch_size: Number of samples in a training batch.
        again: Numbers of an earlier fit, which this one is to compute with; empty to find its own.
    """

    def __init__(
        self, settings: Mapping[str, Any], model: BaseModule, batch_size: int, again: Schedule = ()
    ) -> None:
        asked = settings.get("threads", "auto")
        self.most = torch.get_num_threads()
        self.fixed = asked != "auto" or _chosen_outside() or self.most < 2
        self.count = int(asked) if asked != "auto" else 1 if _is_small(model, batch_size) else self.most
        self.changes: list[tuple[int, int]] = []
        self.again = list(again)
        self._asked = asked != "auto"
        self._usual = self.count
        self._neighbours = Neighbours()
        self._comparing: Comparison | None = None
        self._recent: deque[float] = deque(maxlen=5)
        self._best = 0.0
        self._looked = self._next = 0.0
        self._pause = _PAUSE_SECONDS

    def __enter__(self) -> Threads:
        torch.set_num_threads(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.most)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # What starts several processes has set a number of its own in each.
        torch.set_num_threads(self.count)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.fixed = self.fixed or trainer.world_size > 1 or pl_module.device.type != "cpu"
        self._use(self._recorded(trainer.global_step) or self.count, trainer.global_step)
        torch.set_num_threads(self.count)
        self._looked = time.monotonic() - _LOOK_SECONDS + _FIRST_LOOK_SECONDS

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if cast(Any, pl_module).loop.waiting:
            # A number holds for whole steps, by which it is recorded; gradients of this one are still to come.
            return
        if self.again:
            # Before a validation, as where it was found.
            self._use(self._recorded(trainer.global_step) or self.count, trainer.global_step)
        if self.fixed or self.again:
            return
        rate = _work(batch) / max(time.perf_counter() - self._began, 1e-9)
        if self._comparing is None:
            self._watch(rate)
        elif self._comparing.add(rate):
            self._decide(self._comparing, trainer.global_step)
        else:
            self._use(self._comparing.count, trainer.global_step)

    def _watch(self, rate: float) -> None:
        """Begin a comparison where others compute on this machine and it may pay."""
        now = time.monotonic()
        self._recent.append(rate)
        usual = statistics.median(self._recent) if len(self._recent) == 5 else 0.0
        self._best = max(self._best, usual)
        slow = 0 < usual < self._best / _SLOW
        if now - self._looked < (_SOONEST_SECONDS if slow else _LOOK_SECONDS):
            return
        self._looked = now
        busy = self._neighbours.share() > _BUSY
        if (busy and slow) or ((busy or self.count != self._usual) and now >= self._next):
            self._comparing = Comparison(self.count, self.most, now)

    def _decide(self, comparison: Comparison, step: int) -> None:
        found = comparison.fastest(than=comparison.before)
        now = time.monotonic()
        changed = found != comparison.before
        if changed:
            log.info(
                "From step %d on %d threads compute, instead of %d: %.1f times as fast beside what else runs here",
                *(step, found, comparison.before),
                comparison.gain(found),
            )
        self._use(found, step)
        self._pause = _PAUSE_SECONDS if changed else min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        self._next = now + max(self._pause, _COST * (now - comparison.began))
        self._comparing, self._best = None, 0.0
        self._recent.clear()
        self._looked = now
        self._neighbours.share()

    def _use(self, count: int, step: int) -> None:
        if not self.changes or self.changes[-1][1] != count:
            self.changes.append((step, count))
        if count != self.count:
            self.count = count
            torch.set_num_threads(count)

    def _recorded(self, step: int) -> int | None:
        """The number that an earlier fit computed a step with, None where there is none to go by."""
        return next((count for begin, count in reversed(self.again) if begin <= step), None)

    def state_dict(self) -> dict[str, Any]:
        # What is only being compared is not what the fit goes on with.
        count = self.count if self._comparing is None else self._comparing.before
        return {"changes": [list(change) for change in self.changes], "count": count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.changes = [(int(step), int(count)) for step, count in state_dict["changes"]]
        self._comparing = None
        if self.changes and not self._asked and not _chosen_outside():
            # Another number would round differently: a run goes on as it was.
            self.count = min(int(state_dict.get("count", self.changes[-1][1])), self.most)


class Comparison:
    """Steps with several numbers of threads in turn, a few with each, of which the first after a change counts nothing.

    Args:
        before: The number until now; it is compared with its half and its double.
        most: The largest number.
        began: When the comparison began, in seconds.
    """

    def __init__(self, before: int, most: int, began: float) -> None:
        self.before, self.began = before, began
        candidates = dict.fromkeys([before, max(1, before // 2), min(most, 2 * before)])
        self.rates: dict[int, list[float]] = {count: [] for count in candidates}
        self._order = [
            (count, counts)
            for _ in range(_ROUNDS)
            for count in candidates
            for counts in (False, *[True] * _TIMED)
        ]

    @property
    def count(self) -> int:
        """Number of threads of the next step."""
        return self._order[0][0]

    def add(self, rate: float) -> bool:
        """Note how fast a step was, in samples a second; gives whether that was the last one."""
        count, counts = self._order.pop(0)
        if counts:
            self.rates[count].append(rate)
        return not self._order

    def fastest(self, than: int) -> int:
        """The fastest number; another one than the given only where it gains enough and is ahead in most rounds."""
        best = max(self.rates, key=self._rate)
        rounds = zip(self._rounds(best), self._rounds(than), strict=True)
        ahead = 2 * sum(ours > theirs for ours, theirs in rounds) > _ROUNDS
        return best if ahead and self._rate(best) > _GAIN * self._rate(than) else than

    def _rounds(self, count: int) -> list[float]:
        rates = self.rates[count]
        return [statistics.median(rates[at : at + _TIMED]) for at in range(0, len(rates), _TIMED)]

    def gain(self, count: int) -> float:
        """How many times as fast as before steps are with a number."""
        return self._rate(count) / self._rate(self.before)

    def _rate(self, count: int) -> float:
        return statistics.median(self.rates[count])


class Neighbours:
    """What share of the machine's time others take."""

    def __init__(self) -> None:
        self._before = _times()

    def share(self) -> float:
        """Share of all cores' time, 0 to 1, that other processes have computed for since the last time."""
        before, self._before = self._before, _times()
        total, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, busy - own) / total if total > 0 else 0.0


def _times() -> tuple[float, float, float]:
    """Seconds since some moment: of all cores, those of them that were busy, and this process's own."""
    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's time a second time, as that of a user.
    total = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    own = os.times()
    mine = own.user + own.system + own.children_user + own.children_system
    for child in psutil.Process().children(recursive=True):
        # What prepares data for this fit is no neighbour.
        with suppress(psutil.Error):
            spent = child.cpu_times()
            mine += spent.user + spent.system
    return total, total - times["idle"] - times.get("iowait", 0.0), mine


def _work(batch: Any) -> float:
    """How much there is to compute in a batch, in samples; of sequences of different lengths, in steps."""
    if not isinstance(batch, Chunk):
        return 1.0
    return float(sum(batch.split.work(rows) for rows in batch.rows))


@contextmanager
def fixed_threads(asked: int | str) -> Iterator[None]:
    """Compute with so many threads where ``trainer.threads`` is a number; afterwards there are as many as before."""
    before = torch.get_num_threads()
    try:
        if asked != "auto":
            torch.set_num_threads(int(asked))
        yield
    finally:
        torch.set_num_threads(before)


def in_words(changes: Sequence[Sequence[int]]) -> list[str]:
    """What a reader is to know of the numbers of threads: nothing where there was one for the whole fit."""
    if len(changes) < 2:
        return []
    first, last = changes[0][1], changes[-1][1]
    if first == last:
        others = " or ".join(map(str, sorted({count for _, count in changes} - {first})))
        counts = f"{_threads(first)} at first and at last, in between with {others} as well"
    else:
        counts = f"{_threads(first)} at first and {last} at last"
    return [
        f"computed with {counts}, by what was fastest beside what else ran on this machine: task=reproduce computes "
        "with the same numbers, trainer.threads fixes one"
    ]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _chosen_outside() -> bool:
    """Whether the environment says how many threads there are to be."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return SHARE_OF_CORES not in os.environ and any(os.environ.get(name) for name in names)


def _is_small(model: BaseModule, batch_size: int) -> bool:
    # Forward, and twice as much backward; a multiplication and an addition each.
    operations = 6 * batch_size * sum(parameter.numel() for parameter in model.parameters())
    # Words and items become a row of all there are, batch by batch, which is work of its own.
    return model.uses_weights_once and model.spec.input != "bag" and operations < _ONE_THREAD_OPERATIONS
