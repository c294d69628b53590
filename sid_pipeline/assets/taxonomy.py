"""The first stage of the release plane: pin the release, export its category tree, and keep it up to date.

A release that is pinned follows its source as long as the changes are minor: the tree gets a new revision, the
codebooks stay. A major change leaves the release as it is and says that a new one is due.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from pydantic import Field

from sid_pipeline.assets.recording import (
    Check,
    Markdown,
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
    table_metadata,
)
from sid_pipeline.embedders import current_id
from sid_pipeline.files import digest
from sid_pipeline.partitions import from_snapshots, releases
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import SERVED, TRIAL, Release, find_release, need_release, newest_release, write_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, PRODUCTS, TAXONOMY_CHANGES, TAXONOMY_NODES
from sid_pipeline.settings import Settings, TaxonomySettings
from sid_pipeline.taxonomy.diff import MAJOR
from sid_pipeline.taxonomy.tree import Problem, Taxonomy, TaxonomyError
from sid_pipeline.taxonomy_source import (
    SAME,
    TAXONOMY,
    Change,
    against,
    category_counts,
    newest_snapshot,
    node_rows,
    read_source,
    release_tree,
    source_fingerprint,
)

NO_PREDECESSOR = "none"
READABLE = "source_is_readable"


class ReleaseConfig(dg.Config):
    """What a new release is pinned to; a release that exists keeps its pins."""

    taxonomy_source: str | None = Field(
        None, description="Taxonomy file, or 'products'. Default: taxonomy.source of the settings."
    )
    training_snapshot: str | None = Field(
        None,
        description="Snapshot that the codebooks train on (YYYY-MM-DD). Default: the newest complete one.",
    )
    predecessor: str | None = Field(
        None,
        description="Release whose codes the new codebooks keep as far as they can, or "
        f"'{NO_PREDECESSOR}' for none. Default: the live release.",
    )
    trial: bool = Field(False, description="An analyst's release: compared with the live one, never live itself.")
    asked_by: str = Field("", description="Who asks for the release.")
    reason: str = Field("", description="Why.")


@dataclass(frozen=True)
class _Pins:
    """What a release stands on, and what its source holds now."""

    release: str
    pinned: Release | None
    values: dict[str, Any]
    fingerprint: str
    limits: TaxonomySettings
    unreadable: str = ""

    @property
    def inputs(self) -> dict[str, Any]:
        # Only where a person set it: what earlier versions made at the default does not name it, and still holds.
        bad = self.limits.max_bad_share
        set_to = {} if bad == TaxonomySettings().max_bad_share else {"max_bad_share": bad}
        return {**self.values, "source": self.fingerprint, "max_minor_share": self.limits.max_minor_share, **set_to}


def taxonomy_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The taxonomy of a release."""

    @dg.asset(
        name=TAXONOMY,
        deps=[from_snapshots(PRODUCTS.name)],
        description=f"{TAXONOMY_NODES.description} Materialising it pins the release in the ledger, and later brings "
        "its tree up to date where the source changed little; what changed is in its metadata and in the table "
        "taxonomy_changes.",
        group_name="release",
        owners=settings.orchestration.owners,
        kinds={"spark", "deltalake"},
        metadata=table_metadata(TAXONOMY_NODES),
        partitions_def=releases,
        code_version="2",
        check_specs=[
            dg.AssetCheckSpec(
                READABLE,
                asset=TAXONOMY,
                description="The taxonomy source can be read and is no more broken than taxonomy.max_bad_share. A "
                "release that has its tree keeps it while this fails.",
            )
        ],
    )
    def taxonomy(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: ReleaseConfig
    ) -> dg.MaterializeResult:
        with stage_failures(context, warehouse, TAXONOMY):
            pins = _pins(warehouse, context.partition_key, config)
        if pins.unreadable:
            context.log.warning(f"the release keeps its tree: {pins.unreadable}")
        return materialise(
            context,
            warehouse.receipts,
            TAXONOMY,
            pins.inputs,
            lambda: _export(warehouse, pins, config),
        )

    return [taxonomy]


