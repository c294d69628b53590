"""deploy/production as it stands: PostgreSQL, code server, daemon and webserver as processes of their own.

Needs PostgreSQL's server programs (Debian: postgresql); nothing else of the machine is used or changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sid_pipeline.sample import generate
from sid_pipeline.settings import PROJECT_ROOT
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2, SETTINGS
from sid_pipeline_tests.e2e.graphql import UI, free_port

pytestmark = pytest.mark.slow

PRODUCTION = PROJECT_ROOT / "deploy" / "production"
BIN = Path(sys.executable).parent
RUNS = """query { runsOrError { ... on Runs { results {
  runId status jobName parentRunId tags { key value } } } } }"""


def postgres_programs() -> Path | None:
    """Folder of PostgreSQL's server programs, the newest where there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Settings of a fresh PostgreSQL server on localhost."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not installed (Debian: postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    data, port = folder / "data", free_port()
    data.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        for path in (folder, data):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        for path in (folder, *folder.parents):
            if path != Path("/") and not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)
        as_user = ["runuser", "-u", "postgres", "--"]
    (folder / "password").write_text("a-password", encoding="utf-8")
    (folder / "password").chmod(0o644)
    subprocess.run(
        [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "sid", "-A", "scram-sha-256",
         "--pwfile", str(folder / "password")],
        check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    env = {
        "SID_PG_HOST": "127.0.0.1",
        "SID_PG_PORT": str(port),
        "SID_PG_DB": "postgres",
        "SID_PG_USER": "sid",
        "SID_PG_PASSWORD": "a-password",
    }
    _wait(lambda: query(env, "select 1") == [(1,)], 60, lambda: (folder / "server.log").read_text())
    yield env
    os.killpg(server.pid, signal.SIGINT)
    server.wait(timeout=60)


def query(env: dict[str, str], sql: str) -> list[tuple]:
    """Rows of a query, or an empty list while the server does not answer."""
    import psycopg2

    try:
        connection = psycopg2.connect(
            host=env["SID_PG_HOST"],
            port=env["SID_PG_PORT"],
            dbname=env["SID_PG_DB"],
            user=env["SID_PG_USER"],
            password=env["SID_PG_PASSWORD"],
        )
    except psycopg2.OperationalError:
        return []
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def _wait(condition, seconds: float, explain=lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(1)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("production")
    generate(folder / "data", products=400)
    (folder / "sid.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def services(postgres, project) -> Iterator[tuple[UI, subprocess.Popen, Path]]:
    """The webserver, the code server's process, and the folder of logs: all as the systemd units start them."""
    logs = project / "logs"
    logs.mkdir()
    code_port, ui_port = free_port(), free_port()
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SID_", "DAGSTER_"))},
        **postgres,
        "DAGSTER_HOME": str(PRODUCTION),
        "SID_SETTINGS": str(project / "sid.toml"),
        "SID_LOG_DIR": str(logs),
        "SID_CODE_PORT": str(code_port),
        "SID_ORCHESTRATION__AUTOMATION": "true",
        "SID_ORCHESTRATION__EXECUTOR": "multiprocess",
        "SID_ORCHESTRATION__MAX_CONCURRENT_STEPS": "1",
    }
    workspace = str(PRODUCTION / "workspace.yaml")
    commands = {
        "code": ["dagster", "code-server", "start", "-m", "sid_pipeline.definitions", "-h", "127.0.0.1",
                 "-p", str(code_port)],
        "daemon": ["dagster-daemon", "run", "-w", workspace],
        "webserver": ["dagster-webserver", "-w", workspace, "-h", "127.0.0.1", "-p", str(ui_port)],
    }  # fmt: skip
    with ExitStack() as stack:
        running = {}
        for name, (program, *arguments) in commands.items():
            log = stack.enter_context((logs / f"{name}.log").open("wb"))
            running[name] = subprocess.Popen(
                [str(BIN / program), *arguments], env=env, cwd=project, stdout=log, stderr=log, start_new_session=True
            )
        ui = UI(ui_port)

        def answers() -> bool:
            assert all(process.poll() is None for process in running.values()), _tail(logs)
            try:
                return bool(ui.ask("query { version }"))
            except OSError:
                return False

        _wait(answers, 240, lambda: _tail(logs))
        yield ui, running["code"], logs
        for process in running.values():
            os.killpg(process.pid, signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _tail(logs: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs.glob("*.log"))


def _run_worker(code_server: subprocess.Popen) -> int | None:
    """Process id of the run that the code server started, None while there is none.

    The code server's child is the gRPC server, whose spawned child is the run; its own children are steps.
    """
    parents: dict[int, int] = {}
    commands: dict[int, bytes] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                continue
    for pid, command in commands.items():
        above = parents.get(parents[pid], 0)
        if b"spawn_main" in command and above == code_server.pid:
            return pid
    return None


def test_missed_nights_run_by_themselves_and_a_killed_run_is_started_again(services, postgres, project):
    ui, code_server, logs = services

    def runs() -> list[dict]:
        return [run for run in ui.ask(RUNS)["runsOrError"]["results"] if run["jobName"] == "snapshot_refresh"]

    def day_of(run: dict) -> str:
        return next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition")

    _wait(lambda: any(run["status"] == "STARTED" for run in runs()), 400, lambda: _tail(logs))
    killed = next(run for run in runs() if run["status"] == "STARTED")
    _wait(lambda: _run_worker(code_server) is not None, 120, lambda: _tail(logs))
    os.kill(_run_worker(code_server), signal.SIGKILL)

    def done() -> bool:
        return {day_of(run) for run in runs() if run["status"] == "SUCCESS"} == {DAY1, DAY2}

    _wait(done, 1500, lambda: f"{runs()}\n{_tail(logs)}")
    again = [run for run in runs() if run["parentRunId"] == killed["runId"] and run["status"] == "SUCCESS"]
    states = {run["runId"]: run["status"] for run in runs()}
    assert states[killed["runId"]] == "FAILURE" and again, runs()
    assert query(postgres, "select count(*) from runs") == [(len(ui.ask(RUNS)["runsOrError"]["results"]),)]
    assert (project / ".sid" / "receipts" / "gemma_embeddings" / f"{DAY2}.json").is_file()
    assert not list(PRODUCTION.glob("history*")) and not (PRODUCTION / "storage").exists()
