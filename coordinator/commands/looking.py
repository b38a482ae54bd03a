"""The commands of `coordinator` that only read: `status`, `sites` and `runs`. They load neither engine nor server."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coordinator.commands.status_view import render, runs_table
from coordinator.home.home import Home
from coordinator.run import history
from fedcervix.errors import FedcervixError, RunError
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import to_text

if TYPE_CHECKING:
    from coordinator.home.registry import SiteState  # with SQLite

STATES: dict[SiteState, str] = {
    "invited": "invited {since}; the invitation can be used until {until}",
    "joined": "joined; its certificate is from {since}, and valid until {until}",
    "revoked": "revoked {since}",
}


def status(home: Home, run: str | None, *, watch: bool, as_json: bool) -> None:
    """Show what each site does, since when, until when."""
    if watch:
        _check_watched(home, run)
        _watch(home, as_json=as_json)
        return
    document = None
    if home.read_running() is not None:
        from coordinator.commands.operator import picture  # with gRPC

        document = picture(home, whole=as_json)
    if document is None or run not in (None, document.run):
        document = history.stands(home, run or "", whole=as_json)
    if as_json:
        say(to_text(document, indent=2))
    else:
        stdout_console().print(render(document))
        _say_undelivered(home)


def _say_undelivered(home: Home) -> None:
    """Say where people are not told what happens. What is wrong with the configuration is not the status's business."""
    from coordinator.notify.undelivered import late_words, undelivered

    with contextlib.suppress(FedcervixError):
        words = late_words(undelivered(home), time.time())
        then = home.command(f"notify {'test' if home.is_running() else 'send'}")
        for line in words:
            say(f"warning: {line}; next: {then}", err=True)


def _check_watched(home: Home, run: str | None) -> None:
    """Raise RunError if the named run is not the running one: an ended run does not change."""
    newest = next(reversed(history.entries(home)), None)
    if run is not None and (newest is None or newest.run != run):
        raise RunError(
            f"run {run} cannot be watched",
            cause="it has ended and no longer changes",
            next_step=home.command(f"status {run}"),
        )


def _watch(home: Home, *, as_json: bool) -> None:
    from rich.live import Live

    from coordinator.commands.operator import pictures

    if as_json:
        for document in pictures(home):
            say(to_text(document))
        return
    with Live(console=stdout_console(), auto_refresh=False) as live:
        for document in pictures(home):
            live.update(render(document), refresh=True)


def sites(home: Home) -> None:
    """List the invited sites and the fingerprints of their keys."""
    from coordinator.home.registry import Registry  # with SQLite
    from fedcervix.trust.fingerprints import Fingerprint  # with `cryptography`

    found = Registry(home.registry).sites()
    if not found:
        say(f"no site was invited yet; next: {home.command('invite SITE')}")
    else:
        say("below the name of each site: the fingerprint of its key, in digits and in words; all times are UTC")
    now = datetime.now(UTC)
    for one in found:
        since, until = f"{one.since:%Y-%m-%d %H:%M}", f"{one.not_after:%Y-%m-%d %H:%M}"
        ended = "" if one.state == "revoked" or now < one.not_after else " (it has ended)"
        say(f"{one.site}: {STATES[one.state].format(since=since, until=until)}{ended}")
        if one.key_fingerprint:
            say("\n".join(f"  {line}" for line in Fingerprint(bytes.fromhex(one.key_fingerprint)).lines()))


def runs(home: Home, *, as_json: bool) -> None:
    """List all runs of this home, with mode and outcome."""
    found = history.entries(home)
    if as_json:
        say(to_text(found, indent=2))
    elif not found:
        say(f"no run has begun here yet; next: {home.command('start --mode csfssl')}")
    else:
        stdout_console().print(runs_table(found))
