"""Making SIDs available: the immutable publication, and the pointer that names the live one."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from sid_pipeline.alerts import Alert, tell
from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.codebook_diff import DIFF
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.recording import Check, Outcome, markdown_table, materialise, stage_failures
from sid_pipeline.assets.report import REPORT
from sid_pipeline.assets.training import CODEBOOK
from sid_pipeline.assignment.collisions import has_further_token
from sid_pipeline.promotion import OFFERS_ARE_THERE, PIPELINE, PRODUCTS_ARE_THERE, go_live
from sid_pipeline.promotion_log import standing_hold
from sid_pipeline.publication.folder import PRODUCT_SIDS, UNASSIGNED, WITHDRAWN, PublicationError
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.publication.store import MANIFEST
from sid_pipeline.receipts import Receipt
from sid_pipeline.releases import find_release, release_to_build
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import OFFERS, SEMANTIC_IDS
from sid_pipeline.settings import Settings
from sid_pipeline.watch import what_is_served

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PUBLICATION, LIVE = "publication", "live"
GATES = {
    "sids_are_sound": "The blocking checks of the SIDs passed when they were published.",
    "one_vocabulary": "Within a release: the codebook, embedders and collision policy of what is live.",
    PRODUCTS_ARE_THERE: "No more of the active products of what is live are missing than [publication] "
    "max_product_drop lets pass, or a person accepted it.",
    OFFERS_ARE_THERE: "No more of the offers that readers find products by are missing than [publication] "
    "max_offer_drop lets pass, or a person accepted it.",
    "not_worse_than_live": "Codes in use, collisions and near-duplicates that share a prefix are not worse than "
    "those of what is live by more than the tolerances of the settings ([publication]).",
}


def publication_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`publication` and `live` of a flavour."""

    @flavour.asset(
        PUBLICATION,
        [flavour.key(SEMANTIC_IDS_STAGE), flavour.key(REPORT)],
        "An immutable folder for consumers: product to SID, (retailer, SID) to products, tokens and their vectors, "
        "the constrained-decoding index, the delta to the publication before, the codebook and a data card, with a "
        "manifest of hashes written last.",
        {"spark", "parquet"},
        snapshot_deps=[OFFERS.name],
        freshness_policy=_freshness(flavour.settings),
    )
    def publication(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(PUBLICATION)):
            assigned = warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release)
            _refuse_failed(assigned)
            report = warehouse.receipts.need(flavour.key(REPORT), release)
            if report.inputs["semantic_ids"] != assigned.data_version:
                raise PublicationError(f"{flavour.key(REPORT)} of {release!r} is older than the SIDs: materialise it")
            snapshot = assigned.facts["as_of_snapshot"]
            offers = warehouse.receipts.need(OFFERS.name, snapshot)
            pinned = release_to_build(warehouse.tables, release)
        pins = {
            "flavour": flavour.name,
            "release": release,
            "as_of_snapshot": snapshot,
            "codebook_id": assigned.facts["codebook_id"],
            "embedders": {name: pinned.embedder_ids.get(name) for name in flavour.embedders},
            "taxonomy_revision": pinned.taxonomy_revision,
            "training_snapshot": pinned.training_snapshot,
            "semantic_ids": assigned.data_version,
            "offers": offers.data_version,
            "report": report.data_version,
        }
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(PUBLICATION),
            {**pins, "root": warehouse.settings.publication.root},
            lambda: _publish(warehouse, flavour, release, pins, assigned, report),
            still_there=lambda receipt: warehouse.store.exists(f"{receipt.facts['folder']}/{MANIFEST}"),
        )

    @flavour.asset(
        LIVE,
        # The diff compares with what was live before, so it comes first.
        [flavour.key(PUBLICATION), flavour.key(DIFF)],
        "The pointer that readers follow. Newer data of the live release advances it when its checks pass and nobody "
        "holds the flavour; another release waits until a person promotes it.",
        {"json"},
        check_specs=[
            dg.AssetCheckSpec(name, asset=dg.AssetKey([flavour.name, LIVE]), description=description)
            for name, description in GATES.items()
        ],
    )
    def live(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(LIVE)):
            published = warehouse.receipts.need(flavour.key(PUBLICATION), release)
            pointer = read_pointer(warehouse.store, flavour.name)
            ledger = find_release(warehouse.tables, release)
        held = standing_hold(warehouse, flavour.name)
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(LIVE),
            {
                "publication": published.facts["folder"],
                "live before": pointer["publication"] if pointer else None,
                "held since": held["at"].isoformat() if held else None,
                "state": ledger.state if ledger else None,
                "tolerances": warehouse.settings.publication.tolerances,
                "product drop": warehouse.settings.publication.max_product_drop,
                "offer drop": warehouse.settings.publication.max_offer_drop,
            },
            lambda: _advance(warehouse, flavour, release, published.facts["as_of_snapshot"], context.log.warning),
        )

    return [publication, live]


def _freshness(settings: Settings) -> dg.FreshnessPolicy:
    """A publication every night, as late as its input may be; failing when readers would be told that theirs is old."""
    late = timedelta(minutes=settings.alerts.late_after_minutes)
    return dg.FreshnessPolicy.time_window(
        warn_window=timedelta(days=1) + late,
        fail_window=timedelta(days=settings.alerts.stale_after_days) + 2 * late,
    )


def _refuse_failed(assigned: Receipt) -> None:
    """A blocking check stops downstream work only inside its own run; this holds for any later run too."""
    failed = [check for check in assigned.checks if not check["passed"]]
    if failed:
        raise PublicationError(
            f"{assigned.asset} of {assigned.partition!r} failed {failed[0]['name']}: {failed[0]['sentence']} "
            "Nothing is published; what is live stays."
        )


