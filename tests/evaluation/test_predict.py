"""task=predict: what goes in as files comes out as labels with probabilities."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from pipeline.data.core.encoder import VectorEncoder
from pipeline.data.core.spec import Spec
from pipeline.data.encoders import restored
from pipeline.data.images.decoding import read_image
from pipeline.data.images.folder import ImageFolder
from pipeline.data.images.layouts import image_files
from pipeline.data.tables.table import TableData
from pipeline.data.text.encoders import BagEncoder
from pipeline.data.text.files import TextTable
from pipeline.errors import UserError
from pipeline.evaluation.inputs import chunks
from pipeline.evaluation.other_data import rows_of_file
from pipeline.models.linear import Linear
from pipeline.models.saved import Predictor, load, save
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tasks import predict as task

Command = Callable[..., DictConfig]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)


@pytest.fixture
def predictor(finished: dict[str, RunResult]) -> Predictor:
    return load(finished["linear"].directory / "model")


def expected(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Class probabilities by hand: normalise, one matrix product, softmax."""
    spec, model = predictor.spec, predictor.module
    pixels = (images.reshape(len(images), -1) - spec.pixel_mean[0]) / spec.pixel_std[0]
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    logits = pixels @ weights["output.weight"].T + weights["output.bias"]
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", ["npy", "folder", "csv", "jsonl"])
def test_every_form_of_images_gives_the_models_probabilities(
    kind: str, tmp_path: Path, images: np.ndarray, predictor: Predictor
) -> None:
    source = tmp_path / f"in.{kind}"
    if kind == "npy":
        np.save(source, images)
    elif kind == "folder":
        source.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(source / f"{number:02}.png")
    elif kind == "csv":
        pd.DataFrame(images.reshape(20, -1)).to_csv(source, index=False, header=False)
    else:
        source.write_text("".join(json.dumps(image.tolist()) + "\n" for image in images))
    count = task.predict(predictor, str(source), str(tmp_path / "out.csv"), batch_size=3)
    table = pd.read_csv(tmp_path / "out.csv")
    p = table[[f"p_{digit}" for digit in range(10)]].to_numpy()
    assert count == len(table) == 20
    np.testing.assert_allclose(p, expected(predictor, images), atol=1e-5)
    assert (table["label"] == p.argmax(1)).all()
    assert table["probability"].to_numpy() == pytest.approx(p.max(1))
    if kind == "folder":
        assert table["file"].tolist() == [f"{number:02}.png" for number in range(20)]


PHOTOS = {
    "0.png": "RGB",
    "1.jpg": "RGB",
    "2.gif": "P",
    "3.png": "RGBA",
    "4.JPEG": "CMYK",
    "5.bmp": "L",
    "6.png": "LA",
}


def photos(root: Path, size: tuple[int, int] | None = None) -> Path:
    """Images of many kinds, in folders in folders; one of each folder is turned upright by its EXIF tag alone."""
    random = np.random.default_rng(0)
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for place in ("cat", "cat/deep/er", "dog"):
        (root / place).mkdir(parents=True)
        for name, mode in PHOTOS.items():
            sides = size or tuple(random.integers(9, 40, 2).tolist())
            image = Image.fromarray(random.integers(0, 256, (*sides, 3)).astype(np.uint8)).convert(mode)
            image.save(root / place / name, **({"exif": on_its_side} if name == "1.jpg" else {}))
    (root / "cat" / "notes.txt").write_text("no image")
    return root


def rows_by_file(path: Path) -> dict[str, list[float]]:
    table = pd.read_csv(path)
    p = table[[name for name in table.columns if name.startswith("p_")]]
    return dict(zip(table["file"], p.to_numpy().tolist(), strict=True))


