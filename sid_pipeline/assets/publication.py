"""Making SIDs available: the immutable publication, and the pointer that names the live one."""

import dagster as dg

from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.evaluation import DIFF
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.recording import Outcome, markdown_table, materialise, plain_failures
from sid_pipeline.assets.training import CODEBOOK
from sid_pipeline.promotion import go_live
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.publication.publish import PublicationError, publication_folder
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import ACTIVE, OFFERS, SEMANTIC_IDS

PUBLICATION, LIVE = "publication", "live"


def publication_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`publication` and `live` of a flavour."""

    @flavour.asset(
        PUBLICATION,
        [flavour.key(SEMANTIC_IDS_STAGE)],
        "An immutable folder for consumers: product to SID, (retailer, SID) to products, the token vocabulary and "
        "the codebook, with a manifest of hashes written last.",
        {"spark", "parquet"},
        snapshot_deps=[OFFERS.name],
    )
    def publication(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with plain_failures():
            assigned = warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release)
            _refuse_failed(assigned)
            snapshot = assigned.facts["as_of_snapshot"]
            offers = warehouse.receipts.need(OFFERS.name, snapshot)
        pins = {
            "flavour": flavour.name,
            "release": release,
            "as_of_snapshot": snapshot,
            "codebook_id": assigned.facts["codebook_id"],
            "semantic_ids": assigned.data_version,
            "offers": offers.data_version,
        }
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(PUBLICATION),
            pins,
            lambda: _publish(warehouse, flavour, release, pins),
            still_there=lambda receipt: (warehouse.state / receipt.facts["folder"] / "manifest.json").is_file(),
        )

    @flavour.asset(
        LIVE,
        # The diff compares with what was live before, so it comes first.
        [flavour.key(PUBLICATION), flavour.key(DIFF)],
        "The pointer that readers follow. Newer data of the live release advances it; another release waits until "
        "a person promotes it.",
        {"json"},
    )
    def live(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with plain_failures():
            published = warehouse.receipts.need(flavour.key(PUBLICATION), release)
        pointer = read_pointer(warehouse.state, flavour.name)
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(LIVE),
            {
                "publication": published.facts["folder"],
                "live before": pointer["publication"] if pointer else None,
            },
            lambda: _advance(warehouse, flavour, release, published),
        )

    return [publication, live]


def _refuse_failed(assigned: Receipt) -> None:
    """A blocking check stops downstream work only inside its own run; this holds for any later run too."""
    failed = [check for check in assigned.checks if not check["passed"]]
    if failed:
        raise PublicationError(
            f"{assigned.asset} of {assigned.partition!r} failed {failed[0]['name']}: {failed[0]['sentence']} "
            "Nothing is published; what is live stays."
        )


def _publish(warehouse: Warehouse, flavour: Flavour, release: str, pins: dict[str, str]) -> Outcome:
    from sid_pipeline.publication.publish import publish
    from sid_pipeline.rqvae import Codebook

    tables = warehouse.tables
    trained = warehouse.receipts.need(flavour.key(CODEBOOK), release)
    codebook_folder = warehouse.state / trained.facts["folder"]
    codebook = Codebook.load(codebook_folder)
    offers = tables.read(OFFERS, snapshot=pins["as_of_snapshot"]) if warehouse.settings.source.offers else None
    folder = publication_folder(warehouse.publications, flavour.name, release, pins["as_of_snapshot"], pins)
    sids = tables.read(SEMANTIC_IDS, flavour=flavour.name, release=release).where(ACTIVE)
    codebooks = [row["codebook_id"] for row in sids.select("codebook_id").distinct().collect()]
    if codebooks != [pins["codebook_id"]]:
        raise PublicationError(
            f"the SIDs of {flavour.name} {release} are of {codebooks}, not of the codebook that their last "
            "materialisation named: materialise semantic_ids again"
        )
    manifest = publish(
        folder,
        sids,
        offers,
        codebook_folder,
        codebook.levels,
        codebook.codebook_size,
        pins,
    )
    return Outcome(
        data_version=folder.name,
        metadata={
            "folder": str(folder),
            **{f"rows of {name}": rows for name, rows in manifest["rows"].items()},
            "files": markdown_table([{"file": n, "SHA-256": sha} for n, sha in manifest["files"].items()]),
        },
        facts={
            "folder": folder.relative_to(warehouse.state).as_posix(),
            "as_of_snapshot": pins["as_of_snapshot"],
            "codebook_id": pins["codebook_id"],
        },
    )


def _advance(warehouse: Warehouse, flavour: Flavour, release: str, published: Receipt) -> Outcome:
    outcome = go_live(warehouse, flavour.name, release, by="pipeline", reason="checks passed", switch=False)
    return Outcome(
        data_version=f"{outcome.live['release']}-{outcome.live['publication']}",
        metadata={
            "what happened": outcome.sentence,
            "live release": outcome.live["release"],
            "live as of": outcome.live["as_of_snapshot"],
            "live publication": outcome.live["publication"],
        },
    )
