"""How a shop writes a product down: sizes in many notations, titles in house styles, descriptions.

Everything here turns known facts into text and makes no decision about which products exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.vocabulary import Brand, Leaf, Vocabulary

_DASH = "\u2013"
_TIMES = "\u00d7"
TITLE_STYLES = ("brand first", "name first", "lower case", "by brand", "no brand", "capital brand", "foreign")
DESCRIPTION_STYLES = ("html", "plain", "bullets", "story only", "facts only", "empty")

# Tags that a shop would print in a title; the others appear in descriptions only.
_TITLE_TAGS = frozenset(
    (
        *("organic", "vegan", "recycled", "biodegradable", "fairtrade", "hypoallergenic", "gluten free"),
        *("lactose free", "no added sugar", "fragrance free", "grain free", "high protein", "free range"),
    )
)
_AFTER_TYPE = re.compile(r"^(with|in|for|from|aged|size|stage|no\.|spf|e\d|a\d|\d|decaf|loose)", re.IGNORECASE)
_SMALL_WORDS = frozenset(
    (
        "a",
        "and",
        "au",
        "aux",
        "de",
        "du",
        "en",
        "for",
        "in",
        "la",
        "le",
        "of",
        "on",
        "or",
        "the",
        "to",
        "with",
        "without",
        "w/",
    )
)
_SHORTHAND = (
    ("gluten free", "GF"),
    ("organic", "org."),
    ("with ", "w/ "),
    (" & ", " and "),
    ("chocolate", "choc"),
    ("large", "lge"),
    ("original", "orig."),
)
_INGREDIENTS_LABEL = {
    "fr": "Ingrédients : ",
    "de": "Zutaten: ",
    "it": "Ingredienti: ",
    "es": "Ingredientes: ",
    "pl": "Składniki: ",
    "pt": "Ingredientes: ",
    "sv": "Ingredienser: ",
}
_MATERIAL_SEGMENTS = frozenset(("kitchen", "office", "paper", "power"))
_PUFF_OF_SEGMENT = {
    **dict.fromkeys(("clean", "paper", "kitchen", "office", "power"), "home"),
    **dict.fromkeys(("hair", "body", "health"), "body"),
    **dict.fromkeys(("pet", "cat"), "pet"),
    "baby": "baby",
}
_AUDIENCE_WORDS = frozenset(("adult", "active", "little", "delicate", "sensitive", "dry", "light"))
_UNPROCESSED = "fresh produce"  # an ingredient list would say nothing
_TAG_SENTENCES = {
    "organic": ("Certified organic.", "Organic.", "From controlled organic farming."),
    "vegan": ("Suitable for vegans.", "Vegan.", "100 % plant based, vegan."),
    "vegetarian": ("Suitable for vegetarians.", "Vegetarian."),
    "gluten free": ("Gluten free.", "Free from gluten.", "Suitable for coeliacs: gluten free."),
    "lactose free": ("Lactose free.", "Free from lactose."),
    "no added sugar": ("No added sugar.", "Contains only naturally occurring sugars: no added sugar."),
    "high protein": ("High in protein.", "High protein."),
    "fairtrade": ("Fairtrade certified.", "Fairtrade."),
}


@dataclass(frozen=True)
class Size:
    """``count`` units of ``amount unit``: 6 x 330 ml is (6, "330", "ml"), 12 rolls is (12, "", "rolls")."""

    count: int
    amount: str
    unit: str

    @property
    def content(self) -> float:
        """A number that grows with the pack, for prices only."""
        scale = 1000.0 if self.unit in ("kg", "l") else 1.0
        return self.count * (float(self.amount) * scale if self.amount else 1.0)


def parse_pack(pack: str) -> Size:
    """Reads the vocabulary's notation: ``400g``, ``1.5l``, ``6x330ml``, ``12 rolls``, ``4x56 wipes``."""
    match = re.fullmatch(r"(?:(\d+)x)?([\d.]+) ?([A-Za-z]+)", pack)
    if not match:
        raise ValueError(f"pack {pack!r} is not like 400g, 6x330ml or 12 rolls")
    times, amount, unit = match.groups()
    if unit in ("g", "kg", "ml", "l"):
        return Size(int(times or 1), amount, unit)
    if times:
        return Size(int(times), amount, unit)
    return Size(int(amount), "", unit)