@pytest.mark.parametrize("channels", [3, 1])
def test_photos_are_predicted_from_what_their_model_was_trained_on(channels: int, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    data = ImageFolder(
        path=root,
        data_dir=tmp_path,
        image_size=[10, 12],
        channels=channels,
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    data.setup()
    torch.manual_seed(0)
    model = Linear(data.spec)
    predictor = load(save(model, data.encoder, tmp_path / "model"))
    trained_on = [path for name in data.spec.classes for path in image_files(root, name)]
    learnt = predictor.frame(predictor.logits(data.train.take(torch.arange(len(data.train)))[0]))
    expected = dict(
        zip(
            (path.relative_to(root).as_posix() for path in trained_on),
            learnt[["p_cat", "p_dog"]].to_numpy().tolist(),
            strict=True,
        )
    )
    assert task.predict(predictor, str(root), str(tmp_path / "out.csv")) == len(trained_on) == 21
    found = rows_by_file(tmp_path / "out.csv")
    assert found.keys() == expected.keys()
    for name, p in expected.items():
        assert found[name] == pytest.approx(p, rel=1e-6)
    # A nested folder, a single file, arrays of any size.
    assert task.predict(predictor, str(root / "cat/deep"), str(tmp_path / "out.csv")) == 7
    assert rows_by_file(tmp_path / "out.csv")["er/0.png"] == pytest.approx(
        expected["cat/deep/er/0.png"], rel=1e-6
    )
    for name in ("cat/0.png", "dog/1.jpg"):
        assert task.predict(predictor, str(root / name), str(tmp_path / "out.csv")) == 1
        assert next(iter(rows_by_file(tmp_path / "out.csv").values())) == pytest.approx(
            expected[name], rel=1e-6
        )
    np.save(tmp_path / "one.npy", np.asarray(Image.open(root / "cat/0.png"))[None])
    task.predict(predictor, str(tmp_path / "one.npy"), str(tmp_path / "out.jsonl"))
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert [row["p_cat"], row["p_dog"]] == pytest.approx(expected["cat/0.png"], rel=1e-6)
    np.save(tmp_path / "photo.npy", np.asarray(Image.open(root / "cat/0.png")))
    with pytest.raises(UserError, match="expected several"):
        task.predict(predictor, str(tmp_path / "photo.npy"), str(tmp_path / "out.csv"))


def test_a_run_on_an_image_folder_predicts_a_folder_of_photos(
    tmp_path: Path, command: Command, experiments: Path
) -> None:
    root = photos(tmp_path / "photos")
    small = ["model=linear", "trainer=cpu", "trainer.max_epochs=1", f"paths.data_dir={tmp_path}"]
    result = train(
        command("data=image_folder", f"data.path={root}", *small),
        Hooks(directory=tmp_path / "run"),
    )
    typed = [f"task.run_id={result.run_id}", f"task.input={root}", f"task.output={tmp_path}/out.csv"]
    task.run(command("task=predict", *typed))
    assert set(pd.read_csv(tmp_path / "out.csv")["label"]) <= {"cat", "dog"}


def test_images_of_the_size_that_a_published_set_has_are_read_as_folders_of_images_are(
    tmp_path: Path, predictor: Predictor
) -> None:
    root = photos(tmp_path / "photos", (8, 8))
    assert task.predict(predictor, str(root), str(tmp_path / "out.csv")) == 21
    found = rows_by_file(tmp_path / "out.csv")
    for name, p in found.items():
        pixels = read_image(root / name, [1, 8, 8])
        assert p == pytest.approx(expected(predictor, pixels)[0], abs=1e-5), name
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "scan.pbm")
    assert task.predict(predictor, str(tmp_path / "scan.pbm"), str(tmp_path / "out.csv")) == 1


@pytest.mark.parametrize("name", ["drawing.eps", "picture.png"])
def test_no_decoder_that_starts_programs_is_used_to_predict(
    name: str, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "fine.png")
    Image.new("L", (8, 8)).save(folder / "drawing.eps")
    (folder / "drawing.eps").rename(folder / name)
    for source in (folder / name, folder):
        if name.endswith(".eps") and source == folder:
            assert task.predict(predictor, str(folder), str(tmp_path / "out.csv")) == 1
            continue
        with pytest.raises(UserError, match=r"follow from its name|cannot identify"):
            task.predict(predictor, str(source), str(tmp_path / "out.csv"))


def test_a_run_of_the_store_predicts_by_its_id_and_json_lines_hold_the_same_numbers(
    tmp_path: Path, images: np.ndarray, predictor: Predictor, finished: dict[str, RunResult], command: Command
) -> None:
    np.save(tmp_path / "in.npy", images)
    cfg = command(
        "task=predict",
        f"task.run_id={finished['linear'].run_id}",
        f"task.input={tmp_path}/in.npy",
        f"task.output={tmp_path}/out.jsonl",
    )
    task.run(cfg)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    frame = predictor.predict(images)
    assert [row["label"] for row in rows] == frame["label"].tolist()
    assert [row["p_3"] for row in rows] == frame["p_3"].tolist()


def test_texts_come_from_standard_input_and_go_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    spec = Spec("binary", "bag", (2,), 1, ("bad", "good"))
    model = Linear(spec)
    with torch.no_grad():
        model.output.weight.copy_(torch.tensor([[3.0, -3.0]]))
        model.output.bias.zero_()
    predictor = Predictor(model.eval(), BagEncoder(["fine", "awful"]))
    typed = io.TextIOWrapper(io.BytesIO("a fine film\nawful, “really”\n\n".encode()))
    monkeypatch.setattr(sys, "stdin", typed)
    assert task.predict(predictor, "-", "-") == 3
    table = pd.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    assert table["label"].tolist()[:2] == ["good", "bad"]
    assert table["p_good"].tolist() == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3)), 0.5])


