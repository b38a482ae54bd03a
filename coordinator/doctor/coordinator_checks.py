"""What `coordinator doctor` looks at, one after the other. Nothing here changes the home, or the run in progress.

Where a coordinator runs on the home, the limits are those of its process: a service has other ones than the shell in
which somebody types.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coordinator.home.founding import OWN
from coordinator.home.home import Home
from coordinator.home.network_shapes import network
from coordinator.limits.descriptor_shares import bounds
from coordinator.run import history
from coordinator.run.status_document import StatusDocument
from fedcervix import __version__
from fedcervix.core.modes import MODES
from fedcervix.core.plan import Plan
from fedcervix.disk.databases import reader
from fedcervix.disk.journal import Journal, UnreadRun
from fedcervix.disk.reserve import RESERVE_BYTES
from fedcervix.doctor import home_checks, machine_checks
from fedcervix.doctor.findings import CheckWarning, DoctorCheck, Finding
from fedcervix.doctor.machine import MachineFacts, measure
from fedcervix.errors import ConfigError, FedcervixError, IdentityError, RunError, StorageError
from fedcervix.transport import identity, renewal
from fedcervix.transport.address import Address
from fedcervix.transport.versions import HERE

if TYPE_CHECKING:
    from pathlib import Path

    from coordinator.home.registry import SiteEntry  # with SQLite

MEMORY_BYTES = 10**9
"""for any number of sites (deploy/RUNBOOK.md, section 3)"""
TASKS = 64
"""threads: of gRPC, of the disk and of the averages"""
MODELS_OF_TWO, MODELS_OF_ONE_MORE = 10, 2
"""so many models lie on the disk at once with two sites, and with each further one (deploy/RUNBOOK.md, section 3)"""
PARAMETER_BYTES = 4
CONNECT_S = 10.0

Picture = Callable[[], StatusDocument | None]
"""asks the running coordinator for its status; None where none runs. May raise"""


@dataclass(frozen=True, slots=True)
class CoordinatorDoctor:
    """The checks of one home at one moment."""

    home: Home
    now: datetime
    facts: MachineFacts
    picture: Picture

    def checks(self) -> tuple[DoctorCheck, ...]:
        """Return the table, in order."""
        return (*self._of_home(), *self._of_keys(), *self._of_machine(), *self._of_line())

    def _of_home(self) -> tuple[DoctorCheck, ...]:
        home, config = self.home, {"configuration"}
        return (
            DoctorCheck("configuration", lambda: _configuration(home)),
            DoctorCheck("home folder", lambda: _writable(home)),
            DoctorCheck("permissions", lambda: home_checks.permissions(self.folder())),
            DoctorCheck("file system", lambda: home_checks.place(self.folder())),
            DoctorCheck("disk", lambda: disk(self.folder(), _models_bytes(home), _stored_bytes(home)), config),
            DoctorCheck("reserve", lambda: _reserve(home)),
            DoctorCheck("journal", lambda: _journal(home)),
            DoctorCheck("registry", lambda: _registry(home)),
        )

    def folder(self) -> home_checks.FolderFacts:
        """Return what is measured of the home folder. Raises OSError."""
        return home_checks.measure_folder(self.home.folder)

    def _of_keys(self) -> tuple[DoctorCheck, ...]:
        home, now = self.home, self.now
        return (
            DoctorCheck("time service", lambda: machine_checks.time_service(self.facts)),
            DoctorCheck("clock", lambda: clock(now, _newest(home)), {"journal"}),
            DoctorCheck("authority", lambda: _authority(home, now)),
            DoctorCheck("own certificates", lambda: _own(home, now, running=home.is_running()), {"authority"}),
            DoctorCheck("ledger key", lambda: _ledger_key(home)),
            DoctorCheck(
                "sites", lambda: sites(entries(home), home.config().run.sites, now), {"configuration", "registry"}
            ),
        )

    def _of_machine(self) -> tuple[DoctorCheck, ...]:
        home, facts, config = self.home, self.facts, {"configuration"}
        return (
            DoctorCheck("limits", lambda: machine_checks.whose(facts, "coordinator")),
            DoctorCheck("open files", lambda: open_files(facts, len(home.config().run.sites)), config),
            DoctorCheck("file size", lambda: machine_checks.file_size(facts, _model_bytes(home)), config),
            DoctorCheck("tasks", lambda: machine_checks.tasks(facts, TASKS)),
            DoctorCheck("memory limit", lambda: machine_checks.memory(facts, MEMORY_BYTES, what="a coordinator")),
            DoctorCheck("text encoding", lambda: machine_checks.text_encoding(facts)),
            DoctorCheck("time zone", lambda: machine_checks.time_zone(facts)),
        )

    def _of_line(self) -> tuple[DoctorCheck, ...]:
        home = self.home
        return (
            DoctorCheck("port", lambda: _port(home), {"configuration"}),
            DoctorCheck("address", lambda: _reached(home), {"configuration", "port", "authority", "own certificates"}),
            DoctorCheck("run", lambda: _run(self.picture), {"port", "own certificates"}),
            DoctorCheck("versions", lambda: _versions(self.picture), {"run"}),
            DoctorCheck("notifications", lambda: _notifications(home, self.now), {"configuration"}),
        )


def doctor_of(home: Home, now: datetime, picture: Picture) -> CoordinatorDoctor:
    """Return the doctor of a home, with the facts of the coordinator that runs on it, or else of this process."""
    try:
        running = home.read_running()
    except FedcervixError:  # the checks find it
        running = None
    return CoordinatorDoctor(home, now, measure(running.pid if running else None, "coordinator", os.environ), picture)


# --- decisions ----------------------------------------------------------------------------------------------------


def disk(facts: home_checks.FolderFacts, needed_bytes: int, used_bytes: int) -> Finding:
    """Compare the room for models with what a run needs; those of a run in progress lie there already."""
    return home_checks.room(facts, max(0, needed_bytes - used_bytes), what="a run's models, with what they take now,")


def clock(now: datetime, newest: datetime | None) -> Finding:
    """Compare this machine's clock with the newest moment that the journal has written down."""
    behind_s = (newest - now).total_seconds() if newest else 0.0
    if newest is not None and behind_s > renewal.SKEW_S_MAX:
        return IdentityError(
            f"this machine's clock says {identity.moment(now)}; the journal was written at {identity.moment(newest)}",
            cause="the clock was set back, or it was ahead when that was written",
            next_step="compare it with another clock, and set it (`timedatectl set-ntp true`)",
        )
    return f"{identity.moment(now)}, not before what the journal has"


