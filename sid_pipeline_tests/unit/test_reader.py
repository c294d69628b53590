"""The reading library: what it gives, what it verifies, what it says, and what it does not import."""

import shutil
import subprocess
import sys

import pytest

from sid_pipeline.publication.live import write_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.publication.store import open_store
from sid_pipeline.reader import NoSid, PublicationError, WithdrawnProduct, open_live, open_release
from sid_pipeline_tests.publications import DAY2, source

HEAVY = ("dagster", "pyspark", "torch", "pydantic", "deltalake", "fsspec", "filelock", "sklearn", "click")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "state")


@pytest.fixture
def put(store, tmp_path):
    def put(*args, live=False, **more):
        made = publish(store, source(tmp_path, *args, **more), tmp_path / "spool")
        if live:
            write_pointer(store, made.folder, made.manifest)
        return made

    return put


def test_it_gives_back_what_was_published(store, put):
    put(live=True)
    live = open_live("esci", store.root)
    assert live.sids() == {"p1": "1_2_0_0", "p2": "12_2_3_4", "p3": "1_2_3_4"} and len(live) == 3
    assert live.sid("p3") == "1_2_3_4"
    assert live.lookup(["p2", "p4", "nobody", "p1"]) == ["12_2_3_4", None, None, "1_2_0_0"]
    assert live.products("1") == ["p1", "p3"], "1 is no prefix of 12"
    assert live.products("1_2_3_4") == ["p3"]
    assert live.products("1_2", retailer="shop") == ["p3", "p1"], "most popular first"
    assert live.products("12_2_3_4", retailer="shop") == [], "not available there"
    assert live.manifest["as_of_snapshot"] == live.card["as_of_snapshot"] == "2026-01-05"
    assert live.delta()["change"].to_pylist() == ["added"] * 3


def test_many_look_ups_at_once_agree_with_single_ones(store, put):
    rows = {f"p{i}": f"{i % 16}_{i % 7}_{i % 5}_{i % 3}" for i in range(3000)}
    put(rows, live=True)
    live = open_live("esci", store.root)
    asked = [f"p{i}" for i in range(0, 6000, 2)] + ["p7", "p7", "é", ""]
    assert live.lookup(asked) == [rows.get(product) for product in asked]
    assert live.lookup(asked[:50]) == [rows.get(product) for product in asked[:50]]
    assert live.lookup([]) == []
    assert all(live.sid(product) == rows[product] for product in ("p0", "p2999", "p999", "p1"))


def test_a_withdrawn_product_is_said_to_be_withdrawn(store, put):
    put(DAY2, live=True)
    live = open_live("esci", store.root)
    with pytest.raises(WithdrawnProduct, match="'p2' was withdrawn on 2026-01-06; its last SID was 12_2_3_4") as caught:
        live.sid("p2")
    assert isinstance(caught.value, KeyError)
    assert (caught.value.withdrawn_on, caught.value.last_sid) == ("2026-01-06", "12_2_3_4")
    assert live.lookup(["p2"]) == [None]


def test_a_product_without_a_sid_is_told_why(store, put):
    put(live=True)
    live = open_live("esci", store.root)
    with pytest.raises(NoSid, match=r"^product 'p4' has no SID: no text$"):
        live.sid("p4")
    with pytest.raises(NoSid, match="'nobody' is not in"):
        live.sid("nobody")


@pytest.mark.parametrize("prefix", ["", "1_", "a", "1__2", "1_2 OR 1", "-1"])
def test_what_is_no_prefix_is_refused(store, put, prefix):
    put(live=True)
    with pytest.raises(ValueError, match="no SID prefix"):
        open_live("esci", store.root).products(prefix)


def test_two_releases_are_read_at_once_and_the_newest_publication_of_each(store, put):
    put(live=True)
    put(DAY2, release="r2")
    newest = put(snapshot="2026-01-06")
    first, second = open_release("esci", "r1", store.root), open_release("esci", "r2", store.root)
    assert first.folder == newest.folder
    assert first.sid("p3") == "1_2_3_4" and second.sid("p3") == "1_2_3_5"
    assert open_live("esci", store.root).folder != newest.folder, "the pointer has not moved"
    with pytest.raises(PublicationError, match="'r3'"):
        open_release("esci", "r3", store.root)


def test_damage_is_named(store, put):
    folder = put(live=True).folder
    (store.folder / folder / "codebook" / "manifest.json").write_text('{"changed": 1}')
    with pytest.raises(PublicationError, match=r"codebook/manifest\.json does not match the hash"):
        open_live("esci", store.root)
    assert open_live("esci", store.root, hashes=False).sid("p1")
    (store.folder / folder / "vocabulary.json").unlink()
    with pytest.raises(PublicationError, match=r"vocabulary\.json is missing"):
        open_live("esci", store.root, hashes=False)


def test_a_manifest_that_is_not_the_one_made_live_is_refused(store, put):
    folder = put(live=True).folder
    manifest = store.folder / folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"number": 1', '"number": 2'))
    with pytest.raises(PublicationError, match=r"manifest\.json is not the one that was made live"):
        open_live("esci", store.root)


def test_a_pointer_that_moves_while_it_is_followed(store, put, monkeypatch):
    old = put(live=True)
    new = put(DAY2, snapshot="2026-01-06")
    from sid_pipeline import reader

    real = reader.read_pointer

    def moves_after_the_first_look(where, flavour):
        pointer = real(where, flavour)
        if pointer["publication"] == old.folder:  # the old one is made way with right after we looked
            shutil.rmtree(store.folder / old.folder)
            write_pointer(store, new.folder, new.manifest)
        return pointer

    monkeypatch.setattr(reader, "read_pointer", moves_after_the_first_look)
    assert open_live("esci", store.root).folder == new.folder


def test_what_is_open_stays_as_it_was(store, put):
    put(live=True)
    opened = open_live("esci", store.root)
    put(DAY2, snapshot="2026-01-06", live=True)
    assert opened.sid("p2") == "12_2_3_4"
    assert open_live("esci", store.root).sid("p3") == "1_2_3_5"


def test_without_offers_there_is_no_inverted_index(store, put):
    put(offers=None, live=True)
    with pytest.raises(PublicationError, match="without offers"):
        open_live("esci", store.root).products("1", retailer="shop")


def test_nothing_live_is_said_and_the_default_folder_is_dot_sid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PublicationError, match=r"nothing of flavour 'esci' is live under \.sid"):
        open_live("esci")


def test_it_imports_nothing_heavy(store, put):
    put(live=True)
    code = (
        "import sys; from sid_pipeline.reader import open_live; "
        f"live = open_live('esci', {store.root!r}); live.sid('p1'), live.sids(), live.products('1', 'shop'); "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
