"""What changed between a publication and the one before it, such that previous + delta = current exactly.

Everything works on streams sorted by product_id, one range of products at a time, so neither side is ever in memory
as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.publication.rows import aligned

ADDED, MOVED, WITHDRAWN = "added", "moved", "withdrawn"
GONE = "no longer in the catalogue"

SIDS = pa.schema([("product_id", pa.string()), ("sid", pa.string())])
PRODUCTS = pa.schema(
    [
        ("product_id", pa.string()),
        ("sid", pa.string()),
        ("change", pa.string()),
        ("reason", pa.string()),
        ("withdrawn_on", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("change", pa.string()),
        ("sid", pa.string()),
        ("previous_sid", pa.string()),
        ("reason", pa.string()),
    ]
)


def has_sid(products: pa.Table) -> pa.ChunkedArray:
    """Which rows of `PRODUCTS` are active products with a SID."""
    return pc.and_(pc.is_null(products["withdrawn_on"]), pc.is_valid(products["sid"]))


def difference(before: Iterable[pa.Table], products: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The delta, as a stream of `SCHEMA`.

    Args:
        before: stream of `SIDS`, the previous publication's.
        products: stream of `PRODUCTS`: every row of the table now, those without a SID and the withdrawn included,
            because they say why a SID is gone.
    """
    for old, now in aligned(before, products):
        yield _difference(
            SIDS.empty_table() if old is None else old.select(SIDS.names).cast(SIDS),
            PRODUCTS.empty_table() if now is None else now.select(PRODUCTS.names).cast(PRODUCTS),
        )


def _difference(old: pa.Table, products: pa.Table) -> pa.Table:
    now = products.filter(has_sid(products))
    previous = old["sid"].take(pc.index_in(now["product_id"], value_set=old["product_id"].combine_chunks()))
    change = pc.if_else(pc.is_null(previous), ADDED, MOVED)
    differs = pc.fill_null(pc.not_equal(previous, now["sid"]), True)
    changed = pa.table([now["product_id"], change, now["sid"], previous, now["change"]], schema=SCHEMA).filter(differs)

    gone = old.filter(pc.invert(pc.is_in(old["product_id"], value_set=now["product_id"].combine_chunks())))
    rows = products.take(pc.index_in(gone["product_id"], value_set=products["product_id"].combine_chunks()))
    reason = pc.coalesce(
        pc.binary_join_element_wise("withdrawn on", rows["withdrawn_on"], " "), rows["reason"], pa.scalar(GONE)
    )
    nothing = pa.nulls(len(gone), pa.string())
    withdrawn = pa.array([WITHDRAWN] * len(gone), pa.string())
    lost = pa.table([gone["product_id"], withdrawn, nothing, gone["sid"], reason], schema=SCHEMA)
    return pa.concat_tables([changed, lost]).sort_by("product_id")


def apply(before: Iterable[pa.Table], delta: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Previous + delta: a stream of `SIDS`."""
    for old, change in aligned(before, delta):
        old = SIDS.empty_table() if old is None else old.select(SIDS.names).cast(SIDS)
        change = SCHEMA.empty_table() if change is None else change.cast(SCHEMA)
        kept = old.filter(pc.invert(pc.is_in(old["product_id"], value_set=change["product_id"].combine_chunks())))
        set_now = change.filter(pc.not_equal(change["change"], WITHDRAWN)).select(SIDS.names)
        yield pa.concat_tables([kept, set_now]).sort_by("product_id")


def require_exact(before: Iterable[pa.Table], delta: Iterable[pa.Table], current: Iterable[pa.Table]) -> None:
    """Make sure that previous + delta = current, row by row.

    Raises:
        PublicationError: it is not; the message names the first range of products that differs.
    """
    for made, wanted in aligned(apply(before, delta), current):
        left = (made if made is not None else SIDS.empty_table()).combine_chunks()
        right = (wanted if wanted is not None else SIDS.empty_table()).cast(SIDS).combine_chunks()
        if not left.equals(right):
            pairs = zip_longest(left.to_pylist(), right.to_pylist())
            first = next((a, b) for a, b in pairs if a != b)
            raise PublicationError(
                f"the previous publication with the delta gives {first[0]} where the new one has {first[1]}: the "
                "previous one's files are not those that the delta was made from"
            )
