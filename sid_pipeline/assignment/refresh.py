"""Bringing a slice of SEMANTIC_IDS to a snapshot: decides what has to be assigned, and writes it in one commit.

An empty slice and one of another codebook are assigned wholly; otherwise only what changed is touched, and where
nothing did, nothing is written. `inspect` then looks at the whole slice once, for the checks and the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sid_pipeline.assignment.assign import Assigner, Catalogue
from sid_pipeline.assignment.collisions import PolicyError
from sid_pipeline.resources.tables import SliceMoved, Tables, fingerprint_figures, fingerprint_of
from sid_pipeline.schemas import ACTIVE, ASSIGNED, SEMANTIC_IDS
from sid_pipeline.settings import check_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TRIES = 3
FINGERPRINTED = ("product_id", "base_sid", "published_sid", "codebook_id", "withdrawn_on")


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did. `touched`: rows written; `whole`: whether the whole slice was assigned."""

    touched: int
    whole: bool


class OlderSnapshot(ValueError):
    """The slice stands on a newer snapshot, `standing`."""

    def __init__(self, standing: str) -> None:
        super().__init__(f"the slice stands on the newer snapshot {standing}")
        self.standing = standing


def refresh(
    tables: Tables, catalogue: Catalogue, assigner: Assigner, flavour: str, release: str, *, force: bool = False
) -> Refreshed:
    """Bring a slice to the assigner's snapshot.

    When another process writes the slice meanwhile, the work is done again on what that process wrote.

    Args:
        force: also to one that is older than what the slice stands on.

    Raises:
        OlderSnapshot: it is older.
        KeyNotAllowed: the flavour or the release could leave its slice.
        PolicyError: the slice was published under another collision policy.
        SliceMoved: other processes wrote the slice each time.
    """
    slice = {kind: check_key(kind, key) for kind, key in (("flavour", flavour), ("release", release))}
    for attempt in range(1, TRIES + 1):
        try:
            return _refresh(tables, catalogue, assigner, slice, force)
        except SliceMoved:
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


def _refresh(tables: Tables, catalogue: Catalogue, assigner: Assigner, slice: dict[str, str], force: bool) -> Refreshed:
    since = tables.ensure(SEMANTIC_IDS)
    last = tables.last_commit(SEMANTIC_IDS, **slice)
    if last is not None and assigner.as_of_snapshot < last["as_of_snapshot"] and not force:
        raise OlderSnapshot(last["as_of_snapshot"])
    current = tables.read(SEMANTIC_IDS, version=since, **slice)
    stamps = _stamps(tables, current, since, slice)
    others = {policy for _, policy in stamps} - {str(assigner.policy)}
    if others:
        raise PolicyError(
            f"release {slice['release']!r} of {slice['flavour']!r} is published with collision policy "
            f"{', '.join(sorted(others))}, the settings say {assigner.policy}: its readers know those SIDs, so go "
            "back, or add a new release"
        )
    metadata = {
        "as_of_snapshot": assigner.as_of_snapshot,
        "codebook_id": assigner.codebook.id,
        "collision_policy": str(assigner.policy),
    }
    if {codebook for codebook, _ in stamps} != {assigner.codebook.id}:
        with assigner.assign_all(catalogue, current if stamps else None) as rows:
            touched = tables.replace(SEMANTIC_IDS, rows, metadata=metadata, since=since, **slice)
        return Refreshed(touched, whole=True)
    with assigner.assign_changed(catalogue, current) as (rows, touched):
        if touched:
            tables.merge(SEMANTIC_IDS, rows, metadata=metadata, since=since, **slice)
    return Refreshed(touched, whole=False)


def _stamps(tables: Tables, current: DataFrame, version: int, slice: dict[str, str]) -> set[tuple[str, str]]:
    """The codebooks and collision policies that a slice's rows were made with; read from the rows only where the log
    does not say that they are all the same."""
    from pyspark.sql import functions as F

    columns = ("codebook_id", "collision_policy")
    same = tables.the_only(SEMANTIC_IDS, columns, version, **slice)
    if same is not None:
        return {(same["codebook_id"], same["collision_policy"])}
    policy = F.coalesce("collision_policy", F.lit("share"))
    return {(row[0], row[1]) for row in current.select("codebook_id", policy).distinct().collect()}


@dataclass(frozen=True)
class Contents:
    """What a slice holds, in short.

    Attributes:
        assigned, unassigned: active products with a SID, and without one.
        withdrawn: tombstones.
        codebooks, policies: that the active rows were made with, sorted.
        fingerprint: as of `Inspection`.
    """

    assigned: int
    unassigned: int
    withdrawn: int
    codebooks: list[str]
    policies: list[str]
    fingerprint: str


