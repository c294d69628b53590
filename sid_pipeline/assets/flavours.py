"""The factory of flavours: one `FlavourSpec` in the settings becomes one chain of assets under its own key prefix.

The stages themselves are in the sibling modules `training`, `assignment`, `report`, `names`, `codebook_diff` and
`publication`; here is what they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from sid_pipeline.assignment.collisions import Policy
from sid_pipeline.partitions import from_snapshots, releases
from sid_pipeline.receipts import MissingInput, Receipt, newest_complete_snapshot
from sid_pipeline.releases import Release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS
from sid_pipeline.settings import FlavourSpec, Settings


@dataclass(frozen=True)
class Flavour:
    """A flavour under construction: its name, its spec, and the settings they come from."""

    name: str
    spec: FlavourSpec
    settings: Settings

    def key(self, stage: str) -> str:
        """Asset key of a stage, steps joined by '/'."""
        return f"{self.name}/{stage}"

    def asset(
        self,
        stage: str,
        deps: Sequence[str],
        description: str,
        kinds: set[str],
        snapshot_deps: Sequence[str] = (),
        code_version: str = "1",
        **more: Any,
    ) -> Any:
        """`dg.asset` with what all stages of a flavour share; `deps` are of the release plane."""
        return dg.asset(
            name=stage,
            code_version=code_version,
            key_prefix=[self.name],
            deps=[*[dg.AssetDep(dg.AssetKey(d.split("/"))) for d in deps], *map(from_snapshots, snapshot_deps)],
            description=description,
            group_name=self.name,
            owners=self.settings.orchestration.owners,
            kinds=kinds,
            partitions_def=releases,
            **more,
        )

    @property
    def embedders(self) -> list[str]:
        """Names of the embedders, in the order their vectors are joined."""
        return list(self.spec.embedders)

    @property
    def joined(self) -> list[list[Any]]:
        """Embedders and weights in their order, JSON-able: what a codebook's input space depends on."""
        return [[name, weight] for name, weight in self.spec.embedders.items()]

    @property
    def policy(self) -> Policy:
        """How published SIDs are made from base SIDs."""
        return Policy(self.spec.collision, self.spec.capacity)

    @property
    def weights(self) -> list[float]:
        """One weight per embedder."""
        return list(self.spec.embedders.values())


def embedding_receipts(warehouse: Warehouse, flavour: Flavour, release: Release, snapshot: str) -> list[Receipt]:
    """Receipts of a flavour's embeddings of a snapshot, with the data version of the release's own embedders.

    Raises:
        MissingInput: one is missing, older than the snapshot's products, or by another embedder or cleaner.
    """
    products = warehouse.receipts.need(PRODUCTS.name, snapshot)
    receipts = []
    for name in flavour.embedders:
        key = f"{name}_embeddings"
        receipt = warehouse.receipts.need(key, snapshot)
        if receipt.inputs["products"] != products.data_version:
            raise MissingInput(f"{key} of {snapshot} is older than its products: materialise it again")
        pinned = release.embedder_ids.get(name)
        versions = receipt.facts["embedder_ids"]
        if pinned not in versions:
            raise MissingInput(
                f"{key} of {snapshot} is by {', '.join(versions)}, but release {release.release!r} is pinned to "
                f"{pinned}: vectors of two embedders never meet in one codebook. Materialise {key} of {snapshot} again "
                "(it encodes for every release in use), or add a new release"
            )
        cleaner = receipt.inputs.get("cleaner_id")  # None where the embedder reads the product's own text
        if cleaner and release.cleaner_id and cleaner != release.cleaner_id:
            raise MissingInput(
                f"{key} of {snapshot} stands on attributes cleaned by {cleaner}, but release {release.release!r} is "
                f"pinned to {release.cleaner_id}: its SIDs would change their meaning. Go back to that cleaner's "
                "settings, or add a new release"
            )
        receipts.append(replace(receipt, data_version=versions[pinned]))
    return receipts


def check_joined(flavour: Flavour, training_set: Receipt) -> None:
    """Raise MissingInput when a flavour now joins other embeddings, weights or order than its codebook knows."""
    if training_set.inputs["embedders"] != flavour.joined:
        raise MissingInput(
            f"release {training_set.partition!r} of {flavour.name} joins {training_set.inputs['embedders']}, the "
            f"settings say {flavour.joined}: go back, or add a new release"
        )


def choose_snapshot(warehouse: Warehouse, flavour: Flavour, asked: str | None) -> str:
    """The snapshot that a release-plane run stands on: the one asked for, else the newest complete one."""
    return asked or newest_complete_snapshot(warehouse.receipts, warehouse.settings, flavour.name)
