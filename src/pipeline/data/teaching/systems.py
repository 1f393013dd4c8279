"""The small systems that learning is taught with: points on a line, two clusters, an echo, a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.encoder import SeriesEncoder, VectorEncoder
from pipeline.data.core.loader import Loader
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Chunk, Rows, Streams
from pipeline.data.text.encoders import CharacterEncoder
from pipeline.errors import UserError
from pipeline.settings import COUNT_OR_NULL, Flag

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline

SHOWN, MEASURED = 60, 5000
"""Steps of an echo that are drawn, and those from which it is read what a unit holds."""
FIRST_FRESH = 2
"""The streams of random bits 0, 1 and 2 are those of training, validation and test; epoch 1 (from 0) has the next."""


class Points(DataModule):
    """Single numbers to predict from single numbers, in the order given, as they stand (nothing is scaled).

    Args:
        inputs: The x of each point.
        targets: The y of each point.
        test_inputs: Points to test on, usually outside the range of ``inputs``.
        test_targets: The y of each of them.
        **shared: Settings that every data set takes, see :class:`DataModule`. With as many ``folds`` as points each is
            left out once.
    """

    def __init__(
        self,
        inputs: Sequence[float],
        targets: Sequence[float],
        test_inputs: Sequence[float] = (),
        test_targets: Sequence[float] = (),
        name: str = "points",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        for kind, x, y in (("", inputs, targets), ("test_", test_inputs, test_targets)):
            if len(x) != len(y):
                raise UserError(f"data.{kind}inputs has {len(x)} numbers but data.{kind}targets has {len(y)}")
        if not inputs:
            raise UserError("data.inputs is empty; give at least one point")
        self.points = _points(inputs, targets)
        self.test_points = _points(test_inputs, test_targets) if test_inputs else None

    def setup(self, stage: str | None = None) -> None:
        rows, held_out = self.split_rows(self.points.y, stratify=False)
        self.train = self.points if self.train_on_all else self.points.subset(rows)
        self.validation = self.points.subset(held_out) if len(held_out) else None
        self.test = self.test_points
        self.encoder = VectorEncoder(["x"])
        self.spec = Spec(task="regression", input="vector", input_shape=(1,), outputs=1, target_name="y")


class Line(Points):
    """Points on a line through the origin: inputs 1, 2, …, ``points``.

    Args:
        points: Number of points.
        slope: The y for x = 1.
        test_inputs: Points to test on.
        **shared: Settings that every data set takes, see :class:`Points`.
    """

    def __init__(
        self,
        points: int = 4,
        slope: float = 2.0,
        test_inputs: Sequence[float] = (),
        name: str = "line",
        **shared: Any,
    ) -> None:
        if points < 1:
            raise UserError(f"data.points={points}; expected at least 1")
        inputs = [float(x) for x in range(1, points + 1)]
        super().__init__(
            inputs,
            [slope * x for x in inputs],
            test_inputs,
            [slope * x for x in test_inputs],
            name=name,
            **shared,
        )


class Clusters(DataModule):
    """Two overlapping clouds of points in the plane, and fresh ones of the same kind to test on.

    Args:
        samples: Number of points in each cloud (and in each cloud of the test).
        means: Centre of each cloud.
        covariance: Covariance of both clouds, [[xx, xy], [xy, yy]].
        **shared: Settings that every data set takes, see :class:`DataModule`; ``seed`` draws the points.
    """

    def __init__(
        self,
        samples: Annotated[int, COUNT_OR_NULL] = 1000,
        means: Sequence[Sequence[float]] = ((0.0, 3.0), (3.0, 0.0)),
        covariance: Sequence[Sequence[float]] = ((1.0, 0.5), (0.5, 1.0)),
        name: str = "clusters",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if len(means) != 2:
            raise UserError(f"data.means has {len(means)} centres; expected two")
        self.samples, self.means, self.covariance = samples, means, covariance

    def setup(self, stage: str | None = None) -> None:
        pool, self.test = self._draw(0), self._draw(1)
        rows, held_out = self.split_rows(pool.y, stratify=True)
        train = pool if self.train_on_all else pool.subset(rows)
        self.validation = pool.subset(held_out) if len(held_out) else None
        self.encoder = VectorEncoder(["x1", "x2"])
        self.spec = Spec(
            task="binary",
            input="vector",
            input_shape=(2,),
            outputs=1,
            classes=("left", "right"),
            target_name="cluster",
            class_weights=self.class_weights(train.y, 2),
        )
        self.train = self.oversampled(train)

    def plots(self, model: Any, folder: Path) -> list[Path]:
        """The decision boundary over the training points."""
        from pipeline.data.teaching.plots import decision_boundary

        def predict(places: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                logits = model(torch.from_numpy(places).float().to(model.device))
            found: np.ndarray = model.objective.probabilities(logits).argmax(-1).cpu().numpy()
            return found

        x, y = self.train.take(torch.arange(len(self.train)))
        path = folder / "decision_boundary.png"
        return [decision_boundary(x.numpy(), y.long().tolist(), predict, path, self.spec.classes)]

    def _draw(self, stream: int) -> Rows:
        source = np.random.default_rng([self.seed, stream])
        clouds = [source.multivariate_normal(mean, self.covariance, self.samples) for mean in self.means]
        y = torch.arange(2).repeat_interleave(self.samples).float()
        return Rows(torch.from_numpy(np.concatenate(clouds).astype(np.float32)), y)


class Echo(DataModule):
    """Random bits, to be repeated some steps later. Validation and test are series of their own.

    Training reads ``batch_size`` places of its series side by side, so many ``steps`` at a time.

    Args:
        length: Number of bits in each series, over all streams.
        delay: Number of steps from a bit to its echo; the first ``delay`` targets of a stream are unknown (−1).
        steps: Number of steps in a piece, which is as far as training looks back.
        stateful: Whether the recurrent state is carried from piece to piece.
        fresh: Whether every epoch has new bits (the first has those that it has otherwise).
        **shared: Settings that every data set takes, see :class:`DataModule`; ``batch_size`` is the number of streams,
            ``seed`` draws the bits.
    """

    batch_size_shapes_splits = True

    def __init__(
        self,
        length: int = 50_000,
        delay: int = 3,
        steps: Annotated[int, COUNT_OR_NULL] = 15,
        stateful: bool = True,
        fresh: Annotated[bool, Flag()] = False,
        name: str = "echo",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if self.folds:
            raise UserError(
                f"data.folds={self.folds}: a series is one sample and cannot be dealt out; drop data.folds"
            )
        if length < self.batch_size * (delay + 1):
            raise UserError(
                f"data.length={length} is too short for data.batch_size={self.batch_size} streams and an echo after "
                f"data.delay={delay} steps"
            )
        self.length, self.delay, self.steps, self.stateful = length, delay, steps, stateful
        self.fresh = fresh

    def setup(self, stage: str | None = None) -> None:
        self.train, self.validation, self.test = (self._draw(stream) for stream in range(3))
        self.encoder = SeriesEncoder(1)
        self.spec = Spec(
            task="binary",
            input="series",
            input_shape=(0, 1),
            outputs=1,
            classes=("0", "1"),
            target_name="echo",
            per_step=True,
            stateful=self.stateful,
        )

    def baselines(self) -> dict[str, Baseline]:
        from pipeline.data.core.baselines import majority

        return {"echo of zero": echo_of_zero, "majority": majority}

    def training_loader(self, seed: int, chunk: int = 1, rank: int = 0, world_size: int = 1) -> Loader:
        loader = super().training_loader(seed, chunk, rank, world_size)
        return FreshLoader(loader, lambda epoch: self._draw(FIRST_FRESH + epoch)) if self.fresh else loader

    def plots(self, model: Any, folder: Path) -> list[Path]:
        """The beginning of the validation series, its echo, what the model says, and what its units hold meanwhile."""
        from pipeline.data.teaching.plots import memory, series_echo

        assert isinstance(self.validation, Streams)
        x, y = self.validation.x[:1, :SHOWN], self.validation.y[:1, :SHOWN]
        assert isinstance(x, Tensor)
        with torch.no_grad():
            p = model.objective.probabilities(model(x.to(model.device)))[0, :, 1].cpu()
        known = slice(self.delay, None)
        path = folder / "echo.png"
        made = [series_echo(x[0, known, 0].numpy(), y[0, known].numpy(), p[known].numpy(), path, self.delay)]
        if hasattr(model, "hidden_states"):
            series = self.validation.x[:1, :MEASURED]
            assert isinstance(series, Tensor)
            with torch.no_grad():
                states = model.hidden_states(series.to(model.device))[0].cpu()
            made.append(
                memory(series[0, :, 0].numpy(), states.numpy(), self.delay, folder / "memory.png", SHOWN)
            )
        return made

    def _draw(self, stream: int) -> Streams:
        source = np.random.default_rng([self.seed, stream])
        bits = torch.from_numpy(source.integers(0, 2, self.length).astype(np.float32))
        rows = bits[: self.length // self.batch_size * self.batch_size].view(self.batch_size, -1)
        y = torch.full_like(rows, -1.0)
        y[:, self.delay :] = rows[:, : rows.shape[1] - self.delay]
        return Streams(rows[:, :, None], y, self.steps)


class FreshLoader(Loader):
    """A loader whose samples are drawn anew for each epoch, from the epoch's number alone: resuming is exact.

    Args:
        loader: The loader of the first epoch.
        draw: Function from the number of a later epoch (from 1) to its samples.
    """

    def __init__(self, loader: Loader, draw: Callable[[int], Streams]) -> None:
        super().__init__(
            loader.split,
            loader.batch_size,
            shuffle=loader.shuffle,
            seed=loader.seed,
            chunk=loader.chunk,
            rank=loader.rank,
            world_size=loader.world_size,
            augment=loader.augment,
        )
        self._first, self._draw, self._drawn = loader.split, draw, 0

    def __iter__(self) -> Iterator[Chunk]:
        if self._epoch != self._drawn:
            self.split = self._draw(self._epoch) if self._epoch else self._first
            self._drawn = self._epoch
        yield from super().__iter__()


class Word(DataModule):
    """One word, letter by letter: each is to be followed by the next. Nothing is held out, it is to be learnt by heart.

    Args:
        word: A word of at least two letters, none of which occurs twice with different successors (or the model needs a
            memory).
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    def __init__(self, word: str = "HELP", name: str = "help", **shared: Any) -> None:
        super().__init__(name=name, **shared)
        if len(word) < 2:
            raise UserError(f"data.word={word!r}; expected at least two letters")
        if self.folds:
            raise UserError(f"data.folds={self.folds}: there is one sample; drop data.folds")
        self.word = word

    def setup(self, stage: str | None = None) -> None:
        self.encoder = CharacterEncoder.fit(self.word)
        ids: Tensor = self.encoder.ids(self.word)[None]
        self.train = Rows(ids[:, :-1], ids[:, 1:])
        self.validation = None
        # The word itself again: what is tested is whether it was learnt.
        self.test = self.train
        self.spec = Spec(
            task="multiclass",
            input="tokens",
            input_shape=(0,),
            outputs=len(self.encoder.classes),
            classes=self.encoder.classes,
            target_name="next letter",
            per_step=True,
            vocabulary=len(self.encoder.classes),
        )

    def baselines(self) -> dict[str, Baseline]:
        from pipeline.data.text.baselines import most_frequent_character

        return {"most frequent character": most_frequent_character}


def echo_of_zero(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Always 0, whatever the training split holds."""
    known = evaluate.y[evaluate.y >= 0]
    return {"accuracy": float((known == 0).double().mean())}


def _points(inputs: Sequence[float], targets: Sequence[float]) -> Rows:
    return Rows(
        torch.tensor(inputs, dtype=torch.float32)[:, None], torch.tensor(targets, dtype=torch.float32)
    )
