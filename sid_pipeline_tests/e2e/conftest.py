"""A small project of its own in a temporary folder: sample catalogue, settings, Dagster instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sid_pipeline.sample import generate
from sid_pipeline.settings import Settings, load_settings

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
