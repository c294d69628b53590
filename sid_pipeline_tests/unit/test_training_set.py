"""The training set: written whole, hashed, memory-mapped, refused when damaged."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.training_set import TrainingSetError, load_training_set, write_training_set


def tables(x, parts):
    bounds = np.linspace(0, len(x), parts + 1, dtype=int)
    for low, high in itertools.pairwise(bounds):
        yield pa.table(
            {
                "product_id": [f"p{i}" for i in range(low, high)],
                "text": [f"text {i}" for i in range(low, high)],
                "category": pa.array([["A", "B"] if i % 2 else None for i in range(low, high)], pa.list_(pa.string())),
                "vector_0": [row.tobytes() for row in x[low:high]],
            }
        )


def number(paths):
    return np.array([[0, 1] if path else [-1, -1] for path in paths], np.int32).reshape(len(paths), 2)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


def write(folder, x, parts=1, rows=None):
    return write_training_set(folder, tables(x, parts), rows or len(x), [1.0], number, {"release": "r1"})


def test_it_comes_back_as_it_was(tmp_path, x):
    manifest = write(tmp_path / "t", x, parts=3)
    loaded = load_training_set(tmp_path / "t")
    assert np.array_equal(loaded.vectors, x)
    assert isinstance(loaded.vectors, np.memmap)
    assert loaded.paths.tolist() == number([None, 1] * 5).tolist()
    assert loaded.products()["product_id"].to_pylist() == [f"p{i}" for i in range(10)]
    assert manifest["categorised"] == 5


def test_the_id_follows_the_content_not_the_batches(tmp_path, x):
    first = write(tmp_path / "a", x, parts=2)["files"]["vectors.npy"]
    assert write(tmp_path / "b", x, parts=5)["files"]["vectors.npy"] == first
    assert write(tmp_path / "c", x + 1)["id"] != write(tmp_path / "d", x)["id"]


def test_a_damaged_file_is_named(tmp_path, x):
    write(tmp_path / "t", x)
    with (tmp_path / "t" / "paths.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    with pytest.raises(TrainingSetError, match=r"paths\.npy does not match"):
        load_training_set(tmp_path / "t")


def test_an_unfinished_one_is_refused(tmp_path, x):
    write(tmp_path / "t", x)
    (tmp_path / "t" / "manifest.json").unlink()
    with pytest.raises(TrainingSetError, match=r"no manifest"):
        load_training_set(tmp_path / "t")


def test_row_counts_must_agree(tmp_path, x):
    with pytest.raises(TrainingSetError, match="10 rows came where 11 were counted"):
        write(tmp_path / "t", x, rows=11)
    with pytest.raises(TrainingSetError, match="more than the 9 rows"):
        write(tmp_path / "u", x, rows=9)
    with pytest.raises(TrainingSetError, match="no product with a vector"):
        write_training_set(tmp_path / "v", [], 0, [1.0], number, {})


def test_several_embeddings_are_joined_by_weight(tmp_path, x):
    """The cosine of two training rows is the weighted mean of their cosines in each embedding."""
    a = x / np.linalg.norm(x, axis=1, keepdims=True)
    b = np.roll(a, 3, axis=0)[:, :3]
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    both = [t.append_column("vector_1", pa.array([row.tobytes() for row in b])) for t in tables(a, 1)]
    manifest = write_training_set(tmp_path / "t", both, len(a), [3.0, 1.0], number, {"release": "r1"})
    joined = load_training_set(tmp_path / "t").vectors
    assert manifest["dimension"] == 7
    assert np.allclose(joined @ joined.T, 0.75 * a @ a.T + 0.25 * b @ b.T, atol=1e-6)
