"""For those who load published SIDs: imports neither Dagster nor Spark nor torch.

from sid_pipeline.reader import open_live
sids = open_live("esci", ".sid")
sids.sid("p00042")               # '35_7_120_184'
sids.products("35_7")            # product ids under the prefix
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipeline.publication.live import read_pointer
from sid_pipeline.publication.publish import PublicationError, verify


class Publication:
    """An opened publication; its files were verified against the manifest."""

    def __init__(self, folder: Path, *, hashes: bool = True) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = verify(folder, hashes=hashes)

    @cached_property
    def table(self) -> pa.Table:
        """product_id, sid, sorted by product_id."""
        return pq.read_table(self.folder / "product_sids.parquet")

    @cached_property
    def _by_product(self) -> dict[str, str]:
        return dict(zip(self.table["product_id"].to_pylist(), self.table["sid"].to_pylist(), strict=True))

    def sid(self, product_id: str) -> str:
        """A product's SID.

        Raises:
            KeyError: the product is not in this publication.
        """
        return self._by_product[product_id]

    def lookup(self, product_ids: list[str]) -> list[str | None]:
        """SIDs of many products, None for those that are not in this publication."""
        return [self._by_product.get(product_id) for product_id in product_ids]

    def sids(self) -> dict[str, str]:
        """product_id -> SID of every product."""
        return dict(self._by_product)

    def products(self, prefix: str, retailer: str | None = None) -> list[str]:
        """Products under a SID prefix such as `35_7`; with a retailer its available ones, most popular first.

        Raises:
            PublicationError: a retailer was named, and the publication was made without offers.
        """
        if retailer is None:
            table = self.table
        else:
            path = self.folder / "sid_products.parquet"
            if not path.is_file():
                raise PublicationError(f"{self.folder} was published without offers")
            table = pq.read_table(path, filters=pc.field("retailer_id") == retailer)
            table = table.sort_by([("popularity", "descending"), ("product_id", "ascending")])
        sid = table["sid"]
        under = pc.or_(pc.equal(sid, prefix), pc.starts_with(sid, f"{prefix}_"))
        return table["product_id"].filter(under).to_pylist()


def open_live(flavour: str, state: str | Path = ".sid", *, hashes: bool = True) -> Publication:
    """Open what is live for a flavour.

    Args:
        flavour: e.g. `esci`.
        state: the pipeline's state folder.
        hashes: verify every file's hash, not only that it is there.

    Raises:
        PublicationError: nothing is live, or a file is missing or damaged.
    """
    root = Path(state)
    pointer = read_pointer(root, flavour)
    if pointer is None:
        raise PublicationError(f"nothing of flavour {flavour!r} is live under {root}")
    return Publication(root / pointer["publication"], hashes=hashes)


def open_release(flavour: str, release: str, state: str | Path = ".sid", *, hashes: bool = True) -> Publication:
    """Open the newest publication of a release, live or not.

    Raises:
        PublicationError: the release has no finished publication.
    """
    root = Path(state) / "publications" / flavour / release
    finished = sorted(path.parent for path in root.glob("*/manifest.json") if not path.parent.name.startswith("."))
    if not finished:
        raise PublicationError(f"release {release!r} of flavour {flavour!r} has no publication under {state}")
    newest_day = max(folder.name[:10] for folder in finished)
    newest = max(
        (folder for folder in finished if folder.name.startswith(newest_day)),
        key=lambda f: f.stat().st_mtime_ns,
    )
    return Publication(newest, hashes=hashes)