def _pins(warehouse: Warehouse, release: str, config: ReleaseConfig) -> _Pins:
    """What the release stands on: its pins in the ledger, or those that a new one takes.

    Raises:
        MissingInput: an input is missing, or a pinned release is asked for other pins.
        TaxonomyError: the source of a new release cannot be read.
    """
    settings, limits = warehouse.settings, warehouse.settings.taxonomy
    pinned = find_release(warehouse.tables, release)
    if pinned is None:
        before = newest_release(warehouse) if config.predecessor is None else None
        predecessor = config.predecessor or (before.release if before else NO_PREDECESSOR)
        if predecessor != NO_PREDECESSOR:
            need_release(warehouse.tables, predecessor)
        values: dict[str, Any] = {
            "taxonomy_source": config.taxonomy_source or settings.taxonomy.source,
            "training_snapshot": config.training_snapshot or newest_snapshot(warehouse),
            "embedder_ids": {
                name: current_id(warehouse, name)
                for name in sorted({e for f in settings.active_flavours.values() for e in f.embedders})
            },
            "predecessor": "" if predecessor == NO_PREDECESSOR else predecessor,
        }
        warehouse.receipts.need(PRODUCTS.name, values["training_snapshot"])
        fingerprint = source_fingerprint(warehouse, values["taxonomy_source"], values["training_snapshot"])
        return _Pins(release, None, values, fingerprint, limits)
    for name in ("taxonomy_source", "training_snapshot", "predecessor"):
        asked, has = getattr(config, name), getattr(pinned, name)
        if asked is not None and asked != (has or NO_PREDECESSOR):
            raise MissingInput(
                f"release {release!r} is pinned to {name} {has!r} and cannot take {asked!r}: add a new release"
            )
    values = {
        name: getattr(pinned, name) for name in ("taxonomy_source", "training_snapshot", "embedder_ids", "predecessor")
    }
    try:
        fingerprint = source_fingerprint(warehouse, pinned.taxonomy_source, newest_snapshot(warehouse))
        return _Pins(release, pinned, values, fingerprint, limits)
    except (TaxonomyError, MissingInput) as error:
        return _Pins(release, pinned, values, "unreadable", limits, str(error))


def _export(warehouse: Warehouse, pins: _Pins, config: ReleaseConfig) -> Outcome:
    if pins.pinned is None:
        return _pin(warehouse, pins, config)
    try:
        if pins.unreadable:
            raise TaxonomyError(pins.unreadable)
        newest = newest_snapshot(warehouse)
        paths = [path for path in category_counts(warehouse, newest) if path]
        tree = read_source(warehouse.settings, pins.values["taxonomy_source"], paths)
    except TaxonomyError as error:
        kept = release_tree(warehouse, pins.pinned)
        told = f"the source cannot be used, the release keeps its tree: {error}"
        return _outcome(warehouse, pins, kept, told, readable=False)
    change = against(warehouse, tree, pins.release, newest)
    if change.kind == SAME:
        return _outcome(warehouse, pins, change.newest, "the release's tree is the source's", problems=tree.problems)
    if change.kind == MAJOR:
        told = f"{_verdict(change)} The release keeps its tree: `sid taxonomy plan` shows more."
        return _outcome(warehouse, pins, change.newest, told, change.told, tree.problems)
    _write_nodes(warehouse, pins.release, [change.trained, change.tree], pins.values["training_snapshot"])
    _write_changes(warehouse, pins.release, change.trained.revision, change.tree.revision, change.told)
    return _outcome(warehouse, pins, change.tree, _verdict(change), change.told, tree.problems)


def _pin(warehouse: Warehouse, pins: _Pins, config: ReleaseConfig) -> Outcome:
    """Write a new release's tree, then its row of the ledger: a crash between costs a rerun."""
    values, predecessor = pins.values, pins.values["predecessor"]
    counts = category_counts(warehouse, values["training_snapshot"])
    tree = read_source(warehouse.settings, values["taxonomy_source"], [path for path in counts if path])
    problems = tree.problems
    told, sentence = None, "the first tree"
    if predecessor:
        change = against(warehouse, tree, predecessor, values["training_snapshot"])
        tree, told = change.tree, change.told
        sentence = f"against {predecessor}: {_verdict(change)}"
    _write_nodes(warehouse, pins.release, [tree], values["training_snapshot"])
    if told:
        _write_changes(warehouse, pins.release, told["old"]["revision"], tree.revision, told)
    cleaned = warehouse.receipts.get(CLEANED_ATTRIBUTES.name, values["training_snapshot"])
    write_release(
        warehouse,
        Release(
            release=pins.release,
            state=TRIAL if config.trial else SERVED,
            taxonomy_revision=tree.revision,
            cleaner_id=cleaned.facts["cleaner_id"] if cleaned else "",
            asked_by=config.asked_by,
            reason=config.reason,
            created_at=datetime.now(timezone.utc),
            **values,
        ),
    )
    return _outcome(warehouse, pins, tree, sentence, told, problems)


