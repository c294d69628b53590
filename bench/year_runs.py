"""One process that runs nights as the product's daemon would have them run; `year.py` tells it what, line by line.

The schedule `nightly_refresh` and the sensors are asked through Dagster's own contexts, and every run they ask for is
executed here, on the project's instance. What does not belong here: catalogues, faults, and judging what comes out.

    python bench/year_runs.py SETTINGS ANSWERS_FD [--clock-offset SECONDS]     # commands come as JSON lines on stdin
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SHORT_DAY = 60.0  # seconds of a real clock that stand for a day in `retention.history_days`: less than a night takes
FOLLOW = {True: "sids_follow_snapshot", False: "sids_follow_failed_snapshot"}


class Operator:
    """The code location, the instance, and what was asked for so far."""

    def __init__(self) -> None:
        import dagster as dg

        from sid_pipeline.definitions import build_definitions
        from sid_pipeline.resources.warehouse import Warehouse
        from sid_pipeline.run import home
        from sid_pipeline.settings import load_settings

        self.dg = dg
        self.settings = load_settings()
        home(self.settings)
        self.warehouse = Warehouse(self.settings)
        self.definitions = build_definitions(self.settings, {"warehouse": self.warehouse})
        self.repository = self.definitions.get_repository_def()
        self.instance = dg.DagsterInstance.get()
        self.zone = ZoneInfo(self.settings.snapshots.timezone)

    def tick(self, day: str) -> dict[str, Any]:
        """The schedule, at the time at which its cron falls on a day, and the runs that it asks for."""
        from dagster._utils.schedules import cron_string_iterator

        midnight = datetime.fromisoformat(day).replace(tzinfo=self.zone)
        times = []
        for when in cron_string_iterator(
            midnight.timestamp(), self.settings.orchestration.nightly_cron, str(self.zone)
        ):
            if when.date() != midnight.date():
                break
            times.append(when)
        if len(times) != 1:
            raise RuntimeError(f"the schedule falls {len(times)} times on {day}: {times}")
        context = self.dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=times[0],
            resources={"warehouse": self.warehouse},
            repository_def=self.repository,
        )
        asked = self.repository.get_schedule_def("nightly_refresh").evaluate_tick(context)
        return self._run_all("snapshot_refresh", asked)

    def sensor(self, name: str, job: str) -> dict[str, Any]:
        """A sensor, with the cursor it left."""
        cursors = self.settings.state / "year_cursors.json"
        known = json.loads(cursors.read_text()) if cursors.is_file() else {}
        context = self.dg.build_sensor_context(
            instance=self.instance,
            cursor=known.get(name),
            resources={"warehouse": self.warehouse},
            repository_def=self.repository,
        )
        found: Any = self.repository.get_sensor_def(name)(context)
        if isinstance(found, self.dg.SkipReason):
            found = self.dg.SensorResult(skip_reason=found)
        elif not isinstance(found, self.dg.SensorResult):
            found = self.dg.SensorResult(run_requests=list(found))
        for request in found.dynamic_partitions_requests or []:  # before the runs, as the daemon does
            self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        runs = [run for request in found.run_requests or [] for run in self._requested(job, request)]
        if found.cursor is not None:
            cursors.write_text(json.dumps({**known, name: found.cursor}))
        return {"runs": runs, "skipped": found.skip_reason.skip_message if found.skip_reason else None}

    def run(
        self, job: str, partition: str | None = None, ops: dict[str, Any] | None = None, follow: bool = True
    ) -> dict[str, Any]:
        """A run that a person asks for, and what follows it."""
        if partition and job in ("release_build", "sid_refresh"):
            self.instance.add_dynamic_partitions("releases", [partition])
        return {"runs": self._run(job, partition, {"ops": ops} if ops else {}, follow=follow), "skipped": None}

    def bury(self) -> dict[str, Any]:
        """Report runs whose process was killed as failed, as the run monitoring of production does."""
        from sid_pipeline.run_history import UNFINISHED

        for run in self.instance.get_runs(self.dg.RunsFilter(statuses=UNFINISHED)):
            self.instance.report_run_failed(run, "its process was killed")
        return {"runs": [], "skipped": None}

    def retire(self, release: str) -> dict[str, Any]:
        """A person says that no reader uses a release any more."""
        from sid_pipeline.releases import retire

        retire(self.warehouse, release, "Ada", self.settings.snapshots.start.isoformat())
        return {"runs": [], "skipped": None}

    def _run_all(self, job: str, asked: Any) -> dict[str, Any]:
        runs = [run for request in asked.run_requests or [] for run in self._requested(job, request)]
        return {"runs": runs, "skipped": asked.skip_message}

    def _requested(self, job: str, request: Any) -> list[dict[str, Any]]:
        return self._run(request.job_name or job, request.partition_key, request.run_config or {}, request.tags)

    def _run(
        self, job: str, partition: str | None, config: Any = None, tags: Any = None, follow: bool = True
    ) -> list[dict[str, Any]]:
        started = time.monotonic()
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            raise_on_error=False,
            tags=dict(tags or {}),
            run_config={**(config or {}), "loggers": {"console": {"config": {}}}},
        )
        failures = []
        for event in result.all_events:
            if event.is_step_failure:
                data: Any = event.event_specific_data
                told = data.user_failure_data.description if data.user_failure_data else None
                failures.append(f"{event.step_key}: {told or data.error.to_string()}"[:2000])
        ran = {
            "job": job,
            "partition": partition,
            "ok": result.success,
            "failures": failures,
            "seconds": round(time.monotonic() - started, 2),
        }
        return [ran, *(self._follow(result) if follow and job == "snapshot_refresh" else [])]

    def _follow(self, result: Any) -> list[dict[str, Any]]:
        """The run-status sensor that a snapshot run wakes, and the runs that it asks for."""
        kind = "PIPELINE_SUCCESS" if result.success else "PIPELINE_FAILURE"
        ended = next(event for event in reversed(result.all_events) if event.event_type_value == kind)
        context = self.dg.build_run_status_sensor_context(
            sensor_name=FOLLOW[result.success],
            dagster_event=ended,
            dagster_instance=self.instance,
            dagster_run=result.dagster_run,
            resources={"warehouse": self.warehouse},
        )
        found: Any = self.repository.get_sensor_def(FOLLOW[result.success])(context)
        requests = [] if isinstance(found, self.dg.SkipReason) else list(found or [])
        return [run for r in requests for run in self._run("sid_refresh", r.partition_key, r.run_config, r.tags)]


def shorten_days() -> None:
    """Let tables keep files of replaced rows for simulated days, so that VACUUM takes them as it would in a year."""
    from sid_pipeline.resources.tables import Tables

    vacuum = Tables.vacuum

    def vacuum_sooner(tables: Tables, spec: Any, history_hours: float = 168) -> None:
        vacuum(tables, spec, history_hours * SHORT_DAY / 86_400)

    Tables.vacuum = vacuum_sooner  # type: ignore[method-assign]


def set_clock(offset: float) -> None:
    """Let this process's Python read another time: `time.time`, and `datetime.now` in every module loaded."""
    import datetime as module

    real_time, real = time.time, module.datetime

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class Shifted(real, metaclass=AnyDatetime):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return real.now(tz) + timedelta(seconds=offset)

    time.time = lambda: real_time() + offset
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__name__", "").startswith(("sid_pipeline", "dagster")):
            for name, value in list(vars(loaded).items()):
                if value is real:
                    setattr(loaded, name, Shifted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings")
    parser.add_argument("answers", type=int, help="file descriptor to answer on")
    parser.add_argument("--clock-offset", type=float, default=0.0)
    arguments = parser.parse_args()
    os.environ["SID_SETTINGS"] = arguments.settings
    answers = os.fdopen(arguments.answers, "w")
    operator = Operator()
    shorten_days()
    if arguments.clock_offset:
        set_clock(arguments.clock_offset)
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        started = time.monotonic()
        try:
            answer = getattr(operator, command.pop("do"))(**command)
        except Exception:
            answer = {"runs": [], "skipped": None, "error": traceback.format_exc()}
        print(json.dumps({**answer, "seconds": round(time.monotonic() - started, 2)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
