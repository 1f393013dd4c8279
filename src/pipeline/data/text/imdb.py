"""The Large Movie Review Dataset: 25,000 reviews to learn from and 25,000 to test, half of them positive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.data.sources.archives import Damaged, read_members
from pipeline.data.text.corpus import TEST, TRAIN, Corpus, Document
from pipeline.data.text.documents import Documents
from pipeline.data.text.pieces import Pieces

FOLDERS = {
    f"aclImdb/{part}/{folder}": (label, number)
    for part, number in (("train", TRAIN), ("test", TEST))
    for folder, label in (("neg", "negative"), ("pos", "positive"))
}
REVIEWS = 12_500
"""Number of reviews in each folder."""


class Imdb(Documents):
    """Film reviews, positive or negative.

    Args:
        **settings: Settings of labelled texts, see :class:`Documents`.
    """

    def __init__(self, name: str = "imdb", **settings: Any) -> None:
        super().__init__(name=name, target_name="sentiment", **settings)

    def read(self, download: bool) -> Corpus:
        just_read: dict[Path, Corpus] = {}

        def check(path: Path) -> None:
            # An archive that no checksum vouches for is checked by reading it: its words are then kept, since
            # reading it takes as long as tokenising it.
            just_read[path] = tokenised(path, self.split, self.pieces)

        source = replace(catalogue.IMDB, check=check)
        path = sources.locate(source, self.data_dir, sources.search_path(), download)
        self.source = str(path)
        return self.cached(
            f"imdb-{sources.digest(path)[:16]}",
            lambda: just_read.pop(path, None) or tokenised(path, self.split, self.pieces),
        )


def tokenised(path: Path, words: str = "auto", pieces: Pieces | None = None) -> Corpus:
    """Read and tokenise the archive in one pass.

    Raises:
        Damaged: The archive is not whole.
    """
    corpus = Corpus.build(reviews(path), words, pieces)
    found = Counter(zip(corpus.labels.tolist(), corpus.parts.tolist(), strict=True))
    for folder, (label, part) in FOLDERS.items():
        if (count := found[corpus.classes.index(label), part]) != REVIEWS:
            raise Damaged(path, f"{count} reviews in {folder}, not {REVIEWS}")
    return corpus


def reviews(path: Path) -> Iterator[Document]:
    """The labelled reviews of the archive; those without a label are passed over."""
    for name, content in read_members(path, wanted=lambda name: name.endswith(".txt")):
        if labelled := FOLDERS.get(name[: name.rfind("/")]):
            yield Document(content.decode("utf-8", "replace"), *labelled)
