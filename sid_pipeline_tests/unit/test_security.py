"""What the threat model promises of the code as a whole, read from its syntax trees; see docs/threat_model.md."""

from __future__ import annotations

import ast
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sid_pipeline import cli
from sid_pipeline.resources import spark
from sid_pipeline.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "sid_pipeline"
SQL = {"sql", "where", "filter", "expr", "selectExpr"}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of a kind in the package, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for place, node in nodes(ast.Call):
        assert isinstance(node, ast.Call)
        yield place, ast.unparse(node.func), node


def argument(call: ast.Call, name: str) -> object:
    value = next((word.value for word in call.keywords if word.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else value


def test_nothing_foreign_is_unpickled_or_executed():
    imported = {
        (place, name.name.split(".")[0])
        for kind in (ast.Import, ast.ImportFrom)
        for place, node in nodes(kind)
        for name in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert not [place for place, name in imported if name in {"pickle", "marshal", "shelve", "joblib", "dill"}]
    for place, name, call in calls():
        assert name not in {"eval", "exec", "os.system", "os.popen", "yaml.load"}, place
        if name == "torch.load":
            assert argument(call, "weights_only") is True, place
        if name == "np.load":
            assert argument(call, "allow_pickle") is False, place
        if name.startswith("subprocess."):
            assert argument(call, "shell") in (None, False), place


def test_sql_is_put_together_in_one_place_only():
    """In `resources/tables.py`, from checked keys and names of our own; elsewhere SQL is constant."""
    for place, name, call in calls():
        if name.rpartition(".")[2] in SQL and not place.startswith("resources/tables.py"):
            built = [part for part in call.args if isinstance(part, (ast.JoinedStr, ast.BinOp))]
            built = [part for part in built if any(isinstance(x, ast.JoinedStr) for x in ast.walk(part))]
            assert not built, f"{place}: {ast.unparse(call)}"


def test_code_for_executors_lies_where_no_other_user_can_put_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("SID_CACHE_DIR", str(tmp_path))
    file = spark.project_zip()
    assert file.is_relative_to(tmp_path) and file.is_file()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_web_ui_is_bound_to_this_machine_by_default():
    host = next(option for option in cli.ui.params if option.name == "host")
    assert host.default == "127.0.0.1"


@pytest.mark.parametrize("unit", sorted((PROJECT_ROOT / "deploy").rglob("*.service")), ids=lambda path: path.name)
def test_services_that_listen_are_bound_to_this_machine(unit: Path):
    starts = [line for line in unit.read_text(encoding="utf-8").splitlines() if line.startswith("ExecStart=")]
    for line in starts:
        if "webserver" in line or "code-server" in line:
            assert "-h 127.0.0.1" in line


def test_every_licence_that_is_not_plainly_permissive_was_looked_at():
    done = subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "tools" / "licences.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