def _publish(
    warehouse: Warehouse, flavour: Flavour, release: str, pins: dict, assigned: Receipt, report: Receipt
) -> Outcome:
    from sid_pipeline.assignment.refresh import look
    from sid_pipeline.publication.card import Facts
    from sid_pipeline.publication.publish import Source, publish
    from sid_pipeline.publication.stage import stage
    from sid_pipeline.rqvae import Codebook

    tables = warehouse.tables
    trained = warehouse.receipts.need(flavour.key(CODEBOOK), release)
    codebook_folder = warehouse.state / trained.facts["folder"]
    codebook = Codebook.load(codebook_folder)
    offers = _offers(warehouse, pins["as_of_snapshot"], pins["offers"]) if warehouse.settings.source.offers else None
    # One version throughout: another process may refresh the slice meanwhile.
    sids = tables.read(SEMANTIC_IDS, version=tables.version(SEMANTIC_IDS), flavour=flavour.name, release=release)
    seen = look(sids)
    if seen.fingerprint != assigned.data_version:
        raise PublicationError(
            f"the SIDs of {flavour.name} {release} are no longer those of {pins['as_of_snapshot']} that were checked: "
            "they were refreshed meanwhile, or that did not come to its end. Nothing is published of them; refresh the "
            "release again"
        )
    codebooks, policies = seen.codebooks, seen.policies
    if codebooks != [pins["codebook_id"]] or len(policies) > 1:
        raise PublicationError(
            f"the SIDs of {flavour.name} {release} are of codebooks {codebooks} and collision policies {policies}, "
            f"their last materialisation said {pins['codebook_id']} and one policy: materialise semantic_ids again"
        )
    collision = policies[0] if policies else "share"
    source = Source(
        flavour=flavour.name,
        release=release,
        snapshot=pins["as_of_snapshot"],
        pins={**pins, "collision": collision},
        stage=lambda folder: stage(folder, sids, offers),
        expected={PRODUCT_SIDS: seen.assigned, UNASSIGNED: seen.unassigned, WITHDRAWN: seen.withdrawn},
        codebook=codebook_folder,
        codewords=codebook.arrays["codewords"],
        further=has_further_token(collision),
        facts=Facts(
            lineage={**pins, "collision": collision, "products of the snapshot": assigned.inputs["products"]},
            quality=report.facts["headline"],
            checks=assigned.checks,
        ),
    )
    with warehouse.spool("publication") as spool:
        published = publish(warehouse.store, source, spool)
    manifest = published.manifest
    parent = manifest["parent"]
    return Outcome(
        data_version=published.folder.rsplit("/", 1)[-1],
        metadata={
            "folder": f"{warehouse.published}/{published.folder}",
            "parent": parent["folder"] if parent else "none",
            **{f"rows of {name}": rows for name, rows in manifest["rows"].items()},
            "files": markdown_table([{"file": n, "SHA-256": sha} for n, sha in manifest["files"].items()]),
        },
        facts={
            "folder": published.folder,
            "as_of_snapshot": pins["as_of_snapshot"],
            "codebook_id": pins["codebook_id"],
        },
    )


def _offers(warehouse: Warehouse, day: str, version: str) -> "DataFrame":
    """A day's offers as they were pinned, whatever becomes of the day while they are read.

    Raises:
        PublicationError: the day is taken anew, or was since.
    """
    frame = warehouse.tables.read(OFFERS, version=warehouse.tables.version(OFFERS), snapshot=day)
    # Who takes a day anew says so before the table changes, so what is still said now holds for the version above.
    told = warehouse.receipts.get(OFFERS.name, day)
    if told is None or told.data_version != version:
        raise PublicationError(
            f"the offers of {day} are taken anew, or were while this was under way: nothing is published of them; "
            "publish again once they are there"
        )
    return frame


def _advance(warehouse: Warehouse, flavour: Flavour, release: str, day: str, warn: Callable[[str], None]) -> Outcome:
    outcome = go_live(warehouse, flavour.name, release, by=PIPELINE, reason="checks passed", switch=False)
    failed = [f"{name}: {check.sentence}" for name, check in outcome.checks.items() if not check.passed]
    if failed and standing_hold(warehouse, flavour.name) is None:
        for fault in tell(warehouse.settings, _not_advanced(warehouse, flavour.name, release, day, failed)):
            warn(fault)
    live = outcome.live or {"release": "none", "as_of_snapshot": "none", "publication": "none"}
    not_asked = "not asked: nothing else was live, or nothing was to go live"
    return Outcome(
        data_version=f"{live['release']}-{live['publication'].rsplit('/', 1)[-1]}",
        metadata={
            "what happened": outcome.sentence,
            "live release": live["release"],
            "live as of": live["as_of_snapshot"],
            "live publication": live["publication"],
        },
        checks=tuple(
            Check(name, check.passed, check.sentence, _flat(check.figures))
            if (check := outcome.checks.get(name)) is not None
            else Check(name, True, not_asked)
            for name in GATES
        ),
    )


def _not_advanced(warehouse: Warehouse, flavour: str, release: str, day: str, failed: list[str]) -> Alert:
    return Alert(
        "not_advanced",
        f"{flavour} {release} as of {day} did not go live",
        "\n".join(failed),
        what_is_served(warehouse),
        "What is said above; docs/runbook.md says more. The next night is held against what is live again.",
    )


def _flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """A check's figures one by one, as Dagster shows and plots them."""
    compared = figures.get("compared", {})
    return {f"{name} {side}": value for name, row in compared.items() for side, value in row.items()}
