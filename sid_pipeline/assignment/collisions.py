"""What readers get when several products share a base SID: the collision policies that make `published_sid`.

share          the base SID itself; right for retrieval by (retailer, SID)
disambiguate   a further token, dense from 0 within the base SID
capacity=k     at most k products a SID; the others take the nearest last codeword under their prefix that has room

All policies append: a product whose base SID stays keeps what was published; one that is withdrawn, or has no vector
for a while, keeps its place; one that found no room is looked at again every night. Newcomers come in the order of a
hash of their id, so that the outcome depends on the rows alone, not on their order or partitioning. What does not
belong here: how a base SID is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


class PolicyError(ValueError):
    """A release would publish SIDs made in another way than those its readers know."""


@dataclass(frozen=True)
class Policy:
    """A collision policy; `str` of it stands in the table's collision_policy."""

    kind: str = "share"
    capacity: int | None = None

    def __str__(self) -> str:
        return self.kind if self.capacity is None else f"{self.kind}={self.capacity}"


def has_further_token(policy: str | None) -> bool:
    """Whether SIDs of a policy, given as its `str`, end with a further token after the codes; None is share."""
    return (policy or "").startswith("disambiguate")


FULL = "every last codeword under the prefix of this product's SID holds as many products as the capacity allows"
# A cogroup's result: where each product of a prefix that found no room at its base SID goes; null: nowhere.
PLACED = pa.schema([("product_id", pa.string()), ("placed", pa.string())])
PLACED_DDL = "product_id string, placed string"


def publish(
    rows: DataFrame,
    current: DataFrame | None,
    policy: Policy,
    candidates: Callable[[DataFrame], DataFrame],
) -> DataFrame:
    """Fill `published_sid` of the rows that have a base SID and no published one.

    Args:
        rows: product_id, base_sid, published_sid, reason and anything else, product_id once. Read several times under
            other policies than share: persist it.
        current: all rows of the table before, product_id and published_sid, withdrawn ones included; None when there
            are none. Places of products in `rows` count as `rows` says.
        policy: the flavour's.
        candidates: gives (product_id, candidates) of a frame of product_id and text_hash: last codewords from the
            nearest to the farthest, binary little-endian int16. Called for `capacity` alone.

    Returns:
        `rows`. Under `capacity`, a product whose whole prefix is full gets no published SID and the reason `FULL`.
    """
    from pyspark.sql import functions as F

    if policy.kind == "share":
        return rows.withColumn("published_sid", F.coalesce("published_sid", "base_sid"))
    newcomers = rows.where("base_sid IS NOT NULL AND published_sid IS NULL")
    taken = rows.where("published_sid IS NOT NULL").select("product_id", "published_sid")
    if current is not None:
        others = current.where("published_sid IS NOT NULL").join(rows.select("product_id"), "product_id", "left_anti")
        taken = taken.unionByName(others.select("product_id", "published_sid"))
    place = _disambiguated if policy.kind == "disambiguate" else _within_capacity
    placed = place(newcomers, taken, policy, candidates)
    full = F.col("base_sid").isNotNull() & F.coalesce("published_sid", "placed").isNull()
    found = F.col("placed").isNotNull()  # it may have been full the nights before
    return (
        rows.join(placed, "product_id", "left")
        .withColumn("reason", F.when(full, F.lit(FULL)).when(~found, F.col("reason")))
        .withColumn("published_sid", F.coalesce("published_sid", "placed"))
        .drop("placed")
    )


def prefix_of(sid: Column) -> Column:
    """A SID without its last codeword."""
    from pyspark.sql import functions as F

    return F.regexp_replace(sid, "_[0-9]+$", "")


def last_of(sid: Column) -> Column:
    """The last codeword, or the further token, of a SID."""
    from pyspark.sql import functions as F

    return F.regexp_extract(sid, "([0-9]+)$", 1).cast("int")


