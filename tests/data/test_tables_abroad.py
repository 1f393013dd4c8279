"""Amounts, multiples, lengths of time and dates as people of other countries and other programs write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data.encoders import restored
from pipeline.data.series.reading import Columns, lines_of
from pipeline.data.tables.dates import COMPACT, dates_of
from pipeline.data.tables.features import NumberFeature
from pipeline.data.tables.files import read_table
from pipeline.data.tables.formats import TableFormat
from pipeline.data.tables.frames import keep_frame
from pipeline.data.tables.table import TableData
from pipeline.data.tables.units import is_comma_decimal
from pipeline.data.tables.words import currencies, numbers_of
from pipeline.data.text.files import TextTable
from pipeline.errors import UserError
from pipeline.evaluation.inputs import chunks

ROWS = 120
NOISE = np.random.default_rng(0).normal(size=ROWS)


def trained(path: Path, target: str = "y", **settings: Any) -> TableData:
    data = TableData(path=path, target=target, **settings)
    data.setup()
    return data


def said(data: TableData) -> str:
    return "\n".join(guess.said() for guess in data.guesses)


@pytest.mark.parametrize(
    ("word", "decimal", "number"),
    [
        ("R$ 4.335,69", ",", 4335.69), ("US$ 5", ".", 5), ("12zł", ".", 12), ("Rp 15.000", ",", 15000),
        ("7 kr.", ".", 7), ("100’027.-", ".", 100027), ("kr 1.200,-", ",", 1200), ("12,–", ",", 12),
        ("5.11-", ".", -5.11),
        ("2-", ".", None), ("1.234,56-", ",", -1234.56), ("10,000+", ".", 10000),
        ("90+", ".", 90), ("1+", ".", None), ("'1.5'", ".", 1.5),
        ("“2”", ".", 2), ("０１．５", ".", 1.5), ("－３", ".", -3), ("١٢٫٥", ".", 12.5), ("१२", ".", 12),
        ("0,353", ".", None), ("1,353", ".", 1353), ("0.353", ",", None), ("0,353", ",", 0.353),
    ],
)  # fmt: skip
def test_amounts_of_other_countries_are_numbers(word: str, decimal: str, number: float | None) -> None:
    np.testing.assert_allclose(numbers_of([word], decimal), [np.nan if number is None else number])


@pytest.mark.parametrize(
    ("words", "comma"),
    [
        (["950 kr", "1.200 kr"], True), (["100.353 kr", "98.200 kr"], True), (["1.234.567", "12"], True),
        (["€ 1.459", "€ 1.299"], False), (["1.459", "950"], False), (["1.2.3", "4.5.6"], False),
        (["0,353", "1,035"], True), (["1,353", "2,035"], False), (["$1,353", "$950"], False), (["12.5 kg"], False),
    ],
)  # fmt: skip
def test_points_of_thousands_are_told_from_three_decimals(words: list[str], comma: bool) -> None:
    assert is_comma_decimal(words, False) is comma


def test_amounts_of_several_currencies_are_warned_of(tmp_path: Path) -> None:
    marks = ["${:.2f}", "€{:.2f}", "{:.0f} USD", "US$ {:.1f}"]
    assert currencies([mark.format(5) for mark in marks]) == ["$", "€"]
    price = [marks[row % 4].format(row + 1.5) for row in range(ROWS)]
    path = tmp_path / "t.csv"
    pd.DataFrame({"price": price, "y": NOISE}).to_csv(path, index=False)
    (warned,) = [guess for guess in trained(path).guesses if "several currencies" in guess.what]
    assert warned.costly and warned.columns == ("price",)
    pd.DataFrame({"price": price[::4] * 4, "y": NOISE}).to_csv(path, index=False)
    assert "currencies" not in said(trained(path))


def test_per_cent_beside_shares_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for other, warned in (("{:.3f}", True), ("{:.1f} %", False)):
        rate = [f"{50 + row / 9:.1f}%" if row % 2 else other.format(0.5 + row / 999) for row in range(ROWS)]
        pd.DataFrame({"rate": rate, "y": NOISE}).to_csv(path, index=False)
        found = [guess for guess in trained(path).guesses if "with % and others" in guess.what]
        assert [guess.costly for guess in found] == [True] * warned


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


WHOLE = np.round(np.abs(NOISE) * 90_000)
SPELLINGS: dict[str, tuple[np.ndarray, Callable[[float], str]]] = {
    "views": (
        np.round(np.abs(NOISE) * 10.0 ** (np.arange(ROWS) % 4 * 2), 2),
        lambda value: f"{value / 1e6:.8f}M" if value > 1e4 else f"{value / 1e3:.5f}K" if value > 100 else f"{value}",
    ),
    "value": (WHOLE, lambda value: f"€{value / 1e6:.6f}m" if value > 50_000 else f"€{value / 1e3:.3f}k"),
    "timedelta of pandas": (WHOLE, lambda value: str(pd.Timedelta(seconds=value))),
    "timedelta of Python": (WHOLE * 3, lambda value: str(pd.Timedelta(seconds=value).to_pytimedelta())),
    "more than a day": (WHOLE, _clock),
    "minutes and seconds": (WHOLE % 5000, lambda value: f"{int(value) // 60}:{int(value) % 60:02}"),
    "ISO 8601": (WHOLE, lambda value: f"PT{int(value) // 3600}H{int(value) // 60 % 60}M{int(value) % 60}S"),
    "minus behind": (NOISE.round(3), lambda value: f"{abs(value):.3f}-" if value < 0 else f"{value:.3f}"),
    "kroner": (np.abs(NOISE * 1e4).round(), lambda value: f"{value:,.0f} kr".replace(",", ".")),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_multiples_and_lengths_of_time_are_numbers_in_training_and_afterwards(
    tmp_path: Path, kind: str
) -> None:
    values, spell = SPELLINGS[kind]
    path = tmp_path / "t.csv"
    pd.DataFrame({"x": [spell(value) for value in values], "y": NOISE}).to_csv(path, index=False)
    data = trained(path, split="fraction")
    (feature,) = data.encoder.features
    assert isinstance(feature, NumberFeature) and not feature.flag
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    whole = torch.cat([encoder.encode(some.raw) for some in chunks(str(path), encoder, 1000)])[:, 0].numpy()
    # A number and what is learnt from it differ by a straight line.
    slope, start = np.polyfit(values, whole, 1)
    np.testing.assert_allclose(whole, slope * values + start, atol=1e-5)
    alone = torch.cat([encoder.encode(some.raw) for some in chunks(str(path), encoder, 7)])[:, 0].numpy()
    np.testing.assert_allclose(alone, whole, atol=1e-6)


def test_times_of_day_and_metres_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    clock = [f"{row % 24}:{row % 60:02}:00" for row in range(ROWS)]
    clock[7] = "25:00:00"
    pd.DataFrame(
        {"t": clock, "w": [f"{row} m" if row % 2 else f"{row} km" for row in range(ROWS)], "y": NOISE}
    ).to_csv(path, index=False)
    told = said(trained(path))
    assert "'t' holds times of day" in told and "'w' holds numbers in m" in told


@pytest.mark.parametrize(
    ("word", "moment"),
    [
        ("Wed Mar  5 10:03:00 2024", "2024-03-05T10:03"), ("Wed Oct 10 20:19:24 +0000 2018", "2018-10-10T20:19:24"),
        ("2024年3月5日", "2024-03-05"), ("2024年3月", "2024-03-01"), ("2024년 3월 5일", "2024-03-05"),
    ],
)  # fmt: skip
def test_dates_as_programs_and_as_east_asia_write_them(word: str, moment: str) -> None:
    assert dates_of([word], "ymd")[0] == np.datetime64(moment, "s").astype(np.int64)


def test_lines_that_end_in_carriage_returns_are_predicted_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f'{value:.4f},"a, {row % 3}",{value * 2:.4f}' for row, value in enumerate(NOISE)]
    path.write_bytes("\r".join(['x,"the kind",y', *rows, ""]).encode())
    data = trained(path)
    (some,) = chunks(str(path), data.encoder, 1000)
    table = read_table(path, data.format)
    assert table.names == ["x", "the kind", "y"] and len(table) == len(some.raw) == ROWS


def test_a_file_in_utf_8_is_predicted_by_a_model_of_one_in_latin_1(tmp_path: Path) -> None:
    rows = [
        f"{value:.4f},{['grün', 'röt', 'bläu'][row % 3]},{row % 3 + value}" for row, value in enumerate(NOISE)
    ]
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("\n".join(["größe,farbe,y", *rows]), encoding="latin-1")
    new.write_text("\n".join(["größe,farbe,y", *rows]), encoding="utf-8")
    data = trained(old, encoding="latin-1")
    one, other = (
        torch.cat([data.encoder.encode(some.raw) for some in chunks(str(path), data.encoder, 1000)])
        for path in (old, new)
    )
    assert torch.equal(one, other)
    plain = trained(new)
    with pytest.raises(UserError, match="iconv -f cp1252 -t utf-8"):
        list(chunks(str(old), plain.encoder, 1000))


def test_json_is_read_as_a_list_and_with_numbers_among_texts(tmp_path: Path) -> None:
    rows = [
        {"x": float(value), "g": 5 if row % 40 == 7 else "abc"[row % 3], "y": float(value)}
        for row, value in enumerate(NOISE)
    ]
    lines, whole = tmp_path / "t.jsonl", tmp_path / "t.json"
    lines.write_text("\n".join(map(json.dumps, rows)))
    whole.write_text(json.dumps(rows, indent=1))
    data = trained(lines)
    expected = data.encoder.encode(pd.DataFrame(rows))
    for path in (lines, whole):
        assert torch.equal(
            torch.cat([data.encoder.encode(some.raw) for some in chunks(str(path), data.encoder, 50)]),
            expected,
        )
        assert len(trained(path).train) == len(data.train)
    frame = tmp_path / "columns.json"
    pd.DataFrame(rows).to_json(frame)
    with pytest.raises(UserError, match="to_json\\(FILE, orient='records'\\)"):
        trained(frame)


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        ("Sales 2024,,\n,,\nx,g,y\n", r"line 3 seems to name the columns.*tail -n \+3"),
        ("# ours\nx,g,y\n", "are the lines before it no part of the table"),
        ("x g y\n", 'are blanks what separates the values.*data.delimiter=" "'),
    ],
)
def test_a_column_that_is_not_in_the_first_line_is_found(tmp_path: Path, head: str, advice: str) -> None:
    path = tmp_path / "a b.csv"
    mark = " " if "x g" in head else ","
    path.write_text(
        head
        + "".join(
            mark.join((f"{value:.3f}", "abc"[row % 3], f"{row}")) + "\n" for row, value in enumerate(NOISE)
        )
    )
    with pytest.raises(UserError, match=advice):
        trained(path)
    if mark == " ":
        assert len(trained(path, delimiter=" ").train)


def test_a_column_of_another_sheet_is_found(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    frame = pd.DataFrame({"x": NOISE, "y": NOISE})
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"note": ["read me"]}).to_excel(book, sheet_name="Info", index=False)
        frame.to_excel(book, sheet_name="Mai 2024", index=False)
    with pytest.raises(UserError, match=r"""the sheet 'Mai 2024' has it: 'data\.sheet="Mai 2024"'"""):
        trained(path)
    assert len(trained(path, sheet="Mai 2024").train)
    frame.to_excel(path, startrow=3, startcol=1, index=False)
    with pytest.raises(UserError, match="row 4 of the sheet 'Sheet1' names it"):
        trained(path)


def test_a_target_from_which_nothing_can_be_learnt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"x": NOISE, "y": [f"Name {row}" for row in range(ROWS)]}).to_csv(path, index=False)
    with pytest.raises(UserError, match="another text in every row"):
        trained(path)
    pd.DataFrame({"x": NOISE, "y": ["✓" if row % 2 else "" for row in range(ROWS)]}).to_csv(path, index=False)
    with pytest.raises(UserError, match="60 rows have no value"):
        trained(path)


def test_no_key_is_shown_that_does_not_help(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"x": value, "user": {"age": row}, "none": None, "y": value} for row, value in enumerate(NOISE)]
    path.write_text("\n".join(map(json.dumps, rows)))
    left_out = {guess.columns: guess for guess in trained(path).guesses if "left out" in guess.what}
    assert left_out[("user",)].effect.startswith("make columns of numbers")
    assert not any(guess.key for guess in left_out.values())


@pytest.mark.parametrize(
    ("word", "form", "moment"),
    [
        ("20240131", COMPACT, "2024-01-31"), ("202401", COMPACT, "2024-01-01"), ("20240131", "ymd", None),
        ("20141013T000500", "ymd", "2014-10-13T00:05"), ("Q2 1990", "ymd", "1990-04-01"),
        ("1990-Q2", "ymd", "1990-04-01"),
        ("2020-W53", "ymd", "2020-12-28"), ("2021-W53", "ymd", None), ("2020W01", "ymd", "2019-12-30"),
    ],
)  # fmt: skip
def test_quarters_weeks_and_dates_that_are_whole_numbers(word: str, form: str, moment: str | None) -> None:
    (found,) = dates_of([word], form)
    assert np.isnan(found) if moment is None else found == np.datetime64(moment, "s").astype(np.int64)


@pytest.mark.parametrize(
    ("spelling", "step"), [("%Y%m%d", "D"), ("%Y%m", "MS"), ("Q%q %Y", "QS"), ("%G-W%V", "W-MON")]
)
def test_dates_that_are_whole_numbers_are_the_times_of_a_series_and_of_a_table(
    tmp_path: Path, spelling: str, step: str
) -> None:
    times = pd.date_range("2021-01-04" if step == "W-MON" else "2019-01-01", periods=ROWS, freq=step)
    written = [time.strftime(spelling.replace("%q", str(time.quarter))) for time in times]
    path, iso = tmp_path / "t.csv", tmp_path / "iso.csv"
    pd.DataFrame({"when": written, "y": NOISE}).to_csv(path, index=False)
    pd.DataFrame({"when": times, "y": NOISE}).to_csv(iso, index=False)
    columns = Columns("y", "when")
    (line,), (expected,) = (lines_of(read_table(one, TableFormat()), columns) for one in (path, iso))
    assert list(line.times) == list(expected.times)
    data, plain = trained(path), trained(iso)
    rows = [
        torch.cat([one.encoder.encode(some.raw) for some in chunks(str(one.path), one.encoder, 9)])
        for one in (data, plain)
    ]
    assert torch.equal(*rows)
    assert torch.equal(data.encoder.encode(pd.read_csv(path)), rows[0])


def test_a_hash_of_few_values_that_leaves_nothing_for_the_test_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.csv"
    frame = pd.DataFrame(
        {"x": NOISE, "g": ["red", "green"] * (ROWS // 2), "key": np.arange(ROWS) % 60, "y": NOISE}
    )
    frame.to_csv(path, index=False)
    parts = []
    for seed in range(8):
        caplog.clear()
        data = trained(path, split="hash", split_column="g", seed=seed)
        parts.append((data.validation is not None, data.test is not None))
        assert ("leaves no rows for the" in caplog.text) is not all(parts[-1])
        assert ("validation and the test" in caplog.text) is not any(parts[-1])
    assert (False, False) in parts
    caplog.clear()
    trained(path, split="hash", split_column="key")
    assert "leaves no rows" not in caplog.text
    with pytest.raises(UserError, match=r"data\.test_path=.*nix.csv: there is no such file"):
        trained(path, test_path=tmp_path / "nix.csv")


def test_a_column_of_texts_alone_is_told_to_be_learnt_as_such(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame(
        {"review": [f"it was film {row} and good" for row in range(ROWS)], "y": ["a", "b"] * (ROWS // 2)}
    ).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"texts are learnt by data=text_csv data\.text=review"):
        trained(path)
    text = TextTable(path=path, text="review", target="y")
    text.setup()
    pd.read_csv(path).assign(y=NOISE).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"every text has another class.*numbers are not learnt from texts"):
        TextTable(path=path, text="review", target="y").setup()


def test_intervals_of_pandas_are_categories_in_frames_and_in_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": NOISE, "part": pd.cut(NOISE, 4), "y": NOISE})
    frame.loc[3, "part"] = None
    path = keep_frame(frame, tmp_path)
    data = trained(path)
    written = tmp_path / "t.csv"
    frame.to_csv(written, index=False)
    (some,) = chunks(str(written), data.encoder, 1000)
    assert torch.equal(data.encoder.encode(frame), data.encoder.encode(some.raw))
    (part,) = [one for one in data.encoder.texts if one.name == "part"]
    assert len(part.categories) == 4
