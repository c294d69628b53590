"""How a run looks in a terminal: one line when a stage starts, one when it is done, and faults in full."""

import logging
import sys
import time
from typing import Any

import dagster as dg

# Shown behind a finished stage when its metadata has them.
HEADLINE = (
    "dagster/row_count",
    "rejected rows",
    "cleaned now",
    "encoded now",
    "collision_rate",
    "what happened",
)


class StageLines(logging.Handler):
    """Prints Dagster's step events as short lines on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, float] = {}
        self._failed: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """One line per stage started, asset materialised, failed check or fault; everything else is dropped."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:
            if record.levelno >= logging.WARNING:
                self._print(str(meta.get("orig_message") or record.getMessage()))
            return
        kind = event.event_type
        if kind == dg.DagsterEventType.STEP_START:
            self._started[str(event.step_key)] = time.monotonic()
        elif kind == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialised(event)
        elif kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.event_specific_data
            if not check.passed:
                self._print(
                    f"  CHECK FAILED {check.asset_key.to_user_string()} {check.check_name}: {check.description}"
                )
        elif kind == dg.DagsterEventType.STEP_FAILURE:
            data = event.event_specific_data
            failure = data.user_failure_data
            told = str(failure.description if failure else data.error_display_string)
            first = self._failed.setdefault(told, str(event.step_key))
            self._print(f"  FAILED {event.step_key}: {told if first == event.step_key else f'as {first}'}")

    def _materialised(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        metadata = materialization.metadata
        value = {name: getattr(entry, "value", None) for name, entry in metadata.items()}
        name = materialization.asset_key.to_user_string()
        parts = []
        for key in HEADLINE:
            # What an earlier run did is no news of this one.
            if value.get(key) is not None and not (value.get("unchanged") and key.endswith(" now")):
                shown = f"{value[key]:,}" if isinstance(value[key], int) else value[key]
                shown = f"{shown:.4f}" if isinstance(shown, float) else shown
                parts.append(f"{shown} rows" if key == "dagster/row_count" else f"{key.replace('_', ' ')}: {shown}")
        if value.get("unchanged"):
            parts.append("unchanged")
        seconds = time.monotonic() - self._started.get(str(event.step_key), time.monotonic())
        self._print(f"  {name:<28} {seconds:6.1f} s  {', '.join(parts)}")

    @staticmethod
    def _print(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _console(_: dg.InitLoggerContext) -> logging.Logger:
    """Dagster's console logger, replaced by `StageLines`."""
    logger = logging.getLogger("sid_pipeline.console")
    logger.handlers = [StageLines()]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


console = dg.LoggerDefinition(_console, description="One line a stage; the full log is in the Dagster UI.")
