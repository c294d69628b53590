"""Which process is meant, also when its number is given again."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from sid_pipeline.processes import identity, is_there, ran_at

linux = pytest.mark.skipif(sys.platform != "linux", reason="the start of a process is read from /proc")


def test_a_process_is_there_until_it_ends():
    with subprocess.Popen(["sleep", "60"]) as other:
        noted = identity(other.pid)
        assert is_there(identity()) and is_there(noted) and noted.partition(".")[0] == str(other.pid)
        other.kill()
    assert not is_there(noted)


@linux
def test_a_number_that_is_given_again_is_another_process():
    pid, began, boot = identity().split(".")
    assert not is_there(f"{pid}.{int(began) - 1}.{boot}"), "after a restart of the container"
    assert not is_there(f"{pid}.{began}.{'0' * len(boot)}"), "after a restart of the machine"


@linux
def test_a_process_that_nobody_waited_for_is_gone():
    with subprocess.Popen(["true"]) as other:
        noted = identity(other.pid)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert not is_there(noted) and not ran_at(other.pid, time.time())


@linux
def test_a_process_did_not_run_before_it_began():
    with subprocess.Popen(["sleep", "60"]) as other:
        assert ran_at(other.pid, time.time()) and not ran_at(other.pid, time.time() - 60)
        other.kill()


def test_without_proc_the_number_alone_counts(monkeypatch):
    monkeypatch.setattr("sid_pipeline.processes._stat", lambda pid: None)
    assert identity() == str(os.getpid()) and is_there(identity()) and ran_at(os.getpid(), 0.0)
    assert not is_there("999999999")
