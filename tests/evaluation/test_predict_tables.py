"""A row means the same wherever it stands: in the training file, in a file of its own, in another format."""

from __future__ import annotations

import csv as plain_csv
import datetime as dt
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.encoders import restored
from pipeline.data.tables.encoder import TableEncoder
from pipeline.data.tables.files import read_table
from pipeline.data.tables.table import TableData
from pipeline.data.text.files import TextFolder, TextTable
from pipeline.errors import UserError
from pipeline.evaluation.inputs import chunks


def trained(path: Path, target: str = "y", **settings: Any) -> TableData:
    data = TableData(path=path, target=target, **settings)
    data.setup()
    return data


def inputs(path: Path, data: TableData, size: int = 1000) -> np.ndarray:
    """The model's inputs for the rows of a file, by the encoder as it is saved and loaded."""
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    parts = [encoder.encode(some.raw) for some in chunks(str(path), encoder, size)]
    return torch.cat(parts).numpy()


def learnt(data: TableData) -> np.ndarray:
    """What training made of every row of its file, in order."""
    table = read_table(data.path, data.format)
    dense, codes = data.encoder.compact(table, np.arange(len(table)))
    x = torch.zeros(len(dense), data.encoder.width)
    x[:, : dense.shape[1]] = dense
    return (x.scatter_(1, codes.long(), 1.0) if codes.shape[1] else x).numpy()


def as_pandas_reads(path: Path, folder: Path, **options: Any) -> list[Path]:
    """The rows of a CSV as Parquet and as JSON lines, by way of pandas."""
    frame = pd.read_csv(path, **options)
    frame.to_parquet(folder / "same.parquet", index=False)
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    lines = [json.dumps(row, default=lambda value: value.item()) for row in rows]
    (folder / "same.jsonl").write_text("\n".join(lines) + "\n")
    return [folder / "same.parquet", folder / "same.jsonl"]


def assert_one_answer(data: TableData, tmp_path: Path, **options: Any) -> None:
    expected = learnt(data)
    for size in (1000, 3, 1):
        np.testing.assert_allclose(inputs(data.path, data, size), expected, atol=2e-6)
    for path in as_pandas_reads(data.path, tmp_path, **options):
        np.testing.assert_allclose(inputs(path, data), expected, atol=2e-6, err_msg=path.suffix)
        np.testing.assert_allclose(inputs(path, data, 2), expected, atol=2e-6, err_msg=path.suffix)


def test_a_question_mark_is_missing_in_training_and_when_predicting(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "x,z,y\n" + "".join(f"{i * 1.5},{i % 7},{i}.5\n" for i in range(40)) + "?, ,17.5\nn/k,-,3.5\n"
    )
    data = trained(path, validation_fraction=0.0, test_fraction=0.0)
    assert data.encoder.inputs() == ["x", "x is missing", "z", "z is missing"]
    assert learnt(data)[-2:, [1, 3]].tolist() == [[1, 1], [1, 1]]
    assert_one_answer(data, tmp_path)


def test_a_bag_called_none_is_the_same_bag_from_csv_and_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("bag,y\n" + "None,10.3\nAir,50.2\nBoth,90.1\n" * 20)
    data = trained(path)
    assert_one_answer(data, tmp_path)
    rows = [{"bag": "None"}, {"bag": None}, {"bag": "Air"}]
    x = data.encoder.encode(rows).numpy()
    assert (x[0] == x[1]).all() and (x[0] != x[2]).any()


