"""A federation of real processes on loopback, over mutual TLS: what every test in this folder stands on.

Rules
1. Processes are started by argument list and ended by their own process number; what they print goes to files.
2. A test waits for something to be true, never for time to pass: `until` polls with a deadline and says what it saw.
3. Sites are enrolled through the registry directly, because a test of training need not test enrolment again; the
   command-line way in has tests of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from coordinator.calls.local_sockets import reachable
from coordinator.home.founding import Founding
from coordinator.home.founding import create as create_home
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from fedcervix.core.plan import Plan
from fedcervix.disk.files import digest_file
from fedcervix.transport import identity, invitations, rpc
from fedcervix.transport.codec import InstanceClaim
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.link import GrpcLink
from site_agent.home import SiteHome
from site_agent.home import create as create_site
from tests.e2e.line import Connection, Line, Way

T = TypeVar("T")

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
PYTHONPATH = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
FEDERATION = "cervix"
POLL_S = 0.05
WAIT_S = 90.0
END_S = 10.0

TINY_RECIPE = {"architecture": "resnet18", "image_px": 32, "batch_images": 4, "epochs_max": 4}
TINY_TERMS = {"rounds": 2, "epochs_per_round": 2, "lease_s": 30.0}
"""two rounds of two epochs of six or so steps: seconds, not minutes"""


def until(what: str, condition: Callable[[], T], *, timeout_s: float = WAIT_S, seen: Callable[[], object] = str) -> T:
    """Return the first true value of `condition`; AssertionError with what was seen last when time is up."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}\n{seen()}"
        time.sleep(POLL_S)
    return value


@dataclass
class Process:
    """One process, what it prints, and how it ended."""

    name: str
    popen: subprocess.Popen[bytes]
    out: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def text(self) -> str:
        """Standard output and error so far."""
        return self.out.read_text()

    def running(self) -> bool:
        return self.popen.poll() is None

    def says(self, words: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait until it has printed something; fail at once if it ends without."""
        until(
            f"{self.name} says {words!r}",
            lambda: words in self.text or not self.running(),
            timeout_s=timeout_s,
            seen=lambda: self.text,
        )
        assert words in self.text, f"{self.name} ended with {self.popen.returncode}:\n{self.text}"

    def ended(self, *, timeout_s: float = WAIT_S) -> int:
        """Wait for its end; return its exit code."""
        until(f"{self.name} ends", lambda: not self.running(), timeout_s=timeout_s, seen=lambda: self.text)
        return int(self.popen.returncode)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """`kill -9`, and wait."""
        self.popen.kill()
        self.popen.wait(END_S)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.running():
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(END_S)
        if self.running():
            self.kill()


def start(name: str, arguments: list[str | Path], out: Path, stdin: int = subprocess.DEVNULL) -> Process:
    """Start a program, which finds these tests too; its output goes to a new file in folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"{name}-{len(list(out.glob(f'{name}-*')))}.log"
    with log.open("wb") as sink:
        popen = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=stdin,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=out,
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
        )
    return Process(name, popen, log)


