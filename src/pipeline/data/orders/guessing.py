"""Which column of a person's table of orders is what, by its name and by what is in it; every guess is said."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

import numpy as np

from pipeline.data.orders.reading import NO, YES, Layout, local
from pipeline.data.tables.guesses import Guess, typed
from pipeline.data.tables.reading import Reading, find_reading
from pipeline.data.tables.values import Column, Table, listed
from pipeline.errors import UserError

DAY = 86_400.0
# Words that headers of orders are made of, without accents, in a dozen languages; the first that fits decides.
NAMES = {
    "time": "time date datetime timestamp when createdat orderedat placedat created ordered placed zeit datum "
    "zeitpunkt uhrzeit bestellzeit bestelldatum bestelltam "
    "bestelltum fecha hora momento dia heure jour horodatage data ora giorno orario tijd tijdstip moment dzien "
    "czas godzina tid tidspunkt dato aika paiva pvm cas tarih zaman saat orderdate ordertime fechahora datahora "
    "дата время момент 时间 日期 下单时间 日時 注文日時 日付 時刻 시간 날짜 주문시간 ημερομηνια ωρα التاريخ الوقت",
    "returned": "returned return returns refunded refund cancelled canceled storniert storno retour retoure "
    "retourniert "
    "zuruckgegeben devuelto devuelta cancelado reembolsado annule retourne rembourse reso restituito annullato "
    "geannuleerd geretourneerd devolvido zwrot zwrocone retur aterlamnad возврат отмена 退货 退款 返品 반품",
    "area": "area district quarter neighbourhood neighborhood region zone city town borough zip zipcode postcode "
    "postalcode stadtteil bezirk viertel gebiet ort ortsteil stadt plz postleitzahl quartier arrondissement ville "
    "secteur zona barrio distrito ciudad sector quartiere citta rione cap wijk buurt stad plaats bairro cidade regiao "
    "dzielnica miasto rejon omrade stadsdel bydel kommun kaupunginosa alue ctvrt mesto ilce mahalle semt location "
    "район город область 区域 地区 区 城市 エリア 地域 지역 περιοχη συνοικια الحي المدينة",
    "item": "item dish product meal food menu menuitem sku article gericht gerichte speise essen artikel produkt ware "
    "plat produit mets plato producto articulo comida piatto prodotto articolo pietanza gerecht maaltijd prato produto "
    "artigo danie potrawa ratt matratt ret rett vare ruoka annos tuote jidlo yemek urun блюдо товар продукт 菜 菜品 "
    "商品 菜名 料理 品目 메뉴 상품 음식 πιατο προιον الطبق المنتج",
    "customer": "customer client user buyer member account guest person consumer patron kunde kundin kunden "
    "kundennummer kundennr kundenid besteller gast nutzer benutzer cliente usuario comprador utilisateur acheteur "
    "utente acquirente klant gebruiker koper klient kund kjoper asiakas zakaznik musteri uid userid customerid "
    "клиент покупатель заказчик 客户 顾客 用户 会员 顧客 お客様 고객 회원 πελατης العميل الزبون",
}
_NUMBERS = frozenset({"id", "no", "nr", "num", "number", "nummer", "numero"})
_IDS = _NUMBERS | {"code", "key", "name", "nom", "nome", "nombre", "bezeichnung", "titel", "title"}
NEEDED = {"customer": "who ordered", "item": "what was ordered"}


@dataclass(frozen=True)
class Asked:
    """What is said about the columns of a table of orders.

    Args:
        customer, area, returned: Name of a column; None to find out.
        item, time: Names of one or several columns; none to find out.
    """

    customer: str | None = None
    item: tuple[str, ...] = ()
    area: str | None = None
    time: tuple[str, ...] = ()
    returned: str | None = None

    def names(self) -> dict[str, tuple[str, ...]]:
        """The columns that are named, by setting."""
        single = {name: getattr(self, name) for name in ("customer", "area", "returned")}
        several = {"item": self.item, "time": self.time}
        return {
            **{name: (value,) for name, value in single.items() if value},
            **{k: v for k, v in several.items() if v},
        }


def find_layout(table: Table, asked: Asked) -> tuple[Layout, list[Guess]]:
    """Decide which column is what, and how each is understood.

    Args:
        table: The file, read as text where it is text.
        asked: The columns that are named.

    Raises:
        UserError: A named column is not there or not what it is said to be, or nothing says who ordered or what.
    """
    chosen = dict(asked.names())
    for role, names in chosen.items():
        table.require(names, f"data.{role}")
    _refuse_twice(chosen)
    guesses: list[Guess] = []
    free = [name for name in table.names if not any(name in names for names in chosen.values())]
    for role in NAMES:
        if role not in chosen and (found := _by_name(role, free, table)):
            chosen[role] = (found,)
            free.remove(found)
            guesses.append(_said(role, (found,), "by its name"))
    guesses += _by_content(table, chosen, free)
    if missing := [role for role in NEEDED if role not in chosen]:
        what = " and ".join(f"data.{role} ({NEEDED[role]})" for role in missing)
        raise UserError(
            f"{table.source} has the columns {listed(table.names)}: name the ones with {what}, as in "
            f"data.{missing[0]}=COLUMN"
        )
    guesses += _clock_beside(table, chosen, free, asked)
    return _understood(table, chosen, guesses, asked)


def _refuse_twice(chosen: dict[str, tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for role, names in chosen.items():
        for name in names:
            if name in owner:
                raise UserError(f"data.{owner[name]} and data.{role} both name the column {name!r}")
            owner[name] = role


def _said(role: str, names: tuple[str, ...], why: str, costly: bool = False) -> Guess:
    what = {"customer": "who ordered", "item": "what was ordered", "area": "where", "time": "when"}.get(
        role, role
    )
    shown = " and ".join(map(repr, names))
    # The file's own column is a good example of how the key is written.
    return Guess(
        f"{shown} is taken to say {what}, {why}"
        if role != "returned"
        else f"{shown} is taken to say what came back",
        f"data.{role}=COLUMN",
        costly,
        names,
        "names another one",
    )


def plain_words(header: str) -> list[str]:
    """The words of a column's name, in lower case and without accents: ``Order_Time`` is order, time."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", header)
    bare = unicodedata.normalize("NFKD", parted.casefold())
    bare = "".join(letter for letter in bare if not unicodedata.combining(letter))
    return re.findall(r"[^\W_]+", bare)


