"""Invents the good products: families of flavours and sizes, second listings, missing and misleading text.

Each ``Product`` keeps what the generator knows about it (leaf, type, variant, tags, whose second listing it
is), from which relevance labels and tests are derived.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sid_pipeline.sample import wording
from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.vocabulary import Brand, Leaf, Vocabulary

HEADER = ("product_id", "title", "brand", "size", "description", "category", "price")
SEPARATOR = " > "
SECOND_LISTING_SHARE = 0.06
NO_CATEGORY_SHARE = 0.03
UNKNOWN_CATEGORY_SHARE = 0.003
BORROWED_DESCRIPTION_SHARE = 0.007
STUFFED_KEYWORDS_SHARE = 0.006
EMOJI_TITLE_SHARE = 0.004
QUOTES_AND_NEWLINES_SHARE = 0.004
PRODUCTS_PER_LEAF = 20  # a small catalogue has fewer leaves, not emptier ones
PRODUCT_ID_START = 100_001

UNKNOWN_CATEGORIES = (
    "Seasonal > Easter > Easter treats",
    "Promotions > Two for one",
    "Clearance > Short dated",
    "Pantry > Space food > Freeze dried meals",
)
_STUFFING = (
    "best cheap deal discount offer buy online free delivery gift idea sale",
    "organic vegan keto paleo healthy snack breakfast lunch dinner party gift bestseller",
    "top quality low price 2026 new hot trending must have original genuine",
)
_EMOJI = ("🌿", "😋", "🔥", "⭐", "🎉", "❤️", "🥇", "🌍")

_MEAT = re.compile(
    r"chicken|beef|pork|ham\b|bacon|lamb|turkey|duck|meat|fish|salmon|tuna|prawn|anchov|sardine|mackerel|scampi"
    r"|shellfish|pepperoni|salami|chorizo|gelatine|liver|suet|cod\b|haddock|oyster|oxtail|goose|sausage"
)
_ANIMAL = re.compile(
    r"milk|cream|butter|cheese|yogurt|egg|honey|whey|feta|ricotta|mascarpone|ghee|custard|toffee|parmesan"
)
_PLANT_PHRASES = re.compile(
    r"vegan [\w ]+|(oat|almond|soya|rice|cashew|hazelnut|coconut|plant|nut) (milk|cream|drink|butter)"
    r"|(cocoa|shea|peanut|almond|plant) butter|butter beans|cream soda|\w+ yogurt alternative|meat free"
    r"|creamed coconut|(cheddar|mozzarella|feta|gouda) style"
)
_GLUTEN = re.compile(r"wheat|barley|rye\b|spelt|semolina|bulgur|couscous|malt\b|breadcrumbs|bran\b")


@dataclass(frozen=True)
class Product:
    """A good product as it stands in the file, and what the generator knows about it."""

    leaf: Leaf
    kind: str
    variant: str
    tags: tuple[str, ...]
    family: str
    second_listing_of: tuple[str, str, str, wording.Size] | None
    pack: wording.Size
    brand: str
    title: str
    size: str
    description: str
    category: str
    price: str
    bullets: tuple[str, ...]  # facts without copy, for the relevance products
    product_id: str = ""
    oddity: str = ""  # how its text misleads or surprises, for the data set's README

    @property
    def key(self) -> tuple[str, str, str, wording.Size]:
        """Two listings of one product, and nothing else, share family, type, variant and pack."""
        return (self.family, self.kind, self.variant, self.pack)

    def row(self) -> list[str]:
        return [
            self.product_id,
            self.title,
            self.brand,
            self.size,
            self.description,
            self.category,
            self.price,
        ]


def contradicts(tag: str, kind: str, variant: str, made: str) -> bool:
    """Whether a dietary tag would be a lie for a product of this type, variant and ingredients."""
    text = _PLANT_PHRASES.sub(" ", f"{kind}, {variant}, {made}".lower())
    if tag == "gluten free":
        return bool(_GLUTEN.search(text)) and "gluten free" not in kind
    if tag == "vegetarian":
        return bool(_MEAT.search(text)) and "vegetarian" not in kind
    if tag == "vegan":
        return bool(_MEAT.search(text) or _ANIMAL.search(text))
    if tag == "no added sugar":
        return bool(re.search(r"sugar|syrup|frosted|golden|chocolate", text))
    if tag == "caffeine free":
        return "caffeine" in text
    return False


def used_leaves(vocabulary: Vocabulary, products: int, always: Sequence[str]) -> list[Leaf]:
    """The leaves that get products: all of them, or an even spread with ``always`` in a small catalogue."""
    leaves = vocabulary.leaves
    wanted = min(len(leaves), max(len(always), products // PRODUCTS_PER_LEAF, 1))
    if wanted == len(leaves):
        return list(leaves)
    chosen = {leaf.name for leaf in leaves if leaf.name in always}
    spread = [leaves[i * len(leaves) // wanted].name for i in range(wanted)]
    for name in spread:
        if len(chosen) < wanted:
            chosen.add(name)
    return [leaf for leaf in leaves if leaf.name in chosen]


def leaf_sizes(leaves: Sequence[Leaf], products: int, seed: int) -> list[int]:
    """How many products each leaf gets: uneven as in a real shop, and ``products`` in all."""
    draw = Draw(f"{seed}/leaf sizes")
    weights = [40 + int(200 * draw.uniform() ** 2) for _ in leaves]
    total = sum(weights)
    sizes = [products * weight // total for weight in weights]
    for i in range(products - sum(sizes)):
        sizes[i % len(sizes)] += 1
    return sizes


def _price(leaf: Leaf, family_position: float, pack: wording.Size, packs: Sequence[wording.Size]) -> str:
    low, high = leaf.price_cents
    contents = sorted(other.content for other in packs)
    step = contents.index(pack.content) / max(1, len(contents) - 1)
    cents = int(low + (high - low) * (0.35 * family_position + 0.55 * step))
    return f"{cents // 100}.{cents % 100:02d}"


class _Family:
    """One brand's range of one product type: shared copy, house style and tags; variants and sizes."""

    def __init__(self, vocabulary: Vocabulary, leaf: Leaf, brand: Brand, name: str, draw: Draw) -> None:
        self.vocabulary, self.leaf, self.brand, self.name, self.draw = vocabulary, leaf, brand, name, draw
        self.kind = draw.choice(leaf.types)
        self.tags, self.made = self._tags_and_contents()
        self.style = draw.choice(wording.TITLE_STYLES)
        if self.style == "foreign" and brand.language not in dict(leaf.foreign):
            self.style = draw.choice(wording.TITLE_STYLES[:-1])
        self.description_style = self._description_style()
        self.marketing = wording.write_marketing(vocabulary, brand, leaf, draw)
        self.price_position = draw.uniform()

    def _tags_and_contents(self) -> tuple[tuple[str, ...], str]:
        if self.draw.chance(0.4) or not self.leaf.tags:
            return (), self.leaf.made
        tags, made = self.draw.choice(self.leaf.tags)
        return tags, made or self.leaf.made

    def _description_style(self) -> str:
        roll = self.draw.uniform()
        for style, upto in (("html", 0.34), ("plain", 0.68), ("bullets", 0.79), ("facts only", 0.86)):
            if roll < upto:
                return style
        return "story only" if roll < 0.92 else "empty"

    def members(self) -> list[tuple[str, wording.Size]]:
        """Variants by sizes, leaving out a variant that the type already says ("Smoked smoked salmon")."""
        kind_words = set(self.kind.lower().split())
        variants = [v for v in self.leaf.variants if not kind_words & (set(v.lower().split()) - {"with", "in", "for"})]
        chosen = self.draw.sample(variants or list(self.leaf.variants), 1 + self.draw.below(4))
        packs = self.draw.sample(self.leaf.packs, 1 + self.draw.below(2))
        return self.draw.shuffled(
            [
                (variant, wording.parse_pack(pack))
                for variant in chosen
                for pack in packs
                if self.leaf.fits(self.kind, variant, pack)
            ]
        )

    def product(self, variant: str, pack: wording.Size, *, style: str = "", description_style: str = "") -> Product:
        """One listing; another shop's listing of the same product passes styles of its own."""
        draw, leaf, brand = self.draw, self.leaf, self.brand
        tags = tuple(tag for tag in self.tags if not contradicts(tag, self.kind, variant, self.made))
        size = wording.write_size(pack, draw)
        title_style = style or self.style
        title = wording.write_title(
            title_style,
            brand=brand,
            leaf=leaf,
            kind=self.kind,
            variant=variant,
            tags=tags,
            size=size,
            draw=draw,
        )
        facts = wording.write_facts(
            leaf=leaf,
            brand=brand,
            kind=self.kind,
            variant=variant,
            tags=tags,
            made=self.made,
            size=size,
            draw=draw,
        )
        second = bool(style)
        marketing = wording.write_marketing(self.vocabulary, brand, leaf, draw) if second else self.marketing
        return Product(
            leaf=leaf,
            kind=self.kind,
            variant=variant,
            tags=tags,
            family=self.name,
            second_listing_of=(self.name, self.kind, variant, pack) if second else None,
            pack=pack,
            brand=draw.choice([brand.name.upper(), brand.name, brand.name.replace(" & ", " and ")])
            if second
            else brand.name,
            title=title,
            size="" if draw.chance(0.12) and size and size in title else size,
            description=wording.write_description(description_style or self.description_style, marketing, facts, draw),
            category=SEPARATOR.join(leaf.path),
            bullets=(*facts.about, *facts.tags),
            price=_price(leaf, self.price_position, pack, [wording.parse_pack(p) for p in leaf.packs]),
        )