def _metric(amount: str, unit: str, draw: Draw) -> str:
    value = float(amount)
    forms = [f"{amount} {unit}", f"{amount}{unit}", f"{amount}{unit}"]
    if unit == "l":
        comma = amount.replace(".", ",")
        forms += [f"{amount} L", f"{comma} L", f"{round(value * 1000)} ml", f"{round(value * 100)} cl"]
    elif unit == "ml":
        forms += [f"{amount} mL", f"{round(value * 0.035195, 1)} fl oz"]
        if value % 10 == 0 and value >= 100:
            forms.append(f"{round(value / 10)} cl")
    elif unit == "kg":
        forms += [
            f"{amount.replace('.', ',')} kg",
            f"{round(value * 1000)} g",
            f"{round(value * 2.20462, 1)} lb",
        ]
    else:
        forms += [f"{amount} gr", f"{round(value / 28.3495, 1)} oz"]
        if value >= 500:
            forms.append(f"{value / 1000:g}".replace(".", ",") + " kg")
    return draw.choice(forms)


def write_size(size: Size, draw: Draw) -> str:
    """One of the notations shops use; empty for a single piece."""
    if not size.amount:
        if size.count == 1:
            return draw.choice(["", "", "1 pc", "each"])
        forms = [f"{size.count} {size.unit}", f"{size.count} {size.unit}"]
        if size.unit in ("pieces", "capsules", "bags", "rolls", "tablets", "eggs"):
            forms += [f"pack of {size.count}", f"{size.count} pack", f"x{size.count}"]
        return draw.choice(forms)
    if size.unit not in ("g", "kg", "ml", "l"):
        return draw.choice([f"{size.count} x {size.amount} {size.unit}", f"{size.count}x{size.amount} {size.unit}"])
    if size.count == 1:
        return _metric(size.amount, size.unit, draw)
    each = _metric(size.amount, size.unit, draw)
    return draw.choice(
        [
            f"{size.count} x {each}",
            f"{size.count}x{each}",
            f"{size.count} {_TIMES} {each}",
            f"pack of {size.count}, {each} each",
        ]
    )


def product_name(kind: str, variant: str) -> str:
    """Variant and type in their natural order: "Seeded bagels", "prosciutto Aged 12 Months"."""
    return f"{kind} {variant}" if _AFTER_TYPE.match(variant) else f"{variant} {kind}"


def _title_case(text: str) -> str:
    words = text.split(" ")
    return " ".join(
        word if i and word.lower() in _SMALL_WORDS else word[:1].upper() + word[1:] for i, word in enumerate(words)
    )


def _shorthand(text: str) -> str:
    for full, short in _SHORTHAND:
        text = re.sub(re.escape(full), short, text, flags=re.IGNORECASE)
    return text


def write_title(
    style: str,
    *,
    brand: Brand,
    leaf: Leaf,
    kind: str,
    variant: str,
    tags: tuple[str, ...],
    size: str,
    draw: Draw,
) -> str:
    """A title in one of ``TITLE_STYLES``; ``size`` is already written and may be left out of it."""
    plain_name = product_name(kind, variant)
    shown = [tag for tag in tags if tag in _TITLE_TAGS and tag not in plain_name.lower()]
    label = " ".join(tag.title() for tag in shown)
    name = _title_case(plain_name)
    tagged = f"{label} {name}".strip()
    tail = f", {size}" if size else ""
    if style == "name first":
        claim = f"({label.lower()})" if label else ""
        return " ".join(part for part in (name, size, claim, _DASH, brand.name) if part)
    if style == "lower case":
        return _shorthand(f"{brand.name} {tagged} {size}".strip()).lower()
    if style == "by brand":
        return f"{tagged} by {brand.name}{tail}"
    if style == "no brand":
        return f"{tagged}{tail}"
    if style == "capital brand":
        return f"{brand.name.upper()} {tagged} {size}".strip()
    if style == "foreign":
        foreign = dict(leaf.foreign).get(brand.language)
        if foreign:
            return f"{brand.name} {_title_case(foreign)} {_DASH} {tagged.lower()}{tail}"
    if draw.chance(0.3):
        return f"{brand.name} {label + ' ' if label else ''}{_title_case(kind)} {_title_case(variant)}{tail}"
    return f"{brand.name} {tagged}{tail}"


def write_ingredients(made: str, kind: str, variant: str, draw: Draw) -> str:
    """Fills ``{v}`` and settles each "a or b" for the product: what its type names, else one at random."""
    flavour = re.sub(r"^(with|in|stuffed with) ", "", variant, flags=re.IGNORECASE).lower().replace(" & ", ", ")
    parts = []
    for part in made.split(", "):
        options = part.split(" or ")
        named = [option for option in options if option.split()[-1].rstrip("s") in kind.lower()]
        parts.append((named or [draw.choice(options)])[0])
    return ", ".join(dict.fromkeys(", ".join(parts).replace("{v}", flavour).split(", ")))


