"""Runs of words, how much each counts, and texts written without blanks, against counts made one by one."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.encoders import restored
from pipeline.data.text import documents, runs
from pipeline.data.text.corpus import Corpus, Document
from pipeline.data.text.files import TextTable
from pipeline.data.text.runs import Runs, log_count_ratios
from pipeline.data.text.words import tokenise
from pipeline.errors import UserError
from pipeline.models.linear import Linear
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train

GOOD, BAD = ["好", "喜欢", "精彩"], ["差", "讨厌", "失望"]
FILL = "这部电影的故事情节和演员表演都让我觉得非常"


def texts(count: int = 120, seed: int = 0) -> list[str]:
    source = random.Random(seed)
    words = ["a", "film", "not", "good", "bad", "at", "all", ",", "really", "it's"]
    return [" ".join(source.choices(words, k=source.randint(0, 12))) for _ in range(count)]


@pytest.mark.parametrize("most", [runs.MOST_RUNS, 60])
@pytest.mark.parametrize(("ngrams", "size"), [(1, 6), (2, 30), (3, 80), (4, 5000)])
def test_the_most_frequent_runs_are_those_a_counter_finds(
    ngrams: int, size: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = texts()
    corpus = Corpus.build(Document(text, "ab"[row % 2]) for row, text in enumerate(known))
    rows = np.arange(0, len(known), 2)
    if most == 60:
        if ngrams > 2:
            return
        # Counted in pieces, and what occurs once is forgotten on the way.
        monkeypatch.setattr(runs, "MOST_RUNS", most)
    found = Runs.chosen(corpus, rows, ngrams, size)
    counts = Counter(word for row in rows for word in tokenise(known[row], ngrams))
    expected = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]]
    assert found.words == expected
    starts, columns = found.bags(corpus, np.arange(len(known)))
    for row, text in enumerate(known):
        bag = {found.words[column] for column in columns[starts[row] : starts[row + 1]]}
        assert bag == set(tokenise(text, ngrams)) & set(expected)


def test_log_count_ratios_are_those_of_the_formula() -> None:
    sets = [[0, 1], [0, 2], [1], [2], [2, 3]]
    labels = np.array([0, 0, 0, 1, 1])
    starts = np.cumsum([0, *map(len, sets)])
    p = np.array([2, 2, 1, 0]) + 1.0
    q = np.array([0, 0, 2, 1]) + 1.0
    expected = np.abs(np.log((p / p.sum()) / (q / q.sum())))
    found = log_count_ratios(starts, np.concatenate(sets), 4, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Of three classes the root of the mean square, by the classes' shares of the texts.
    squares = np.zeros(4)
    for number, share in enumerate((0.4, 0.2, 0.4)):
        own, rest = np.ones(4), np.ones(4)
        for columns, label in zip(sets, (0, 1, 0, 2, 2), strict=True):
            (own if label == number else rest)[columns] += 1
        squares += share * np.log((own / own.sum()) / (rest / rest.sum())) ** 2
    three = log_count_ratios(starts, np.concatenate(sets), 4, np.array([0, 1, 0, 2, 2]))
    np.testing.assert_allclose(three, np.sqrt(squares), rtol=1e-6)


def reviews(path: Path, rows: int = 240) -> Path:
    """Whether a film is liked shows in pairs of words alone: "not good" is bad, "not bad" is good."""
    source = random.Random(1)
    lines = []
    for _ in range(rows):
        word, no = source.choice(["good", "bad"]), source.random() < 0.5
        label = (word == "good") != no
        rest = " ".join(source.choices(["the", "film", "was", "a", "story"], k=6))
        lines.append({"text": f"{rest} {'not' if no else 'very'} {word} {rest}", "label": "np"[label]})
    pd.DataFrame(lines).to_csv(path, index=False)
    return path


def run(folder: Path, *words: str) -> RunResult:
    cfg = compose(
        [
            *("data=text_csv", f"data.path={folder / 't.csv'}", "model=linear", "logger=none"),
            *(
                "callbacks.progress=null",
                f"paths.experiments_dir={folder}",
                f"paths.data_dir={folder}",
                *words,
            ),
        ]
    )
    return train(cfg, Hooks(directory=folder / "run", reports=False))


@pytest.mark.parametrize("wide", [False, True])
def test_pairs_of_words_tell_what_single_ones_do_not(
    wide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews(tmp_path / "t.csv")
    monkeypatch.setattr(documents, "WIDE", 10 if wide else 20_000)
    exact = ["model.solver=exact", "data.weights=nb"]
    assert run(tmp_path, *exact, "data.ngrams=2").metrics["test/accuracy"] >= 0.97
    alone = run(tmp_path, "model.solver=exact", "data.ngrams=1")
    assert alone.metrics["test/accuracy"] <= 0.8


def test_ids_of_a_large_vocabulary_give_the_answers_that_a_row_of_zeros_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reviews(tmp_path / "t.csv")
    found: list[tuple[Any, Any]] = []
    for most in (20_000, 10):
        monkeypatch.setattr(documents, "WIDE", most)
        result = run(tmp_path, "model.solver=exact", "model.alpha=1.0", "data.weights=nb", "data.ngrams=2")
        data = TextTable(str(path), ngrams=2, weights="nb", data_dir=tmp_path)
        data.setup()
        x = data.train.take(torch.arange(20))[0]
        encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
        frame = pd.read_csv(path)
        assert encoder.encode(frame["text"].tolist()).shape[0] == len(frame)
        found.append((result, (data.spec.input, x.dtype)))
    (dense, first), (ids, second) = found
    assert (first, second) == (("bag", torch.float32), ("tokens", torch.int64))
    for name in ("test/loss", "val/loss", "test/accuracy"):
        assert dense.metrics[name] == pytest.approx(ids.metrics[name], rel=1e-3)


def test_what_needs_the_order_of_words_or_another_solver_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reviews(tmp_path / "t.csv")
    monkeypatch.setattr(documents, "WIDE", 10)
    data = TextTable(str(path), ngrams=2, weights="nb", data_dir=tmp_path)
    data.setup()
    with pytest.raises(UserError, match=r"model\.solver=exact"):
        Linear.from_data(data.train, data.encoder, {})
    with pytest.raises(UserError, match=r"data\.input=bag"):
        TextTable(str(path), input="tokens", weights="nb", data_dir=tmp_path)


def chinese(path: Path, rows: int = 300) -> Path:
    source = random.Random(0)
    lines = []
    for row in range(rows):
        start, end = "".join(source.sample(FILL, 14)), "".join(source.sample(FILL, 6))
        lines.append({"text": start + source.choice(GOOD if row % 2 else BAD) + end, "label": row % 2})
    pd.DataFrame(lines).to_csv(path, index=False)
    return path


def test_a_language_without_blanks_is_learnt_by_its_characters(tmp_path: Path) -> None:
    chinese(tmp_path / "t.csv")
    result = run(tmp_path, "model.solver=exact")
    assert result.metrics["test/accuracy"] >= 0.95
    assert [guess["key"] for guess in result.guesses] == ["data.words=blanks"]
    data = TextTable(str(tmp_path / "t.csv"), data_dir=tmp_path)
    data.setup()
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    frame = pd.read_csv(tmp_path / "t.csv")
    assert encoder.encode(["很好 film"]).sum() == encoder.encode(["很好film"]).sum() > 0
    columns = [encoder.words.index(word) for word in ("喜", "喜 欢")]  # type: ignore[attr-defined]
    liked = frame["text"].str.contains("喜欢").to_numpy()
    assert (encoder.encode(frame["text"].tolist()).numpy()[:, columns].all(1) == liked).all()


def test_single_words_that_cover_the_texts_badly_are_warned_of(tmp_path: Path) -> None:
    chinese(tmp_path / "t.csv")
    data = TextTable(str(tmp_path / "t.csv"), words="blanks", data_dir=tmp_path)
    data.setup()
    (guess,) = data.guesses
    assert guess.costly and guess.key == "data.words=characters" and "0% of the words" in guess.what
    tokens = TextTable(str(tmp_path / "t.csv"), input="tokens", data_dir=tmp_path)
    tokens.setup()
    assert tokens.train.take(torch.arange(1))[0].shape[1] >= 20