def open_files(facts: MachineFacts, sites_count: int) -> Finding:
    """Share out the descriptors as `start` does: it raises the soft limit by itself. Raises RunError: too few."""
    limit = facts.files_hard
    if limit is None:
        return f"no limit for {facts.process}"
    shares = bounds(limit, sites_count)
    return (
        f"{limit:,} allowed for {facts.process}: {shares.per_certificate} connections for each of {sites_count} sites"
    )


def sites(known: Sequence[SiteEntry], roster: Sequence[str], now: datetime) -> Finding:
    """Say how the sites of the roster stand: joined, with how many days; invited; neither."""
    by_name = {one.site: one for one in known}
    told, late, gone = list[str](), list[str](), list[str]()
    for name in roster:
        one = by_name.get(name)
        if one is None:
            told.append(f"{name} was not invited yet")
            continue
        days = math.floor((one.not_after - now).total_seconds() / 86_400)
        told.append(f"{name} {one.state}" + ("" if one.state == "revoked" else f", {days} days left"))
        if one.state == "joined" and days < 0:
            gone.append(name)
        elif one.state == "joined" and renewal.warning(name, one.since, one.not_after, now):
            late.append(name)
    words = "; ".join(told)
    if gone:
        return CheckWarning(
            f"{words}: expired certificates cannot connect",
            cause="their agents did not run while the certificates could be renewed",
            next_step=f"coordinator renew {gone[0]}",
        )
    if late:
        return CheckWarning(
            f"{words}: certificates that should have been renewed",
            cause="an agent that does not run, or cannot connect",
            next_step=f"ask {late[0]} what `site-agent doctor` prints there",
        )
    return words


