"""Labelled texts of one's own, the published collections' readers, their cache and their stand-ins."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data.encoders import restored
from pipeline.data.sources import catalogue
from pipeline.data.sources import finding as sources
from pipeline.data.sources.archives import Damaged
from pipeline.data.text import imdb
from pipeline.data.text.documents import Documents
from pipeline.data.text.files import TextFolder, TextTable
from pipeline.data.text.generated import generated_reviews
from pipeline.data.text.imdb import Imdb
from pipeline.data.text.reuters import Reuters, story_text
from pipeline.data.text.words import tokenise, tokenise_fast
from pipeline.errors import UserError
from pipeline.evaluation.inputs import chunks

REVIEWS = {"pos": ["a good film", "good fun"], "neg": ["a bad film", "bad, sad"]}


def ready(data: Documents) -> Documents:
    data.prepare_data()
    data.setup()
    return data


def inputs(split: Any) -> torch.Tensor:
    return split.take(torch.arange(len(split)))[0]


def table(path: Path, rows: int = 40) -> Path:
    frame = pd.DataFrame(
        {
            "text": [f"{'good' if i % 2 else 'bad'} film number n{i}" for i in range(rows)],
            "label": [i % 2 for i in range(rows)],
        }
    )
    writers = {".csv": frame.to_csv, ".parquet": frame.to_parquet}
    if path.suffix == ".tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        writers[path.suffix](path, index=False)
    return path


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def small_imdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(imdb, "REVIEWS", 2)
    files = {
        f"aclImdb/{part}/{label}/{number}.txt": f"{text} {part}".encode()
        for part in ("train", "test")
        for label, texts in REVIEWS.items()
        for number, text in enumerate(texts)
    }
    files["aclImdb/train/unsup/0.txt"] = b"no label"
    return archive(tmp_path / "aclImdb_v1.tar.gz", files)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_a_table_of_texts_becomes_three_splits(tmp_path: Path, suffix: str) -> None:
    data = ready(TextTable(str(table(tmp_path / f"t{suffix}")), data_dir=tmp_path, validation_fraction=0.25))
    assert (len(data.train), len(data.validation or ()), len(data.test or ())) == (24, 8, 8)
    assert data.spec.classes == ("0", "1")
    assert data.spec.task == "binary"
    assert data.spec.target_name == "label"
    for split in (data.train, data.validation, data.test):
        assert split is not None
        assert split.y.mean() == 0.5


def test_the_encoder_gives_the_splits_own_input(tmp_path: Path) -> None:
    frame = pd.read_csv(table(tmp_path / "t.csv"))
    for settings in ({"input": "bag"}, {"input": "tokens", "max_length": 3}, {"input": "bag", "ngrams": 2}):
        data = ready(TextTable(str(tmp_path / "t.csv"), data_dir=tmp_path, **settings))
        encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
        assert data.test is not None
        rows = {tuple(row) for row in encoder.encode(frame["text"]).tolist()}
        assert {tuple(row) for row in inputs(data.test).tolist()} <= rows
        assert {tuple(row) for row in inputs(data.train).tolist()} <= rows


def test_the_vocabulary_comes_from_the_training_fold_alone(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    everywhere = set()
    for fold in range(4):
        data = ready(TextTable(str(path), data_dir=tmp_path, folds=4, fold=fold))
        assert data.validation is not None
        words = set(data.encoder.words)  # type: ignore[attr-defined]
        own = {word for word in words if word[0] == "n" and word[1:].isdigit()}
        # Each text has a word of its own: known are those of the training texts, and no others.
        assert len(own) == len(data.train)
        assert inputs(data.validation).sum(1).tolist() == [3.0] * len(data.validation)
        everywhere |= own
    assert len(everywhere) == 32


def test_the_most_frequent_words_are_those_a_counter_finds(tmp_path: Path) -> None:
    texts = [f"{'x ' * (i % 5)}{'y ' * (i % 3)} z w{i}" for i in range(30)]
    pd.DataFrame({"text": texts, "label": [i % 2 for i in range(30)]}).to_csv(tmp_path / "t.csv", index=False)
    settings: dict[str, Any] = {"test_fraction": 0.0, "validation_fraction": 0.0, "data_dir": tmp_path}
    data = ready(TextTable(str(tmp_path / "t.csv"), vocabulary_size=5, **settings))
    counts = Counter(word for text in texts for word in tokenise(text))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:5]
    assert data.encoder.words == expected  # type: ignore[attr-defined]
    multi_hot = [[float(word in tokenise(text)) for word in expected] for text in texts]
    assert inputs(data.train).tolist() == multi_hot


def test_the_texts_of_several_columns_are_joined(tmp_path: Path) -> None:
    rows = [("good", "film"), ("bad", None), ("good", "plot"), ("dull", "plot")] * 10
    frame = pd.DataFrame(rows, columns=["title", "body"]).assign(label=["p", "n", "p", "n"] * 10)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    data = TextTable(
        str(tmp_path / "t.csv"),
        text=["title", "body"],
        validation_fraction=0,
        test_fraction=0,
        data_dir=tmp_path,
    )
    data.setup()
    x = data.train.take(torch.arange(40))[0]
    encoder = restored(data.encoder.to_state())
    assert torch.equal(encoder.encode(["good film", "bad", "good plot", "dull plot"] * 10), x)
    for name in ("t.csv", "t.jsonl"):
        (some,) = chunks(str(tmp_path / name), encoder, 100)
        assert torch.equal(encoder.encode(some.raw), x), name
    with pytest.raises(UserError, match="lacks the column 'body'"):
        encoder.encode(frame[["title", "label"]])


def test_a_folder_a_class_is_read_with_its_own_test_folder_if_there_is_one(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, texts in REVIEWS.items():
            folder = tmp_path / "films" / part / label
            folder.mkdir(parents=True)
            for number, text in enumerate(texts):
                (folder / f"{number}.txt").write_text(f"\ufeff{text} {part}", encoding="utf-8")
    data = ready(TextFolder(str(tmp_path / "films"), data_dir=tmp_path, validation_fraction=0.0))
    assert (len(data.train), data.validation, len(data.test or ())) == (4, None, 4)
    assert data.spec.classes == ("neg", "pos")
    assert "train" in data.encoder.words  # type: ignore[attr-defined]
    assert "test" not in data.encoder.words  # type: ignore[attr-defined]
    mixed = ready(
        TextFolder(
            str(tmp_path / "films/train"), data_dir=tmp_path, test_fraction=0.5, validation_fraction=0.0
        )
    )
    assert len(mixed.train) == len(mixed.test or ()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"text,label\n", "no rows"),
        (b"words,label\na,b\n", "data.text"),
        (b"text,kind\na,b\n", "data.target"),
        (b"text,label\na,x\nb,x\n", "two classes"),
        (b"text,label\na,\nb,\n", "'label'"),
        ("text,label\nä,x\nb,y\n".encode("latin-1"), "UTF-8"),
        (b"text,label\n!,x\n", "two classes"),
        (b"text,label\n,x\n,y\n,x\n,y\n,x\n,y\n", "hold no word"),
        (b'text,label\n"a,x\nb', "a quotation mark is never closed"),
    ],
)
def test_a_bad_table_is_refused_with_one_message(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        ready(TextTable(str(tmp_path / "t.csv"), data_dir=tmp_path))


def test_a_bad_folder_is_refused_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory"):
        ready(TextFolder(str(tmp_path / "none"), data_dir=tmp_path))
    (tmp_path / "films" / "good").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no texts"):
        ready(TextFolder(str(tmp_path / "films"), data_dir=tmp_path))
    (tmp_path / "films" / "good" / "1.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="not UTF-8"):
        ready(TextFolder(str(tmp_path / "films"), data_dir=tmp_path))


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for settings, message in (({"input": "words"}, "data.input"), ({"keep": "middle"}, "data.keep")):
        with pytest.raises(UserError, match=message):
            TextTable("t.csv", **settings)
    with pytest.raises(UserError, match=r"data.ngrams"):
        TextTable("t.csv", input="tokens", ngrams=2)


def test_a_second_start_reads_no_review(
    small_imdb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ready(Imdb(data_dir=tmp_path, validation_fraction=0.0))
    assert first.spec.classes == ("negative", "positive")
    assert first.train.y.tolist() == [1, 1, 0, 0]
    assert "label" not in first.encoder.words  # type: ignore[attr-defined]

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("the archive is read again")

    monkeypatch.setattr(imdb, "reviews", refuse)
    second = ready(Imdb(data_dir=tmp_path, validation_fraction=0.0))
    assert second.digest == first.digest
    assert second.encoder.to_state() == first.encoder.to_state()


def test_other_content_is_not_taken_from_the_cache(small_imdb: Path, tmp_path: Path) -> None:
    ready(Imdb(data_dir=tmp_path, validation_fraction=0.0))
    files = {
        f"aclImdb/{part}/{label}/{n}.txt": b"entirely new"
        for part in ("train", "test")
        for label in REVIEWS
        for n in range(2)
    }
    archive(small_imdb, files)
    data = ready(Imdb(data_dir=tmp_path, validation_fraction=0.0))
    assert data.encoder.words == ["entirely", "new"]  # type: ignore[attr-defined]


def test_a_damaged_cache_is_built_again(small_imdb: Path, tmp_path: Path) -> None:
    first = ready(Imdb(data_dir=tmp_path, validation_fraction=0.0))
    (tokens,) = (tmp_path / "cache").glob("text-imdb-*/tokens.npy")
    whole = tokens.read_bytes()
    for damage in (whole[:-3], whole[:-1] + bytes([whole[-1] ^ 1]), b"\x80\x04pickle", b""):
        tokens.write_bytes(damage)
        assert ready(Imdb(data_dir=tmp_path, validation_fraction=0.0)).digest == first.digest
        assert tokens.read_bytes() == whole


def test_a_damaged_archive_is_moved_aside_and_the_stand_in_says_so(
    small_imdb: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_imdb.write_bytes(small_imdb.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        data = ready(Imdb(data_dir=tmp_path, fallback="generated_reviews"))
    assert (data.requested, data.used) == ("imdb", "generated_reviews")
    assert "damaged" in caplog.text
    assert "stand-in" in caplog.text
    assert not small_imdb.exists()
    with pytest.raises(sources.DataUnavailable, match="Three ways"):
        ready(Imdb(data_dir=tmp_path))
    with pytest.raises(UserError, match="generated_reviews"):
        ready(Imdb(data_dir=tmp_path, fallback="nothing"))


def test_an_archive_that_lacks_reviews_is_damaged(small_imdb: Path, tmp_path: Path) -> None:
    archive(small_imdb, {"aclImdb/train/pos/0.txt": b"a", "aclImdb/train/neg/0.txt": b"b"})
    with pytest.raises(Damaged, match="not 2"):
        imdb.tokenised(small_imdb, 1)


def test_generated_reviews_are_those_of_the_seed_and_can_be_learnt() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    documents = list(generated_reviews())
    assert documents == list(generated_reviews())
    assert documents != list(generated_reviews(seed=1))
    parts = {part: [d for d in documents if d.part == part] for part in (0, 1)}
    count = CountVectorizer(binary=True)
    model = LogisticRegression().fit(
        count.fit_transform([d.text for d in parts[0]]), [d.label for d in parts[0]]
    )
    accuracy = model.score(count.transform([d.text for d in parts[1]]), [d.label for d in parts[1]])
    assert 0.75 < accuracy < 0.99


def story(topics: list[str], split: str, body: str, flag: str = "YES") -> str:
    listed = "".join(f"<D>{topic}</D>" for topic in topics)
    return (
        f'<REUTERS TOPICS="{flag}" LEWISSPLIT="{split}" CGISPLIT="X" OLDID="1" NEWID="1">\n<TOPICS>{listed}</TOPICS>'
        f"<PLACES><D>usa</D></PLACES><TEXT>&#2;\n<TITLE>ABOUT {body}</TITLE>\n<BODY>{body}\n&#3;</BODY></TEXT>\n"
        "</REUTERS>\n"
    )


def test_reuters_keeps_single_topic_stories_of_the_split_and_the_most_frequent_topics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '<!DOCTYPE lewis SYSTEM "file:///etc/passwd">\n' + "".join(
        [story(["earn"], "TRAIN", f"profit &amp; loss e{i}") for i in range(4)]
        + [story(["acq"], "TRAIN", f"shares a{i}") for i in range(3)]
        + [
            story(["zinc"], "TRAIN", "zinc"),
            story(["earn"], "TEST", "profit"),
            story(["acq"], "TEST", "shares"),
        ]
        + [
            story(["earn", "acq"], "TRAIN", "two"),
            story([], "TRAIN", "none"),
            story(["acq"], "NOT-USED", "unused"),
        ]
        + [story(["earn"], "TRAIN", "bypassed", flag="BYPASS"), story(["zinc"], "TEST", "rare")]
    )
    archive(
        tmp_path / "reuters21578.tar.gz", {"reut2-000.sgm": text.encode("latin-1"), "README.txt": b"hello"}
    )
    monkeypatch.setattr(catalogue, "REUTERS", replace(catalogue.REUTERS, check=lambda path: None))
    data = ready(Reuters(topics=2, data_dir=tmp_path, validation_fraction=0.0))
    assert data.spec.classes == ("acq", "earn")
    assert (len(data.train), len(data.test or ())) == (7, 2)
    words = data.encoder.words  # type: ignore[attr-defined]
    assert {"profit", "&", "shares", "about"} <= set(words)
    assert not {"two", "none", "unused", "bypassed", "rare", "&amp;", "root"} & set(words)


def test_a_story_without_title_and_body_is_its_text() -> None:
    assert story_text('<TEXT TYPE="UNPROC">\nshort &lt;X> news\n</TEXT>').split() == ["short", "<X>", "news"]


@pytest.mark.real_data
def test_reuters_has_the_size_of_the_modapte_split(tmp_path: Path) -> None:
    data = ready(Reuters(data_dir=tmp_path, validation_fraction=0.1))
    assert len(data.train) + len(data.validation or ()) == 6525
    assert data.test is not None
    assert len(data.test) == 2554
    assert data.spec.outputs == len(data.spec.classes) == 46
    counts = np.bincount(data.test.y.numpy())
    assert counts.max() / counts.sum() == pytest.approx(0.424, abs=5e-4)


@pytest.mark.real_data
def test_imdb_has_the_words_and_the_bags_of_a_plain_loop(tmp_path: Path, real_data: Path) -> None:
    data = ready(Imdb(data_dir=tmp_path, validation_fraction=0.0))
    learn = [review for review in imdb.reviews(real_data / "aclImdb_v1.tar.gz") if review.part == 0]
    assert (len(data.train), len(data.test or ())) == (len(learn), 25_000) == (25_000, 25_000)
    counts = Counter(word for review in learn for word in tokenise_fast(review.text))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:10_000]
    assert data.encoder.words == expected  # type: ignore[attr-defined]
    first = data.train.subset(torch.arange(200))
    assert torch.equal(data.encoder.encode([review.text for review in learn[:200]]), inputs(first))
    assert first.y.tolist() == [float(review.label == "positive") for review in learn[:200]]
