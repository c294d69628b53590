"""Faults of the machine are told in a sentence, from the exceptions that they really leave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from sid_pipeline.resources.faults import machine_fault

JAVA = """An error occurred while calling o96158.save.
: org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to file:/x. SQLSTATE: 58030
Caused by: org.apache.hadoop.fs.FSError: java.io.IOException: No space left on device
\tat org.apache.spark.sql.execution"""


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state/x.parquet"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/state/x.parquet"),
        RuntimeError(JAVA),
        raised(ValueError("the step failed"), RuntimeError(JAVA)),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_is_told_with_what_to_do(error):
    told = machine_fault(error)
    assert told is not None and told.startswith("A disk is full (") and "sid retention --dry-run" in told
    assert "\n" not in told and "\tat " not in told


def test_memory_names_its_setting():
    assert "spark.driver_memory" in str(machine_fault(RuntimeError("java.lang.OutOfMemoryError: Java heap space")))
    assert "Python worker" in str(machine_fault(RuntimeError("Python worker exited unexpectedly (crashed)")))


class Py4JError(Exception):
    """Told by its name, as the real one is."""


def test_what_java_answers_is_no_dead_jvm():
    assert machine_fault(Py4JError("An error occurred while calling o58.sc")) is not None
    for answer in ("org.apache.x does not exist in the JVM", "Trying to call a package.", "An error occurred while "
                   "calling o1.x. Trace:\npy4j.Py4JException: Method x([]) does not exist"):  # fmt: skip
        assert machine_fault(Py4JError(answer)) is None
    assert machine_fault(RuntimeError("java.lang.OutOfMemoryError: unable to create native thread")) is None


def test_other_faults_are_none_of_the_machine():
    assert machine_fault(ValueError("no")) is None
    assert machine_fault(OSError(errno.ENOENT, "no such file", "x")) is None
    looped = ValueError("no")
    looped.__context__ = looped
    assert machine_fault(looped) is None


KILLED = """
import os, signal
import dagster as dg
from sid_pipeline.assets.recording import plain_failures
from sid_pipeline.resources.spark import spark_session
from sid_pipeline.settings import load_settings
spark = spark_session(load_settings(env={}).spark)
spark.range(10).count()
os.kill(spark.sparkContext._gateway.proc.pid, signal.SIGKILL)
for _ in range(2):  # the call that it dies in, and one of a later step
    try:
        with plain_failures():
            spark.range(10).count()
    except dg.Failure as failure:
        print("TOLD", failure.description)
os._exit(0)
"""


def test_a_killed_jvm_is_told_by_every_step_that_needs_it():
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=300)
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]
    assert len(told) == 2, done.stderr[-3000:]
    assert all("Spark's JVM died in the middle of the work" in line for line in told)
