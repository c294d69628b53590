"""Delta's JARs: found in the cache, refused when missing or damaged, never fetched twice."""

import pytest

from sid_pipeline.resources import jars


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SID_CACHE_DIR", str(tmp_path))
    folder = jars.cache_dir()
    folder.mkdir(parents=True)
    return folder


def test_a_missing_jar_says_how_to_get_it(cache):
    with pytest.raises(jars.JarError, match=r"delta-spark_4\.2_2\.13-4\.4\.0\.jar is missing: run `make setup`"):
        jars.delta_jars()


def test_a_damaged_jar_is_refused(cache):
    for name in jars.JARS:
        (cache / name).write_bytes(b"PK")
    with pytest.raises(jars.JarError, match="damaged"):
        jars.delta_jars()


def test_a_complete_cache_needs_neither_java_nor_network(cache, monkeypatch):
    sha = {}
    for name in jars.JARS:
        (cache / name).write_bytes(name.encode())
        sha[name] = jars.file_sha256(cache / name)
    monkeypatch.setattr(jars, "JARS", sha)
    assert jars.fetch(java="/nowhere/java") == [str(cache / name) for name in sha]


def test_a_failing_fetch_says_where_to_put_the_file(cache, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no route to host\nexit 1\n")
    java.chmod(0o755)
    with pytest.raises(jars.JarError, match=r"put it into .* by hand\.\nno route to host"):
        jars.fetch(java=str(java))
