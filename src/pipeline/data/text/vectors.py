"""Vectors of words that were learnt elsewhere (GloVe, fastText): found like data, and cut down to a vocabulary."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.config.nearest import suggest
from pipeline.data.core.cache import cached
from pipeline.data.sources.archives import Damaged
from pipeline.data.sources.finding import Source, digest, locate, search_path
from pipeline.errors import UserError

log = logging.getLogger(__name__)

_MOST = 8 * 1024**3
"""Largest download: these files are larger than any data set."""


def _glove(archive: str, checksum: str, url: str, members: Sequence[str]) -> dict[str, Source]:
    found = {}
    for member in members:
        found[member] = Source(
            name=f"GloVe's {member}",
            filenames=(f"{archive}.zip", f"{member}.txt"),
            urls=(url,),
            checksums=(f"sha256:{checksum}",),
            check=_looks_like_vectors,
            max_bytes=_MOST,
        )
    return found


def _fasttext(language: str, checksum: str) -> dict[str, Source]:
    name = f"wiki.{language}"
    return {
        name: Source(
            name=f"fastText's {name}",
            filenames=(f"{name}.vec",),
            urls=(f"https://dl.fbaipublicfiles.com/fasttext/vectors-wiki/{name}.vec",),
            checksums=(f"sha256:{checksum}",),
            check=_looks_like_vectors,
            max_bytes=_MOST,
        )
    }


def _looks_like_vectors(path: Path) -> None:
    """Raise `Damaged` unless a text file holds a word and numbers in its lines (an archive has its checksum)."""
    if zipfile.is_zipfile(path):
        raise Damaged(path, "its checksum is not the published one")
    with path.open("rb") as file:
        lines = [file.readline(1 << 16).rstrip().split(b" ") for _ in range(3)]
    try:
        widths = {len([float(number) for number in line[1:]]) for line in lines[1:] if len(line) > 2}
    except ValueError:
        widths = set()
    if len(widths) != 1:
        raise Damaged(path, "its lines are not a word and its numbers")


_STANFORD = "https://nlp.stanford.edu/data"
PUBLISHED: dict[str, Source] = {
    **_glove(
        "glove.6B",
        "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
        f"{_STANFORD}/glove.6B.zip",
        [f"glove.6B.{size}d" for size in (50, 100, 200, 300)],
    ),
    **_glove(
        "glove.twitter.27B",
        "792af52f795d1a32c9842a3240f5f3fe5e941a8ff6df5eb0f9d668092ebc019c",
        f"{_STANFORD}/glove.twitter.27B.zip",
        [f"glove.twitter.27B.{size}d" for size in (25, 50, 100, 200)],
    ),
    **_glove(
        "glove.840B.300d",
        "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
        f"{_STANFORD}/glove.840B.300d.zip",
        ["glove.840B.300d"],
    ),
    **_fasttext("en", "ba5420ac217fb34f15f58ded0d911a4370dfb1f3341fa7511a49ae74c87de282"),
    **_fasttext("de", "3020c26e32238ba95a933926763b5c693bf7793bf0c722055cecda1e0283578c"),
    **_fasttext("es", "cf2e9a1976055a18ad358fb0331bc5f9b2e8541d6d4903b562a63b60f3ae392e"),
    **_fasttext("fr", "bc68b0703375da9e81c3c11d0c28f3f8375dd944c209e697c4075e579455ac2a"),
}
"""Vectors that are known by name."""


def vectors_of(name: str, words: Sequence[str], data_dir: Path, download: bool = True) -> np.ndarray:
    """The vector of each word, NaN in all places where it has none.

    What is read once is kept in the cache.

    Args:
        name: One of ``PUBLISHED``, or a file with a word and its numbers in each line (``.txt``, ``.vec``).
        words: The words.
        data_dir: The user's data directory.
        download: Whether the network may be used.

    Returns:
        (words, length of a vector), float32.

    Raises:
        DataUnavailable: Published vectors are nowhere to be had.
        UserError: There are no such vectors, or none of the words has one.
    """
    own = Path(name).expanduser()
    if own.is_file():
        path, member = own, ""
    elif name in PUBLISHED:
        path, member = locate(PUBLISHED[name], data_dir, search_path(), download), f"{name}.txt"
    else:
        raise UserError(
            f"model.vectors={name}: there is no such file, and no published vectors of that name. "
            f"{suggest(name, PUBLISHED)}"
        )
    key = hashlib.sha256("\0".join([digest(path), member, *words]).encode()).hexdigest()[:16]
    arrays, _ = cached(
        data_dir,
        f"vectors-{name if not own.is_file() else own.name}-{key}",
        lambda: (_read(path, member, words), None),
    )
    found = arrays["vectors"]
    known = int((~np.isnan(found[:, 0])).sum())
    if not known:
        raise UserError(
            f"model.vectors={name}: none of the {len(words):,} words of the vocabulary has a vector"
        )
    log.info("%s: %d of %d words of the vocabulary have a vector", name, known, len(words))
    return found


def _read(path: Path, member: str, words: Sequence[str]) -> dict[str, np.ndarray]:
    from pipeline.data.text.words import read_vectors

    wanted = {word.encode() for word in words}
    with tempfile.TemporaryDirectory() as folder:
        # No more than the vocabulary's lines are parsed: the file has millions.
        some = Path(folder) / "some.txt"
        with _opened(path, member) as lines, some.open("wb") as kept:
            kept.writelines(line for line in lines if line.partition(b" ")[0] in wanted)
        if not some.stat().st_size:
            return {"vectors": np.full((len(words), 1), np.nan, dtype=np.float32)}
        try:
            known, values = read_vectors(some)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"{path} is no file of words and their vectors: {error}") from None
    place = {word: number for number, word in enumerate(known)}
    found = np.full((len(words), values.shape[1]), np.nan, dtype=np.float32)
    for number, word in enumerate(words):
        if word in place:
            found[number] = values[place[word]]
    return {"vectors": found}


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        if member not in archive.namelist():
            raise UserError(f"{path} holds no {member}; it has {', '.join(archive.namelist()[:8])}")
        with archive.open(member) as file:
            yield file
