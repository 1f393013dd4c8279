"""Texts: words, characters, documents."""
