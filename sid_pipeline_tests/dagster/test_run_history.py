"""What unfinished runs and open backfills name, and which runs may go, on a real (temporary) instance."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.events import EngineEventData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from sid_pipeline import run_history
from sid_pipeline.processes import identity
from sid_pipeline.receipts import UNPARTITIONED
from sid_pipeline.run import _run as sid_run
from sid_pipeline.run_history import (
    HOST_TAG,
    PROCESS_TAG,
    SILENT_SECONDS,
    UNFINISHED,
    delete_run,
    end_lost_runs,
    lost_runs,
    named_by_open_work,
    old_runs,
    own_tags,
)

BEFORE_THIS_PROCESS = 1e9
linux = pytest.mark.skipif(sys.platform != "linux", reason="the start of a process is read from /proc")

DAYS = dg.DailyPartitionsDefinition("2026-01-05", end_offset=1)


@dg.asset(partitions_def=DAYS)
def products() -> None: ...


@dg.op(config_schema={"as_of_snapshot": str})
def refresh() -> None: ...


@dg.job
def sid_refresh() -> None:
    refresh()


def backfill(number: int, status: BulkActionStatus, instance: dg.DagsterInstance) -> PartitionBackfill:
    days = DAYS.empty_subset().with_partition_keys([f"2026-02-0{number}"])
    return PartitionBackfill.from_asset_graph_subset(
        backfill_id=f"backfill{number}",
        backfill_timestamp=datetime.now().timestamp(),
        tags={},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset(partitions_subsets_by_asset_key={products.key: days}),
        title=None,
        description=None,
        run_config=None,
    )._replace(status=status)


def test_runs_to_come_their_config_and_open_backfills_name_what_stays(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        config = {"ops": {"refresh": {"config": {"as_of_snapshot": "2026-01-05"}}}}

        def run(partition: str, status: dg.DagsterRunStatus, config: dict | None = None) -> str:
            tags = {"dagster/partition": partition}
            job = sid_refresh if config else dg.GraphDefinition("empty").to_job()
            return instance.create_run_for_job(job, tags=tags, status=status, run_config=config or {}).run_id

        run("r1", dg.DagsterRunStatus.NOT_STARTED, config)
        started = run("2026-01-07", dg.DagsterRunStatus.STARTED)
        run("2026-01-08", dg.DagsterRunStatus.FAILURE)
        instance.add_backfill(backfill(1, BulkActionStatus.REQUESTED, instance))
        instance.add_backfill(backfill(2, BulkActionStatus.COMPLETED_SUCCESS, instance))
        names = named_by_open_work(instance)
        assert {"r1", "2026-01-05", "2026-01-07", "2026-02-01"} <= names
        assert not {"2026-01-08", "2026-02-02"} & names
        assert "2026-01-07" not in named_by_open_work(instance, but=started), "the run that asks does not count"


def test_old_runs_go_with_their_files_but_for_the_last_makers_of_what_is_kept(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        made = {}
        for day in ("2026-01-05", "2026-01-06", "2026-01-05"):
            made.setdefault(day, []).append(dg.materialize([products], instance=instance, partition_key=day).run_id)
        now = datetime.now(timezone.utc)
        assert old_runs(instance, 30, {"2026-01-05"}, now=now + timedelta(days=29)) == []
        old = old_runs(instance, 30, {"2026-01-05"}, now=now + timedelta(days=31))
        assert old == [made["2026-01-05"][0], made["2026-01-06"][0]], "the oldest first"
        for run_id in old:
            delete_run(instance, run_id)
        assert [run.run_id for run in instance.get_runs()] == [made["2026-01-05"][1]]
        assert not [path for path in tmp_path.rglob("*") if any(run_id in path.name for run_id in old)]
        ids = instance.get_latest_storage_id_by_partition(products.key, dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert set(ids) == {"2026-01-05"}, "Dagster shows what is there, and what is gone as missing"


KILLED = """
import os, signal
import dagster as dg
import pytest

@dg.op
def dies():
    os.kill(os.getpid(), signal.SIGKILL)

@dg.job
def night():
    dies()

with dg.DagsterInstance.get() as instance:
    night.execute_in_process(instance=instance)
