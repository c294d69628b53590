"""Telling people: an alert says what happened, what readers still get and what to do; it goes to a webhook and by mail.

What belongs here: the message and how it travels. What does not: deciding that there is something to tell
(`watch.py`, `sensors.py`). Addresses and passwords are secrets: they come from the environment, and no error or log
text holds them.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from email.message import EmailMessage

from sid_pipeline.settings import AlertSettings

TIMEOUT_S = 20
WEBHOOK, EMAIL = "webhook", "email"


class AlertNotSent(RuntimeError):
    """A notifier failed; the message names it and the kind of fault, and no secret."""


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


def send(settings: AlertSettings, alert: Alert) -> list[str]:
    """Send an alert through every notifier that is set up, and return their names.

    Raises:
        AlertNotSent: one of them failed; the others were tried all the same.
    """
    notifiers = {}
    if settings.webhook is not None:
        notifiers[WEBHOOK] = _post
    if settings.email_to:
        notifiers[EMAIL] = _mail
    faults = []
    for name, notify in notifiers.items():
        try:
            notify(settings, alert)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            # The error's own text may hold the address with its token.
            code = getattr(error, "code", None) or getattr(error, "smtp_code", None)
            faults.append(f"{name}: {type(error).__name__}{f' {code}' if code else ''}")
    if faults:
        raise AlertNotSent(f"the alert {alert.subject!r} was not sent by {'; '.join(faults)}")
    return list(notifiers)


def _post(settings: AlertSettings, alert: Alert) -> None:
    """POST the alert's fields as JSON, with `text`, which chat services show."""
    assert settings.webhook is not None
    body = json.dumps({**asdict(alert), "text": f"{alert.subject}\n{alert.text()}"}).encode()
    request = urllib.request.Request(
        settings.webhook.get_secret_value(), body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):
        pass


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
