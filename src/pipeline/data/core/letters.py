"""Letters as they are compared."""

from __future__ import annotations

from unicodedata import combining, normalize


def without_accents(word: str) -> str:
    """A word without accents, its letters in their usual form (NFKD of Unicode): août is aout."""
    if word.isascii():
        return word
    return "".join(letter for letter in normalize("NFKD", word) if not combining(letter))
