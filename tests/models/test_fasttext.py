"""The mean of the embeddings of words and hashed runs of words, against sums made one by one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.fasttext import FastText
from pipeline.models.saved import load, save
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train

SPEC = Spec("multiclass", "tokens", (0,), outputs=3, classes=("a", "b", "c"), vocabulary=20)


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_a_text_is_the_mean_of_its_words_and_runs(ngrams: int) -> None:
    torch.manual_seed(0)
    model = FastText(SPEC, embedding=4, ngrams=ngrams, buckets=50).eval()
    texts = [[3, 7, 3, 9], [5], [1, 2, 1]]
    x = torch.zeros(3, 6, dtype=torch.long)
    for row, ids in enumerate(texts):
        x[row, : len(ids)] = torch.tensor(ids)
    weight = model.embeddings.weight.detach().numpy()
    for row, ids in enumerate(texts):
        rows = list(ids)
        for length in range(2, ngrams + 1):
            for start in range(len(ids) - length + 1):
                code = ids[start]
                for following in ids[start + 1 : start + length]:
                    code = code * 1_000_003 + following
                rows.append(20 + code % 50)
        mean = np.mean([weight[number] for number in rows], axis=0)
        expected = mean @ model.output.weight.detach().numpy().T + model.output.bias.detach().numpy()
        np.testing.assert_allclose(model(x)[row].detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    # Padding says nothing, and neither does an empty text.
    torch.testing.assert_close(model(x), model(torch.nn.functional.pad(x, (0, 5))))
    torch.testing.assert_close(model(torch.zeros(1, 1, dtype=torch.long))[0], model.output.bias)


def test_bags_are_sent_for_their_order() -> None:
    with pytest.raises(UserError, match=r"set data\.input=tokens"):
        FastText(Spec("binary", "bag", (5,), outputs=1, classes=("a", "b")))


def test_it_learns_what_pairs_of_words_say_and_answers_alike_once_saved(tmp_path: Path) -> None:
    source = random.Random(1)
    rows = []
    for _ in range(400):
        word, no = source.choice(["good", "bad"]), source.random() < 0.5
        rest = " ".join(source.choices(["the", "film", "was", "a", "story"], k=4))
        rows.append((f"{rest} {'not' if no else 'very'} {word}", "np"[(word == "good") != no]))
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "t.csv", index=False)
    kept: list[Any] = []
    words = ["data=text_csv", f"data.path={tmp_path / 't.csv'}", "data.input=tokens", "model=fasttext"]
    words += ["model.buckets=500", "optimizer.lr=0.05", "trainer.max_epochs=15", "logger=none"]
    cfg = compose([*words, "callbacks.progress=null", f"paths.data_dir={tmp_path}"])
    hooks = Hooks(directory=tmp_path / "run", reports=False, on_model=lambda *both: kept.extend(both))
    assert train(cfg, hooks).metrics["test/accuracy"] >= 0.95
    data, model = kept
    predictor = load(save(model, data.encoder, tmp_path / "model"))
    texts = ["the film was not good", "the film was very good", "not bad"]
    assert predictor.predict(texts)["label"].tolist() == ["n", "p", "p"]
