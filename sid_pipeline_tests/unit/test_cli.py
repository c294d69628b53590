"""Every command with settings that cannot be used, and with a disk that is full: one sentence, no traceback."""

from __future__ import annotations

import errno
import os
import sys

import click
import pytest
from click.testing import CliRunner

from sid_pipeline import cli

WORDS = {"--by": "Ada", "--reason": "because", "--acknowledged-by": "Ada"}
# They look at the machine, not at the project.
WITHOUT_SETTINGS = {"setup", "doctor"}


def every(command: click.Command, *above: str) -> list[list[str]]:
    """Command lines of all commands, with what they need to be given."""
    if isinstance(command, click.Group):
        return [line for name, below in command.commands.items() for line in every(below, *above, name)]
    given = list(above)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            given.append("7")
        elif parameter.name == "estimate":
            given.append("--estimate")
        elif parameter.required:
            option = parameter.opts[0]
            given += [option, WORDS.get(option, "x")]
    return [given]


LINES = [line for line in every(cli.main) if line[0] not in WITHOUT_SETTINGS]


def ask(line: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    # As in a process of its own: importing it loads the settings.
    monkeypatch.delitem(sys.modules, "sid_pipeline.definitions", raising=False)
    done = CliRunner().invoke(cli.main, line)
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1, done.exception
    assert done.output.startswith("Error: ")
    return done.output


@pytest.mark.parametrize("line", LINES, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "env", "told"),
    [
        ("[source\n", {}, "is no valid TOML"),
        ('[source]\nproducts = "p.csv"\nproduct = 1\n', {}, "did you mean 'products'?"),
        ('[source]\nproducts = "p.csv"\n', {"SID_NONSENSE": "1"}, "unknown setting 'nonsense'"),
        (None, {}, "cannot be read"),
    ],
    ids=["toml", "key", "env", "missing"],
)
def test_settings_that_cannot_be_used_are_told_in_a_sentence(line, text, env, told, tmp_path, monkeypatch):
    file = tmp_path / "sid.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("SID_SETTINGS", str(file))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert told in ask(line, monkeypatch)


def test_settings_named_from_where_one_stands_are_found_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SID_SETTINGS", "sid.toml")
    assert CliRunner().invoke(cli.main, ["migrate"]).exit_code == 0
    assert os.environ["SID_SETTINGS"] == str(tmp_path / "sid.toml")


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state/x"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
        RuntimeError("(sqlite3.OperationalError) disk I/O error"),
        RuntimeError("Generic LocalFileSystem error: Unable to copy data: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_sentence_at_every_command(fault, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise fault

    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n', encoding="utf-8")
    monkeypatch.setenv("SID_SETTINGS", str(tmp_path / "sid.toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load_settings", fail)
    for line in LINES:
        told = ask(line, monkeypatch)
        assert "disk is full" in told and "sid retention --dry-run" in told and "What is live stays" in told
