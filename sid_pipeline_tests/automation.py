"""What the daemon does, done here: a tick of the automation conditions, and the sensor that a failed run wakes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context

from sid_pipeline import sensors
from sid_pipeline.resources.warehouse import Warehouse


def asked_for(
    definitions: dg.Definitions, instance: dg.DagsterInstance, now: datetime, cursor: Any
) -> tuple[dict[str, set[str]], Any]:
    """What is asked for now, asset to partitions, and the cursor for the next tick."""
    result = dg.evaluate_automation_conditions(definitions, instance, evaluation_time=now, cursor=cursor)
    asked = {}
    with partition_loading_context(now, instance):
        for found in result.results:
            partitions = set(found.true_subset.expensively_compute_partition_keys())
            if partitions and isinstance(found.key, dg.AssetKey):
                asked[found.key.to_user_string()] = partitions
    return asked, result.cursor


def fail(warehouse: Warehouse, instance: dg.DagsterInstance, sentence: str) -> None:
    """A night's run that fails with a sentence, and the sensor that it wakes."""

    @dg.op
    def breaks() -> None:
        raise dg.Failure(sentence, allow_retries=False)

    @dg.job
    def snapshot_refresh() -> None:
        breaks()

    result = snapshot_refresh.execute_in_process(instance=instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        sensor_name="tell_of_failures",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"warehouse": warehouse},
    ).for_run_failure()
    sensors._tell_of_failures(warehouse.settings)(context)
