"""Tables of one's own: what is found in a file, how it is split, fitted and encoded."""

from __future__ import annotations

import datetime as dt
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.core.memory import give_back
from pipeline.data.encoders import restored
from pipeline.data.tables import files
from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.files import TableFormat, read_table
from pipeline.data.tables.reading import settled
from pipeline.data.tables.table import TableData
from pipeline.errors import UserError


def people(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Rows with every kind of column."""
    random = np.random.default_rng(seed)
    age = random.normal(40, 12, n).round(1)
    frame = pd.DataFrame(
        {
            "age": np.where(random.random(n) < 0.1, np.nan, age),
            "rooms": random.integers(1, 6, n),
            "city": random.choice(["Bern", "Oslo", "Rome"], n, p=[0.6, 0.3, 0.1]),
            "member": random.random(n) < 0.5,
            "since": pd.to_datetime("2020-01-01") + pd.to_timedelta(random.integers(0, 1000, n), unit="D"),
        }
    )
    frame["price"] = (
        3 * frame.rooms + 0.1 * age + (frame.city == "Oslo") * 5 + random.normal(0, 0.1, n)
    ).round(3)
    return frame


def load(path: Path, target: str, **settings: Any) -> TableData:
    data = TableData(path=path, target=target, **settings)
    data.prepare_data()
    data.setup()
    return data


def written(folder: Path, frame: pd.DataFrame, name: str = "table.csv") -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, date_format="iso")
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def everything(split: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = split.take(torch.arange(len(split)))
    return x.numpy(), y.numpy()


def test_numbers_are_scaled_and_filled_with_training_statistics_alone(tmp_path: Path) -> None:
    frame = people()[["age", "rooms", "price"]]
    frame["part"] = np.random.default_rng(1).choice(["train", "validation", "test"], len(frame))
    settings = {"target": "price", "split": "column", "split_column": "part"}
    data = load(written(tmp_path, frame), **settings)
    training = frame[frame.part == "train"]
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        own = frame[frame.part == name]
        age = own.age.fillna(training.age.mean())
        expected = np.stack(
            [
                (age - training.age.mean()) / training.age.std(ddof=0),
                own.age.isna(),
                (own.rooms - training.rooms.mean()) / training.rooms.std(ddof=0),
            ],
            axis=1,
        )
        x, y = everything(split)
        np.testing.assert_allclose(x, expected, atol=1e-5)
        np.testing.assert_allclose(y, own.price, rtol=1e-6)

    # Nothing of the held-out rows leaves a trace in what was fitted.
    changed = frame.copy()
    changed.loc[changed.part != "train", ["age", "rooms", "price"]] = [1e6, 77, -1e9]
    again = load(written(tmp_path, changed, "changed.csv"), **settings)
    assert again.encoder.to_state() == data.encoder.to_state()
    assert again.spec == data.spec
    np.testing.assert_array_equal(everything(again.train)[0], everything(data.train)[0])


def test_the_folds_of_a_cross_validation_fit_on_their_own_training_rows(tmp_path: Path) -> None:
    frame = people()[["age", "rooms", "price"]]
    path = written(tmp_path, frame)
    seen: list[float] = []
    shifts = set()
    for fold in range(4):
        data = load(path, "price", folds=4, fold=fold, test_fraction=0.0)
        assert data.test is None
        x, y = everything(data.train)
        np.testing.assert_allclose(x[:, 0][x[:, 1] == 0].mean(), 0, atol=1e-5)
        np.testing.assert_allclose(x[:, 2].std(), 1, atol=1e-5)
        shifts.add(data.encoder.state()["features"][1]["shift"])
        held = everything(data.validation)[1]
        assert len(y) + len(held) == len(frame)
        seen += held.tolist()
    assert len(shifts) == 4
    np.testing.assert_allclose(sorted(seen), sorted(frame.price.astype(np.float32)))


def test_scaling_as_scikit_learn_does_it(tmp_path: Path) -> None:
    from sklearn.preprocessing import RobustScaler

    frame = people()[["rooms", "age", "price"]].dropna()
    path = written(tmp_path, frame)
    data = load(path, "price", scaling="robust", test_fraction=0.0, validation_fraction=0.0)
    np.testing.assert_allclose(
        everything(data.train)[0], RobustScaler().fit_transform(frame[["rooms", "age"]].to_numpy()), atol=1e-5
    )
    plain = load(path, "price", scaling="none", test_fraction=0.0, validation_fraction=0.0)
    np.testing.assert_allclose(everything(plain.train)[0], frame[["rooms", "age"]], rtol=1e-6)


def test_categories_are_one_hot_with_places_for_missing_rare_and_unseen(tmp_path: Path) -> None:
    cities = ["Bern"] * 50 + ["Oslo"] * 30 + ["Rome"] * 20 + [None] * 10 + ["Ulm"]
    frame = pd.DataFrame({"city": cities, "y": np.arange(111.0) + 0.5})
    data = load(written(tmp_path, frame), "y", max_categories=2, test_fraction=0.0, validation_fraction=0.0)
    assert data.encoder.inputs() == ["city = Bern", "city = Oslo", "city is missing", "city = (other)"]
    expected = np.stack(
        [frame.city == "Bern", frame.city == "Oslo", frame.city.isna(), frame.city.isin(["Rome", "Ulm"])],
        axis=1,
    )
    np.testing.assert_array_equal(everything(data.train)[0], expected)
    rows = [{"city": "Oslo"}, {"city": None}, {"city": "Atlantis"}]
    np.testing.assert_array_equal(
        data.encoder.encode(rows).numpy(), [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )


def test_dates_become_days_and_places_on_circles(tmp_path: Path) -> None:
    frame = people()[["since", "price"]]
    data = load(written(tmp_path, frame), "price", test_fraction=0.0, validation_fraction=0.0)
    x = everything(data.train)[0]
    days = (frame.since - pd.Timestamp("1970-01-01")).dt.days.to_numpy()
    np.testing.assert_allclose(x[:, 0], (days - days.mean()) / days.std(), atol=1e-5)
    np.testing.assert_allclose(x[:, 3], np.sin(2 * np.pi * days / 7), atol=1e-5)
    assert data.encoder.inputs()[3:5] == ["since sine of week", "since cosine of week"]
    # Beside the circles, the calendar as numbers, which pandas reads from it.
    parts = {"year": "year", "month": "month", "day": "day", "weekday": "weekday", "day of year": "dayofyear"}
    assert data.encoder.inputs()[5:] == [f"since {part}" for part in parts]
    for place, attribute in enumerate(parts.values(), start=5):
        expected = getattr(frame.since.dt, attribute).to_numpy(np.float64)
        line = np.polyfit(expected, x[:, place], 1)
        assert line[0] > 0.005
        np.testing.assert_allclose(x[:, place], np.polyval(line, expected), atol=1e-5)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.jsonl"])
def test_every_format_gives_the_same_inputs(tmp_path: Path, name: str) -> None:
    frame = people()
    data = load(written(tmp_path, frame, name), "price", keep=["member"])
    reference = load(written(tmp_path, frame, "reference.csv"), "price", keep=["member"])
    assert data.encoder.to_state() == reference.encoder.to_state()
    np.testing.assert_array_equal(everything(data.train)[0], everything(reference.train)[0])
    np.testing.assert_array_equal(everything(data.test)[1], everything(reference.test)[1])


def test_the_encoder_takes_rows_of_the_file_in_any_form(tmp_path: Path) -> None:
    frame = people()
    data = load(written(tmp_path, frame), "price", test_fraction=0.0, validation_fraction=0.0)
    again = restored(json.loads(json.dumps(data.encoder.to_state())))
    assert isinstance(again, TableEncoder)
    expected = everything(data.train)[0]
    features = frame.drop(columns="price")
    as_text = features.astype({"rooms": str, "member": str}).assign(since=features.since.astype(str))
    for raw in (
        features,
        frame,
        features[reversed(features.columns)],
        features.to_dict(orient="records"),
        features.to_dict(orient="list"),
        as_text,
        pd.read_csv(tmp_path / "table.csv"),
    ):
        np.testing.assert_allclose(again.encode(raw).numpy(), expected, atol=1e-6)
    one = again.encode(
        {"age": None, "rooms": 3, "city": "Oslo", "member": True, "since": dt.date(2021, 5, 5)}
    )
    assert one.shape == (1, data.spec.input_shape[0])
    assert torch.isfinite(again.encode(again.example())).all()
    columns = {column["name"]: column["dtype"] for column in again.signature()["columns"]}
    assert columns == {"age": "any", "rooms": "any", "city": "string", "member": "any", "since": "any"}


def test_categories_written_as_numbers_are_the_same_category(tmp_path: Path) -> None:
    frame = people()
    data = load(written(tmp_path, frame), "price", categorical=["rooms"])
    one = {"age": 30, "city": "Rome", "member": True, "since": "2021-01-01"}
    codes = [data.encoder.encode([{**one, "rooms": rooms}]) for rooms in (3, 3.0, "3", np.int8(3))]
    assert all(torch.equal(code, codes[0]) for code in codes)
    ones = {name for name, value in zip(data.encoder.inputs(), codes[0][0], strict=True) if value == 1}
    assert {"rooms = 3", "city = Rome"} <= ones


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([{"rooms": 3}], "lacks the columns"),
        ([], "expected a data frame or a list of dictionaries"),
        ("three rooms", "expected a data frame"),
        ([{"age": "old", "rooms": 1, "city": "Rome", "member": True, "since": "2020-01-01"}], "'old'"),
        (
            [{"age": 1, "rooms": 1, "city": "Rome", "member": True, "since": "yesterday"}],
            "dates like 2024-01-31",
        ),
        (
            {"age": [1, 2], "rooms": [1], "city": ["x"], "member": [True], "since": ["2020-01-01"]},
            "fit together",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, raw: Any, words: str) -> None:
    data = load(written(tmp_path, people()), "price")
    with pytest.raises(UserError, match=words):
        data.encoder.encode(raw)


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["yes", "no"] * 50, "binary", ("no", "yes")),
        ([True, False] * 50, "binary", ("false", "true")),
        ([10, 2, 1, 2, 1] * 20, "multiclass", ("1", "2", "10")),
        ([0, 1] * 50, "binary", ("0", "1")),
        (["b", "a", "c", "a"] * 25, "multiclass", ("a", "b", "c")),
        ([0.5, 1.0] * 50, "regression", ()),
        (list(range(25)) * 4, "regression", ()),
        ([*range(19), *range(19)], "regression", ()),
    ],
)
def test_what_is_predicted_follows_from_the_target(
    tmp_path: Path, target: list[Any], task: str, classes: tuple[str, ...]
) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=len(target)), "t": target})
    data = load(written(tmp_path, frame), "t")
    assert (data.spec.task, data.spec.classes) == (task, classes)
    if classes:
        labels = frame.t.astype(str).str.lower().map({name: i for i, name in enumerate(classes)})
        values = np.concatenate([everything(s)[1] for s in (data.train, data.validation, data.test)])
        assert np.bincount(values.astype(int)).tolist() == np.bincount(labels).tolist()


def test_kind_overrules_the_guess(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=100), "t": [1, 2, 3, 4] * 25})
    path = written(tmp_path, frame)
    assert load(path, "t").spec.task == "multiclass"
    assert load(path, "t", kind="regression").spec.task == "regression"
    assert load(path, "x", kind="classification").spec.task == "multiclass"


def test_a_random_split_keeps_the_share_of_each_class_and_depends_on_the_data_seed(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=1000), "t": ["rare"] * 100 + ["often"] * 900}
    )
    path = written(tmp_path, frame)
    data = load(path, "t", test_fraction=0.2, validation_fraction=0.25)
    assert (len(data.train), len(data.validation or ()), len(data.test or ())) == (600, 200, 200)
    for split in (data.train, data.validation, data.test):
        assert everything(split)[1].mean() == pytest.approx(0.1, abs=0.006)
    xs = [everything(s)[0][:, 0] for s in (data.train, data.validation, data.test)]
    assert len(np.unique(np.concatenate(xs))) == 1000
    assert load(path, "t", test_fraction=0.2, validation_fraction=0.25).digest == data.digest
    assert load(path, "t", test_fraction=0.2, validation_fraction=0.25, seed=1).digest != data.digest


def test_a_split_by_date_tests_on_the_latest_rows(tmp_path: Path) -> None:
    frame = people()
    frame["x"] = (frame.since - pd.Timestamp("2020-01-01")).dt.days
    path = written(tmp_path, frame[["since", "x", "price"]])
    settings = {"split": "date", "split_column": "since", "scaling": "none", "keep": ["x"]}
    data = load(path, "price", **settings)
    train, validation, test = (everything(s)[0][:, 0] for s in (data.train, data.validation, data.test))
    assert train.max() < validation.min() <= validation.max() < test.min()
    assert len(test) == pytest.approx(0.15 * len(frame), abs=3)
    dated = load(path, "price", test_from="2022-01-01", **settings)
    assert everything(dated.test)[0][:, 0].min() >= 731 > everything(dated.validation)[0][:, 0].max()
    assert "since" not in data.encoder.columns


def test_rows_with_one_key_stay_together_and_stay_where_they_are_when_the_file_grows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"customer": random.integers(0, 200, 2000), "x": random.normal(size=2000)})
    frame["y"] = frame.x * 2
    settings = {"split": "hash", "split_column": "customer", "scaling": "none"}
    data = load(written(tmp_path, frame), "y", **settings)
    owner = dict(zip(frame.x.astype(np.float32), frame.customer, strict=True))
    owners = [{owner[x] for x in everything(s)[0][:, 0]} for s in (data.train, data.validation, data.test)]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    grown = pd.concat([frame.assign(customer=frame.customer + 200, x=frame.x + 100), frame])
    later = load(written(tmp_path, grown, "grown.csv"), "y", **settings)
    assert set(everything(data.test)[1]) <= set(everything(later.test)[1])
    folded = [load(written(tmp_path, frame), "y", folds=3, fold=k, **settings) for k in range(3)]
    held = [{owner[x] for x in everything(d.validation)[0][:, 0]} for d in folded]
    assert sum(map(len, held)) == len(set.union(*held))


def test_a_test_file_of_its_own(tmp_path: Path) -> None:
    frame = people()
    test = people(50, seed=9)
    data = load(
        written(tmp_path, frame),
        "price",
        test_path=written(tmp_path, test, "test.csv"),
        validation_fraction=0.1,
    )
    assert len(data.train) + len(data.validation or ()) == len(frame)
    np.testing.assert_allclose(everything(data.test)[1], test.price, rtol=1e-6)
    np.testing.assert_array_equal(everything(data.test)[0], data.encoder.encode(test).numpy())
    with pytest.raises(UserError, match=r"lacks the columns 'city'"):
        load(
            tmp_path / "table.csv",
            "price",
            test_path=written(tmp_path, test.drop(columns="city"), "less.csv"),
        )


def test_columns_that_tell_nothing_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    frame = people()
    frame.insert(0, "row", np.arange(400))
    frame["customer_id"] = random.permutation(10**6)[:400]
    frame["name"] = [f"person {i}" for i in range(400)]
    frame["planet"] = "Earth"
    frame["empty"] = np.nan
    with caplog.at_level(logging.WARNING):
        data = load(written(tmp_path, frame), "price")
    assert data.encoder.columns == ["age", "rooms", "city", "member", "since"]
    for name in ("row", "customer_id", "name", "planet", "empty"):
        assert f"'{name}'" in caplog.text
    kept = load(tmp_path / "table.csv", "price", keep=["row"], drop=["city"])
    assert kept.encoder.columns == ["row", "age", "rooms", "member", "since"]


def test_balance_counts_the_training_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=400), "t": ["a"] * 300 + ["b"] * 60 + ["c"] * 40}
    )
    path = written(tmp_path, frame)
    weighted = load(path, "t", balance="class_weights")
    counts = np.bincount(everything(weighted.train)[1])
    np.testing.assert_allclose(weighted.spec.class_weights, counts.sum() / (3 * counts))
    repeated = load(path, "t", balance="oversample")
    assert np.bincount(everything(repeated.train)[1]).tolist() == [counts[0]] * 3
    with pytest.raises(UserError, match="balance"):
        load(written(tmp_path, people(), "n.csv"), "price", balance="oversample")


def test_a_column_whose_type_changes_late_is_read_as_what_most_of_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    n = 120_000
    x = (np.arange(n) / 2).astype(str)
    x[-20:] = "plenty"
    code = np.tile(["1", "2", "3"], n // 3)
    code[-5000:] = "A"
    frame = pd.DataFrame(
        {"x": x, "code": code, "padding": "some words to fill the first block", "y": np.arange(n) / 7}
    )
    with caplog.at_level(logging.WARNING):
        data = load(written(tmp_path, frame), "y")
    table = read_table(tmp_path / "table.csv", TableFormat())
    column = settled(table, "x")
    assert (column.kind, int(column.missing.sum())) == ("number", 20)
    assert "'plenty'" in caplog.text
    assert settled(table, "code").kind == ("number" if 5000 / n < 0.05 else "text")
    assert {feature.name: feature.kind for feature in data.encoder.features}["x"] == "number"


def test_quotes_line_ends_within_values_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffx,note,y\n" + "".join(f'{i},"a ""b"",\nline {i % 2}",{i / 2}\n' for i in range(50))
    path = tmp_path / "q.csv"
    path.write_text(text, encoding="utf-8")
    table = read_table(path, TableFormat())
    assert (table.names, len(table)) == (["x", "note", "y"], 50)
    assert table.column("note").words == ('a "b",\nline 0', 'a "b",\nline 1')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["plain", f'"{"a" * 10}\nb"'])
def test_quotes_around_the_names_alone_or_far_behind_them(tmp_path: Path, end: str, last: str) -> None:
    path = tmp_path / "q.csv"
    rows = [f"{i},note" for i in range(200_000)] + [f"1,{last}"]
    path.write_bytes((end.join(['"x","a, b"', *rows]) + end).encode())
    table = read_table(path, TableFormat())
    assert (table.names, len(table)) == (["x", "a, b"], len(rows))
    assert table.column("a, b").words == ("note", last.strip('"'))


def test_other_encodings_delimiters_and_decimal_marks(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("größe;ort\n1,5;Köln\n2,5;Köln\n".encode("latin-1"))
    table = read_table(path, TableFormat(delimiter=";", encoding="latin-1", decimal=","))
    assert table.column("größe").values.tolist() == [1.5, 2.5]
    assert table.column("ort").words == ("Köln",)


GOOD = "a,b,y\n" + "".join(f"{i % 7},{i * 0.5},{i * 0.25}\n" for i in range(40))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n\n", "cannot be read as csv"),
        (b"a,b,y\n", "but no rows"),
        (b"a,a,y\n1,2,3\n", "more than one column named 'a'"),
        (GOOD.encode() + b"1,2\n", "line 42: 2 values, but the header names 3"),
        (GOOD.encode() + b'1,"' + b"x" * 3_000_000, "quotation mark is never closed"),
        ("a,b,y\nä,1,2\n".encode("latin-1"), "data.encoding"),
        (b"\xff\xfea,b,y\n", "UTF-16"),
        (b"PK\x03\x04 and so on", "spreadsheet"),
        (b"\x1f\x8b\x08 and so on", "compressed"),
        (b"PAR1 and so on", "data.format=parquet"),
        (b"a,b\n1,2\n", "data.target names the column 'y'"),
        (b"a,b,y\n1,2,\n2,3,\n", "no value in any row"),
        (b"a,b,y\n" + b"1,2,5\n" * 40, "the same value everywhere|only one class"),
        (b"a,b,y\n" + b"1,2,yes\n" * 40, "only one class"),
        (b"a,b,y\n" + b"".join(b",,%d.5\n" % i for i in range(40)), "no column is left"),
        (b"a,b,y\n" + b"".join(b"1,2,%d.5\n" % i for i in range(40)), "no column is left"),
        (b"a,b,y\n1,2,3.5\n", "bring more data|nothing to learn"),
        (b"a,b,y\n" + b"1,2,2020-01-01\n2,3,2020-01-02\n" * 20, "holds dates"),
        (b"y\n1\n2\n" * 20, "no column is left"),
    ],
)
def test_bad_files_give_one_clear_message(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        load(path, "y")
    assert len(str(error.value)) < 500


def test_bad_settings_give_one_clear_message(tmp_path: Path) -> None:
    path = written(tmp_path, people())
    for changes, words in [
        ({"path": tmp_path / "none.csv"}, "no such file"),
        ({"path": tmp_path}, "is a directory"),
        ({"path": None}, "data.path=FILE"),
        ({"target": "Price"}, "did you mean 'price'"),
        ({"kind": "clustering"}, "auto, classification or regression"),
        ({"kind": "regression", "target": "city"}, "holds text"),
        ({"scaling": "minmax"}, "standard, robust, none"),
        ({"split": "column"}, "data.split_column"),
        ({"split": "column", "split_column": "city"}, "train, validation or test"),
        ({"split": "date", "split_column": "city"}, "no dates"),
        ({"split": "date", "split_column": "since", "test_from": "soon"}, "is no date"),
        ({"split": "hash", "split_column": "age"}, "have no 'age'"),
        ({"split": "random"}, "one of fraction"),
        ({"drop": ["towm"]}, "data.drop names the column 'towm'"),
        ({"encoding": "utf-9"}, "is no encoding"),
        ({"delimiter": "::"}, "one character"),
        ({"format": "sas"}, "expected auto or one of"),
        ({"delimiter": ";"}, "names the column 'price'"),
        ({"max_categories": 0}, "at least 1"),
        ({"categorical": ["rooms"], "numeric": ["rooms"]}, "both"),
        ({"path": written(tmp_path, people(3), "small.csv")}, "rows|samples|left"),
        ({"folds": 500}, "folds"),
    ]:
        with pytest.raises(UserError, match=words):
            load(**{"path": path, "target": "price", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bad.parquet", "bad.jsonl"])
def test_damaged_files_of_other_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PAR1 {this is neither}")
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        load(path, "y")
    whole = written(tmp_path, people(), f"whole{path.suffix}").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if path.suffix == ".parquet":
        with pytest.raises(UserError, match="cannot be read"):
            load(path, "price")


def test_a_file_too_large_for_memory_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: Any) -> None:
    import psutil

    class Memory:
        available = 1000

    path = written(tmp_path, people())
    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    for name in ("table.csv", "t.parquet"):
        written(tmp_path, people(), name)
        with pytest.raises(UserError, match=r"GB are free.*data=memmap"):
            load(path.with_name(name), "price")


def test_large_files_are_not_kept_beside_what_was_made_of_them(tmp_path: Path, monkeypatch: Any) -> None:
    frame = pd.DataFrame({"x": np.arange(50.0), "y": np.arange(50.0)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for most, kept in ((1 << 20, True), (100, False)):
        monkeypatch.setattr(files, "_LARGE", most)
        before = read_table(tmp_path / "t.csv", TableFormat())
        TableData(path=tmp_path / "t.csv", target="y").setup()
        assert (read_table(tmp_path / "t.csv", TableFormat()) is before) == kept


def test_what_reading_took_is_given_back_whatever_the_c_library(monkeypatch: Any) -> None:
    import ctypes

    import pyarrow as pa

    given: list[str] = []
    pool = SimpleNamespace(release_unused=lambda: given.append("arrow"))
    monkeypatch.setattr(pa, "default_memory_pool", lambda: pool)
    trimming = SimpleNamespace(malloc_trim=lambda rest: given.append(f"all but {rest} bytes"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: trimming)
    give_back()
    assert given == ["arrow", "all but 0 bytes"]
    # Another library than glibc.
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    give_back()
    assert given[2:] == ["arrow"]


def test_enormous_numbers_stay_finite(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": [1e308, -1e308, 1.0, np.inf] * 10, "z": [1e-320, 3.0] * 20, "y": np.arange(40) / 3}
    )
    data = load(written(tmp_path, frame), "y")
    for split in (data.train, data.validation, data.test):
        assert np.isfinite(everything(split)[0]).all()


def test_the_unit_of_a_number_to_predict_makes_no_difference(tmp_path: Path) -> None:
    """Prices in dollars are learnt like prices in millions: loss and steps are those of the standardised target."""
    from pipeline.models.mlp import MLP

    losses = {}
    for unit in (1.0, 1e6):
        frame = people()
        frame["price"] = frame.price * unit
        data = load(written(tmp_path, frame, f"{unit}.csv"), "price")
        x, y = data.train.take(torch.arange(len(data.train)))
        torch.manual_seed(0)
        model = MLP(data.spec, hidden_units=8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(150):
            optimizer.zero_grad()
            loss = model.objective.loss(model(x), y)
            loss.backward()
            optimizer.step()
        losses[unit] = float(loss.detach())
        assert float((model(x).detach()[:, 0] - y).abs().mean()) < 0.1 * float(y.std())
    assert losses[1e6] == pytest.approx(losses[1.0], rel=0.05)
    frame["price"] = frame.price * 1e12
    with pytest.raises(UserError, match="rescale it"):
        load(written(tmp_path, frame, "large.csv"), "price")


cells = st.one_of(
    st.none(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.text(max_size=8),
    st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(st.lists(cells, min_size=25, max_size=25), min_size=1, max_size=4),
    kind=st.sampled_from(["auto", "classification", "regression"]),
    scaling=st.sampled_from(["standard", "robust", "none"]),
)
def test_any_table_is_either_encoded_in_finite_numbers_or_refused(
    tmp_path: Path, columns: list[list[Any]], kind: str, scaling: str
) -> None:
    frame = pd.DataFrame({f"c{i}": pd.Series(values, dtype=object) for i, values in enumerate(columns)})
    frame["y"] = [1.5, 2.0, 7.25, 3.0, 1.0] * 5
    path = tmp_path / "any.csv"
    frame.to_csv(path, index=False)
    try:
        data = load(path, "y", kind=kind, scaling=scaling)
    except UserError:
        return
    x = everything(data.train)[0]
    assert np.isfinite(x).all()
    assert x.shape[1] == data.spec.input_shape[0] == len(data.encoder.inputs())
    assert torch.isfinite(data.encoder.encode(data.encoder.example())).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), min_size=1, max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 2000)),
)
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, places: list[tuple[int, bytes]], cut: int | None
) -> None:
    content = bytearray(GOOD.encode() * 2 if cut is None else GOOD.encode()[:cut])
    for place, mutation in places:
        content[place % (len(content) + 1) : place % (len(content) + 1) + 1] = mutation
    path = tmp_path / "mutated.csv"
    path.write_bytes(bytes(content))
    try:
        data = load(path, "y")
    except UserError:
        return
    assert np.isfinite(everything(data.train)[0]).all()
