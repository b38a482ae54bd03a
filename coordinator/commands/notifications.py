"""What `coordinator notify` does."""

from __future__ import annotations

import time

from coordinator.home.home import Home
from coordinator.notify import notices
from coordinator.notify.notifying import left
from coordinator.notify.receivers import receivers
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, FedcervixError, RunError
from fedcervix.notify.courier import Receiver
from fedcervix.notify.webhook import KEY_FILE, make_key
from fedcervix.runtime.printing import say


def test(home: Home) -> None:
    """Send a test message to every receiver; say what each said. Raises the first error, after all were tried."""
    notice = notices.test(home.config().federation.name, time.time())
    failed: list[FedcervixError] = []
    for one in _all(home):
        began_s = time.monotonic()
        try:
            words = one.send(notice)
        except FedcervixError as error:
            failed.append(error)
            say(f"{one.name}: not delivered: {error.what}")
        else:
            say(f"{one.name}: delivered: {words} after {time.monotonic() - began_s:.1f} s (id {notice.id})")
    if failed:
        raise failed[0]


def _all(home: Home) -> list[Receiver]:
    found = receivers(home)
    if not found:
        raise ConfigError(
            f"{home.config_file} names nobody to tell",
            cause="[notify.webhook] url and [notify.mail] server are empty: notifications are off",
            next_step=f"edit {home.config_file} (docs/notifications.md), then: {home.command('notify test')}",
        )
    return found


def key(home: Home) -> None:
    """Make the webhook's key, unless there is one. Raises RunError, StorageError."""
    file = home.key_file(KEY_FILE)
    with disk(file, "write"):
        there = file.exists()
    if there:
        raise RunError(
            f"{file} is there already: nothing was written",
            cause="a key was made before; the receiver may have it",
            next_step=f"for another key: mv {file} {file}.old, then {home.command('notify key')}",
        )
    make_key(file)
    say(f"wrote {file}: whoever has it can sign messages")
    say(f"next: give its content to the receiver, then {home.command('notify test')}")


def send(home: Home) -> None:
    """Try each message once that an ended or stopped coordinator has left, and what was not told yet.

    Raises RunError while a coordinator runs, or where a message was not taken.
    """
    _all(home)
    if home.is_running():
        raise RunError(
            "the running coordinator sends its messages by itself",
            cause="messages wait where a receiver cannot be reached; its log says which, and why",
            next_step=home.command("notify test"),
        )
    waiting = 0
    with home.locked():
        for one in left(home) if home.has(home.journal) else ():
            sent = one.once()
            waiting += one.waiting
            say(f"{one.name}: {sent} delivered, {one.waiting} left")
    if waiting:
        raise RunError(
            f"{waiting} messages were not delivered",
            cause="a receiver cannot be reached, or did not take them: the lines above say why",
            next_step=home.command("notify test"),
        )