def _by_name(role: str, names: list[str], table: Table) -> str | None:
    """The column whose name says best that it is what is looked for."""
    known = [" ".join(plain_words(word)) for word in NAMES[role].split()]
    best, found = 0.0, None
    for name in names:
        words = plain_words(name)
        content = [word for word in words if word not in _IDS] or words
        if not content:
            continue
        score = 0.0
        if "".join(content) in known:
            score = 4.0
        elif content[-1] in known:
            score = 3.0
        elif any(word in known for word in content):
            # "customer area" is an area: the last word says what it is.
            score = 0.0 if any(content[-1] in NAMES[other].split() for other in NAMES) else 2.0
        elif any(
            # Compounds: Lieferbezirk is a Bezirk; where words are not parted, two signs are one.
            len(word) >= (4 if word.isascii() else 2)
            and (content[-1].endswith(word) or content[0].startswith(word))
            for word in known
        ):
            score = 1.0
        if score and words != content:
            # Numbers tell people apart, names tell dishes.
            number = bool(_NUMBERS & set(words))
            score += 0.5 if number == (role == "customer") else -0.25
        if role == "time" and score and not _is_time(table, name):
            continue
        if role == "returned" and score and not _says_yes_or_no(table, name):
            continue
        if score > best:
            best, found = score, name
    return found