def _verdict(change: Change) -> str:
    from sid_pipeline.taxonomy.wording import verdict

    return verdict(change.told)


def _write_nodes(warehouse: Warehouse, release: str, trees: list[Taxonomy], snapshot: str) -> None:
    by_revision = {tree.revision: tree for tree in trees}
    rows = [row for tree in by_revision.values() for row in node_rows(tree, _placed(warehouse, tree, snapshot)[0])]
    frame = warehouse.spark.createDataFrame(rows, TAXONOMY_NODES.ddl(without=("release",)))
    warehouse.tables.replace(TAXONOMY_NODES, frame, release=release)


def _write_changes(warehouse: Warehouse, release: str, since: str, revision: str, told: Mapping[str, Any]) -> None:
    """Add the changes to the release's; those between the same two revisions are replaced."""
    from sid_pipeline.taxonomy.wording import KINDS

    spec = TAXONOMY_CHANGES
    rows = warehouse.tables.arrow(spec, release=release).drop_columns(["release"]).to_pylist()
    rows = [row for row in rows if (row["since"], row["revision"]) != (since, revision)]
    sentences = iter(told["sentences"])
    rows += [
        {
            "since": since,
            "revision": revision,
            "class": told["class"],
            "kind": kind,
            "sentence": next(sentences),
            "products": change["products"],
            "details": json.dumps(change, ensure_ascii=False, sort_keys=True),
        }
        for kind in KINDS
        for change in told[kind]
    ]
    frame = warehouse.spark.createDataFrame(rows, spec.ddl(without=("release",)))
    warehouse.tables.replace(spec, frame, release=release)


def _placed(warehouse: Warehouse, tree: Taxonomy, snapshot: str) -> tuple[dict[str, int], int, int]:
    """Products at each very node of a tree, and how many have no category and one that the tree does not know."""
    placed: dict[str, int] = {}
    uncategorised = unknown = 0
    for path, count in category_counts(warehouse, snapshot).items():
        node = tree.find(path) if path else None
        if node is not None:
            placed[node.node_id] = placed.get(node.node_id, 0) + count
        elif path:
            unknown += count
        else:
            uncategorised += count
    return placed, uncategorised, unknown


def _outcome(
    warehouse: Warehouse,
    pins: _Pins,
    tree: Taxonomy,
    sentence: str,
    told: Mapping[str, Any] | None = None,
    problems: tuple[Problem, ...] = (),
    readable: bool = True,
) -> Outcome:
    import numpy as np

    from sid_pipeline.taxonomy.paths import inner_products

    placed, uncategorised, unknown = _placed(warehouse, tree, pins.values["training_snapshot"])
    counts = np.array([placed.get(node.node_id, 0) for node in tree.nodes], np.int64)
    problems = (*problems, *inner_products(tree, counts))
    pinned = pins.pinned.taxonomy_revision if pins.pinned else tree.revision
    return Outcome(
        data_version=digest([tree.revision, sorted(placed.items())]),
        metadata={
            "dagster/row_count": len(tree.nodes),
            "leaves": sum(node.leaf for node in tree.nodes),
            "depth": tree.depth,
            "training snapshot": pins.values["training_snapshot"],
            "source": pins.values["taxonomy_source"],
            "revision": tree.revision,
            "revision of the codebooks": pinned,
            "change": sentence,
            **({"share touched": told["share_touched"], "changes": _listed(told)} if told else {}),
            "products without a category": uncategorised,
            "products of an unknown category": unknown,
            "problems": markdown_table(
                [{"node": p.node_id, "rule": p.rule, "message": p.message} for p in problems[:50]], width=160
            ),
            "top level": markdown_table(_roots(tree, placed)),
        },
        facts={"revision": tree.revision},
        checks=(Check(READABLE, readable, sentence, {"problems": len(problems)}),),
    )


def _listed(told: Mapping[str, Any]) -> Markdown:
    lines = [f"- {sentence}" for sentence in told["sentences"][:100]]
    more = len(told["sentences"]) - len(lines)
    return Markdown("\n".join([*lines, *([f"- and {more:,} more, in taxonomy_changes"] if more > 0 else [])]))


def _roots(tree: Taxonomy, placed: Mapping[str, int]) -> list[dict[str, Any]]:
    below: dict[str, list[int]] = {}
    for node in tree.nodes:
        entry = below.setdefault(node.path[0], [-1, 0])
        entry[0] += 1
        entry[1] += placed.get(node.node_id, 0)
    return [{"category": name, "nodes below": nodes, "products": count} for name, (nodes, count) in below.items()]
