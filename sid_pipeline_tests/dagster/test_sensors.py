"""Schedules and sensors, evaluated on an ephemeral instance over a real ledger and a real source folder."""

from __future__ import annotations

import json
import os
import time
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context

from sid_pipeline import sensors, watch
from sid_pipeline.definitions import build_definitions
from sid_pipeline.ingest.source_files import Unreachable
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import RELEASES
from sid_pipeline.sensors import last_due
from sid_pipeline.settings import load_settings
from sid_pipeline.watch import has_arrived, late_places, stale_flavours, waiting_nights, what_is_served
from sid_pipeline_tests.automation import fail
from sid_pipeline_tests.webhook import webhook

TODAY = date.today()
SENTENCE = "column 'title' is missing: add it"
SETTINGS = """
[source]
products = "catalogue/{snapshot}.csv"
"""


def day(ago: int) -> str:
    return (TODAY - timedelta(days=ago)).isoformat()


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def arrive(warehouse: Warehouse, *days: str) -> None:
    for when in days:
        (warehouse.settings.root / "catalogue" / f"{when}.csv").write_text("product_id,title\n1,a\n", encoding="utf-8")


def taken(warehouse: Warehouse, when: str) -> None:
    warehouse.receipts.put(Receipt("products", when, {}, "v"))


def live(warehouse: Warehouse, flavour: str, when: str) -> None:
    path = warehouse.state / "live" / f"{flavour}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {"release": "r1", "publication": "p", "codebook_id": "c", "manifest_sha256": "0"}
    path.write_text(json.dumps({**names, "as_of_snapshot": when}))


def evaluate(warehouse: Warehouse, name: str, instance: dg.DagsterInstance, cursor: str | None = None):
    definitions = build_definitions(warehouse.settings, {"warehouse": warehouse})
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def(name)
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"warehouse": warehouse}, repository_def=repository
    )
    with partition_loading_context(None, instance):
        return sensor.evaluate_tick(context)


def test_waiting_nights_are_those_that_came_and_were_not_taken(warehouse):
    taken(warehouse, day(4))
    arrive(warehouse, day(4), day(3), day(1))
    assert waiting_nights(warehouse, TODAY) == [day(3), day(1)]
    assert has_arrived(warehouse, day(1)) and not has_arrived(warehouse, day(2))


def test_late_and_missed_nights_are_asked_for_once_and_not_while_they_run(warehouse):
    taken(warehouse, day(4))
    arrive(warehouse, day(3), day(2))
    with dg.DagsterInstance.ephemeral() as instance:
        first = evaluate(warehouse, "late_nights", instance)
        assert [(r.run_key, r.partition_key) for r in first.run_requests] == [
            (f"snapshot-{day(3)}", day(3)),
            (f"snapshot-{day(2)}", day(2)),
        ]
        instance.create_run_for_job(
            dg.GraphDefinition("snapshot_refresh").to_job(), tags={"dagster/partition": day(3)},
            status=dg.DagsterRunStatus.STARTED,
        )  # fmt: skip
        second = evaluate(warehouse, "late_nights", instance)
        assert [r.partition_key for r in second.run_requests] == [day(2)]


def ended(instance: dg.DagsterInstance, when: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """A run of a night that did not succeed, whoever asked for it."""
    job = dg.GraphDefinition("snapshot_refresh").to_job()
    run = instance.create_run_for_job(job, tags={"dagster/partition": when}, status=dg.DagsterRunStatus.STARTED)
    if status == dg.DagsterRunStatus.FAILURE:
        instance.report_run_failed(run)
    else:
        instance.report_run_canceled(run)
    return run


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_failed_night_waits_for_a_person_or_for_other_files(warehouse, status):
    taken(warehouse, day(4))
    arrive(warehouse, day(3), day(2))
    file = warehouse.settings.root / "catalogue" / f"{day(3)}.csv"
    an_hour = 3600
    with dg.DagsterInstance.ephemeral() as instance:
        run = ended(instance, day(3), status)
        run_end = run_ended(instance, run)
        os.utime(file, (run_end - an_hour, run_end - an_hour))
        others = evaluate(warehouse, "late_nights", instance)
        assert [r.partition_key for r in others.run_requests] == [day(2)], "a failed night holds up no other"
        (warehouse.settings.root / "catalogue" / f"{day(2)}.csv").unlink()
        nothing = evaluate(warehouse, "late_nights", instance)
        assert not nothing.run_requests and f"{day(3)} failed or was canceled" in nothing.skip_message
        os.utime(file, (run_end + an_hour, run_end + an_hour))
        (again,) = evaluate(warehouse, "late_nights", instance).run_requests
        assert (again.partition_key, again.run_key) == (day(3), f"snapshot-{day(3)}-after-{run.run_id}")


def run_ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    assert record.end_time is not None
    return record.end_time


@pytest.fixture
def unreachable(monkeypatch):
    """A place of the source that does not answer."""

    def refuse(*_):
        raise Unreachable("s3://shop/x.csv ([source] products) cannot be looked at (PermissionError)")

    monkeypatch.setattr(watch, "still_missing", refuse)


def tick_tonight(warehouse: Warehouse, instance: dg.DagsterInstance):
    """What the nightly schedule asks for, or why it skips, on today's tick."""
    repository = build_definitions(warehouse.settings, {"warehouse": warehouse}).get_repository_def()
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(TODAY.year, TODAY.month, TODAY.day, 2, 30, tzinfo=ZoneInfo("UTC")),
        resources={"warehouse": warehouse},
        repository_def=repository,
    )
    return repository.get_schedule_def("nightly_refresh").evaluate_tick(context)


