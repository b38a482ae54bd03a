"""What `site-agent check` tries, one after the other: each gives a finding, or an error that says what to do.

Nothing here loads torch, and what a check needs is loaded when its turn has come: a home that is not set up is seen at
once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime

from fedcervix import identity
from fedcervix.errors import FedcervixError, PolicyError, StorageError
from fedcervix.extras import lacking
from site_agent import hardware
from site_agent.home import SiteHome
from site_agent.policy import objections

FREE_BYTES_WANTED = 2 * 2**30


def examine(
    home: SiteHome, now: datetime, *, start_trainer: bool = False
) -> Iterator[tuple[str, str | FedcervixError]]:
    """Yield (what was tried, what was found or what is wrong)."""
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("configuration", lambda: _configuration(home)),
        ("certificate", lambda: _certificate(home, now)),
        ("line", lambda: _line(home)),
        ("coordinator", lambda: _coordinator(home)),
        ("images", lambda: _images(home)),
        ("hardware", lambda: _hardware(home, start_trainer=start_trainer)),
        ("disk", lambda: _disk(home)),
    )
    for name, check in checks:
        try:
            yield name, check()
        except FedcervixError as error:
            yield name, error
        except ImportError as error:
            yield name, lacking(error) or FedcervixError(str(error), cause="a package is damaged")


def _configuration(home: SiteHome) -> str:
    home.config()
    return str(home.config_file)


def _certificate(home: SiteHome, now: datetime) -> str:
    certificate = home.certificate()
    identity.check_validity(certificate, now)
    return f"{certificate.identity.uri}, until {certificate.not_after:%Y-%m-%d}"


def _line(home: SiteHome) -> str:
    from site_agent import tls

    address = home.config().link.coordinator
    home.certificate()
    key_files = (home.key_file(name) for name in ("authority.crt", "site.crt", "site.key"))
    return f"{address} answers, {tls.look(address, *key_files)}"


def _coordinator(home: SiteHome) -> str:
    """Hear the welcome as the agent does, and compare the plan with the policy."""
    from fedcervix import codec
    from site_agent.link import GrpcLink

    link = GrpcLink(
        home.config().link.coordinator,
        authority_pem=home.pem("authority.crt"),
        certificate_pem=home.pem("site.crt"),
        key_pem=home.pem("site.key"),
    )
    try:
        welcome = link.welcome()
    finally:
        link.close()
    assert isinstance(welcome, codec.Welcome)
    against = objections(home.config().policy, welcome.plan, home.certificate().identity.name)
    if against:
        raise PolicyError(
            f"the plan of run {welcome.run} is not allowed: {'; '.join(against)}",
            cause=f"[policy] in {home.config_file}",
            next_step="agree with the coordinator's operator",
        )
    return f"accepts this site; run {welcome.run}, {welcome.plan.mode}; the policy allows its plan"


def _images(home: SiteHome) -> str:
    from site_agent import dataset
    from site_agent.collection import require

    collection = dataset.open_collection(home)
    require(collection, "pretrain")
    women = len({image.woman for image in collection.images})
    unread = f", {len(collection.quarantined)} unreadable" if collection.quarantined else ""
    leaks = f", {len(collection.leaks)} pictures under several patients" if collection.leaks else ""
    return f"{len(collection.images)} images of {women} women{unread}{leaks} (details: site-agent data check MANIFEST)"


def _hardware(home: SiteHome, *, start_trainer: bool) -> str:
    return (hardware.start if start_trainer else hardware.look)(home.config().hardware)


def _disk(home: SiteHome) -> str:
    free = shutil.disk_usage(home.folder).free
    if free < FREE_BYTES_WANTED:
        raise StorageError(
            f"{free / 2**30:.1f} GiB are free at {home.folder}; a run wants {FREE_BYTES_WANTED / 2**30:.0f}",
            cause="the disk is nearly full",
            next_step="make room, or move the home folder",
        )
    return f"{free / 2**30:.0f} GiB free"
