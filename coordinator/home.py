"""The coordinator's home folder: where everything lies, and the configuration in it.

coordinator.toml      what the operator edits
keys/                 the federation's authority, the server's and the operator's keys (0600)
registry.db           who may connect
journal.db            the events of all runs
blobs/                models in use, named by digest
results/RUN/          finished models, each with its record
running.json          address and process of the running coordinator; it holds `lock`, and `running.lock`
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from fedcervix import identity
from fedcervix.address import Address, check_address
from fedcervix.config import apply_profile, build, read_toml
from fedcervix.errors import ConfigError, RunError
from fedcervix.files import write_secret
from fedcervix.locks import held, is_held
from fedcervix.plan import SITE_NAME, STRICT, Mode, Plan, check
from fedcervix.weights import disk

CONFIG_TEMPLATE = """\
# Configuration of a fedcervix coordinator. Every key is explained in docs/configuration.md.

[federation]
name = "{name}"

[listen]
bind = "{bind}"            # the one port; sites dial in to it, the coordinator never dials out
advertise = "{advertise}"  # how sites reach it, from where they are: HOST:PORT, written into invitations

[run]
sites = {sites}            # the declared roster, in the order of averaging and of the ring
profile = "{profile}"      # paper, recommended or demo; the tables below override single keys
# base = "first.safetensors"  # a first model made elsewhere; without it a site makes one from the seed

[run.terms]                # how the sites federate
# rounds = 50              # at most
# epochs_per_round = 1     # E of the paper
# seed = 0

[run.recipe]               # how a site trains
# architecture = "resnet50"
# batch_images = 8         # N of the paper

[run.recipe.augment]
# rotation_deg = 20.0
"""


@dataclass(frozen=True, slots=True)
class FederationSection:
    """Table [federation]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    name: str

    def __post_init__(self) -> None:
        check(SITE_NAME.fullmatch(self.name) is not None, "name is 1-63 of a-z, 0-9 and inner hyphens")


