"""What the receivers have not taken yet: for `status`, `doctor` and the metrics. Loads neither engine nor network."""

from __future__ import annotations

from datetime import UTC, datetime

from coordinator.home.home import Home
from fedcervix.notify.outbox import LateMessages, late_messages


def undelivered(home: Home) -> tuple[LateMessages, ...]:
    """Return, for each receiver, what it has not taken yet. Raises ConfigError, StorageError."""
    settings = home.config().notify
    named = {"webhook": settings.webhook.url, "mail": settings.mail.server}
    return tuple(late_messages(home.folder, name) for name, where in named.items() if where)


def late_words(found: tuple[LateMessages, ...], now_s: float) -> list[str]:
    """Return a sentence for each receiver whose messages wait for so long that a person should look."""
    return [
        f"{_counted(one.waiting)} not delivered by {one.receiver}, the oldest since "
        f"{datetime.fromtimestamp(one.since, UTC):%Y-%m-%d %H:%M} UTC"
        for one in found
        if one.since is not None and one.is_late(now_s)
    ]


def _counted(messages: int) -> str:
    return "1 message is" if messages == 1 else f"{messages} messages are"
