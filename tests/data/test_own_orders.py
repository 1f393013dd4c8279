"""Orders of one's own: columns found by name and content, times as people write them, gaps, ties, single orders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from pipeline.data.encoders import restored
from pipeline.data.orders.encoder import OrdersEncoder
from pipeline.data.orders.headers import NAMES, plain_words
from pipeline.data.orders.own import OwnOrders, orders_like
from pipeline.data.tables.dates import dates_of
from pipeline.errors import UserError
from pipeline.evaluation.other_data import other_data_of

PEOPLE, DISHES, AREAS = ("Ada", "Bob", "Eve", "Zoë"), ("soup", "pie", "rice", "tea"), ("north", "south")


def rows(count: int = 120) -> pd.DataFrame:
    """Orders three hours apart, each person with a dish they come back to."""
    random = np.random.default_rng(0)
    who = random.integers(0, len(PEOPLE), count)
    dish = np.where(random.random(count) < 0.7, who, random.integers(0, len(DISHES), count))
    return pd.DataFrame(
        {
            "who": [PEOPLE[number] for number in who],
            "what": [DISHES[number] for number in dish],
            "where": [AREAS[number % 2] for number in who],
            "when": pd.Timestamp("2024-03-04 09:30") + pd.to_timedelta(np.arange(count) * 3, unit="h"),
        }
    )


def read(frame: pd.DataFrame, path: Path, **settings: object) -> OwnOrders:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False, date_format="iso")
    else:
        frame.to_csv(path, index=False)
    module = OwnOrders(path=path, validation_fraction=0.15, **settings)  # type: ignore[arg-type]
    module.setup()
    return module


def called(**names: str) -> dict[str, str]:
    return {"who": names["customer"], "what": names["item"], "where": names["area"], "when": names["time"]}


@pytest.mark.parametrize(
    "names",
    [
        {"customer": "customer_id", "item": "item", "area": "area", "time": "time"},
        {"customer": "Kundennummer", "item": "Gericht", "area": "Lieferbezirk", "time": "Bestellzeitpunkt"},
        {"customer": "id_cliente", "item": "plato", "area": "barrio", "time": "fecha"},
        {"customer": "Client", "item": "Nom du plat", "area": "Quartier", "time": "Date et heure"},
        {"customer": "userId", "item": "productName", "area": "deliveryZone", "time": "createdAt"},
        {"customer": "客户编号", "item": "菜品", "area": "区域", "time": "下单时间"},
        {"customer": "клиент", "item": "блюдо", "area": "район", "time": "дата"},
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_columns_are_found_by_their_names_in_many_languages(
    names: dict[str, str], ending: str, tmp_path: Path
) -> None:
    frame = rows().rename(columns=called(**names)).assign(order_id=range(120), price=np.arange(120) % 7 + 0.5)
    layout = read(frame, tmp_path / f"orders.{ending}").encoder.layout
    assert (layout.customer, layout.item) == (names["customer"], (names["item"],))
    assert (layout.area, layout.time) == (names["area"], (names["time"],)) and layout.returned is None


def test_what_names_do_not_say_the_values_do_and_it_is_said(tmp_path: Path) -> None:
    frame = rows().rename(columns={"who": "a", "what": "b", "where": "c", "when": "d"})
    frame["a"] = [f"{name} {number % 9}" for number, name in enumerate(frame["a"])]
    found = read(frame, tmp_path / "orders.csv")
    layout = found.encoder.layout
    assert (layout.customer, layout.item, layout.time) == ("a", ("b",), ("d",))
    costly = [guess.what for guess in found.guesses if guess.costly]
    assert len(costly) == 3 and "'a' is taken to say who ordered" in costly[0]
    with pytest.raises(UserError, match=r"data\.customer \(who ordered\) and data\.item") as error:
        read(frame[["d"]].assign(x=0.5), tmp_path / "nothing.csv")
    assert "'d', 'x'" in str(error.value)


def retail() -> pd.DataFrame:
    """With the columns of a shop's invoices: a number of its own for every two lines."""
    frame = rows()
    return pd.DataFrame(
        {
            "InvoiceNo": 536365 + np.arange(120) // 2,
            "StockCode": [f"{85123 + len(dish)}A" for dish in frame.what],
            "Description": frame.what,
            "Quantity": np.arange(120) % 17,
            "InvoiceDate": frame.when.dt.strftime("%m/%d/%Y %H:%M"),
            "UnitPrice": np.arange(120) % 7 + 0.55,
            "CustomerID": [17850 + len(name) for name in frame.who],
            "Country": frame["where"],
        }
    )


