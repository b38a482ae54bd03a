"""The coordinator's home folder: its paths, and the configuration in it.

coordinator.toml      the configuration, edited by the operator
keys/                 the federation's authority, the ledger's, the server's and the operator's keys (0600)
registry.db           who may connect
journal.db            the events of all runs
blobs/                models in use, named by digest
reserve               room on the disk for journal and registry when it is full
results/RUN/          finished models, each with its record
decisions/            which models are approved or retired, each decision with its signature; never changed
paces/RUN.json        what the sites of a run have measured before it
running.json          address and process of the running coordinator; it holds `lock`, and `running.lock`
notify-RECEIVER.json  messages that are still to be sent, and how far the journal was told (fedcervix.notify.outbox)
operator.sock         where it listens to the operator
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fedcervix.core.bounds import Within, check_values
from fedcervix.core.modes import Mode
from fedcervix.core.plan import SITE_NAME, Plan, check
from fedcervix.disk.files import write_whole
from fedcervix.disk.locks import held, is_held
from fedcervix.disk.paths import Below
from fedcervix.disk.reserve import Reserve
from fedcervix.disk.storage import damaged, disk
from fedcervix.errors import ConfigError, RunError, StorageError
from fedcervix.json_text import parsed
from fedcervix.notify.settings import NotifySection
from fedcervix.runtime.config import apply_profile, build, read_toml
from fedcervix.transport.address import Address, check_address

if TYPE_CHECKING:
    from fedcervix.transport.identity import Authority


@dataclass(frozen=True, slots=True)
class FederationSection:
    """Table [federation]."""

    name: str

    def __post_init__(self) -> None:
        check(SITE_NAME.fullmatch(self.name) is not None, "name is 1 to 63 characters: a-z, 0-9 and inner hyphens")


@dataclass(frozen=True, slots=True)
class ListenSection:
    """Table [listen]."""

    bind: str
    advertise: str

    def __post_init__(self) -> None:
        for key in ("bind", "advertise"):
            check_address(key, getattr(self, key), port_min=0)


Days = Annotated[float, Within(above=0, most=365)]


@dataclass(frozen=True, slots=True)
class CertificatesSection:
    """Table [certificates]: for how long they are issued. They renew themselves from half of that time on."""

    site_days: Days = 90.0
    own_days: Days = 90.0
    """the server's and the operator's"""

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def site(self) -> timedelta:
        """Lifetime of a site's certificate."""
        return timedelta(days=self.site_days)

    @property
    def own(self) -> timedelta:
        """Lifetime of the coordinator's own certificates."""
        return timedelta(days=self.own_days)