def test_a_place_that_cannot_be_looked_at_is_a_sentence_of_schedule_and_sensor(warehouse, unreachable):
    with dg.DagsterInstance.ephemeral() as instance:
        told = tick_tonight(warehouse, instance)
        assert "cannot be looked at (PermissionError); the sensor late_nights" in (told.skip_message or "")
        assert "cannot be looked at (PermissionError)" in evaluate(warehouse, "late_nights", instance).skip_message


def test_canceled_runs_are_followed_too(warehouse):
    repository = build_definitions(warehouse.settings, {"warehouse": warehouse}).get_repository_def()
    followers = {
        sensor.name
        for sensor in repository.sensor_defs
        if isinstance(sensor, dg.RunStatusSensorDefinition) and sensor.name.startswith("sids_follow")
    }
    assert followers == {
        "sids_follow_snapshot", "sids_follow_failed_snapshot", "sids_follow_canceled_snapshot",
    }  # fmt: skip


def complete(warehouse: Warehouse, when: str, embedder: str, hours_ago: float) -> None:
    """A day's vectors by an embedder, made so long ago."""
    warehouse.receipts.put(Receipt(f"{embedder}_embeddings", when, {"products": "v"}, "v"))
    made = time.time() - 3600 * hours_ago
    os.utime(warehouse.receipts.folder / f"{embedder}_embeddings" / f"{when}.json", (made, made))


def standing(warehouse: Warehouse, flavour: str, when: str) -> None:
    warehouse.receipts.put(Receipt(f"{flavour}/semantic_ids", "r1", {}, "v", facts={"as_of_snapshot": when}))


def served(warehouse: Warehouse, *releases: str) -> None:
    for release in releases:
        row = {"release": release, "state": "served", "taxonomy_source": "x", "taxonomy_revision": "x",
               "embedder_ids": "{}", "training_snapshot": day(9), "created_at": datetime.now(timezone.utc)}  # fmt: skip
        warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **row}])


def running(instance: dg.DagsterInstance, job: str, partition: str) -> dg.DagsterRun:
    return instance.create_run_for_job(
        dg.GraphDefinition(job).to_job(), tags={"dagster/partition": partition}, status=dg.DagsterRunStatus.STARTED
    )


@pytest.fixture
def behind(warehouse) -> Warehouse:
    """Both flavours stand on the day before; today's vectors are there for esci alone, its run goes on."""
    served(warehouse, "r1", "r2")
    for when in (day(1), day(0)):
        taken(warehouse, when)
    for flavour in ("esci", "esci_gemma"):
        standing(warehouse, flavour, day(1))
    for embedder in ("esci", "gemma"):
        complete(warehouse, day(1), embedder, 24)
    return warehouse


def test_a_flavour_does_not_wait_for_anothers_night_for_ever(behind):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("releases", ["r1", "r2"])
        running(instance, "snapshot_refresh", day(0))
        complete(behind, day(0), "esci", 0.5)
        assert not evaluate(behind, "sids_catch_up", instance).run_requests, "the run may end soon"
        complete(behind, day(0), "esci", 2)
        build = running(instance, "release_build", "r1")
        assert not evaluate(behind, "sids_catch_up", instance).run_requests, "the release is being worked on"
        instance.report_run_canceled(build)
        (request,) = evaluate(behind, "sids_catch_up", instance).run_requests
        assert request.partition_key == "r1", "nobody ever made r2's"
        again = running(instance, "sid_refresh", "r1")
        assert not evaluate(behind, "sids_catch_up", instance).run_requests, "it is under way"
        instance.report_run_failed(again)
        assert not evaluate(behind, "sids_catch_up", instance).run_requests, "what failed is for a person"


def test_in_a_backlog_one_refresh_serves_for_many_days_but_not_without_end(behind):
    complete(behind, day(0), "esci", 2)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("releases", ["r1", "r2"])
        running(instance, "snapshot_refresh", day(-1))  # newer days keep coming
        assert not evaluate(behind, "sids_catch_up", instance).run_requests
        complete(behind, day(0), "esci", 7)
        assert len(evaluate(behind, "sids_catch_up", instance).run_requests) == 1


