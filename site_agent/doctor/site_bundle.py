"""What of a site goes into the archive for support. What may stand in it: `fedcervix.doctor.bundle`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from fedcervix.core.rounds.state import Outcome
from fedcervix.doctor import bundle
from fedcervix.doctor.bundle import BundleFile
from fedcervix.doctor.home_checks import measure_folder
from fedcervix.doctor.plain_values import Plain, plain
from fedcervix.errors import FedcervixError
from fedcervix.transport import identity
from site_agent.doctor.site_checks import SiteDoctor
from site_agent.federation.incidents import untold
from site_agent.home import SiteHome
from site_agent.store.run_store import RunStore


def site_files(doctor: SiteDoctor, allowed: Collection[str]) -> list[BundleFile]:
    """Return the files. What cannot be read is left out, as the checks say so already."""
    home, makers = doctor.home, list[Callable[[], BundleFile]]()
    makers.append(lambda: bundle.limits_file(doctor.facts, measure_folder(home.folder)))
    makers.append(lambda: _configuration(home, allowed))
    makers.append(lambda: _certificates(home))
    makers.append(lambda: _runs(home, allowed))
    makers.append(lambda: bundle.incidents_file(home.incidents, allowed))
    found = []
    for make in makers:
        with suppress(FedcervixError, OSError, ValueError):
            found.append(make())
    return found


def _configuration(home: SiteHome, allowed: Collection[str]) -> BundleFile:
    content = plain(home.config(), allowed)
    return BundleFile("configuration.json", "site.toml: numbers and choices; of a text, whether it is set", content)


def _certificates(home: SiteHome) -> BundleFile:
    content: dict[str, Plain] = {}
    for name in ("site.crt", "site.crt.new", "site.crt.before", "authority.crt"):
        with suppress(FedcervixError):
            one = identity.identify(home.pem(name))
            content[name] = bundle.certificate_entry(one.not_before, one.not_after)
    return BundleFile("certificates.json", "from when until when the certificates are valid", content)


def _runs(home: SiteHome, allowed: Collection[str]) -> BundleFile:
    folders = sorted((home.folder / "runs").glob("*"))
    content: dict[str, Plain] = {
        "untold_failures": len(untold(home)),
        "runs": [dict(_run(RunStore(folder), allowed)) for folder in folders if folder.is_dir()],
    }
    return BundleFile("runs.json", "runs of this site: plan without names of sites, rounds done, outcome", content)


def _run(store: RunStore, allowed: Collection[str]) -> Iterator[tuple[str, Plain]]:
    yield "run", bundle.run_name(store.folder.name)
    if (known := store.known_plan()) is not None:
        yield "plan_digest", known.digest
        yield "plan", plain(known, allowed)
    with suppress(FedcervixError, OSError):
        yield "outcome", bundle.one_of(tuple(Outcome), store.outcome()) if store.ended() else ""
    with suppress(FedcervixError, OSError):
        history = store.history()
        yield "rounds_trained", [int(number) for number in history.train]
        yield "rounds_scored", [int(number) for number in history.score]