def versions(document: StatusDocument) -> Finding:
    """Say which versions the connected sites have, and which of them wait for an upgrade."""
    known = [f"{one.site} {one.software or 'unknown'}" for one in document.sites if one.connected]
    words = f"fedcervix {HERE.software} here; {', '.join(known) or 'no site is connected'}"
    waiting = [one for one in document.sites if one.line.startswith("waits for an upgrade")]
    if waiting:
        return CheckWarning(
            f"{words}; {', '.join(one.site for one in waiting)} cannot take part until one side is upgraded",
            cause=waiting[0].line,
            next_step=f"tell {waiting[0].site} which version of fedcervix to install: {__version__}",
        )
    return words


# --- looks --------------------------------------------------------------------------------------------------------


def _configuration(home: Home) -> str:
    _plan(home)
    return str(home.config_file)


def _plan(home: Home) -> Plan:
    """Return the plan of the first mode that the configuration allows. Raises ConfigError where it allows none."""
    for mode in MODES:
        with contextlib.suppress(ConfigError):
            return home.plan(mode)
    return home.plan(next(iter(MODES)))


def _writable(home: Home) -> str:
    home_checks.check_home(home.folder)
    return f"{home.folder} can be written, and has locks"


def _model_bytes(home: Home) -> int:
    return PARAMETER_BYTES * sum(math.prod(shape) for shape in network(_plan(home).recipe).values())


def _models_bytes(home: Home) -> int:
    """Return how much the models of a run take at most."""
    more = max(0, len(home.config().run.sites) - 2)
    return _model_bytes(home) * (MODELS_OF_TWO + MODELS_OF_ONE_MORE * more)


def _stored_bytes(home: Home) -> int:
    return sum(file.stat().st_size for file in home.blobs.glob("*") if file.is_file())


def _reserve(home: Home) -> Finding:
    left_bytes = home.reserve.left_bytes()
    if not home.reserve.path.exists():
        return "made at the first start"
    if left_bytes < RESERVE_BYTES:
        return CheckWarning(
            f"{left_bytes >> 20} of {RESERVE_BYTES >> 20} MiB are left for journal and registry",
            cause="the disk is (nearly) full, or was: models, logs or another program have filled it",
            next_step=f"free some space (df -h {machine_checks.named(home.folder)}); it is then filled again by itself",
        )
    return f"{left_bytes >> 20} MiB for journal and registry"


def _journal(home: Home) -> Finding:
    if not home.has(home.journal):
        return "there is none yet: no run has begun"
    _check_whole(home.journal, "the journal")
    with contextlib.closing(Journal(home.journal, read_only=True)) as journal:
        runs = journal.runs()
    unread = [one for one in runs if isinstance(one, UnreadRun)]
    if unread:
        error, count = unread[-1].error, f"{len(unread)} of {len(runs)} runs cannot be read"
        return CheckWarning(f"{count}: {error.what}", error.cause, error.next_step)
    return f"whole; {len(runs)} run{'' if len(runs) == 1 else 's'}"


def _registry(home: Home) -> Finding:
    if not home.has(home.registry):
        return "there is none yet: no site was invited"
    _check_whole(home.registry, "the registry")
    return f"whole; {len(entries(home))} sites"


def _check_whole(path: Path, what: str) -> None:
    """Have SQLite look through a database. Raises StorageError."""
    with reader(path, what) as db:
        [(said,), *_] = db.execute("PRAGMA quick_check(1)").fetchall()
    if said != "ok":
        raise StorageError(
            f"{what} {path} is damaged: {said}",
            cause="a failing disk, or a copy that was made while it was written",
            next_step="stop the coordinator, keep this folder, and restore the last backup in another one: coordinator "
            "--home NEW-FOLDER restore FILE",
        )


def entries(home: Home) -> list[SiteEntry]:
    """Return every site that was ever invited. Raises StorageError."""
    from coordinator.home.registry import Registry  # with SQLite

    return Registry(home.registry, home.held_to_upgrade).sites() if home.has(home.registry) else []


def _newest(home: Home) -> datetime | None:
    """Return the newest moment that the last run has written down."""
    try:
        return datetime.fromtimestamp(history.stands(home, whole=False).since, UTC)
    except RunError:  # there is none yet
        return None