def _tag_sentences(tags: tuple[str, ...], draw: Draw) -> list[str]:
    return [draw.choice(_TAG_SENTENCES.get(tag, (f"{tag[:1].upper()}{tag[1:]}.",))) for tag in tags]


def _use_sentence(use: str, edible: bool, draw: Draw) -> str:
    if use.split()[0] in _AUDIENCE_WORDS:
        return draw.choice(["For {}.", "Suitable for {}."]).format(use)
    openings = ["Perfect for {}.", "Ideal for {}.", "Great for {}.", "Good for {}."]
    return draw.choice([*openings, "Serving suggestion: {}."] if edible else openings).format(use)


@dataclass(frozen=True)
class Facts:
    """What a description may say about one product, sentence by sentence."""

    about: list[str]
    contents: str
    uses: list[str]
    tags: list[str]
    size: str
    storage: str


def write_facts(
    *,
    leaf: Leaf,
    brand: Brand,
    kind: str,
    variant: str,
    tags: tuple[str, ...],
    made: str,
    size: str,
    draw: Draw,
) -> Facts:
    label = "Material: " if leaf.segment in _MATERIAL_SEGMENTS else "Ingredients: "
    if brand.language in _INGREDIENTS_LABEL and label == "Ingredients: " and draw.chance(0.3):
        label = _INGREDIENTS_LABEL[brand.language]
    uses = draw.sample(leaf.uses, 1 + draw.below(2))
    opening = draw.choice(["{}.", "{}, {}.", "{}."]).format(product_name(kind, variant), leaf.name.lower())
    about = draw.sample(leaf.about, 1 + draw.below(2))
    contents = write_ingredients(made, kind, variant, draw)
    return Facts(
        about=([opening[:1].upper() + opening[1:]] if draw.chance(0.6) else []) + about,
        contents=f"{label}{contents}." if contents != _UNPROCESSED else "",
        uses=[_use_sentence(use, leaf.segment not in _PUFF_OF_SEGMENT, draw) for use in uses],
        tags=_tag_sentences(tags, draw),
        size=f"{draw.choice(['Pack size', 'Net content', 'Size'])}: {size}." if size and draw.chance(0.4) else "",
        storage=leaf.storage if draw.chance(0.45) else "",
    )


def write_marketing(vocabulary: Vocabulary, brand: Brand, leaf: Leaf, draw: Draw) -> list[str]:
    """The brand's story, praise that would fit any product, a line in the brand's language."""
    puff = vocabulary.marketing[_PUFF_OF_SEGMENT.get(leaf.segment, "food")]
    lines = list(brand.story[: 2 + draw.below(len(brand.story) - 1)]) + draw.sample(puff, 1 + draw.below(3))
    if brand.language in vocabulary.marketing and draw.chance(0.6):
        lines.insert(draw.below(len(lines) + 1), draw.choice(vocabulary.marketing[brand.language]))
    return lines


def write_description(style: str, marketing: list[str], facts: Facts, draw: Draw) -> str:
    """A description in one of ``DESCRIPTION_STYLES``: copy first as a rule, facts somewhere behind it."""
    sentences = [*facts.about, facts.contents, *facts.uses, *facts.tags, facts.size, facts.storage]
    sentences = [sentence for sentence in sentences if sentence]
    story = " ".join(marketing)
    if style == "empty":
        return ""
    if style == "facts only":
        return " ".join(sentences)
    if style == "story only":
        return story
    if style == "plain":
        half = len(marketing) // 2
        if draw.chance(0.5):
            return " ".join([*marketing[:half], *sentences, *marketing[half:]])
        return f"{story} {' '.join(sentences)}"
    if style == "bullets":
        return f"{story}\n" + "\n".join(f"• {sentence}" for sentence in sentences)
    lead = story.replace(marketing[0], f"<strong>{marketing[0]}</strong>", 1).replace(" & ", " &amp; ")
    body = " ".join(facts.about).replace(" & ", " &amp; ")
    rest = [s for s in sentences if s not in facts.about]
    items = "".join(f"<li>{s}</li>" for s in rest).replace(" & ", " &amp; ")
    return f"<p>{lead}</p><p>{body}</p><ul>{items}</ul>"