def shop() -> pd.DataFrame:
    frame = rows()
    price = np.arange(120) % 7 + 1
    return pd.DataFrame(
        {"user_id": frame.who, "item_price": price, "name": frame.what, "created_at": frame.when.astype(str)}
    )


def called_by_telephone() -> pd.DataFrame:
    frame, numbers = rows(), 1_700_000_000 + np.arange(120) * 7
    return pd.DataFrame({"customer_phone": frame.who, "dish": frame.what, "order_id": numbers})


@pytest.mark.parametrize(
    ("frame", "customer", "item", "time"),
    [
        (retail(), "CustomerID", "Description", ("InvoiceDate",)),
        (shop(), "user_id", "name", ("created_at",)),
        (called_by_telephone(), "customer_phone", "dish", ()),
        (called_by_telephone().rename(columns={"order_id": "order_ts"}), "customer_phone", "dish", ("order_ts",)),
        (rows().set_axis(["order_user_id", "dish", "area", "date"], axis=1), "order_user_id", "dish", ("date",)),
        (rows().set_axis(["orderer_id", "a", "b", "returned_at"], axis=1).assign(uid=rows().who), "uid", "a", ()),
    ],
    ids=["retail", "shop", "telephone", "epoch", "user of an order", "returned"],
)  # fmt: skip
def test_numbers_of_orders_prices_and_telephones_are_no_items_and_no_times(
    frame: pd.DataFrame, customer: str, item: str, time: tuple[str, ...], tmp_path: Path
) -> None:
    found = read(frame, tmp_path / "orders.csv")
    layout = found.encoder.layout
    assert (layout.customer, layout.item, layout.time) == (customer, (item,), time)
    # What a name says by halves alone is a warning.
    sure = item == "dish"
    assert any(guess.costly and repr(item) in guess.what for guess in found.guesses) != sure


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("returned", ["t", "f", "f", "f"]),
        ("returned_at", ["2024-04-01 10:00", None, None, None]),
        ("Retourdatum", ["01.04.2024", None, None, None]),
        ("returned_qty", [2, 0, 0, 0]),
        ("order_status", ["Cancelled", "delivered", "shipped", "delivered"]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_came_back_is_said_in_many_ways(
    name: str, values: list[object], ending: str, tmp_path: Path
) -> None:
    frame = rows().rename(columns=called(customer="customer", item="dish", area="area", time="time"))
    found = read(frame.assign(**{name: values * 30}), tmp_path / f"orders.{ending}")
    assert found.encoder.layout.returned == name and found.encoder.layout.time == ("time",)
    assert sum(len(found.judged[part].rows) for part in ("train", "validation", "test")) == 90


@pytest.mark.parametrize(
    ("name", "values", "shown"),
    [
        ("return_reason", ["too cold", None, None, "late"], "'late', 'too cold'"),
        ("return_until", ["2024-04-01"] * 4, "'2024-04-01'"),
        ("status", ["cancelled", "at the door", "delivered", "delivered"], "at the door"),
    ],
)
def test_what_may_say_that_it_came_back_and_is_not_understood_is_a_warning(
    name: str, values: list[object], shown: str, tmp_path: Path
) -> None:
    frame = rows().rename(columns=called(customer="customer", item="dish", area="area", time="time"))
    found = read(frame.assign(**{name: values * 30}), tmp_path / "orders.csv")
    assert found.encoder.layout.returned is None
    (said,) = [guess for guess in found.guesses if name in guess.columns]
    assert said.costly and shown in said.what and said.key == "data.returned=COLUMN"


@pytest.mark.parametrize("offset", ["-05:00", "+05", "+0530", "Z", " UTC"])
def test_times_with_an_offset_are_those_of_their_own_clock(offset: str, tmp_path: Path) -> None:
    frame = rows()
    texts = frame.assign(when=frame.when.dt.strftime("%Y-%m-%dT%H:%M:%S") + offset)
    found = read(texts, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when")
    assert found.looked_at.time.tolist() == frame.when.tolist()[: len(found.looked_at)]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("%d.%m.%Y %H:%M", "04.03.2024 09:30"),
        ("%d.%m.%y %H:%M Uhr", "04.03.24 09:30 Uhr"),
        ("%m/%d/%Y %I:%M %p", "03/04/2024 09:30 AM"),
        ("%d %B %Y, %H:%M", "04 March 2024, 09:30"),
        ("%Y-%m-%dT%H:%M:%S+05:30", "2024-03-04T09:30:00+05:30"),
        ("%a %d/%m/%Y %Hh%M", "Mon 04/03/2024 09h30"),
    ],
)
def test_times_are_read_as_people_write_them_on_their_own_clock(
    written: str, shown: str, tmp_path: Path
) -> None:
    frame = rows()
    texts = frame.assign(when=frame.when.dt.strftime(written))
    assert texts.when[0] == shown
    names = {"customer": "who", "item": "what", "area": "where", "time": "when"}
    found = read(texts, tmp_path / "orders.csv", **names)
    assert found.looked_at.time.tolist() == frame.when.tolist()[: len(found.looked_at)]
    # What is asked later is understood alike, one row at a time.
    row = texts[["who", "where", "when"]].iloc[[7]]
    again = restored(json.loads(json.dumps(found.encoder.to_state())))
    assert isinstance(again, OrdersEncoder)
    expected = again.first_hour + frame.when[7].hour
    assert again.encode(row)[0, expected] == 1


