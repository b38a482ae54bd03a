"""What `site-agent check` tries, one after the other: each gives a finding, or an error that says what to do.

What needs torch is found out by a worker process, as before a run (`site_agent.worker.preflight`).
Nothing here loads torch, and what a check needs is loaded when its turn has come.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fedcervix.core.plan import Plan
from fedcervix.disk.files import check_writable
from fedcervix.disk.locks import is_held
from fedcervix.disk.storage import known
from fedcervix.errors import FedcervixError, PolicyError
from fedcervix.extras import lacking
from fedcervix.runtime.worker_protocol import WorkProgress
from fedcervix.transport import codec, identity, renewal
from site_agent.federation import hardware, shown
from site_agent.federation.partners import known_keys, partners
from site_agent.federation.policy import check_welcome, missing_pins, objections, way_out
from site_agent.home import SiteHome
from site_agent.manifest.manifest_file import read_manifest
from site_agent.store.run_store import RunStore
from site_agent.store.sum_journal import SumJournal
from site_agent.worker.worker import Worker

if TYPE_CHECKING:
    from site_agent.federation.link import GrpcLink
    from site_agent.federation.site_ledger import SiteLedger


@dataclass(frozen=True, slots=True)
class CheckNote:
    """What a check found that is neither right nor an error."""

    text: str


Row = tuple[str, str | CheckNote | FedcervixError]
"""what was tried, and what was found or what is wrong"""
NEEDS = {
    "certificate": {"keys"},
    "connection": {"keys", "certificate"},
    "coordinator": {"connection"},
    "partners": {"coordinator"},
    "secure sums": {"coordinator"},
}
"""without what comes before, a check would only repeat it, with a wrong cause"""
NEEDED_TO_TRAIN = {"configuration", "home folder", "manifest", "hardware"}
"""without these, nothing more can be said of training; a line that is down does not hinder it"""


def examine(home: SiteHome, now: datetime, show: shown.Show) -> Iterator[Row]:
    """Yield what was tried. The plan of the coordinator's run decides what training costs; without it, images alone."""
    heard: list[codec.Welcome] = []
    tried: tuple[tuple[str, Callable[[], str | CheckNote]], ...] = (
        ("configuration", lambda: _configuration(home)),
        ("home folder", lambda: _writable(home)),
        ("manifest", lambda: _manifest(home)),
        ("keys", lambda: _keys(home)),
        ("certificate", lambda: _certificate(home, now)),
        ("connection", lambda: _line(home)),
        ("coordinator", lambda: _coordinator(home, heard.append)),
        ("partners", lambda: _partners(home, heard[0])),
        ("secure sums", lambda: _secure_sums(home, heard[0])),
        ("hardware", lambda: _hardware(home)),
    )
    failed: set[str] = set()
    for name, attempt in tried:
        if missing := failed & NEEDS.get(name, set()):
            failed.add(name)
            yield name, CheckNote(f"skipped: the {' and the '.join(sorted(missing))} must be right first")
            continue
        try:
            yield name, attempt()
        except Exception as error:  # noqa: BLE001  (whatever a check raises: those after it have their turn)
            failed.add(name)
            yield name, _explained(error)
    if not failed & NEEDED_TO_TRAIN:
        yield from _training(home, heard[0].plan if heard else None, show)


def _explained(error: Exception) -> FedcervixError:
    """Return what a check raised as an error of ours."""
    if isinstance(error, FedcervixError):
        return error
    if isinstance(error, ImportError):
        return lacking(error) or FedcervixError(str(error), cause="a package is damaged")
    if isinstance(error, OSError) and error.filename is not None:
        return known(error, str(error.filename), "use")
    return FedcervixError(f"{type(error).__name__}: {error}", cause="a bug", next_step="report this line")


def _configuration(home: SiteHome) -> str:
    home.config()
    return str(home.config_file)


def _writable(home: SiteHome) -> str:
    check_writable(home.config_file)
    return f"{home.folder} can be written"


def _keys(home: SiteHome) -> str | CheckNote:
    """Find the key, the certificate and the authority, and say who else may read the key."""
    for name in ("authority.crt", *(file.name for file in home.own_files())):
        home.pem(name)
    open_ones = [key for key in home.key_file("").glob("*.key*") if key.stat().st_mode & 0o077]
    if open_ones:
        files = " ".join(shlex.quote(str(key)) for key in open_ones)
        return CheckNote(f"other users of this machine may read a secret key; next: chmod 600 {files}")
    return f"{home.key_file('')}, readable by their owner alone"


def _hardware(home: SiteHome) -> str | CheckNote:
    wanted = home.config().hardware
    found = hardware.look(wanted)
    return CheckNote(found) if wanted.device == "cuda" and hardware.no_gpu() else found


