"""Images with several labels each, as tables write them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.images.folder import ImageFolder
from pipeline.errors import UserError

NAMES = ("blue", "green", "red")


def pictures(root: Path, sets: Sequence[Sequence[str]]) -> list[str]:
    """A picture for each set of labels: each label is bright in its own channel."""
    root.mkdir(parents=True, exist_ok=True)
    for number, labels in enumerate(sets):
        colour = tuple(220 if name in labels else 20 for name in ("red", "green", "blue"))
        Image.new("RGB", (6, 6), colour).save(root / f"{number}.png")
    return [f"{number}.png" for number in range(len(sets))]


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def random_sets(count: int) -> list[list[str]]:
    random = np.random.default_rng(0)
    return [
        [name for name, chance in zip(NAMES, (0.2, 0.4, 0.5), strict=True) if random.random() < chance]
        for _ in range(count)
    ]


def load(path: Path, data_dir: Path, **settings: Any) -> ImageFolder:
    data = ImageFolder(path=path, data_dir=data_dir, labels="multi", **{"image_size": 6, **settings})
    data.prepare_data()
    data.setup()
    return data


def agree(data: ImageFolder) -> int:
    """The number of samples, each of which has the labels that its colours say."""
    count = 0
    for split in (data.train, data.validation, data.test):
        assert split is not None
        x, y = split.take(torch.arange(len(split)))
        bright = x[:, :, 0, 0].flip(1) > 100
        assert data.spec.classes == NAMES
        assert torch.equal(bright, y > 0.5)
        count += len(x)
    return count


@pytest.mark.parametrize("sign", ["|", ";", ",", " ", " | "])
def test_labels_in_one_cell_are_told_apart_by_whatever_stands_between_them(
    sign: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sets = random_sets(80)
    files = pictures(tmp_path / "a", sets)
    path = table(
        tmp_path / "a" / "t.csv",
        ["file", "tags"],
        [(f, sign.join(s)) for f, s in zip(files, sets, strict=True)],
    )
    with caplog.at_level(logging.INFO):
        data = load(path, tmp_path)
    assert agree(data) == 80
    assert data.spec.task == "multilabel"
    assert data.spec.outputs == 3
    assert f"{sum(not s for s in sets)} images have no label" in caplog.text


@pytest.mark.parametrize("values", [("1", "0"), ("yes", "no"), ("True", "False"), ("1.0", ""), ("1", "-1")])
def test_a_column_for_each_label_says_yes_or_no_in_the_usual_words(
    values: tuple[str, str], tmp_path: Path
) -> None:
    sets = random_sets(60)
    files = pictures(tmp_path / "a", sets)
    rows = [
        (f, *(values[0] if n in s else values[1] for n in NAMES), f"note {f}")
        for f, s in zip(files, sets, strict=True)
    ]
    path = table(tmp_path / "a" / "t.csv", ["file", *NAMES, "remark"], rows)
    assert agree(load(path, tmp_path)) == 60
    assert agree(load(path, tmp_path, target=list(NAMES))) == 60
    # Some of them alone.
    assert load(path, tmp_path, target=["green", "red"]).spec.classes == ("green", "red")


def test_a_separator_that_is_said_is_used_and_names_of_two_words_stay_whole(tmp_path: Path) -> None:
    sets = [["hot dog", "ice tea"], ["ice tea"], [], ["hot dog"]] * 10
    files = pictures(tmp_path / "a", sets)

    def path(sign: str) -> Path:
        rows = [(f, sign.join(s)) for f, s in zip(files, sets, strict=True)]
        return table(tmp_path / "a" / f"{ord(sign[0])}.csv", ["file", "labels"], rows)

    assert load(path("|"), tmp_path).spec.classes == ("hot dog", "ice tea")
    assert load(path("+"), tmp_path, separator="+").spec.classes == ("hot dog", "ice tea")


def test_parts_of_a_table_are_kept_and_each_rare_label_is_learnt(tmp_path: Path) -> None:
    sets = [*random_sets(40), ["blue", "green", "red"]]
    files = pictures(tmp_path / "a", sets)
    parts = ["train"] * 20 + ["val"] * 10 + ["test"] * 11
    rows = [(f, "|".join(s), p) for f, s, p in zip(files, sets, parts, strict=True)]
    data = load(table(tmp_path / "a" / "t.csv", ["file", "labels", "split"], rows), tmp_path)
    assert agree(data) == 41
    assert [len(split or ()) for split in (data.train, data.validation, data.test)] == [20, 10, 11]
    # One image of a hundred has the label: the draws leave it to the training.
    sets = [["red"] if n % 2 else ["green"] for n in range(100)] + [["red", "blue"]]
    files = pictures(tmp_path / "b", sets)
    path = table(
        tmp_path / "b" / "t.csv",
        ["file", "labels"],
        [(f, "|".join(s)) for f, s in zip(files, sets, strict=True)],
    )
    for seed in range(3):
        assert load(path, tmp_path, seed=seed).train.y.sum(0)[0] == 1


def test_what_cannot_be_understood_is_refused_with_a_message_each(tmp_path: Path) -> None:
    sets = random_sets(30)
    files = pictures(tmp_path / "a", sets)
    flags = [(f, *(int(n in s) for n in NAMES)) for f, s in zip(files, sets, strict=True)]
    strange = [*flags[:11], (files[11], 1, "perhaps", 0), *flags[12:]]
    path = table(tmp_path / "a" / "strange.csv", ["file", *NAMES], strange)
    with pytest.raises(UserError, match=r"row 12: 'perhaps' in the column 'green' is neither yes nor no"):
        load(path, tmp_path, target=list(NAMES))
    good = table(tmp_path / "a" / "good.csv", ["file", *NAMES], flags)
    with pytest.raises(UserError, match=r"data\.target=yellow: .* has no such column"):
        load(good, tmp_path, target=["green", "yellow"])
    with pytest.raises(UserError, match="have 1 different labels"):
        load(table(tmp_path / "a" / "one.csv", ["file", "labels"], [(f, "green") for f in files]), tmp_path)
    with pytest.raises(UserError, match=r"data\.balance=oversample is for images with one label each"):
        load(good, tmp_path, balance="oversample")
    with pytest.raises(UserError, match=r"which columns hold the labels cannot be told from colour, size"):
        load(
            table(tmp_path / "a" / "none.csv", ["file", "colour", "size"], [(f, "a", "b") for f in files]),
            tmp_path,
        )
    (tmp_path / "c" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="folders of classes give each image one label"):
        load(tmp_path / "c", tmp_path)
    with pytest.raises(UserError, match=r"several labels an image are learnt with data\.labels=multi"):
        ImageFolder(path=good, data_dir=tmp_path, target=["green", "red"]).setup()
