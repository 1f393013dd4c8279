"""Where people's images lie: folders of parts, tables, archives, arrays."""

from __future__ import annotations

import logging
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.images.folder import ImageFolder
from pipeline.data.images.tabled import several_labels
from pipeline.errors import UserError

COLOURS = {"cat": (200, 40, 30), "dog": (20, 60, 220), "hen": (20, 220, 40)}


def picture(path: Path, name: str, shade: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(c + shade for c in COLOURS[name])).save(path)


def classes(root: Path, count: int, first: int = 0) -> Path:
    for name in COLOURS:
        for number in range(count):
            picture(root / name / f"{number}.png", name, first + number)
    return root


def load(path: Path, data_dir: Path, **settings: Any) -> ImageFolder:
    data = ImageFolder(
        path=path, data_dir=data_dir, **{"image_size": 8, "validation_fraction": 0.25, **settings}
    )
    data.prepare_data()
    data.setup()
    return data


def shades(data: ImageFolder, part: str) -> dict[str, set[int]]:
    """The shades of each class's pictures in a part; the colour of every picture is that of its label."""
    split = getattr(data, part)
    x, y = split.take(torch.arange(len(split)))
    found: dict[str, set[int]] = {}
    for image, label in zip(x, y, strict=True):
        name = data.spec.classes[int(label)]
        shade = image[:, 0, 0].int() - torch.tensor(COLOURS[name])
        assert len(set(shade.tolist())) == 1, "a picture has another class's label"
        found.setdefault(name, set()).add(int(shade[0]))
    return found


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "dev", "Testing"),
        ("train_set", "valid_set", "eval"),
        ("1-train", "Validierung", "test images"),
        ("entrenamiento", "validación", "prueba"),
    ],
)
def test_folders_of_parts_are_parts_in_any_usual_spelling(
    train: str, validation: str, test: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part, count, first in ((train, 5, 0), (validation, 2, 5), (test, 3, 7)):
        classes(tmp_path / "pets" / part, count, first)
    with caplog.at_level(logging.INFO):
        data = load(tmp_path / "pets", tmp_path)
    assert data.spec.classes == ("cat", "dog", "hen")
    for part, expected in (("train", range(5)), ("validation", range(5, 7)), ("test", range(7, 10))):
        assert shades(data, part) == {name: set(expected) for name in COLOURS}
    assert f"{train}/ for train, {validation}/ for validation, {test}/ for test" in caplog.text
    # Folds go over everything but the test.
    held = [load(tmp_path / "pets", tmp_path, folds=7, fold=fold) for fold in (0, 6)]
    assert [len(one.validation or ()) for one in held] == [3, 3]
    assert all(shades(one, "test") == {name: {7, 8, 9} for name in COLOURS} for one in held)


def test_without_a_validation_or_a_test_part_a_share_is_held_out(tmp_path: Path) -> None:
    classes(tmp_path / "a" / "train", 8)
    classes(tmp_path / "a" / "test", 2, 8)
    (tmp_path / "a" / "readme").mkdir()
    data = load(tmp_path / "a", tmp_path)
    assert (len(data.train), len(data.validation or ()), len(data.test or ())) == (18, 6, 6)
    classes(tmp_path / "b" / "train", 8)
    classes(tmp_path / "b" / "val", 2, 8)
    data = load(tmp_path / "b", tmp_path, test_fraction=0.2)
    drawn = sum(len(found) for found in shades(data, "test").values())
    assert drawn == len(data.test or ()) == 6
    assert len(data.train) + len(data.validation or ()) == 24


def test_the_one_folder_of_an_archive_is_looked_into_and_what_is_left_out_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = tmp_path / "download" / "dataset v2" / "images"
    for part in ("train", "test"):
        classes(inner / part, 8)
    classes(inner / "more", 2)
    (tmp_path / "download" / "README.txt").write_text("ours")
    data = load(tmp_path / "download", tmp_path / "data")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 6, 24)
    (warned,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned.endswith("left out, as they are no such part: more")


def test_a_table_with_another_label_for_every_image_is_refused(tmp_path: Path) -> None:
    classes(tmp_path, 6)
    rows = [
        f"{name}/{number}.png,{place * 6 + number + 0.5}"
        for place, name in enumerate(COLOURS)
        for number in range(6)
    ]
    (tmp_path / "ages.csv").write_text("\n".join(["file,age", *rows]))
    with pytest.raises(
        UserError, match=r"every image has another label .*numbers are not learnt from images"
    ):
        load(tmp_path / "ages.csv", tmp_path / "data")


def test_classes_called_train_and_test_stay_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train", "test", "tram"):
        for number in range(4):
            picture(tmp_path / "toys" / name / f"{number}.png", "cat", number)
    assert load(tmp_path / "toys", tmp_path).spec.classes == ("test", "train", "tram")
    shutil.rmtree(tmp_path / "toys" / "tram")
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path / "toys", tmp_path).spec.classes == ("test", "train")
    assert "learnt as classes" in caplog.text


