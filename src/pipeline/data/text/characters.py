"""One long text as a stream of characters, for models that predict the next one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch

from pipeline.data.core.memory import check_memory
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Streams
from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.data.text.encoders import CharacterEncoder
from pipeline.data.text.reading import read_text
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, COUNT_OR_NULL, PATH_OR_NULL

if TYPE_CHECKING:
    from pipeline.data.core.baselines import Baseline


class TextFile(DataModule):
    """Any UTF-8 text, to learn to go on with it.

    The text is cut in order: the first part is for training, the next for validation, the last for the test.
    Training reads ``batch_size`` places of its part side by side, so many ``steps`` at a time.

    Args:
        path: File with the text, None for the published text that ``name`` stands for (``kafka``: *Metamorphosis*).
        characters: Number of characters to use from the beginning, None for all.
        test_fraction: Share of the text, at its end, that is held out for the test.
        validation_fraction: Share of what is left, at its end, that is held out for validation.
        steps: Number of characters in a piece, which is as far as training looks back.
        eval_steps: Number of characters in a piece of validation and test (where state is carried, only speed changes).
        stateful: Whether the recurrent state is carried from piece to piece.
        **shared: Settings that every data set takes, see :class:`DataModule`; ``batch_size`` is the number of streams.
    """

    stand_ins = ("python_topics",)

    batch_size_shapes_splits = True

    def __init__(
        self,
        path: Annotated[str | None, PATH_OR_NULL] = None,
        name: str = "kafka",
        characters: int | None = None,
        test_fraction: Annotated[float, BELOW_ONE] = 0.1,
        validation_fraction: Annotated[float, BELOW_ONE] = 0.05,
        steps: Annotated[int, COUNT_OR_NULL] = 25,
        eval_steps: int = 500,
        stateful: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(name=name, validation_fraction=validation_fraction, **shared)
        if self.folds:
            raise UserError(
                f"data.folds={self.folds}: a text is one sample and cannot be dealt out; drop data.folds"
            )
        if not 0 <= test_fraction < 1 or not 0 <= validation_fraction < 1:
            raise UserError("data.test_fraction and data.validation_fraction must be at least 0 and below 1")
        self.path, self.characters, self.test_fraction = path, characters, test_fraction
        self.steps, self.eval_steps, self.stateful = steps, eval_steps, stateful

    def prepare_data(self) -> None:
        """Find or download the text; fall back to the stand-in where it is not to be had and one is named."""
        self._text(download=True)

    def setup(self, stage: str | None = None) -> None:
        text = self._text(download=False)[: self.characters]
        learn = len(text) - round(len(text) * self.test_fraction)
        train = learn - round(learn * self.validation_fraction)
        if train - 1 < self.batch_size:
            raise UserError(
                f"the text holds {len(text)} characters, of which {train} are for training: too few for "
                f"data.batch_size={self.batch_size} streams; bring a longer text or lower it"
            )
        if self.train_on_all:
            train = learn
        self.encoder = CharacterEncoder.fit(text[:train])
        ids = self.encoder.ids(text)
        self.train = Streams.from_series(ids[: train - 1], ids[1:train], self.batch_size, self.steps)
        # A held-out part's first character is its first target, so that every character is predicted once.
        self.validation = self._held_out(ids[train - 1 : learn]) if learn > train else None
        self.test = self._held_out(ids[learn - 1 :]) if len(text) > learn else None
        self.spec = Spec(
            task="multiclass",
            input="tokens",
            input_shape=(0,),
            outputs=len(self.encoder.classes),
            classes=self.encoder.classes,
            target_name="next character",
            per_step=True,
            stateful=self.stateful,
            vocabulary=len(self.encoder.classes),
        )

    def baselines(self) -> dict[str, Baseline]:
        from pipeline.data.text.baselines import bigram, most_frequent_character

        return {"most frequent character": most_frequent_character, "bigram": bigram}

    def _held_out(self, ids: torch.Tensor) -> Streams:
        return Streams.from_series(ids[:-1], ids[1:], 1, self.eval_steps)

    def _text(self, download: bool) -> str:
        if self.path is not None:
            self.source = str(self.path)
            if (path := Path(self.path)).is_file():
                # The text, and 8 bytes a character for its numbers.
                check_memory(10 * path.stat().st_size, str(path), "split it, or train on a part of it")
            text = read_text(path)
            if not text.strip():
                raise UserError(f"{self.path} holds no text")
            return text
        if self.name != "kafka":
            raise UserError(f"data.path is not set: set it to the text file of {self.name}")
        try:
            path = sources.locate(catalogue.METAMORPHOSIS, self.data_dir, sources.search_path(), download)
        except sources.DataUnavailable as error:
            self.stand_in(error)
            return python_topics()
        self.source = str(path)
        return read_text(path)


def python_topics(characters: int = 140_000) -> str:
    """The beginning of the interpreter's own help texts, about as long as *Metamorphosis*."""
    from pydoc_data.topics import topics

    return "\n".join(str(topics[name]) for name in sorted(topics))[:characters]
