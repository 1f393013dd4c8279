"""Reviews made up from a seed: the stand-in for text data that is not to be had."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pipeline.data.text.corpus import TEST, TRAIN, Document

SUBJECTS = [
    "film",
    "story",
    "plot",
    "cast",
    "acting",
    "script",
    "music",
    "camera",
    "ending",
    "dialogue",
    "direction",
    "pace",
    "hero",
    "villain",
    "scenery",
]
NEUTRAL = [
    "the",
    "of",
    "and",
    "a",
    "in",
    "it",
    "was",
    "this",
    "we",
    "saw",
    "on",
    "with",
    "an",
    "evening",
    "at",
    "cinema",
    "my",
    "friend",
    "who",
    "had",
    "read",
    "about",
    "director",
    "made",
    "two",
    "hours",
    "long",
    "second",
    "half",
    "first",
    "scene",
    "then",
    "there",
    "were",
    "also",
    "more",
    "than",
    "one",
    "people",
    "around",
    "us",
    "when",
    "lights",
    "went",
    "out",
]
OPINIONS = {
    "positive": [
        "wonderful",
        "brilliant",
        "moving",
        "superb",
        "charming",
        "delightful",
        "gripping",
        "funny",
        "honest",
        "warm",
        "clever",
        "lovely",
    ],
    "negative": [
        "dull",
        "awful",
        "boring",
        "clumsy",
        "tedious",
        "wooden",
        "shallow",
        "predictable",
        "lifeless",
        "stupid",
        "annoying",
        "weak",
    ],
}


def generated_reviews(train: int = 6000, test: int = 2000, seed: int = 0) -> Iterator[Document]:
    """Short reviews, half of them positive: most opinions in one agree with its label, some do not.

    Args:
        train: Number of reviews to learn from.
        test: Number of reviews for the test.
        seed: Seed of everything.
    """
    source = random.Random(seed)
    for number in range(train + test):
        label = ("negative", "positive")[number % 2]
        yield Document(_review(label, source), label, TRAIN if number < train else TEST)


def _review(label: str, source: random.Random) -> str:
    other = "negative" if label == "positive" else "positive"
    sentences = []
    for _ in range(source.randint(2, 6)):
        opinion = source.choice(OPINIONS[label if source.random() < 0.7 else other])
        words = source.choices(NEUTRAL, k=source.randint(3, 10))
        sentences.append(f"{' '.join(words)} the {source.choice(SUBJECTS)} was {opinion}.".capitalize())
    return " ".join(sentences)
