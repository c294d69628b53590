"""Reads package sizes and multipacks into canonical units.

Belongs here: notations of amounts. Amounts that are no package size (strengths such as `200 mg`, nutrition such as
`7 g protein`, ranges, width x height) are recognised in order to be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from sid_pipeline.cleaning.model import Size, SizeUnit
from sid_pipeline.cleaning.text import lowered, word_set

# Factor to the canonical unit. US customary measures: the pint is 473 ml, the gallon 3,785 ml.
_MEASURES: dict[str, tuple[SizeUnit, float]] = {}
for _names, _unit, _factor in [
    ("g gm gms gr grm grms gram grams gramm gramme grammes", "g", 1.0),
    ("kg kgs kilo kilos kilogram kilograms", "g", 1000.0),
    ("oz ounce ounces ozs onz", "g", 28.349523125),
    ("lb lbs pound pounds", "g", 453.59237),
    ("ml mls millilitre millilitres milliliter milliliters cc", "ml", 1.0),
    ("cl", "ml", 10.0),
    ("dl", "ml", 100.0),
    ("l lt ltr ltrs liter liters litre litres", "ml", 1000.0),
    ("floz fluidounce fluidounces", "ml", 29.5735295625),
    ("pt pint pints", "ml", 473.176473),
    ("qt quart quarts", "ml", 946.352946),
    ("gal gallon gallons", "ml", 3785.411784),
    ("mm", "cm", 0.1),
    ("cm cms centimetre centimetres centimeter centimeters", "cm", 1.0),
    ("m mtr mtrs metre metres meter meters", "cm", 100.0),
    ("inch inches \"", "cm", 2.54),
    ("ft feet foot", "cm", 30.48),
    ("yd yds yard yards", "cm", 91.44),
]:  # fmt: skip
    for _name in _names.split():
        _MEASURES[_name] = (_unit, _factor)  # type: ignore[assignment]

# Pieces that together make up the stated mass or volume: `24 tea bags 48 g` holds 48 g.
_PIECES = word_set(
    "ct cnt count counts pc pcs piece pieces each ea unit units nos tablet tablets tabs tab capsule "
    "capsules caps softgel "
    "softgels gummies caplets lozenges sheet sheets roll rolls wipe wipes sachet sachets slice slices pad "
    "pads load "
    "loads wash washes stick sticks pods eggs egg pairs pair candles pkg pods tampons diapers nappies "
    "refills towels "
    "swabs patches filters cubes balls"
)
# Packages that each hold the stated mass or volume: `4 cans 400 g` holds 4 x 400 g.
_PACKAGES = word_set(
    "pack packs pk pks pkt pkts packet packets can cans bottle bottles pouch pouches carton cartons jar "
    "jars tin tins "
    "box boxes cups pot pots tub tubs tube tubes"
)
_BAGS = ("tea bags", "teabags", "bags", "bag")

_NUMBER_WORDS = {
    "half": 0.5, "one": 1, "single": 1, "two": 2, "twin": 2, "double": 2, "duo": 2, "three": 3, "triple": 3,
    "trio": 3,
    "four": 4, "quad": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12,
}  # fmt: skip

_NUMBER = r"\d+ \d/\d{1,2}|\d/\d{1,2}|\d{1,3}(?:[,.]\d{3})+(?![\d,.]\d)|\d+[.,]\d+|\d+|\.\d+"
_MEASURE = (
    r"kilograms?|kilos?|kgs?|grammes?|grams?|gramm|grms?|gms?|gr|g|"
    r"fl(?:uid)?\.?[ -]?(?:oz|ounces?)|floz|ounces?|ozs?|onz|pounds?|lbs?|"
    r"millilit(?:er|re)s?|mls?|cc|cl|dl|lit(?:er|re)s?|ltrs?|lt|l|pints?|pt|quarts?|qt|gallons?|gal|"
    r"centimet(?:er|re)s?|cms?|mm|met(?:er|re)s?|mtrs?|m(?!\+)|yards?|yds?|inch(?:es)?|feet|foot|ft"
)
_COUNT = "|".join(
    sorted((re.escape(name) for name in (*_PIECES, *_PACKAGES, *_BAGS)), key=lambda name: (-len(name), name))
)
_BEFORE = r"(?<![\w.,/$£€#\"])(?<!\d:)(?<!in-)"  # no part of a longer number, a price, a scale

_QUANTITY = re.compile(
    _BEFORE
    + rf"(?:"
    # pack of 6, box of 24, set of 3, 2 dozen, dozen
    rf"(?P<of>(?:pack|box|case|set|bundle|carton|pkt|tray|bag|multipack)s?[ -]of[ -](?P<of_n>\d+|"
    rf"{'|'.join(_NUMBER_WORDS)}))(?!\w| ?[x*] ?\d)"
    rf"|(?:(?P<dozen_n>\d+|half a|half)[ -]?)?(?P<dozen>dozen)(?!\w)"
    rf"|(?P<word>{'|'.join(_NUMBER_WORDS)})[ -](?P<word_unit>packs?|pk)(?!\w)"
    rf"|(?P<half>half)[ -](?P<half_unit>gallon|gal|pound|lb|pint|kilo|litre|liter)(?!\w)"
    # 6 x 330 ml, 6x330ml, 6 x 4 x 100 g, 12/330ml
    rf"|(?:(?P<outer>\d{{1,2}}) ?[x*] ?)?(?P<times>\d{{1,3}})(?: ?(?:{_COUNT}))? ?(?:[x*]|/(?=\d{{3}}|"
    rf"\d+\.)) ?"
    rf"(?P<times_n>{_NUMBER})[ -]?(?P<times_unit>{_MEASURE}|\"|{_COUNT})(?![\w%])\.?"
    # 12 - 12 fl oz cans, 4-3.5 oz cups: no ascending range, so a number of packages
    rf"|(?P<dash>\d{{1,2}}) ?- ?(?P<dash_n>{_NUMBER})[ -]?(?P<dash_unit>fl\.? ?oz|oz|ml|g)\b\.?"
    # 330 ml x 6
    rf"|(?P<each_n>{_NUMBER})[ -]?(?P<each_unit>{_MEASURE}) ?[x*] ?(?P<each>\d{{1,3}})(?: ?(?:{_COUNT}))?"
    rf"(?!\w)(?! ?(?:{_MEASURE})\b)"
    # 1 lb 4 oz
    rf"|(?P<lb>\d+)[ -]?lbs?\.?,? (?P<lb_oz>\d+(?:\.\d+)?)[ -]?oz\.?(?!\w)"
    # 500 g, 1,5 L, 12 oz, 4pk, 12 ct
    rf"|(?P<n>{_NUMBER})[ -]?(?P<unit>{_MEASURE}|\"|{_COUNT})(?![\w%])(?!'\w|/m|\+(?![ a-z\d]))\.?"
    rf"|(?P<packs>\d{{1,3}}) (?:packs?|boxes|bags|sets) of (?P<packs_of>\d{{1,3}})(?!\w)"
    rf"|^(?P<single>each)$"
    rf"|qty\.?:? ?(?P<qty>\d{{1,3}})(?!\w)"
    rf"|(?<!\d )[x*] ?(?P<x_n>\d{{1,3}})(?!\w|[.,-]\w)"
    rf")",
)  # fmt: skip

_RANGE = re.compile(
    _BEFORE + rf"(?:{_NUMBER}) ?(?:{_MEASURE}|{_COUNT})? ?(?:-|to|~) ?(?:{_NUMBER}) ?(?:{_MEASURE}|{_COUNT})(?!\w)",
)
_LENGTHS = r"cms?|mm|m|yards?|yds?|inch(?:es)?|in\.?|ft|feet|px|pixels?|dpi|\"|'"
_DIMENSIONS = re.compile(
    _BEFORE + rf"(?:{_NUMBER}) ?(?:{_LENGTHS})? ?[x*] ?(?:{_NUMBER})(?: ?(?:{_LENGTHS})?"
    rf" ?[x*] ?(?:{_NUMBER}))?[ -]?(?:{_LENGTHS})(?!\w)",
)  # fmt: skip
# Masses and volumes that are no package size.
_STRENGTH = re.compile(
    _BEFORE + rf"(?:{_NUMBER}) ?-?(?:mg|mcg|µg|μg|iu|mah|gb|tb|mb|kb|ghz|mhz|hz|w|kw|v|watts?|volts?|dpi|"
        rf"rpm|mbit/s|gbit/s)(?!\w)"
    rf"|(?:{_NUMBER}) ?g (?:of )?(?:whey |net |plant |total |added |dietary |trans |saturated )?(?:protein|"
    rf"carbs?|carbohydrates?|fat|sugars?|fib(?:er|re)|salt)\b"
    rf"|(?:{_NUMBER}) ?(?:g|ml|mg|kcal|cal|calories) ?(?:per|/) ?(?:serving|100|portion|day|piece|bar|"
    rf"unit)\b",
)  # fmt: skip


# What something holds, or how thick it is.
_NOT_SOLD_BY = re.compile(
    rf"\b(?:up to|less than|more than|under|over|above|below|get|save) (?:{_NUMBER})[ -]?(?:{_MEASURE}|{_COUNT})?(?!\w)"
    rf"|{_BEFORE}(?:{_NUMBER}) ?(?:{_MEASURE}) (?:extra|free|off)\b"
    r"|\b(?:stage|size|omega|no\.?|number|level|step|model|type|series|part|vol|volume|ages?|aged|grade|version|season|"
    r"class)[ -]?\d{1,4}(?!\w)"
    rf"|{_BEFORE}\d(?:\.\d)? ?mm(?= (?:thick|hard|gauge|deep|aluminium|aluminum|steel|stainless|iron|wood|glass)\b)",
)

# Pattern, signs without which it cannot match, and why an amount it takes is no size.
_NO_SIZES = (
    (_NOT_SOLD_BY, ("",), None),
    (_STRENGTH, ("",), None),
    (_DIMENSIONS, ("x", "*"), None),
    (_RANGE, ("-", "to", "~"), "a range, not one amount"),
)


@dataclass(frozen=True)
class SizeReading:
    """What was read from one text: the size, the spans that are amounts of any kind, and why there is no size."""

    size: Size | None
    spans: tuple[tuple[int, int], ...]
    problem: str | None = None


@dataclass(frozen=True)
class _Quantity:
    amount: float
    unit: SizeUnit
    count: int
    package: bool = False
    bare: bool = False
    ounces: bool = False


@lru_cache(maxsize=4096)
def read_size(text: str) -> SizeReading:
    """Reads the package size in a normalised text such as a title or a size field.

    One measure (g or ml) and at most one number of packages give the size. Mass and volume outrank pieces, pieces
    outrank lengths. Equal amounts in two systems (`12 oz (340 g)`) are one, the metric one; different amounts of the
    same dimension (a bundle, a range) give no size and a `problem`.
    """
    if not _HAS_AMOUNT.search(text):
        return SizeReading(None, ())
    spans: list[tuple[int, int]] = []
    problem: str | None = None
    # `2.4G` and `6G` are a band and a shade, `500G` and `5g` are grams.
    masked = lowered(_SHADE.sub(lambda match: "\x00" * len(match.group()), text) if "G" in text else text)
    for pattern, signs, reason in _NO_SIZES:
        if not any(sign in masked for sign in signs):
            continue
        for match in pattern.finditer(masked):
            if pattern is _RANGE and not _is_range(match.group()):
                continue
            spans.append(match.span())
            masked = masked[: match.start()] + "\x00" * (match.end() - match.start()) + masked[match.end() :]
            problem = problem or reason
    found: list[_Quantity] = []
    for match in _QUANTITY.finditer(masked):
        quantity = _quantity(match)
        if quantity is not None:
            found.append(quantity)
            spans.append(match.span())
    size, conflict = _combine(found)
    if size is not None and _is_bundle(masked, spans):
        size, conflict = None, "several products in one"
    elif size is not None and size.unit == "cm" and _SCALE.search(masked):
        size, conflict = None, "a length of the original of a scale model"
    return SizeReading(size, tuple(sorted(spans)), None if size else conflict or problem)


def _is_bundle(text: str, spans: list[tuple[int, int]]) -> bool:
    """True for `Wash 200 ml + Shampoo 200 ml`, `Pads 50 pcs + Liners`, `Oil + Lotion (100 ml each)`.

    Not for `Calcium + Vitamin D 60 tablets`: one plus before all amounts joins what is in one product.
    """
    last = max((start for start, _ in spans), default=0)
    for joint in _PLUS.finditer(text):
        before = any(end <= joint.start() for _, end in spans)
        if before and (joint.group()[-1].isalpha() or last > joint.start()):
            return True
        if joint.group()[-1].isdigit() and any(start == joint.end() - 1 for start, _ in spans):
            return True
    return len(_PLUS.findall(text)) > 1 or ("+" in text and _EACH.search(text) is not None) or _two_counts(text)


def _two_counts(text: str) -> bool:
    """True for `6 ct beef & 6 ct chicken`."""
    return "&" in text and _TWO_COUNTS.search(text) is not None


_PLUS = re.compile(r"\+ *[a-z\d]")
_EACH = re.compile(r"\(each\b|\beach\)")
_TWO_COUNTS = re.compile(r"\b\d+ ?(?:ct|pcs?|count)\b[^&]*& ?\d+ ?(?:ct|pcs?|count)\b")
_SHADE = re.compile(r"(?<![\d.,])\d(?:\.\d)?G\b")
_SCALE = re.compile(r"(?<![\d.])1[:/]\d{2,3}(?!\d)")
_HAS_AMOUNT = re.compile(
    r"(?i)\d|^each$|\bhalf\b|\bdozen\b|\b(?:twin|single|double|duo|triple|two|three|four|six|eight)[ -]pack"
)
_RANGE_PARTS = re.compile(rf"({_NUMBER}).*?(?:-|to|~) ?({_NUMBER})")


def _is_range(text: str) -> bool:
    """True for `480-500 g`; false for `6-12 oz` written for a six-pack, where the units differ in kind."""
    parts = _RANGE_PARTS.match(text)
    return parts is not None and _number(parts[1], "g") < _number(parts[2], "g")


def _number(digits: str, unit: str) -> float:
    """The value of a written number. A comma or dot before three digits is read by what the unit makes plausible."""
    if "/" in digits:
        whole, _, fraction = digits.rpartition(" ")
        numerator, denominator = fraction.split("/")
        return float(whole or 0) + (float(numerator) / float(denominator) if float(denominator) else 0.0)
    grouped = re.fullmatch(r"(\d{1,3})((?:[,.]\d{3})+)", digits)
    if grouped:
        small_unit = unit.lower() in _SMALL_UNITS
        if digits[0] != "0" and (small_unit or len(grouped[2]) > 4 or unit.lower() in _PIECES):
            return float(digits.replace(",", "").replace(".", ""))
    return float(digits.replace(",", "."))


_SMALL_UNITS = word_set("g gm gms gr gram grams ml mls mm")


def _unit_key(unit: str) -> str:
    key = unit.lower().rstrip(".")
    if key.startswith("fl"):
        return "floz"
    return key


def _measure(amount: float, unit: str, count: int = 1) -> _Quantity | None:
    key = _unit_key(unit)
    if key in _MEASURES:
        canonical, factor = _MEASURES[key]
        value = round(amount * factor, 2)
        if canonical == "cm" and (value < 0.15 or (key == '"' and amount >= 200)):
            return None  # a pen's tip; a closing quotation mark
        if not (0 < value < 1e6 and 0 < count < 1000):
            return None
        return _Quantity(value, canonical, count, ounces=key in ("oz", "ozs", "onz", "ounce", "ounces"))
    if key in ("cup", "cups"):
        return None  # what a bowl holds
    # In this order: a number of hundreds of digits is infinite, and no infinity is a whole number.
    if not 0 < amount < (1_000 if key in _PACKAGES else 100_000) or amount != int(amount):
        return None
    return _Quantity(float(amount), "count", count, package=key in _PACKAGES)


def _quantity(match: re.Match[str]) -> _Quantity | None:
    part = match.group
    if part("of"):
        word = part("of_n").lower()
        return _measure(_NUMBER_WORDS.get(word) or float(word), "pack")
    if part("dozen"):
        word = (part("dozen_n") or "1").lower()
        return _measure(6.0 if word.startswith("half") else 12.0 * float(word), "ct")
    if part("word"):
        return _measure(_NUMBER_WORDS[part("word").lower()], "pack")
    if part("half"):
        return _measure(0.5, part("half_unit"))
    if part("packs"):
        return _measure(float(part("packs_of")), "ct", int(part("packs")))
    if part("times"):
        if "/" in match.group().split(part("times_n"))[0] and part("times") == "1":
            return None  # 1/2.3": a camera's sensor
        count = int(part("times")) * int(part("outer") or 1)
        return _measure(_number(part("times_n"), part("times_unit")), part("times_unit"), count)
    if part("dash"):
        return _measure(_number(part("dash_n"), part("dash_unit")), part("dash_unit"), int(part("dash")))
    if part("each_n"):
        return _measure(_number(part("each_n"), part("each_unit")), part("each_unit"), int(part("each")))
    if part("lb"):
        return _measure(float(part("lb")) * 16 + float(part("lb_oz")), "oz")
    if part("single"):
        return _measure(1.0, "ct")
    if part("qty"):
        return _measure(float(part("qty")), "pack")
    if part("x_n"):
        count = int(part("x_n"))
        return _Quantity(float(count), "count", 1, package=True, bare=True) if count > 0 else None
    if len(part("unit")) == 1 and part("unit") != '"' and "-" in match.group():
        return None  # 12131-G is an article number
    return _measure(_number(part("n"), part("unit")), part("unit"))


def _combine(found: list[_Quantity]) -> tuple[Size | None, str | None]:
    """One size out of all amounts of a text, or the reason why there is none."""
    for unit in ("g", "ml"):
        measures = [quantity for quantity in found if quantity.unit == unit]
        if not measures or (unit == "g" and _are_fluid_ounces(measures, found)):
            continue
        best = measures[0]
        for other in measures[1:]:
            if not _equivalent(best, other):
                return None, "several different amounts"
            # The rounder of two equivalent amounts is the one that was printed first in its system.
            if best.amount != round(best.amount) and other.amount == round(other.amount):
                best = other if other.count >= best.count else best
        packages = {int(q.amount) for q in found if q.unit == "count" and q.package}
        if best.count == 1 and len(packages) == 1:
            return Size(amount=best.amount, unit=best.unit, count=packages.pop()), None
        return Size(amount=best.amount, unit=best.unit, count=best.count), None
    pieces = [quantity for quantity in found if quantity.unit == "count" and not quantity.bare]
    inner = [quantity for quantity in pieces if not quantity.package]
    outer = [quantity for quantity in pieces if quantity.package]
    if inner:
        if len({quantity.amount for quantity in inner}) > 1:
            return None, "several different amounts"
        count = int(outer[0].amount) if outer and inner[0].count == 1 else inner[0].count
        if outer and outer[0].amount == inner[0].amount:
            count = 1  # `20 pk, 20 pieces`: said twice
        return Size(amount=inner[0].amount, unit="count", count=count), None
    if outer:
        return Size(amount=outer[0].amount, unit="count", count=outer[0].count), None
    bare = [quantity for quantity in found if quantity.bare]
    if len(bare) == 1 and all(quantity.bare or quantity.unit == "cm" for quantity in found):
        return Size(amount=bare[0].amount, unit="count", count=1), None
    lengths = {quantity.amount: quantity for quantity in found if quantity.unit == "cm"}
    if len(lengths) == 1:
        length = next(iter(lengths.values()))
        return Size(amount=length.amount, unit="cm", count=length.count), None
    if lengths:
        longest = max(lengths.values(), key=lambda quantity: quantity.amount)
        if all(q is longest or q.amount * 20 <= longest.amount for q in lengths.values()):
            return Size(amount=longest.amount, unit="cm", count=longest.count), None  # the others: how thick it is
        first, *others = lengths.values()
        if all(_equivalent(first, other) for other in others):
            return Size(amount=first.amount, unit="cm", count=first.count), None
        return None, "several different amounts"
    return None, None


def _are_fluid_ounces(masses: list[_Quantity], found: list[_Quantity]) -> bool:
    """True for `12 oz (355 ml)`: the ounces were fluid ones."""
    return all(mass.ounces for mass in masses) and any(quantity.unit == "ml" for quantity in found)


def _equivalent(one: _Quantity, other: _Quantity) -> bool:
    """The same amount in two systems, or the whole of a multipack beside its part."""
    pairs = (
        (one.amount, other.amount),
        (one.amount * one.count, other.amount),
        (one.amount, other.amount * other.count),
    )
    return any(abs(a - b) <= 0.04 * max(a, b) for a, b in pairs)
