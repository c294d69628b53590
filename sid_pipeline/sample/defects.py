"""Bad rows: what goes wrong in real catalogue files, planted in known numbers.

Every bad row is an extra row made from a product of its own, so that no good product is spoilt. *Reject*
means that the row can be no product; *mend* means that it is one after a repair a careful reader can make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.files import csv_line, encoded
from sid_pipeline.sample.products import Product

BASE_PRODUCTS = 5400  # the counts below belong to a catalogue of this size
BAD_ID_START = 900_001
_ONCE = frozenset(("unclosed_quote", "nul_in_title"))  # not scaled: one is enough to break a reader
_LONG_TITLES = (2_001, 2_500, 20_000, 200_000)
_CONTROL = ("\x07", "\x0b", "\x1b[31m", "\u2028", "\x0c", "\x85", "\x1f")


@dataclass(frozen=True)
class Kind:
    name: str
    action: str  # "reject" or "mend"
    count: int
    second_night: int
    what: str


KINDS = (
    Kind("empty_product_id", "reject", 12, 2, "the product_id is empty"),
    Kind(
        "duplicate_product_id",
        "reject",
        10,
        2,
        "the product_id of an earlier row, with other text (the first row wins)",
    ),
    Kind("repeated_row", "reject", 8, 0, "an earlier row once more, byte for byte"),
    Kind("empty_title", "reject", 8, 2, "the title is empty"),
    Kind("blank_title", "reject", 6, 0, "the title is made of spaces, tabs and no-break spaces"),
    Kind("title_too_long", "reject", 4, 0, "a title of 2,001 to 200,000 characters (the limit is 2,000)"),
    Kind("too_few_fields", "reject", 8, 2, "the row breaks off after two to five fields"),
    Kind("too_many_fields", "reject", 8, 0, "an unquoted comma in the title gives eight fields"),
    Kind("not_a_row", "reject", 3, 0, "a line of a server's error message"),
    Kind("unclosed_quote", "reject", 1, 0, "the last line of the file opens a quoted field and never closes it"),
    Kind("not_utf8", "reject", 8, 0, "the row is written in Windows-1252"),
    Kind("nul_in_title", "reject", 1, 0, "a NUL character in the title"),
    Kind("control_characters", "mend", 7, 0, "control characters or line separators in the title: left out"),
    Kind("price_not_a_number", "mend", 12, 0, "the price is 'abc', 'n/a', '1.2.3' or '€ 4,99'"),
    Kind("price_negative", "mend", 4, 0, "the price is negative"),
    Kind("padded_fields", "mend", 8, 0, "spaces around product_id and title: cut off"),
)


@dataclass(frozen=True)
class BadRow:
    kind: Kind
    line: bytes
    after: str = ""  # product_id of the row that it has to follow
    last: bool = False


def counts(products: int, *, second_night: bool = False) -> dict[str, int]:
    """How many rows of each kind a catalogue of this size gets: at least one of each that it has at all."""
    out = {}
    for kind in KINDS:
        base = kind.second_night if second_night else kind.count
        if kind.name in _ONCE:
            out[kind.name] = base
        else:
            out[kind.name] = max(1, round(base * products / BASE_PRODUCTS)) if base else 0
    return out


def _line(kind: str, row: list[str], number: int) -> bytes:
    product_id, title, *rest = row
    if kind == "empty_product_id":
        return encoded(["", title, *rest])
    if kind == "empty_title":
        return encoded([product_id, "", *rest])
    if kind == "blank_title":
        return encoded([product_id, (" ", "   ", "\t", "\u00a0 \u00a0")[number % 4], *rest])
    if kind == "title_too_long":
        length = _LONG_TITLES[number % len(_LONG_TITLES)]
        return encoded([product_id, (title + " ") * (length // len(title)) + title[: length % len(title)], *rest][:7])
    if kind == "too_few_fields":
        return encoded(row[: 2 + number % 4])
    if kind == "too_many_fields":
        words = title.replace(",", "").replace('"', "").split(" ")
        return f"{product_id},{words[0]},{csv_line([' '.join(words[1:]), *rest])}".encode()
    if kind == "not_a_row":
        return (
            b"504 Gateway Time-out\n",
            b"<html><head><title>Error</title></head></html>\n",
            b"-- 5400 rows --\n",
        )[number % 3]
    if kind == "unclosed_quote":
        return f'{product_id},"{title.replace(chr(34), "")},{rest[0]}\n'.encode()
    if kind in ("control_characters", "nul_in_title"):
        middle = len(title) // 2
        planted = "\x00" if kind == "nul_in_title" else _CONTROL[number % len(_CONTROL)]
        return encoded([product_id, title[:middle] + planted + title[middle:], *rest])
    if kind == "not_utf8":
        # The accents make sure that the bytes are no UTF-8; letters that Windows-1252 lacks are left out.
        return csv_line([product_id, f"{title}, spécialité", *rest]).encode("cp1252", errors="ignore")
    if kind == "price_not_a_number":
        return encoded([*row[:6], ("abc", "n/a", "1.2.3", "€ 4,99")[number % 4]])
    if kind == "price_negative":
        return encoded([*row[:6], f"-{row[6]}"])
    if kind == "padded_fields":
        return encoded([f"  {product_id} ", f" {title}   ", *rest])
    raise ValueError(f"no recipe for bad rows of kind {kind!r}")


def make(spare: Sequence[Product], good: Sequence[Product], stream: str, *, second_night: bool = False) -> list[BadRow]:
    """The bad rows of one night, one spare product each; duplicates take their id from a good product."""
    draw = Draw(stream)
    supply = iter(spare)
    victims = iter(draw.shuffled(good))
    out = []
    for kind in KINDS:
        for number in range(counts(len(good), second_night=second_night)[kind.name]):
            if kind.name == "duplicate_product_id":
                victim = next(victims)
                out.append(BadRow(kind, encoded([victim.product_id, *next(supply).row()[1:]]), after=victim.product_id))
            elif kind.name == "repeated_row":
                victim = next(victims)
                out.append(BadRow(kind, encoded(victim.row()), after=victim.product_id))
            else:
                line = _line(kind.name, next(supply).row(), number)
                out.append(BadRow(kind, line, last=kind.name == "unclosed_quote"))
    return out


def scattered(good: Sequence[Product], bad: Sequence[BadRow], stream: str) -> list[bytes]:
    """The file's lines: good rows in their order, bad rows anywhere among them."""
    draw = Draw(stream)
    position = {product.product_id: i for i, product in enumerate(good)}
    slots: dict[int, list[bytes]] = {}
    tail = []
    for row in bad:
        if row.last:
            tail.append(row.line)
            continue
        earliest = position[row.after] + 1 if row.after else 0
        slots.setdefault(earliest + draw.below(len(good) + 1 - earliest), []).append(row.line)
    lines: list[bytes] = []
    for i, product in enumerate(good):
        lines += slots.get(i, [])
        lines.append(encoded(product.row()))
    return lines + slots.get(len(good), []) + tail
