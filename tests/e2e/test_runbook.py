"""Chapter 9 of the runbook, typed as it stands there, while a run goes on: the model is the undisturbed run's.

Three folders move below the test's: /var/lib/fedcervix, /opt/fedcervix and /etc/systemd/system, of each machine. Four
programs stand in for what a test machine lacks: `systemctl` starts what the installed unit says, `scp` copies from one
machine's folders to another's, `chown` does nothing, `pip` is the environment's own, without a network. The wheels of
the two versions are real; the second one differs in its version alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.home.home import Home
from fedcervix import __version__
from tests.e2e.conftest import Once
from tests.e2e.loopback import Federation, processes_of, until
from tools import packages

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "deploy" / "RUNBOOK.md").read_text("utf-8").partition("\n## 9.")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^```sh\n# ([a-z ]+), (root|account)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEPS = {
    title: [(where, commands) for where, _, commands in BLOCK.findall(text)]
    for title, _, text in (part.partition("\n") for part in CHAPTER.split("\n### ")[1:])
}
[NEXT_VERSION] = {*re.findall(r"fedcervix-([\d.]+)-py3-none-any", CHAPTER)} - {__version__}
EPOCH_S = 1_780_000_000

SYSTEMCTL = """#!{python}
import os, re, signal, subprocess, sys, time

def state(pid):
    try:
        return open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"

verb, names = sys.argv[1], [word for word in sys.argv[2:] if not word.startswith("-")]
for name in names:
    pid_file = f"{root}/{{name}}.pid"
    if verb in ("stop", "disable") and os.path.exists(pid_file):
        pid = int(open(pid_file).read())
        if state(pid) != "Z":
            os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + 60
        while state(pid) != "Z":
            if time.monotonic() > give_up:
                sys.exit(f"{{name}} does not end")
            time.sleep(0.05)
        os.unlink(pid_file)
    if verb in ("start", "enable"):
        unit = open(f"{root}/etc/systemd/system/{{name}}.service").read()
        command = re.sub("/(opt|var)/", r"{root}/\\1/", re.search("^ExecStart=(.*)$", unit, re.M)[1])
        log = open(f"{root}/{{name}}.log", "ab")
        streams = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started = subprocess.Popen(command.split(), **streams, start_new_session=True)
        open(pid_file, "w").write(str(started.pid))
"""
SCP = """#!/bin/sh
cp "$1" "{machines}/new${{2#*:}}"
"""


@dataclass(frozen=True)
class Machine:
    """A machine's folders."""

    root: Path

    @property
    def environment(self) -> Path:
        return self.root / "opt" / "fedcervix"

    @property
    def state(self) -> Path:
        return self.root / "var" / "lib" / "fedcervix"

    def prepare(self, wheels: Path) -> None:
        """Install this version, as chapters 4 and 5 say, with all packages of this environment."""
        for folder in (self.state, self.root / "root", self.root / "etc" / "systemd" / "system", self.root / "bin"):
            folder.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.environment], check=True)
        [site_packages] = self.environment.glob("lib/python3*/site-packages")
        (site_packages / "packages.pth").write_text(f"{Path(grpc.__file__).parents[1]}\n")
        self.program(self.environment / "bin" / "pip", f'#!/bin/sh\nexec {self.environment}/bin/python -m pip "$@"\n')
        self.program(self.root / "bin" / "systemctl", SYSTEMCTL.format(python=sys.executable, root=self.root))
        self.program(self.root / "bin" / "scp", SCP.format(machines=self.root.parent))
        self.program(self.root / "bin" / "chown", "#!/bin/sh\n")
        for unit in (ROOT / "deploy" / "systemd").glob("*.service"):
            shutil.copy(unit, self.root / "etc" / "systemd" / "system")
        for wheel in wheels.glob("*.whl"):
            shutil.copy(wheel, self.state)
        shutil.copytree(ROOT / "deploy", self.state / "deploy")
        self.type(f"/opt/fedcervix/bin/pip install fedcervix-{__version__}-py3-none-any.whl")

    def program(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def type(self, commands: str) -> str:
        """Run commands as they are typed; return what they said."""
        for place in ("/var/lib/fedcervix", "/opt/fedcervix", "/etc/systemd", "/root/"):
            commands = re.sub(rf"(?<![\w:/]){place}", f"{self.root}{place}", commands)
        path = f"{self.environment}/bin:{self.root}/bin:{os.environ['PATH']}"
        home = {"FEDCERVIX_COORDINATOR_HOME": str(self.state / "coordinator"), "PIP_NO_INDEX": "1", "PATH": path}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.state,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout.decode()}{self.log}"
        return done.stdout.decode()

    @property
    def log(self) -> str:
        return "".join(f"\n{path.name}:\n{path.read_text()[-3000:]}" for path in self.root.glob("*.log"))

    def release(self) -> None:
        """Stop what runs here."""
        for file in self.root.glob("*.pid"):
            self.type(f"systemctl stop {file.stem}")


