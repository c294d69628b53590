"""Publications: consumer files read back by the reader, immutability, damage and crashes."""

import json

import pytest

from sid_pipeline.publication.live import write_pointer
from sid_pipeline.publication.publish import PublicationError, publication_folder, publish, verify
from sid_pipeline.reader import open_live, open_release

PINS = {"flavour": "esci", "release": "r1", "as_of_snapshot": "2026-01-05"}


@pytest.fixture
def frames(spark):
    sids = spark.createDataFrame(
        [("p3", "1_2_3_4", None), ("p1", "1_2_0_0", None), ("p2", "12_2_3_4", None), ("p4", None, "no text")],
        "product_id string, published_sid string, reason string",
    )
    offers = spark.createDataFrame(
        [
            ("p1", "shop", True, 1.0),
            ("p3", "shop", True, 9.0),
            ("p2", "shop", False, 5.0),
            ("p3", "other", True, 2.0),
        ],
        "product_id string, retailer_id string, available boolean, popularity double",
    )
    return sids, offers


@pytest.fixture
def codebook(tmp_path):
    folder = tmp_path / "codebook"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def make(tmp_path, frames, codebook, **pins):
    pins = {**PINS, **pins}
    folder = publication_folder(tmp_path / "publications", "esci", pins["release"], pins["as_of_snapshot"], pins)
    publish(folder, *frames, codebook, 4, 16, pins)
    return folder


def test_the_reader_gives_back_what_was_published(tmp_path, frames, codebook):
    folder = make(tmp_path, frames, codebook)
    write_pointer(tmp_path, "esci", "r1", "2026-01-05", folder, "c1")
    live = open_live("esci", tmp_path)
    assert live.sids() == {"p1": "1_2_0_0", "p2": "12_2_3_4", "p3": "1_2_3_4"}
    assert live.sid("p3") == "1_2_3_4"
    assert live.lookup(["p2", "p4", "nobody"]) == ["12_2_3_4", None, None]
    assert live.products("1") == ["p1", "p3"], "1 is no prefix of 12"
    assert live.products("1_2", retailer="shop") == ["p3", "p1"], "most popular first"
    assert live.products("12_2_3_4", retailer="shop") == [], "not available there"
    assert live.manifest["rows"] == {
        "product_sids.parquet": 3,
        "unassigned.parquet": 1,
        "sid_products.parquet": 3,
    }
    assert json.loads((folder / "vocabulary.json").read_text())["tokens"][16 + 2] == "<b_2>"


def test_a_publication_is_never_written_twice(tmp_path, frames, codebook):
    folder = make(tmp_path, frames, codebook)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    make(tmp_path, (frames[0].limit(0), frames[1]), codebook)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_a_crash_left_is_replaced(tmp_path, frames, codebook):
    folder = publication_folder(tmp_path / "publications", "esci", "r1", "2026-01-05", PINS)
    scratch = folder.with_name(f".{folder.name}.part")
    scratch.mkdir(parents=True)
    (scratch / "product_sids.parquet").write_text("half a file")
    assert verify(make(tmp_path, frames, codebook))["rows"]["product_sids.parquet"] == 3
    assert not scratch.exists()


def test_damage_is_named(tmp_path, frames, codebook):
    folder = make(tmp_path, frames, codebook)
    (folder / "vocabulary.json").write_text("{}")
    with pytest.raises(PublicationError, match=r"vocabulary\.json does not match"):
        verify(folder)
    (folder / "vocabulary.json").unlink()
    with pytest.raises(PublicationError, match=r"vocabulary\.json is missing"):
        verify(folder)


def test_two_releases_can_be_read_at_once(tmp_path, frames, codebook):
    make(tmp_path, frames, codebook)
    make(tmp_path, (frames[0].limit(1), frames[1]), codebook, release="r2")
    assert len(open_release("esci", "r1", tmp_path).sids()) == 3
    assert len(open_release("esci", "r2", tmp_path).sids()) <= 1
    with pytest.raises(PublicationError, match="'r3'"):
        open_release("esci", "r3", tmp_path)


def test_without_offers_there_is_no_inverted_index(tmp_path, frames, codebook):
    folder = publication_folder(tmp_path / "publications", "esci", "r1", "2026-01-05", PINS)
    publish(folder, frames[0], None, codebook, 4, 16, PINS)
    with pytest.raises(PublicationError, match="without offers"):
        open_release("esci", "r1", tmp_path).products("1", retailer="shop")


def test_nothing_live_is_said(tmp_path):
    with pytest.raises(PublicationError, match="nothing of flavour 'esci' is live"):
        open_live("esci", tmp_path)