@dataclass(frozen=True, slots=True)
class RunSection:
    """Table [run]."""

    sites: tuple[str, ...]
    profile: str = "paper"
    base: str = ""
    terms: dict[str, object] = field(default_factory=dict)
    recipe: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The file coordinator.toml."""

    federation: FederationSection
    listen: ListenSection
    run: RunSection
    certificates: CertificatesSection = field(default_factory=CertificatesSection)
    notify: NotifySection = field(default_factory=NotifySection)


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """The file running.json: a coordinator process that listens."""

    pid: int
    port: int
    address: str
    operator: str = ""
    """path of the socket for the operator; one of an earlier version has none"""

    def __post_init__(self) -> None:
        numbers, texts = (self.pid, self.port), (self.address, self.operator)
        check(all(isinstance(one, int) for one in numbers), f"pid and port are numbers; found {numbers}")
        check(all(isinstance(one, str) for one in texts), f"address and operator are texts; found {texts}")


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below a home folder, and what is read from them."""

    folder: Path
    config_file = Below("coordinator.toml")
    """What the operator edits."""
    registry = Below("registry.db")
    """Who may connect."""
    journal = Below("journal.db")
    """The events of all runs."""
    blobs = Below("blobs")
    """Models in use."""
    results = Below("results")
    """Finished models."""
    decisions = Below("decisions")
    """What was decided on models (see fedcervix.lineage.decision_store)."""
    paces = Below("paces")
    """What the sites of each run have measured."""
    running = Below("running.json")
    """Address and process of the running coordinator."""
    operator_socket = Below("operator.sock")
    """Where the running coordinator listens to the operator's commands, where the file system takes a socket."""
    _running_lock = Below("running.lock")

    @property
    def reserve(self) -> Reserve:
        """Room on the disk for the journal and the registry."""
        return Reserve.beside(self.journal)

    def key_file(self, name: str) -> Path:
        """Return the path of the key or certificate `name`."""
        return self.folder / "keys" / name

    def pem(self, name: str) -> bytes:
        """Return a key or certificate. Raises ConfigError where it is missing, StorageError where it is damaged."""
        from fedcervix.transport.key_files import read_pem

        file, needed, next_step = self.key_file(name), "it is made again at each start", self._restart()
        if name == "ledger.key":
            needed = "the ledger of a run goes on only with the key that it began with"
            next_step = f"restore {file} from your backup"
        if name.startswith("authority."):
            needed = "without it nobody can be invited, and the coordinator cannot start"
            next_step = f"restore {file} from your backup; do not run `init` again: it makes another federation"
        return read_pem(file, needed=needed, next_step=next_step)

    def command(self, words: str) -> str:
        """Return a command to type that means this home, whatever is in its path."""
        return f"coordinator --home {shlex.quote(str(self.folder))} {words}"

    def _restart(self) -> str:
        return f"stop the coordinator that runs here (Ctrl-C, or as a service), then {self.command('start')}"

    def has(self, path: Path) -> bool:
        """Say whether a file of the home is there. Raises StorageError where this user may not know."""
        with disk(path, "read"):
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def insist(self) -> None:
        """Raise ConfigError unless this is a coordinator's home, StorageError where it is damaged or not to be read."""
        if self.has(self.config_file):
            self._check_not_emptied()
            return
        if self.has(self.folder / "site.toml"):
            raise ConfigError(
                f"{self.folder} is a site's home, not a coordinator's",
                cause="wrong --home, or the wrong program",
                next_step=f"site-agent --home {shlex.quote(str(self.folder))} doctor, or give --home another folder",
            )
        if self.has(self.key_file("authority.key")):
            raise ConfigError(
                f"{self.folder} holds a federation's keys, but no {self.config_file.name}",
                cause="the file was deleted, or the folder was restored in part",
                next_step=f"restore {self.config_file} from a backup; a new federation needs another folder",
            )
        missing = "holds no coordinator.toml" if self.has(self.folder) else "does not exist"
        raise ConfigError(
            f"{self.folder} is not a coordinator's home: it {missing}",
            cause="wrong --home, or not set up yet",
            next_step="check the path (--home, or the variable FEDCERVIX_COORDINATOR_HOME), and whether its disk is "
            f"mounted; only for a new federation: {self.command('init')}",
        )

    def _check_not_emptied(self) -> None:
        """Raise StorageError where a database is empty that runs have used: a new one is not empty for long."""
        for path, lost in ((self.journal, "the list of runs"), (self.registry, "all invitations and certificates")):
            if self._was_used() and self.has(path) and path.is_file() and path.stat().st_size == 0:
                raise StorageError(
                    f"{path} is empty, and this home has had runs",
                    cause="its disk was full or is failing, or it was emptied by hand",
                    next_step="restore the home folder from a backup (coordinator --home NEW-FOLDER restore FILE); "
                    f"without a backup, `rm {shlex.quote(str(path))}` makes a new one, without {lost}",
                )

    def _was_used(self) -> bool:
        return any(self.blobs.glob("*.safetensors")) or any(self.results.glob("*"))

    def config(self) -> Config:
        """Return the configuration. Raises ConfigError, StorageError."""
        self.insist()
        return build(Config, read_toml(self.config_file), source=self.config_file)

    def plan(self, mode: Mode) -> Plan:
        """Return the plan that the configuration describes. Raises ConfigError."""
        run = self.config().run
        profile = apply_profile(run.profile, run.recipe, run.terms, source=self.config_file)
        try:
            return Plan(mode=mode, sites=run.sites, profile=run.profile, terms=profile.terms, recipe=profile.recipe)
        except ValueError as error:
            raise ConfigError(
                f"{self.config_file}: {error}",
                cause="the values of [run] do not fit each other: the mode, the sites and the terms",
                next_step=f"edit {self.config_file}",
            ) from error

    def authority(self) -> Authority:
        """Return what signs certificates. Raises ConfigError where its key is missing, StorageError, IdentityError."""
        from fedcervix.transport import identity

        return identity.Authority(self.pem("authority.crt"), self.pem("authority.key"))

    def address(self) -> str:
        """Return how sites reach the coordinator: as advertised, with the port that the system chose where it is 0.

        Raises RunError.
        """
        advertise = Address.parse(self.config().listen.advertise, port_min=0)
        if advertise.port:
            return str(advertise)
        now_running = self.read_running()
        if now_running is None:
            raise RunError(
                "the coordinator's port is chosen when it starts (advertise ends in :0), and it is not running",
                next_step=f"start it first: {self.command('start --mode csfssl')}",
            )
        return str(Address(advertise.host, now_running.port))

    def is_running(self) -> bool:
        """Say whether a coordinator holds this home, also while it is only starting. Raises StorageError."""
        return is_held(self._running_lock)

    def read_running(self) -> RunningProcess | None:
        """Return address and process of the running coordinator; None where none runs, or one is only starting.

        Raises StorageError where this user may not know, or the file is damaged.
        """
        if not self.is_running():
            return None
        with disk(self.running, "read"):
            try:
                content = self.running.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return RunningProcess(**parsed(content))
        except (ValueError, TypeError) as error:
            raise damaged(self.running, error, next_step=self._restart()) from error

    def write_running(self, pid: int, bound: Address, operator: Path) -> None:
        """Write down where the coordinator listens for sites and for commands on this machine. Raises StorageError."""
        host = "localhost" if bound.is_everywhere else bound.host
        running = RunningProcess(pid, bound.port, str(Address(host, bound.port)), str(operator))
        write_whole(self.running, json.dumps(dataclasses.asdict(running), allow_nan=False).encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home folder for one coordinator process. Raises RunError where another one has it, StorageError.

        The system releases the lock when the process ends, however it ends. A process that only asks whether a
        coordinator runs takes another lock for a moment, so it never prevents a start.
        """
        other = self.read_running()
        busy = RunError(
            f"a coordinator is already running on {self.folder}" + (f" (pid {other.pid})" if other else ""),
            cause="it was started twice, or it runs as a service",
            next_step=f"{self.command('status')}; to stop it: {self.command('stop')}",
        )
        with held(self.folder / "lock", busy=busy):
            with disk(self.running, "write"):
                self.running.unlink(missing_ok=True)  # a killed one's: nobody may read it once the next lock is held
            with held(self._running_lock, busy=None):  # held by others for an instant at most
                yield

    @contextlib.contextmanager
    def held_to_upgrade(self) -> Iterator[None]:
        """Hold the home while the registry gets a later format. Raises RunError where a coordinator runs, StorageError.

        That one may be of an earlier version, which could no longer read the file.
        """
        with contextlib.ExitStack() as holding:
            try:
                holding.enter_context(self.locked())
            except RunError as error:
                raise RunError(
                    f"{self.registry} has an earlier format, and a coordinator is running that may know no later one",
                    cause="fedcervix was upgraded, and the coordinator was not restarted after that",
                    next_step=f"restart it: {self.command('stop')}, then {self.command('start')} (as a service: "
                    "systemctl restart fedcervix-coordinator); then give this command again",
                ) from error
            yield
