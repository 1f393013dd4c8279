"""What is guessed about people's tables: each guess is right where it can be, and named with the key to type."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.tables.dates import dates_of
from pipeline.data.tables.features import NumberFeature
from pipeline.data.tables.files import read_batches
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.guesses import Guess, typed
from pipeline.data.tables.reading import find_reading
from pipeline.data.tables.table import TableData
from pipeline.data.tables.values import Column
from pipeline.data.tables.words import numbers_of, times_of
from pipeline.errors import UserError

RANDOM = np.random.default_rng(0)


def trained(path: Path, target: str = "y", **settings: Any) -> TableData:
    data = TableData(path=path, target=target, **settings)
    data.setup()
    return data


def table(tmp_path: Path, name: str = "t.csv", **columns: Any) -> Path:
    path = tmp_path / name
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def about(data: TableData, word: str) -> Guess:
    """The one guess that says a word."""
    (found,) = [guess for guess in data.guesses if word in guess.what]
    return found


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("$1001.50", 1001.5), ("$1,001.50", 1001.5), ("13,000", 13000), ("12%", 12), ("12.5 %", 12.5), ("€ 5", 5),
        ("5 €", 5), ("USD 1,250", 1250), ("1250EUR", 1250), ("(1,000)", -1000), ("-$5", -5), ("\u22125", -5),
        ("1 234 567", 1234567), ("1'234.5", 1234.5), ("1\u00a0234", 1234), ("+7", 7), ("1e3", 1000), (" 8 ", 8),
        ("12,34,567", 1234567), ("1,00", None), ("1.2.3", None), ("555-1234", None), ("12 apples", None), ("", None),
        ("5-10", None), ("A1", None), ("$", None), ("%", None),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(word: str, number: float | None) -> None:
    (found,) = numbers_of([word])
    assert found == number if number is not None else np.isnan(found)


def test_numbers_with_a_decimal_comma() -> None:
    assert numbers_of(["1,5", "1.234,5", "1.234", "-0,25 €", "3"], ",").tolist() == [
        1.5,
        1234.5,
        1234,
        -0.25,
        3,
    ]
    assert np.isnan(numbers_of(["1.5", "1,2,3"], ",")).all()


@pytest.mark.parametrize(
    ("word", "form", "day"),
    [
        ("2024-01-31", "ymd", "2024-01-31"), ("2015/01/01", "ymd", "2015-01-01"), ("01/31/2024", "mdy", "2024-01-31"),
        ("6/1/1930", "mdy", "1930-06-01"), ("6/1/1930", "dmy", "1930-01-06"), ("31.12.99", "dmy", "1999-12-31"),
        ("31 Jan 2024", "ymd", "2024-01-31"), ("January 31st, 2024", "ymd", "2024-01-31"), ("02/30/2024", "mdy", None),
        ("Wed, 31-Jan-2024", "ymd", "2024-01-31"), ("13/13/2024", "mdy", None), ("1.2.3", "dmy", None),
        ("2024-13-01", "ymd", None), ("soon", "mdy", None), ("2024-01", "ymd", "2024-01-01"),
        ("North 2023-01", "ymd", None), ("Batch 2023-01-31", "ymd", None), ("Android 4.4.10", "dmy", None),
        ("Rev 2020.1", "ymd", None), ("Sun 2023-01", "ymd", None), ("Plan 31 Jan 2024", "ymd", None),
        ("Mo. 2024-01-31", "ymd", "2024-01-31"), ("sáb 31/01/2024", "dmy", "2024-01-31"),
        ("segunda-feira, 29 de janeiro de 2024", "ymd", "2024-01-29"), ("mar 3 2024", "ymd", "2024-03-03"),
        ("März 2024", "ymd", "2024-03-01"), ("février 2024", "ymd", "2024-02-01"),
        ("agosto de 2024", "ymd", "2024-08-01"),
    ],
)  # fmt: skip
def test_dates_as_people_write_them(word: str, form: str, day: str | None) -> None:
    (found,) = dates_of([word], form)
    assert np.isnan(found) if day is None else pd.Timestamp(found, unit="s") == pd.Timestamp(day)


def kind_of(words: list[str]) -> tuple[str, tuple[str, ...]]:
    column = Column("text", np.arange(len(words)), tuple(words))
    reading, _ = find_reading(column, None, "x", TableFormat())
    return reading.kind, reading.missing


@pytest.mark.parametrize(
    "words",
    [
        [f"{side} 2023-{month:02}" for side in ("North", "South") for month in range(1, 13)],
        [f"Android 4.4.{part}" for part in range(1, 13)],
        ["Mars 2020", "Mars 2021", "Mars 2022"],
        [f"{name} {year}" for name in ("Set", "Mars") for year in range(2000, 2009)],
    ],
)
def test_what_a_word_names_beside_a_number_stays_a_category(words: list[str]) -> None:
    assert kind_of(words) == ("text", ())


@pytest.mark.parametrize(
    "months",
    [
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "Set Out Nov Dez Jan Fev Mar",
        "May",
    ],
)
def test_months_of_one_language_are_dates_and_none_of_them_is_missing(months: str) -> None:
    assert kind_of([f"{name} {year}" for year in (2022, 2023) for name in months.split()]) == ("date", ())


def test_times_of_day() -> None:
    moments = dates_of(["1/31/2024 11:30 PM", "1/31/2024 0:05:30"], "mdy")
    assert pd.to_datetime(moments, unit="s").astype(str).tolist() == [
        "2024-01-31 23:30:00",
        "2024-01-31 00:05:30",
    ]
    assert times_of(["23:59", "9:05:30", "12:00 am"]).tolist() == [86340, 32730, 0]
    assert np.isnan(times_of(["24:00", "9.05"])).all()


@pytest.mark.parametrize(
    "spell",
    [
        lambda value: f"${value:.2f}",
        lambda value: f"{value * 1000:,.0f}",
        lambda value: f"{value:.1f}%",
        lambda value: f"{value:.3f}".replace(".", ","),
        lambda value: "n/k" if round(value * 1e6) % 10 == 0 else f"{value:.4f}",
        lambda value: "see note" if round(value * 1e6) % 10 == 0 else f"{value:.4f}",
    ],
)
def test_a_price_is_a_number_as_feature_and_as_target(tmp_path: Path, spell: Any) -> None:
    values = (np.arange(200) * 7 % 200) / 3 + 1.25
    path = table(tmp_path, price=[spell(value) for value in values], y=values, z=np.arange(200) % 7 + 0.5)
    data = trained(path)
    (price,) = [feature for feature in data.encoder.features if feature.name == "price"]
    assert isinstance(price, NumberFeature)
    x = data.train.take(torch.arange(len(data.train)))[0][:, 0].numpy()
    known = (
        x[:, None]
        if not price.flag
        else x[data.train.take(torch.arange(len(x)))[0][:, 1].numpy() == 0][:, None]
    )
    y = (
        data.train.y.numpy()[: len(x)]
        if not price.flag
        else data.train.y.numpy()[data.train.take(torch.arange(len(x)))[0][:, 1].numpy() == 0]
    )
    assert np.corrcoef(known[:, 0], y)[0, 1] > 0.9999
    as_target = trained(path, "price", drop=["y"])
    assert as_target.spec.task == "regression"


def test_dates_become_features_and_the_split_by_date_is_offered(tmp_path: Path) -> None:
    days = pd.date_range("2023-01-01", periods=300)
    path = table(
        tmp_path,
        day=[f"{day.month}/{day.day}/{day.year}" for day in days],
        x=RANDOM.normal(size=300),
        y=np.arange(300) + RANDOM.normal(size=300),
    )
    data = trained(path)
    assert "day month" in data.encoder.inputs() and "day weekday" in data.encoder.inputs()
    guess = about(data, "split at random")
    assert guess.costly and guess.key == "data.split=date data.split_column=day"
    assert "2023-01-0" in guess.what and "to 2023-10-2" in guess.what
    dated = trained(path, split="date", split_column="day")
    assert not [guess for guess in dated.guesses if "split at random" in guess.what]
    assert dated.test is not None and dated.test.y.min() > dated.train.y.median()


def test_dates_that_can_be_read_in_two_ways_are_named(tmp_path: Path) -> None:
    days = [f"{1 + n % 12}/{1 + n // 12 % 12}/20{10 + n % 7}" for n in range(200)]
    assert about(trained(table(tmp_path, day=days, y=RANDOM.normal(size=200))), "two ways").costly


def test_north_america_is_no_missing_value(tmp_path: Path) -> None:
    path = table(tmp_path, continent=["AF", "NA", "EU", "AS", "SA"] * 30, y=np.arange(150) % 11 / 2)
    data = trained(path)
    assert "continent = NA" in data.encoder.inputs() and "continent is missing" not in data.encoder.inputs()
    assert "'continent'" in about(data, "is a code").what
    # Among words NA is what it is everywhere else.
    other = trained(table(tmp_path, "o.csv", place=["Africa", "NA", "Asia"] * 50, y=np.arange(150) % 11 / 2))
    assert "place is missing" in other.encoder.inputs()


def test_yes_is_one_class_however_it_is_spelt(tmp_path: Path) -> None:
    answers = ["Yes", "yes", "YES ", "no", "No", "yes"] * 30
    path = table(tmp_path, x=RANDOM.normal(size=180), answer=answers, other=answers[::-1])
    data = trained(path, "answer")
    assert data.spec.classes == ("No", "yes") or data.spec.classes == ("no", "yes")
    assert data.encoder.inputs()[1:] in (
        ["other = yes", "other = no", "other = (other)"],
        ["other = yes", "other = No", "other = (other)"],
    )
    assert [guess for guess in data.guesses if "data.fold_case=false" in guess.key]
    assert len(trained(path, "answer", fold_case=False).spec.classes) == 5
    # Of single letters the case counts.
    letters = trained(table(tmp_path, "l.csv", x=RANDOM.normal(size=180), gene=["a", "A", "b"] * 60), "gene")
    assert letters.spec.classes == ("A", "a", "b")


@pytest.mark.parametrize("name", ["OrderId", "orderID", "order_id", "Order No", "orderid", "ID"])
def test_an_order_number_is_no_feature(tmp_path: Path, name: str) -> None:
    count = np.cumsum(RANDOM.integers(1, 40, 200)) + 7000
    path = table(tmp_path, **{name: count, "x": RANDOM.normal(size=200), "y": ["a"] * 100 + ["b"] * 100})
    data = trained(path)
    assert data.encoder.columns == ["x"]
    guess = about(data, "identifier-like")
    assert (
        guess.costly
        and shlex.split(guess.key)[0] == f"data.keep=[{typed('k', name).split('=')[1].strip(chr(39))}]"
    )
    assert trained(path, keep=[name]).encoder.columns == [name, "x"]


def test_the_only_column_is_kept_though_it_counts_up(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("size,price\n" + "".join(f"{n},$1{n:03}.50\n" for n in range(1, 80)))
    data = trained(path, "price")
    assert (data.spec.task, data.encoder.columns) == ("regression", ["size"])
    assert about(data, "looks like an identifier").key == "data.drop=[size]"


def test_counting_in_tens_is_counting(tmp_path: Path) -> None:
    path = table(
        tmp_path, number=np.arange(200) * 10 + 5, x=RANDOM.normal(size=200), y=RANDOM.normal(size=200)
    )
    assert trained(path).encoder.columns == ["x"]


def test_what_gives_the_target_away_is_named(tmp_path: Path) -> None:
    x, casual, registered = RANDOM.normal(size=400), RANDOM.integers(0, 99, 400), RANDOM.integers(0, 299, 400)
    count = casual + registered
    path = table(tmp_path, x=x, casual=casual, registered=registered, y=count)
    guess = about(trained(path), "is computed from")
    assert guess.key == "data.drop=[casual,registered]" and guess.costly
    copy = about(trained(table(tmp_path, "c.csv", x=x, total=count, y=count)), "is a copy of")
    assert copy.key == "data.drop=[total]"
    words = np.where(x > 0, "won", "lost")
    status = table(
        tmp_path, "s.csv", noise=RANDOM.normal(size=400), status=np.where(x > 0, "paid", "open"), y=words
    )
    assert about(trained(status), "is a copy of").columns == ("status",)
    rank = table(tmp_path, "r.csv", noise=RANDOM.normal(size=400), place=x * 100, y=words)
    assert about(trained(rank), "alone predicts").key == "data.drop=[place]"
    plain = trained(
        table(tmp_path, "p.csv", a=x, b=registered, y=x + registered / 100 + RANDOM.normal(size=400))
    )
    assert not plain.guesses


def test_rows_of_one_customer_stay_together_if_asked(tmp_path: Path) -> None:
    path = table(
        tmp_path, customer_id=np.arange(400) % 40 * 3, x=RANDOM.normal(size=400), y=RANDOM.normal(size=400)
    )
    assert about(trained(path), "groups rows").key == "data.split=hash data.split_column=customer_id"


def test_rows_that_occur_twice_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    x, y = RANDOM.normal(size=300), RANDOM.normal(size=300)
    path = table(tmp_path, x=np.concatenate([x, x[:150]]), y=np.concatenate([y, y[:150]]))
    data = trained(path)
    found = [guess for guess in data.guesses if "training rows as well" in guess.what]
    known = {tuple(row) for row in zip(data.train.x[:, 0].tolist(), data.train.y.tolist(), strict=True)}
    assert data.test is not None
    shared = sum(row in known for row in zip(data.test.x[:, 0].tolist(), data.test.y.tolist(), strict=True))
    assert (
        found[-1].what.startswith(f"{shared} of {len(data.test)} test rows")
        and found[-1].key == "data.duplicates=drop"
    )
    dropped = trained(path, duplicates="drop")
    assert sum(len(split) for split in (dropped.train, dropped.validation, dropped.test) if split) == 300
    assert not [guess for guess in dropped.guesses if "training rows as well" in guess.what]
    # Where few values are possible, rows are the same by chance, and nothing is wrong with that.
    few = trained(
        table(
            tmp_path, "f.csv", a=RANDOM.integers(0, 3, 400), b=RANDOM.integers(0, 3, 400), y=["p", "q"] * 200
        )
    )
    assert not few.guesses


def test_rare_classes_and_rows_without_a_target_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ["a"] * 150 + ["b"] * 140 + ["c"] * 6 + [None] * 20
    path = table(tmp_path, x=RANDOM.normal(size=316), y=answer)
    with caplog.at_level(logging.WARNING):
        data = trained(path)
    assert "'c' (" in about(data, "few training rows").what
    assert about(data, "20 of 316 rows have no 'y'").costly
    assert "data.balance=class_weights" in caplog.text


def test_a_file_without_a_header_keeps_its_first_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "iris.csv"
    rows = [f"{4 + n % 9 / 4},{n % 5 / 2},{['setosa', 'virginica'][n % 2]}" for n in range(60)]
    path.write_text("\n".join(rows) + "\n")
    with caplog.at_level(logging.WARNING):
        data = trained(path, "f2")
    assert sum(len(split) for split in (data.train, data.validation, data.test) if split) == 60
    assert "data.header=true" in caplog.text and data.encoder.columns == ["f0", "f1"]
    assert trained(path, "f2", header=False).guesses == []
    # The target is named in the first line: then that is what it is for, and it is said.
    named = trained(path, "setosa")
    assert about(named, "looks like data").key == "data.header=false"
    for header in ("f0,f1,f2", "2019,2020,kind", "0,1,2"):
        path.write_text("\n".join([header, *rows]) + "\n")
        assert not [g for g in trained(path, header.split(",")[2]).guesses if "first line" in g.what]


@pytest.mark.parametrize("header", ["a,b,y,,", "a , b,y ", " a,b , y"])
def test_headers_that_people_have(tmp_path: Path, header: str) -> None:
    path = tmp_path / "t.csv"
    extra = ",," if header.endswith(",,") else ""
    path.write_text("\n".join([header, *(f"{n % 7}.5,{n % 5}.5,{n % 3}.25{extra}" for n in range(60))]))
    assert trained(path).encoder.columns == ["a", "b"]


def test_a_header_that_is_not_utf_8_says_which_key(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(("größe,y\n" + "".join(f"{n % 7}.5,{n % 3}.25\n" for n in range(60))).encode("latin-1"))
    with pytest.raises(UserError, match=r"the first line.*data\.encoding"):
        trained(path)
    assert trained(path, encoding="latin-1").encoder.columns == ["größe"]


@pytest.mark.parametrize(
    "name", ["données.csv", "a (1).csv", "x=1.csv", "it's.csv", 'say "hi".csv', "a,b.csv", "a[1].csv"]
)
def test_paths_and_columns_that_people_have_can_be_typed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / name).write_text(
        "2020;größe;region\n" + "".join(f"{n % 7}.5;{n % 5}.5;a\n" for n in range(60))
    )
    typed_words = [
        "data=csv",
        f"data.path=~/{name}",
        "data.target=2020",
        "data.drop=region",
        "data.delimiter=;",
    ]
    cfg = compose([*typed_words, "data.keep=[größe]"])
    from omegaconf import OmegaConf

    from pipeline.training.building import build_data

    assert (cfg.data.path, cfg.data.target, cfg.data.delimiter) == (f"~/{name}", "2020", ";")
    data = build_data(OmegaConf.to_container(cfg.data, resolve=True))  # type: ignore[arg-type]
    assert isinstance(data, TableData) and data.encoder.columns == ["größe"]


@pytest.mark.parametrize(
    "names", [["plain"], ["a b"], ["it's"], ['"q"'], ["größe", "x=1"], ["true"], ["2020"], ["a\\"]]
)
def test_the_key_that_is_shown_can_be_typed(names: list[str]) -> None:
    (word,) = shlex.split(typed("data.drop", names))
    assert [
        str(name) for name in compose(["data=csv", "data.path=t.csv", "data.target=y", word]).data.drop
    ] == names
    (word,) = shlex.split(typed("data.target", names[0]))
    assert compose(["data=csv", "data.path=t.csv", word]).data.target == names[0]


def test_a_wrong_name_suggests_what_can_be_typed(tmp_path: Path) -> None:
    path = table(tmp_path, **{"Sale Price": RANDOM.normal(size=60), "x": RANDOM.normal(size=60)})
    with pytest.raises(UserError, match=r"'data\.target=\"Sale Price\"'"):
        trained(path, "sale price")


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_first_line_that_tells_excel_what_separates_the_values_is_no_header(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = [["x", "größe, außen", "y"]] + [[str(n), str(n % 7 + 0.5), str(2 * n)] for n in range(40)]
    plain = "".join(delimiter.join(row) + "\r\n" for row in rows)
    for name, text in (("excel", f"sep={delimiter}\r\n{plain}"), ("plain", plain)):
        (tmp_path / f"{name}.csv").write_bytes(text.encode(encoding))
    excel = trained(tmp_path / "excel.csv")
    usual = trained(tmp_path / "plain.csv", delimiter=delimiter)
    assert torch.equal(excel.train.x, usual.train.x) and torch.equal(excel.train.y, usual.train.y)
    # Read for a prediction, piece by piece.
    pieces = [
        [table.to_pylist() for table in read_batches(tmp_path / f"{name}.csv", TableFormat(delimiter=given))]
        for name, given in (("excel", None), ("plain", delimiter))
    ]
    assert pieces[0] == pieces[1] and len(pieces[0][0]) == 40
    (tmp_path / "excel.csv").write_bytes(f"sep={delimiter}\n{plain}1{delimiter}2\n".encode(encoding))
    with pytest.raises(UserError, match="line 43: 2 values, but the header names 3 columns"):
        trained(tmp_path / "excel.csv")
