"""For those who load published SIDs: imports neither Dagster nor Spark nor torch.

    from sid_pipeline.reader import open_live

    sids = open_live("esci")                   # or open_live("esci", "s3://bucket/sid")
    sids.sid("P100002")                        # '35_7_120_184'
    sids.lookup(["P100002", "P100003"])        # SIDs or None, vectorised
    sids.products("35_7", retailer="northmarket")  # available there, most popular first

What is opened is verified against its manifest and never changes: a pointer that moves meanwhile is seen by the next
`open_live`. Tables are read when they are first asked for and stay in Arrow; nothing is done row by row in Python but
where a method gives Python objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipeline.publication import folder as layout
from sid_pipeline.publication.constraints import Constraints
from sid_pipeline.publication.folder import PublicationError, newest, verify
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.publication.store import Store, describe, open_store, read_json

__all__ = ["NoSid", "Publication", "PublicationError", "WithdrawnProduct", "open_live", "open_release"]

_PREFIX = re.compile(r"\d+(_\d+)*")
_ONE_BY_ONE = 1_000  # fewer products than this are searched one by one, more through a hash table


class NoSid(KeyError):
    """A product that has no SID in this publication; the message says why."""

    def __str__(self) -> str:
        return str(self.args[0])


class WithdrawnProduct(NoSid):
    """A product that left the catalogue.

    Attributes:
        withdrawn_on: the first day (YYYY-MM-DD) on which it was gone.
        last_sid: the SID it had; it gets it back when it returns. None when it never had one.
    """

    def __init__(self, product_id: str, withdrawn_on: str, last_sid: str | None) -> None:
        super().__init__(f"product {product_id!r} was withdrawn on {withdrawn_on}; its last SID was {last_sid}")
        self.withdrawn_on = withdrawn_on
        self.last_sid = last_sid


class Publication:
    """An opened publication.

    Args:
        store: where it lies.
        folder: its folder, relative to the store's root.
        hashes: verify every file's hash, not only that it is there.
        manifest_sha256: the hash of the manifest that a pointer names.

    Raises:
        PublicationError: a file is missing or damaged; the message names it.
    """

    def __init__(self, store: Store, folder: str, *, hashes: bool = True, manifest_sha256: str | None = None) -> None:
        self._store = store
        self.folder = folder
        self.manifest: dict[str, Any] = verify(store, folder, hashes=hashes, manifest_sha256=manifest_sha256)

    def __repr__(self) -> str:
        return f"Publication({describe(self._store, self.folder)})"

    def __len__(self) -> int:
        """Products that have a SID."""
        return int(self.manifest["rows"][layout.PRODUCT_SIDS])

    @cached_property
    def table(self) -> pa.Table:
        """product_id, sid, sorted by product_id."""
        return self._table(layout.PRODUCT_SIDS)

    @cached_property
    def card(self) -> dict[str, Any]:
        """The data card: counts, checks, quality, lineage, versions."""
        return read_json(self._store, f"{self.folder}/{layout.DATA_CARD}")

    @cached_property
    def vocabulary(self) -> dict[str, Any]:
        """levels, sizes, offsets and tokens."""
        return read_json(self._store, f"{self.folder}/{layout.VOCABULARY}")

    @cached_property
    def constraints(self) -> Constraints:
        """The prefix tree of all SIDs, for constrained decoding."""
        from safetensors.numpy import load

        return Constraints.from_arrays(load(self._store.read(f"{self.folder}/{layout.CONSTRAINTS}")))

    def delta(self) -> pa.Table:
        """What turns `manifest["parent"]` into this: product_id, change (added, moved, withdrawn), sid,
        previous_sid, reason."""
        return self._table(layout.DELTA)

    def sid(self, product_id: str) -> str:
        """A product's SID.

        Raises:
            WithdrawnProduct: the product left the catalogue.
            NoSid: it has no SID, for the reason given, or is not known. Both are KeyErrors.
        """
        ids, sids = self._columns
        place = _find(ids, product_id)
        if place is None:
            raise self._no_sid(product_id)
        return sids[place].as_py()

    def lookup(self, product_ids: Sequence[str]) -> list[str | None]:
        """SIDs of many products, None for those that have none in this publication."""
        ids, sids = self._columns
        if len(product_ids) < _ONE_BY_ONE:
            found = (_find(ids, product_id) for product_id in product_ids)
            return [None if place is None else sids[place].as_py() for place in found]
        # Looked up the other way round: the hash table holds what is asked for, not the whole catalogue.
        asked = pa.array(product_ids, pa.large_string())
        known = pc.indices_nonzero(pc.is_in(ids, value_set=asked))
        places = known.take(pc.index_in(asked, value_set=ids.take(known)))
        return sids.take(places).to_pylist()

    def sids(self) -> dict[str, str]:
        """product_id -> SID of every product, as a dict (`table` has the same in Arrow)."""
        ids, sids = self._columns
        return dict(zip(ids.to_pylist(), sids.to_pylist(), strict=True))

    def products(self, prefix: str, retailer: str | None = None) -> list[str]:
        """Products under a SID prefix such as `35_7`, by product id; with a retailer its available ones, most
        popular first.

        Raises:
            ValueError: `prefix` is no SID prefix.
            PublicationError: a retailer was named, and the publication was made without offers.
        """
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"{prefix!r} is no SID prefix: codes joined by '_', such as 35_7")
        if retailer is None:
            sid = self.table["sid"]
            under = pc.or_(pc.equal(sid, prefix), pc.starts_with(sid, f"{prefix}_"))
            return self.table["product_id"].filter(under).to_pylist()
        if layout.SID_PRODUCTS not in self.manifest["files"]:
            raise PublicationError(f"{describe(self._store, self.folder)} was published without offers")
        # As ranges of strings, so that Parquet skips all row groups but those of this retailer and prefix.
        sid, after = pc.field("sid"), f"{prefix}{chr(ord('_') + 1)}"
        wanted = (sid == prefix) | ((sid >= f"{prefix}_") & (sid < after))
        table = self._table(layout.SID_PRODUCTS, filters=(pc.field("retailer_id") == retailer) & wanted)
        return table.sort_by([("popularity", "descending"), ("product_id", "ascending")])["product_id"].to_pylist()

    @cached_property
    def _columns(self) -> tuple[pa.Array, pa.Array]:
        """product_id and sid as one piece each, for binary search; 64-bit offsets, because 2 GB of ids are possible."""
        table = self.table.cast(pa.schema([("product_id", pa.large_string()), ("sid", pa.large_string())]))
        table = table.combine_chunks()
        ids, sids = (_one_chunk(table[name]) for name in ("product_id", "sid"))
        return ids, sids

    def _table(self, name: str, filters: pc.Expression | None = None) -> pa.Table:
        path = f"{self.folder}/{name}"
        try:
            with self._store.open(path) as source:
                # Only a filter is worth pyarrow's data sets, which import pandas.
                return pq.ParquetFile(source).read() if filters is None else pq.read_table(source, filters=filters)
        except FileNotFoundError:
            raise PublicationError(
                f"{describe(self._store, path)} is gone since the publication was opened: open it again"
            ) from None

    def _no_sid(self, product_id: str) -> NoSid:
        mine = pc.field("product_id") == product_id
        for row in self._table(layout.WITHDRAWN, filters=mine).to_pylist():
            return WithdrawnProduct(product_id, row["withdrawn_on"], row["sid"])
        for row in self._table(layout.UNASSIGNED, filters=mine).to_pylist():
            return NoSid(f"product {product_id!r} has no SID: {row['reason']}")
        return NoSid(f"product {product_id!r} is not in {describe(self._store, self.folder)}")


def open_live(flavour: str, root: str | Path = ".sid", *, hashes: bool = True) -> Publication:
    """Open what is live for a flavour.

    Args:
        flavour: e.g. `esci`.
        root: where publications lie: the pipeline's state folder, or its `publication.root` such as s3://bucket/sid.
        hashes: verify every file's hash, not only that it is there.

    Raises:
        PublicationError: nothing is live, or a file is missing or damaged.
    """
    store = open_store(root)
    pointer = read_pointer(store, flavour)
    while pointer is not None:
        try:
            return Publication(store, pointer["publication"], hashes=hashes, manifest_sha256=pointer["manifest_sha256"])
        except PublicationError:
            # It may have been removed after the pointer moved on, between our two looks.
            moved = read_pointer(store, flavour)
            if moved == pointer:
                raise
            pointer = moved
    raise PublicationError(f"nothing of flavour {flavour!r} is live under {store.root}")


def open_release(flavour: str, release: str, root: str | Path = ".sid", *, hashes: bool = True) -> Publication:
    """Open the newest publication of a release, live or not.

    Raises:
        PublicationError: the release has no finished publication, or a file is missing or damaged.
    """
    store = open_store(root)
    folder = newest(store, flavour, release)
    if folder is None:
        raise PublicationError(f"release {release!r} of flavour {flavour!r} has no publication under {store.root}")
    return Publication(store, folder, hashes=hashes)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)


def _find(ids: pa.Array, product_id: str) -> int | None:
    """Where a sorted array holds a value, or None."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if ids[middle].as_py() < product_id:
            low = middle + 1
        else:
            high = middle
    return low if low < len(ids) and ids[low].as_py() == product_id else None
