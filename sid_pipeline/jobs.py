"""The jobs: none mixes the planes, because a run has one partition dimension.

relevance_model    labels and the relevance model (not partitioned)
snapshot_refresh   a night's catalogue, cleaning and embeddings
release_build      a whole vocabulary release: taxonomy, codebooks, SIDs, publication
sid_refresh        newer data through a release's frozen codebooks: SIDs, publication, live
taxonomy_revision  a minor change of the taxonomy: a release's tree and the names of its prefixes; no SID moves
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

from sid_pipeline.assets import assignment, publication
from sid_pipeline.assets.codebook_diff import DIFF
from sid_pipeline.assets.comparison import COMPARISON
from sid_pipeline.assets.embeddings import embeddings_key
from sid_pipeline.assets.explorer import EXPLORER
from sid_pipeline.assets.names import NAMES
from sid_pipeline.assets.relevance import ESCI_MODEL, RELEVANCE_LABELS
from sid_pipeline.assets.report import REPORT
from sid_pipeline.assets.snapshot import CATALOGUE
from sid_pipeline.assets.training import CODEBOOK, TRAINING_SET
from sid_pipeline.partitions import releases, snapshots
from sid_pipeline.schemas import CLEANED_ATTRIBUTES
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy_source import TAXONOMY

RELEVANCE_MODEL, SNAPSHOT_REFRESH, RELEASE_BUILD, SID_REFRESH, TAXONOMY_REVISION = (
    "relevance_model",
    "snapshot_refresh",
    "release_build",
    "sid_refresh",
    "taxonomy_revision",
)


def build_jobs(settings: Settings) -> dict[str, Job]:
    """The jobs by name."""
    flavours = settings.active_flavours
    used = {name for flavour in flavours.values() for name in flavour.embedders}
    refreshed = [
        assignment.STAGE,
        REPORT,
        NAMES,
        DIFF,
        publication.PUBLICATION,
        publication.LIVE,
    ]

    def of_flavours(stages: list[str]) -> list[dg.AssetKey]:
        return [dg.AssetKey([flavour, stage]) for flavour in flavours for stage in stages]

    together = [dg.AssetKey(COMPARISON), dg.AssetKey(EXPLORER)]
    jobs = [
        dg.define_asset_job(
            RELEVANCE_MODEL,
            dg.AssetSelection.assets(RELEVANCE_LABELS, ESCI_MODEL),
            description="Read the relevance labels; judge the relevance model on them, and train it where asked.",
        ),
        dg.define_asset_job(
            SNAPSHOT_REFRESH,
            dg.AssetSelection.assets(
                *CATALOGUE, CLEANED_ATTRIBUTES.name, *[embeddings_key(name) for name in sorted(used)]
            ),
            description="A night's catalogue: products, cleaning, embeddings. Only what changed is paid for.",
            partitions_def=snapshots(settings.snapshots),
        ),
        dg.define_asset_job(
            RELEASE_BUILD,
            dg.AssetSelection.assets(TAXONOMY, *of_flavours([TRAINING_SET, CODEBOOK, *refreshed]), *together),
            description="Build a vocabulary release from the newest complete snapshot, or bring it up to date.",
            partitions_def=releases,
        ),
        dg.define_asset_job(
            SID_REFRESH,
            dg.AssetSelection.assets(*of_flavours(refreshed), *together),
            description="Refresh the SIDs of a release at the newest complete snapshot; its codebooks stay.",
            partitions_def=releases,
        ),
        dg.define_asset_job(
            TAXONOMY_REVISION,
            dg.AssetSelection.assets(TAXONOMY, *of_flavours([NAMES])),
            description="Bring a release's tree and prefix names up to date with a minor change of the taxonomy; "
            "its codebooks serve on and no SID moves.",
            partitions_def=releases,
        ),
    ]
    return {job.name: job for job in jobs}
