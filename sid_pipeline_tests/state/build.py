"""Makes the state that `test_upgrade.py` reads: a small project as the current version leaves it, packed.

    python -m sid_pipeline_tests.state.build      # writes version_N.tar.xz beside this file, N the state's version

Run it once for each state version, when it is new; what it wrote is never made again, because its worth is that an
older version wrote it. All of it is the fictional sample catalogue.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from sid_pipeline.migrations import STATE_VERSION

FOLDER = Path(__file__).resolve().parent
DAY = "2026-01-05"
SETTINGS = """
[source]
products = "data/catalogue/{snapshot}/products.csv.gz"
offers = "data/catalogue/{snapshot}/offers.csv.gz"
max_rejected_share = 0.5

[taxonomy]
source = "data/taxonomy.csv"

[training]
codebook_size = 8
latent_dim = 8
hidden = []
steps = 5
batch_size = 64
min_usage = 0.0
max_relative_error = 10.0
threads = 1

[embedders.esci]
max_tokens = 16
dimension = 16

[embedders.gemma]
max_tokens = 16
dimension = 16
"""
# What no version reads again, or anything makes anew.
LEFT_OUT = ("dagster", "spool", ".scratch", "checkpoints", "artefacts/explorers", "artefacts/reports")


def build(folder: Path) -> None:
    """A project with one night and one release in `folder`."""
    from sid_pipeline.run import run_everything
    from sid_pipeline.sample import generate
    from sid_pipeline.settings import load_settings

    generate(folder / "data", products=100)
    (folder / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    os.environ["SID_SETTINGS"] = str(folder / "sid.toml")
    run_everything(load_settings(), snapshot=DAY)


def pack(folder: Path, target: Path) -> None:
    """The project without what `LEFT_OUT` names."""
    for name in LEFT_OUT:
        shutil.rmtree(folder / ".sid" / name, ignore_errors=True)
    shutil.rmtree(folder / "data" / "relevance")
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and ".locks" not in path.parts and path.suffix != ".lock":
                archive.add(path, path.relative_to(folder).as_posix())


def unpack(packed: Path, folder: Path) -> None:
    """A packed project into `folder`."""
    with tarfile.open(packed) as archive:
        if hasattr(tarfile, "data_filter"):  # not before Python 3.11.4
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)


if __name__ == "__main__":
    file = FOLDER / f"version_{STATE_VERSION}.tar.xz"
    if file.exists():
        raise SystemExit(f"{file} is there already, and its worth is its age")
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch).resolve())
        pack(Path(scratch).resolve(), file)
    print(f"{file}: {file.stat().st_size / 1024:.0f} KB")