@dataclass(frozen=True, slots=True)
class ListenSection:
    """Table [listen]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    bind: str
    advertise: str

    def __post_init__(self) -> None:
        for key in ("bind", "advertise"):
            check_address(key, getattr(self, key), port_min=0)


@dataclass(frozen=True, slots=True)
class RunSection:
    """Table [run]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    sites: tuple[str, ...]
    profile: str = "paper"
    base: str = ""
    terms: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The file coordinator.toml."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    federation: FederationSection
    listen: ListenSection
    run: RunSection


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below a home folder, and what is read from them."""

    folder: Path

    @property
    def config_file(self) -> Path:
        """What the operator edits."""
        return self.folder / "coordinator.toml"

    @property
    def registry(self) -> Path:
        """Who may connect."""
        return self.folder / "registry.db"

    @property
    def journal(self) -> Path:
        """The events of all runs."""
        return self.folder / "journal.db"

    @property
    def blobs(self) -> Path:
        """Models in use."""
        return self.folder / "blobs"

    @property
    def results(self) -> Path:
        """Finished models."""
        return self.folder / "results"

    @property
    def running(self) -> Path:
        """Address and process of the running coordinator."""
        return self.folder / "running.json"

    def command(self, words: str) -> str:
        """Return a command to type that means this home, whatever is in its path."""
        return f"coordinator --home {shlex.quote(str(self.folder))} {words}"

    def key_file(self, name: str) -> Path:
        """Return where the key or certificate `name` lies."""
        return self.folder / "keys" / name

    def pem(self, name: str) -> bytes:
        """Return a key or certificate. Raises StorageError."""
        with disk(self.key_file(name), "read"):
            return self.key_file(name).read_bytes()

    def config(self) -> Config:
        """Return the configuration. Raises ConfigError."""
        raw = read_toml(self.config_file, hint=self.command("init"))
        return build(Config, raw, source=self.config_file)

    def plan(self, mode: Mode) -> Plan:
        """Return the plan that the configuration describes. Raises ConfigError."""
        run = self.config().run
        profile = apply_profile(run.profile, run.recipe, run.terms, source=self.config_file)
        try:
            return Plan(mode=mode, sites=run.sites, profile=run.profile, terms=profile.terms, recipe=profile.recipe)
        except ValueError as error:
            raise ConfigError(f"{self.config_file}: {error}", next_step=f"edit {self.config_file}") from error

    def authority(self) -> identity.Authority:
        """Return what signs certificates."""
        return identity.Authority(self.pem("authority.crt"), self.pem("authority.key"))

    def address(self) -> str:
        """Return how sites reach the coordinator: as advertised, with the port that the system chose where it is 0."""
        advertise = Address.parse(self.config().listen.advertise, port_min=0)
        if advertise.port:
            return str(advertise)
        now_running = self.read_running()
        if now_running is None:
            raise RunError(
                "the coordinator's port is chosen when it starts (advertise ends in :0), and it is not running",
                next_step=f"start it first: {self.command('start --mode csfssl')}",
            )
        return str(Address(advertise.host, now_running["port"]))

    def read_running(self) -> dict[str, Any] | None:
        """Return address and process of the running coordinator; None where none runs, or one is only starting.

        Raises StorageError where this user may not know.
        """
        if not is_held(self._running_lock):
            return None
        with disk(self.running, "read"):
            try:
                text = self.running.read_text()
            except FileNotFoundError:
                return None
        found: dict[str, Any] = json.loads(text)
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home folder for one coordinator process. Raises RunError where another one has it, StorageError.

        The system lets go of it when the process ends, however it ends. Whoever only wants to know whether a
        coordinator runs takes another lock for that instant: so asking never gets into the way of a start.
        """
        other = self.read_running()
        busy = RunError(
            f"a coordinator is already running on {self.folder}" + (f" (pid {other['pid']})" if other else ""),
            cause="it was started twice, or runs as a service",
            next_step=self.command("status"),
        )
        with held(self.folder / "lock", busy=busy):
            with disk(self.running, "write"):
                self.running.unlink(missing_ok=True)  # what a killed one left
            with held(self._running_lock, busy=None):  # held by others for an instant at most
                yield

    @property
    def _running_lock(self) -> Path:
        return self.folder / "running.lock"


def create(
    home: Home, *, name: str, bind: str, advertise: str, sites: tuple[str, ...], profile: str, now: datetime
) -> None:
    """Make a home folder with authority, certificates and a commented configuration. Raises RunError, IdentityError."""
    if home.config_file.exists():
        raise RunError(f"{home.folder} is already a coordinator's home", next_step=f"edit {home.config_file}")
    authority_key = identity.new_key()
    authority = identity.Authority(identity.new_authority(name, authority_key, now), authority_key)
    text = CONFIG_TEMPLATE.format(
        name=name, bind=bind, advertise=advertise, sites=json.dumps(list(sites)), profile=profile
    )
    with disk(home.folder, "write"):
        home.key_file("").mkdir(parents=True, mode=0o700)
        home.blobs.mkdir()
        home.results.mkdir()
        write_secret(home.key_file("authority.key"), authority.key_pem)
        home.key_file("authority.crt").write_bytes(authority.certificate_pem)
        home.config_file.write_text(text)
    home.config()
    certify_self(home, now)


def certify_self(home: Home, now: datetime) -> None:
    """Make the server's and the operator's keys and certificates anew; done at init and at every start."""
    authority, config = home.authority(), home.config()
    hosts = {config.listen.advertise.rpartition(":")[0], "localhost", "127.0.0.1"}
    for name, role, lifetime, named in (
        ("server", "coordinator", identity.SERVER_LIFETIME, tuple(sorted(hosts))),
        ("operator", "operator", identity.OPERATOR_LIFETIME, ()),
    ):
        key = identity.new_key()
        who = identity.Identity(config.federation.name, role)  # type: ignore[arg-type]
        certificate = identity.issue(authority, identity.public_key(key), who, now, lifetime, named)
        with disk(home.key_file(name), "write"):
            write_secret(home.key_file(f"{name}.key"), key)
            home.key_file(f"{name}.crt").write_bytes(certificate)
