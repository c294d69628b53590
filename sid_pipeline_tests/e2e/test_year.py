"""A few of the simulated nights (bench/year.py) on a small catalogue: each must satisfy the independent checker."""

from __future__ import annotations

import os
import subprocess

import pytest

from bench.year import faulty, simulate

pytestmark = pytest.mark.slow


def test_a_few_nights_with_faults(tmp_path):
    """A killed run, a full disk (where a disk may be mounted) with a model that lies, a late night, and a quiet one."""
    kinds = ["kill_run", "full_disk", "llm_lying", "late", "quiet"]
    try:
        records = simulate(tmp_path, nights=len(kinds) + 1, products=600, seed=3, chosen=kinds)
    finally:
        if os.path.ismount(tmp_path / "disk"):
            subprocess.run(["umount", str(tmp_path / "disk")], check=True)
    assert [record["kind"] for record in records[1:]] == kinds
    assert {record["night"]: faulty(record) for record in records if faulty(record)} == {}
    assert records[1]["killed_after"] and records[-1]["unchanged_seconds"]