def call(*arguments: str | Path, cwd: Path) -> tuple[int, str]:
    """Run one of our two commands to its end; return (exit code, output)."""
    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    return done.returncode, done.stdout.decode()


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """Return TOML text; its scalars and arrays of scalars are written as in JSON."""
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def processes_of(folder: Path) -> dict[int, str]:
    """Return every process that names a folder on its command line: its agents, coordinators and workers."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if str(folder) in words and state != "Z" and int(entry.parent.name) != os.getpid():
                found[int(entry.parent.name)] = words
    return found


@dataclass
class Federation:
    """One coordinator's home, its sites' homes, and the processes on them."""

    folder: Path
    sites: tuple[str, ...] = ("nhs", "alts")
    terms: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    """further keys of table [run]"""
    hardware: dict[str, Any] = field(default_factory=dict)
    """further keys of the sites' table [hardware]"""
    certificates: dict[str, Any] = field(default_factory=dict)
    """keys of table [certificates]"""
    notify: dict[str, dict[str, Any]] = field(default_factory=dict)
    """tables [notify...] by name"""
    processes: list[Process] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        now = datetime.now(UTC)
        options = {"name": FEDERATION, "bind": "127.0.0.1:0", "advertise": "localhost:0"}
        create_home(self.home, Founding(**options, sites=self.sites, profile="demo"), now)
        self.configure()

    # --- the coordinator ---

    @property
    def home(self) -> Home:
        return Home(self.folder / "coordinator")

    def configure(self) -> None:
        """Write coordinator.toml anew."""
        text = toml(
            {
                "federation": {"name": FEDERATION},
                "listen": {"bind": "127.0.0.1:0", "advertise": "localhost:0"},
                "certificates": self.certificates,
                **self.notify,
                "run": {"sites": list(self.sites), "profile": "demo", **self.run},
                "run.terms": {**TINY_TERMS, **self.terms},
                "run.recipe": {**TINY_RECIPE, **self.recipe},
            }
        )
        self.home.config_file.write_text(text)

    def plan(self, mode: str) -> Plan:
        return self.home.plan(mode)  # type: ignore[arg-type]

    def coordinate(self, *options: str, listening: bool = True, program: list[str | Path] | None = None) -> Process:
        """Start the coordinator; a later one takes the first one's port."""
        bind = ["--bind", f"127.0.0.1:{self.port}"] if self.port else []
        program = program or [BIN / "coordinator"]
        process = self._start("coordinator", [*program, "--home", self.home.folder, "start", *bind, *options])
        if listening:
            self.port = self.listening(process)
        return process

    def listening(self, process: Process) -> int:
        """Wait until a coordinator listens; return its port."""

        def port() -> int:
            assert process.running(), f"the coordinator ended with {process.popen.returncode}:\n{process.text}"
            running = self.home.read_running()
            return running.port if running and running.pid == process.pid else 0

        return until("the coordinator listens", port, seen=lambda: process.text)

    def operator(self) -> dict[str, bytes]:
        """Return the keys of the operator; they are made anew at every start of the coordinator."""
        files = {"authority_pem": "authority.crt", "certificate_pem": "operator.crt", "key_pem": "operator.key"}
        return {part: self.home.pem(name) for part, name in files.items()}

    def overview(self) -> dict[str, Any]:
        """Return what `coordinator status --json` prints."""
        with (
            reachable(self.home.operator_socket) as name,
            rpc.channel(f"unix:{name}", **self.operator(), here=True) as channel,
        ):
            reply = rpc.stub(channel, rpc.OVERVIEW)(wire.OverviewRequest(), timeout=20, wait_for_ready=True)
        document: dict[str, Any] = json.loads(reply.json)
        return document

    def until(self, what: str, condition: Callable[[dict[str, Any]], T], *, timeout_s: float = WAIT_S) -> T:
        """Wait until the overview shows something."""
        return until(what, lambda: condition(self.overview()), timeout_s=timeout_s, seen=self.texts)

    def events(self, kind: str = "") -> int:
        """Return how many events (of a kind) the journal holds; read beside the coordinator, whether it runs or not."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.home.journal}?mode=ro", uri=True)) as journal:
                like = f'%"event":"{kind}%'
                [(count,)] = journal.execute("SELECT COUNT(*) FROM events WHERE event LIKE ?", (like,))
        except sqlite3.OperationalError:  # it is not there yet, or is being recovered
            return 0
        return int(count)

    def last(self, kind: str) -> dict[str, Any]:
        """Return the newest event of a kind in the journal."""
        with contextlib.closing(sqlite3.connect(f"file:{self.home.journal}?mode=ro", uri=True)) as journal:
            like = f'%"event":"{kind}%'
            [(text,)] = journal.execute(
                "SELECT event FROM events WHERE event LIKE ? ORDER BY seq DESC LIMIT 1", (like,)
            )
        event: dict[str, Any] = json.loads(text)
        return event

    def watch(self) -> Process:
        """Start `coordinator status --watch`: one document a line."""
        return self._start("watch", [BIN / "coordinator", "--home", self.home.folder, "status", "--watch", "--json"])

    def stored(self) -> bool:
        """Say whether the run has ended and its record is written."""
        return bool(list(self.home.results.glob("*/record.json")))

    def record(self) -> dict[str, Any]:
        """Return the record of the one finished run."""
        [file] = self.home.results.glob("*/record.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def result(self) -> str:
        """Return the digest of the one finished run's model; under seal, where only sites have it, by the record."""
        if self.record()["plan"]["terms"].get("sealed"):
            return str(self.record()["model"])
        [file] = self.home.results.glob("*/cervix-model.safetensors")
        return digest_file(file)

    # --- the sites ---

    def site(self, name: str) -> SiteHome:
        return SiteHome(self.folder / f"site-{name}")

    def enrol(self, name: str, manifest: Path | None = None, *, key: bytes = b"", **policy: Any) -> SiteHome:
        """Make a site's home with key and certificate, as `invite` and `join` do. The coordinator is listening."""
        home, now = self.site(name), datetime.now(UTC)
        create_site(home)
        key = key or identity.new_key()
        self.home.key_file("").mkdir(exist_ok=True)
        home.key_file("site.key").write_bytes(key)
        home.key_file("site.crt").write_bytes(self.certify(name, key, now))
        home.key_file("authority.crt").write_bytes(self.home.pem("authority.crt"))
        self.settle(name, manifest, **policy)
        return home

    def settle(self, name: str, manifest: Path | None = None, *, port: int = 0, **policy: Any) -> None:
        """Write site.toml; `port` is that of a proxy. Without a manifest, one is named whose image is not there."""
        if manifest is None:
            manifest = self.site(name).folder / "none.csv"
            manifest.write_text("image,patient,label\nnone.png,nobody,\n")
        text = toml(
            {
                "link": {"coordinator": f"localhost:{port or self.port}"},
                "data": {"manifest": str(manifest), "unreadable_max": 0.2},
                "hardware": {"device": "cpu", "threads": 1, **self.hardware},
                "policy": policy,
            }
        )
        self.site(name).config_file.write_text(text)

    def know(self, *names: str) -> None:
        """Let sites pin each other's keys, as people do who compare fingerprints by telephone."""
        keys = {name: identity.public_key(self.site(name).pem("site.key")) for name in names or self.sites}
        found = {name: Fingerprint.of(key) for name, key in keys.items()}
        for name in names or self.sites:
            pins = {other: print_.hex for other, print_ in found.items() if other != name}
            with self.site(name).config_file.open("a") as file:
                file.write(toml({"pins": pins}))

    def certify(self, name: str, key: bytes, now: datetime) -> bytes:
        """Enrol a key through the registry."""
        public = identity.public_key(key)
        who = identity.Identity(FEDERATION, "site", name)

        def issue() -> tuple[bytes, str, datetime]:
            pem = identity.issue(self.home.authority(), public, who, now, self.home.config().certificates.site)
            made = identity.identify(pem)
            return pem, made.serial, made.not_after

        registry, serial = Registry(self.home.registry), f"invitation-{name}-{time.time_ns()}"
        registry.invite(name, serial, now + invitations.LIFETIME, now)
        return registry.redeem(serial, identity.key_fingerprint(public), issue, now)

    def agent(self, name: str, *options: str) -> Process:
        """Start the real agent."""
        return self._start(name, [BIN / "site-agent", "--home", self.site(name).folder, *options])

    def light(self, name: str, *options: str, home: SiteHome | None = None) -> Process:
        """Start the real agent with arithmetic in place of training (see light_site.py)."""
        folder = (home or self.site(name)).folder
        return self._start(name, [sys.executable, "-m", "tests.e2e.light_site", folder, *options])

    def link(self, name: str, *, port: int = 0, claim: InstanceClaim | None = None) -> GrpcLink:
        """Return a line with a site's certificate."""
        home = self.site(name)
        keys = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}
        pems = {part: home.pem(file) for part, file in keys.items()}
        return GrpcLink(f"localhost:{port or self.port}", claim=claim, **pems)

    def adopted(self, name: str) -> list[str]:
        """Return the digests of the cervix models that a site holds."""
        return [digest_file(file) for file in self.site(name).models.glob("*/cervix-model.safetensors")]

    # --- all of them ---

    def _start(self, name: str, arguments: list[str | Path]) -> Process:
        process = start(name, arguments, self.folder / "logs")
        self.processes.append(process)
        return process

    def texts(self) -> str:
        """Return what every process printed, for a failure's message."""
        return "\n".join(f"--- {p.name} ({p.popen.poll()})\n{p.text[-3000:]}" for p in self.processes)

    def finish(self, *processes: Process, code: int = 0) -> None:
        """Wait until each process has ended with this exit code."""
        for process in processes:
            found = process.ended()
            assert found == code, f"{process.name} ended with {found}, not {code}\n{self.texts()}"

    def kill_site(self, agent: Process) -> None:
        """`kill -9` an agent and its worker at once, as when their machine loses its power."""
        for pid in processes_of(self.site(agent.name).folder):
            os.kill(pid, signal.SIGKILL)
        agent.kill()

    def deserted(self) -> bool:
        """Say whether no process of this federation is left; a worker needs a moment to see that its agent died."""
        until("no process is left", lambda: not processes_of(self.folder), timeout_s=15, seen=self.leftovers)
        return True

    def leftovers(self) -> dict[int, str]:
        return processes_of(self.folder)

    def end(self) -> None:
        """End every process."""
        for process in reversed(self.processes):
            process.end()
        for pid in processes_of(self.folder):  # workers of agents that were killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End every process, and give back the disk: a test's models are hundreds of megabytes."""
        self.end()
        for model in self.folder.rglob("*.safetensors*"):
            model.unlink(missing_ok=True)


