"""Forecasts of a series: windows, splits by time, baselines, and what goes on after the end of a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.loading import compose
from pipeline.data.core.splits import Rows
from pipeline.data.encoders import restored
from pipeline.data.series.baselines import as_last_season, as_last_time
from pipeline.data.series.generated import sales
from pipeline.data.series.reading import lines_of
from pipeline.data.series.series import Series, Windows
from pipeline.errors import UserError
from pipeline.evaluation.explaining import explain, forecast_gradients
from pipeline.models.saved import load
from pipeline.runs.hooks import Hooks
from pipeline.runs.train import train
from pipeline.tasks.predict import predict

# One of the figures is looked at.
pytestmark = pytest.mark.drawn


def daily(days: int = 200, **columns: Any) -> pd.DataFrame:
    steps = np.arange(days)
    units = 100 + 0.5 * steps + np.array([0, 5, 10, 20, 30, 40, -20])[steps % 7] + 3 * np.sin(steps * 1.7)
    dates = pd.date_range("2024-01-01", periods=days).strftime("%Y-%m-%d")
    return pd.DataFrame({"date": dates, "units": units.round(2), **columns})


def made(directory: Path, frame: pd.DataFrame, **settings: Any) -> Series:
    frame.to_csv(directory / "sales.csv", index=False)
    data = Series(
        **{"path": str(directory / "sales.csv"), "target": "units", "time": "date", "horizon": 5, **settings}
    )
    data.setup()
    return data


def test_windows_hold_what_was_known_and_last_season(tmp_path: Path) -> None:
    frame = daily(promotion=np.arange(200) % 2, rain=np.arange(200.0))
    data = made(tmp_path, frame, window=10, known="promotion", past=["rain"])
    units = frame["units"].to_numpy()
    x, y = (part.numpy() for part in data.test.take(torch.arange(len(data.test))))  # type: ignore[union-attr]
    assert data.encoder.season == 7
    learn = units[: 200 - 30 - 25]
    mean, deviation = learn.mean(), learn.std()
    for number in range(6):
        first = 170 + 5 * number
        assert y[number] == pytest.approx(units[first : first + 5])
        assert x[number, :10, 0] * deviation + mean == pytest.approx(units[first - 10 : first], rel=1e-4)
        assert x[number, 10:, 0] * deviation + mean == pytest.approx(units[first - 7 : first - 2], rel=1e-4)
        assert x[number, :, 1].tolist() == [0.0] * 10 + [1.0] * 5
        known, past = x[number, :, 2], x[number, :, 3]
        assert np.sign(known).tolist() == [1 if (first - 10 + i) % 2 else -1 for i in range(15)]
        # Of the steps ahead nothing is told but what is known ahead.
        assert past[10:].tolist() == [0.0] * 5
        assert past[:10].std() > 0
        weekday = pd.Timestamp("2024-01-01").dayofweek + first - 10
        assert x[number, :, 4:11].argmax(1).tolist() == [(weekday + i) % 7 for i in range(15)]
    assert y.shape == (6, 5)


def test_parts_follow_each_other_in_time_and_no_target_is_in_two(tmp_path: Path) -> None:
    frame = daily()
    frame["units"] = np.arange(200.0)
    data = made(tmp_path, frame, window=10)
    parts = [data.train.y, data.validation.y, data.test.y]  # type: ignore[union-attr]
    assert [(float(y.min()), float(y.max())) for y in parts] == [
        (10.0, 144.0),
        (145.0, 169.0),
        (170.0, 199.0),
    ]
    for y in parts[1:]:
        assert sorted(y.flatten().tolist()) == list(range(int(y.min()), int(y.max()) + 1))


def test_without_a_test_or_a_validation_part_its_rows_are_learnt_from(tmp_path: Path) -> None:
    frame = daily()
    frame["units"] = np.arange(200.0)
    data = made(tmp_path, frame, window=10, test_fraction=0.0)
    assert data.test is None and data.validation is not None
    assert (
        float(data.validation.y.max()) == 199
        and float(data.train.y.max()) == float(data.validation.y.min()) - 1
    )
    data = made(tmp_path, frame, window=10, test_fraction=0.0, validation_fraction=0.0)
    assert data.test is None and data.validation is None and float(data.train.y.max()) == 199


def test_a_series_that_begins_late_is_scaled_by_what_its_first_forecast_looks_back_on(tmp_path: Path) -> None:
    old, new = daily(), daily(60)
    new["date"] = old["date"].tail(60).tolist()
    new["units"] = np.arange(60.0)
    frame = pd.concat([old.assign(shop="old"), new.assign(shop="new")], ignore_index=True)
    data = made(tmp_path, frame, window=10, key="shop", validation_fraction=0.3)
    level, deviation = data.encoder.levels["new"]
    assert (level, deviation) == (np.arange(10.0).mean(), np.arange(10.0).std())


def german(days: int = 200) -> tuple[list[str], np.ndarray]:
    """The rows of a table as a German shop writes it, and the numbers in it."""
    units = daily(days)["units"].to_numpy() * 30
    days_ = pd.date_range("2024-01-01", periods=days).strftime("%d.%m.%Y")
    written = [f"{u:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".") + " €" for u in units]
    rows = [
        f"{day};{sold};{steps % 40} %;{'true' if steps % 7 else 'false'}"
        for steps, (day, sold) in enumerate(zip(days_, written, strict=True))
    ]
    return ["date;units;discount;open", *rows], units


def test_money_percent_dates_and_a_decimal_comma_are_read_as_in_any_table(tmp_path: Path) -> None:
    rows, units = german()
    (tmp_path / "sales.csv").write_text("\n".join(rows), encoding="utf-8")
    data = Series(
        path=str(tmp_path / "sales.csv"), target="units", time="date", horizon=5, known=["discount", "open"]
    )
    data.setup()
    assert data.test is not None
    assert data.test.y.flatten().numpy() == pytest.approx(units[-len(data.test) * 5 :], abs=0.01)
    learnt = units[: 200 - 30 - 25]
    assert data.encoder.levels[""] == pytest.approx([learnt.mean(), learnt.std()], rel=1e-6)
    assert data.encoder.scales[0][0] == pytest.approx(np.mean(np.arange(145) % 40))
    assert data.encoder.scales[1][0] == pytest.approx(np.mean(np.arange(145) % 7 > 0))
    assert data.encoder.step == "D" and data.encoder.last["date"][-1] == "2024-07-18"
    assert [guess.what for guess in data.guesses] == [
        "the column 'units' has a decimal comma (3.000,00 € is 3000)"
    ]


def test_predictions_read_a_file_as_the_training_file_was_read(tmp_path: Path) -> None:
    """The same days from the German file, and as numbers and dates from other kinds of file."""
    rows, _ = german()
    (tmp_path / "sales.csv").write_text("\n".join(rows), encoding="utf-8")
    words = ["data=series", f"data.path={tmp_path}/sales.csv", "data.target=units", "data.time=date"]
    words += [
        "data.past=[discount,open]",
        "model=linear",
        "trainer.max_epochs=1",
        "logger=none",
        "trainer=cpu",
    ]
    train(compose([*words, "callbacks.progress=null"]), Hooks(directory=tmp_path / "run"))
    predictor = load(tmp_path / "run/model")
    data = Series(path=str(tmp_path / "sales.csv"), target="units", time="date", past=["discount", "open"])
    (line,) = lines_of(data.table(), data.columns)
    plain = pd.DataFrame({"date": line.times, "units": line.values[:, 0], "discount": line.values[:, 1]})
    plain["open"] = line.values[:, 2] > 0
    plain.to_parquet(tmp_path / "plain.parquet", row_group_size=50)
    plain.astype({"date": str}).to_json(tmp_path / "plain.jsonl", orient="records", lines=True)
    found = []
    for name in ("sales.csv", "plain.parquet", "plain.jsonl"):
        assert predict(predictor, str(tmp_path / name), str(tmp_path / "out.jsonl")) == 14
        found.append(pd.read_json(tmp_path / "out.jsonl", lines=True, convert_dates=False))
        assert found[-1]["date"].tolist()[0] == "2024-07-19"
        assert found[-1]["prediction"].tolist() == pytest.approx(found[0]["prediction"].tolist(), rel=1e-6)
    # What is given to the model in Python, without a file.
    assert predictor.predict(plain)["prediction"].tolist() == pytest.approx(
        found[0]["prediction"].tolist(), rel=1e-6
    )


def test_a_missing_number_is_a_gap_however_it_is_written(tmp_path: Path) -> None:
    for word in ("n/a", "?", "-", "unknown", " "):
        frame = daily().astype({"units": object})
        frame.loc[30, "units"] = word
        with pytest.raises(UserError, match="units is missing at 2024-01-31"):
            made(tmp_path, frame)


@pytest.mark.parametrize(("form", "words"), [("dmy", "%d/%m/%Y"), ("mdy", "%m/%d/%Y")])
def test_first_days_of_months_are_read_in_the_way_that_is_evenly_spaced(
    tmp_path: Path, form: str, words: str
) -> None:
    dates = pd.date_range("2020-01-01", periods=80, freq="MS")
    frame = pd.DataFrame({"date": dates.strftime(words), "units": np.arange(80) % 7 + 1.0})
    data = made(tmp_path, frame, horizon=3)
    assert data.encoder.readings is not None and data.encoder.readings["date"].form == form
    assert data.encoder.step == "MS" and data.guesses == []
    told = data.encoder.unfolded(frame, pd.DataFrame({"prediction": [[1.0, 2.0, 3.0]]}))
    assert told["date"].tolist() == ["2026-09-01", "2026-10-01", "2026-11-01"]


def test_months_and_quarters_may_be_written_by_name(tmp_path: Path) -> None:
    months = pd.date_range("2020-01-01", periods=80, freq="MS")
    quarters = [f"{2000 + number // 4}-Q{number % 4 + 1}" for number in range(80)]
    for words, step in ((months.strftime("%b %Y"), "MS"), (quarters, "QS-JAN")):
        frame = pd.DataFrame({"date": words, "units": np.arange(80) % 7 + 1.0})
        assert made(tmp_path, frame, horizon=3).encoder.step == step


def test_names_of_series_are_kept_as_they_are_written(tmp_path: Path) -> None:
    frame = pd.concat([daily().assign(shop="007"), daily().assign(shop="7")], ignore_index=True)
    frame = frame.sample(frac=1.0, random_state=1)
    data = made(tmp_path, frame, key="shop")
    assert sorted(data.encoder.levels) == ["007", "7"]
    frame["shop"] = [None, *frame["shop"][1:]]
    with pytest.raises(UserError, match=r"data\.key=shop: .* has rows without a shop"):
        made(tmp_path, frame, key="shop")


def test_what_is_solved_at_once_is_no_forecast(tmp_path: Path) -> None:
    daily().to_csv(tmp_path / "sales.csv", index=False)
    words = ["data=series", f"data.path={tmp_path}/sales.csv", "data.target=units", "data.time=date"]
    cfg = compose(
        [*words, "data.horizon=1", "model=linear", "model.solver=exact", "logger=none", "trainer=cpu"]
    )
    with pytest.raises(UserError, match=r"model\.solver=exact is for one target a sample"):
        train(cfg, Hooks(directory=tmp_path / "run"))


def test_baselines_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    frame = daily()
    data = made(tmp_path, frame, horizon=10)
    units = frame["units"].to_numpy()
    assert data.test is not None
    season, last = [], []
    for first in range(200 - 10 * len(data.test), 200, 10):
        for i in range(10):
            season.append(abs(units[first + i] - units[first + i - (7 if i < 7 else 14)]))
            last.append(abs(units[first + i] - units[first - 1]))
    assert as_last_season(data.train, data.test, data.spec)["mae"] == pytest.approx(np.mean(season), rel=1e-5)
    assert as_last_time(data.train, data.test, data.spec)["mae"] == pytest.approx(np.mean(last), rel=1e-5)
    assert float(data.baseline_values(data.test).mean()) == pytest.approx(np.mean(season), rel=1e-5)


@pytest.mark.parametrize("model", ["linear", "mlp", "lstm", "gru", "transformer"])
def test_an_untrained_model_of_zeros_says_last_season_again(tmp_path: Path, model: str) -> None:
    from pipeline.training.building import build_model

    data = made(tmp_path, daily())
    words = [f"model={model}", "model.initializer=zeros"]
    words += [] if model == "linear" else ["model.hidden_units=8"]
    cfg = compose([*words, *(["model.batch_norm=false"] if model == "mlp" else [])])
    network = build_model(dict(cfg.model), data, None)  # type: ignore[arg-type]
    x, y = data.test.take(torch.arange(3))  # type: ignore[union-attr]
    expected = [abs(daily()["units"][170 + i] - daily()["units"][170 + i - 7]) for i in range(5)]
    with torch.no_grad():
        assert (network.eval()(x)[0] - y[0]).abs().numpy() == pytest.approx(expected, abs=1e-3)


def test_the_forecasts_that_are_drawn_are_one_of_each_series_or_the_last_ones(tmp_path: Path) -> None:
    one = made(tmp_path, daily(), horizon=10).test
    assert isinstance(one, Windows)
    # 200 days from 2024-01-01 on, the last three windows of ten days each.
    days = [str(day.date()) for day in pd.date_range("2024-01-01", periods=200)[[170, 180, 190]]]
    assert one.last(3) == dict(zip(range(len(one) - 3, len(one)), days, strict=True))
    both = pd.concat([daily().assign(shop="north"), daily().assign(shop="south")], ignore_index=True)
    two = made(tmp_path, both, horizon=10, key="shop").test
    assert isinstance(two, Windows)
    assert two.last(3) == {
        len(two) // 2 - 1: f"north, from {days[2]}",
        len(two) - 1: f"south, from {days[2]}",
    }


def test_sales_are_forecast_better_than_last_season_by_a_fifth(tmp_path: Path) -> None:
    for seed in range(3):
        words = ["+experiment=sales_forecast", f"seed={seed}", "trainer.max_epochs=6"]
        cfg = compose([*words, "logger=none", "callbacks.progress=null"])
        result = train(cfg, Hooks(directory=tmp_path / f"{seed}", reports=False))
        assert result.baseline["name"] == "as last season"
        assert result.metrics["test/mae"] < 0.8 * result.baseline["test/mae"]
        assert 0.8 <= result.metrics["test/coverage"] <= 1.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("series")
    sales(300, 2).to_csv(directory / "sales.csv", index=False)
    words = [
        "data=series",
        f"data.path={directory}/sales.csv",
        "data.target=units",
        "data.time=date",
        "data.key=shop",
    ]
    words += [
        "data.known=[holiday,promotion]",
        "data.past=temperature",
        "model=linear",
        "trainer.max_epochs=3",
    ]
    train(compose([*words, "logger=none", "callbacks.progress=null"]), Hooks(directory=directory / "run"))
    return directory


def ahead(frame: pd.DataFrame, steps: int) -> pd.DataFrame:
    """The table with rows for the days after its end, whose units are not known yet."""
    days = pd.date_range(frame["date"].max(), periods=steps + 1)[1:].strftime("%Y-%m-%d")
    rows = [
        {"date": day, "shop": shop, "holiday": 0, "promotion": 0}
        for day in days
        for shop in frame["shop"].unique()
    ]
    return pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)


def test_predict_goes_on_from_the_end_of_the_file(trained: Path) -> None:
    frame = sales(300, 2)
    ahead(frame, 14).to_csv(trained / "now.csv", index=False)
    predictor = load(trained / "run/model")
    assert predict(predictor, str(trained / "now.csv"), str(trained / "forecast.csv")) == 28
    found = pd.read_csv(trained / "forecast.csv")
    assert list(found.columns) == ["date", "shop", "prediction", "low", "high"]
    days = pd.date_range("2023-10-28", periods=14).strftime("%Y-%m-%d").tolist()
    assert found["date"].tolist() == days * 2
    assert found["shop"].tolist() == ["shop 1"] * 14 + ["shop 2"] * 14
    half = predictor.module.settled.half_widths(found["prediction"].to_numpy())
    assert (found["high"] - found["prediction"]).to_numpy() == pytest.approx(half, rel=1e-4)
    assert (half > 0).all()
    for shop, said in found.groupby("shop"):
        usual = frame.loc[frame["shop"] == shop, "units"].tail(28).mean()
        assert said["prediction"].mean() == pytest.approx(usual, rel=0.35)
    # The order of the rows does not count.
    mixed = ahead(frame, 14).sample(frac=1.0, random_state=0)
    assert predictor.predict(mixed)["prediction"].tolist() == pytest.approx(
        found["prediction"].tolist(), rel=1e-4
    )
    assert (trained / "run/plots/forecast.png").stat().st_size > 20_000


def test_what_is_served_answers_as_the_model_in_python(trained: Path) -> None:
    from pipeline.tracking.served_model import ServedModel

    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"bundle": str(trained / "run/model")}))
    rows = ahead(sales(300, 2), 14)
    expected = load(trained / "run/model").predict(rows)
    pd.testing.assert_frame_equal(served.predict(None, rows), expected)
    # As it comes by JSON: an object a row, without a value where there is none.
    sent = [{k: v for k, v in row.items() if v == v} for row in rows.to_dict("records")]
    pd.testing.assert_frame_equal(served.predict(None, pd.DataFrame(sent)), expected)


def test_a_model_of_an_earlier_version_finds_out_how_its_input_is_written(trained: Path) -> None:
    encoder = load(trained / "run/model").encoder
    state = {name: value for name, value in encoder.to_state().items() if name not in ("readings", "written")}
    rows = ahead(sales(300, 2), 14)
    assert torch.equal(restored(state).encode(rows), encoder.encode(rows))


def test_a_forecast_is_explained_column_by_column(trained: Path, tmp_path: Path) -> None:
    """What each number adds, found by putting it alone into a series that stays at its level: the model is linear."""
    predictor = load(trained / "run/model")
    x = predictor.encoder.encode(ahead(sales(300, 2), 14))
    found = forecast_gradients(predictor, x)
    names = [
        "units",
        "holiday",
        "promotion",
        "temperature",
        "weekday",
        "time of the year",
        "units, a season before",
    ]
    assert list(found) == names
    rows, steps, features = x.shape
    expected = np.zeros((steps, features))
    structure = [1, features - 2, features - 1]
    for sample in x:
        reference = torch.zeros_like(sample)
        reference[:, structure] = sample[:, structure]
        alone = reference.expand(steps * features, -1, -1).clone()
        places = torch.arange(steps * features)
        alone[places, places // features, places % features] = sample.flatten()
        with torch.no_grad():
            added = predictor.module(alone).mean(1) - predictor.module(reference[None]).mean(1)
        expected += added.abs().view(steps, features).numpy() / rows
    by_column = expected.sum(0)
    season = expected[-14:, 0].sum()
    sums = [by_column[0] - season, *by_column[2:5], by_column[5:12].sum(), by_column[12:14].sum(), season]
    assert list(found.values()) == pytest.approx(sums, rel=1e-2, abs=1e-2)
    split = Rows(x, torch.zeros(len(x), 14))
    # On a GPU the layers of cuDNN have no gradient outside training.
    fast: set[bool] = set()
    watch = predictor.module.register_forward_pre_hook(lambda *_: fast.add(torch.backends.cudnn.enabled))
    (file,) = explain(predictor, cast(Any, None), split, tmp_path)
    watch.remove()
    assert fast == {False}
    assert file.name == "explanation.png" and file.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame, "must be known for 14 steps after 2023-10-27, but there are 0"),
        (lambda frame: ahead(frame, 14).drop(columns="promotion"), "lacks the columns 'promotion'"),
        (
            lambda frame: ahead(frame, 14)[lambda rows: rows["date"] > "2023-10-01"],
            "this model looks at the last 28",
        ),
    ],
)
def test_what_a_prediction_lacks_is_said(trained: Path, change: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(trained / "run/model").predict(change(sales(300, 2)))


def without(frame: pd.DataFrame, row: int) -> pd.DataFrame:
    return frame.drop(index=row)


@pytest.mark.parametrize(
    ("frame", "settings", "words"),
    [
        (daily(), {"target": "unit"}, "data.target=unit: .* Did you mean units"),
        (daily(), {"time": "dates"}, "data.time=dates: .* Did you mean date"),
        (daily(), {"known": "promotion"}, "data.known=promotion: .* no column of that name"),
        (
            without(daily(), 50),
            {},
            "not evenly spaced: most are 1 days apart, but after 2024-02-19 comes 2024-02-21",
        ),
        (pd.concat([daily(), daily()]), {}, "2024-01-01 occurs more than once; .* data.key"),
        (
            daily().replace({"date": {"2024-01-05": "soon"}}),
            {},
            "the column 'date' must hold dates .* but has 'soon'",
        ),
        (
            daily().assign(units=lambda rows: rows["units"].where(rows.index != 30)),
            {},
            "units is missing at 2024-01-31",
        ),
        (daily().assign(units="many"), {}, "the column 'units' must hold numbers, but has 'many'"),
        (daily(30), {}, "has 30 times, too few for a horizon of 5 steps"),
        (daily(), {"horizon": 150}, "too few for a horizon of 150 steps .* lower data.horizon"),
        (daily(), {"window": 3}, "data.window=3: expected at least a season, 7 steps"),
        (daily(), {"folds": 3}, "a series is split by time"),
        (daily(), {"time": None}, "data.time is not given"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, frame: Any, settings: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(tmp_path, frame, **settings)


@pytest.mark.parametrize(
    ("times", "step", "season", "after"),
    [
        (pd.date_range("2020-01-01", periods=80, freq="MS").strftime("%Y-%m-%d"), "MS", 12, "2026-09-01"),
        (
            pd.date_range("2024-01-01", periods=80, freq="h").strftime("%Y-%m-%d %H:%M"),
            "h",
            24,
            "2024-01-04 08:00:00",
        ),
        (np.arange(10, 90), 1, 1, "90"),
    ],
)
def test_months_hours_and_whole_numbers_go_on(
    tmp_path: Path, times: Any, step: Any, season: int, after: str
) -> None:
    frame = pd.DataFrame({"date": times, "units": np.arange(80) % 7 + 1.0})
    data = made(tmp_path, frame, horizon=3, window=max(season, 4), season="auto")
    assert (data.encoder.step, data.encoder.season) == (step, season)
    told = data.encoder.unfolded(frame, pd.DataFrame({"prediction": [[1.0, 2.0, 3.0]]}))
    assert str(told["date"][0]) == after
    assert told["prediction"].tolist() == [1.0, 2.0, 3.0]
