"""Labelled texts: what the data sets for text classification share."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.cache import cached
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import RaggedRows, Rows, SparseRows
from pipeline.data.core.splitting import drawn
from pipeline.data.sources.finding import DataUnavailable
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.guesses import Guess, say
from pipeline.data.text.corpus import TEST, TRAIN, Corpus, Document
from pipeline.data.text.encoders import UNKNOWN, BagEncoder, TokensEncoder
from pipeline.data.text.generated import generated_reviews
from pipeline.data.text.pieces import Pieces, PiecesEncoder
from pipeline.data.text.runs import Runs, log_count_ratios
from pipeline.errors import UserError
from pipeline.settings import BELOW_ONE, COUNT, COUNT_OR_NULL, PATH_OR_NULL, Word

STAND_INS: dict[str, Callable[[Pieces | None], Corpus]] = {
    "generated_reviews": lambda pieces: Corpus.build(generated_reviews(), pieces=pieces)
}

WIDE = 20_000
"""Size of the vocabulary from which on a bag is handed on as the numbers of its words instead of a row of 0 and 1."""

COVERED = 0.6
"""Share of the words of texts that were not learnt from below which it is said that few of them are known."""

LAYOUT = 2
"""Version of the cached arrays, for :class:`Corpus` and the tokeniser: entries of another one are left alone."""


class Documents(DataModule):
    """Texts with a class each, as bags of words or as sequences of word ids.

    Args:
        name: Name of the data set.
        input: ``bag`` (which of the vocabulary's words occur: multi-hot) or ``tokens`` (word ids in order).
        vocabulary_size: Number of words in the vocabulary: the most frequent ones of the training split.
        ngrams: Longest run of words that counts as a word (``bag`` only), at least 2 where characters are words.
        weights: ``none``, or ``nb``: a word counts by how much it speaks for a class in the training texts (log-count
            ratios, Wang & Manning 2012; ``bag`` only).
        words: What a word is: ``blanks`` (what stands between blanks and punctuation), ``characters`` (in scripts that
            are written without blanks each character) or ``auto`` (characters where the texts need it).
        max_length: Number of words kept of each text, None for all (``tokens`` only).
        keep: Which words of a longer text are kept: the ``first`` or the ``last``.
        tokenizer: File of a tokenizer (``tokenizer.json``) that splits texts into pieces of words, which then come in
            their order; None splits them into words. ``model=text_encoder`` brings its own.
        test_fraction: Share of the texts that becomes the test split, where the data set has none of its own.
        target_name: What the classes are, in a word.
        **shared: Settings that every data set takes, see :class:`DataModule`.
    """

    stand_ins = tuple(STAND_INS)

    column: str | list[str] = "text"
    """Name of the column of texts, or of several whose texts are joined, where they come from a table."""

    format = TableFormat()
    """How the files of texts are written."""

    def __init__(
        self,
        name: str,
        input: str = "bag",
        vocabulary_size: Annotated[int, COUNT_OR_NULL] = 10_000,
        ngrams: Annotated[int, COUNT] = 1,
        weights: Annotated[str, Word(("none", "nb"))] = "none",
        words: Annotated[str, Word(("auto", "blanks", "characters"))] = "auto",
        max_length: Annotated[int | None, COUNT_OR_NULL] = 256,
        keep: str = "last",
        tokenizer: Annotated[str | None, PATH_OR_NULL] = None,
        test_fraction: Annotated[float, BELOW_ONE] = 0.2,
        target_name: str = "class",
        **shared: Any,
    ) -> None:
        super().__init__(name=name, **shared)
        if tokenizer is not None:
            input = "tokens"
        for key, value, allowed in (
            ("input", input, ("bag", "tokens")),
            ("keep", keep, ("first", "last")),
            ("weights", weights, ("none", "nb")),
            ("words", words, ("auto", "blanks", "characters")),
        ):
            if value not in allowed:
                raise UserError(f"data.{key}={value!r}; expected {', '.join(allowed[:-1])} or {allowed[-1]}")
        if weights != "none" and input == "tokens":
            raise UserError(f"data.weights={weights} needs data.input=bag: it is about which words occur")
        if ngrams > 1 and input == "tokens":
            raise UserError(f"data.ngrams={ngrams} needs data.input=bag: runs of words have no order")
        self.input, self.vocabulary_size, self.ngrams = input, vocabulary_size, ngrams
        self.max_length, self.keep, self.tokenizer = max_length, keep, tokenizer
        self.test_fraction, self.target_name = test_fraction, target_name
        self.weights, self.split = weights, words
        self.guesses: list[Guess] = []
        self._corpus: Corpus | None = None
        self._built_for: tuple[Any, ...] | None = None

    @cached_property
    def pieces(self) -> Pieces | None:
        """What splits texts into pieces of words; None where they are split into words."""
        return None if self.tokenizer is None else Pieces.of(Path(self.tokenizer).expanduser())

    @abstractmethod
    def read(self, download: bool) -> Corpus:
        """The tokenised texts, from the cache or from their source.

        Raises:
            DataUnavailable: The source is nowhere to be had.
        """

    def prepare_data(self) -> None:
        """Find, read and tokenise the texts once."""
        self._corpus = self._read_or_stand_in(download=True)

    def setup(self, stage: str | None = None) -> None:
        settings = (self.seed, self.folds, self.fold, self.train_on_all)
        if self._built_for == settings:
            return
        corpus = self._corpus if self._corpus is not None else self._read_or_stand_in(download=False)
        # Arrays of the whole corpus are not needed once the splits are there; another setup reads the cache.
        self._corpus = None
        self._build(corpus)
        self._built_for = settings

    def _read_or_stand_in(self, download: bool) -> Corpus:
        try:
            return self.read(download)
        except DataUnavailable as error:
            return STAND_INS[self.stand_in(error)](self.pieces)

    def tokenised(self, documents: Iterable[Document]) -> Corpus:
        """Split texts into words, or into the pieces of ``tokenizer``, in one pass."""
        return Corpus.build(documents, self.split, self.pieces)

    def cached(self, key: str, build: Callable[[], Corpus]) -> Corpus:
        """``build()``, from the cache if its texts were tokenised before.

        Args:
            key: Name of the texts, made from their content.
            build: Function that reads and tokenises them.
        """
        how = self.split if self.pieces is None else f"pieces-{self.pieces.digest}"
        arrays, names = cached(
            self.data_dir,
            f"text-{key}-{LAYOUT}-{how}",
            lambda: ((corpus := build()).arrays(), corpus.names()),
        )
        return Corpus(**{**arrays, **names})

    def _build(self, corpus: Corpus) -> None:
        if self.pieces is not None:
            self._build_of_pieces(corpus, self.pieces)
            return
        rows, held_out, test = self._split(corpus)
        ngrams = 1 if self.input == "tokens" else max(2, self.ngrams) if corpus.characters else self.ngrams
        runs = self._vocabulary(corpus, rows, ngrams)
        self._say_how_words_are_found(corpus, runs, rows, held_out)
        written, weights = self.format.differences(), None
        if self.weights == "nb":
            starts, values = runs.bags(corpus, rows)
            weights = log_count_ratios(starts, values, len(runs.words), corpus.labels[rows])
        self.encoder = (
            BagEncoder(
                runs.words,
                ngrams,
                self.column,
                written,
                None if weights is None else weights.tolist(),
                corpus.characters,
                self._wide(runs),
            )
            if self.input == "bag"
            else TokensEncoder(
                runs.words, self.max_length, self.keep, self.column, written, corpus.characters
            )
        )
        train, self.validation, self.test = (
            self._rows(corpus, runs, part, weights) if len(part) else None for part in (rows, held_out, test)
        )
        assert train is not None
        self.spec = self._spec(corpus.classes, runs, train.y)
        self.train = self.oversampled(train)

    def _build_of_pieces(self, corpus: Corpus, pieces: Pieces) -> None:
        self.guesses = []
        self.encoder = PiecesEncoder(
            json.loads(pieces.definition),
            self.max_length,
            self.keep,
            self.column,
            self.format.differences(),
        )
        ids = np.arange(pieces.count + 1, dtype=np.int32)

        def of(rows: np.ndarray) -> Rows:
            found = corpus.sequences(rows, ids, pieces.kept(self.max_length), self.keep)
            starts, values = pieces.framed(*found)
            y = self._targets(corpus, rows)
            return RaggedRows(torch.from_numpy(starts), torch.from_numpy(values), y)

        parts = self._split(corpus)
        train, self.validation, self.test = (of(part) if len(part) else None for part in parts)
        assert train is not None
        self.spec = self._described(
            corpus.classes, train.y, "tokens", input_shape=(0,), vocabulary=pieces.count + 1
        )
        self.train = self.oversampled(train)

    def _targets(self, corpus: Corpus, rows: np.ndarray) -> Tensor:
        y = torch.from_numpy(corpus.labels[rows])
        return y.float() if len(corpus.classes) == 2 else y

    def _wide(self, runs: Runs) -> bool:
        return self.input == "bag" and len(runs.words) > WIDE

    def _rows(self, corpus: Corpus, runs: Runs, rows: np.ndarray, weights: np.ndarray | None) -> Rows:
        """The texts ``rows`` as the model's input."""
        y = self._targets(corpus, rows)
        if self.input == "bag":
            starts, values = runs.bags(corpus, rows)
            if self._wide(runs):
                return RaggedRows(torch.from_numpy(starts), torch.from_numpy(values + (UNKNOWN + 1)), y)
            scale = None if weights is None else torch.from_numpy(weights)
            return SparseRows(torch.from_numpy(starts), torch.from_numpy(values), len(runs.words), y, scale)
        ids = np.where(runs.singles < 0, UNKNOWN, runs.singles + UNKNOWN + 1).astype(np.int32)
        starts, values = corpus.sequences(rows, ids, self.max_length, self.keep)
        return RaggedRows(torch.from_numpy(starts), torch.from_numpy(values), y)

    def _say_how_words_are_found(
        self, corpus: Corpus, runs: Runs, rows: np.ndarray, held_out: np.ndarray
    ) -> None:
        """What was guessed of the words, and whether those of training are found in other texts."""
        self.guesses = []
        if corpus.characters and self.split == "auto":
            what = "the texts are written without blanks: each of their characters counts as a word"
            what += ", and each two beside each other" if self.input == "bag" else ""
            self.guesses.append(Guess(what, "data.words=blanks", effect="takes what stands between blanks"))
        counts = corpus.counts(held_out) if len(held_out) else np.zeros(0)
        known = counts[runs.singles >= 0].sum() / counts.sum() if counts.sum() else 1.0
        if known < COVERED:
            more = (
                f"data.vocabulary_size={2 * self.vocabulary_size}"
                if len(runs.words) == self.vocabulary_size
                else ""
            )
            key = "data.words=characters" if not corpus.characters and self._unblanked(corpus) else more
            self.guesses.append(
                Guess(
                    f"single words cover the texts badly: {known:.0%} of the words of the validation texts are known",
                    key,
                    costly=True,
                    effect="" if key else "other texts of the same kind would help, or more of them",
                )
            )
        say(self.guesses, self.source)

    def _unblanked(self, corpus: Corpus) -> bool:
        from pipeline.data.text.words import needs_characters

        return needs_characters(corpus.words)

    def _split(self, corpus: Corpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the texts for training, validation and test."""
        learn, test = np.flatnonzero(corpus.parts == TRAIN), np.flatnonzero(corpus.parts == TEST)
        if not len(test) and self.test_fraction:
            # Not the order that the validation split starts from: the two must not depend on each other.
            chosen = drawn(len(learn), self.test_fraction, [self.seed, 1], corpus.labels[learn])
            test, learn = learn[chosen], np.delete(learn, chosen)
        rows, held_out = (
            part.numpy() for part in self.split_rows(torch.from_numpy(corpus.labels[learn]), stratify=True)
        )
        return learn if self.train_on_all else learn[rows], learn[held_out], test

    def _vocabulary(self, corpus: Corpus, rows: np.ndarray, ngrams: int) -> Runs:
        chosen = Runs.chosen(corpus, rows, ngrams, self.vocabulary_size)
        if not chosen.words:
            raise UserError(
                f"the {len(rows)} training texts of {self.name} hold no word; is the right column or file named?"
            )
        return chosen

    def _spec(self, classes: list[str], runs: Runs, y: Tensor) -> Spec:
        words = len(runs.words)
        if self.input == "bag" and not self._wide(runs):
            return self._described(classes, y, "bag", input_shape=(words,))
        vocabulary = words + UNKNOWN + 1
        return self._described(
            classes, y, "tokens", input_shape=(0,), vocabulary=vocabulary, unordered=self._wide(runs)
        )

    def _described(self, classes: list[str], y: Tensor, input: Literal["bag", "tokens"], **more: Any) -> Spec:
        binary = len(classes) == 2
        return Spec(
            task="binary" if binary else "multiclass",
            input=input,
            outputs=1 if binary else len(classes),
            classes=tuple(classes),
            target_name=self.target_name,
            class_weights=self.class_weights(y, len(classes)),
            **more,
        )
