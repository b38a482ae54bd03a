"""A federation on this machine for benchmarks: homes with real certificates, real processes, and the run's own times.

Sites are enrolled through the registry, as an invitation would do it; nothing of that is measured. Everything listens
on the loopback alone, at ports that the system chooses, and ends with the block that started it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.payloads import Payload
from benchmarks.readings import families, started_at
from coordinator.home.founding import Founding
from coordinator.home.founding import create as create_home
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from fedcervix.core.events import AggregateStored
from fedcervix.disk.files import digest_file
from fedcervix.disk.journal import Journal
from fedcervix.transport import identity, invitations
from site_agent.home import SiteHome
from site_agent.home import create as create_site

FEDERATION = "benchmark"
LISTEN_S = 30.0
LISTEN_POLL_S = 0.02
END_S = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured: a federation of so many sites, for so many rounds."""

    payload: Payload
    sites: int
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.payload.name}/{self.sites}"


@dataclass
class Processes:
    """What was started, by the name of its role; all of it ends with the block."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        started = self._below()
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            process.wait()
        for pid, at in started.items():
            with contextlib.suppress(OSError):
                if started_at(pid) == at:
                    os.kill(pid, signal.SIGKILL)

    def _below(self) -> dict[int, int]:
        """Return what the running processes have started, and when: a number alone may be another's by now."""
        running = {name: process.pid for name, process in self.running.items() if process.poll() is None}
        found = {}
        for family in families(running).values():
            for pid in family[1:]:
                with contextlib.suppress(OSError):
                    found[pid] = started_at(pid)
        return found

    def start(self, name: str, module: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a module as a program; what it prints goes to a file."""
        return self.run(name, sys.executable, "-m", module, *arguments)

    def run(
        self, name: str, *command: str | Path, variables: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start any program, if need be with an environment and a folder of its own; what it prints goes to a file."""
        with (self.logs / f"{name}.log").open("wb") as sink:
            made = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=folder,
            )
        self.running[name] = made
        return made

    def said(self, name: str) -> str:
        """Return what a process printed."""
        return (self.logs / f"{name}.log").read_text()

    def finish(self, name: str, timeout_s: float) -> None:
        """Wait for a process's good end. Raises RuntimeError with what it printed, TimeoutExpired."""
        if code := self.running[name].wait(timeout_s):
            raise RuntimeError(f"{name} ended with {code}:\n{self.said(name)[-3000:]}")

    def until(self, name: str, found: Callable[[], int]) -> int:
        """Return what `found` finds once it finds something: a port that a process listens at."""
        deadline_s = time.monotonic() + LISTEN_S
        while not (value := found()):
            if self.running[name].poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{name} does not listen:\n{self.said(name)[-3000:]}")
            time.sleep(LISTEN_POLL_S)
        return value

    def pids(self) -> dict[str, int]:
        """Return the process number of every role."""
        return {name: process.pid for name, process in self.running.items()}


@dataclass(frozen=True, slots=True)
class Federation:
    """The homes of a coordinator and its sites, in one folder."""

    folder: Path
    sites: tuple[str, ...]
    payload: Payload
    rounds: int
    secure: bool = False
    """with secure sums, and two holders"""

    @property
    def home(self) -> Home:
        return Home(self.folder / "coordinator")

    def site(self, name: str) -> SiteHome:
        return SiteHome(self.folder / name)

    @property
    def base(self) -> Path:
        """The first model."""
        return self.home.folder / "first.safetensors"

    def create(self) -> None:
        """Make all homes, certificates and the first model."""
        now = datetime.now(UTC)
        listen = {"bind": "127.0.0.1:0", "advertise": "localhost:0"}
        create_home(self.home, Founding(name=FEDERATION, **listen, sites=self.sites, profile="demo"), now)
        self.payload.write(self.base)
        run = {"sites": list(self.sites), "profile": "demo", "base": self.base.name}
        terms = {"rounds": self.rounds, "epochs_per_round": 1, "patience_rounds": self.rounds, "lease_s": 600.0}
        if self.secure:
            terms |= {"secure_sum": True, "holders": list(self.sites[:2])}
        recipe = {"epochs_max": self.rounds}
        tables = {"federation": {"name": FEDERATION}, "listen": listen, "run": run}
        self.home.config_file.write_text(toml({**tables, "run.terms": terms, "run.recipe": recipe}))
        for name in self.sites:
            self._enrol(name, now)

    def _enrol(self, name: str, now: datetime) -> None:
        site, key = self.site(name), identity.new_key()
        create_site(site)
        site.key_file("site.key").write_bytes(key)
        site.key_file("site.crt").write_bytes(self._certificate(name, identity.public_key(key), now))
        site.key_file("authority.crt").write_bytes(self.home.pem("authority.crt"))

    def _certificate(self, name: str, key: identity.PublicKey, now: datetime) -> bytes:
        def issue() -> tuple[bytes, str, datetime]:
            who = identity.Identity(FEDERATION, "site", name)
            pem = identity.issue(self.home.authority(), key, who, now, identity.SITE_LIFETIME)
            made = identity.identify(pem)
            return pem, made.serial, made.not_after

        registry, invitation = Registry(self.home.registry), f"invitation-{name}"
        registry.invite(name, invitation, now + invitations.LIFETIME, now)
        return registry.redeem(invitation, identity.key_fingerprint(key), issue, now)

    def coordinate(self, processes: Processes) -> int:
        """Start the real coordinator; return its port, which the sites' configurations now name."""
        arguments = ("--home", self.home.folder, "start", "--mode", "csfssl")
        process = processes.start("coordinator", "coordinator.cli", *arguments)

        def port() -> int:
            found = self.home.read_running()
            return found.port if found and found.pid == process.pid else 0

        found = processes.until("coordinator", port)
        # That everybody is who they say is not what is measured.
        policy = {"policy": {"pins": "known", "first_model": digest_file(self.base)}} if self.secure else {}
        for name in self.sites:
            self.site(name).config_file.write_text(toml({"link": {"coordinator": f"localhost:{found}"}, **policy}))
        return found

    def averaged_at(self) -> list[float]:
        """Return when each round was averaged, in seconds since 1970: from one to the next is one whole round."""
        with contextlib.closing(Journal(self.home.journal)) as journal:
            [record] = journal.runs()
            return [event.at for event in journal.events(record.run) if isinstance(event, AggregateStored)]

    def outcome(self) -> str:
        """Return how the run ended."""
        [file] = self.home.results.glob("*/record.json")
        return str(json.loads(file.read_text())["outcome"])


@contextlib.contextmanager
def federation(
    below: Path | None, sites: int, payload: Payload, rounds: int, *, secure: bool = False
) -> Iterator[Federation]:
    """Yield a federation in a temporary folder, on the disk of `below`; nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="fedcervix-", dir=below, ignore_cleanup_errors=True) as folder:
        names = tuple(f"site{number}" for number in range(sites))
        made = Federation(Path(folder), names, payload, rounds, secure)
        made.create()
        yield made


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at, for programs that cannot be given one by the system themselves."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def listening(port: int) -> bool:
    """Return whether somebody listens at a port of this machine."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def intervals_s(times: Sequence[float]) -> list[float]:
    """Return the seconds from each time to the next."""
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """Return TOML text; its scalars and arrays of scalars are written as in JSON."""
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)
