"""Telling people: an alert says what happened, what readers still get and what to do; it goes to a webhook and by mail.

What belongs here: the message, how it travels, and the outbox of what could not be delivered yet (`alerts/` in the
state folder, one file an alert and notifier). What does not: deciding that there is something to tell (`watch.py`,
`sensors.py`). Addresses and passwords are secrets: they come from the environment, and no error, log text or kept file
holds them.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from sid_pipeline.files import digest, write_atomically
from sid_pipeline.settings import AlertSettings, Settings

TIMEOUT_S = 10
WEBHOOK, EMAIL = "webhook", "email"
KEPT_DAYS = 7
# What a round of deliveries may take, so that the sensor that asks for it comes to its end.
ROUND_S = 20


@dataclass(frozen=True)
class Alert:
    """One thing that a person should know.

    Attributes:
        kind: run_failure, not_advanced, late_input, stale, drift or cleaning.
        subject: one line.
        happened: what happened, with the figures.
        served: what readers get meanwhile.
        todo: what to do.
    """

    kind: str
    subject: str
    happened: str
    served: str
    todo: str

    def text(self) -> str:
        """The message as plain text."""
        return f"{self.happened}\n\nStill served: {self.served}\n\nWhat to do: {self.todo}\n"


def tell(settings: Settings, alert: Alert) -> list[str]:
    """Send an alert through every notifier that is set up, and keep it for those that fail; raises nothing.

    Returns:
        A sentence, without a secret, for each notifier that failed; the caller logs them.
    """
    told = []
    for name, notify in _notifiers(settings.alerts).items():
        fault = _fault(notify, settings.alerts, alert)
        if fault is not None:
            then = _keep(settings, name, alert)
            told.append(f"the alert {alert.subject!r} was not sent by {name} ({fault.name}): {then}")
    return told


def tell_again(settings: Settings) -> list[str]:
    """Deliver what was kept, oldest first; what was delivered goes, and so does what is too old. Raises nothing.

    Returns:
        A sentence, without a secret, for each one that failed again or was given up.
    """
    told, silent, began = [], set(), time.monotonic()
    notifiers = _notifiers(settings.alerts)
    for kept in _outbox(settings):
        try:
            written = datetime.fromtimestamp(kept.stat().st_mtime, timezone.utc)
            name, text = kept.name.partition("-")[0], kept.read_text(encoding="utf-8")
            given_up = (datetime.now(timezone.utc) - written).days >= KEPT_DAYS
            if given_up:
                kept.unlink()
            alert = Alert(**json.loads(text))
            if given_up:
                told.append(f"the alert {alert.subject!r} was given up: {name} did not take it for {KEPT_DAYS} days")
                continue
            if name not in notifiers or name in silent or time.monotonic() - began > ROUND_S:
                continue
            since = f"\n\n(This is told late: of {written:%Y-%m-%d %H:%M} UTC, when it could not be sent.)"
            fault = _fault(notifiers[name], settings.alerts, replace(alert, happened=alert.happened + since))
            if fault is None:
                kept.unlink()
                continue
            told.append(f"the alert {alert.subject!r} was again not sent by {name} ({fault.name}); it is kept")
            if not fault.answered:
                silent.add(name)  # the next one would only wait for the same
        except Exception as error:  # a file that cannot be read, or not taken away, holds up none of the others
            told.append(f"the kept alert {kept} cannot be handled ({type(error).__name__})")
    return told


@dataclass(frozen=True)
class _Fault:
    """Why a notifier failed: the kind of the error alone, because its text may hold the address with its token."""

    name: str
    answered: bool


def _notifiers(settings: AlertSettings) -> dict[str, Callable[[AlertSettings, Alert], None]]:
    found: dict[str, Callable[[AlertSettings, Alert], None]] = {}
    if settings.webhook is not None:
        found[WEBHOOK] = _post
    if settings.email_to:
        found[EMAIL] = _mail
    return found


def _fault(notify: Callable[[AlertSettings, Alert], None], settings: AlertSettings, alert: Alert) -> _Fault | None:
    try:
        notify(settings, alert)
    except Exception as error:  # whatever it is, the other notifier and the work that tells go on
        code = getattr(error, "code", None) or getattr(error, "smtp_code", None)
        known = isinstance(code, int)
        return _Fault(f"{type(error).__name__} {code}" if known else type(error).__name__, known)
    return None


def _keep(settings: Settings, notifier: str, alert: Alert) -> str:
    """Keep an alert for a notifier, and say what became of it."""
    try:
        # Escaped, so that text that is no valid Unicode is kept too.
        text = json.dumps(asdict(alert), indent=2)
        write_atomically(_folder(settings) / f"{notifier}-{digest(text)}.json", text + "\n")
    except Exception as error:  # a full disk, mostly; what the alert is of must not be lost behind it
        return f"it could not be kept either ({type(error).__name__}), so nobody is told"
    return f"it is kept and tried again for {KEPT_DAYS} days, by the sensor tell_of_age"


def _folder(settings: Settings) -> Path:
    return settings.state / "alerts"


def _outbox(settings: Settings) -> list[Path]:
    """The kept files, oldest first."""
    dated = []
    for path in _folder(settings).glob("*.json"):
        try:
            dated.append((path.stat().st_mtime, path))
        except OSError:  # another process delivered it just now
            continue
    return [path for _, path in sorted(dated)]


def _post(settings: AlertSettings, alert: Alert) -> None:
    """POST the alert's fields as JSON, with `text`, which chat services show."""
    assert settings.webhook is not None
    body = json.dumps({**asdict(alert), "text": f"{alert.subject}\n{alert.text()}"}).encode()
    request = urllib.request.Request(
        settings.webhook.get_secret_value(), body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):
        pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection counts as an error: followed, a POST becomes a GET without the alert."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _mail(settings: AlertSettings, alert: Alert) -> None:
    message = EmailMessage()
    message["Subject"] = f"[sid_pipeline] {alert.subject}"
    message["From"] = settings.email_from
    message["To"] = ", ".join(settings.email_to)
    message.set_content(alert.text())
    context = ssl.create_default_context()
    if settings.smtp_security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S, context=context
        )
    else:
        server = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S)
    with server:
        if settings.smtp_security == "starttls":
            server.starttls(context=context)
        if settings.smtp_user and settings.smtp_password is not None:
            server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
        server.send_message(message)
