"""The data set's own README: files, columns, and the number of everything that was planted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sid_pipeline.sample import defects, offers, relevance, taxonomy
from sid_pipeline.sample.nights import SecondNight
from sid_pipeline.sample.products import HEADER as PRODUCT_HEADER
from sid_pipeline.sample.products import Product
from sid_pipeline.sample.relevance import Judgement
from sid_pipeline.sample.taxonomy import Node


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def text(
    first: Sequence[Product],
    night: SecondNight,
    planted: Sequence[dict[str, int]],
    nodes: Sequence[Node],
    good_labels: Sequence[Judgement],
    seed: int,
    days: Sequence[str],
) -> str:
    """Markdown; every number is counted from what was generated."""
    parents = {node.parent_id for node in nodes}
    leaves = sum(node.node_id not in parents for node in nodes)
    roots = sum(not node.parent_id for node in nodes)
    oddities = Counter(product.oddity for product in first if product.oddity)
    second_listings = sum(product.second_listing_of is not None for product in first)
    no_description = sum(not product.description for product in first)
    kinds = Counter(night.changed.values())
    mended = [sum(counts[k.name] for k in defects.KINDS if k.action == "mend") for counts in planted]
    rejected = [sum(counts.values()) - mend for counts, mend in zip(planted, mended, strict=True)]
    bad_labels = sum(relevance.BAD_LABELS.values())
    labels = Counter(judgement.label for judgement in good_labels)
    queries = len({judgement.query_id for judgement in good_labels})
    defect_rows = [
        (kind.name, kind.action, planted[0][kind.name], planted[1][kind.name] or "", kind.what)
        for kind in defects.KINDS
    ]
    retailers = ", ".join(name for name, _ in offers.RETAILERS)
    columns, offer_columns = ", ".join(PRODUCT_HEADER), ", ".join(offers.HEADER)
    return f"""# Sample data

Two nights of a fictional grocery and household retailer. All names are invented. Made by
`python -m sid_pipeline.sample data` (seed {seed}, {len(first):,} products); do not edit by hand. The vocabulary
stands in `sid_pipeline/sample/text/`.

| file | what it is |
| --- | --- |
| catalogue/DAY/products.csv.gz | {columns}; UTF-8, RFC 4180 quoting |
| catalogue/DAY/offers.csv.gz | {offer_columns}; popularity is orders in 30 days |
| taxonomy.csv | node_id, parent_id, name: {len(nodes)} nodes, {roots} roots, {leaves} leaves, 3 to 4 levels |
| taxonomy_v2.csv | the same tree after a merchandiser's edits |
| relevance/examples.csv.gz, relevance/products.csv.gz | labels in ESCI's column layout, locale `us` |

Retailers: {retailers}. `category` is a path of names in taxonomy.csv, joined by ` > `, or empty.

## The first night, {days[0]}

{len(first):,} good rows, {
        sum(planted[0].values())
    } bad rows. A reader that rejects and mends as in the table below accepts
{len(first) + mended[0]:,} products and rejects {rejected[0]} rows.

Among the good rows:

{
        _table(
            ("what", "rows"),
            [
                ("second listing: the same product from another shop, worded differently", second_listings),
                ("no description", no_description),
                *[
                    (f"{name}{' (valid)' if name.startswith(('emoji', 'quotes')) else ''}", n)
                    for name, n in sorted(oddities.items())
                ],
            ],
        )
    }

An unknown category is no defect: the product is uncategorised. The bad rows stand among the good ones:

{_table(("bad row", "what to do", days[0], days[1] + " (new)", "what is wrong"), defect_rows)}

## The second night, {days[1]}

{len(night.products):,} good rows: {len(night.new)} new, {len(night.changed)} changed ({
        ", ".join(f"{n} {what}" for what, n in sorted(kinds.items()))
    }),
{len(night.withdrawn)} withdrawn. All other good rows, and the {
        mended[0]
    } rows to mend, stand there byte for byte. The first
night's rows to reject are gone; {sum(planted[1].values())} new ones came. Accepted: {
        len(night.products) + mended[0]:,} products; rejected: {rejected[1]}.

## Offers

The second night's offers are all good. Bad among those of the first night:

{_table(("bad offer", "rows"), list(offers.BAD_OFFERS.items()))}

## The second taxonomy

- renamed: {taxonomy.RENAMED[0]} is now {taxonomy.RENAMED[1]}, same id
- added: {taxonomy.ADDED[0]} under {taxonomy.ADDED[1]}
- split: {taxonomy.SPLIT[0]} gave way to {taxonomy.SPLIT[1][0]} and {taxonomy.SPLIT[1][1]}, new ids
- moved: {taxonomy.MOVED[0]} from World Foods to {taxonomy.MOVED[1]}, same id

## Relevance labels

{queries} queries, {len(good_labels):,} good judgements ({
        ", ".join(f"{labels[grade]:,} {grade}" for grade in "ESCI")
    }) and {bad_labels}
bad rows. A pair with two grades is bad as a whole: its good row is no longer to be trusted either.

{_table(("bad label", "rows"), list(relevance.BAD_LABELS.items()))}

The grades follow from how the products were made, so they are a smoke test and no evidence of search quality.
"""
