"""The archive of Spark's classes: found for the installation it was made for, never half made, never needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sid_pipeline.resources import class_archive

JOB = """
from sid_pipeline.resources.spark import JAVA_OPTIONS, LOCAL_CONF, spark_session
from sid_pipeline.resources.class_archive import java_options
from sid_pipeline.settings import SparkSettings
options = f"{LOCAL_CONF[JAVA_OPTIONS]} {java_options()} -Xlog:class+load:file=loaded.txt"
print(spark_session(SparkSettings(conf={JAVA_OPTIONS: options})).range(10).count())
"""


def java(folder: Path) -> Path:
    file = folder / "bin" / "java"
    file.parent.mkdir(parents=True)
    file.write_text("#!/bin/sh\n")
    return file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    java(tmp_path / "jdk")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setenv("SID_CACHE_DIR", str(tmp_path))


def test_an_archive_belongs_to_one_java_and_one_pyspark(cache, tmp_path, monkeypatch):
    first = class_archive.archive_path()
    assert first is not None and class_archive.java_options() == ""
    first.parent.mkdir(parents=True)
    first.write_bytes(b"")
    assert class_archive.java_options() == f'"-XX:SharedArchiveFile={first}"' and class_archive.make() == first
    os.utime(tmp_path / "jdk" / "bin" / "java", (1, 1))  # an update of the same installation
    second = class_archive.archive_path()
    monkeypatch.setattr(class_archive, "version", lambda _: "5.0.0")
    assert len({first, second, class_archive.archive_path()}) == 3


def test_without_java_there_is_none(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    assert class_archive.archive_path() is None and class_archive.java_options() == ""
    with pytest.raises(class_archive.ArchiveError, match="no Java"):
        class_archive.make()


def test_what_failed_leaves_nothing_and_says_why(cache, monkeypatch):
    def failing(command, **_):
        Path(command[-2]).write_bytes(b"half")
        return subprocess.CompletedProcess(command, 1, "", "no room\n")

    monkeypatch.setattr(class_archive.subprocess, "run", failing)
    with pytest.raises(class_archive.ArchiveError, match="no room"):
        class_archive.make()
    path = class_archive.archive_path()
    assert path is not None and list(path.parent.iterdir()) == []


def test_archives_of_what_is_gone_or_replaced_are_removed(cache, tmp_path, monkeypatch):
    gone, java_before, other = (tmp_path / "sid_pipeline" / "classes" / name for name in ("gone", "before", "other"))
    gone.parent.mkdir(parents=True)
    for archive, spark in ((gone, tmp_path / "removed"), (java_before, class_archive._spark()), (other, tmp_path)):
        archive.with_suffix(".jsa").write_bytes(b"")
        archive.with_suffix(".spark").symlink_to(spark)

    def successful(command, **_):
        Path(command[-2]).write_bytes(b"whole")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(class_archive.subprocess, "run", successful)
    made = class_archive.make()
    assert {path.stem for path in gone.parent.iterdir()} == {made.stem, "other"}


@pytest.mark.slow
def test_spark_starts_from_it(tmp_path, monkeypatch):
    jars = class_archive.cache_dir()
    cache = tmp_path / "my cache"
    monkeypatch.setenv("SID_CACHE_DIR", str(cache))
    (cache / "sid_pipeline").mkdir(parents=True)
    (cache / "sid_pipeline" / "jars").symlink_to(jars)
    class_archive.make()
    done = subprocess.run([sys.executable, "-c", JOB], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "10\n", done.stderr[-2000:]
    loaded = [line for line in (tmp_path / "loaded.txt").read_text().splitlines() if " org.apache.spark." in line]
    from_archive = sum("shared objects file (top)" in line for line in loaded)
    from_jars = sum("pyspark/jars" in line for line in loaded)
    assert from_archive > 1_000 and from_archive > 10 * from_jars