def test_what_is_hidden_is_no_sample_and_a_class_without_images_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = classes(tmp_path / "pets", 4)
    for hidden in (root / "cat" / ".thumbnails", root / "cat" / "__MACOSX", root / ".git"):
        shutil.copytree(root / "dog", hidden)
    shutil.copy(root / "dog" / "0.png", root / "cat" / "._0.png")
    (root / "empty").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "0.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        data = load(root, tmp_path, max_unreadable=0.2)
    assert data.spec.classes == ("cat", "dog", "hen")
    assert len(data.train) + len(data.validation or ()) + len(data.test or ()) == 12
    assert "empty holds no image: it is no class" in caplog.text
    assert "no image of broken can be read" in caplog.text


def test_a_table_of_paths_and_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["id,file,species,split"]
    for number, (name, part) in enumerate(
        (name, part) for name in COLOURS for part in ("train", "train", "train", "Valid", "test")
    ):
        # Names without a suffix, with leading zeros, in a folder that the table does not name.
        picture(tmp_path / "pets" / "jpegs" / f"{number:04d}.png", name, number)
        lines.append(f"{number * 7},{number:04d},{name},{part}")
    table = tmp_path / "pets" / "labels.csv"
    table.write_text("\n".join([*lines, "99,0001,,train"]))
    with caplog.at_level(logging.INFO):
        data = load(table, tmp_path)
    assert shades(data, "train") == {"cat": {0, 1, 2}, "dog": {5, 6, 7}, "hen": {10, 11, 12}}
    assert shades(data, "validation") == {"cat": {3}, "dog": {8}, "hen": {13}}
    assert shades(data, "test") == {"cat": {4}, "dog": {9}, "hen": {14}}
    assert "'file' is taken for paths of images, 'species' for labels, 'split' of parts" in caplog.text
    assert "1 rows without an image or a label" in caplog.text
    with pytest.raises(UserError, match=r"data.target=spices.*Did you mean species"):
        load(table, tmp_path, target="spices")
    (tmp_path / "pets" / "two.csv").write_text("file,left,right\n0001,a,b\n0002,b,a\n")
    with pytest.raises(UserError, match=r"data\.target=COLUMN"):
        load(tmp_path / "pets" / "two.csv", tmp_path)
    (tmp_path / "pets" / "none.csv").write_text("file,label\nx.png,b\ny.png,a\n")
    with pytest.raises(UserError, match="no column names image files"):
        load(tmp_path / "pets" / "none.csv", tmp_path)


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        (["cat|dog", "cat", "dog|hen", "hen|cat", "dog"], "cat|dog"),
        (["sky, sea", "sea, sand", "sand, sky", "sky, sand, sea"], "sky, sea"),
        # Names that hold a sign are names.
        (["Smith, John", "Jones, Mary", "Brown, Ann"], None),
        (["cat", "dog"], None),
    ],
)
def test_labels_that_are_several_at_once_are_noticed(labels: list[str], several: str | None) -> None:
    assert several_labels(labels * 3) == several


