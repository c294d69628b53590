"""Does the UI answer while a backfill of 100 days is queued? Real webserver and daemon, as `sid ui` starts them.

    python bench/ui_load.py --days 100 --seconds 120

A catalogue of 200 products under 100 days, a backfill of `products` over all of them, and then the questions that the
UI's pages ask, one after the other, while the queue is worked off.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import date, timedelta
from pathlib import Path

from sid_pipeline.sample import generate
from sid_pipeline_tests.e2e.conftest import DAY1, SETTINGS
from sid_pipeline_tests.e2e.graphql import LAUNCH, UI, free_port

QUESTIONS = {
    "runs page": "{ runsOrError(limit: 25) { ... on Runs { results { runId status jobName startTime tags { key value } "
    "assetSelection { path } } } } }",
    "queued runs": "{ runsOrError(filter: {statuses: [QUEUED]}) { ... on Runs { count } } }",
    "asset graph": "{ assetNodes { id assetKey { path } hasMaterializePermission dependencyKeys { path } "
    "partitionStats { numMaterialized numPartitions numFailed } } }",
    "backfills page": "{ partitionBackfillsOrError(limit: 10) { ... on PartitionBackfills { results { id status "
    "numPartitions } } } }",
    "an asset": '{ assetNodeOrError(assetKey: {path: ["products"]}) { ... on AssetNode { description '
    "assetMaterializations(limit: 20) { runId partition } } } }",
}


def main() -> None:
    """Queue, ask, and print how long the answers took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=120)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        days = _catalogue(project, asked.days)
        port = free_port()
        command = [sys.executable, "-m", "sid_pipeline.cli", "--settings", str(project / "sid.toml"), "ui"]
        env = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        with (project / "ui.log").open("wb") as log:
            server = subprocess.Popen(
                [*command, "--port", str(port)], env=env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _measure(UI(port), days, asked.seconds)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=180)


def _catalogue(project: Path, days: int) -> list[str]:
    generate(project / "data", products=200)
    (project / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    first, names = date.fromisoformat(DAY1), []
    for number in range(days):
        names.append((first + timedelta(days=number)).isoformat())
        if number:
            shutil.copytree(
                project / "data/catalogue" / DAY1, project / "data/catalogue" / names[-1], dirs_exist_ok=True
            )
    return names


def _measure(ui: UI, days: list[str], seconds: float) -> None:
    for _ in range(300):
        try:
            ui.ask("query { version }")
            break
        except OSError:
            time.sleep(1)
    selection = [{"path": [name]} for name in ("products", "offers", "rejected_products")]
    began = time.monotonic()
    launched = ui.ask(LAUNCH, params={"assetSelection": selection, "partitionNames": days})
    assert launched["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", launched
    print(f"launched a backfill of {len(days)} days in {time.monotonic() - began:.2f} s")
    queued = 0
    while queued < 0.9 * len(days) and time.monotonic() - began < 600:
        time.sleep(2)
        queued = ui.ask("{ runsOrError { ... on Runs { count } } }")["runsOrError"]["count"]
    waiting = ui.ask(QUESTIONS["queued runs"])["runsOrError"]["count"]
    print(f"{queued} runs after {time.monotonic() - began:.0f} s, {waiting} of them waiting")
    took: dict[str, list[float]] = {name: [] for name in [*QUESTIONS, "page"]}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, question in QUESTIONS.items():
            start = time.monotonic()
            ui.ask(question)
            took[name].append(time.monotonic() - start)
        start = time.monotonic()
        urllib.request.urlopen(f"{ui.address}/runs", timeout=60).read()
        took["page"].append(time.monotonic() - start)
    left = ui.ask(QUESTIONS["queued runs"])["runsOrError"]["count"]
    print(f"asked for {seconds:.0f} s; {left} runs still wait; seconds an answer:")
    for name, times in took.items():
        times.sort()
        print(f"  {name:15} {len(times):4} answers, median {times[len(times) // 2]:.2f}, worst {times[-1]:.2f}")


if __name__ == "__main__":
    main()
