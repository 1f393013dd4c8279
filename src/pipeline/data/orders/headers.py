"""What the names of columns say in tables of orders: who, what, where, when, what came back."""

from __future__ import annotations

import re

from pipeline.data.core.letters import without_accents

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
# Names that may be those of items, where another column says who ordered; the first one first.
_PERHAPS = (
    "description beschreibung bezeichnung descripcion descrizione descricao name nom nome nombre title titel titulo "
    "titre titolo stockcode"
)
PERHAPS = tuple(_PERHAPS.split())
_AMOUNTS = (
    "price amount quantity qty rating ratings count total sum cost discount preis menge anzahl betrag summe bewertung "
    "precio cantidad importe prix quantite montant prezzo quantita importo preco quantidade status"
)
AMOUNTS = frozenset(_AMOUNTS.split())
_ORDERS = (
    "order invoice bestell auftrag rechnung transaction transaktion receipt commande facture pedido factura ordine "
    "fattura"
)
STATES = ("status", "state", "statut", "estado", "stato", "zustand")
# Words beside which numbers in a column may be seconds since 1970.
MOMENTS = frozenset({"at", "on", "ts", "epoch", "unix", "utc"})


def plain_words(header: str) -> list[str]:
    """The words of a column's name, in lower case and without accents: ``Order_Time`` is order, time."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", header)
    return re.findall(r"[^\W_]+", without_accents(parted.casefold()))


def score(role: str, name: str) -> float:
    """How well a column's name says that it is what is looked for; 0 where it does not."""
    known = [" ".join(plain_words(word)) for word in NAMES[role].split()]
    words = plain_words(name)
    content = [word for word in words if word not in _IDS] or words
    if not content:
        return 0.0
    if role in ("customer", "item", "area"):
        # The number of an order is no item, but the number of an order's customer is a customer.
        numbered = is_order_number(words) and (role == "item" or content[-1] not in known)
        if numbered or is_amount(words):
            return 0.0
    # "customer area" is an area: the last word says what it is. (But "return date" is of a return.)
    others = [other for other in NAMES if other != role and (role, other) != ("returned", "time")]
    last = content[-1] not in known and any(content[-1] in NAMES[other].split() for other in others)
    score = 0.0
    if "".join(content) in known:
        score = 4.0
    elif content[-1] in known:
        score = 3.0
    elif any(word in known for word in content):
        score = 0.0 if last else 2.0
    elif any(
        # Compounds: Lieferbezirk is a Bezirk; where words are not parted, two signs are one.
        len(word) >= (4 if word.isascii() else 2)
        and (content[-1].endswith(word) or content[0].startswith(word))
        for word in known
    ):
        score = 0.0 if last else 1.0
    if score and words != content:
        # Numbers tell people apart, names tell dishes.
        number = bool(_NUMBERS & set(words))
        score += 0.5 if number == (role == "customer") else -0.25
    return score


def is_order_number(words: list[str]) -> bool:
    """Whether a column's name is that of the numbers of orders: ``order_id``, ``InvoiceNo``, ``Bestellnummer``."""
    numbered = _NUMBERS & set(words) or words[-1].endswith(tuple(_NUMBERS))
    return bool(numbered) and any(word.startswith(tuple(_ORDERS.split())) for word in words)


def is_amount(words: list[str]) -> bool:
    """Whether a column's name is that of prices, quantities, ratings and the like."""
    return bool(AMOUNTS & set(words)) or words[-1].endswith(("price", "preis", "menge", "quantity", "status"))
