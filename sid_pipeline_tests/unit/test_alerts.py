"""Alerts reach a real HTTP server and a real SMTP conversation, or are kept; their faults hold no secret."""

from __future__ import annotations

import http.client
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from sid_pipeline import alerts
from sid_pipeline.alerts import KEPT_DAYS, Alert, tell, tell_again
from sid_pipeline.settings import AlertSettings, Settings, load_settings
from sid_pipeline_tests.webhook import webhook as local_webhook

ALERT = Alert("stale", "the live SIDs are old", "They stand on 2026-01-05.", "esci: r1", "Run the night.")


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict], list[int]]]:
    with local_webhook() as served:
        yield served


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """Port of a server that speaks SMTP, and the messages it got."""
    got: list[str] = []

    class Conversation(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            data: list[str] | None = None
            for raw in self.rfile:
                line = raw.decode().rstrip("\r\n")
                if data is not None:
                    if line == ".":
                        got.append("\n".join(data))
                        data = None
                        self.wfile.write(b"250 taken\r\n")
                    else:
                        data.append(line)
                elif line.upper() == "DATA":
                    data = []
                    self.wfile.write(b"354 go on\r\n")
                elif line.upper() == "QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                else:
                    self.wfile.write(b"250 ok\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], got
    server.shutdown()
    server.server_close()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def settings(tmp_path) -> Settings:
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n', encoding="utf-8")
    return load_settings(tmp_path / "sid.toml", env={})


def notified(settings: Settings, **given: Any) -> Settings:
    """The settings with notifiers; what is given is not checked, as little as what a notifier meets on its way."""
    return settings.model_copy(update={"alerts": AlertSettings().model_copy(update=given)})


def both(settings: Settings, webhook: str, port: int) -> Settings:
    mail = {"email_to": ["a@example.org"], "smtp_host": "127.0.0.1", "smtp_port": port}
    return notified(settings, webhook=SecretStr(webhook), **mail)


def kept(settings: Settings) -> list[Path]:
    return sorted((settings.state / "alerts").glob("*"))


def test_an_alert_is_posted_and_mailed_with_what_is_served_and_what_to_do(settings, webhook, mailbox):
    address, posted, _ = webhook
    port, mailed = mailbox
    assert tell(both(settings, address, port), ALERT) == [] and kept(settings) == []
    (body,) = posted
    assert body["kind"] == "stale" and body["served"] == "esci: r1"
    assert body["text"].startswith("the live SIDs are old\n") and "Run the night." in body["text"]
    (message,) = mailed
    assert "Subject: [sid_pipeline] the live SIDs are old" in message and "What to do: Run the night." in message


def test_with_nothing_set_up_nothing_is_sent_or_kept(settings):
    assert tell(settings, ALERT) == [] and tell_again(settings) == [] and kept(settings) == []


def test_a_fault_names_the_notifier_and_no_secret_and_the_other_one_still_sends(settings, webhook, mailbox):
    address, _, codes = webhook
    port, mailed = mailbox
    codes.append(500)
    (sentence,) = tell(both(settings, address, port), ALERT)
    assert "webhook (HTTPError 500): it is kept" in sentence and "secret-token" not in sentence
    assert len(mailed) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_a_webhook_that_sends_elsewhere_has_not_taken_the_alert(settings, webhook, code):
    address, posted, codes = webhook
    codes.append(code)
    (sentence,) = tell(notified(settings, webhook=SecretStr(address)), ALERT)
    assert f"webhook (HTTPError {code}): it is kept" in sentence and len(kept(settings)) == 1
    assert tell_again(notified(settings, webhook=SecretStr(address))) == [] and len(posted) == 2


def test_a_server_that_is_not_there_is_a_sentence(settings):
    address = f"http://127.0.0.1:{closed_port()}/secret-token"
    (sentence,) = tell(notified(settings, webhook=SecretStr(address)), ALERT)
    assert "webhook (URLError)" in sentence and "secret-token" not in sentence
    (file,) = kept(settings)
    assert "secret-token" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("http://127.0.0.1:/a secret-token", "InvalidURL"),
        ("http://127.0.0.1:secret-token/", "InvalidURL"),
        ("https://user:secret-token@127.0.0.1/", "InvalidURL"),
        ("http://127.0.0.1/secret-tokén", "UnicodeEncodeError"),
    ],
)
def test_an_address_that_nobody_can_ask_stops_neither_mail_nor_work(settings, mailbox, address, fault):
    port, mailed = mailbox
    (sentence,) = tell(both(settings, address, port), ALERT)
    assert f"webhook ({fault})" in sentence and "secret" not in sentence
    assert len(mailed) == 1