def _says_yes_or_no(table: Table, name: str) -> bool:
    column = _column(table, name)
    if column is None or column.kind != "text":
        return column is not None
    return all(word.strip().casefold() in YES | NO or not word.strip() for word in column.words)


def _column(table: Table, name: str) -> Column | None:
    try:
        return local(table, name)
    except TypeError:
        return None


def _reading(table: Table, name: str) -> tuple[Reading, list[Guess]]:
    column = _column(table, name)
    if column is None:
        raise UserError(
            f"{table.source}: the column {name!r} holds lists or structures; expected plain values"
        )
    return find_reading(column, None, name, table.how)


def _is_time(table: Table, name: str, *kinds: str) -> bool:
    """Whether a column holds dates, times of day, or numbers since 1970 (or of some of these kinds)."""
    column = _column(table, name)
    if column is None:
        return False
    reading, _ = find_reading(column, None, name, table.how)
    return reading.kind in ("date", "time") or (
        reading.kind == "number" and _unit(table, name, reading) is not None
    )


def _unit(table: Table, name: str, reading: Reading) -> float | None:
    """Units in a second, where numbers are times since 1970 (from 1990 on); None where they are none."""
    from pipeline.data.tables.reading import read_as

    column = read_as(local(table, name), reading, name, strict=False)
    known = column.values[~np.isnan(column.values)]
    if not len(known):
        return None
    middle = float(np.median(known))
    return next((unit for unit in (1.0, 1e3, 1e6, 1e9) if 6.3e8 <= middle / unit <= 4.2e9), None)


def _by_content(table: Table, chosen: dict[str, tuple[str, ...]], free: list[str]) -> list[Guess]:
    """Roles that no name told: a column of dates is when, of names the one with most different ones is who."""
    guesses = []
    if "time" not in chosen:
        dated = [name for name in free if _is_time(table, name, "date")] or [
            name for name in free if _is_time(table, name, "number")
        ]
        if dated:
            name = max(dated, key=lambda one: len(np.unique(local(table, one).values)))
            chosen["time"] = (name,)
            free.remove(name)
            guesses.append(_said("time", (name,), "since it holds dates or times", len(dated) > 1))
    wanted = [role for role in NEEDED if role not in chosen]
    if not wanted:
        return guesses
    names = {name: size for name in free if (size := _names_in(table, name))}
    for role in wanted:
        if len(names) < len([one for one in NEEDED if one not in chosen]):
            break
        # More people than dishes, more dishes than parts of a town.
        name = max(names, key=lambda one: (names[one], one))
        del names[name]
        chosen[role] = (name,)
        free.remove(name)
        why = "as no name says so and it has the most different values that occur again"
        guesses.append(_said(role, (name,), why, True))
    return guesses


def _names_in(table: Table, name: str) -> int:
    """Number of different values of a column that may be names; 0 where it may not."""
    column = _column(table, name)
    if column is None or column.kind == "date" or (column.kind == "number" and not column.whole):
        return 0
    reading, _ = find_reading(column, None, name, table.how)
    if reading.kind in ("date", "time", "truth"):
        return 0
    if reading.kind == "number" and (
        column.kind == "text" and any("." in word or "," in word for word in column.words)
    ):
        return 0
    text = column.as_text()
    known = text.values[text.values >= 0]
    distinct = len(np.unique(known))
    return distinct if 2 <= distinct <= 0.9 * len(known) else 0