def test_the_schedule_waits_for_the_input_and_takes_no_older_day(warehouse):
    arrive(warehouse, day(1))
    with dg.DagsterInstance.ephemeral() as instance:
        assert "has not come" in (tick_tonight(warehouse, instance).skip_message or "")
        arrive(warehouse, day(0))
        (request,) = tick_tonight(warehouse, instance).run_requests or []
        assert request.partition_key == day(0)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (
            "2026-03-29T12:00",
            "2026-03-29T03:00",
        ),  # 02:30 does not exist on this day in Berlin
        ("2026-10-25T12:00", "2026-10-25T02:30"),  # 02:30 comes twice
        ("2026-06-01T02:29", "2026-05-31T02:30"),
        ("2026-06-01T02:30", "2026-06-01T02:30"),
    ],
)
def test_when_a_night_was_due_survives_the_change_of_clocks(warehouse, now, due):
    zone = ZoneInfo("Europe/Berlin")
    settings = warehouse.settings.model_copy(
        update={"snapshots": warehouse.settings.snapshots.model_copy(update={"timezone": "Europe/Berlin"})}
    )
    found = last_due(settings, datetime.fromisoformat(now).replace(tzinfo=zone))
    assert found.date() == datetime.fromisoformat(due).date()
    assert found <= datetime.fromisoformat(now).replace(tzinfo=zone)


def test_late_is_after_the_time_allowed_and_only_without_the_file(warehouse):
    due = datetime(TODAY.year, TODAY.month, TODAY.day, 2, 30, tzinfo=ZoneInfo("UTC"))
    place = str(warehouse.settings.root / "catalogue" / f"{day(0)}.csv")
    assert late_places(warehouse, due + timedelta(minutes=179), due) == []
    assert late_places(warehouse, due + timedelta(minutes=181), due) == [place]
    arrive(warehouse, day(0))
    assert late_places(warehouse, due + timedelta(minutes=181), due) == []


def test_stale_flavours_and_what_is_served(warehouse):
    live(warehouse, "esci", day(3))
    live(warehouse, "esci_gemma", day(1))
    assert [(s.flavour, s.days) for s in stale_flavours(warehouse, TODAY)] == [("esci", 3)]
    assert what_is_served(warehouse) == f"esci: release r1 as of {day(3)}; esci_gemma: release r1 as of {day(1)}"


@pytest.fixture
def told_by(monkeypatch):
    """Alerts that a local webhook got, and its next answers; its address comes from the environment, as a secret."""
    with webhook() as (address, got, codes):
        monkeypatch.setenv("SID_ALERTS__WEBHOOK", address)
        yield got, codes


@pytest.fixture
def told(told_by):
    return told_by[0]


def test_age_is_told_once_and_again_when_it_changes(tmp_path, told, monkeypatch):
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml"))
    live(warehouse, "esci", day(5))
    arrive(warehouse, *[day(ago) for ago in range(3)])  # nothing is late, whatever the hour
    with dg.DagsterInstance.ephemeral() as instance:
        first = evaluate(warehouse, "tell_of_age", instance)
        second = evaluate(warehouse, "tell_of_age", instance, first.cursor)
        assert [alert["kind"] for alert in told] == ["stale"]
        assert "5 days old" in told[0]["subject"] and f"as of {day(5)}" in told[0]["served"]
        live(warehouse, "esci", day(4))
        evaluate(warehouse, "tell_of_age", instance, second.cursor)
        assert len(told) == 2


def test_a_failed_run_is_told_with_its_sentence_and_what_is_still_served(tmp_path, told):
    (tmp_path / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml"))
    live(warehouse, "esci", day(1))
    with dg.DagsterInstance.ephemeral() as instance:
        fail(warehouse, instance, SENTENCE)
    (alert,) = told
    assert alert["kind"] == "run_failure" and "snapshot_refresh" in alert["subject"]
    assert "column 'title' is missing: add it" in alert["happened"]
    assert f"as of {day(1)}" in alert["served"] and "run snapshot_refresh" in alert["todo"]


def test_a_failed_run_that_could_not_be_told_is_told_by_the_next_look_at_ages(tmp_path, told_by):
    got, codes = told_by
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml"))
    arrive(warehouse, *[day(ago) for ago in range(3)])
    codes.append(503)
    with dg.DagsterInstance.ephemeral() as instance:
        fail(warehouse, instance, SENTENCE)
        assert len(got) == 1 and len(list((warehouse.state / "alerts").iterdir())) == 1
        evaluate(warehouse, "tell_of_age", instance)
        assert [alert["kind"] for alert in got] == ["run_failure", "run_failure"]
        assert "This is told late" in got[1]["happened"]
        assert list((warehouse.state / "alerts").iterdir()) == []


def test_what_cannot_be_looked_for_is_told_once_a_day_and_hides_no_stale_flavour(tmp_path, told, monkeypatch):
    (tmp_path / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml"))
    live(warehouse, "esci", day(5))
    lost = [True]

    def look(*_):
        if lost[0]:
            raise Unreachable("s3://shop/x.csv ([source] products) cannot be looked at (EndpointConnectionError)")
        return []

    monkeypatch.setattr(sensors, "late_places", look)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None
        for lost[0] in (True, True, False, True):
            cursor = evaluate(warehouse, "tell_of_age", instance, cursor).cursor
    assert [alert["kind"] for alert in told] == ["late_input", "stale"]
    assert "cannot be looked at (EndpointConnectionError)" in told[0]["happened"]
