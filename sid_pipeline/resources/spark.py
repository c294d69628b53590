"""The one Spark session of a process.

`spark_session` builds it from the settings: local by default, a cluster by `spark.master`, a Connect service by
`spark.remote`. Nothing else in the project configures Spark. Code that uses the session keeps to DataFrames and
SQL, so that it runs on all three.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.resources.class_archive import java_options
from sid_pipeline.resources.jars import cache_dir, delta_jars
from sid_pipeline.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA_OPTIONS = "spark.driver.extraJavaOptions"
# Delta's defaults suit terabytes; on a local disk these make small operations several times quicker.
LOCAL_CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "sid_pipeline-warehouse"),  # stays empty
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    # The quick compiler alone, which by default has room for what Spark's first minute compiles and then throws code
    # away in order to compile other code: the larger cache takes a third off the work of a warm process.
    JAVA_OPTIONS: "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m "
    "-XX:+UseSerialGC -Xshare:auto "
    f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}",
}
DELTA_CONF = {
    # Generated classes that are kept. Two nights need the same several hundred; of 100, the default, none is left when
    # it is asked for again.
    "spark.sql.codegen.cache.maxEntries": "2000",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # A join whose partitions fit into this much memory is hashed, not sorted.
    "spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold": "64m",
    # Both bound what a Python worker holds, whatever a partition's size and a vector's width.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": "64m",
    "spark.sql.execution.pythonUDF.arrow.enabled": "true",
    # One BLAS thread a worker: Spark's own tasks are the parallelism.
    "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
}


def spark_session(settings: SparkSettings) -> SparkSession:
    """The process's session, started on first use and shared by every later caller.

    Raises:
        JarError: Delta's JARs are not in the cache.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if settings.remote:
        builder = SparkSession.builder.remote(settings.remote)
        for key, value in settings.conf.items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        session.addArtifacts(str(project_zip()), pyfile=True)
        return session

    # Workers must run this very interpreter; a driver on the same machine inherits one BLAS thread each.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if settings.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    jars = settings.jars or delta_jars()
    conf = {**DELTA_CONF, "spark.jars": ",".join(jars)}
    if settings.master.startswith("local"):
        conf |= {**LOCAL_CONF, JAVA_OPTIONS: f"{LOCAL_CONF[JAVA_OPTIONS]} {java_options()}".rstrip()}
    conf |= {
        "spark.driver.memory": settings.driver_memory,
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        **settings.conf,
    }
    builder = SparkSession.builder.appName("sid_pipeline").master(settings.master)
    for key, value in conf.items():
        builder = builder.config(key, value)
    with _java_is_silent():
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    if not settings.master.startswith("local"):
        session.sparkContext.addPyFile(str(project_zip()))
    return session


@contextmanager
def _java_is_silent() -> Iterator[None]:
    """A JVM that is started here has no standard output: what Delta prints there ("Deleted 0 files") is no result of
    a command. Its log goes to standard error all the same."""
    sys.stdout.flush()
    own, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(own, 1)
        os.close(own)
        os.close(nowhere)


def project_zip() -> Path:
    """This package as a zip, for executors that do not have it: they need numpy, pyarrow and safetensors only."""
    package = Path(__file__).resolve().parent.parent
    sources = {path.relative_to(package.parent): path.read_bytes() for path in sorted(package.rglob("*.py"))}
    digest = hashlib.sha256(b"".join(str(name).encode() + data for name, data in sources.items())).hexdigest()[:16]
    # In the user's own cache: in a shared folder for temporary files another user could put code of theirs there first.
    target = cache_dir().parent / "code" / f"sid_pipeline-{digest}.zip"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = target.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sources.items():
                archive.writestr(name.as_posix(), data)
        scratch.replace(target)
    return target
