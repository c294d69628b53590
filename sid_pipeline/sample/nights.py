"""The second night: what a day's trade changes in a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sid_pipeline.sample import wording
from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.products import PRODUCT_ID_START, Product, leaf_products, with_ids
from sid_pipeline.sample.vocabulary import Leaf, Vocabulary

NEW_SHARE = 0.007
CHANGED_SHARE = 0.007
WITHDRAWN_SHARE = 0.006
NEW_ID_OFFSET = 100_000
_NOTICES = (
    "New improved recipe, same great taste!",
    "Now in recyclable packaging.",
    "Limited edition: available while stocks last.",
)


@dataclass(frozen=True)
class SecondNight:
    products: list[Product]
    new: list[str]  # product ids
    changed: dict[str, str]  # product id -> "title", "description" or "size"
    withdrawn: list[str]


def _changed(product: Product, what: str, draw: Draw) -> Product:
    if what == "title":
        return replace(
            product, title=f"{draw.choice(['New: ', 'Improved recipe: ', 'Special offer: '])}{product.title}"
        )
    if what == "description":
        return replace(product, description=f"{draw.choice(_NOTICES)} {product.description}".strip())
    others = [
        pack
        for pack in product.leaf.packs
        if product.leaf.fits(product.kind, product.variant, pack) and wording.parse_pack(pack) != product.pack
    ]
    pack = wording.parse_pack(draw.choice(others)) if others else replace(product.pack, count=product.pack.count + 1)
    size = wording.write_size(pack, draw) or "single"
    old = product.size
    title = product.title.replace(old, size) if old and old in product.title else f"{product.title} ({size})"
    return replace(product, pack=pack, size=size, title=title)


def second(vocabulary: Vocabulary, leaves: Sequence[Leaf], first: Sequence[Product], seed: int) -> SecondNight:
    """The next day's good products: the first day's, less the withdrawn, some edited, new ones at the end."""
    draw = Draw(f"{seed}/second night")
    count = len(first)
    order = draw.shuffled([product.product_id for product in first])
    withdrawn = max(1, round(WITHDRAWN_SHARE * count))
    edited = max(3, round(CHANGED_SHARE * count))
    gone = set(order[:withdrawn])
    changed = {
        product_id: ("title", "description", "size")[i % 3]
        for i, product_id in enumerate(order[withdrawn : withdrawn + edited])
    }
    kept = [
        _changed(product, changed[product.product_id], draw) if product.product_id in changed else product
        for product in first
        if product.product_id not in gone
    ]
    new = with_ids(
        [
            leaf_products(vocabulary, draw.choice(leaves), 1, f"{seed}/new/{i}")[0]
            for i in range(max(1, round(NEW_SHARE * count)))
        ],
        PRODUCT_ID_START + NEW_ID_OFFSET,
    )
    return SecondNight([*kept, *new], [p.product_id for p in new], changed, sorted(gone))