def look(slice: DataFrame) -> Contents:
    """Look at a slice of SEMANTIC_IDS once, quickly."""
    from pyspark.sql import functions as F

    here = F.expr(ACTIVE)
    figures = slice.agg(
        F.count(F.when(here & F.expr(ASSIGNED), True)).alias("assigned"),
        F.count(F.when(here & ~F.expr(ASSIGNED), True)).alias("unassigned"),
        F.count(F.when(~here, True)).alias("withdrawn"),
        F.collect_set(F.when(here, F.col("codebook_id"))).alias("codebooks"),
        F.collect_set(F.when(here, F.col("collision_policy"))).alias("policies"),
        *fingerprint_figures(*FINGERPRINTED),
    ).collect()[0]
    return Contents(
        assigned=figures["assigned"],
        unassigned=figures["unassigned"],
        withdrawn=figures["withdrawn"],
        codebooks=sorted(figures["codebooks"]),
        policies=sorted(figures["policies"]),
        fingerprint=fingerprint_of(figures),
    )


@dataclass(frozen=True)
class Inspection:
    """One look at a whole slice.

    Attributes:
        active: rows of active products; withdrawn: tombstones.
        assigned: active products with a published SID.
        distinct: distinct published SIDs of active products.
        unexplained: active products with neither SID nor reason.
        bad_codes: rows with a code out of range, or a SID that does not spell its codes.
        out_of_distribution: active products that are far from all that the codebook has seen.
        mean_distance: mean squared distance of the assigned ones, 0.0 when there are none.
        used: codewords in use per level.
        changes: rows by what last touched them, of those that the snapshot touched.
        same_products: whether the active rows are the snapshot's products, each once.
        fingerprint: content hash of the columns of `FINGERPRINTED`.
    """

    active: int
    withdrawn: int
    assigned: int
    distinct: int
    unexplained: int
    bad_codes: int
    out_of_distribution: int
    mean_distance: float
    used: Sequence[int]
    changes: dict[str, int]
    same_products: bool
    fingerprint: str


def inspect(slice: DataFrame, products: DataFrame, levels: int, codebook_size: int, as_of_snapshot: str) -> Inspection:
    """Look at a slice of SEMANTIC_IDS and the products that it should hold.

    Row sets are compared by count, xor and sum of 64-bit hashes of the product ids, so that nothing is shuffled.
    """
    from pyspark.sql import functions as F

    from sid_pipeline.schemas import CHANGES

    def same(frame: DataFrame) -> list:
        hashed = F.xxhash64("product_id")
        return [F.count("*"), F.bit_xor(hashed), F.sum(hashed.bitwiseAND(F.lit(0x7FFFFFFF)))]

    code, here = F.col("codes"), F.expr(ACTIVE)
    spelt = F.array_join(F.transform(code, lambda c: c.cast("string")), "_")
    out_of_range = F.exists(code, lambda c: (c < 0) | (c >= codebook_size))
    tonight = F.col("as_of_snapshot") == as_of_snapshot
    assigned = F.expr(ASSIGNED)

    def count(condition):
        return F.count(F.when(condition, True))

    figures = slice.agg(
        count(here).alias("active"),
        count(~here).alias("withdrawn"),
        count(here & assigned).alias("assigned"),
        count(here & ~assigned & F.col("reason").isNull()).alias("unexplained"),
        count(out_of_range | (spelt != F.col("base_sid"))).alias("bad_codes"),
        count(here & F.col("out_of_distribution")).alias("out_of_distribution"),
        F.avg(F.when(here, F.col("distance"))).alias("mean_distance"),
        *[F.size(F.collect_set(F.when(here, code[level]))).alias(f"used_{level}") for level in range(levels)],
        *[count(tonight & (F.col("change") == name)).alias(name) for name in CHANGES],
        *fingerprint_figures(*FINGERPRINTED),
    ).collect()[0]
    active = slice.where(ACTIVE)
    distinct = active.where(ASSIGNED).select(F.countDistinct("published_sid")).collect()[0][0]
    return Inspection(
        active=figures["active"],
        withdrawn=figures["withdrawn"],
        assigned=figures["assigned"],
        distinct=distinct,
        unexplained=figures["unexplained"],
        bad_codes=figures["bad_codes"],
        out_of_distribution=figures["out_of_distribution"],
        mean_distance=figures["mean_distance"] or 0.0,
        used=[figures[f"used_{level}"] for level in range(levels)],
        changes={name: figures[name] for name in CHANGES if figures[name]},
        same_products=active.agg(*same(active)).collect() == products.agg(*same(products)).collect(),
        fingerprint=fingerprint_of(figures),
    )