def test_months_have_their_names_in_other_languages_too() -> None:
    said = [
        "3. März 2024",
        "3 août 2024",
        "3 de febrero de 2024",
        "3 dicembre 2024 18:30",
        "3. Okt. 2024",
        "mar 3 2024",
    ]
    dates = ["2024-03-03", "2024-08-03", "2024-02-03", "2024-12-03T18:30", "2024-10-03", "2024-03-03"]
    assert dates_of(said).tolist() == dates_of(dates).tolist() and not np.isnan(dates_of(dates)).any()


def test_date_and_time_of_day_in_two_columns_and_numbers_since_1970(tmp_path: Path) -> None:
    frame = rows()
    two = frame.assign(Datum=frame.when.dt.strftime("%d.%m.%Y"), Uhrzeit=frame.when.dt.strftime("%H:%M"))
    names = {"customer": "who", "item": "what"}
    found = read(two.drop(columns="when"), tmp_path / "two.csv", **names)
    assert found.encoder.layout.time == ("Datum", "Uhrzeit")
    assert found.looked_at.time.tolist() == frame.when.tolist()[: len(found.looked_at)]
    for unit in (1, 1000):
        seconds = (frame.when - pd.Timestamp(0)).dt.total_seconds().astype("int64") * unit
        numbers = read(frame.assign(when=seconds), tmp_path / f"{unit}.parquet", **names, time="when")
        assert numbers.looked_at.time.tolist() == found.looked_at.time.tolist()
        assert numbers.encoder.encode(numbers.encoder.example()).sum(1).tolist() == [5.0, 6.0]
    days = read(
        frame.assign(when=frame.when.dt.strftime("%d.%m.%Y")), tmp_path / "days.csv", **names, time="when"
    )
    x = days.train.take(torch.arange(len(days.train)))[0]
    assert (x[:, days.encoder.first_hour + 24] == 1).all() and not days.encoder.layout.clock


