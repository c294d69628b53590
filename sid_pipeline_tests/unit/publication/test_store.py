"""Publications on an object store: in memory for the protocol, and on a real S3 server."""

import os
import subprocess
import sys
import time
import uuid
from urllib.request import urlopen

import pytest

from sid_pipeline.publication.folder import PublicationError, finished
from sid_pipeline.publication.live import read_pointer, write_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.publication.store import LocalStore, ObjectStore, StoreNotReached, open_store
from sid_pipeline.reader import open_live, open_release
from sid_pipeline_tests.publications import DAY2, source


@pytest.fixture(scope="module")
def s3():
    """A local S3 server; fsspec and botocore learn of it from the environment, as in production."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            for _ in range(300):
                try:
                    urlopen(url, timeout=1)
                    break
                except OSError:
                    assert server.poll() is None, "the S3 server did not start"
                    time.sleep(0.1)
            import fsspec

            fsspec.filesystem("s3").mkdir("bucket")
            yield "s3://bucket"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(params=["memory", "s3"])
def root(request):
    base = "memory://" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{base}/{uuid.uuid4().hex}/sid"


def test_what_is_local_and_what_is_not(tmp_path):
    for local in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        assert isinstance(open_store(local), LocalStore) and open_store(local).root == str(tmp_path)
    assert isinstance(open_store("memory://x"), ObjectStore)


def test_publish_go_live_read_and_publish_again(root, tmp_path):
    store = open_store(root)
    assert read_pointer(store, "esci") is None and finished(store, "esci", "r1") == []
    first = publish(store, source(tmp_path), tmp_path / "spool")
    write_pointer(store, first.folder, first.manifest)
    live = open_live("esci", root)
    assert live.sid("p1") == "1_2_0_0" and live.products("1_2", retailer="shop") == ["p3", "p1"]
    second = publish(store, source(tmp_path, DAY2, snapshot="2026-01-06"), tmp_path / "spool")
    assert second.manifest["parent"]["folder"] == first.folder
    assert open_release("esci", "r1", root).folder == second.folder
    assert open_live("esci", root).folder == first.folder
    write_pointer(store, second.folder, second.manifest)
    assert open_live("esci", root).sid("p3") == "1_2_3_5", "a pointer that moved is seen at once"
    assert open_live("esci", root).constraints.sids == 3
    assert not list((tmp_path / "spool").rglob("*.parquet"))


def test_the_same_bytes_as_on_a_local_disk(root, tmp_path):
    there = publish(open_store(root), source(tmp_path), tmp_path / "spool")
    here = publish(open_store(tmp_path / "state"), source(tmp_path), tmp_path / "spool")
    assert there == here


def test_a_folder_without_its_manifest_does_not_exist_and_is_completed(root, tmp_path, monkeypatch):
    store = open_store(root)
    put_file = store._fs.put_file
    seen = []

    def breaks_off(local, remote, **more):
        if remote.endswith("/manifest.json") and "/codebook/" not in remote:
            raise ConnectionError("the network went away")
        seen.append(remote)
        return put_file(local, remote, **more)

    monkeypatch.setattr(store._fs, "put_file", breaks_off)
    with pytest.raises(StoreNotReached, match=rf"{root}/.*manifest\.json cannot be reached \(ConnectionError\)"):
        publish(store, source(tmp_path), tmp_path / "spool")
    assert len(seen) > 8 and finished(store, "esci", "r1") == []
    with pytest.raises(PublicationError, match="has no publication"):
        open_release("esci", "r1", root)
    monkeypatch.undo()
    made = publish(open_store(root), source(tmp_path), tmp_path / "spool")
    assert open_release("esci", "r1", root).folder == made.folder
    assert made.manifest["number"] == 1


def test_what_cannot_be_looked_at_is_not_taken_for_gone(root, tmp_path, monkeypatch):
    store = open_store(root)
    made = publish(store, source(tmp_path), tmp_path / "spool")
    write_pointer(store, made.folder, made.manifest)
    assert store.exists(f"{made.folder}/manifest.json") and not store.exists(f"{made.folder}/nothing")

    class SlowDown(Exception):
        pass

    def busy(*_, **__):
        raise SlowDown("https://key:secret@host")

    for name in ("info", "ls", "cat_file", "find", "pipe_file", "open"):
        monkeypatch.setattr(store._fs, name, busy)
    for ask in (
        lambda: store.exists(f"{made.folder}/manifest.json"),
        lambda: store.names("publications"),
        lambda: store.size("publications"),
        lambda: store.remove("publications"),
        lambda: store.sha256(f"{made.folder}/manifest.json"),
        lambda: store.write("live/esci.json", "{}"),
        lambda: finished(store, "esci", "r1"),
        lambda: read_pointer(store, "esci"),
    ):
        with pytest.raises(StoreNotReached, match=r"cannot be reached \(SlowDown\)") as told:
            ask()
        assert "secret" not in str(told.value)
    monkeypatch.undo()
    assert open_live("esci", root).folder == made.folder


def test_a_removed_release_is_gone(root, tmp_path):
    store = open_store(root)
    publish(store, source(tmp_path), tmp_path / "spool")
    other = publish(store, source(tmp_path, release="r2"), tmp_path / "spool")
    store.remove("publications/esci/r1")
    store.remove("publications/esci/nothing")
    assert finished(store, "esci", "r1") == [] and finished(store, "esci", "r2") == [other.folder]


def test_damage_is_named(root, tmp_path):
    store = open_store(root)
    made = publish(store, source(tmp_path), tmp_path / "spool")
    store.write(f"{made.folder}/vocabulary.json", "{}")
    with pytest.raises(PublicationError, match=rf"{root}/{made.folder}/vocabulary\.json does not match"):
        open_release("esci", "r1", root)


def test_an_address_without_a_pointer_is_told(root):
    with pytest.raises(PublicationError, match="nothing of flavour 'esci' is live under"):
        open_live("esci", root)
    assert os.environ.get("AWS_ENDPOINT_URL") or root.startswith("memory")
