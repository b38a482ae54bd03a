"""The commands by which people let this site know its partners: `identity`, `pin`, `unpin`, `pins`.

What they compare goes from person to person, never through the coordinator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcervix.errors import ConfigError
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import to_text
from fedcervix.transport.identity import moment
from fedcervix.trust.fingerprints import Fingerprint
from site_agent import home as homes
from site_agent.home import SiteHome
from site_agent.store.run_store import StoredRun, last_federation


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnIdentity:
    """What `identity --json` prints."""

    site: str
    federation: str
    certificate_until: float
    """Unix seconds"""
    fingerprint: str
    """64 hexadecimal digits"""
    words: tuple[str, ...]


def identity(home: SiteHome, *, as_json: bool) -> None:
    """Print who this site is: what its partners compare."""
    found = home.certificate()
    who, own = found.identity, Fingerprint(bytes.fromhex(found.key_fingerprint))
    if as_json:
        shown = OwnIdentity(
            site=who.name,
            federation=who.federation,
            certificate_until=found.not_after.timestamp(),
            fingerprint=own.hex,
            words=own.words,
        )
        say(to_text(shown, indent=2))
        return
    groups, *words = own.lines()
    say(f"site {who.name} of federation {who.federation}; certificate until {moment(found.not_after)}")
    say(f"fingerprint of its key:\n  {groups}\nthe same in words, to read out:")
    say("\n".join(f"  {line}" for line in words))
    say(
        "your partners must have it from you, by telephone or on paper, not from the coordinator. There they type: "
        f"site-agent pin {who.name} and the fingerprint, in either form"
    )


def pin(home: SiteHome, name: str, fingerprint: Fingerprint) -> None:
    """Write down which key a partner must have. Raises ConfigError, StorageError."""
    own = home.certificate().identity.name if home.key_file("site.crt").exists() else ""
    if name == own:
        raise ConfigError(
            f"{name} is this site itself",
            cause="a site pins its partners",
            next_step=f"let them have this site's fingerprint: {home.command('identity')}",
        )
    pinned = home.pins().keys
    _check_new(home, name, fingerprint, pinned)
    before = pinned.get(name)
    homes.pin(home, name, fingerprint)
    if before not in (None, fingerprint):
        say(f"{name} was pinned before, to another key: {before.groups}")
    say(_line(name, fingerprint, last_federation(home)))
    say("the agent checks it each time that it connects")


def _check_new(home: SiteHome, name: str, fingerprint: Fingerprint, pinned: Mapping[str, Fingerprint]) -> None:
    """Raise ConfigError where this key is the one of another site: each site has its own."""
    if home.key_file("site.crt").exists() and home.certificate().key_fingerprint == fingerprint.hex:
        raise ConfigError(
            f"this is the fingerprint of this site itself, not of {name}",
            cause="the output of `identity` here was copied; the one of the partner is needed",
            next_step=f"ask the people of {name} what `site-agent identity` prints there",
        )
    for other in (other for other, key in pinned.items() if key == fingerprint and other != name):
        raise ConfigError(
            f"this fingerprint is pinned already, as the one of {other}; each site has its own key",
            cause=f"one of the two names is wrong: {other} or {name}",
            next_step=home.command("pins"),
        )


def unpin(home: SiteHome, name: str) -> None:
    """Take a pin back. Raises ConfigError, StorageError."""
    pinned = home.pins().keys
    if name not in pinned:
        raise ConfigError(
            f"{name} is not pinned here",
            cause=f"pinned are: {', '.join(pinned) or 'no sites'}",
            next_step=home.command("pins"),
        )
    homes.unpin(home, name)
    say(f"{name} is not pinned any more; it was pinned to: {pinned[name].groups}")


def pins(home: SiteHome) -> None:
    """List the partners: which are pinned, and which keys the coordinator told in the last run."""
    pinned, last = home.pins().keys, last_federation(home)
    own = home.certificate().identity.name
    names = dict.fromkeys((*pinned, *(last.plan.sites if last else ())))
    for name in names:
        if name != own:
            say(_line(name, pinned.get(name), last))
    if not pinned:
        say(f"no partner is pinned here; to pin one: {home.command('pin')} NAME FINGERPRINT")


def _line(name: str, pinned: Fingerprint | None, last: StoredRun | None) -> str:
    told = last.run_store.keys().get(name) if last else None
    found = Fingerprint.of(told) if told else None
    run = last.run if last else ""
    if pinned and last and name not in last.plan.sites:
        return f"{name}: pinned: {pinned.groups}; run {run} has no site of this name: is it misspelt?"
    if pinned is None:
        return f"{name}: not pinned; " + (f"in run {run}: {found.groups}" if found else "no key of it was told yet")
    if found in (None, pinned):
        return f"{name}: pinned: {pinned.groups}" + (f"; the same in run {run}" if found else "")
    return f"{name}: pinned: {pinned.groups}; ANOTHER KEY in run {run}: {found.groups}"
