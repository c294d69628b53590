"""The web UI as an analyst uses it: a real webserver and daemon, backfills of several days and several releases."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sid_pipeline.reader import open_live, open_release
from sid_pipeline.sample import generate
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2, SETTINGS

pytestmark = pytest.mark.slow

FLAVOUR_STAGES = ("training_set", "codebook", "semantic_ids", "report", "codebook_diff", "publication", "live")
SNAPSHOT_ASSETS = [
    ["products"], ["offers"], ["rejected_products"], ["cleaned_attributes"], ["esci_embeddings"], ["gemma_embeddings"],
]  # fmt: skip
RELEASE_ASSETS = [["taxonomy"], *[[f, stage] for f in ("esci", "esci_gemma") for stage in FLAVOUR_STAGES]]

LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  __typename ... on PartitionBackfill { status error { message } } } }"""
ADD_PARTITION = """mutation ($key: String!, $repo: RepositorySelector!) {
  addDynamicPartition(partitionsDefName: "releases", partitionKey: $key, repositorySelector: $repo) {
    __typename ... on PythonError { message } } }"""
MATERIALISATIONS = """query ($key: AssetKeyInput!) { assetOrError(assetKey: $key) {
  ... on Asset { assetMaterializations { partition metadataEntries { label } } } } }"""


class UI:
    """A running webserver and what is asked of it."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: object) -> dict:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = json.load(answer)
        assert "errors" not in told, told
        return told["data"]

    def backfill(self, assets: list[list[str]], partitions: list[str]) -> None:
        """Launch a backfill and wait until it has succeeded."""
        selection = [{"path": path} for path in assets]
        params = {"assetSelection": selection, "partitionNames": partitions}
        launched = self.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            state = self.ask(STATUS, id=launched["backfillId"])["partitionBackfillOrError"]
            if state["status"] not in ("REQUESTED", "CANCELING"):
                assert state["status"] == "COMPLETED_SUCCESS", state
                return
            time.sleep(2)
        pytest.fail("the backfill did not end")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ui")
    generate(folder / "data", products=400)
    (folder / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ui(project) -> Iterator[UI]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    command = [
        sys.executable,
        "-m",
        "sid_pipeline.cli",
        "--settings",
        str(project / "sid.toml"),
        "ui",
        "--port",
        str(port),
    ]
    with (project / "ui.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    running = UI(port)
    deadline = time.monotonic() + 180
    while True:
        try:
            running.ask("query { version }")
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, (project / "ui.log").read_text()[-3000:]
            time.sleep(1)
    yield running
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(timeout=60)


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
