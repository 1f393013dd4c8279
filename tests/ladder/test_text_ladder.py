"""The ladder of texts: from single words to a sentence encoder, where one is on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.loading import compose
from pipeline.ladder import improve
from pipeline.models import sentences


def test_a_rung_whose_weights_are_not_here_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers")
    ladder: Any = compose(["task=improve", "+ladder=text"]).ladder
    known = sentences.PUBLISHED["all-MiniLM-L6-v2"]
    # As on a machine where nobody has installed its package.
    elsewhere = sentences.Published("nosuchpackage", "no-such-package", known.address, known.files)
    monkeypatch.setitem(sentences.PUBLISHED, "all-MiniLM-L6-v2", elsewhere)
    # Nothing is fetched for a rung that nobody asked for.
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    monkeypatch.setattr("pipeline.data.sources.finding._download_once", lambda *_: pytest.fail("fetched"))
    with caplog.at_level(logging.INFO):
        assert [*improve._there(ladder, tmp_path)] == ["linear", "pairs", "small", "overfitting"]
    assert "encoder is left out, since the weights of all-MiniLM-L6-v2 are not on this machine" in caplog.text
    monkeypatch.setattr(improve, "at_hand", lambda name, data_dir: name == "all-MiniLM-L6-v2")
    assert [*improve._there(ladder, tmp_path)][-1] == "encoder"
    rung = compose(["data=text_csv", "data.path=a.csv", *ladder.rungs["encoder"]])
    assert (rung.model._target_.rpartition(".")[2], rung.model.freeze) == ("TextEncoder", True)
