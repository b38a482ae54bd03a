"""A federation of real processes to be attacked: the programs of any checkout, started by their own commands.

Nothing of the coordinator or the agent is imported here, so that one program measures an older and a newer release.
A ground is enrolled once and copied for each attack.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.loopback import BIN, END_S, PYTHONPATH, Process, start, toml, until

HONEST = ("nhs", "alts")
"""do the rounds; their real agents run"""
ASKED = "ulster"
"""an honest site whose calls are measured; no agent of it runs, so nobody waits for it"""
MALLORY = "mallory"
ROSTER = (MALLORY, *HONEST, ASKED)
"""in this order: whoever is there first of them makes the first model"""
TERMS: dict[str, Any] = {
    "rounds": 2000,
    "patience_rounds": 2000,
    "epochs_per_round": 1,
    "quorum": len(HONEST),
    "grace_s": 0.0,
    "lease_s": 10.0,
}
RECIPE = {"architecture": "resnet18", "image_px": 32, "batch_images": 4, "epochs_max": 2000}
POLICY = {"rounds_max": 2000}
LIMIT_S = 120.0
"""of one command that makes the ground ready"""


@dataclass(frozen=True, slots=True)
class Programs:
    """The commands of one checkout's environment; its tests are importable there, too."""

    folder: Path = BIN

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Return a command that sees its own checkout alone."""
        return ["env", "-u", "PYTHONPATH", str(self.folder / name), *map(str, arguments)]

    def call(self, name: str, *arguments: str | Path, cwd: Path, limit_s: float = LIMIT_S) -> tuple[int, str, float]:
        """Run a command to its end; return its exit code, what it printed and its seconds; -9 where time was up."""
        begun_s = time.monotonic()
        try:
            done = subprocess.run(
                self.command(name, *arguments),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired as late:
            return -9, (late.stdout or b"").decode(), time.monotonic() - begun_s
        return done.returncode, done.stdout.decode(), time.monotonic() - begun_s

    def must(self, name: str, *arguments: str | Path, cwd: Path) -> str:
        """Run a command that has to work."""
        code, text, _ = self.call(name, *arguments, cwd=cwd)
        if code != 0:
            raise RuntimeError(f"{name} {' '.join(map(str, arguments))} ended with {code}:\n{text}")
        return text


@dataclass
class Ground:
    """One federation's folder and the processes on it."""

    folder: Path
    programs: Programs
    limit_descriptors: str = ""
    """SOFT:HARD of the coordinator; as the surroundings have them where empty"""
    numbers: int = 100_000
    """of the model"""
    home: Path = field(init=False)
    port: int = 0
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.folder / "coordinator"

    # --- made once ---

    def enrol(self) -> None:
        """Found a federation and let everyone join, by the commands; a run is begun, nobody takes part yet."""
        self.folder.mkdir(parents=True)
        self.programs.must("coordinator", "init", self.home, "--sites", ",".join(ROSTER), cwd=self.folder)
        self._configure()
        coordinator = self.coordinate("--mode", "csfssl")
        with ThreadPoolExecutor(len(ROSTER)) as threads:
            list(threads.map(self._join, ROSTER))
        coordinator.end()

    def _configure(self) -> None:
        tables: dict[str, dict[str, Any]] = {
            "federation": {"name": "cervix"},
            "listen": {"bind": "127.0.0.1:0", "advertise": "localhost:0"},
            "run": {"sites": list(ROSTER), "profile": "demo"},
            "run.terms": TERMS,
            "run.recipe": RECIPE,
        }
        (self.home / "coordinator.toml").write_text(toml(tables))

    def _join(self, site: str) -> None:
        invitation, manifest = self.folder / f"{site}.toml", self._manifest()
        self.programs.must("coordinator", "--home", self.home, "invite", site, "--out", invitation, cwd=self.folder)
        raw = tomllib.loads(invitation.read_text())
        self._keep_keys(f"{site}-invitation", raw["certificate"], raw["key"])
        home = self.site(site)
        self.programs.must("site-agent", "--home", home, "join", invitation, "--manifest", manifest, cwd=self.folder)
        keys = home / "keys"
        self._keep_keys(site, (keys / "site.crt").read_text(), (keys / "site.key").read_text())

    def _manifest(self) -> Path:
        """Return a manifest whose image is not there: nobody looks at it."""
        manifest = self.folder / "none.csv"
        manifest.write_text("image,patient,label\nnone.png,nobody,\n")
        return manifest

    def _keep_keys(self, party: str, certificate: str, key: str) -> None:
        keys = self.keys(party)
        keys.mkdir(parents=True)
        (keys / "party.crt").write_text(certificate)
        (keys / "party.key").write_text(key)

    def copied(self, to: Path, **options: Any) -> Ground:
        """Return a fresh ground of the same parties."""
        for part in ("coordinator", "keys", *(f"site-{site}" for site in ROSTER)):
            if (self.folder / part).exists():
                shutil.copytree(self.folder / part, to / part, dirs_exist_ok=True)
        return Ground(to, self.programs, **options)

    # --- processes ---

    def coordinate(self, *options: str) -> Process:
        """Start the coordinator and wait until it listens."""
        command = self.programs.command("coordinator", "--home", self.home, "start", *options)
        if self.limit_descriptors:
            command = ["prlimit", f"--nofile={self.limit_descriptors}", *command]
        process = self._start("coordinator", command)
        self.port = until("the coordinator listens", lambda: self._port_of(process), seen=lambda: process.text)
        return process

    def _port_of(self, process: Process) -> int:
        assert process.running(), f"the coordinator ended with {process.popen.returncode}:\n{process.text}"
        with contextlib.suppress(OSError, ValueError):
            running = json.loads((self.home / "running.json").read_text())
            if running["pid"] == process.pid:
                return int(running["port"])
        return 0

    def agent(self, site: str) -> Process:
        """Start a site's real agent, with arithmetic in place of training, and a diary."""
        home = self.site(site)
        tables: dict[str, dict[str, Any]] = {
            "link": {"coordinator": f"localhost:{self.port}"},
            "data": {"manifest": str(self._manifest())},
            "hardware": {"device": "cpu", "threads": 1},
            "policy": POLICY,
        }
        (home / "site.toml").write_text(toml(tables))
        options = ["--pace-s", "0.1", "--numbers", str(self.numbers), "--diary", str(self.diary(site))]
        program = self.programs.command("python", "-m", "tests.e2e.light_site", home, *options)
        return self._start(site, program)

    def program(self, name: str, *arguments: str | Path, niceness: int = 0) -> Process:
        """Start a program of this folder, which gives way to others as `niceness` says."""
        python = ["nice", "-n", str(niceness), str(BIN / "python"), "-m", f"tests.e2e.hostile.field.{name}"]
        return self._start(name, ["env", f"PYTHONPATH={PYTHONPATH}", *python, *map(str, arguments)])

    def command(self, *arguments: str, limit_s: float = LIMIT_S) -> tuple[int, str, float]:
        """Run `coordinator` on this home; return exit code, words and seconds."""
        return self.programs.call("coordinator", "--home", self.home, *arguments, cwd=self.folder, limit_s=limit_s)

    def _start(self, name: str, command: list[Any]) -> Process:
        process = start(name, command, self.folder / "logs")
        self.processes.append(process)
        return process

    # --- where things are ---

    def site(self, name: str) -> Path:
        return self.folder / f"site-{name}"

    def diary(self, site: str) -> Path:
        return self.folder / f"{site}.diary"

    @property
    def diaries(self) -> list[Path]:
        return [self.diary(site) for site in HONEST]

    def keys(self, party: str) -> Path:
        return self.folder / "keys" / party

    def close(self) -> None:
        """End every process that was started here, and give back the disk."""
        for process in reversed(self.processes):
            process.popen.terminate()
        ends_s = time.monotonic() + END_S
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.1, ends_s - time.monotonic()))
            if process.running():
                process.kill()
        for part in ("coordinator", *(f"site-{site}" for site in ROSTER)):
            shutil.rmtree(self.folder / part, ignore_errors=True)


@contextlib.contextmanager
def opened(ground: Ground) -> Iterator[Ground]:
    """Yield a ground, and leave nothing of it running."""
    try:
        yield ground
    finally:
        ground.close()