def test_a_postcode_means_the_same_whatever_rows_stand_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("zip,y\n" + "01001,10.2\n02002,50.1\n03003,90.7\n" * 20)
    data = trained(path, categorical=["zip"])
    assert_one_answer(data, tmp_path)
    path.write_text("zip,y\n" + "01001,10.2\n02002,50.1\n03003,90.7\n-,1.5\n" * 20)
    gappy = trained(path, categorical=["zip"])
    assert "zip is missing" in gappy.encoder.inputs()
    assert_one_answer(gappy, tmp_path, na_values=["-"])
    for content in ("zip\n02002\n", "zip\n02002\nK1A\n", "zip\nunknown\n02002\n"):
        other = tmp_path / "other.csv"
        other.write_text(content)
        x = inputs(other, data)[content.splitlines().index("02002") - 1]
        assert dict(zip(data.encoder.inputs(), x.tolist(), strict=True)) == {
            "zip = 1001": 0, "zip = 2002": 1, "zip = 3003": 0, "zip = (other)": 0,
        }  # fmt: skip


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_training_file_can_be_predicted_however_it_is_written(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    rows = [["größe", "ort", "y"]] + [[f"{i},5", ["Köln", "Bern"][i % 2], f"{i % 9},25"] for i in range(40)]
    path.write_bytes("".join(delimiter.join(row) + "\n" for row in rows).encode("latin-1"))
    data = trained(path, delimiter=delimiter, encoding="latin-1", decimal=",")
    assert data.spec.task == "regression"
    assert sorted(data.encoder.inputs()) == ["größe", "ort = (other)", "ort = Bern", "ort = Köln"]
    assert_one_answer(data, tmp_path, sep=delimiter, encoding="latin-1", decimal=",")
    # The delimiter need not be typed where there is no comma in the first line, and a decimal comma shows.
    again = trained(path, encoding="latin-1")
    np.testing.assert_array_equal(learnt(again), learnt(data))
    assert_one_answer(again, tmp_path, sep=delimiter, encoding="latin-1")


def test_a_file_whose_name_says_nothing_is_predicted_in_the_format_that_was_typed(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("a|y\n" + "".join(f"{i % 5}.5|{i}.25\n" for i in range(40)))
    data = trained(path, format="csv", delimiter="|")
    np.testing.assert_array_equal(inputs(path, data), learnt(data))


@pytest.mark.parametrize("ending", ["csv.gz", "csv.bz2", "csv.xz", "csv.zip", "zip"])
def test_packed_files_are_read_as_what_is_in_them(tmp_path: Path, ending: str) -> None:
    plain, packed = tmp_path / "plain.csv", tmp_path / f"t.{ending}"
    frame = pd.DataFrame({"a": np.arange(60) / 7, "b": ["x", "y, z", "w"] * 20, "y": np.arange(60) % 11 / 2})
    frame.to_csv(plain, index=False)
    compression: Any = {"method": "zip", "archive_name": "plain.csv"} if ending.endswith("zip") else "infer"
    frame.to_csv(packed, index=False, compression=compression)
    data, expected = trained(packed, test_path=packed), trained(plain, test_path=plain)
    np.testing.assert_array_equal(learnt(data), learnt(expected))
    np.testing.assert_array_equal(inputs(packed, data, 7), learnt(expected))
    assert data.test is not None and len(data.test) == 60


def test_an_archive_of_several_tables_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "a,y\n1,2\n")
        archive.writestr("b.csv", "a,y\n1,2\n")
    with pytest.raises(UserError, match="2 files"):
        trained(tmp_path / "t.zip", format="csv")
    (tmp_path / "t.csv.gz").write_bytes(b"\x1f\x8b\x08\x00 broken")
    with pytest.raises(UserError, match="cannot be unpacked"):
        trained(tmp_path / "t.csv.gz")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_utf_16_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    text = "größe,y\n" + "".join(f"{i},{i % 9}.5\n" for i in range(0, 200, 5))
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    path.write_bytes(mark + text.encode(encoding))
    data = trained(path, keep=["größe"])
    assert data.encoder.columns == ["größe"]
    np.testing.assert_array_equal(inputs(path, data), learnt(data))


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_a_sheet_of_a_workbook(tmp_path: Path, kind: str) -> None:
    pytest.importorskip({"xlsx": "openpyxl", "ods": "odf"}[kind])
    frame = pd.DataFrame(
        {
            "size": np.arange(40) / 4,
            "city": ["Bern", "Oslo"] * 20,
            "since": pd.date_range("2020-01-01", periods=40, freq="9D"),
            "y": np.arange(40) % 9 / 2,
        }
    )
    book = tmp_path / f"book.{kind}"
    with pd.ExcelWriter(book, engine={"xlsx": "openpyxl", "ods": "odf"}[kind]) as writer:
        pd.DataFrame({"notes": ["nothing here"]}).to_excel(writer, sheet_name="Notes", index=False)
        frame.to_excel(writer, sheet_name="Data 1", index=False)
    data = trained(book, sheet="Data 1")
    frame.to_csv(tmp_path / "same.csv", index=False)
    expected = learnt(trained(tmp_path / "same.csv"))
    np.testing.assert_allclose(learnt(data), expected, atol=1e-6)
    np.testing.assert_allclose(inputs(book, data, 7), expected, atol=1e-6)
    np.testing.assert_array_equal(learnt(trained(book, sheet=1)), learnt(data))
    with pytest.raises(UserError, match="'Notes', 'Data 1'"):
        trained(book, sheet="Data")
    with pytest.raises(UserError, match=r"data\.target names the column 'y'"):
        trained(book)


def test_frames_of_other_libraries_are_predicted_like_the_file(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "t.csv"
    path.write_text(
        "price,city,y\n"
        + "".join(f'"${i},000",{"Oslo" if i % 3 else "Bern"},{i % 7}.5\n' for i in range(1, 60))
    )
    data = trained(path)
    frame = pd.read_csv(path)
    expected = learnt(data)
    np.testing.assert_allclose(data.encoder.encode(frame).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(data.encoder.encode(pa.Table.from_pandas(frame)).numpy(), expected, atol=1e-6)
    try:
        import polars
    except ImportError:
        return
    np.testing.assert_allclose(data.encoder.encode(polars.from_pandas(frame)).numpy(), expected, atol=1e-6)


def test_models_of_earlier_versions_read_as_they_did(tmp_path: Path) -> None:
    state = {
        "kind": "table",
        "features": [
            {
                "kind": "number",
                "name": "a",
                "fill": 2.0,
                "shift": 1.0,
                "scale": 2.0,
                "flag": True,
                "truth": False,
            },
            {
                "kind": "date",
                "name": "d",
                "fill": 1.0,
                "shift": 0.0,
                "scale": 1.0,
                "flag": False,
                "clock": False,
            },
            {"kind": "text", "name": "c", "categories": ["None", "Yes"], "gaps": False, "written_as": ""},
            {"kind": "text", "name": "n", "categories": ["7", "8"], "gaps": True, "written_as": "number"},
        ],
        "written": {"delimiter": ";", "decimal": ","},
    }
    encoder = restored(state)
    assert isinstance(encoder, TableEncoder)
    path = tmp_path / "t.csv"
    path.write_text("a;d;c;n\n3,5;1970-01-02;None;007\nNA;1970-01-01;yes;N/A\n")
    x = torch.cat([encoder.encode(some.raw) for some in chunks(str(path), encoder, 10)]).numpy()
    circles = [
        np.sin(2 * np.pi / 365.2425),
        np.cos(2 * np.pi / 365.2425),
        np.sin(2 * np.pi / 7),
        np.cos(2 * np.pi / 7),
    ]
    expected = [[1.25, 0, 1, *circles, 1, 0, 0, 1, 0, 0, 0], [0.5, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0]]
    np.testing.assert_allclose(x, expected, atol=1e-6)
    again = restored(json.loads(json.dumps(encoder.to_state())))
    np.testing.assert_array_equal(
        torch.cat([again.encode(some.raw) for some in chunks(str(path), again, 1)]).numpy(), x
    )


def test_the_rows_of_a_run_are_made_by_the_encoder_of_its_model(tmp_path: Path) -> None:
    """Dates have more inputs than earlier versions gave them: a model of then is evaluated on those of then."""
    path = tmp_path / "t.csv"
    days = pd.date_range("2023-01-01", periods=80).astype(str)
    pd.DataFrame({"a": np.arange(80) % 9 / 2, "day": days, "y": np.arange(80) % 7 / 2}).to_csv(
        path, index=False
    )
    data = trained(path)
    state = data.encoder.to_state()
    for feature in state["features"]:
        del feature["reading"]
        feature.pop("calendar", None)
    del state["target"]
    old = restored(state)
    assert isinstance(old, TableEncoder) and old.width == data.encoder.width - 5
    view = data.encoded_by(old)
    kept = [data.encoder.inputs().index(name) for name in old.inputs()]
    for name in ("train", "validation", "test"):
        rows = torch.arange(len(getattr(data, name)))
        now, then = getattr(data, name).take(rows), getattr(view, name).take(rows)
        np.testing.assert_array_equal(then[0].numpy(), now[0].numpy()[:, kept])
        np.testing.assert_array_equal(then[1].numpy(), now[1].numpy())
    assert view.spec.input_shape == (old.width,)


def test_texts_are_predicted_from_the_file_that_they_were_learnt_from(tmp_path: Path) -> None:
    rows = [
        "id;review;stars",
        *(
            f"{i};{'très bon film' if i % 2 else 'mauvais film, déçu'};{'good' if i % 2 else 'bad'}"
            for i in range(60)
        ),
    ]
    path = tmp_path / "reviews.csv"
    path.write_bytes("\n".join(rows).encode("latin-1"))
    settings: dict[str, Any] = {"text": "review", "target": "stars", "delimiter": ";", "encoding": "latin-1"}
    data = TextTable(path=str(path), data_dir=tmp_path, **settings)
    data.prepare_data()
    data.setup()
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    x = torch.cat([encoder.encode(some.raw) for some in chunks(str(path), encoder, 7)])
    assert len(x) == 60
    words = list(encoder.words)  # type: ignore[attr-defined]
    assert {"très", "déçu"} <= set(words)
    assert x[1, words.index("très")] == 1 and x[0, words.index("très")] == 0


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_folder_of_texts_of_another_encoding(tmp_path: Path, encoding: str) -> None:
    for name, text in (("good", "très bon"), ("bad", "déçu")):
        (tmp_path / "films" / name).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "films" / name / f"{number}.txt").write_bytes(text.encode(encoding))
    settings = {} if encoding == "utf-16" else {"encoding": encoding}
    data = TextFolder(path=str(tmp_path / "films"), data_dir=tmp_path, **settings)
    data.prepare_data()
    data.setup()
    encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
    assert {"très", "déçu"} <= set(encoder.words)  # type: ignore[attr-defined]
    (one,) = chunks(str(tmp_path / "films" / "bad"), encoder, 100)
    assert set(one.raw) == {"déçu"}


WORDS = {
    "number": st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}"),
    "small": st.floats(-1e-3, 1e-3).map(lambda value: f"{value:.3e}"),
    "whole": st.integers(-50, 50).map(str),
    "padded": st.integers(-50, 50).map(lambda value: f" {value}.0 "),
    "signed": st.integers(-9, 99).map(lambda value: f"{value:+d}"),
    "large": st.integers(10**17, 10**18).map(str),
    "money": st.integers(0, 10**6).map(lambda value: f"${value:,}.50"),
    "euro": st.integers(0, 10**6).map(lambda value: f"{value:,}.50 €"),
    "owed": st.integers(-(10**6), 10**6).map(lambda value: f"({-value:,})" if value < 0 else f"{value:,}"),
    "spaced": st.integers(10**3, 10**6).map(lambda value: f"{value:,}".replace(",", " ")),
    "percent": st.integers(0, 100).map(lambda value: f"{value} %"),
    "comma": st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda two: f"{two[0]},{two[1]:02}"),
    "city": st.sampled_from(["Bern", "Oslo", "bern", " Oslo ", "São Paulo", "New York, NY", "None", "NA"]),
    "quote": st.sampled_from(['say "hi"', "it's", "two\nlines", "a;b", "a|b", "tab\there", "plain", "Plain"]),
    "script": st.sampled_from(["東京", "Ελλάδα", "café", "cafe\u0301", "😀", "Straße", "STRASSE", "ı", "I"]),
    "level": st.sampled_from(["1", "2", "3", "high", "low", "n/k"]),
    "unit": st.integers(1, 4).map(lambda value: f"{value} kg"),
    "code": st.sampled_from(["AF", "NA", "EU", "SA", "AS"]),
    "letter": st.sampled_from(["a", "A", "b", "B"]),
    "truth": st.sampled_from(["true", "false", "TRUE", "False"]),
    "bit": st.sampled_from(["0", "1"]),
    "yes": st.sampled_from(["yes", "no", "Yes", "NO "]),
    "zip": st.integers(1, 9).map(lambda value: f"0{value}00{value}"),
    "iso": st.dates().map(str),
    "month": st.sampled_from(["2024-01", "2024-02", "2023-12", "2023-11"]),
    "slashes": st.dates().map(lambda day: f"{day.year:04}/{day.month:02}/{day.day:02}"),
    "american": st.dates().map(lambda day: f"{day.month}/{day.day}/{day.year:04}"),
    "german": st.dates().map(lambda day: f"{day.day:02}.{day.month:02}.{day.year:04}"),
    "named": st.dates().map(lambda day: f"{day.day} {MONTHS[day.month - 1]} {day.year:04}"),
    "moment": st.datetimes().map(lambda moment: moment.isoformat(sep=" ", timespec="seconds")),
    "zoned": st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)).map(
        lambda moment: moment.isoformat(timespec="seconds") + "+02:00"
    ),
    "time": st.times().map(lambda time: f"{time.hour}:{time.minute:02}"),
    "clock": st.times().map(lambda time: f"{(time.hour - 1) % 12 + 1}:{time.minute:02} {'ap'[time.hour > 11]}m"),
}  # fmt: skip
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
GAPS = st.sampled_from(
    [
        "",
        "?",
        "NA",
        " ",
        "n/a",
        "None",
        "nan",
        "-",
        "n/k",
        "null",
        "NULL",
        "#N/A",
        "--",
        ".",
        "unknown",
        " ? ",
    ]
)
DAMAGE = st.sampled_from(
    ["oops", "12x", "1,2,3", "99/99/9999", "25:61", "TRUE!", "∞", "inf", "1e999", "-0", "0x1F"]
)
TARGETS = {
    "number": lambda row: f"{row % 7}.5",
    "money": lambda row: f"${row % 11 + 1},000.50",
    "class": lambda row: ["yes", "No", "no ", "YES"][row % 4],
    "whole": lambda row: str(row % 3),
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@dataclass(frozen=True)
class Written:
    """A generated file: its bytes, how it is to be read, and which of its columns are said to be categories."""

    content: bytes
    delimiter: str
    encoding: str
    names: tuple[str, ...]
    categorical: tuple[str, ...]


@st.composite
def tables(draw: st.DrawFn) -> Written:
    """A file of columns of many kinds and spellings, some of them damaged."""
    rows = draw(st.integers(40, 60))
    kinds = draw(st.lists(st.sampled_from(sorted(WORDS)), min_size=1, max_size=5))
    delimiter = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    columns = []
    for kind in kinds:
        cells = draw(st.lists(WORDS[kind], min_size=rows, max_size=rows))
        for words, times in (
            (GAPS, draw(st.sampled_from([0, 0, 1, 4, 35]))),
            (DAMAGE, draw(st.sampled_from([0, 0, 0, 1, 3]))),
        ):
            for _ in range(times):
                cells[draw(st.integers(0, rows - 1))] = draw(words)
        columns.append(cells)
    target = TARGETS[draw(st.sampled_from(sorted(TARGETS)))]
    names = [f"{kind} {place}" for place, kind in enumerate(kinds)]
    text = io.StringIO()
    writer = plain_csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([plain_csv.QUOTE_MINIMAL, plain_csv.QUOTE_ALL])),
    )
    writer.writerow([*names, "y"])
    for row, given_cells in enumerate(zip(*columns, strict=True)):
        writer.writerow([*given_cells, target(row)])
    encoding = draw(st.sampled_from(ENCODINGS))
    chosen = [
        name for name in names if name.startswith(("zip", "whole", "bit", "level")) and draw(st.booleans())
    ]
    return Written(text.getvalue().encode(encoding), delimiter, encoding, tuple(names), tuple(chosen))