"""


@pytest.fixture
def killed(tmp_path):
    """An instance with a run whose process was killed, and what else its dagster.yaml says."""

    def die(**overrides):
        with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as instance:
            assert lost_runs(instance) == []
            env = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
            assert subprocess.run([sys.executable, "-c", KILLED], env=env, check=False).returncode == -signal.SIGKILL
            yield instance

    return contextmanager(die)


@dg.job
def night() -> None: ...


def test_a_run_whose_process_was_killed_is_found_until_it_runs_again(killed):
    with killed() as instance:
        (lost,) = lost_runs(instance)
        assert (lost.job, lost.partition) == ("night", "")
        night.execute_in_process(instance=instance)
        assert lost_runs(instance) == []


def test_a_run_without_a_process_is_ended_once_and_still_told(killed):
    with killed() as instance:
        (told,) = end_lost_runs(instance)
        assert told == "the run night had lost its process and is ended"
        assert instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)) == []
        assert end_lost_runs(instance) == [] and [lost.job for lost in lost_runs(instance)] == ["night"]
        night.execute_in_process(instance=instance)
        assert lost_runs(instance) == []


def test_of_a_watched_instance_the_runs_of_this_machine_alone_are_judged(killed):
    with killed(run_monitoring={"enabled": True}) as instance:
        (run,) = instance.get_runs()
        assert end_lost_runs(instance) == [], "it may be another machine's"
        instance.add_run_tags(run.run_id, {HOST_TAG: "elsewhere"})
        assert end_lost_runs(instance, launched_here=True) == []
        instance.add_run_tags(run.run_id, {HOST_TAG: socket.gethostname()})
        assert [lost.job for lost in lost_runs(instance)] == ["night"]
        assert len(end_lost_runs(instance)) == 1


def test_a_number_that_another_program_has_now_is_no_run(monkeypatch, killed):
    with killed() as instance, subprocess.Popen(["sleep", "60"]) as other:
        now = time.time()
        monkeypatch.setattr(run_history, "_process", lambda instance, run_id: (other.pid, now))
        assert [lost.job for lost in lost_runs(instance)] == ["night"]
        monkeypatch.setattr(run_history, "_process", lambda instance, run_id: (os.getpid(), now))
        assert lost_runs(instance) == []
        other.kill()


def begin(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, pid: int | None = None) -> dg.DagsterRun:
    """A run that came as far as this, and the process that it says it is."""
    run = instance.create_run_for_job(night, status=status)
    if pid is not None:
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
    return run


@pytest.fixture
def later(monkeypatch):
    """The time when what says nothing has been silent for too long."""

    def later() -> None:
        then = time.time() + SILENT_SECONDS + 1
        monkeypatch.setattr(run_history.time, "time", lambda: then)

    return later


@linux
def test_a_number_that_a_later_process_has_now_is_no_run(tmp_path, monkeypatch):
    """As after a restart of the machine; of a container, where the run and what looks for it may both be number 1."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        begin(instance, dg.DagsterRunStatus.STARTED, os.getpid())
        assert lost_runs(instance) == []
        monkeypatch.setattr(run_history, "_process", lambda instance, run_id: (os.getpid(), BEFORE_THIS_PROCESS))
        assert [lost.job for lost in lost_runs(instance)] == ["night"]


@linux
def test_a_run_of_ones_own_is_known_by_more_than_a_number(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        run = begin(instance, dg.DagsterRunStatus.STARTED, os.getpid())
        instance.add_run_tags(run.run_id, own_tags(run.run_id))
        assert lost_runs(instance) == []
        pid, began, boot = identity().split(".")
        instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{run.run_id} {pid}.{int(began) - 1}.{boot}"})
        assert [lost.job for lost in lost_runs(instance)] == ["night"]


UNTIL_STARTED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]


@pytest.mark.parametrize("status", UNTIL_STARTED, ids=lambda status: status.value)
def test_a_run_that_never_came_to_have_a_process_is_ended_after_a_while(tmp_path, later, status):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        run = begin(instance, status)
        assert end_lost_runs(instance) == [], "it may be on its way"
        later()
        assert end_lost_runs(instance) == ["the run night had lost its process and is ended"]
        cancelled = status == dg.DagsterRunStatus.CANCELING
        ended = instance.get_run_by_id(run.run_id)
        assert ended.status == (dg.DagsterRunStatus.CANCELED if cancelled else dg.DagsterRunStatus.FAILURE)
        assert [lost.job for lost in lost_runs(instance)] == ([] if cancelled else ["night"])


@pytest.mark.parametrize("status", UNTIL_STARTED, ids=lambda status: status.value)
def test_a_run_whose_process_went_before_its_first_step_is_ended_at_once(tmp_path, status):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        here, gone = begin(instance, status, os.getpid()), begin(instance, status, 999999999)
        assert len(end_lost_runs(instance)) == 1
        assert [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))] == [here.run_id]
        assert instance.get_run_by_id(gone.run_id).is_finished


def test_a_sid_run_that_was_killed_before_its_run_began_is_ended_at_once(tmp_path):
    status = dg.DagsterRunStatus.NOT_STARTED
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        here, there, gone = (begin(instance, status) for _ in range(3))
        for run in (here, there, gone):
            instance.add_run_tags(run.run_id, own_tags(run.run_id))
        for run in (there, gone):
            instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{run.run_id} 999999999"})
        instance.add_run_tags(there.run_id, {HOST_TAG: "elsewhere"})
        assert len(end_lost_runs(instance)) == 1 and instance.get_run_by_id(gone.run_id).is_finished


def test_a_sid_run_says_whose_its_runs_are(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        assert sid_run(dg.Definitions(jobs=[night]), instance, "night", UNPARTITIONED) == []
        (run,) = instance.get_runs()
        assert run.tags.items() >= own_tags(run.run_id).items()


def test_tags_that_came_from_an_earlier_run_do_not_count(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        run = begin(instance, dg.DagsterRunStatus.STARTED, os.getpid())
        instance.add_run_tags(run.run_id, {HOST_TAG: socket.gethostname(), PROCESS_TAG: "earlier 999999999"})
        assert end_lost_runs(instance) == []


def test_a_run_that_waits_for_its_turn_is_not_lost_and_what_was_said_lately_counts(tmp_path, later):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("sid"), "sid"), "night")
        instance.create_run_for_job(night, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
        dequeued = begin(instance, dg.DagsterRunStatus.STARTING)
        later()
        instance.report_engine_event("dequeued just now", dequeued)
        assert end_lost_runs(instance) == []


def test_of_a_watched_instance_a_silent_run_is_ended_where_it_was_launched_alone(tmp_path, later):
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"run_monitoring": {"enabled": True}}) as instance:
        begin(instance, dg.DagsterRunStatus.STARTING)
        later()
        assert end_lost_runs(instance) == []
        assert len(end_lost_runs(instance, launched_here=True)) == 1
