"""The web UI as an analyst uses it: a real webserver and daemon, backfills of several days and several releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from sid_pipeline.reader import open_live, open_release
from sid_pipeline.sample import generate
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2, SETTINGS
from sid_pipeline_tests.e2e.graphql import ADD_PARTITION, MATERIALISATIONS

pytestmark = pytest.mark.slow

FLAVOUR_STAGES = ("training_set", "codebook", "semantic_ids", "report", "codebook_diff", "publication", "live")
SNAPSHOT_ASSETS = [
    ["products"], ["offers"], ["rejected_products"], ["cleaned_attributes"], ["esci_embeddings"], ["gemma_embeddings"],
]  # fmt: skip
RELEASE_ASSETS = [["taxonomy"], *[[f, stage] for f in ("esci", "esci_gemma") for stage in FLAVOUR_STAGES]]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ui")
    generate(folder / "data", products=400)
    (folder / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


def test_days_and_releases_are_backfilled_from_the_ui(ui, project):
    ui.backfill(SNAPSHOT_ASSETS, [DAY1, DAY2])
    repository = {"repositoryLocationName": "sid_pipeline", "repositoryName": "__repository__"}
    for release in ("r1", "r2"):
        added = ui.ask(ADD_PARTITION, key=release, repo=repository)["addDynamicPartition"]
        assert added["__typename"] == "AddDynamicPartitionSuccess", added
    ui.backfill(RELEASE_ASSETS, ["r1", "r2"])

    found = ui.ask(MATERIALISATIONS, key={"path": ["esci", "semantic_ids"]})["assetOrError"]["assetMaterializations"]
    assert {m["partition"] for m in found} == {"r1", "r2"}
    assert "some SIDs" in {entry["label"] for entry in found[0]["metadataEntries"]}
    state = project / ".sid"
    for flavour in ("esci", "esci_gemma"):
        live = open_live(flavour, state)
        assert live.manifest["pins"]["as_of_snapshot"] == DAY2, "the newest complete day, whatever the clock says"
        first, second = (open_release(flavour, release, state) for release in ("r1", "r2"))
        assert first.sids() == second.sids(), "same pins, same seed: the same codebook"
        assert first.folder != second.folder
