"""State that an earlier version wrote (or this one, until there is a later) is read and refreshed by this code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from deltalake import DeltaTable

from sid_pipeline import cli
from sid_pipeline.migrations import STATE_VERSION, migrate, version_of
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.reader import open_live
from sid_pipeline.releases import find_release
from sid_pipeline.resources.tables import Tables
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.rqvae import Codebook
from sid_pipeline.run import run_everything
from sid_pipeline.schemas import ALL_TABLES, RELEASES, SEMANTIC_IDS, TableSpec
from sid_pipeline.settings import load_settings
from sid_pipeline.training_set import load_training_set
from sid_pipeline_tests.state import build

FLAVOURS = ("esci", "esci_gemma")
KEPT = sorted(build.FOLDER.glob("version_*.tar.xz"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def project(request, tmp_path, monkeypatch) -> Path:
    """A project as it was kept, unpacked at a place of its own."""
    assert request.param.stat().st_size < 300 * 1024
    build.unpack(request.param, tmp_path)
    monkeypatch.setenv("SID_SETTINGS", str(tmp_path / "sid.toml"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_state_of_this_version_is_kept():
    assert build.FOLDER / f"version_{STATE_VERSION}.tar.xz" in KEPT, "python -m sid_pipeline_tests.state.build"


def test_kept_state_is_read_without_spark(project):
    warehouse = Warehouse(load_settings())
    migrate(warehouse)
    release = find_release(warehouse.tables, "r1")
    assert release is not None and release.training_snapshot == build.DAY
    for spec in ALL_TABLES.values():
        assert warehouse.tables.arrow(spec).schema.names == spec.column_names
    for flavour in FLAVOURS:
        live = open_live(flavour, project / ".sid")
        codebook = Codebook.load(warehouse.state / warehouse.receipts.need(f"{flavour}/codebook", "r1").facts["folder"])
        assert live.manifest["pins"]["codebook_id"] == codebook.id
        assert len(load_training_set(warehouse.training_set(flavour, "r1")).vectors) == len(live.sids())
    some = next(iter(open_live("esci", project / ".sid").sids()))
    for arguments in (["status"], ["show", some], ["show", "--prefix", "1"]):
        done = CliRunner().invoke(cli.main, arguments)
        assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_next_night_goes_on_from_kept_state(project, spark):
    settings = load_settings()
    warehouse = Warehouse(settings)
    migrate(warehouse)
    before = {flavour: open_live(flavour, project / ".sid").sids() for flavour in FLAVOURS}
    day = "2026-01-06"
    (project / "data" / "catalogue" / day).mkdir(exist_ok=True)
    for file in (project / "data" / "catalogue" / build.DAY).iterdir():
        (project / "data" / "catalogue" / day / file.name).write_bytes(file.read_bytes())
    run_everything(settings, snapshot=day)
    for flavour in FLAVOURS:
        assert read_pointer(project / ".sid", flavour)["as_of_snapshot"] == day
        assert open_live(flavour, project / ".sid").sids() == before[flavour]
        told = warehouse.receipts.need(f"{flavour}/semantic_ids", "r1").metadata
        assert told["whole slice"] is False and told["rows written"] == 0


LATER = {
    SEMANTIC_IDS.name: ("out_of_distribution", "change", "source_hash", "collision_policy", "withdrawn_on"),
    RELEASES.name: ("predecessor", "acknowledged_by", "acknowledged_on"),
}


def test_tables_from_before_versions_get_their_columns_and_keep_their_rows(spark, tmp_path):
    """Version 1 to 2, on tables as they were made then."""
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n', encoding="utf-8")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml", env={}))
    warehouse.unchecked_tables._spark = lambda: spark
    old = Tables(warehouse.state / "tables", lambda: spark)
    for name, later in LATER.items():
        spec = ALL_TABLES[name]
        then = TableSpec(
            spec.name,
            spec.description,
            tuple(c for c in spec.columns if c.name not in later),
            spec.key,
            spec.partition_by,
        )
        slice = {column: "r1" for column in spec.partition_by}
        row = {c.name: None if c.nullable else _some(c.type) for c in then.columns if c.name not in slice}
        old.replace(then, spark.createDataFrame([row], then.ddl(without=tuple(slice))), **slice)
    (warehouse.state / "receipts" / "products").mkdir(parents=True)
    (warehouse.state / "receipts" / "products" / "2026-01-05.json").write_text("{}")
    assert version_of(warehouse.state) == 1
    (told,) = migrate(warehouse)
    assert version_of(warehouse.state) == 2
    for name, later in LATER.items():
        assert name in told and all(column in told for column in later)
        spec = ALL_TABLES[name]
        there = {field.name for field in DeltaTable(warehouse.tables.location(spec)).schema().fields}
        assert there == set(spec.column_names)
        (row,) = warehouse.tables.read(spec).collect()
        assert all(row[column] is None for column in later)
    assert migrate(warehouse) == []


def _some(kind: str) -> object:
    from datetime import datetime

    return {"string": "{}", "timestamp": datetime(2026, 1, 5), "double": 1.0, "bigint": 1}[kind]
