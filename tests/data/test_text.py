"""Tokenising, vocabularies, the encoders of text, and corpora built from them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchtext.data.utils import get_tokenizer

from pipeline.data.encoders import restored
from pipeline.data.text.corpus import Corpus, Document
from pipeline.data.text.encoders import BagEncoder, CharacterEncoder, TokensEncoder, padded
from pipeline.data.text.words import number_words, tokenise, tokenise_fast, vocabulary
from pipeline.errors import UserError

TEXTS = ["A good film.", "A bad, bad film!", "", "Ünïcode — 好 <br />good?"]


@given(st.text(alphabet=st.sampled_from(list("aB'\".,()!?;: \n\t\x00<br/>İΣß好\x1c\u2028—")), max_size=60))
@settings(max_examples=400, deadline=None)
def test_the_fast_tokeniser_gives_what_torchtext_gives(text: str) -> None:
    assert tokenise_fast(text) == get_tokenizer("basic_english")(text) == tokenise(text)


def test_ngrams_are_runs_of_words() -> None:
    assert sorted(tokenise("a good film", ngrams=2)) == ["a", "a good", "film", "good", "good film"]


def test_number_words_keeps_every_word_in_order() -> None:
    tokens, starts, words = number_words(TEXTS)
    rebuilt = [[words[i] for i in tokens[a:b]] for a, b in pairwise(starts)]
    assert rebuilt == [tokenise(text) for text in TEXTS]


def test_the_vocabulary_is_the_most_frequent_words_with_ties_by_alphabet() -> None:
    words = ["d", "c", "b", "a", "never"]
    counts = np.array([1, 1, 5, 1, 0])
    assert [words[i] for i in vocabulary(words, counts, 3)] == ["b", "a", "c"]
    assert [words[i] for i in vocabulary(words, counts, 10)] == ["b", "a", "c", "d"]


def test_a_corpus_counts_words_as_a_plain_loop_does() -> None:
    corpus = Corpus.build(Document(text, str(i % 2)) for i, text in enumerate(TEXTS))
    rows = np.array([0, 3])
    expected = Counter(word for i in rows for word in tokenise(TEXTS[i]))
    counts = corpus.counts(rows)
    assert {word: int(counts[i]) for i, word in enumerate(corpus.words) if counts[i]} == expected


def test_a_corpus_gives_bags_and_sequences_as_a_plain_loop_does() -> None:
    corpus = Corpus.build(Document(text, str(i % 2)) for i, text in enumerate(TEXTS))
    ids = np.arange(len(corpus.words), dtype=np.int32)
    rows = np.array([3, 1, 2])
    starts, values = corpus.bags(rows, ids)
    for place, row in enumerate(rows):
        found = {corpus.words[i] for i in values[starts[place] : starts[place + 1]]}
        assert found == set(tokenise(TEXTS[row]))
        assert starts[place + 1] - starts[place] == len(found)
    for keep, cut in (("last", lambda words: words[-2:]), ("first", lambda words: words[:2])):
        starts, values = corpus.sequences(rows, ids, 2, keep)
        for place, row in enumerate(rows):
            assert [corpus.words[i] for i in values[starts[place] : starts[place + 1]]] == cut(
                tokenise(TEXTS[row])
            )


@pytest.mark.parametrize("documents", [[], [Document("a", "x"), Document("b", "x")]])
def test_a_corpus_needs_two_classes(documents: list[Document]) -> None:
    with pytest.raises(UserError, match="two classes"):
        Corpus.build(documents)


def test_a_bag_holds_the_known_words_and_survives_its_own_state() -> None:
    encoder = BagEncoder(["film", "bad", "好"])
    again = restored(encoder.to_state())
    for one in (encoder, again):
        assert one.encode(TEXTS).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert encoder.signature() == {"type": "text", "column": "text"}
    assert encoder.encode(encoder.example()).shape == (2, 3)


def test_tokens_are_cut_padded_and_unknown_words_marked() -> None:
    encoder = TokensEncoder(["film", "bad"], max_length=3, keep="last")
    assert encoder.encode(TEXTS[:3]).tolist() == [[1, 2, 1], [3, 2, 1], [0, 0, 0]]
    first = TokensEncoder(["film", "bad"], max_length=3, keep="first")
    assert restored(first.to_state()).encode(TEXTS[1:2]).tolist() == [[1, 3, 1]]
    assert TokensEncoder(["film"], max_length=None).encode(["film a film a"]).tolist() == [[2, 1, 2, 1]]


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_characters_outside_training_become_id_0(training: str, other: str) -> None:
    encoder = CharacterEncoder.fit(training)
    table = {character: number for number, character in enumerate(sorted(set(training)), start=1)}
    assert encoder.ids(other).tolist() == [table.get(character, 0) for character in other]
    assert encoder.decode(encoder.ids(training)) == training


def test_character_state_is_json_and_rebuilds_the_encoder() -> None:
    encoder = CharacterEncoder.fit("Gregor ü")
    again = restored(encoder.to_state())
    assert torch.equal(again.encode(["Gre", "gü?"]), encoder.encode(["Gre", "gü?"]))
    assert encoder.encode(["Gre", "g"]).shape == (2, 3)


@pytest.mark.parametrize(
    "raw", ["one text", b"bytes", 3, [1, 2], ["a", None], pd.DataFrame({"a": ["x"], "b": ["y"]})], ids=str
)
def test_what_is_no_list_of_texts_is_refused_in_one_sentence(raw: object) -> None:
    for encoder in (BagEncoder(["a"]), TokensEncoder(["a"]), CharacterEncoder(["a"])):
        with pytest.raises(UserError, match="text"):
            encoder.encode(raw)


@pytest.mark.parametrize(
    "raw",
    [["a b", "c"], ("a b", "c"), np.array(["a b", "c"]), np.array([["a b"], ["c"]]), pd.Series(["a b", "c"])],
)
def test_texts_come_as_any_kind_of_list_or_as_a_column(raw: object) -> None:
    expected = BagEncoder(["a", "c"]).encode(["a b", "c"])
    assert torch.equal(BagEncoder(["a", "c"]).encode(raw), expected)
    frame = pd.DataFrame({"other": [1, 2], "text": ["a b", "c"]})
    assert torch.equal(BagEncoder(["a", "c"]).encode(frame), expected)


def test_padded_rows_are_at_least_one_step_wide() -> None:
    assert padded([[], []]).tolist() == [[0], [0]]
    assert padded([[5], [1, 2]]).tolist() == [[5, 0], [1, 2]]


def test_words_py_alone_imports_torchtext() -> None:
    from pathlib import Path

    import pipeline

    importing = [
        str(path.name)
        for path in Path(pipeline.__file__).parent.rglob("*.py")
        if re.search(r"^\s*(import|from) torchtext", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert importing == ["words.py"]
