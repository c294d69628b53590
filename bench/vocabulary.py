"""A night of the assets that follow the SIDs, on a catalogue of millions: seconds and peak memory of each.

    python bench/vocabulary.py [--products 1000000] [--changed 0.01]

Synthetic products with titles, brands, 3,000 categories and an offer each, and two flavours of the trainer's default
shape whose vectors differ. The first night is made, then a second on which the share `--changed` of the texts is new;
the assets are the product's own, each run by Dagster in this process. Memory is of this process and all it started,
the JVM among them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import dagster as dg  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
from assignment_common import BLOCK, DIM, ROOT, PeakMemory, Vectors, seconds, trained  # noqa: E402

DAYS = ("2026-01-05", "2026-01-06")
EMBEDDERS = {"esci": "e1", "gemma": "e2"}  # name to id
TREE = (20, 300, 3_000)
LOG = (ROOT / "sid_pipeline" / "resources" / "log4j2.properties").as_uri()
SETTINGS = f"""
[source]
products = "p.csv"
[spark]
master = "local[2]"
driver_memory = "4g"
shuffle_partitions = 16
conf.'spark.driver.extraJavaOptions' = "-XX:+UseParallelGC -Dlog4j2.configurationFile={LOG}"
"""


class Catalogue:
    """A warehouse in which all that stands before the SIDs of release r1 is put in place by hand."""

    def __init__(self, folder: Path, products: int) -> None:
        from sid_pipeline.assets.flavours import Flavour
        from sid_pipeline.resources.warehouse import Warehouse
        from sid_pipeline.schemas import RELEASES
        from sid_pipeline.settings import load_settings

        (folder / "sid.toml").write_text(SETTINGS)
        self.products = products
        self.warehouse = Warehouse(load_settings(folder / "sid.toml", env={}))
        settings = self.warehouse.settings
        self.flavours = [Flavour(name, spec, settings) for name, spec in settings.active_flavours.items()]
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("releases", ["r1"])
        ledger = {"release": "r1", "state": "served", "taxonomy_source": "x", "taxonomy_revision": self._tree(),
                  "training_snapshot": DAYS[0], "embedder_ids": json.dumps(EMBEDDERS),
                  "created_at": datetime.now(timezone.utc)}  # fmt: skip
        self.warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **ledger}])
        book = trained()
        for flavour in self.flavours:
            where = book.save(self.warehouse.codebooks(flavour.name, "r1") / book.id)
            facts = {"folder": where.relative_to(self.warehouse.state).as_posix(), "codebook_id": book.id}
            self.receipt(f"{flavour.name}/training_set", "r1", {"embedders": flavour.joined})
            self.receipt(f"{flavour.name}/codebook", "r1", **facts)
        self.receipt("taxonomy", "r1")

    def receipt(self, key: str, partition: str, inputs: Any = None, version: str = "v", **facts: Any) -> None:
        from sid_pipeline.receipts import Receipt

        self.warehouse.receipts.put(Receipt(key, partition, inputs or {}, version, facts=facts))

    def _tree(self) -> str:
        """Write the tree down and return its revision."""
        from sid_pipeline.schemas import TAXONOMY_NODES
        from sid_pipeline.taxonomy.tree import Taxonomy
        from sid_pipeline.taxonomy_source import node_rows

        departments, aisles, leaves = TREE
        paths = [(f"department {n * departments // leaves}", f"aisle {n * aisles // leaves}", f"leaf {n}")
                 for n in range(leaves)]  # fmt: skip
        tree = Taxonomy.from_paths(paths)
        self.warehouse.tables.append_rows(TAXONOMY_NODES, [{"release": "r1", **row} for row in node_rows(tree, {})])
        return tree.revision

    def fill(self, day: str, changed_share: float = 0.0) -> None:
        """What the snapshot plane leaves of a day; that share of the texts is another than on the first."""
        from pyspark.sql import functions as F

        from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, OFFERS, PRODUCTS

        spark, tables = self.warehouse.spark, self.warehouse.tables
        number = F.col("id")
        every = round(1 / changed_share) if changed_share else 0
        version = F.when(number % every == 0, F.lit(day)).otherwise(F.lit("")) if every else F.lit("")
        departments, aisles, leaves = TREE
        leaf = F.pmod(F.xxhash64(number), F.lit(leaves))

        def words(count: int) -> Any:
            """Words that are the rarer the higher their number, and one of the leaf's own."""
            drawn = [leaf * 7, *[F.pow(F.rand(seed), 3) * 20_000 for seed in range(count)]]
            spelt = [F.conv((1_000 + word).cast("int").cast("string"), 10, 26) for word in drawn]
            return F.concat_ws(" ", *[F.translate(word, "0123456789", "qrstuvwxyz") for word in spelt], version)

        base = spark.range(0, self.products, 1, max(2, self.products // 100_000)).select(
            "id", F.format_string("p%09d", number).alias("product_id"), words(6).alias("title"),
            F.sha2(F.concat(F.lit("text"), number.cast("string"), version), 256).alias("text_hash"),
            F.concat(F.lit("brand "), F.pmod(F.xxhash64(number, F.lit(1)), F.lit(5_000))).alias("brand"),
            F.repeat(F.lit("what the product is good for, "), 6).alias("description"),
            F.array(*[F.concat(F.lit(f"{name} "), F.floor(leaf * size / leaves).cast("string"))
                      for name, size in (("department", departments), ("aisle", aisles), ("leaf", leaves))]
                    ).alias("category"),
        )  # fmt: skip
        known = ("product_id", "title", "text_hash", "brand", "description", "category")
        rest = [F.lit(None if c.nullable else "x").cast(c.type).alias(c.name) for c in PRODUCTS.columns
                if c.name not in ("snapshot", *known)]  # fmt: skip
        tables.replace(PRODUCTS, base.select(*known, *rest), snapshot=day)
        offers = {"product_id": F.col("product_id"), "retailer_id": F.lit("shop"), "available": F.lit(True),
                  "popularity": F.rand(7)}  # fmt: skip
        left = [F.lit(None if c.nullable else "x").cast(c.type).alias(c.name) for c in OFFERS.columns
                if c.name not in ("snapshot", *offers)]  # fmt: skip
        tables.replace(OFFERS, base.select(*[c.alias(n) for n, c in offers.items()], *left), snapshot=day)
        source = Vectors()
        self.receipt("products", day, version=day)
        self.receipt("offers", day, version=day)
        fresh = base.where(number % every == 0) if every else base
        for shift, (name, identity) in enumerate(EMBEDDERS.items(), 2 if every else 0):
            texts = base.select("product_id", "text_hash", F.col("title").alias("text"))
            tables.replace(EMBEDDED_PRODUCTS, texts, embedder_id=identity, snapshot=day)

            def vectors(batches: Iterator[pa.RecordBatch], shift: int = shift) -> Iterator[pa.RecordBatch]:
                for batch in batches:
                    x, _ = source.block(shift * 1_000_000 + batch.column("id")[0].as_py() // BLOCK, len(batch))
                    offsets = pa.py_buffer(np.arange(len(x) + 1, dtype=np.int32) * (4 * DIM))
                    packed = pa.Array.from_buffers(pa.binary(), len(x), [None, offsets, pa.py_buffer(x.tobytes())])
                    columns = [batch.column("text_hash"), packed, pa.nulls(len(x), pa.string())]
                    yield pa.RecordBatch.from_arrays(columns, ["text_hash", "vector", "fault"])

            ddl = "text_hash string, vector binary, fault string"
            tables.append(EMBEDDINGS, fresh.select("id", "text_hash").mapInArrow(vectors, ddl), embedder_id=identity)
            self.receipt(f"{name}_embeddings", day, {"products": day}, embedder_ids={identity: day}, faulty=0)

    def night(self, day: str) -> None:
        """The assets of a refresh, one by one."""
        from sid_pipeline.assets.assignment import assignment_assets
        from sid_pipeline.assets.codebook_diff import diff_assets
        from sid_pipeline.assets.comparison import comparison_assets
        from sid_pipeline.assets.explorer import explorer_assets
        from sid_pipeline.assets.names import names_assets
        from sid_pipeline.assets.publication import publication_assets
        from sid_pipeline.assets.report import report_assets

        of_flavours = (assignment_assets, names_assets, report_assets, diff_assets, publication_assets)
        assets = [(flavour.name, asset) for make in of_flavours for flavour in self.flavours for asset in make(flavour)]
        assets += [("", asset) for make in (comparison_assets, explorer_assets) for asset in make(self.flavours)]
        for flavour, asset in assets:
            with PeakMemory() as memory:
                took = seconds(lambda asset=asset: self._materialise(asset))
            print(json.dumps({"day": day, "flavour": flavour, "asset": asset.key.path[-1], "seconds": round(took, 1),
                              "peak_gib": round(memory.peak / 2**30, 2)}), flush=True)  # fmt: skip

    def _materialise(self, asset: dg.AssetsDefinition) -> None:
        result = dg.materialize(
            [asset], instance=self.instance, partition_key="r1", resources={"warehouse": self.warehouse}
        )
        assert result.success


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--folder", type=Path, default=None, help="where tables are made, and removed at the end")
    args = parser.parse_args()
    # Spark's workers unpickle functions of this file and of assignment_common.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")])
    folder = Path(tempfile.mkdtemp(prefix="sid-bench-", dir=args.folder))
    try:
        catalogue = Catalogue(folder, args.products)
        for day, changed in zip(DAYS, (0.0, args.changed), strict=True):
            catalogue.fill(day, changed)
            catalogue.night(day)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