def test_an_answer_that_is_none_is_a_sentence(settings, monkeypatch):
    def garbled(*_: object, **__: object) -> None:
        raise http.client.BadStatusLine("secret-token")

    monkeypatch.setattr(alerts.urllib.request.OpenerDirector, "open", garbled)
    (sentence,) = tell(notified(settings, webhook=SecretStr("http://127.0.0.1/x")), ALERT)
    assert "webhook (BadStatusLine)" in sentence and "secret" not in sentence


def test_what_was_not_delivered_is_tried_again_by_the_notifier_that_failed_alone(settings, webhook, mailbox):
    address, posted, codes = webhook
    port, mailed = mailbox
    there = both(settings, address, port)
    codes.extend([503, 503])
    tell(there, ALERT)
    (again,) = tell_again(there)
    assert "again not sent by webhook (HTTPError 503)" in again and len(kept(settings)) == 1
    assert tell_again(there) == [] and kept(settings) == []
    assert tell_again(there) == []
    assert len(posted) == 3 and len(mailed) == 1, "mail had it at once"
    assert posted[2]["subject"] == ALERT.subject and posted[2]["happened"].startswith(ALERT.happened)
    assert "This is told late" in posted[2]["text"]


def test_the_same_alert_is_kept_once_and_the_oldest_goes_first(settings, webhook):
    address, posted, _ = webhook
    gone = notified(settings, webhook=SecretStr(f"http://127.0.0.1:{closed_port()}/x"))
    names = ["c", "a", "b", "a"]
    for name in names:
        tell(gone, Alert("stale", name, "h", "s", "t"))
    assert len(kept(settings)) == 3
    for file in kept(settings):
        age = {"c": 30, "a": 20, "b": 10}[alert_of(file)]
        os.utime(file, (time.time() - age, time.time() - age))
    assert tell_again(notified(settings, webhook=SecretStr(address))) == []
    assert [body["subject"] for body in posted] == ["c", "a", "b"]


def alert_of(file: Path) -> str:
    return json.loads(file.read_text(encoding="utf-8"))["subject"]


def test_a_notifier_that_does_not_answer_is_asked_once_a_round_one_that_refuses_for_each(settings, monkeypatch):
    asked: list[str] = []
    there = notified(settings, webhook=SecretStr("http://127.0.0.1/x"))

    def post(_: object, alert: Alert) -> None:
        asked.append(alert.subject)
        raise fault

    monkeypatch.setattr(alerts, "_post", post)
    fault: Exception = OSError()
    for name in "abc":
        tell(there, Alert("stale", name, "h", "s", "t"))
    asked.clear()
    assert len(tell_again(there)) == 1 and len(asked) == 1
    fault = alerts.smtplib.SMTPResponseException(400, "no")
    assert len(tell_again(there)) == 3 and len(kept(settings)) == 3


def test_what_is_too_old_or_broken_holds_up_nothing(settings, webhook):
    address, posted, _ = webhook
    gone = notified(settings, webhook=SecretStr(f"http://127.0.0.1:{closed_port()}/x"))
    tell(gone, ALERT)
    (old,) = kept(settings)
    os.utime(old, (0, time.time() - KEPT_DAYS * 86_400 - 60))
    (settings.state / "alerts" / "webhook-broken.json").write_text("{")
    tell(gone, Alert("drift", "new", "h", "s", "t"))
    given_up, broken = tell_again(notified(settings, webhook=SecretStr(address)))
    assert "was given up" in given_up and "webhook-broken.json cannot be handled" in broken
    assert [body["subject"] for body in posted] == ["new"] and not old.exists()


def test_a_full_disk_hides_nothing_of_what_the_alert_is_of(settings, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(alerts, "write_atomically", full)
    (sentence,) = tell(notified(settings, webhook=SecretStr(f"http://127.0.0.1:{closed_port()}/x")), ALERT)
    assert "could not be kept either (OSError)" in sentence
