"""The one Spark session of a process.

`spark_session` builds it from the settings: local by default, a cluster by `spark.master`, a Connect service by
`spark.remote`. Nothing else in the project configures Spark. Code that uses the session keeps to DataFrames and
SQL, so that it runs on all three.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.resources.jars import delta_jars
from sid_pipeline.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Delta's defaults suit terabytes; on a local disk these make small operations several times quicker.
LOCAL_CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "sid_pipeline-warehouse"),  # stays empty
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto "
    f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}",
}
DELTA_CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
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
        return builder.getOrCreate()

    # Workers must run this very interpreter; a driver on the same machine inherits one BLAS thread each.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if settings.master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    jars = settings.jars or delta_jars()
    conf = {**DELTA_CONF, "spark.jars": ",".join(jars)}
    if settings.master.startswith("local"):
        conf |= LOCAL_CONF
    conf |= {
        "spark.driver.memory": settings.driver_memory,
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        **settings.conf,
    }
    builder = SparkSession.builder.appName("sid_pipeline").master(settings.master)
    for key, value in conf.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session
