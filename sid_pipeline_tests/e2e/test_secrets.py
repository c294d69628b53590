"""Secrets in the environment through a real small run and its failures, and everything that was written searched.

The catalogue is as nasty as it can be: ids and texts that would be SQL, shell, HTML, paths or templates where somebody
took them for that.
"""

from __future__ import annotations

import csv
import gzip
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from sid_pipeline.publication.store import StoreNotReached
from sid_pipeline.reader import open_live
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.run import RunFailed, run_everything
from sid_pipeline.sample import generate
from sid_pipeline.settings import PROJECT_ROOT, load_settings
from sid_pipeline_tests.automation import fail
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2, SETTINGS
from sid_pipeline_tests.llm_server import KEY, running

pytestmark = pytest.mark.slow

SECRETS = {
    "GEMINI_API_KEY": "sekret-gemini-41b7",
    "OPENAI_API_KEY": "sekret-openai-c93d",
    "SID_ALERTS__WEBHOOK": "http://127.0.0.1:9/hook/sekret-webhook-77ae",
    "SID_ALERTS__SMTP_PASSWORD": "sekret-smtp-0f2c",
    "SID_PG_PASSWORD": "sekret-postgres-5d1e",
    "AWS_ACCESS_KEY_ID": "sekret-s3-id-2b88",
    "AWS_SECRET_ACCESS_KEY": "sekret-s3-key-e6f4",
    "HF_TOKEN": "sekret-hf-aa10",
}
WORD = "sekret-"
NASTY = (
    "'; DROP TABLE products; --",
    "../../../../tmp/pwned",
    "<script>alert(1)</script>",
    "$(touch pwned)`touch pwned`",
    "{{7*7}}${jndi:ldap://x}%s%n",
    "a\"b\\c'd`e",
    "snapshot=2026-01-05/x",
    "ünïcode\u202egnp.exe",
    "=cmd|' /C calc'!A0",
    "' OR '1'='1",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    generate(folder / "data", products=400)
    for day in (DAY1, DAY2):
        file = folder / "data" / "catalogue" / day / "products.csv.gz"
        rows = gzip.decompress(file.read_bytes())
        with gzip.open(file, "wb") as out:
            head, _, rest = rows.partition(b"\n")
            out.write(head + b"\n")
            out.write("".join(_line([word, f"{word} {word}", word, word, word, word, "1"]) for word in NASTY).encode())
            out.write(rest)
    (folder / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


def _line(fields: list[str]) -> str:
    from io import StringIO

    out = StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields)
    return out.getvalue()


@pytest.fixture
def environment(project, monkeypatch) -> pytest.MonkeyPatch:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SID_SETTINGS", str(project / "sid.toml"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(project)
    return monkeypatch


def texts_of(file: Path) -> Iterator[str]:
    """What a file says, compressed and columnar formats opened."""
    yield file.name
    data = file.read_bytes()
    yield data.decode("utf-8", "replace")
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data).decode("utf-8", "replace")
    elif data.startswith(b"PAR1"):
        yield str(pq.read_metadata(file).metadata)
        for column in pq.read_table(file).columns:
            yield str(column.to_pylist())
    elif data.startswith(b"SQLite"):
        with sqlite3.connect(file) as database:
            yield "\n".join(database.iterdump())


def leaks(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    return [str(path) for path in files if any(WORD in text for text in texts_of(path))]


def test_no_secret_is_written_and_nasty_data_stays_data(project, environment, capfd):
    told = []
    # The model's services refuse the key, one of them quoting it.
    with running() as server:
        for provider in ("gemini", "openai"):
            environment.setenv("SID_CLEANING__PROVIDER", provider)
            environment.setenv("SID_CLEANING__MODEL", "some-model")
            base = server.url if provider == "gemini" else f"{server.url}/v1"
            environment.setenv("SID_CLEANING__BASE_URL", base)
            settings = load_settings()
            assert KEY not in SECRETS.values()
            if provider == "gemini":
                run_everything(settings, snapshot=DAY1)
            else:  # and the release is pinned to the other service's cleaning
                with pytest.raises(RunFailed, match="esci_gemma") as pinned:
                    run_everything(settings, snapshot=DAY2)
                told.append(str(pinned.value))
    for name in ("PROVIDER", "MODEL", "BASE_URL"):
        environment.delenv(f"SID_CLEANING__{name}")
    live = open_live("esci", project / ".sid").sids()
    assert set(NASTY) <= set(live), set(NASTY) - set(live)

    # Object storage cannot be reached.
    environment.setenv("SID_PUBLICATION__ROOT", "s3://bucket/sid")
    with pytest.raises(StoreNotReached, match=r"s3://bucket/sid/live/esci\.json cannot be reached \(") as unknown:
        run_everything(load_settings(), snapshot=DAY2)
    with pytest.raises(RunFailed) as failed:
        run_everything(load_settings(), snapshot=DAY2, release="r1")
    told += [str(unknown.value), str(failed.value)]
    environment.delenv("SID_PUBLICATION__ROOT")

    # A run fails and the webhook cannot be reached.
    warehouse = Warehouse(load_settings())

    with dg.DagsterInstance.get() as instance:
        fail(warehouse, instance, "no luck")
    kept = [file.read_text(encoding="utf-8") for file in (warehouse.state / "alerts").iterdir()]
    assert any("snapshot_refresh failed" in alert for alert in kept), "and looked at below, as all files are"

    # The command line, on what it can be asked for; PostgreSQL does not answer.
    sid = [sys.executable, "-m", "sid_pipeline.cli"]
    for arguments in (["status"], ["doctor"], *(["show", "--", word] for word in NASTY)):
        done = subprocess.run([*sid, *arguments], cwd=project, capture_output=True, text=True)
        told.append(done.stdout + done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
    postgres = {"SID_PG_HOST": "127.0.0.1", "SID_PG_PORT": "9", "SID_PG_DB": "sid", "SID_PG_USER": "sid"}
    home = {"DAGSTER_HOME": str(PROJECT_ROOT / "deploy" / "production"), "SID_LOG_DIR": str(project / "logs")}
    done = subprocess.run(
        [sys.executable, "-c", "import dagster as dg; print(dg.DagsterInstance.get().get_runs())"],
        env={**os.environ, **postgres, **home}, cwd=project, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode, "a database that is not there was read"
    told.append(done.stdout + done.stderr)

    shown = capfd.readouterr()
    told += [shown.out, shown.err]
    assert not [text for text in told if WORD in text]
    assert leaks(project) == []
    assert not list(project.rglob("pwned")) and not Path("/tmp/pwned").exists()
    open_to_others = [
        str(path) for path in (project / ".sid").rglob("*") if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    assert open_to_others == []


def test_the_search_finds_a_secret_wherever_it_hides(tmp_path):
    import pyarrow as pa

    (tmp_path / "a.txt").write_text(f"x{WORD}y")
    with gzip.open(tmp_path / "b.gz", "wt") as file:
        file.write(f"{WORD}1")
    pq.write_table(pa.table({"c": [f"{WORD}{i}" for i in range(1000)]}), tmp_path / "c.parquet", compression="zstd")
    with sqlite3.connect(tmp_path / "d.db") as database:
        database.execute("create table t (a text)")
        database.execute("insert into t values (?)", (f"{WORD}2",))
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text("nothing")
    assert len(leaks(tmp_path)) == 4
