"""Who is told, by the configuration."""

from __future__ import annotations

from dataclasses import replace

from coordinator.home.home import Home
from fedcervix.notify.courier import Receiver
from fedcervix.notify.mail import LOGIN_FILE, Mail
from fedcervix.notify.webhook import KEY_FILE, Webhook


def receivers(home: Home) -> list[Receiver]:
    """Return who is told; nobody as long as [notify] names no one. Raises ConfigError."""
    settings = home.config().notify
    found: list[Receiver] = []
    if settings.webhook.url:
        webhook = replace(settings.webhook, authority=_below(home, settings.webhook.authority))
        found.append(Webhook(webhook, home.key_file(KEY_FILE)))
    if settings.mail.server:
        mail = replace(settings.mail, authority=_below(home, settings.mail.authority))
        found.append(Mail(mail, home.key_file(LOGIN_FILE)))
    return found


def _below(home: Home, file: str) -> str:
    """Return the path of an authority's file; empty where none is named."""
    return str(home.folder / file) if file else ""
