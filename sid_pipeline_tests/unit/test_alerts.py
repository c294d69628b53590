"""Alerts reach a real HTTP server and a real SMTP conversation, and their faults hold no secret."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from sid_pipeline.alerts import Alert, AlertNotSent, send
from sid_pipeline.settings import AlertSettings
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


def test_an_alert_is_posted_and_mailed_with_what_is_served_and_what_to_do(webhook, mailbox):
    address, posted, _ = webhook
    port, mailed = mailbox
    settings = AlertSettings(
        webhook=SecretStr(address), email_to=["a@example.org"], smtp_host="127.0.0.1", smtp_port=port
    )
    assert send(settings, ALERT) == ["webhook", "email"]
    (body,) = posted
    assert body["kind"] == "stale" and body["served"] == "esci: r1"
    assert body["text"].startswith("the live SIDs are old\n") and "Run the night." in body["text"]
    (message,) = mailed
    assert "Subject: [sid_pipeline] the live SIDs are old" in message and "What to do: Run the night." in message


def test_with_nothing_set_up_nothing_is_sent():
    assert send(AlertSettings(), ALERT) == []


def test_a_fault_names_the_notifier_and_no_secret_and_the_other_one_still_sends(webhook, mailbox):
    address, _, codes = webhook
    port, mailed = mailbox
    codes.append(500)
    settings = AlertSettings(
        webhook=SecretStr(address), email_to=["a@example.org"], smtp_host="127.0.0.1", smtp_port=port
    )
    with pytest.raises(AlertNotSent, match="webhook: HTTPError 500") as fault:
        send(settings, ALERT)
    assert "secret-token" not in str(fault.value) and fault.value.__suppress_context__ is False
    assert len(mailed) == 1


def test_a_server_that_is_not_there_is_a_sentence():
    settings = AlertSettings(webhook=SecretStr(f"http://127.0.0.1:{closed_port()}/secret-token"))
    with pytest.raises(AlertNotSent, match="webhook: URLError") as fault:
        send(settings, ALERT)
    assert "secret-token" not in str(fault.value)
