"""Which of the three fictional retailers sells a product, whether it is in stock, how often it is ordered."""

from __future__ import annotations

from collections.abc import Sequence

from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.files import encoded
from sid_pipeline.sample.products import Product

HEADER = ("product_id", "retailer_id", "available", "popularity")
RETAILERS = (
    ("northmarket", 0.75),
    ("greenbasket", 0.5),
    ("essentials24", 0.4),
)  # (id, share of products it lists)
BAD_OFFERS = {
    "unknown_product": 6,
    "popularity_not_a_number": 6,
    "popularity_negative": 3,
    "available_not_a_flag": 3,
    "repeated_offer": 4,
    "empty_retailer": 2,
}
MOST_ORDERS = 120_000  # of a retailer's first product in 30 days; the product of rank r has a share of 1 / r


def _offer(product_id: str, retailer: str, rank: int, draw: Draw) -> list[str]:
    available = "false" if draw.chance(0.08) else "true"
    return [product_id, retailer, available, str(MOST_ORDERS // (rank + 1))]


def lines(products: Sequence[Product], seed: int, *, bad: bool) -> list[bytes]:
    """The offers file: rows by retailer and product, and if asked those of ``BAD_OFFERS`` among them.

    Who lists a product and its rank depend on its id alone, so that they agree between nights.
    """
    good: list[list[str]] = []
    listed = {retailer: set[str]() for retailer, _ in RETAILERS}
    for product in products:
        draw = Draw(f"{seed}/offer/{product.product_id}")
        names = [retailer for retailer, share in RETAILERS if draw.chance(share)] or [draw.choice(RETAILERS)[0]]
        for name in names:
            listed[name].add(product.product_id)
    for retailer, _ in RETAILERS:
        ids = sorted(listed[retailer])
        keyed = sorted(ids, key=lambda product_id: Draw(f"{seed}/{retailer}/{product_id}").uniform())
        rank = {product_id: i for i, product_id in enumerate(keyed)}
        good += [_offer(i, retailer, rank[i], Draw(f"{seed}/stock/{retailer}/{i}")) for i in ids]
    rows = _with_bad(good, Draw(f"{seed}/bad offers")) if bad else good
    return [encoded(HEADER), *(encoded(row) for row in rows)]


def _with_bad(rows: list[list[str]], draw: Draw) -> list[list[str]]:
    """Adds rows that no good offer can turn into, and spoils a field of as many others as the kinds ask."""
    out = list(rows)
    victims = iter(draw.shuffled(range(len(rows))))
    for kind, count in BAD_OFFERS.items():
        for number in range(count):
            place = next(victims)
            product_id, retailer, available, popularity = rows[place]
            if kind == "unknown_product":
                out.append([f"X{number + 1:06d}", retailer, available, popularity])
            elif kind == "repeated_offer":
                out.append(rows[place])
            elif kind == "empty_retailer":
                out[place] = [product_id, "", available, popularity]
            elif kind == "popularity_not_a_number":
                out[place] = [product_id, retailer, available, ("many", "n/a", "1e", "12,5k")[number % 4]]
            elif kind == "popularity_negative":
                out[place] = [product_id, retailer, available, f"-{popularity}"]
            else:
                out[place] = [product_id, retailer, "perhaps", popularity]
    return out
