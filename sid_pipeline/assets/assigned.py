"""A release's SIDs as the assets that look at a vocabulary read them; `report`, `names`, `codebook_diff`, `comparison`
and `explorer` share this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assignment.collisions import has_further_token
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import ACTIVE, PRODUCTS, SEMANTIC_IDS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sid_pipeline.reader import Publication


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


def standing_on(warehouse: Warehouse, flavour: Flavour, release: str) -> str:
    """The snapshot that a release's SIDs stand on."""
    return warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release).facts["as_of_snapshot"]


@dataclass(frozen=True)
class Assigned:
    """Products of a release with their SIDs, as arrays in one order."""

    table: "pa.Table"
    codes: "np.ndarray"  # int (N, levels)
    snapshot: str

    def column(self, name: str) -> list[Any]:
        """A column as a Python list."""
        return self.table[name].to_pylist()

    def categories(self) -> list[tuple[str, ...] | None]:
        """Category paths, None where a product has none."""
        return [tuple(path) if path else None for path in self.column("category")]


def assigned_products(warehouse: Warehouse, flavour: Flavour, release: str, columns: Sequence[str]) -> Assigned:
    """All assigned products of a release, sorted by product id, with columns of PRODUCTS."""
    import numpy as np

    snapshot = standing_on(warehouse, flavour, release)
    sids = active_rows(warehouse, flavour, release)
    products = warehouse.tables.read(PRODUCTS, snapshot=snapshot)
    frame = sids.select("product_id", "codes").join(products.select("product_id", *columns), "product_id")
    table = frame.orderBy("product_id").toArrow()
    flat = table["codes"].combine_chunks().flatten().to_numpy()
    return Assigned(
        table.drop_columns(["codes"]),
        flat.reshape(len(table), -1) if len(table) else np.empty((0, 4), int),
        snapshot,
    )


def active_rows(warehouse: Warehouse, flavour: Flavour, release: str) -> Any:
    """The rows of SEMANTIC_IDS of active products that have a SID, as a Spark DataFrame."""
    rows = warehouse.tables.read(SEMANTIC_IDS, flavour=flavour.name, release=release)
    return rows.where(ACTIVE).where("base_sid IS NOT NULL")


def codes_of(sid: str) -> tuple[int, ...]:
    """The codes that a SID spells."""
    return tuple(int(code) for code in sid.split("_"))


def further_tokens(old: "Publication", assigned: Receipt) -> tuple[bool, bool]:
    """Whether SIDs of a publication, and those that a release has now, end with a further token."""
    policies = old.manifest["pins"].get("collision"), assigned.inputs.get("collision_policy")
    return has_further_token(policies[0]), has_further_token(policies[1])