def test_order_of_the_file_gaps_returns_and_spellings(tmp_path: Path) -> None:
    frame = rows()
    messy = frame.assign(returned=["yes" if i % 10 == 0 else "no" for i in range(120)]).sample(
        frac=1, random_state=1
    )
    messy["what"] = [word.upper() if i % 5 == 0 else f" {word}" for i, word in enumerate(messy["what"])]
    messy.loc[messy.index[3], "where"] = None
    messy.loc[messy.index[4], "what"] = None
    messy.loc[messy.index[5], "who"] = ""
    found = read(messy, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when")
    lost = {int(number) for number in messy.index[[4]]} | {i for i in range(120) if i % 10 == 0}
    kept = frame.drop(index=list(lost))
    labels = [
        found.encoder.dishes[y].casefold()
        for part in ("train", "validation", "test")
        for y in found.judged[part].rows.y
    ]
    assert labels == kept.what.tolist()
    said = " ".join(guess.what for guess in found.guesses)
    for words in (
        "1 of 120 orders without area",
        "1 of 120 orders without item",
        "1 of 120 orders without customer",
    ):
        assert words in said
    # The history of an order is what the same person had kept before it, by hand.
    test = found.judged["test"]
    order = test.orders.iloc[-1]
    nameless = int(messy.index[5])
    past = kept[(kept.when < order.time) & (kept.who == order.customer)].drop(
        index=[nameless], errors="ignore"
    )
    block = test.rows.take(torch.tensor([len(test.rows) - 1]))[0][0, found.encoder.first_past :].view(-1, 3)
    counts = [(past.what == dish.casefold()).sum() for dish in found.encoder.dishes]
    assert block.sum(1).tolist() == [sum(count >= level for level in (1, 2, 4)) for count in counts]


def test_lines_of_one_basket_are_not_each_others_past_and_stay_together(tmp_path: Path) -> None:
    frame = rows().loc[lambda f: f.index.repeat(3)].reset_index(drop=True)
    frame["what"] = [DISHES[i % 3] for i in range(len(frame))]
    found = read(frame, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when")
    for part in ("train", "validation", "test"):
        judged = found.judged[part]
        assert len(judged.rows) % 3 == 0 and judged.orders.groupby("time").size().eq(3).all()
        past = judged.rows.take(torch.arange(len(judged.rows)))[0][:, found.encoder.first_past :].reshape(
            -1, 3, len(found.encoder.dishes) * 3
        )
        assert (past == past[:, :1]).all()


def test_a_day_that_is_all_there_is_is_parted_all_the_same(tmp_path: Path) -> None:
    names = {"customer": "who", "item": "what", "area": "where", "time": "when"}
    one = read(rows().assign(when="2024-03-04"), tmp_path / "one.csv", **names)
    assert [len(one.judged[part].rows) for part in ("train", "validation", "test")] == [87, 15, 18]
    two = rows().assign(when=["2024-03-04"] * 60 + ["2024-03-05"] * 60)
    parted = read(two, tmp_path / "two.csv", **names)
    assert [len(parted.judged[part].rows) for part in ("train", "validation", "test")] == [51, 9, 60]


def test_people_with_one_order_share_an_input_and_keep_their_history(tmp_path: Path) -> None:
    frame = rows()
    frame.loc[3, "who"] = "once"
    found = read(frame, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when")
    assert found.encoder.customers == sorted(PEOPLE)
    x = found.train.take(torch.tensor([3]))[0][0]
    assert x[len(PEOPLE)] == 1
    assert found.encoder.known("ONCE") == {found.encoder.dishes.index(frame.what[3]): 1}


def test_items_that_training_has_never_seen_are_left_out_of_a_runs_own_test_and_counted(
    tmp_path: Path,
) -> None:
    frame = rows()
    frame.loc[115, "what"] = "new thing"
    found = read(frame, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when")
    assert found.judged["test"].unknown == {"new thing": 1}
    assert len(found.judged["test"].rows) == 17 and "new thing" not in found.encoder.dishes
    # A longer export of the same orders: what the model learnt from is not judged again.
    more = pd.concat([frame, frame.assign(when=frame.when + pd.Timedelta(days=20))], ignore_index=True)
    more.to_csv(tmp_path / "more.csv", index=False)
    orders, earlier = orders_like(tmp_path / "more.csv", found.encoder)
    assert earlier and len(orders) == len(more) - len(found.train)
    judged = found.other(orders, found.encoder, earlier)
    assert judged.unknown == {"new thing": 2}
    assert torch.equal(
        judged.rows.take(torch.arange(15))[0], torch.cat([found.validation.take(torch.arange(15))[0]])
    )  # type: ignore[union-attr]


def test_orders_without_a_time_are_of_the_time_of_those_before_them(tmp_path: Path) -> None:
    frame = rows()
    names = {"customer": "who", "item": "what", "area": "where", "time": "when"}
    gaps = frame.assign(when=frame.when.where(np.arange(120) % 20 != 9))
    found = read(gaps, tmp_path / "orders.csv", **names)
    orders, earlier = orders_like(tmp_path / "orders.csv", found.encoder)
    # Of the orders that were learnt from none is judged, with a time or without.
    assert earlier and len(orders) == 120 - len(found.train) and orders.time.isna().sum() == 2
    gaps.head(len(found.train)).to_csv(tmp_path / "old.csv", index=False)
    assert orders_like(tmp_path / "old.csv", found.encoder)[1] is False


def test_a_file_of_other_orders_is_read_as_is_said_or_as_the_training_file_was(tmp_path: Path) -> None:
    names = {"customer": "who", "item": "what", "area": "where", "time": "when"}
    text = rows().to_csv(index=False, sep=";")
    (tmp_path / "orders.txt").write_text(text, encoding="cp1252")
    found = OwnOrders(
        path=tmp_path / "orders.txt", format="csv", encoding="cp1252", validation_fraction=0.15, **names
    )
    found.setup()
    later = rows().assign(when=rows().when + pd.Timedelta(days=90))
    (tmp_path / "later.txt").write_text(later.to_csv(index=False, sep=";"), encoding="cp1252")
    later.to_parquet(tmp_path / "later.parquet")
    (tmp_path / "utf16.csv").write_text(later.to_csv(index=False, sep="|"), encoding="utf-16-le")
    for settings in (
        {"path": "later.txt"},
        {"path": "later.parquet"},
        {"path": "utf16.csv", "encoding": "utf-16-le", "delimiter": "|"},
    ):
        cfg = OmegaConf.create({"data": {**settings, "path": str(tmp_path / settings["path"])}})
        other = other_data_of(cfg, found, None)  # type: ignore[arg-type]
        assert len(other.split) == 120
        zoe = found.encoder.customers.index("Zoë")
        x = other.split.take(torch.arange(120))[0]
        assert x[:, zoe].sum() == (later.who == "Zoë").sum()


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        ({}, {"customer": "nobody"}, "data.customer names the column 'nobody'"),
        ({}, {"customer": "what"}, "data.customer and data.item both name the column 'what'"),
        ({"when": "soon"}, {}, "data.time=when: .* holds 'soon' there; expected dates and times like"),
        ({"when": "12:30"}, {}, "data.time=when: .* holds times of day there, without a date"),
        ({"what": "soup"}, {}, "hold 1 different item .soup.; a recommendation needs at least two"),
        ({"what": None}, {}, "has 0 orders with an item that were kept"),
        (
            {"gone": "perhaps"},
            {"returned": "gone"},
            "data.returned=gone: .* holds 'perhaps' there; expected yes or no",
        ),
        ({}, {"balance": "oversample"}, "data.balance=oversample"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    change: dict[str, object], settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    names = {"customer": "who", "item": "what", "area": "where", "time": "when"} | settings
    with pytest.raises(UserError, match=said) as error:
        read(rows().assign(**change), tmp_path / "orders.csv", **names)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_raw_row_that_lacks_a_column_is_told_the_persons_own_names(tmp_path: Path) -> None:
    found = read(rows(), tmp_path / "orders.csv", customer="who", item="what", area="where", time="when")
    with pytest.raises(UserError, match=r"lacks the columns \['when'\]; expected who, where and when"):
        found.encoder.encode([{"who": "Ada", "where": "north"}])
    names = [column["name"] for column in found.encoder.signature()["columns"]]
    assert names == ["who", "where", "when", "past"]


def test_names_with_semicolons_are_told_as_past_like_others(tmp_path: Path) -> None:
    frame = rows()
    frame["what"] = frame.what.replace({"soup": "soup; large", "pie": "soup"})
    encoder = read(
        frame, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when"
    ).encoder
    row = {"who": "Ada", "where": "north", "when": "2024-03-20 12:00"}
    said = encoder.encode([{**row, "past": "soup;tea; Soup; large ;unknown; large;tea;soup; large"}])
    times = {
        dish: int(said[0, encoder.first_past + 3 * place :][:3].sum())
        for place, dish in enumerate(encoder.dishes)
    }
    # Levels are 1, 2 and 4 times.
    assert times == {"rice": 0, "soup": 1, "soup; large": 2, "tea": 2}


def test_customers_who_are_numbers_pass_the_check_of_mlflow(tmp_path: Path) -> None:
    from mlflow.models.utils import _enforce_schema

    from pipeline.tracking.signatures import column, to_mlflow

    frame = rows().assign(who=rows().who.map(len) + 14)
    encoder = read(
        frame, tmp_path / "orders.csv", customer="who", item="what", area="where", time="when"
    ).encoder
    inputs = [column(one["dtype"], one["name"], one["required"]) for one in encoder.signature()["columns"]]
    schema = to_mlflow({"inputs": inputs}).inputs
    row = {"who": 17, "where": "north", "when": "2024-03-20 12:00", "past": "tea"}
    for who in (17, "17"):
        checked = _enforce_schema(pd.DataFrame([row | {"who": who}]), schema)
        assert encoder.encode(checked)[0, encoder.customers.index("17")] == 1


def test_no_word_stands_for_two_roles() -> None:
    roles: dict[str, str] = {}
    for role, words in NAMES.items():
        for word in words.split():
            assert roles.setdefault(" ".join(plain_words(word)), role) == role, word