def _ranked(newcomers: DataFrame) -> DataFrame:
    """Newcomers with `rank`, from 0, among those of the same base SID."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("base_sid").orderBy(F.xxhash64("product_id"), "product_id")
    return newcomers.withColumn("rank", F.row_number().over(order) - 1)


def _disambiguated(newcomers: DataFrame, taken: DataFrame, policy: Policy, candidates: Callable) -> DataFrame:
    """product_id and placed: the base SID and the lowest tokens that nobody under it has."""
    from pyspark.sql import functions as F

    held = (
        taken.withColumn("base_sid", prefix_of(F.col("published_sid")))
        .groupBy("base_sid")
        .agg(F.sort_array(F.collect_list(last_of(F.col("published_sid")))).alias("tokens"))
    )
    ranked = _ranked(newcomers.select("product_id", "base_sid")).join(held, "base_sid", "left")
    # The rank-th number that is not among the sorted tokens: each token at or below it moves it up by one.
    token = F.aggregate(
        F.coalesce("tokens", F.array().cast("array<int>")),
        F.col("rank"),
        lambda number, held_token: F.when(held_token <= number, number + 1).otherwise(number),
    )
    return ranked.select("product_id", F.concat_ws("_", "base_sid", token.cast("string")).alias("placed"))


def _within_capacity(newcomers: DataFrame, taken: DataFrame, policy: Policy, candidates: Callable) -> DataFrame:
    """product_id and placed: the base SID while it has room, else the nearest last codeword of the prefix with room."""
    from pyspark.sql import functions as F

    assert policy.capacity is not None
    held = taken.groupBy(F.col("published_sid").alias("base_sid")).agg(F.count("*").alias("held"))
    ranked = _ranked(newcomers.select("product_id", "base_sid", "text_hash")).join(held, "base_sid", "left")
    fits = F.col("rank") + F.coalesce("held", F.lit(0)) < policy.capacity
    at_home = ranked.where(fits).select("product_id", F.col("base_sid").alias("placed"))
    homeless = ranked.where(~fits).select(
        "product_id", "text_hash", prefix_of(F.col("base_sid")).alias("prefix"), F.xxhash64("product_id").alias("turn")
    )
    waiting = homeless.join(candidates(homeless.select("product_id", "text_hash")), "product_id")
    occupied = (
        taken.select("published_sid")
        .unionAll(at_home.select("placed"))
        .groupBy(prefix_of(F.col("published_sid")).alias("prefix"), last_of(F.col("published_sid")).alias("code"))
        .agg(F.count("*").alias("held"))
        .join(homeless.select("prefix").distinct(), "prefix", "left_semi")
    )
    moved = (
        waiting.select("prefix", "product_id", "turn", "candidates")
        .groupBy("prefix")
        .cogroup(occupied.groupBy("prefix"))
        .applyInArrow(fill_prefix(policy.capacity), PLACED_DDL)
    )
    return at_home.unionAll(moved)


def fill_prefix(capacity: int) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """The function that runs in the workers: places the products of one prefix one after another.

    It takes those that wait (prefix, product_id, turn, candidates) and what is occupied under the prefix (code, held),
    and gives `PLACED`.
    """

    def run(waiting: pa.Table, occupied: pa.Table) -> pa.Table:
        if not len(waiting):
            return PLACED.empty_table()
        waiting = waiting.sort_by([("turn", "ascending"), ("product_id", "ascending")])
        nearest = np.stack([np.frombuffer(row.as_py(), "<i2") for row in waiting["candidates"]])
        room = np.full(nearest.shape[1], capacity)
        np.subtract.at(room, occupied["code"].to_numpy(), occupied["held"].to_numpy())
        prefix = waiting["prefix"][0].as_py()
        placed: list[str | None] = []
        for order in nearest:
            free = room[order] > 0
            first = int(free.argmax())
            if not free[first]:
                placed.append(None)
                continue
            room[order[first]] -= 1
            placed.append(f"{prefix}_{order[first]}")
        return pa.table({"product_id": waiting["product_id"], "placed": placed}, schema=PLACED)

    return run
