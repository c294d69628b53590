"""The archive of Spark's classes that a local JVM maps at its start instead of loading and verifying thousands.

Java calls it a dynamic class-data sharing archive (JEP 350). It lies in the user's cache, one for each Java and PySpark
installation, and is only a matter of speed: a JVM that it does not fit ignores it, and without one all works the same.
What does not belong here: any other option of the JVM.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sid_pipeline.resources.jars import cache_dir

SECONDS = 600
OF = ".spark"  # beside each archive a link of this suffix to the Spark that it is of


class ArchiveError(RuntimeError):
    """The archive could not be made."""


def archive_path() -> Path | None:
    """Where this installation's archive is, or would be; None where no Java or no PySpark is found."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if find_spec("pyspark") is None or java is None or not Path(java).is_file():
        return None
    real = Path(java).resolve()
    fits = [str(real), str(real.stat().st_mtime_ns), str(_spark()), version("pyspark")]
    return cache_dir().parent / "classes" / f"{hashlib.sha256(chr(0).join(fits).encode()).hexdigest()[:16]}.jsa"


def _spark() -> Path:
    """The folder of the Spark that PySpark starts."""
    spec = find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    return Path(os.environ.get("SPARK_HOME") or Path(spec.origin).parent).resolve()


def java_options() -> str:
    """What a JVM is told to use the archive; empty while there is none."""
    path = archive_path()
    # Quoted: Spark cuts its options at blanks.
    return f'"-XX:SharedArchiveFile={path}"' if path is not None and path.is_file() else ""


def make() -> Path:
    """Make this installation's archive, unless it is there, from the classes that a small job of the usual kind loads.

    Raises:
        ArchiveError: the job or the JVM failed; the message has the end of what they said.
        OSError: the cache cannot be written.
    """
    path = archive_path()
    if path is None:
        raise ArchiveError("no Java or no PySpark is found")
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        fresh = Path(scratch) / path.name
        command = [sys.executable, "-m", __name__, str(fresh), scratch]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ArchiveError(f"no archive of Spark's classes within {SECONDS} s") from error
        if done.returncode or not fresh.is_file():
            told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise ArchiveError(f"no archive of Spark's classes could be made: {told}")
        fresh.replace(path)
    path.with_suffix(OF).unlink(missing_ok=True)
    path.with_suffix(OF).symlink_to(_spark())
    _remove_others(path)
    return path


def _remove_others(path: Path) -> None:
    """Remove archives of Spark installations that are gone, and older ones of this archive's (Java was updated)."""
    for link in path.parent.glob(f"*{OF}"):
        if not link.exists() or (link.resolve() == _spark() and link.stem != path.stem):
            link.with_suffix(path.suffix).unlink(missing_ok=True)
            link.unlink()


def _load_classes(archive: Path, scratch: Path) -> None:
    """In a process of its own: do a little of what every stage does, and let the JVM write what it loaded for that."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from sid_pipeline.resources.spark import JAVA_OPTIONS, LOCAL_CONF, spark_session
    from sid_pipeline.settings import SparkSettings

    options = f'{LOCAL_CONF[JAVA_OPTIONS]} "-XX:ArchiveClassesAtExit={archive}"'
    session = spark_session(SparkSettings(conf={JAVA_OPTIONS: options}))
    folder = str(scratch / "table")
    rows = session.range(1_000).select("id", F.col("id").cast("string").alias("text"), (F.col("id") % 2).alias("part"))
    rows.write.format("delta").partitionBy("part").save(folder)
    table = session.read.format("delta").load(folder)
    same = table.mapInArrow(lambda batches: batches, table.schema)
    same.join(rows.drop("text", "part"), "id", "left").groupBy("part").agg(
        F.count_distinct("text"), F.collect_set("id")
    ).toArrow()
    source = rows.limit(10).withColumn("text", F.lit("changed"))
    merge = DeltaTable.forPath(session, folder).alias("old").merge(source.alias("new"), "old.id = new.id")
    merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    (scratch / "rows.csv").write_text("id,text\n1,one\n2,two\n", encoding="utf-8")
    read = session.read.csv(str(scratch / "rows.csv"), header=True, schema="id long, text string")
    read.where(F.col("text").rlike("^[a-z]+$")).dropDuplicates(["text"]).orderBy("id").collect()
    gateway = session.sparkContext._gateway
    assert gateway is not None
    session.stop()
    gateway.proc.stdin.close()  # ends the JVM, which writes the archive
    gateway.proc.wait()


if __name__ == "__main__":
    _load_classes(Path(sys.argv[1]), Path(sys.argv[2]))
