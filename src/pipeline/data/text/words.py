"""Words of a text: splitting it into them and choosing a vocabulary. The only module that knows torchtext."""

from __future__ import annotations

import re
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from torchtext.data.utils import get_tokenizer, ngrams_iterator
from torchtext.vocab import Vectors, Vocab

Tokenise = Callable[[str], list[str]]

_basic_english: Tokenise = get_tokenizer("basic_english")


_UNBLANKED = re.compile(
    # Thai and Lao, Burmese, Khmer, Japanese, Chinese, and the punctuation that stands between those.
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u3003\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\U00020000-\U0003ffff]"
)
"""Characters of scripts that are written without blanks."""
_MOSTLY = 0.3


def spaced(text: str) -> str:
    """A text with a blank on both sides of each character of a script that is written without them.

    Words of other scripts stay as they are.
    """
    return _UNBLANKED.sub(r" \g<0> ", text)


def needs_characters(texts: Iterable[str]) -> bool:
    """Whether a good part of some texts is written without blanks."""
    found = total = 0
    for text in texts:
        found += len(_UNBLANKED.findall(text))
        total += sum(map(len, text.split()))
    return found > _MOSTLY * total


def tokenise(text: str, ngrams: int = 1) -> list[str]:
    """Lower-case words and punctuation marks of ``text``, as torchtext's ``basic_english`` splits them.

    Args:
        text: Any text; whitespace separates words, quotation marks disappear.
        ngrams: Longest run of words that is given too, joined by blanks; 1 gives the words alone.
    """
    words = _basic_english(text)
    return words if ngrams == 1 else list(ngrams_iterator(words, ngrams))


def tokenise_fast(text: str) -> list[str]:
    """The words that :func:`tokenise` gives, in a quarter of its time.

    Its patterns are fixed strings, so that plain replacement does what a dozen regular expressions do. The
    order matters: quotation marks go before ``<br />`` is looked for.
    """
    text = text.lower().replace('"', "").replace("<br />", " ")
    for mark in "'.,()!?":
        text = text.replace(mark, f" {mark} ")
    return text.replace(";", " ").replace(":", " ").split()


class WordNumbers(dict[str, bytes]):
    """Numbers words in the order in which they first occur; a number is the four bytes of an int32."""

    def __missing__(self, word: str) -> bytes:
        number = self[word] = len(self).to_bytes(4, sys.byteorder)
        return number


def number_words(texts: Iterable[str], characters: bool = False) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Tokenise texts once, keeping numbers instead of words.

    Args:
        texts: Texts, read one after the other; none is kept.
        characters: Whether the characters of scripts without blanks are words, see :func:`spaced`.

    Returns:
        Word numbers of all texts one after the other (int32), where each text begins in them (texts + 1, int64),
        and the words by number.
    """
    # Joining bytes is faster than putting one int after the other into an array.
    numbers, values, starts = WordNumbers(), bytearray(), array("q", [0])
    number = numbers.__getitem__
    for text in texts:
        values += b"".join(map(number, tokenise_fast(spaced(text) if characters else text)))
        starts.append(len(values) // 4)
    return np.frombuffer(values, dtype=np.int32), np.frombuffer(starts, dtype=np.int64), list(numbers)


def read_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """The words of a file of word vectors (a word and its numbers in each line), and the vectors.

    Args:
        path: The file; a copy in another form is written beside it.

    Returns:
        The words, and (words, length) float32.

    Raises:
        RuntimeError: The lines differ in length.
        ValueError: There is no line, or what should be a number is none.
    """
    import ssl

    # torchtext switches the checking of https certificates off for the whole process, on its way to a file on disk.
    before = ssl._create_default_https_context
    try:
        found = Vectors(path.name, cache=str(path.parent))
    finally:
        ssl._create_default_https_context = before
    return list(found.itos), np.asarray(found.vectors.numpy(), dtype=np.float32)


def vocabulary(words: Sequence[str], counts: np.ndarray, size: int) -> np.ndarray:
    """Numbers of the ``size`` most frequent words, most frequent first, equally frequent ones by alphabet.

    Args:
        words: The words, by number.
        counts: How often each occurs in the training split; words that do not occur there are left out.
        size: Largest number of words to keep.
    """
    least = 1
    if len(counts) > size:
        # Only words that can make it are sorted: a corpus has many times more that occur once.
        least = max(1, int(np.partition(counts, -size)[-size]))
    numbers = {words[i]: i for i in np.flatnonzero(counts >= least).tolist()}
    chosen = Vocab(Counter({word: int(counts[i]) for word, i in numbers.items()}), max_size=size, specials=[])
    return np.array([numbers[word] for word in chosen.itos], dtype=np.int64)