class Proxy(Line):
    """A line that misbehaves by itself, after so much of a connection has passed towards the coordinator.

    `cut` closes it as a firewall does, `flip` turns one bit round. The first `faults` connections that carry so much
    are hit.
    """

    def __init__(self, port: int, *, fault: Literal["cut", "flip"], up_bytes: int, faults: int) -> None:
        self._fault, self._up_bytes = fault, up_bytes
        self._hit: set[Connection] = set()
        self.hits = faults
        """faults still to come"""
        super().__init__(port)

    def meddle(self, connection: Connection, way: Way, data: bytes) -> bytes | None:
        """Hit a connection once, when it has carried enough."""
        full = way == "up" and connection.passed[way] + len(data) > self._up_bytes
        if not full or connection in self._hit or self.hits <= 0:
            return super().meddle(connection, way, data)
        self._hit.add(connection)
        self.hits -= 1
        return None if self._fault == "cut" else bytes([data[0] ^ 1]) + data[1:]


@contextlib.contextmanager
def federation(folder: Path, **options: Any) -> Iterator[Federation]:
    """Yield a federation, and leave nothing of it running."""
    made = Federation(folder, **options)
    try:
        yield made
    finally:
        made.close()


def tiny_copy(collection: Path, to: Path) -> Path:
    """Copy a phantom collection, to be damaged; return its manifest."""
    shutil.copytree(collection, to)
    return to / "manifest.csv"
