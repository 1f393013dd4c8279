"""Tables on disk that are read a batch at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data.core.loader import Loader
from pipeline.data.tables.memmap import MemoryMapped, main, open_table, write_table
from pipeline.errors import UserError

ROWS, BLOCK = 1030, 16


def table(folder: Path, classes: tuple[str, ...] = ()) -> tuple[Path, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(5, 2, (ROWS, 3)).astype(np.float32)
    x[:, 2] = np.arange(ROWS)
    x[random.random(ROWS) < 0.1, 0] = np.nan
    y = random.integers(0, len(classes), ROWS) if classes else x[:, 1] * 2
    chunks = ((x[i : i + 100], y[i : i + 100]) for i in range(0, ROWS, 100))
    path = folder / "mapped"
    assert write_table(path, chunks, ["a", "b", "c"], "y", classes) == ROWS
    return path, x, y


def load(path: Path, **settings: Any) -> MemoryMapped:
    data = MemoryMapped(
        path=path, **{"block": BLOCK, "test_fraction": 0.1, "validation_fraction": 0.2, **settings}
    )
    data.setup()
    return data


def test_what_is_written_is_what_numpy_reads(tmp_path: Path) -> None:
    path, x, y = table(tmp_path)
    np.testing.assert_array_equal(np.load(path / "x.npy"), x)
    np.testing.assert_array_equal(np.load(path / "y.npy"), y)
    with pytest.raises(UserError, match="exists already"):
        write_table(path, [], ["a"])


def test_the_parts_hold_every_row_once_standardised_by_the_training_rows(tmp_path: Path) -> None:
    path, x, y = table(tmp_path)
    data = load(path)
    parts = [
        split.take(torch.arange(len(split))) for split in (data.train, data.validation, data.test) if split
    ]
    shift, scale = (np.array(data.encoder.state()[key]) for key in ("shift", "scale"))
    numbers = [np.rint(part.numpy()[:, 2] * scale[2] + shift[2]).astype(int) for part, _ in parts]
    assert sorted(np.concatenate(numbers).tolist()) == list(range(ROWS))
    training = x[numbers[0]]
    np.testing.assert_allclose(shift, np.nanmean(training, axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale, np.nanstd(training, axis=0), rtol=1e-5)
    for rows, (inputs, targets) in zip(numbers, parts, strict=True):
        np.testing.assert_array_equal(targets, y[rows])
        np.testing.assert_allclose(inputs, np.nan_to_num((x[rows] - shift) / scale), atol=1e-4)
        np.testing.assert_allclose(inputs, data.encoder.encode(x[rows]), atol=1e-4)
    np.testing.assert_array_equal(data.train.y, y[numbers[0]])


@pytest.mark.parametrize("batch_size", [1, 7, 64, 5000])
def test_an_epoch_sees_every_training_row_once_in_an_order_of_its_own(
    tmp_path: Path, batch_size: int
) -> None:
    data = load(table(tmp_path)[0])
    loader = Loader(data.train, batch_size, shuffle=True, seed=3)
    epochs = [torch.cat(list(loader.rows(epoch))) for epoch in (0, 1, 0)]
    for rows in epochs:
        assert sorted(rows.tolist()) == list(range(len(data.train)))
    assert torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])
    assert len(loader.rows(0)) == loader.batches
    assert all(len(batch) == batch_size for batch in list(loader.rows(0))[:-1])
    in_order = torch.cat(list(Loader(data.train, batch_size).rows(0)))
    assert torch.equal(in_order, torch.arange(len(data.train)))


def test_shuffling_moves_rows_across_the_whole_table(tmp_path: Path) -> None:
    data = load(table(tmp_path)[0])
    first = torch.cat(list(Loader(data.train, 10, shuffle=True).rows(0)))[:100]
    spread = (first.double().std() / torch.arange(len(data.train)).double().std()).item()
    assert spread == pytest.approx(1, abs=0.3)


def test_folds_hold_out_every_block_once(tmp_path: Path) -> None:
    path, _, y = table(tmp_path)
    held = [load(path, folds=3, fold=k, test_fraction=0.0).validation for k in range(3)]
    targets = np.concatenate([split.y for split in held if split is not None])
    np.testing.assert_array_equal(np.sort(targets), np.sort(y))


def test_a_csv_becomes_arrays_with_classes_from_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=500), "b": random.integers(0, 9, 500)})
    frame.loc[3, "a"] = np.nan
    frame["kind"] = random.choice(["x", "y", "z"], 500)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    for name in ("t.csv", "t.parquet"):
        target = tmp_path / f"{name}.arrays"
        assert main([str(tmp_path / name), str(target), "--target", "kind"]) == 0
        x, y, about = open_table(target)
        np.testing.assert_allclose(x, frame[["a", "b"]], rtol=1e-6)
        assert [about["classes"][label] for label in y] == frame.kind.tolist()
    assert "data=memmap" in capsys.readouterr().out
    assert load(target).spec.classes == ("x", "y", "z")
    assert main([str(tmp_path / "t.csv"), str(tmp_path / "other"), "--target", "none"]) == 2
    assert main([str(tmp_path / "t.csv"), str(tmp_path / "other"), "--target", "a"]) == 2
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob("*.part"))


def test_damaged_directories_are_refused(tmp_path: Path) -> None:
    path, x, _ = table(tmp_path)
    with pytest.raises(UserError, match="too few"):
        load(path, block=BLOCK * 100)
    with pytest.raises(UserError, match="no table"):
        load(tmp_path)
    (path / "x.npy").write_bytes((path / "x.npy").read_bytes()[:1000])
    with pytest.raises(UserError, match="no table"):
        load(path)
    np.save(path / "x.npy", x[:5])
    with pytest.raises(UserError, match="do not fit together"):
        load(path)
    np.save(path / "x.npy", np.array([{"a": print}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="no table"):
        load(path)
    (path / "table.json").write_text(json.dumps({"columns": 3}))
    with pytest.raises(UserError, match="no table"):
        load(path)


def test_two_classes_and_a_baseline_from_the_targets(tmp_path: Path) -> None:
    path, _, y = table(tmp_path, classes=("no", "yes"))
    data = load(path, balance="class_weights")
    assert (data.spec.task, data.spec.outputs) == ("binary", 1)
    counts = np.bincount(data.train.y.long())
    np.testing.assert_allclose(data.spec.class_weights, counts.sum() / (2 * counts))
    assert data.validation is not None
    found = data.baselines()["majority"](data.train, data.validation, data.spec)
    assert found["accuracy"] == pytest.approx(float((data.validation.y == counts.argmax()).double().mean()))
    assert y.dtype == np.int64
