"""A tick of the automation conditions, as the daemon's sensors evaluate them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context


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
