"""What `sid status` tells of failures, damage and holds, and which command it names next. No Spark is started."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from sid_pipeline import run
from sid_pipeline.promotion import go_live, hold
from sid_pipeline.publication.publish import publish
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import ReleaseError, drop_trial
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.run_history import LostRun
from sid_pipeline.schemas import RELEASES
from sid_pipeline.settings import load_settings
from sid_pipeline.status import show_status
from sid_pipeline_tests.publications import source

DAY, NEXT = "2026-01-05", "2026-01-06"
BY = {"by": "Ada", "reason": "because"}


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    (tmp_path / "sid.toml").write_text(
        '[source]\nproducts = "p.csv"\n[flavours.esci_gemma]\nenabled = false\n', encoding="utf-8"
    )
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def take(warehouse, day):
    warehouse.receipts.put(Receipt("products", day, {}, "v"))
    warehouse.receipts.put(Receipt("esci_embeddings", day, {"products": "v"}, "v"))


def pin(warehouse, release, state="served"):
    row = {
        "release": release, "state": state, "taxonomy_source": "x", "taxonomy_revision": "x", "embedder_ids": "{}",
        "training_snapshot": DAY, "created_at": datetime.now(timezone.utc),
    }  # fmt: skip
    warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **row}])


def make_live(warehouse, tmp_path, release="r1", day=DAY, rows=None):
    made = publish(
        warehouse.store, source(tmp_path, *([rows] if rows else []), release=release, snapshot=day), tmp_path / "x"
    )
    warehouse.receipts.put(Receipt("esci/publication", release, {}, "v", facts={"folder": made.folder}))
    go_live(warehouse, "esci", release, **BY, switch=True)
    return warehouse.store.folder / made.folder


@pytest.fixture
def served(warehouse, tmp_path):
    """One day, live as r1."""
    take(warehouse, DAY)
    pin(warehouse, "r1")
    return make_live(warehouse, tmp_path)


def next_of(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith(("next: ", "then: "))]


def test_a_failed_stage_is_told_until_it_goes_well(warehouse, served):
    warehouse.receipts.fail("products", NEXT, "p.csv, row 3: no title.")
    told = show_status(warehouse)
    assert f"failed: products {NEXT}, " in told and "p.csv, row 3: no title." in told
    assert next_of(told) == [f"next: sid run --snapshot {NEXT}"]
    warehouse.receipts.put(Receipt("products", NEXT, {}, "v"))
    assert "failed:" not in show_status(warehouse)


def test_a_failed_day_is_over_when_a_later_one_went_well(warehouse, served):
    warehouse.receipts.fail("products", NEXT, "no title.")
    take(warehouse, "2026-01-07")
    assert "failed:" not in show_status(warehouse)
    warehouse.receipts.fail("products", NEXT, "no title, again.")
    past = time.time() - 3600
    os.utime(warehouse.receipts.folder / "products" / "2026-01-07.json", (past, past))
    assert "no title, again." in show_status(warehouse), "it failed after the later day went well"


def test_a_failure_of_a_release_names_the_release_and_its_stages_once(warehouse, served):
    for asset in ("esci/codebook", "esci/live"):
        warehouse.receipts.fail(asset, "r2", "The taxonomy is empty.")
    warehouse.receipts.fail("esci_gemma/codebook", "r2", "A flavour that is off.")
    assert "next: ask for release r2 as before (sid taxonomy rebuild r2 ...)" in show_status(warehouse)
    pin(warehouse, "r2")
    told = show_status(warehouse)
    assert "is off" not in told
    assert told.count("The taxonomy is empty.") == 1 and "esci/codebook, esci/live r2" in told
    assert "next: sid run --release r2" in told
    pin(warehouse, "r3", state="retired")
    warehouse.receipts.fail("esci/codebook", "r3", "Retired.")
    assert "Retired." not in show_status(warehouse)


def test_what_a_release_left_that_was_never_pinned_can_be_dropped(warehouse, served):
    warehouse.receipts.fail("taxonomy", "r2", "The taxonomy is empty.")
    drop_trial(warehouse, "r2")
    assert "The taxonomy is empty." not in show_status(warehouse)
    with pytest.raises(MissingInput, match="no release 'r2'"):
        drop_trial(warehouse, "r2")


def test_interrupted_work_is_told_and_work_under_way_is_not(warehouse, served):
    receipts = warehouse.receipts
    with receipts.lock("products.2026-01-06"):
        for name in ("products", "offers"):
            receipts.begin(name, NEXT, "products.2026-01-06")
        assert "interrupted" not in show_status(warehouse), "somebody works on it"
    told = show_status(warehouse)
    assert told.count("interrupted: ") == 1 and "did not come to its end: its process is gone" in told
    assert f"next: sid run --snapshot {NEXT}" in told
    lost = [LostRun("snapshot_refresh", NEXT, datetime.now(timezone.utc))]
    assert show_status(warehouse, lost=lost).count("interrupted: ") == 1, "the stage of it is told already"
    receipts.forget("products", NEXT)
    receipts.forget("offers", NEXT)
    assert "interrupted" not in show_status(warehouse)
    told = show_status(warehouse, lost=lost)
    assert f"interrupted: the run snapshot_refresh {NEXT}" in told and f"again: sid run --snapshot {NEXT}" in told
    take(warehouse, "2026-01-07")
    assert "interrupted" not in show_status(warehouse, lost=lost), "a later day went well"


def test_a_lost_run_of_any_job_names_what_brings_its_day_or_release_up_to_date(warehouse, served):
    now = datetime.now(timezone.utc)
    for partition, command in ((NEXT, f"sid run --snapshot {NEXT}"), ("r1", "sid run --release r1")):
        told = show_status(warehouse, lost=[LostRun("__ASSET_JOB", partition, now)])
        assert f"interrupted: the run __ASSET_JOB {partition}" in told and f"run it again: {command}\n" in told
    told = show_status(warehouse, lost=[LostRun("release_build", "r9", now)])
    assert "again: ask for release r9 as before" in told


def test_a_night_that_did_not_go_live_counts_no_more_once_readers_went_on(warehouse, served, tmp_path):
    failed = {"name": "products_are_there", "passed": False, "sentence": "2 active products against 4.", "figures": {}}
    receipt = Receipt("esci/live", "r1", {"publication": "publications/esci/r1/x"}, "v", checks=[failed])
    warehouse.receipts.put(receipt)
    assert "esci r1 did not go live: products_are_there" in show_status(warehouse)
    pin(warehouse, "r2")
    make_live(warehouse, tmp_path, "r2")
    assert "did not go live" not in show_status(warehouse)


def test_work_that_ends_while_it_is_looked_for_is_no_fault(warehouse, served, monkeypatch):
    warehouse.receipts.fail("products", NEXT, "gone in a moment")
    warehouse.receipts.begin("offers", NEXT, "products.2026-01-06")
    found = list(warehouse.receipts.folder.rglob("*"))
    for path in found:
        if path.suffix in (".failed", ".begun"):
            path.unlink()
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: [p for p in found if p.match(pattern)])
    assert warehouse.receipts.troubles() == []


def test_a_hold_names_how_to_end_it_and_no_run_that_would_change_nothing(warehouse, served):
    take(warehouse, NEXT)
    assert next_of(show_status(warehouse)) == ["next: sid run --release r1"]
    hold(warehouse, "esci", **BY)
    (only,) = next_of(show_status(warehouse))
    assert only.startswith("next: sid release-hold --by NAME --reason WHY")


def test_the_next_night_names_the_live_release(warehouse, served, tmp_path):
    pin(warehouse, "r3")
    make_live(warehouse, tmp_path, "r3")
    assert next_of(show_status(warehouse)) == [
        "next: nothing to do; sid run --snapshot DAY takes the next night and refreshes r3"
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("product_sids.parquet", "is cut off or damaged"),
        ("vocabulary.json", "does not match the hash"),
        ("manifest.json", "is not the one that was made live"),
    ],
)
def test_a_damaged_live_publication_is_told_with_the_mend(warehouse, served, name, told):
    file = served / name
    if name == "manifest.json":
        file.write_text(file.read_text() + "\n")
    else:
        os.truncate(file, file.stat().st_size // 2)
    status = show_status(warehouse)
    assert "damaged: esci: " in status and name in status and told in status
    assert "next: copy publications/esci/r1/" in status and "sid rollback" not in status, "nothing was live before"


def test_a_live_publication_or_pointer_that_is_gone_is_told(warehouse, served):
    (served / "delta.parquet").unlink()
    assert "delta.parquet is missing from its publication" in show_status(warehouse)
    served.rename(served.with_name("elsewhere"))
    assert "is no finished publication" in show_status(warehouse)
    (warehouse.state / "live" / "esci.json").write_text("{")
    assert "promote a release again" in show_status(warehouse)


def test_a_damaged_publication_with_another_before_it_offers_the_way_back(warehouse, served, tmp_path):
    pin(warehouse, "r3")
    (make_live(warehouse, tmp_path, "r3") / "delta.parquet").unlink()
    assert "next: sid rollback --flavour esci --by NAME --reason WHY" in show_status(warehouse)


def test_what_is_live_and_retired_is_told_and_holds_up_no_day(warehouse, served, runs, tmp_path, capsys):
    make_live(warehouse, tmp_path, "r0")
    pin(warehouse, "r0", state="retired")  # as after a rollback to it
    told = show_status(warehouse)
    assert "blocked: esci: what is live, r0, is retired" in told
    assert "next: sid promote RELEASE --flavour esci --by NAME --reason WHY" in told
    with pytest.raises(
        run.RunFailed, match="all is done but for this: esci is not refreshed: what is live, r0, is ret"
    ):
        run.run_everything(warehouse.settings)
    assert ("snapshot_refresh", DAY) in runs and all(job != "release_build" for job, _ in runs)
    assert "esci is not refreshed: what is live, r0, is retired" in capsys.readouterr().err


def test_a_broken_pointer_holds_up_no_day(warehouse, served, runs, capsys):
    (warehouse.state / "live" / "esci.json").write_text("{")
    with pytest.raises(run.RunFailed, match="all is done but for this: esci is not refreshed: "):
        run.run_everything(warehouse.settings)
    assert ("snapshot_refresh", DAY) in runs
    assert "esci is not refreshed: " in capsys.readouterr().err  # told before the long part, too


@pytest.fixture
def runs(warehouse, monkeypatch, tmp_path):
    """The jobs that `sid run` would run, as (job, partition)."""
    done: list[tuple[str, str]] = []
    monkeypatch.setattr(run, "_run", lambda _, __, job, partition: done.append((job, partition)) or [])
    monkeypatch.setattr("sid_pipeline.summary.summarise", lambda _, release, *__: f"summary of {release}")
    monkeypatch.setenv("SID_SETTINGS", str(tmp_path / "sid.toml"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return done


def test_a_run_refreshes_what_is_live_and_the_default_before_anything_is(warehouse, runs, tmp_path, capsys):
    take(warehouse, DAY)
    assert run.run_everything(warehouse.settings) == "summary of r1" and runs[-1] == ("release_build", "r1")
    pin(warehouse, "r1")
    pin(warehouse, "r3")
    make_live(warehouse, tmp_path, "r3")
    assert run.run_everything(warehouse.settings) == "summary of r3" and runs[-1] == ("release_build", "r3")
    assert "no release is named: what is live is refreshed, r3" in capsys.readouterr().err
    assert run.run_everything(warehouse.settings, release="r1") == "summary of r1" and runs[-1][1] == "r1"


def test_a_run_refreshes_each_release_that_is_live(warehouse, runs, monkeypatch):
    take(warehouse, DAY)
    monkeypatch.setattr("sid_pipeline.releases.to_refresh", lambda _: (["r3", "r1"], []))
    assert run.run_everything(warehouse.settings) == "summary of r3\nsummary of r1"
    assert [name for job, name in runs if job == "release_build"] == ["r3", "r1"]


def test_a_retired_release_is_never_built_again(warehouse, runs):
    take(warehouse, DAY)
    pin(warehouse, "r2", state="retired")
    with pytest.raises(ReleaseError, match="a retired name is never used again"):
        run.run_everything(warehouse.settings, release="r2")
    with pytest.raises(ReleaseError, match="a retired name is never used again"):
        run.build_release(warehouse.settings, "r2", {})
    assert runs == []
