"""What unfinished runs and open backfills name, and which runs may go, on a real (temporary) instance."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from sid_pipeline import run_history
from sid_pipeline.run_history import (
    HOST_TAG,
    UNFINISHED,
    delete_run,
    end_lost_runs,
    lost_runs,
    named_by_open_work,
    old_runs,
)

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
        monkeypatch.setattr(run_history, "_process", lambda instance, run_id: other.pid)
        assert [lost.job for lost in lost_runs(instance)] == ["night"]
        monkeypatch.setattr(run_history, "_process", lambda instance, run_id: os.getpid())
        assert lost_runs(instance) == []
        other.kill()
