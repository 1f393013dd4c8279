"""A text as a stream of characters: splits, vocabulary, stand-in, baselines."""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.core.splits import Streams
from pipeline.data.sources.finding import DataUnavailable
from pipeline.data.text.baselines import bigram, most_frequent_character
from pipeline.data.text.characters import TextFile, python_topics
from pipeline.errors import UserError

TEXT = "One morning, as Gregor Samsa was waking up — ünruhig — from anxious dreams. " * 20


def ready(path: Path | None, **settings: Any) -> TextFile:
    data = TextFile(None if path is None else str(path), data_dir=(path or Path()).parent, **settings)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def read(split: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of a split as its batches give them, (streams, length)."""
    assert isinstance(split, Streams)
    pieces = [split.take(rows) for rows in split.order(1)]
    return torch.cat([x for x, _ in pieces], 1), torch.cat([y for _, y in pieces], 1)


def test_every_character_of_the_text_is_predicted_once_and_in_order(file: Path) -> None:
    data = ready(file, batch_size=1, steps=7, eval_steps=9, test_fraction=0.1, validation_fraction=0.1)
    test = round(len(TEXT) * 0.1)
    validation = round((len(TEXT) - test) * 0.1)
    said = ""
    for split, length in (
        (data.train, len(TEXT) - test - validation - 1),
        (data.validation, validation),
        (data.test, test),
    ):
        x, y = read(split)
        assert y.shape == (1, length)
        assert torch.equal(x[0, 1:], y[0, :-1])
        said += "".join(data.spec.classes[i] for i in y[0])
    assert said == TEXT[1:]


def test_streams_are_equal_parts_of_the_training_text_side_by_side(file: Path) -> None:
    data = ready(file, batch_size=4, steps=25, test_fraction=0.0, validation_fraction=0.0)
    x, y = read(data.train)
    length = (len(TEXT) - 1) // 4
    assert x.shape == y.shape == (4, length)
    for stream in range(4):
        text = "".join(data.spec.classes[i] for i in x[stream])
        assert text == TEXT[stream * length : (stream + 1) * length]
    assert data.validation is data.test is None


def test_the_vocabulary_is_that_of_the_training_part(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("ab" * 45 + "z" * 10, encoding="utf-8")
    data = ready(path, batch_size=1, test_fraction=0.1, validation_fraction=0.0)
    assert data.spec.classes == ("�", "a", "b")
    assert data.spec.vocabulary == data.spec.outputs == 3
    assert set(read(data.test)[1][0].tolist()) == {0}


def test_only_the_first_characters_are_used_if_asked_for(file: Path) -> None:
    data = ready(file, characters=100, batch_size=1, test_fraction=0.0, validation_fraction=0.0)
    assert data.train.samples == 99


def test_without_the_book_the_stand_in_is_loud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = TextFile(data_dir=tmp_path, fallback="python_topics", batch_size=2)
        data.prepare_data()
        data.setup()
    assert (data.requested, data.used) == ("kafka", "python_topics")
    assert "stand-in" in caplog.text
    with pytest.raises(DataUnavailable, match="Three ways"):
        TextFile(data_dir=tmp_path).prepare_data()
    with pytest.raises(UserError, match="python_topics"):
        TextFile(data_dir=tmp_path, fallback="other").prepare_data()
    assert len(python_topics()) == 140_000


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (None, {}, "cannot be read"),
        (b"", {}, "holds no text"),
        (b" \n\t", {}, "holds no text"),
        (b"\xff\xfe\x00", {}, "not UTF-8"),
        (b"short", {"batch_size": 64}, "too few"),
        (b"long enough", {"folds": 3}, "data.folds"),
        (b"long enough", {"test_fraction": 1.5}, "data.test_fraction"),
    ],
)
def test_a_bad_text_is_refused_with_one_message(
    tmp_path: Path, content: bytes | None, settings: dict[str, Any], message: str
) -> None:
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        ready(path, **settings)


def test_a_text_of_ones_own_needs_a_path() -> None:
    with pytest.raises(UserError, match=r"data\.path"):
        TextFile(name="text_file").prepare_data()


def test_baselines_are_those_of_a_plain_loop(file: Path) -> None:
    data = ready(file, batch_size=3, test_fraction=0.2, validation_fraction=0.0)
    assert data.test is not None
    learn, held = read(data.train), read(data.test)
    classes = data.spec.outputs
    targets = held[1][0].tolist()

    counts = Counter(learn[1].reshape(-1).tolist())
    best = max(range(classes), key=lambda i: counts[i])
    found = most_frequent_character(data.train, data.test, data.spec)
    assert found["accuracy"] == pytest.approx(sum(t == best for t in targets) / len(targets))
    total = sum(counts.values()) + classes
    loss = -sum(math.log((counts[t] + 1) / total) for t in targets) / len(targets)
    assert found["loss"] == pytest.approx(loss)
    assert found["bits_per_char"] == pytest.approx(loss / math.log(2))

    pairs = Counter(zip(learn[0].reshape(-1).tolist(), learn[1].reshape(-1).tolist(), strict=True))
    inputs = held[0][0].tolist()
    right, loss = 0, 0.0
    for x, t in zip(inputs, targets, strict=True):
        row = [pairs[x, c] + 1 for c in range(classes)]
        right += t == row.index(max(row))
        loss -= math.log(row[t] / sum(row))
    found = bigram(data.train, data.test, data.spec)
    assert found["accuracy"] == pytest.approx(right / len(targets))
    assert found["bits_per_char"] == pytest.approx(loss / len(targets) / math.log(2))