@pytest.mark.timeout(3600)
def test_generated_tables_give_the_same_answers_row_by_row_from_every_format(
    tmp_path: Path, long_form: bool
) -> None:
    @settings(max_examples=500 if long_form else 30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tables())
    def answers(table: Written) -> None:
        path = tmp_path / "t.csv"
        path.write_bytes(table.content)
        how = {"delimiter": None if table.delimiter == "," else table.delimiter}
        try:
            data = trained(path, categorical=table.categorical, **how)
        except UserError as error:
            assert "no column is left" in str(error)
            return
        # pandas takes NA for missing, whatever stands beside it: of codes with gaps it cannot tell which was which.
        coded = any(name.startswith("code") for name in table.names)
        plain: dict[str, Any] = {"keep_default_na": False, "na_values": [""]} if coded else {}
        assert_one_answer(data, tmp_path, sep=table.delimiter, encoding=table.encoding, **plain)
        # Whatever stands beside a row: the rows from the last to the first.
        expected = learnt(data)
        rows = [json.loads(line) for line in (tmp_path / "same.jsonl").read_text().splitlines()]
        encoder = restored(json.loads(json.dumps(data.encoder.to_state())))
        np.testing.assert_allclose(encoder.encode(rows[::-1]).numpy(), expected[::-1], atol=2e-6)

    answers()
