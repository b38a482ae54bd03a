"""What of a coordinator goes into the archive for support. What may stand in it: `fedcervix.doctor.bundle`.

Sites have numbers there, by their place in the roster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime

from coordinator.doctor.coordinator_checks import CoordinatorDoctor, entries
from coordinator.home.founding import OWN
from coordinator.home.home import Home
from coordinator.run import history
from coordinator.run.status_document import StatusDocument
from fedcervix.core.modes import MODES
from fedcervix.core.rounds.state import Outcome, Phase, Presence
from fedcervix.doctor import bundle
from fedcervix.doctor.bundle import BundleFile
from fedcervix.doctor.home_checks import measure_folder
from fedcervix.doctor.own_words import own_words
from fedcervix.doctor.plain_values import Plain, plain
from fedcervix.errors import FedcervixError
from fedcervix.transport import identity


def coordinator_files(doctor: CoordinatorDoctor, allowed: Collection[str]) -> list[BundleFile]:
    """Return the files. What cannot be read is left out, as the checks say so already."""
    home = doctor.home
    makers: tuple[Callable[[], BundleFile], ...] = (
        lambda: bundle.limits_file(doctor.facts, measure_folder(home.folder)),
        lambda: _configuration(home, allowed),
        lambda: _certificates(doctor),
        lambda: _runs(home, allowed),
        lambda: _status(doctor, allowed),
    )
    found = []
    for make in makers:
        with suppress(FedcervixError, OSError, ValueError):
            found.append(make())
    return found


def _configuration(home: Home, allowed: Collection[str]) -> BundleFile:
    content = plain(home.config(), allowed)
    for mode in MODES:
        with suppress(FedcervixError):
            content["plan"] = plain(home.plan(mode), allowed)
            break
    return BundleFile(
        "configuration.json", "coordinator.toml: numbers and choices; of a text, whether it is set", content
    )


def _certificates(doctor: CoordinatorDoctor) -> BundleFile:
    home, content = doctor.home, dict[str, Plain]()
    for name in ("authority", *OWN):
        with suppress(FedcervixError):
            one = identity.identify(home.pem(f"{name}.crt"))
            content[name] = bundle.certificate_entry(one.not_before, one.not_after)
    with suppress(FedcervixError):
        content["sites"] = [
            {
                "site": number,
                "state": bundle.one_of(("invited", "joined", "revoked"), one.state),
                **bundle.certificate_entry(one.since, one.not_after),
            }
            for number, one in enumerate(entries(home), 1)
        ]
    return BundleFile("certificates.json", "from when until when certificates and invitations are valid", content)


def _runs(home: Home, allowed: Collection[str]) -> BundleFile:
    content: list[Plain] = [
        {
            "run": bundle.run_name(one.run),
            "mode": bundle.one_of(tuple(MODES), one.mode),
            "begun_at": one.begun_at,
            "rounds": one.rounds,
            "best_round": one.best_round,
            "outcome": bundle.one_of((*Outcome, history.UNFINISHED, history.UNREAD), one.outcome),
            "reason": own_words(one.reason, allowed),
            "model": one.model,
        }
        for one in history.entries(home)
    ]
    return BundleFile("runs.json", "runs of this coordinator: rounds, outcome, reason without values", content)


def _status(doctor: CoordinatorDoctor, allowed: Collection[str]) -> BundleFile:
    document = doctor.picture() or history.stands(doctor.home, whole=False)
    content: dict[str, Plain] = {
        "run": bundle.run_name(document.run),
        "now": f"{datetime.fromtimestamp(document.now, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "phase": bundle.one_of(tuple(Phase), document.phase),
        "round": document.round,
        "trouble": own_words(document.trouble, allowed),
        "sites": _sites(document, allowed),
        "failures": [
            {
                "incident": bundle.incident_number(one.incident),
                "at": one.at,
                "says": own_words(one.hint, allowed),
                "mended": one.mended_at is not None,
            }
            for one in document.failures
        ],
    }
    return BundleFile("status.json", "how the last run stands: sites by number, waits, incident numbers", content)


def _sites(document: StatusDocument, allowed: Collection[str]) -> list[Plain]:
    return [
        {
            "site": one.site if one.site in allowed else number,
            "presence": bundle.one_of(tuple(Presence), one.presence),
            "connected": one.connected,
            "software": bundle.version_of(one.software),
            "says": own_words(one.reason, allowed),
            "line": own_words(one.line, allowed),
            "done": one.done,
            "of": one.of,
            "calls_open": one.calls_open,
            "calls_refused": one.calls_refused,
            "connections": one.connections,
        }
        for number, one in enumerate(document.sites, 1)
    ]
