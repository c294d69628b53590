"""Publications: consumer files, immutability, the same bytes for the same rows, the chain of deltas, bad rows."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sid_pipeline.publication import delta as deltas
from sid_pipeline.publication.folder import PublicationError, finished, read_manifest, verify
from sid_pipeline.publication.publish import publish
from sid_pipeline.publication.store import open_store
from sid_pipeline.reader import open_release
from sid_pipeline_tests.publications import DAY1, DAY2, LEVELS, SIZE, source

CONSUMER_FILES = {
    "product_sids.parquet", "sid_products.parquet", "unassigned.parquet", "withdrawn.parquet", "delta.parquet",
    "vocabulary.json", "added_tokens.json", "token_vectors.safetensors", "constraints.safetensors",
    "codebook/manifest.json",
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "state")


@pytest.fixture
def put(store, tmp_path):
    return lambda rows=DAY1, **more: publish(store, source(tmp_path, rows, **more), tmp_path / "spool")


def files(store, folder):
    root = store.folder / folder
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_file_is_there_and_hashed(store, put):
    made = put()
    assert CONSUMER_FILES | {"data_card.json", "README.md", "manifest.json"} == set(files(store, made.folder))
    assert set(made.manifest["files"]) == set(files(store, made.folder)) - {"manifest.json"}
    assert made.manifest["rows"] == {
        "product_sids.parquet": 3, "unassigned.parquet": 1, "withdrawn.parquet": 0, "sid_products.parquet": 3,
        "delta.parquet": 3,
    }  # fmt: skip
    assert verify(store, made.folder) == made.manifest


def test_the_same_pins_are_published_once(store, put):
    made = put()
    before = files(store, made.folder)
    assert put({}) == made, "the rows are not even staged again"
    assert files(store, made.folder) == before
    assert finished(store, "esci", "r1") == [made.folder]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_same_rows_give_the_same_bytes(tmp_path, parts):
    rows = {f"p{i:05d}": f"{i % 16}_{i % 7}_{i % 5}_{i % 3}" for i in range(999)}
    offers = [(f"shop{i % 3}", f"p{i:05d}", float(i % 11)) for i in range(999)]
    made = []
    for name, split in (("one", 1), ("other", parts)):
        store = open_store(tmp_path / name)
        publication = publish(store, source(tmp_path, rows, offers=offers, parts=split), tmp_path / "spool")
        made.append((publication.folder, files(store, publication.folder)))
    assert made[0] == made[1]


def test_another_day_with_the_same_rows_gives_the_same_consumer_files(store, put):
    first, second, third = put(), put(snapshot="2026-01-06"), put(snapshot="2026-01-07")
    assert first.manifest["number"] == 1 and third.manifest["number"] == 3
    a, b, c = (files(store, made.folder) for made in (first, second, third))
    for name in CONSUMER_FILES - {"delta.parquet"}:
        assert a[name] == b[name] == c[name], name
    assert b["delta.parquet"] == c["delta.parquet"], "both are empty"
    assert second.manifest["rows"]["delta.parquet"] == 0


def test_previous_and_delta_are_current_along_the_chain(store, put):
    days = [DAY1, DAY2, DAY1]
    made = [put(rows, snapshot=f"2026-01-0{5 + i}") for i, rows in enumerate(days)]
    assert [m.manifest["parent"] and m.manifest["parent"]["folder"] for m in made] == [
        None, made[0].folder, made[1].folder
    ]  # fmt: skip
    tables = [
        {name: pq.read_table(store.folder / m.folder / f"{name}.parquet") for name in ("product_sids", "delta")}
        for m in made
    ]
    for before, after in itertools.pairwise(tables):
        assert list(deltas.apply([before["product_sids"]], [after["delta"]]))
        deltas.require_exact([before["product_sids"]], [after["delta"]], [after["product_sids"]])
    changes = [(r["product_id"], r["change"], r["sid"], r["previous_sid"], r["reason"]) for r in
               tables[1]["delta"].to_pylist()]  # fmt: skip
    assert changes == [
        ("p2", "withdrawn", None, "12_2_3_4", "withdrawn on 2026-01-06"),
        ("p3", "moved", "1_2_3_5", "1_2_3_4", "new"),
        ("p4", "added", "0_0_0_0", None, "new"),
    ]


def test_a_release_begins_its_own_chain(put):
    put()
    assert put(release="r2").manifest["parent"] is None


def test_a_damaged_parent_is_named_and_nothing_is_published(store, put):
    first = put()
    (store.folder / first.folder / "product_sids.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(PublicationError, match=r"product_sids\.parquet does not match the hash"):
        put(DAY2, snapshot="2026-01-06")
    assert finished(store, "esci", "r1") == [first.folder]


def test_a_damaged_manifest_is_named(store, put):
    first = put()
    path = store.folder / first.folder / "manifest.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(PublicationError, match=r"manifest\.json is no valid JSON .*: restore it"):
        read_manifest(store, first.folder)
    path.write_text("{}")
    with pytest.raises(PublicationError, match="schema version None"):
        open_release("esci", "r1", store.root)
    for altered, named in (({"files": {}}, r"product_sids\.parquet"), ({"rows": None}, "rows")):
        manifest = {name: value for name, value in {**first.manifest, **altered}.items() if value is not None}
        path.write_text(json.dumps({"parent": None, **manifest}))
        with pytest.raises(PublicationError, match=rf"manifest\.json does not name {named}, so it was altered"):
            open_release("esci", "r1", store.root)


def test_rows_that_were_staged_where_the_driver_cannot_see_them_are_missed(store, put, tmp_path):
    put()
    more = source(tmp_path, DAY2, snapshot="2026-01-06")
    lost = replace(more, expected={**more.expected, "product_sids.parquet": 4})
    with pytest.raises(PublicationError, match=r"3 rows of product_sids\.parquet were staged in .*, not the 4"):
        publish(store, lost, tmp_path / "spool")
    assert len(finished(store, "esci", "r1")) == 1


def test_the_vectors_and_the_saving_of_parameters(store, put):
    made = put()
    vectors = load_file(store.folder / made.folder / "token_vectors.safetensors")["vectors"]
    assert vectors.shape == (LEVELS * SIZE, 8) and vectors[17, 0] == 17 * 8
    card = json.loads((store.folder / made.folder / "data_card.json").read_text())
    assert card["embedding_rows"] == {"atomic_ids": 3, "tokens": 64, "atomic_ids_per_token": 0.05}
    assert card["counts"]["distinct_sids"] == 3 and card["counts"]["added_since_parent"] == 3
    text = (store.folder / made.folder / "README.md").read_text()
    assert "| codes_in_range | yes | all are. |" in text and "| codebook_id | codebook-of-r1 |" in text


def test_a_further_token_has_its_own_level_that_only_grows(store, put):
    rows = {f"p{i}": f"1_2_3_4_{i}" for i in range(20)}
    first = put(rows, further=True)
    assert first.manifest["further_tokens"] == 32
    second = put({"p0": "1_2_3_4_0"}, further=True, snapshot="2026-01-06")
    assert second.manifest["further_tokens"] == 32, "it does not shrink with the catalogue"
    opened = open_release("esci", "r1", store.root)
    assert opened.vocabulary["tokens"][64:67] == ["<e_0>", "<e_1>", "<e_2>"]
    assert opened.constraints.contains(np.array([[1, 2, 3, 4, 0], [1, 2, 3, 4, 1]])).tolist() == [True, False]
    assert opened.products("1_2_3_4") == ["p0"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"p1": "1_2_3"}, "'1_2_3' has not 4 codes"),
        ({"p1": "1_2_3_4", "p2": "1_2_3_4_5"}, "'1_2_3_4_5' has not 4 codes"),
        ({"p1": "1_2_3_16"}, "'1_2_3_16' has a code outside"),
        ({"p1": "1_2_3_x"}, "something else than codes"),
    ],
)
def test_bad_sids_are_named(put, store, rows, message):
    with pytest.raises(PublicationError, match=message):
        put(rows, offers=None)
    assert finished(store, "esci", "r1") == []


def test_an_empty_catalogue_can_be_published(store, put):
    put({}, offers=None)
    opened = open_release("esci", "r1", store.root)
    assert opened.sids() == {} and opened.constraints.sids == 0 and opened.products("1") == []


@pytest.mark.parametrize("bad", ["../r1", "r1/x", "r'1", "r1; DROP TABLE x", "", "..", "r1\n"])
def test_bad_keys_are_refused(put, bad):
    for field in ("release", "snapshot"):
        with pytest.raises(ValueError, match="may hold letters"):
            put(**{field: bad})
