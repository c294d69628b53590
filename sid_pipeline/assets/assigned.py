"""A release's SIDs as the assets that look at a vocabulary read them; `report`, `names`, `codebook_diff`, `comparison`
and `explorer` share this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assignment.collisions import has_further_token
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS, SEMANTIC_IDS
from sid_pipeline.sids import codes_of, lengths

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sid_pipeline.reader import Publication

FEW = 50_000


def assigned_receipts(warehouse: Warehouse, flavours: Sequence[Flavour], release: str) -> dict[str, Receipt]:
    """Receipts of a release's SIDs by flavour; flavours that have none are left out, not waited for."""
    receipts = {flavour.name: warehouse.receipts.get(flavour.key(SEMANTIC_IDS_STAGE), release) for flavour in flavours}
    return {name: receipt for name, receipt in receipts.items() if receipt is not None}


def content(warehouse: Warehouse, assigned: Receipt) -> dict[str, str]:
    """What these assets look at: the SIDs, and the titles, categories and vectors that they stand on."""
    return {
        "semantic_ids": assigned.data_version,
        "products": warehouse.receipts.need(PRODUCTS.name, assigned.facts["as_of_snapshot"]).data_version,
    }


def looked_at(warehouse: Warehouse, assigned: Receipt) -> dict[str, str]:
    """What is looked at by an asset that also tells the day, or judges it."""
    return {"as_of_snapshot": assigned.facts["as_of_snapshot"], **content(warehouse, assigned)}


@dataclass(frozen=True)
class Assigned:
    """Products of a release that have a SID, in the order of their ids.

    Attributes:
        products: product_id, and columns of PRODUCTS that were asked for.
        codes: (N, levels) of their base SIDs.
        snapshot: that the SIDs stand on.
    """

    products: "pa.Table"
    codes: "np.ndarray"
    snapshot: str


def assigned_products(warehouse: Warehouse, flavour: Flavour, release: str, columns: Sequence[str]) -> Assigned:
    """The products of a release that have a SID and are in its snapshot, with columns of PRODUCTS."""
    import numpy as np
    import pyarrow.compute as pc

    snapshot = warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release).facts["as_of_snapshot"]
    product_ids, codes = base_codes(warehouse, flavour, release)
    products = described(warehouse, [snapshot], product_ids, columns)
    there = pc.is_in(product_ids, value_set=products["product_id"])
    return Assigned(products, codes[np.flatnonzero(there.to_numpy())], snapshot)


def base_codes(warehouse: Warehouse, flavour: Flavour, release: str) -> "tuple[pa.ChunkedArray, np.ndarray]":
    """The ids of a release's active products that have a base SID, ascending, and its codes (N, levels)."""
    import numpy as np
    import pyarrow.compute as pc

    here = pc.field("withdrawn_on").is_null() & pc.field("base_sid").is_valid()
    columns = ["product_id", "base_sid"]
    rows = warehouse.tables.arrow(SEMANTIC_IDS, columns, here, flavour=flavour.name, release=release)
    rows = rows.sort_by("product_id")
    tokens = lengths(rows["base_sid"])
    codes = codes_of(rows["base_sid"], tokens[0]) if tokens else np.empty((0, 1), np.int32)
    return rows["product_id"], codes


def described(
    warehouse: Warehouse,
    snapshots: Sequence[str],
    product_ids: "pa.ChunkedArray",
    columns: Sequence[str],
    few: int = FEW,
) -> "pa.Table":
    """product_id and columns of PRODUCTS of the products asked for, by id, each of the first snapshot that has it;
    one that none has is left out.

    Args:
        few: so many products are looked for as a table is read; of more, its columns are read whole.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    for snapshot in snapshots:
        which = pc.field("product_id").isin(product_ids) if len(product_ids) <= few else None
        rows = warehouse.tables.arrow(PRODUCTS, ["product_id", *columns], which, snapshot=snapshot)
        rows = rows.filter(pc.is_in(rows["product_id"], value_set=product_ids))
        product_ids = product_ids.filter(pc.invert(pc.is_in(product_ids, value_set=rows["product_id"])))
        found.append(rows)
    return pa.concat_tables(found).sort_by("product_id")


def further_tokens(old: "Publication", assigned: Receipt) -> tuple[bool, bool]:
    """Whether SIDs of a publication, and those that a release has now, end with a further token."""
    policies = old.manifest["pins"].get("collision"), assigned.inputs.get("collision_policy")
    return has_further_token(policies[0]), has_further_token(policies[1])