def _clock_beside(
    table: Table, chosen: dict[str, tuple[str, ...]], free: list[str], asked: Asked
) -> list[Guess]:
    """A column with the time of day beside one with the date alone, or the other way round."""
    if asked.time or len(chosen.get("time", ())) != 1:
        return []
    (name,) = chosen["time"]
    reading, _ = _reading(table, name)
    wanted = "time" if reading.kind == "date" and not _has_clock(table, name, reading) else None
    wanted = "date" if reading.kind == "time" else wanted
    beside = [
        one
        for one in free
        if wanted and _column(table, one) is not None and _reading(table, one)[0].kind == wanted
    ]
    if not beside:
        return []
    pair = (name, beside[0]) if wanted == "time" else (beside[0], name)
    chosen["time"] = pair
    free.remove(beside[0])
    return [
        Guess(
            f"{pair[0]!r} and {pair[1]!r} together say when",
            typed("data.time", [name]),
            False,
            pair,
            "takes one",
        )
    ]


def _has_clock(table: Table, name: str, reading: Reading) -> bool:
    from pipeline.data.tables.reading import read_as

    values = read_as(local(table, name), reading, name, strict=False).values
    return bool((values[~np.isnan(values)] % DAY != 0).any())


def _understood(
    table: Table, chosen: dict[str, tuple[str, ...]], guesses: list[Guess], asked: Asked
) -> tuple[Layout, list[Guess]]:
    readings: dict[str, Reading] = {}
    for role in ("customer", "area", "item"):
        for name in chosen.get(role, ()):
            column = _column(table, name)
            if column is None:
                raise UserError(
                    f"data.{role}={name}: {table.source} holds lists or structures there, not names"
                )
            reading, about = find_reading(column, None, name, table.how, categorical=True)
            readings[name] = replace(reading, folds=True)
            guesses += [guess for guess in about if "spellings" in guess.what]
    unit, clock = 1.0, False
    for name in chosen.get("time", ()):
        reading, about = _reading(table, name)
        if reading.kind == "number":
            found = _unit(table, name, reading)
            if found is None:
                raise _no_time(table, name)
            unit, clock = found, True
            guesses.append(Guess(f"{name!r} holds times as numbers since 1970", columns=(name,)))
        elif reading.kind == "date":
            clock = clock or _has_clock(table, name, reading)
        elif reading.kind == "time":
            clock = True
        elif _column(table, name).missing.all():  # type: ignore[union-attr]
            reading = Reading("date")
        else:
            raise _no_time(table, name)
        readings[name] = reading
        # How dates are written is told, but not the key by which a table would keep words.
        guesses += [replace(guess, key="", effect=guess.effect if not guess.key else "") for guess in about]
    kinds = [readings[name].kind for name in chosen.get("time", ())]
    if kinds and "date" not in kinds and "number" not in kinds:
        (name, *_) = chosen["time"]
        raise UserError(
            f"data.time={name}: {table.source} holds times of day there, without a date; name the column with the date "
            f"as well: data.time=[DATE,{name}]"
        )
    if len(kinds) > 1 and sorted(kinds) != ["date", "time"]:
        raise UserError(
            f"data.time={list(chosen['time'])}: expected one column, or one with the date and one with the time of day"
        )
    if kinds and not clock:
        guesses.append(Guess("the times have no hours: orders are told apart by the day of the week alone"))
    layout = Layout(
        chosen["customer"][0],
        chosen["item"],
        chosen["area"][0] if "area" in chosen else None,
        chosen.get("time", ()),
        chosen["returned"][0] if "returned" in chosen else None,
        readings,
        unit,
        clock,
    )
    for role, what in (
        ("time", "orders are taken to be in the order of the file"),
        ("area", "all are taken alike"),
    ):
        if role not in chosen:
            guesses.append(
                Guess(
                    f"no column says {'when' if role == 'time' else 'where'}: {what}",
                    f"data.{role}=COLUMN",
                    True,
                )
            )
    return layout, guesses


def _no_time(table: Table, name: str) -> UserError:
    column = local(table, name)
    shown = column.as_text()
    examples = listed(list(shown.words)[:3])
    return UserError(
        f"data.time={name}: {table.source} holds {examples} there; expected dates and times like 2024-03-01 18:30 or "
        "01.03.2024 18:30"
    )
