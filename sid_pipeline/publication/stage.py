"""The Spark half of publishing: the rows of a publication, sorted, as Parquet parts that the rest streams from.

Sorting is all that needs a distributed engine; nothing is collected on the driver.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.schemas import ACTIVE, ASSIGNED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PRODUCTS, OFFERS = "products", "offers"


def stage(folder: Path, semantic_ids: DataFrame, offers: DataFrame | None) -> None:
    """Write `folder/products` and, where there are offers, `folder/offers`.

    Args:
        folder: on a disk that driver and executors share.
        semantic_ids: product_id, base_sid, published_sid, change, reason, withdrawn_on: every row of the slice.
        offers: product_id, retailer_id, available, popularity; None: the source has none.
    """
    from pyspark.sql import functions as F

    sid = F.when(~F.expr(ACTIVE) | F.expr(ASSIGNED), F.col("published_sid"))
    products = semantic_ids.select("product_id", sid.alias("sid"), "change", "reason", "withdrawn_on")
    products.orderBy("product_id").write.mode("overwrite").parquet(str(folder / PRODUCTS))
    if offers is None:
        return
    active = products.where("withdrawn_on IS NULL AND sid IS NOT NULL").select("product_id", "sid")
    index = offers.where("available").join(active, "product_id")
    ordered = index.orderBy("retailer_id", "sid", F.col("popularity").desc(), "product_id")
    columns = ordered.select("retailer_id", "sid", "product_id", "popularity")
    columns.write.mode("overwrite").parquet(str(folder / OFFERS))
