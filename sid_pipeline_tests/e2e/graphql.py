"""A running Dagster webserver, asked as its pages ask it."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request

import pytest

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
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:  # its own text does not say what went wrong
            raise OSError(f"the webserver answered {error.code}: {error.read()[:2000]!r}") from error
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


def free_port() -> int:
    """A TCP port on localhost that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