def test_a_table_is_read_in_chunks_whatever_its_delimiter_and_column_order(tmp_path: Path) -> None:
    spec = Spec("regression", "vector", (2,), 1)
    model = Linear(spec)
    with torch.no_grad():
        model.output.weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.output.bias.fill_(0.5)
    predictor = Predictor(model.eval(), VectorEncoder(["a", "b"]))
    rows = pd.DataFrame({"b": np.arange(50.0), "other": "x", "a": 2.0})
    rows.to_csv(tmp_path / "in.csv", index=False, sep=";")
    task.predict(predictor, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), batch_size=2)
    predictions = pd.read_csv(tmp_path / "out.csv")["prediction"].to_numpy()
    np.testing.assert_allclose(predictions, 2 + 10 * np.arange(50.0) + 0.5)


def test_what_the_model_cannot_take_is_told_and_leaves_no_output(
    tmp_path: Path, predictor: Predictor
) -> None:
    (tmp_path / "words.txt").write_text("hello")
    np.save(tmp_path / "large.npy", np.zeros((2, 9, 9)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "bad.jsonl").write_text("[1, 2\n")
    (tmp_path / "unknown.xyz").write_text("")
    for name, words in {
        "words.txt": "holds plain text",
        "large.npy": "expected \\(samples, 8, 8\\)",
        "objects.npy": "no .npy file of numbers",
        "broken.png": "no image",
        "small.png": "8×5 pixels",
        "bad.jsonl": "line 1 is no JSON",
        "unknown.xyz": "does not follow from its name",
        "missing": "no such file",
    }.items():
        with pytest.raises(UserError, match=words):
            task.predict(predictor, str(tmp_path / name), str(tmp_path / "out.csv"))
    assert not list(tmp_path.glob("*out.csv*"))


def test_settings_that_would_do_harm_are_refused(tmp_path: Path, command: Command) -> None:
    source = tmp_path / "in.csv"
    source.write_text("1")
    for target, words in (
        (source, "is the input"),
        (tmp_path, "expected a file"),
        (tmp_path / "a/b.csv", "expected"),
    ):
        with pytest.raises(UserError, match=words):
            task.run(command("task=predict", f"task.input={source}", f"task.output={target}"))
    with pytest.raises(UserError, match=r"task\.format=xml"):
        task.run(command("task=predict", f"task.input={source}", "task.format=xml"))


def test_exactly_one_model_must_be_named(
    tmp_path: Path, command: Command, finished: dict[str, RunResult]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("1")
    with pytest.raises(UserError, match="needs one model and got 0"):
        task.run(command("task=predict", f"task.input={source}"))
    with pytest.raises(UserError, match="there is no run"):
        task.run(command("task=predict", f"task.input={source}", "task.run_id=nowhere"))


def houses(path: Path, rows: int = 300) -> Path:
    """A table whose columns are easily taken for something else."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": random.normal(100, 20, rows).round(7),
            "area": random.choice(["north", "None", "N-A", "south"], rows),
            "code": random.integers(1, 6, rows),
            "sold": random.choice([True, False], rows),
            "built": pd.date_range("1990-01-31", periods=rows, freq="11D").strftime("%Y-%m-%d"),
            "month": random.choice(["2024-01-31", "2024-02-29", "2024-03-31"], rows),
        }
    )
    frame["price"] = frame["size"] * 3 + 100 * frame["code"]
    frame.loc[7, "size"] = np.nan
    frame.loc[9, "area"] = None
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif path.name.startswith("german"):
        frame["area"] = frame["area"].str.replace("o", "ö")
        frame.to_csv(path, sep=";", decimal=",", encoding="latin-1", index=False)
    else:
        frame["code"] = frame["code"].map("{:03}".format)
        frame.to_csv(path, index=False)
    return path


GERMAN = {"delimiter": ";", "decimal": ",", "encoding": "latin-1"}


@pytest.mark.parametrize(
    ("name", "written"),
    [("t.csv", {}), ("t.tsv", {}), ("t.parquet", {}), ("t.jsonl", {}), ("german.csv", GERMAN)],
)
@pytest.mark.parametrize("rows", [300, 7])
def test_a_table_is_predicted_as_it_was_learnt_from(
    name: str, written: dict[str, str], rows: int, tmp_path: Path
) -> None:
    path = houses(tmp_path / name)
    data = TableData(
        path=path,
        target="price",
        categorical=["code", "month"],
        validation_fraction=0.0,
        test_fraction=0.0,
        **written,
    )
    data.setup()
    x = data.train.take(torch.arange(len(data.train)))[0]
    again = restored(json.loads(json.dumps(data.encoder.to_state())))
    read = list(chunks(str(path), again, rows))
    assert max(len(some.raw) for some in read) == rows
    assert torch.equal(torch.cat([again.encode(some.raw) for some in read]), x)
    predictor = Predictor(Linear(data.spec).eval(), again)
    tested = rows_of_file(str(path), None, predictor)
    assert torch.equal(tested.take(torch.arange(300))[0], x)
    assert torch.equal(tested.y, data.train.y)


def test_one_strange_value_does_not_change_how_the_others_are_read(tmp_path: Path) -> None:
    path = houses(tmp_path / "t.csv")
    data = TableData(
        path=path, target="price", categorical=["code"], validation_fraction=0.0, test_fraction=0.0
    )
    data.setup()
    lines = path.read_text().splitlines()
    place = lines[0].split(",").index("code")
    cells = lines[1].split(",")
    cells[place] = "unknown"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    (some,) = chunks(str(path), data.encoder, 1000)
    x = data.train.take(torch.arange(300))[0]
    assert torch.equal(data.encoder.encode(some.raw)[1:], x[1:])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_texts_are_predicted_from_the_table_they_were_learnt_from(suffix: str, tmp_path: Path) -> None:
    texts = ["a good film", "None", "NA", "007 was good", 'a "bad" film,\nreally', "bad"] * 5
    frame = pd.DataFrame({"review": texts, "opinion": [f"0{number % 2}" for number in range(30)]})
    path = tmp_path / f"reviews.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    data = TextTable(
        str(path),
        text="review",
        target="opinion",
        data_dir=tmp_path,
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    data.setup()
    assert data.spec.classes == ("00", "01")
    x = data.train.take(torch.arange(30))[0]
    encoder = restored(data.encoder.to_state())
    tested = rows_of_file(str(path), None, Predictor(Linear(data.spec).eval(), encoder))
    assert torch.equal(tested.take(torch.arange(30))[0], x)
    assert torch.equal(tested.y, data.train.y)
    (some,) = chunks(str(path), encoder, 100)
    assert torch.equal(encoder.encode(some.raw), x)
