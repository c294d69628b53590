"""What do the options of the JVM and of Spark's code generator do to small nights, in which Spark plans more than it
computes?

    python bench/jvm.py [--nights 12]     processor seconds of the JVM for each night of 5,000 products, of which 2 %
                                          change: three writes and one refresh of the SIDs
    python bench/jvm.py --start           seconds until a new process has started Spark, written a small table,
                                          and merged into it, with the archive of classes and without, in turns

Every set of options runs in a process of its own; compare nights of the same number.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from assignment import assign
from assignment_common import ROOT, fill_tables, trained

QUICK = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"
INTERPRETED = {"spark.sql.codegen.factoryMode": "NO_CODEGEN"}
OPTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "as it is": (QUICK, {}),
    "100 generated classes kept": (QUICK, {"spark.sql.codegen.cache.maxEntries": "100"}),
    "a table's state in two partitions": (QUICK, {"spark.databricks.delta.snapshotPartitions": "2"}),
    "48 MB for compiled code": ("-XX:TieredStopAtLevel=1", {}),
    "both compilers": ("-XX:+TieredCompilation", {}),
    "projections interpreted": (QUICK, INTERPRETED),
    "stages too": (QUICK, {**INTERPRETED, "spark.sql.codegen.wholeStage": "false"}),
}
PRODUCTS = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=12)
    parser.add_argument("--only", type=lambda text: text.split(";"), help="some of the options, by name")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--options", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        starts() if args.options is None else start(args.options)
        return
    if args.options:
        nights(args.options, args.nights)
        return
    paths = os.pathsep.join([str(ROOT), str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")])
    for name in args.only or OPTIONS:
        asked = [sys.executable, __file__, "--nights", str(args.nights), f"--options={name}"]
        done = subprocess.run(
            asked, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True
        )
        print(json.dumps({"options": name, "seconds": json.loads(done.stdout.splitlines()[-1])}), flush=True)


def nights(name: str, number: int) -> None:
    """Run the nights in this process and print the seconds of each as JSON."""
    from sid_pipeline.resources.class_archive import java_options
    from sid_pipeline.resources.spark import JAVA_OPTIONS, LOCAL_CONF, spark_session
    from sid_pipeline.resources.tables import Tables
    from sid_pipeline.settings import SparkSettings

    options, conf = OPTIONS[name]
    others = [o for o in LOCAL_CONF[JAVA_OPTIONS].split() if "Tiered" not in o and "CodeCache" not in o]
    options = " ".join([options, *others, java_options()])
    session = spark_session(SparkSettings(master="local[*]", conf={JAVA_OPTIONS: options, **conf}))
    jvm = session.sparkContext._gateway.proc.pid  # the launching shell becomes the JVM
    folder = Path(tempfile.mkdtemp(prefix="sid-bench-"))
    tables, book = Tables(folder / "tables", lambda: session), trained()
    took = []
    for night in range(number):
        before, day = seconds(jvm), (date(2026, 1, 1) + timedelta(days=night)).isoformat()
        fill_tables(tables, PRODUCTS, day, changed_share=0.02 if night else 0.0)
        assign(tables, book, day)
        took.append(round(seconds(jvm) - before, 1))
    shutil.rmtree(folder)
    print(json.dumps(took))


def starts() -> None:
    """Three processes with the archive of classes and three without, in turns."""
    for archive in ("with", "without") * 3:
        subprocess.run([sys.executable, __file__, "--start", f"--options={archive}"], check=True)


def start(archive: str) -> None:
    """Start Spark in this process, write, merge, and print after how many seconds each was done."""
    began = time.monotonic()
    from delta.tables import DeltaTable

    from sid_pipeline.resources.class_archive import java_options
    from sid_pipeline.resources.spark import JAVA_OPTIONS, LOCAL_CONF, spark_session
    from sid_pipeline.settings import SparkSettings

    options = java_options() if archive == "with" else ""
    session = spark_session(SparkSettings(conf={JAVA_OPTIONS: f"{LOCAL_CONF[JAVA_OPTIONS]} {options}".rstrip()}))
    took = [time.monotonic() - began]
    with tempfile.TemporaryDirectory() as folder:
        session.range(1_000).selectExpr("id", "cast(id AS string) AS text").write.format("delta").save(f"{folder}/t")
        took.append(time.monotonic() - began)
        changed = session.range(10).selectExpr("id", "'changed' AS text").alias("new")
        merge = DeltaTable.forPath(session, f"{folder}/t").alias("old").merge(changed, "old.id = new.id")
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        took.append(time.monotonic() - began)
    print(json.dumps({"archive": archive, "started, written, merged after": [round(s, 1) for s in took]}), flush=True)


def seconds(pid: int) -> float:
    """Processor seconds of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
