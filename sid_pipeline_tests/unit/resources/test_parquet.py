"""Parquet files as workers read them: bounded batches, all rows once, columns that a file lacks."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.resources import parquet
from sid_pipeline.resources.parquet import Piece, read, share_out

SCHEMA = pa.schema([("key", pa.string()), ("vector", pa.binary()), ("fault", pa.string())])


@pytest.fixture
def file(tmp_path):
    """3,000 rows in row groups of 1,000, without the column `fault`."""
    table = pa.table(
        {"key": [f"k{i:04d}" for i in range(3000)], "vector": [bytes([i % 251]) * 64 for i in range(3000)]}
    )
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=1000, use_dictionary=False)
    return str(tmp_path / "part.parquet")


def rows(batches):
    return [row for batch in batches for row in batch.to_pylist()]


def test_every_row_once_with_the_columns_asked_for(file):
    found = list(read([Piece(file, 1)], SCHEMA))
    assert all(batch.schema.equals(SCHEMA) for batch in found)
    assert [row["key"] for row in rows(found)] == [f"k{i:04d}" for i in range(3000)]
    assert rows(found)[77] == {"key": "k0077", "vector": bytes([77]) * 64, "fault": None}


def test_row_groups_of_a_file_are_shared_out(file, monkeypatch):
    monkeypatch.setattr(parquet, "TASK_BYTES", 1000)
    pieces = parquet._pieces(file, 10_000, 3000)
    assert [piece.groups for piece in pieces] == [(0,), (1,), (2,)]
    plan = share_out(pieces)
    assert len(plan) == 3
    assert sorted(row["key"] for task in plan for row in rows(read(task, SCHEMA))) == [f"k{i:04d}" for i in range(3000)]


def test_small_files_share_a_task(monkeypatch):
    monkeypatch.setattr(parquet, "TASK_BYTES", 100)
    plan = share_out([Piece(f"f{i}", 30) for i in range(10)])
    assert [len(task) for task in plan] == [4, 4, 2]
    assert sorted(piece.path for task in plan for piece in task) == [f"f{i}" for i in range(10)]
    assert share_out([]) == []


def test_only_the_keys_wanted(file, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_ROWS", 7)
    opened = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, *a, **k: opened.append(k["row_groups"]) or real(self, *a, **k)
    )
    keys = pa.array(["k0007", "k2999", "nobody"])
    assert [row["key"] for row in rows(read([Piece(file, 1)], SCHEMA, keys))] == ["k0007", "k2999"]
    assert opened == [[0], [2]]  # vectors of the middle one were not read


def test_batches_are_bounded_by_bytes(file, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_BYTES", 10_000)
    sizes = [len(batch) for batch in read([Piece(file, 1)], SCHEMA)]
    assert sum(sizes) == 3000
    assert 50 < max(sizes) <= 10_000 // (64 + 5)
