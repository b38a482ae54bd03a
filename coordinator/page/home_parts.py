"""The parts of the page that come from the home folder: certificates and keys, and the runs that are stored there."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.page.status_parts import filled
from coordinator.run import history, results
from fedcervix.errors import StorageError
from fedcervix.page.board import Part
from fedcervix.transport import identity
from fedcervix.trust.fingerprints import Fingerprint

OWN = {
    "authority": "this federation's authority",
    "server": "this coordinator",
    "operator": "this coordinator's operator",
}
RUNS_MAX = 50
"""the newest"""


def certificates(home: Home) -> Part:
    """Return {what it is of: state, since, until, key}: the sites', and the coordinator's own. Raises a FedcervixError.

    `key` is the fingerprint of the public key in words: what people compare on the telephone.
    """
    found: dict[str, Part] = {}
    for site in Registry(home.registry).sites():
        key = Fingerprint(bytes.fromhex(site.key_fingerprint)) if site.key_fingerprint else None
        found[site.site] = filled(
            {
                "state": site.state,
                "since": round(site.since.timestamp()),
                "until": round(site.not_after.timestamp()),
                "digits": key.groups if key else "",
                "words": " ".join(key.words) if key else "",
            }
        )
    for name, of in OWN.items():
        own = identity.identify(home.pem(f"{name}.crt"))
        since, until = round(own.not_before.timestamp()), round(own.not_after.timestamp())
        found[of] = {"state": "own", "since": since, "until": until}
    return found


def ends(part: Part) -> dict[str, float]:
    """Return when each certificate ends; an invitation and a revoked one are left out."""
    return {
        of: float(one["until"])
        for of, one in part.items()
        if isinstance(one, Mapping) and one["state"] in ("joined", "own")
    }


class EndedRuns:
    """The runs that have left a record. A record does not change: each is read once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._known: dict[str, Part] = {}

    def has(self, run: str) -> bool:
        """Say whether a run's record was there when `part` last looked: it is written a moment after the run's end."""
        return run in self._known

    def part(self) -> Part:
        """Return {run: how it ended}, of the newest runs. Raises StorageError."""
        names = results.names(self._home.results)[-RUNS_MAX:]
        self._known = {name: self._known.get(name) or self._read(name) for name in names}
        return self._known

    def _read(self, name: str) -> Part:
        try:
            record = results.read(self._home.results, name)
        except StorageError as error:
            return {"outcome": history.UNREAD, "reason": error.what}
        rounds = record.ledger
        return filled(
            {
                "begun": round(rounds[0].begun_at) if rounds else None,
                "ended": round(rounds[-1].ended_at or 0) or None if rounds else None,
                "rounds": len(rounds),
                "best_round": record.best_round or None,
                "outcome": record.outcome.value if record.outcome else None,
                "reason": record.reason,
                "model": (record.model or "")[:12],
            }
        )


def model_bytes(home: Home, digest: str) -> int | None:
    """Return the size of a stored model; None where it is not there."""
    try:
        return (home.blobs / f"{digest}.safetensors").stat().st_size if digest else None
    except OSError:
        return None
