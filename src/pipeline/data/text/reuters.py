"""Reuters-21578: newswire stories with one topic each, split as Apté and others did (ModApte)."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.data.sources.archives import Damaged, read_members
from pipeline.data.text.corpus import TEST, TRAIN, Corpus, Document
from pipeline.data.text.documents import Documents

# The files are SGML with a few fixed elements. Reading those with patterns leaves no parser that could follow a
# document type or an entity to somewhere else.
STORY = re.compile(r"<REUTERS ([^>]*)>(.*?)</REUTERS>", re.DOTALL)
ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
TOPICS = re.compile(r"<TOPICS>(.*?)</TOPICS>", re.DOTALL)
TOPIC = re.compile(r"<D>(.*?)</D>")
TEXT = re.compile(r"<TEXT[^>]*>(.*?)</TEXT>", re.DOTALL)
TITLE_OR_BODY = re.compile(r"<(TITLE|BODY)>(.*?)</\1>", re.DOTALL)
TAG = re.compile(r"</?[A-Z]+[^>]*>")
PARTS = {"TRAIN": TRAIN, "TEST": TEST}


class Reuters(Documents):
    """Newswire stories by topic.

    Args:
        topics: Number of topics whose stories are kept, the most frequent ones in training (equal ones by alphabet).
        **settings: Settings of labelled texts, see :class:`Documents`.
    """

    def __init__(self, name: str = "reuters", topics: int = 46, **settings: Any) -> None:
        super().__init__(name=name, target_name="topic", **settings)
        self.topics = topics

    def read(self, download: bool) -> Corpus:
        path = sources.locate(catalogue.REUTERS, self.data_dir, sources.search_path(), download)
        self.source = str(path)
        key = f"reuters-{sources.digest(path)[:16]}-{self.topics}"
        return self.cached(key, lambda: self.tokenised(most_frequent(stories(path), self.topics)))


def stories(path: Path) -> Iterator[Document]:
    """The stories of the archive with exactly one topic that the ModApte split uses.

    Raises:
        Damaged: The archive holds no stories, or is not whole.
    """
    found = False
    for _, content in read_members(path, wanted=lambda name: name.endswith(".sgm")):
        for header, story in STORY.findall(content.decode("latin-1")):
            attributes = dict(ATTRIBUTE.findall(header))
            found = True
            topics = TOPIC.findall("".join(TOPICS.findall(story)[:1]))
            part = PARTS.get(attributes.get("LEWISSPLIT", ""))
            if attributes.get("TOPICS") == "YES" and len(topics) == 1 and part is not None:
                yield Document(story_text(story), topics[0], part)
    if not found:
        raise Damaged(path, "no <REUTERS> record in it")


def story_text(story: str) -> str:
    """Title and body of a story, or its whole text where it has neither."""
    text = "".join(TEXT.findall(story)[:1])
    parts = [part for _, part in TITLE_OR_BODY.findall(text)] or [TAG.sub(" ", text)]
    return html.unescape("\n".join(parts))


def most_frequent(documents: Iterator[Document], topics: int) -> list[Document]:
    """The documents of the topics that are most frequent in training."""
    kept = list(documents)
    counts = Counter(document.label for document in kept if document.part == TRAIN)
    names = {label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:topics]}
    return [document for document in kept if document.label in names]
