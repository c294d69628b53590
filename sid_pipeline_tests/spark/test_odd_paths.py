"""State under a path with blanks, accents and percent signs is read back, slices with '+' in their value too."""

import pyarrow as pa

from sid_pipeline.resources.tables import Tables
from sid_pipeline.schemas import EMBEDDINGS

DDL = EMBEDDINGS.ddl(without=("embedder_id",))


def test_tables_under_an_odd_path(spark, tmp_path):
    tables = Tables(tmp_path / "my [projects] é 100% {x} `; '\" --" / "tables", lambda: spark)
    rows = spark.createDataFrame([("h1", bytearray(b"1234"), None)], DDL)
    tables.append(EMBEDDINGS, rows, embedder_id="rules-1+schema-1")
    tables.append(EMBEDDINGS, rows, embedder_id="other")
    found = tables.arrow(EMBEDDINGS, embedder_id="rules-1+schema-1").to_pylist()
    assert found == [{"embedder_id": "rules-1+schema-1", "text_hash": "h1", "vector": b"1234", "fault": None}]
    assert tables.read(EMBEDDINGS, embedder_id="rules-1+schema-1").count() == 1
    wanted = spark.createDataFrame([("h1",), ("h2",)], "text_hash string")

    def found_by(keys):
        frame = tables.map_batches(
            EMBEDDINGS, ["text_hash", "vector"], lambda batches: batches, "text_hash string, vector binary", keys,
            embedder_id="rules-1+schema-1",
        )  # fmt: skip
        return [(row["text_hash"], bytes(row["vector"])) for row in frame.collect()]

    assert found_by(None) == found_by(pa.array(["h1", "h2"])) == [("h1", b"1234")]
    assert found_by(pa.array(["h3"])) == []
    tables.remove(EMBEDDINGS, wanted, embedder_id="other")
    assert [key for (key,) in tables.slices(EMBEDDINGS)] == ["rules-1+schema-1"]


def test_rows_of_many_files_come_once(spark, tmp_path, monkeypatch):
    monkeypatch.setattr("sid_pipeline.resources.parquet.TASK_BYTES", 2000)
    tables = Tables(tmp_path / "tables", lambda: spark)
    names = [f"h{i:04d}" for i in range(5000)]
    rows = spark.createDataFrame([(name, bytearray(b"1234"), None) for name in names], DDL).repartition(7)
    tables.append(EMBEDDINGS, rows, embedder_id="e")
    tables.append(EMBEDDINGS, rows, embedder_id="other")

    def once(batches):
        assert batches is iter(batches)
        return batches

    frame = tables.map_batches(EMBEDDINGS, ["text_hash"], once, "text_hash string", None, embedder_id="e")
    assert frame.rdd.getNumPartitions() > 1
    assert sorted(row["text_hash"] for row in frame.collect()) == names
