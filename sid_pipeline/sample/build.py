"""Puts the sample data together: two nights' catalogue and offers, two taxonomies, labels, README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sid_pipeline.sample import defects, nights, offers, readme, relevance, taxonomy
from sid_pipeline.sample.draw import Draw
from sid_pipeline.sample.files import encoded, write_gzip, write_text
from sid_pipeline.sample.products import HEADER, Product, catalogue, leaf_products, used_leaves, with_ids
from sid_pipeline.sample.vocabulary import Leaf, Vocabulary, load

DAYS = ("2026-01-05", "2026-01-06")
PRODUCTS = 5400
SEED = 20260105


def _spare(vocabulary: Vocabulary, leaves: Sequence[Leaf], count: int, first_id: int, stream: str) -> list[Product]:
    """Products that exist only as bad rows."""
    draw = Draw(stream)
    made = [leaf_products(vocabulary, draw.choice(leaves), 1, f"{stream}/{i}")[0] for i in range(count)]
    return with_ids(made, first_id)


def generate(out_dir: Path, *, products: int = PRODUCTS, seed: int = SEED) -> None:
    """Writes the whole sample data set under ``out_dir``, over whatever stands there.

    ``products`` is the number of good products of the first night, at least 100. A smaller catalogue has
    fewer leaves (about one for 20 products, those the second taxonomy touches always among them), fewer
    queries and proportionally fewer bad rows; the layout is the same. Both arguments alone decide every byte.

    Raises ValueError when ``products`` is below 100.
    """
    if products < 100:
        raise ValueError(f"products is {products}: the sample needs at least 100 to hold every planted defect")
    vocabulary = load()
    leaves = used_leaves(vocabulary, products, taxonomy.TOUCHED_LEAVES)
    first = catalogue(vocabulary, leaves, products, seed)
    night = nights.second(vocabulary, leaves, first, seed)

    planted = [defects.counts(products), defects.counts(products, second_night=True)]
    spare = [
        _spare(vocabulary, leaves, sum(counts.values()), defects.BAD_ID_START + 10_000 * i, f"{seed}/spare/{i}")
        for i, counts in enumerate(planted)
    ]
    bad_first = defects.make(spare[0], first, f"{seed}/bad/0")
    # What the first night's reader could mend is still for sale on the second.
    mended = [row for row in bad_first if row.kind.action == "mend"]
    bad_second = defects.make(spare[1], night.products, f"{seed}/bad/1", second_night=True)

    for i, (good, bad) in enumerate(((first, bad_first), (night.products, [*mended, *bad_second]))):
        folder = out_dir / "catalogue" / DAYS[i]
        rows = defects.scattered(good, bad, f"{seed}/bad rows' places/{i}")
        write_gzip(folder / "products.csv.gz", [encoded(HEADER), *rows])
        write_gzip(folder / "offers.csv.gz", offers.lines(good, seed, bad=i == 0))

    nodes = taxonomy.first(vocabulary)
    for name, tree in (("taxonomy.csv", nodes), ("taxonomy_v2.csv", taxonomy.second(nodes))):
        rows = [encoded((node.node_id, node.parent_id, node.name)) for node in tree]
        write_text(out_dir / name, b"".join([encoded(taxonomy.HEADER), *rows]).decode("utf-8"))

    queries = max(20, relevance.QUERIES * products // PRODUCTS)
    good_labels = relevance.judgements(vocabulary, first, seed, queries)
    judged = relevance.with_bad_labels(good_labels, seed)
    write_gzip(out_dir / "relevance" / "examples.csv.gz", relevance.example_lines(judged))
    write_gzip(out_dir / "relevance" / "products.csv.gz", relevance.product_lines(judged, first))

    write_text(out_dir / "README.md", readme.text(first, night, planted, nodes, good_labels, seed, DAYS))
