"""Who the partners of a run are: the keys that the coordinator tells, held against this site's pins.

Rules
1. Before anything leaves this site for a run, every partner that is pinned here has the pinned key. Where the
   coordinator tells another key, the agent ends. Where it tells none, the site waits: the partner has not joined yet,
   or the coordinator keeps the key back.
2. The keys of a run are remembered at first sight (`RunStore.keys`). A site that joins later may appear once; one that
   was revoked may disappear; another key under a known name ends the agent, whether the name is pinned or not. So does
   one key under two names: two sites of one hand. This site's own key may change: it has joined again.
3. A partner without a pin is named at every start: for all that this site knows, the coordinator has invented it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedcervix.core.plan import Plan
from fedcervix.errors import IdentityError
from fedcervix.trust.fingerprints import Fingerprint, SiteKeys
from fedcervix.trust.pins import Pins


@dataclass(frozen=True, slots=True)
class Partners:
    """The other sites of a plan, by what is known of their keys."""

    pinned: tuple[str, ...] = ()
    """whose key is the pinned one"""
    awaited: tuple[str, ...] = ()
    """pinned, and no such key was told yet"""
    unpinned: tuple[str, ...] = ()


def known_keys(pins: Pins, before: SiteKeys, told: SiteKeys, *, own: str = "") -> SiteKeys:
    """Return the keys of a run's sites as they are known once the coordinator has told these. Raises IdentityError.

    `own`: the name of this site.
    """
    for name, key in told.items():
        found = Fingerprint.of(key)
        pins.check(name, found)
        if name in before and name != own:
            pins.check_unchanged(name, Fingerprint.of(before[name]), found)
    known = {**before, **told}
    names: dict[Fingerprint, str] = {}
    for name, key in known.items():
        if (other := names.setdefault(Fingerprint.of(key), name)) != name:
            raise IdentityError(
                f"sites {other} and {name} have the same key; this site sends nothing",
                cause="one home was copied to two sites, or somebody takes the part of both",
                next_step=f"telephone both, compare what `identity` prints there, then {pins.command} NAME FINGERPRINT",
            )
    return known


def partners(pins: Pins, plan: Plan, site: str, keys: SiteKeys) -> Partners:
    """Return how far `site` knows the others of a plan whose keys are these."""
    others = [name for name in plan.sites if name != site]
    unpinned = pins.unpinned(others)
    fits = {name for name in keys if pins.keys.get(name) == Fingerprint.of(keys[name])}
    return Partners(
        pinned=tuple(name for name in others if name in fits),
        awaited=tuple(name for name in others if name not in fits and name not in unpinned),
        unpinned=unpinned,
    )


def doubts(pins: Pins, plan: Plan, site: str, keys: SiteKeys) -> Iterator[str]:
    """Yield why a run does not go on here before the coordinator is heard: its keys were not the ones pinned now."""
    try:
        found = partners(pins, plan, site, known_keys(pins, {}, keys))
    except IdentityError as error:
        yield error.what.splitlines()[0]
    else:
        yield from (f"site {name} is pinned here, and its key is not known yet" for name in found.awaited)
