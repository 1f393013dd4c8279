"""The files that are published: their names, their addresses, and what tells a whole one from a damaged one."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.sources.archives import Damaged, read_members
from pipeline.data.sources.finding import Source


def _mnist(stem: str, content: str) -> Source:
    return Source(
        name=f"MNIST ({stem})",
        filenames=(f"MNIST/raw/{stem}-ubyte.gz", f"MNIST/raw/{stem}-ubyte"),
        urls=(
            f"https://ossci-datasets.s3.amazonaws.com/mnist/{stem}-ubyte.gz",
            f"https://storage.googleapis.com/cvdf-datasets/mnist/{stem}-ubyte.gz",
        ),
        content=content,
    )


MNIST = {
    "train_images": _mnist("train-images-idx3", "md5:6bbc9ace898e44ae57da46a324031adb"),
    "train_labels": _mnist("train-labels-idx1", "md5:a25bea736e30d166cdddb491f175f624"),
    "test_images": _mnist("t10k-images-idx3", "md5:2646ac647ad5339dbf082846283269ea"),
    "test_labels": _mnist("t10k-labels-idx1", "md5:27ae3e4e09519cfbb04c329615203637"),
}


def _check_imdb(path: Path) -> None:
    folders = [f"aclImdb/{split}/{label}" for split in ("train", "test") for label in ("pos", "neg")]
    counts = dict.fromkeys(folders, 0)
    for name, _ in read_members(path, wanted=lambda name: name.endswith(".txt")):
        folder = name.rpartition("/")[0]
        if folder in counts:
            counts[folder] += 1
    for folder, count in counts.items():
        if count != 12_500:
            raise Damaged(path, f"{count} reviews in {folder}, not 12500")


IMDB = Source(
    name="the Large Movie Review Dataset (IMDB)",
    filenames=("aclImdb_v1.tar.gz",),
    urls=("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    checksums=("md5:7c2ac02c03563afcf9b574c7e56c153a",),
    check=_check_imdb,
)


def _check_reuters(path: Path) -> None:
    parts = [content for _, content in read_members(path, wanted=lambda name: name.endswith(".sgm"))]
    records = sum(content.count(b"<REUTERS ") for content in parts)
    if (len(parts), records) != (22, 21_578):
        raise Damaged(path, f"{records} records in {len(parts)} files, not 21578 in 22")


REUTERS = Source(
    name="Reuters-21578",
    filenames=("reuters21578.tar.gz",),
    urls=(
        "https://kdd.ics.uci.edu/databases/reuters21578/reuters21578.tar.gz",
        "https://archive.ics.uci.edu/ml/machine-learning-databases/reuters21578-mld/reuters21578.tar.gz",
    ),
    checksums=("sha256:3bae43c9b14e387f76a61b6d82bf98a4fb5d3ef99ef7e7075ff2ccbcf59f9d30",),
    check=_check_reuters,
)

BOSTON_HOUSING = Source(
    name="Boston housing",
    filenames=("housing.data",),
    urls=("https://archive.ics.uci.edu/ml/machine-learning-databases/housing/housing.data",),
    # As published, and the same rows with one more blank at the end.
    checksums=(
        "sha256:baadf72995725d76efe787b664e1f083388c79ba21ef9a7990d87f774184735a",
        "sha256:4a8425d42eb99b76feb7ee7cf0fb1d897a6cd19b72c437e4855d767cabb7e24e",
    ),
)


def _check_metamorphosis(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Damaged(path, "not UTF-8 text") from error
    words = " ".join(text.split())
    begin = words.find("One morning, when Gregor Samsa woke from troubled dreams")
    end = words.find("stretch out her young body.")
    if begin < 0 or not 110_000 < end - begin < 125_000:
        raise Damaged(path, "the story is not in it from its first sentence to its last")


METAMORPHOSIS = Source(
    name="Kafka, Metamorphosis",
    filenames=("kafka.txt",),
    # The publisher renews its preface and licence from time to time: the story itself is checked.
    urls=(
        "https://www.gutenberg.org/cache/epub/5200/pg5200.txt",
        "https://www.gutenberg.org/files/5200/5200-0.txt",
    ),
    checksums=("sha256:836497d1e5a47b1744e68da78822e8af19ddadc565e3a09fde348f300e14ec78",),
    check=_check_metamorphosis,
)
