"""Word vectors that were learnt elsewhere: found like data, cut down to the vocabulary, what a model begins with."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.sources.finding import DataUnavailable
from pipeline.data.text import vectors
from pipeline.data.text.vectors import vectors_of
from pipeline.errors import UserError
from pipeline.models.fasttext import FastText
from pipeline.models.recurrent import Recurrent
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train

LINES = {
    "good": [1.0, 2.0, 3.0],
    "bad": [-1.0, 0.5, 0.25],
    "film": [0.0, 0.0, 1.0],
    "unseen": [9.0, 9.0, 9.0],
}


def written(path: Path, header: bool = False) -> Path:
    lines = [f"{word} {' '.join(map(str, values))}" for word, values in LINES.items()]
    path.write_text("\n".join([*(["4 3"] if header else []), *lines]) + "\n")
    return path


def archive(path: Path, member: str) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.write(written(path.parent / "member.txt"), member)
    return path


def published(monkeypatch: pytest.MonkeyPatch, path: Path, url: str) -> None:
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    source = replace(vectors.PUBLISHED["glove.6B.50d"], urls=(url,), checksums=(f"sha256:{checksum}",))
    monkeypatch.setitem(vectors.PUBLISHED, "glove.6B.50d", source)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    folder = tmp_path / "served"
    folder.mkdir()
    archive(folder / "glove.6B.zip", "glove.6B.50d.txt")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, directory=str(folder), **more)

        def log_message(self, *arguments: Any) -> None:
            asked.append(self.path)

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_address[1]}/glove.6B.zip", asked
    found.shutdown()
    thread.join()
    found.server_close()


def test_published_vectors_are_fetched_once_and_cut_down_to_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, list[str]]
) -> None:
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    url, asked = server
    published(monkeypatch, tmp_path / "served" / "glove.6B.zip", url)
    checked = ssl._create_default_https_context
    for _ in range(2):
        found = vectors_of("glove.6B.50d", ["bad", "word", "good"], tmp_path / "data")
        np.testing.assert_array_equal(found[[0, 2]], np.float32([LINES["bad"], LINES["good"]]))
        assert np.isnan(found[1]).all()
    assert asked == ["/glove.6B.zip"] and (tmp_path / "data" / "glove.6B.zip").is_file()
    # Whoever opens an https address later in this process still has the certificate looked at.
    assert ssl._create_default_https_context is checked


def test_vectors_are_found_on_the_search_path_packed_or_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_DATA_PATH", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    with pytest.raises(DataUnavailable, match="Three ways"):
        vectors_of("glove.6B.50d", ["good"], tmp_path / "data", download=False)
    written(tmp_path / "shared" / "glove.6B.50d.txt")
    found = vectors_of("glove.6B.50d", ["good"], tmp_path / "data", download=False)
    np.testing.assert_array_equal(found, np.float32([LINES["good"]]))


@pytest.mark.parametrize("header", [False, True])
def test_a_file_of_ones_own_and_what_is_none(tmp_path: Path, header: bool) -> None:
    path = written(tmp_path / "own.vec", header)
    np.testing.assert_array_equal(vectors_of(str(path), ["film"], tmp_path), np.float32([LINES["film"]]))
    with pytest.raises(UserError, match="none of the 1 words"):
        vectors_of(str(path), ["nothing"], tmp_path)
    with pytest.raises(UserError, match=r"Did you mean glove\.6B\.100d"):
        vectors_of("glove.6b.100d", ["film"], tmp_path)
    (tmp_path / "broken.vec").write_text("good 1.0 2.0\nbad 1.0\nfilm x y\n")
    with pytest.raises(UserError, match="no file of words"):
        vectors_of(str(tmp_path / "broken.vec"), ["good", "bad", "film"], tmp_path)


@pytest.mark.parametrize("model", ["lstm", "fasttext"])
def test_a_model_begins_with_the_vectors_of_its_words(model: str, tmp_path: Path) -> None:
    rows = [("good film", 1), ("bad film", 0), ("good plot", 1), ("bad plot", 0)] * 20
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "t.csv", index=False)
    path = written(tmp_path / "own.vec")
    seen: list[Any] = []

    def begun(data: Any, built: Any) -> None:
        table = getattr(built, "embedding", None) or built.embeddings
        seen.append((data.encoder.words, table.weight.detach().clone(), built))

    words = ["data=text_csv", f"data.path={tmp_path / 't.csv'}", "data.input=tokens", f"model={model}"]
    words += [f"model.vectors={path}", "trainer.max_epochs=1", "logger=none", "callbacks.progress=null"]
    cfg = compose([*words, f"paths.data_dir={tmp_path}", f"paths.experiments_dir={tmp_path}"])
    train(cfg, Hooks(directory=tmp_path / "run", reports=False, baseline=False, on_model=begun))
    ((vocabulary, weight, built),) = seen
    assert weight.shape[1] == 3 and isinstance(built, Recurrent | FastText)
    for word, values in LINES.items():
        if word in vocabulary:
            torch.testing.assert_close(weight[vocabulary.index(word) + 2], torch.tensor(values))
    assert not weight[0].any()
    other = compose([*words, "model.embedding=7", f"paths.data_dir={tmp_path}"])
    with pytest.raises(UserError, match="have 3 numbers"):
        train(other, Hooks(directory=tmp_path / "other", reports=False, baseline=False))