def test_a_table_with_several_labels_an_image_says_what_is_learnt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["cat|dog", "cat", "dog", "dog|hen", "hen|cat", "hen"]
    for number in range(24):
        picture(tmp_path / f"{number}.png", "cat", number)
    rows = [f"{number}.png,{labels[number % 6]}" for number in range(24)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    load(tmp_path / "labels.csv", tmp_path)
    assert "'cat|dog' seem to be several for one image" in caplog.text


def test_rows_whose_file_is_missing_are_named(tmp_path: Path) -> None:
    classes(tmp_path / "pets", 4)
    rows = [f"{name}/{number}.png,{name}" for name in COLOURS for number in range(4)]
    table = tmp_path / "pets" / "labels.csv"
    table.write_text("\n".join(["image,label", *rows, "cat/77.png,cat"]))
    with pytest.raises(UserError, match=r"1 of 13 images cannot be read: cat/77.png"):
        load(table, tmp_path, max_unreadable=0.01)
    data = load(table, tmp_path, max_unreadable=0.1)
    assert len(data.train) + len(data.validation or ()) + len(data.test or ()) == 12


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_are_read_as_they_are(kind: str, tmp_path: Path) -> None:
    classes(tmp_path / "pets" / "train", 5)
    classes(tmp_path / "pets" / "test", 2, 5)
    archive = tmp_path / f"pets.{kind}"
    files = sorted(path for path in (tmp_path / "pets").rglob("*.png"))
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in files:
                file.write(path, path.relative_to(tmp_path))
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(tmp_path / "pets", "pets")
    plain, packed = load(tmp_path / "pets", tmp_path / "data"), load(archive, tmp_path / "data")
    assert packed.digest == plain.digest
    assert shades(packed, "test") == {name: {5, 6} for name in COLOURS}
    archive.write_bytes(archive.read_bytes()[:300])
    with pytest.raises(UserError, match="is damaged"):
        load(archive, tmp_path / "data")


def test_arrays_by_the_names_that_such_files_use(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (30, 8, 8), dtype=np.uint8), np.arange(30) % 3
    np.savez(tmp_path / "keras.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    np.savez(
        tmp_path / "med.npz",
        train_images=x[:20],
        train_labels=y[:20, None],
        val_images=x[20:],
        val_labels=y[20:, None],
    )
    np.savez(tmp_path / "plain.npz", images=x, labels=y, classes=np.array(["a", "b", "c"]))
    data = load(tmp_path / "keras.npz", tmp_path, channels=1)
    assert data.test is not None and torch.equal(data.test.x[:, 0], torch.from_numpy(x[20:]))
    assert torch.equal(data.test.y, torch.from_numpy(y[20:])) and data.spec.classes == ("0", "1", "2")
    data = load(tmp_path / "med.npz", tmp_path, channels=1, test_fraction=0.0)
    assert data.test is None and data.validation is not None and len(data.train) == 20
    assert torch.equal(data.validation.x[:, 0], torch.from_numpy(x[20:]))
    assert load(tmp_path / "plain.npz", tmp_path).spec.classes == ("a", "b", "c")
    # The numbers of classes are as long in each part, and brightness may be a share.
    shares, many = x / 255, np.arange(30) % 20
    np.savez(tmp_path / "shares.npz", x_train=shares, y_train=many, x_test=shares[:5], y_test=many[:5])
    data = load(tmp_path / "shares.npz", tmp_path, channels=1)
    assert data.spec.classes[:2] == ("00", "01") and len(data.spec.classes) == 20 and data.test is not None
    assert torch.equal(data.test.y, torch.arange(5)) and torch.equal(
        data.test.x[:, 0], torch.from_numpy(x[:5])
    )
    np.savez(tmp_path / "odd.npz", x=x, weights=y)
    with pytest.raises(UserError, match="holds x, weights; expected images with as many labels"):
        load(tmp_path / "odd.npz", tmp_path)


def test_it_is_said_when_the_files_hold_more_than_what_is_learnt_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in COLOURS:
        for number in range(4):
            picture(tmp_path / "pets" / name / f"{number}.png", name, number, size=(80, 40))
    with caplog.at_level(logging.INFO):
        load(tmp_path / "pets", tmp_path, channels=1)
    assert "of 80×40 pixels as a rule, are learnt from at 8×8, 2 % of their pixels" in caplog.text
    assert "have colours, which data.channels=1 leaves out" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        load(tmp_path / "pets", tmp_path, image_size=64)
    assert "as a rule" not in caplog.text