@pytest.fixture(scope="session")
def wheels(once: Once) -> Path:
    """Return a folder with the wheels of this version and of one that differs from it in its number alone."""

    def fill(folder: Path) -> None:
        for version in (__version__, NEXT_VERSION):
            source = folder / f"source-{version}"
            shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "demo", "docs", "tests", "benchmarks"))
            for file in (source / "pyproject.toml", source / "shared" / "fedcervix" / "__init__.py"):
                file.write_text(file.read_text().replace(f'"{__version__}"', f'"{version}"'))
            packages.build(source, folder / version, EPOCH_S)
            shutil.move(next((folder / version).glob("*.whl")), folder)
            shutil.rmtree(source)

    return once("wheels", fill)


@pytest.fixture
def machines(tmp_path: Path, wheels: Path) -> Iterator[dict[str, Machine]]:
    """Return the four machines of the chapter, each with this version."""
    made = {
        name: Machine(tmp_path / "machines" / name.replace(" ", "-"))
        for name in ("coordinator", "new", "site", "new site")
    }
    try:
        for machine in made.values():
            machine.prepare(wheels)
        yield made
    finally:
        for machine in made.values():
            machine.release()
        assert not processes_of(tmp_path / "machines")


def follow(title: str, machines: dict[str, Machine]) -> str:
    """Type all blocks of a section."""
    return "".join(machines[where].type(commands) for where, commands in STEPS[title])


def presence(machine: Machine, site: str) -> str:
    """Return how a site stands, as the coordinator on a machine says."""
    said = json.loads(machine.type("coordinator status --json"))
    return next(one["presence"] for one in said["sites"] if one["site"] == site)


@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_run_outlives_backup_upgrade_downgrade_move_and_disaster_as_the_runbook_has_them(
    federate: Callable[..., Federation],
    collections: dict[str, Path],
    reference: Callable[..., dict[str, Any]],
    machines: dict[str, Machine],
) -> None:
    assert [*STEPS] == [
        "Backup",
        "Upgrade",
        "Downgrade",
        "Moving the coordinator to another machine",
        "Disaster: the coordinator's machine is lost",
        "Disaster: a site's machine is lost",
        "Secure sums: a home was restored, a holder is lost",  # has nothing to type
        "Certificates",
    ]
    federation = federate(terms={"rounds": 2, "lease_s": 8.0})
    first, site = machines["coordinator"], machines["site"]
    process = federation.coordinate("--mode", "csfssl")
    for name in federation.sites:
        federation.enrol(name, collections[name] / "manifest.csv")
    agents = [federation.agent(name) for name in federation.sites]
    federation.until("round 2 has begun", lambda seen: seen["round"] == 2)
    for agent in agents:
        federation.kill_site(agent)
    process.kill()
    text = federation.home.config_file.read_text().replace(":0", f":{federation.port}")
    federation.home.config_file.write_text(text)
    shutil.move(federation.home.folder, first.state / "coordinator")
    shutil.move(federation.site("nhs").folder, site.state / "site")
    first.type("systemctl start fedcervix-coordinator")
    site.type("systemctl start fedcervix-site")  # the other site is away, so the round does not end

    follow("Backup", machines)
    said = follow("Upgrade", machines)
    assert f"version {NEXT_VERSION}" in said
    assert "csfssl" in said
    assert NEXT_VERSION in site.type("site-agent --version")

    follow("Downgrade", machines)
    moved = site.state / f"site-of-{NEXT_VERSION}"
    assert __version__ in first.type("coordinator --version")
    assert __version__ in site.type("site-agent --version")
    assert (site.state / "site" / "splits.csv").read_bytes() == (moved / "splits.csv").read_bytes()

    follow("Moving the coordinator to another machine", machines)
    new = machines["new"]
    assert "csfssl" in new.type("coordinator status")

    shutil.copy(site.root / "root" / "site-monday.tgz", machines["new site"].root / "root")
    site.type("systemctl stop fedcervix-site")
    until("the old agent's lease is over", lambda: presence(new, "nhs") == "silent", seen=lambda: new.log)
    follow("Disaster: a site's machine is lost", machines)

    alts = federation.agent("alts")
    assert alts.ended(timeout_s=100) == 0, alts.text
    home = Home(new.state / "coordinator")
    until("the run is stored", lambda: [*home.results.glob("*/record.json")], seen=lambda: new.log)
    shutil.copytree(home.folder, federation.home.folder, ignore=shutil.ignore_patterns("*.sock"))
    assert federation.result() == reference(federation.plan("csfssl"))["digest"]
