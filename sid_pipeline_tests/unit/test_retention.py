"""What stays and what goes, worked out from ledgers alone. No Spark is started."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import date, datetime, timedelta, timezone

import pytest

from sid_pipeline import retention
from sid_pipeline.promotion import PromotionRefused, go_live, release_hold, rollback
from sid_pipeline.promotion_log import ways_back
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.reader import open_live, open_release
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.resources.tables import spool_dir
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.retention import DAY, PUBLICATION, RELEASE, SPOOL, kept, make_room, plan, take_away
from sid_pipeline.schemas import REJECTED_PRODUCTS, RELEASES
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.publications import DAY1, DAY2, source

TODAY = date(2026, 6, 1)
BY = {"by": "Ada", "reason": "because"}


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    (tmp_path / "sid.toml").write_text(
        '[source]\nproducts = "p.csv"\n[retention]\nsnapshots = 3\npublications = 2\nretired_days = 30\n'
        "[publication]\nmax_product_drop = 0.5\n"
        '[flavours.esci_gemma]\nenabled = false\n[embedders.esci]\nvectors = "v"\ndimension = 2\nrevision = "1"\n'
    )
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    for work in ("compact", "vacuum"):
        monkeypatch.setattr(f"sid_pipeline.resources.tables.Tables.{work}", lambda *_, **__: None)
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def day(number: int) -> str:
    return (date(2026, 1, 4) + timedelta(days=number)).isoformat()


def take(warehouse, *numbers):
    for number in numbers:
        warehouse.receipts.put(Receipt("products", day(number), {}, "v", facts={"rows": 9}))
        embedded = {"embedder_ids": {"e1": "v"}}
        warehouse.receipts.put(Receipt("esci_embeddings", day(number), {"products": "v"}, "v", facts=embedded))


def pin(warehouse, release, trained_on, state="served", **more):
    row = {
        "release": release, "state": state, "taxonomy_source": "x", "taxonomy_revision": "x", "embedder_ids": "{}",
        "training_snapshot": day(trained_on), "created_at": datetime.now(timezone.utc), **more,
    }  # fmt: skip
    warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **row}])


@pytest.fixture
def night(warehouse, tmp_path):
    """A day taken, assigned and published for a release; live where that is an advance or the first."""

    def night(number: int, release: str = "r1", switch: bool = False) -> str:
        take(warehouse, number)
        rows = DAY1 if number % 2 else DAY2
        made = publish(warehouse.store, source(tmp_path, rows, release=release, snapshot=day(number)), tmp_path / "x")
        facts = {"folder": made.folder, "as_of_snapshot": day(number), "codebook_id": f"codebook-of-{release}"}
        for stage in ("semantic_ids", "publication"):
            warehouse.receipts.put(Receipt(f"esci/{stage}", release, {}, "v", facts=facts))
        go_live(warehouse, "esci", release, **BY, switch=switch)
        return made.folder

    return night


def live(warehouse):
    return read_pointer(warehouse.store, "esci")["publication"]


def test_without_a_day_nothing_is_judged(warehouse):
    with pytest.raises(MissingInput, match="nothing is taken away"):
        plan(warehouse)


def test_days_stay_for_the_newest_and_for_whatever_stands_on_them(warehouse, night):
    pin(warehouse, "r1", trained_on=2)
    take(warehouse, 1, 2, 3)
    night(4)
    take(warehouse, 5, 6, 7, 8)
    why = kept(warehouse, open_work={day(5)}, today=TODAY).snapshots
    assert set(why) == {day(n) for n in (2, 4, 5, 6, 7, 8)}
    assert "r1 is trained on it" in why[day(2)] and "stands on it" in why[day(4)] and "unfinished" in why[day(5)]
    going = plan(warehouse, today=TODAY)
    assert going.names(DAY) == [day(1), day(3), day(5)]
    assert all("9 products" in r.size and "older than the newest 3" in r.why for r in going.removals)


def test_a_night_that_failed_keeps_its_rows_and_its_sentence_while_it_is_young(warehouse, night):
    pin(warehouse, "r1", trained_on=1)
    for number in range(1, 7):
        night(number)
    for number in (2, 7):  # both were read and refused; one is long past
        warehouse.receipts.begin("products", day(number), f"products.{day(number)}")
        warehouse.receipts.fail("products", day(number), "Mend the rows listed in rejected_products.")
        blank = dict.fromkeys(REJECTED_PRODUCTS.column_names)
        row = {
            **blank,
            "snapshot": day(number),
            "rule": "no_title",
            "message": "m",
            "source_file": "f",
            "source_row": 1,
        }
        warehouse.tables.append_rows(REJECTED_PRODUCTS, [row])
    going = plan(warehouse, today=TODAY)
    assert day(2) in going.names(DAY) and day(7) not in going.names(DAY)
    assert [trouble.partition for trouble in warehouse.receipts.troubles()] == [day(2), day(7)]


def test_publications_stay_for_the_newest_the_live_one_and_both_ways_back(warehouse, night):
    pin(warehouse, "r1", trained_on=1)
    pin(warehouse, "r2", trained_on=1)
    first = [night(n) for n in (1, 2, 3, 4, 5)]
    last_of_r1 = first[-1]
    second = [night(n, "r2", switch=n == 6) for n in (6, 7, 8, 9, 10)]
    assert live(warehouse) == second[-1] and ways_back(warehouse, "esci") == [second[-2], last_of_r1]
    going = plan(warehouse, today=TODAY)
    assert going.names(PUBLICATION) == [*first[:3], *second[:3]]
    take_away(warehouse, going)
    assert plan(warehouse, today=TODAY).removals == ()
    assert warehouse.store.names("publications/esci/r1") == [f.rsplit("/", 1)[1] for f in first[3:]]
    # Back by one, then over those that are gone to the release before; and the next night goes on from its parent.
    assert len(open_live("esci", warehouse.published)) == len(open_release("esci", "r1", warehouse.published))
    rollback(warehouse, "esci", **BY)
    assert live(warehouse) == second[-2]
    done = rollback(warehouse, "esci", **BY)
    assert live(warehouse) == last_of_r1 and "over 3 that are no longer kept" in done.sentence
    rollback(warehouse, "esci", **BY)
    assert live(warehouse) == first[-2]
    with pytest.raises(PromotionRefused, match="none of the 3 publications that were live before is kept"):
        rollback(warehouse, "esci", **BY)
    release_hold(warehouse, "esci", **BY)
    assert ways_back(warehouse, "esci") == []
    new = night(12)
    assert live(warehouse) == new and len(open_live("esci", warehouse.published).delta())
    assert ways_back(warehouse, "esci") == [first[-2]]


def test_what_goes_live_after_the_plan_was_made_stays(warehouse, night):
    pin(warehouse, "r1", trained_on=1)
    folders = [night(n) for n in (1, 2, 3, 4)]
    going = plan(warehouse, today=TODAY)
    assert going.names(PUBLICATION) == folders[:2]
    for _ in range(3):
        rollback(warehouse, "esci", **BY)
    take_away(warehouse, going)
    assert live(warehouse) == folders[0] and len(open_live("esci", warehouse.published))


def test_a_release_goes_whole_when_it_is_retired_long_enough_and_nothing_needs_it(warehouse, night, monkeypatch):
    night(2, "r2")
    pin(warehouse, "r1", trained_on=1, state="retired", acknowledged_on="2026-05-20")
    pin(warehouse, "r2", trained_on=1, state="retired", acknowledged_on="2026-01-20")
    pin(warehouse, "r3", trained_on=1, state="retired", acknowledged_on="2026-01-20")
    pin(warehouse, "r4", trained_on=1, predecessor="r3")
    pin(warehouse, "r5", trained_on=1, state="retired", acknowledged_on="2026-01-20")
    for release in ("r3", "r1", "r5"):
        night(2, release)
    assert "live for esci" in kept(warehouse, today=TODAY).releases["r2"], "the first went live"
    night(3, "r4", switch=True)
    why = kept(warehouse, today=TODAY).releases
    assert set(why) == {"r1", "r2", "r3", "r4"}
    assert "less than 30 days ago" in why["r1"] and "rollback" in why["r2"] and "trained on from it" in why["r3"]
    going = plan(warehouse, today=TODAY)
    assert going.names(RELEASE) == ["r5"]
    assert "r5" in kept(warehouse, open_work={"r5"}, today=TODAY).releases
    take_away(warehouse, going)
    assert warehouse.receipts.get("esci/semantic_ids", "r5") is None
    assert warehouse.store.names("publications/esci") == ["r1", "r2", "r3", "r4"]
    assert plan(warehouse, today=TODAY).names(RELEASE) == []
    rollback(warehouse, "esci", **BY)
    assert "r2" in live(warehouse)


def test_only_what_a_release_has_left_behind_goes_of_its_artefacts(warehouse, night):
    pin(warehouse, "r1", trained_on=1)
    night(1)
    used, left = (warehouse.codebooks("esci", "r1") / name for name in ("used", "left"))
    checkpoint = warehouse.state / "checkpoints" / "esci" / "r1" / "run"
    for folder in (used, left, checkpoint, warehouse.training_set("esci", "r1")):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    assert plan(warehouse, today=TODAY).removals == (), "without its codebook's receipt a training may go on from there"
    facts = {"codebook_id": "used", "folder": used.relative_to(warehouse.state).as_posix()}
    warehouse.receipts.put(Receipt("esci/codebook", "r1", {}, "used", facts=facts))
    going = plan(warehouse, today=TODAY)
    assert [removal.kind for removal in going.removals] == ["codebook", "checkpoint"]
    take_away(warehouse, going)
    assert used.is_dir() and not left.exists() and not checkpoint.exists()
    assert warehouse.training_set("esci", "r1").is_dir()


def test_receipts_go_before_rows_and_a_crash_between_is_made_good(warehouse, night, monkeypatch):
    pin(warehouse, "r1", trained_on=3)
    take(warehouse, 1, 2)
    night(3)
    take(warehouse, 4, 5)
    rows = {"products": {day(n) for n in range(1, 6)}}
    order = []

    def slices(self, spec):
        return sorted((d,) for d in rows.get(spec.name, ()))

    def delete(self, spec, gone):
        for found in gone:
            order.append((spec.name, found["snapshot"]))
            assert warehouse.receipts.get("products", found["snapshot"]) is None, "a receipt would speak of lost rows"
            raise OSError("the disk is full")

    monkeypatch.setattr("sid_pipeline.resources.tables.Tables.slices", slices)
    monkeypatch.setattr("sid_pipeline.resources.tables.Tables.delete", delete)
    going = plan(warehouse, today=TODAY)
    assert going.names(DAY) == [day(1), day(2)]
    with pytest.raises(OSError, match="disk is full"):
        take_away(warehouse, going)
    assert order == [("products", day(1))]
    assert warehouse.receipts.partitions("products") == [day(3), day(4), day(5)]
    assert plan(warehouse, today=TODAY).names(DAY) == [day(1), day(2)], "rows that nothing refers to are found again"


def test_a_days_receipt_forgets_an_embedder_that_nothing_pins(warehouse, night, monkeypatch):
    pin(warehouse, "r1", trained_on=1, embedder_ids=json.dumps({"esci": "e1"}))
    night(1)
    facts = {"embedder_ids": {"e1": "v1", "old": "v0"}}
    inputs = {"products": "v", "embedder_ids": ["e1", "old"]}
    warehouse.receipts.put(Receipt("esci_embeddings", day(1), inputs, "v", facts=facts))
    deleted = []
    monkeypatch.setattr("sid_pipeline.resources.tables.Tables.delete", lambda self, spec, gone: deleted.extend(gone))
    retention._take_embedded(warehouse, [f"old/{day(1)}"])
    made = warehouse.receipts.need("esci_embeddings", day(1))
    assert made.facts["embedder_ids"] == {"e1": "v1"} and made.inputs["embedder_ids"] == ["e1"]
    assert deleted == [{"embedder_id": "old", "snapshot": day(1)}]


def test_files_go_before_tables_are_compacted_and_one_that_has_no_room_holds_up_no_other(warehouse, night, monkeypatch):
    pin(warehouse, "r1", trained_on=1)
    for number in range(1, 6):
        night(number)
    done = []

    def compact(_, spec):
        done.append(("compact", spec.name))
        if spec.name == "promotions":
            raise RuntimeError("java.io.IOException: No space left on device")

    monkeypatch.setattr("sid_pipeline.resources.tables.Tables.compact", compact)
    monkeypatch.setattr(
        "sid_pipeline.resources.tables.Tables.vacuum", lambda _, spec, **__: done.append(("vacuum", spec.name))
    )
    monkeypatch.setattr(
        "sid_pipeline.publication.store.LocalStore.remove", lambda _, folder: done.append(("remove", folder))
    )
    (sentence,) = take_away(warehouse, plan(warehouse, today=TODAY))
    assert sentence.startswith("promotions is not compacted. A disk is full")
    order = [what for what, _ in done]
    assert order == sorted(order, key=["remove", "vacuum", "compact"].index) and order.count("compact") == 2
    assert order.count("vacuum") == 2 and "remove" in order


def test_a_wholly_full_disk_is_relieved_of_what_no_unfinished_work_can_need(warehouse, night):
    pin(warehouse, "r1", trained_on=1)
    pin(warehouse, "r0", trained_on=1, state="retired", acknowledged_on="2020-01-01")
    made = [night(number) for number in range(1, 6)]
    left = warehouse.state / "spool" / "catalogue-999999999"
    left.mkdir(parents=True)  # of just now
    would = make_room(warehouse, dry_run=True)
    assert left.is_dir() and warehouse.store.exists(f"{made[0]}/manifest.json")
    assert make_room(warehouse) == would
    assert {removal.name for removal in would} == {*made[:3], "spool/catalogue-999999999"}
    assert not left.exists() and not warehouse.store.exists(f"{made[0]}/manifest.json")
    assert live(warehouse) == made[-1] and warehouse.receipts.get("products", day(1)) is not None


def test_a_folder_that_a_person_set_aside_does_not_stop_the_weekly_work(warehouse, night):
    pin(warehouse, "r1", trained_on=1)
    made = [night(number) for number in range(1, 6)]
    aside = [f"{made[0]}.bak", made[0].replace("/000001-", "/000001 copy of ")]
    for folder in aside:
        (warehouse.state / folder).mkdir()
    going = plan(warehouse, today=TODAY)
    assert going.names(PUBLICATION) == made[:3]
    take_away(warehouse, going)
    assert all((warehouse.state / folder).is_dir() for folder in aside)


def test_scratch_of_another_machine_goes_when_it_was_untouched_for_long(warehouse):
    take(warehouse, 1)
    spool, here = warehouse.state / "spool", spool_dir(warehouse.state, "cleaning")
    elsewhere, former, gone = (
        spool / name
        for name in ("cleaning-elsewhere-1-0a1b2c3d", "cleaning-999999999", here.name.replace("cleaning", "other"))
    )
    gone = gone.with_name(re.sub(r"-\d+(\..*)?-(\w+)$", r"-999999999-\2", gone.name))
    for folder in (elsewhere, former, gone):
        folder.mkdir()
    names = [f"spool/{folder.name}" for folder in sorted((elsewhere, former, gone))]
    assert plan(warehouse, today=TODAY).names(SPOOL) == []
    assert [r.name for r in make_room(warehouse, dry_run=True)] == [n for n in names if "elsewhere" not in n]
    long_ago = time.time() - 8 * 86_400
    for folder in (elsewhere, former, gone, here):
        os.utime(folder, (long_ago, long_ago))
    assert plan(warehouse, today=TODAY).names(SPOOL) == names
