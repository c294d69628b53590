"""A small project of its own in a temporary folder: sample catalogue, settings, Dagster instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sid_pipeline.sample import generate
from sid_pipeline.settings import Settings, load_settings
from sid_pipeline_tests.e2e.graphql import UI, free_port

DAY1, DAY2 = "2026-01-05", "2026-01-06"
SETTINGS = """
[source]
products = "data/catalogue/{snapshot}/products.csv.gz"
offers = "data/catalogue/{snapshot}/offers.csv.gz"

[taxonomy]
source = "data/taxonomy.csv"

[training]
codebook_size = 32
latent_dim = 32
steps = 30
batch_size = 256
min_usage = 0.2

[embedders.esci]
max_tokens = 32

[embedders.gemma]
max_tokens = 32
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sample catalogue of 400 products and its settings file."""
    folder = tmp_path_factory.mktemp("project")
    generate(folder / "data", products=400)
    (folder / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def settings(project: Path) -> Iterator[Settings]:
    """The project's settings, named in the environment as `sid --settings` does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SID_SETTINGS", str(project / "sid.toml"))
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.chdir(project)
        yield load_settings()


@pytest.fixture(scope="module")
def ui(project) -> Iterator[UI]:
    """Webserver and daemon over the project of the test's module, as `sid ui` starts them."""
    port = free_port()
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
    server.wait(timeout=180)