def _authority(home: Home, now: datetime) -> Finding:
    found = identity.identify(home.authority().certificate_pem)
    identity.check_validity(found, now)
    if words := renewal.authority_warning(found, now):
        return CheckWarning(words, "it cannot be renewed", "plan it: deploy/RUNBOOK.md, section 9")
    if found_open := home_checks.open_secrets(home.key_file("")):
        return found_open
    return f"valid until {_until(found, now)}"


def _own(home: Home, now: datetime, *, running: bool) -> Finding:
    """Look at the server's and the operator's certificates, which each start, and a running coordinator, renews."""
    if not any(home.has(home.key_file(f"{name}.crt")) for name in OWN):
        return "made at the first start"
    found = [identity.identify(home.pem(f"{name}.crt")) for name in OWN]
    for one in found:
        if running:
            identity.check_validity(one, now)
        if words := renewal.warning(one.identity.title, one.not_before, one.not_after, now):
            return CheckWarning(
                words, "no coordinator has run for a while", f"a start renews it: {home.command('start')}"
            )
    return f"valid until {_until(min(found, key=lambda one: one.not_after), now)}"


def _until(certificate: identity.Certificate, now: datetime) -> str:
    return f"{certificate.not_after:%Y-%m-%d} ({(certificate.not_after - now).days} days)"


def _ledger_key(home: Home) -> str:
    if not home.has(home.key_file("ledger.key")):
        return "made at the first start"
    home.pem("ledger.key")
    return str(home.key_file("ledger.key"))


def _port(home: Home) -> Finding:
    """Say whether the port is free for a start, or is this coordinator's."""
    from coordinator.calls.serving import check_free  # with gRPC

    if (running := home.read_running()) is not None:
        return f"a coordinator (process {running.pid}) listens on port {running.port}"
    if home.is_running():
        return "a coordinator is starting"
    bind = Address.parse(home.config().listen.bind, port_min=0)
    check_free(bind, home.config_file)
    return f"{bind} is free; no coordinator is running here"


def _reached(home: Home) -> Finding:
    """Connect to the address that the invitations name, from here."""
    if home.read_running() is None:
        return "not tried: no coordinator is running here"
    to = Address.parse(home.address())
    context = ssl.create_default_context(cadata=home.pem("authority.crt").decode("ascii"))
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((to.host, to.port), timeout=CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=to.host) as line,
        ):
            return f"{to} answers here, {line.version() or 'TLS'}"
    except ssl.SSLError as error:
        return CheckWarning(
            f"another program than this coordinator answers at {to} ({error.reason})",
            cause="[listen] advertise names another machine, or something inspects TLS on the way",
            next_step=f"compare [listen] advertise in {home.config_file} with this machine's name and port",
        )
    except OSError as error:
        return CheckWarning(
            f"{to} cannot be reached from here ({error.strerror or error})",
            cause="a name that is not in DNS, a firewall, or an address that is valid outside of this network only",
            next_step="test it from a site: `site-agent doctor` there",
        )


def _run(picture: Picture) -> Finding:
    """Say what the running coordinator says of itself."""
    document = picture()
    if document is None:
        return "no coordinator is running here"
    if document.trouble:
        return CheckWarning(document.trouble, next_step="coordinator status")
    return f"{document.run}, phase {document.phase}, round {document.round} of at most {document.rounds_max}"


def _versions(picture: Picture) -> Finding:
    document = picture()
    return f"fedcervix {HERE.software} here" if document is None else versions(document)


def _notifications(home: Home, now: datetime) -> Finding:
    """Read what each receiver needs, and say whose messages wait. Nothing is sent: `notify test` does that."""
    from coordinator.notify.receivers import receivers  # with smtplib
    from coordinator.notify.undelivered import late_words, undelivered

    told = receivers(home)
    for one in told:
        one.check()
    if late := late_words(undelivered(home), now.timestamp()):
        return CheckWarning(
            "; ".join(late),
            cause="the receiver cannot be reached or refuses them, or no coordinator runs",
            next_step=home.command("notify test") if home.is_running() else home.command("notify send"),
        )
    return f"people are told by {' and '.join(one.name for one in told)}" if told else "off: [notify] names nobody"