def leaf_products(vocabulary: Vocabulary, leaf: Leaf, count: int, stream: str) -> list[Product]:
    """``count`` products of one leaf; the stream's name alone decides them."""
    draw = Draw(f"{stream}/{SEPARATOR.join(leaf.path)}")
    brands = draw.shuffled(vocabulary.brands_of(leaf.segment))
    products: list[Product] = []
    seen: set[tuple[str, str, str, wording.Size]] = set()
    families = 0
    while len(products) < count:
        brand = brands[families % len(brands)]
        family = _Family(vocabulary, leaf, brand, f"{stream}/{leaf.name}/{families}", draw)
        families += 1
        for variant, pack in family.members():
            if (brand.name, family.kind, variant, pack) in seen or len(products) >= count:
                continue
            seen.add((brand.name, family.kind, variant, pack))
            products.append(family.product(variant, pack))
            if draw.chance(SECOND_LISTING_SHARE) and len(products) < count:
                other_style = draw.choice([style for style in wording.TITLE_STYLES[:-1] if style != family.style])
                products.append(
                    family.product(
                        variant,
                        pack,
                        style=other_style,
                        description_style=draw.choice(wording.DESCRIPTION_STYLES[:2]),
                    )
                )
    return products


def _with_oddities(products: list[Product], seed: int) -> list[Product]:
    """Takes categories away, makes some unknown, and lets a few texts mislead or surprise."""
    order = Draw(f"{seed}/oddities").shuffled(range(len(products)))
    draw = Draw(f"{seed}/oddity texts")
    out = list(products)
    start = 0

    def next_share(share: float) -> list[int]:
        nonlocal start
        count = max(1, round(share * len(products)))
        start += count
        return order[start - count : start]

    for i in next_share(NO_CATEGORY_SHARE):
        out[i] = replace(out[i], category="", oddity="no category")
    for i in next_share(UNKNOWN_CATEGORY_SHARE):
        out[i] = replace(out[i], category=draw.choice(UNKNOWN_CATEGORIES), oddity="unknown category")
    for i in next_share(BORROWED_DESCRIPTION_SHARE):
        other = next(
            p for p in draw.shuffled(products) if p.leaf.path[0] != out[i].leaf.path[0] and len(p.description) > 100
        )
        out[i] = replace(out[i], description=other.description, oddity="description of another product")
    for i in next_share(STUFFED_KEYWORDS_SHARE):
        words = draw.choice(_STUFFING)
        out[i] = replace(
            out[i],
            title=f"{out[i].title} {words}",
            description=f"{out[i].description} {words} {words}".strip(),
            oddity="stuffed with keywords",
        )
    for i in next_share(EMOJI_TITLE_SHARE):
        a, b = draw.sample(_EMOJI, 2)
        out[i] = replace(out[i], title=f"{a} {out[i].title} {b}", oddity="emoji in the title")
    for i in next_share(QUOTES_AND_NEWLINES_SHARE):
        out[i] = replace(
            out[i],
            title=f'"{out[i].brand}" {out[i].title}',
            description=f'They say "the best, full stop".\n\n{out[i].description}',
            oddity="quotes and line breaks",
        )
    return out


def with_ids(products: Sequence[Product], first: int) -> list[Product]:
    return [replace(product, product_id=f"P{first + i}") for i, product in enumerate(products)]


def catalogue(vocabulary: Vocabulary, leaves: Sequence[Leaf], count: int, seed: int) -> list[Product]:
    """All good products in file order, with ids."""
    sizes = leaf_sizes(leaves, count, seed)
    products = [
        product
        for leaf, size in zip(leaves, sizes, strict=True)
        for product in leaf_products(vocabulary, leaf, size, str(seed))
    ]
    shuffled = Draw(f"{seed}/file order").shuffled(products)
    return with_ids(_with_oddities(shuffled, seed), PRODUCT_ID_START)