def _manifest(home: SiteHome) -> str:
    read_manifest(home.manifest(), home.config().data.ignore_columns)
    return str(home.manifest())


def _certificate(home: SiteHome, now: datetime) -> str | CheckNote:
    certificate = home.certificate()
    identity.check_validity(certificate, now)
    if words := renewal.warning("this site", certificate.not_before, certificate.not_after, now):
        return CheckNote(f"{words}; a running agent renews it: {home.command()}")
    return f"{certificate.identity.uri}, valid until {certificate.not_after:%Y-%m-%d}"


def _line(home: SiteHome) -> str:
    from site_agent.federation import tls

    address = home.config().link.coordinator
    home.certificate()
    return f"{address} answers, {tls.look(address, home.pem('authority.crt'), home.own_files())}"


def connect(home: SiteHome, claim: codec.InstanceClaim | None = None, ledger: SiteLedger | None = None) -> GrpcLink:
    """Return a link to the site's coordinator. Raises ConfigError, StorageError."""
    from site_agent.federation.link import Books, GrpcLink
    from site_agent.store.egress import Egress

    return GrpcLink(
        home.config().link.coordinator,
        authority_pem=home.pem("authority.crt"),
        certificate_pem=home.pem(home.certificates()[0]),
        key_pem=home.pem("site.key"),
        claim=claim,
        books=Books(ledger, Egress(home.egress, home.config().link.coordinator)),
    )


def welcome(home: SiteHome) -> codec.Welcome:
    """Hear the coordinator's welcome as the agent does, beside it. Raises a FedcervixError."""
    with contextlib.closing(connect(home)) as link:
        heard = link.welcome()
    assert isinstance(heard, codec.Welcome)
    check_welcome(heard, home.certificate().identity.federation)
    return heard


def _coordinator(home: SiteHome, on_welcome: Callable[[codec.Welcome], None]) -> str:
    """Compare the plan with the policy."""
    heard = welcome(home)
    on_welcome(heard)
    asked = home.config().policy, heard.plan, home.certificate().identity.name, home.pins()
    if against := objections(*asked):
        cause, next_step = way_out(home, missing_pins(*asked), against)
        raise PolicyError(
            f"the plan of run {heard.run} is not allowed: {'; '.join(against)}",
            cause=cause,
            next_step=next_step,
        )
    return f"accepts this site; run {heard.run}, {heard.plan.mode}; the policy allows its plan"


def _partners(home: SiteHome, heard: codec.Welcome) -> str | CheckNote:
    """Compare the keys of the run's sites with the pins, and with those of this run before."""
    pins, own = home.pins(), home.certificate().identity.name
    keys = known_keys(pins, RunStore(home.run_folder(heard.run)).keys(), heard.keys, own=own)
    found = partners(pins, heard.plan, own, keys)
    if found.awaited:
        return CheckNote(str(shown.AwaitsKeys(found.awaited, home.command("unpin"))))
    words = str(shown.Acquainted(found, home.command("pin"), heard.plan.hides_from_coordinator)) or "none"
    return CheckNote(words) if found.unpinned else words


def _secure_sums(home: SiteHome, heard: codec.Welcome) -> str | CheckNote:
    """Say what the plan hides from the coordinator, and whether this home may take part."""
    terms = heard.plan.terms
    if not terms.secure_sum:
        return "the plan has none: the coordinator sees the update of each site"
    holders = f"the coordinator sees sums of updates only, as long as one of {', '.join(terms.holders)} is honest"
    if is_held(home.lock):
        return CheckNote(f"{holders}; an agent is running, so this home's memory was not read")
    memory = SumJournal(home).memory
    if heard.run in memory.barred:
        raise PolicyError(
            f"this home was restored or copied during run {heard.run}, and takes no part in it any more",
            cause="a backup was restored, or the folder was copied: it may have forgotten what it has released",
            next_step="tell the coordinator's operator: the run goes on without this site, or ends",
        )
    if memory.restored:
        return CheckNote(f"{holders}. {RESTORED.format(vouch=home.command('vouch DIGEST'))}")
    return holders


RESTORED = (
    "This home was restored or copied before: in a run that begins with a given model, ask the other sites first; only "
    "where no sum was made of it: {vouch}"
)


def _training(home: SiteHome, plan: Plan | None, show: shown.Show) -> Iterator[Row]:
    """Look at the images, and try a step of the plan, in a worker process that ends with this."""
    worker = Worker(home, "site")

    def on_progress(at: WorkProgress) -> None:
        show(shown.Advanced("check", at))

    if is_held(home.lock):
        yield "training", CheckNote("no step was timed: an agent is running on this home and needs the memory")
        plan = None
    try:
        yield from worker.examine(plan, on_progress, threading.Event(), waits=False).lines()
    except Exception as error:  # noqa: BLE001  (as above)
        yield "training", _explained(error)
    finally:
        worker.cancel()
