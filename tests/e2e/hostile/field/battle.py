"""One attack on one federation: without and with it, in turns; then the culprit is revoked.

    quiet   attack   quiet   attack, in which the operator looks and revokes   [burden]   stop, start again

A quiet phase is half as long as one of attack. What honest calls take is read off the probe's lines by when each was to
begin. The attacker shares this machine's processors, which one elsewhere would not: it gives way to every other
process, and what it takes is said. Where honest calls took too long, a program takes as much in a phase of burden, and
attacks nobody.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.disks import small_disk
from tests.e2e.hostile.field.attacks import ATTACKS, Attack
from tests.e2e.hostile.field.ground import ASKED, HONEST, MALLORY, Ground, opened
from tests.e2e.hostile.field.probe import ANSWERED
from tests.e2e.hostile.field.readings import Reading, bytes_below, connections, cpu_s, quantile, reading, rounds_done
from tests.e2e.loopback import Process, until

ATTACKER = "127.0.0.66"
"""an address of this machine that nobody else uses: what comes from there is the attacker's"""
RATIO_MAX = 2.0
"""of what honest calls take at the 95th percentile, with to without"""
NOISE_MS = 4.0
"""a difference below this is the machine's"""
LEFT_AFTER_S = 5.0
AFTER_S = 20.0
COMMAND_S = 30.0
LOOK_S = 0.25
NICENESS = 10
BEGUN_S = 90.0
KINDS = ("quiet", "attack", "burden")
"""of phases"""
KEYS = {"certificate": MALLORY, "revoked": MALLORY, "invitation": f"{MALLORY}-invitation"}
"""whose keys an attack is given"""


@dataclass(frozen=True, slots=True)
class Calls:
    """What became of the honest calls of one kind of phase."""

    seconds: tuple[float, ...]
    failures: Counter[str]

    def ms(self, share: float) -> float:
        """Return a quantile of all calls, those that failed among them."""
        return 1000 * quantile(list(self.seconds), share)


@dataclass(frozen=True, slots=True)
class Command:
    """How an operator's command ended."""

    code: int
    seconds: float
    words: str = ""


@dataclass
class Finding:
    """What came of one attack."""

    name: str
    attack: Attack
    quiet: Calls = field(default_factory=lambda: Calls((), Counter()))
    attacked: Calls = field(default_factory=lambda: Calls((), Counter()))
    burdened: Calls = field(default_factory=lambda: Calls((), Counter()))
    attacker_busy: float = 0.0
    """the attacker's use of one processor"""
    commands: dict[str, Command] = field(default_factory=dict)
    """`status` without and under attack, `revoke`, `stop`, `start`"""
    left: int | None = None
    """of the connections that the attacker had at the revocation; None: they were nobody's"""
    left_bytes: int = 0
    """of models that only the attacker has sent, at the same moment"""
    busy: dict[str, float] = field(default_factory=dict)
    """the coordinator's use of one processor, by kind of phase: 1.0 is all of it"""
    connections_most: int = 0
    rounds: list[int] = field(default_factory=list)
    """begun in each phase of attack"""
    goes_on_after: bool = True
    """a round was begun soon after the revocation"""
    before: Reading | None = None
    most: Reading | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """the attacker's own"""
    seconds: float = 0.0
    """of attack, in all"""
    skipped: str = ""
    trouble: str = ""

    @property
    def slows(self) -> bool:
        """Whether honest calls took too long under attack."""
        without_ms, with_ms = self.quiet.ms(0.95), self.attacked.ms(0.95)
        return with_ms > max(RATIO_MAX * without_ms, without_ms + NOISE_MS)


class Watch:
    """Looks at the coordinator again and again, and keeps the most of everything."""

    def __init__(self, ground: Ground, coordinator: Process) -> None:
        self._ground, self._coordinator = ground, coordinator
        self.first = self.most = self._look()
        self.connections_most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _look(self) -> Reading:
        return reading(self._coordinator.pid, self._ground.home, self._coordinator.out)

    def attackers(self) -> set[int]:
        """Return the far ports of the attacker's connections."""
        return connections(self._coordinator.pid, self._ground.port, ATTACKER)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            now = self._look()
            self.most = self.most.most(now)
            self.connections_most = max(self.connections_most, len(self.attackers()))

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def fight(template: Ground, folder: Path, name: str, *, seconds: float, seed: int, brief: bool = False) -> Finding:
    """Attack a fresh copy of a federation; return what came of it. `brief`: one turn, no burden, no stop at the end."""
    attack = ATTACKS[name]
    finding = Finding(name, attack)
    with ExitStack() as stack:
        if attack.disk_bytes:
            stack.enter_context(small_disk(folder / "coordinator", attack.disk_bytes))
        options = {"limit_descriptors": attack.descriptors, "numbers": attack.numbers}
        ground = stack.enter_context(opened(template.copied(folder, **options)))
        _Battle(ground, finding, seconds, seed, brief).fight()
    return finding


@dataclass
class _Battle:
    ground: Ground
    finding: Finding
    phase_s: float
    seed: int
    brief: bool
    pid: int = 0
    """of the coordinator"""
    phases: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def fight(self) -> None:
        """Do all of it; what is in the way of that is kept as trouble, with what was found until then."""
        coordinator = self.ground.coordinate()
        self.pid = coordinator.pid
        self._begin()
        probe = self._probe()
        watch = Watch(self.ground, coordinator)
        try:
            self._turns(watch)
            self._read(probe)
            if self.finding.slows and not self.brief:
                self._burden()
        except AssertionError as trouble:
            self.finding.trouble = str(trouble)
        finally:
            watch.end()
            probe.end()
            self.finding.before, self.finding.most = watch.first, watch.most
            self.finding.connections_most = watch.connections_most
        self._read(probe)
        if not self.brief:
            self._restart(coordinator)

    def _begin(self) -> None:
        """Let the run get under way; who takes part has made its first model."""
        if self.finding.attack.needs == "revoked":
            self._command("revoke", "revoke before", MALLORY)
        first = [self._attacker("honest", BEGUN_S)] if self.finding.attack.takes_part else []
        for process in first:
            process.says("attached")
        for site in HONEST:
            self.ground.agent(site)
        until("the first rounds are done", lambda: self._rounds() >= 2, timeout_s=BEGUN_S, seen=self._texts)
        for process in first:
            process.end()

    def _texts(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.text[-2000:]}" for process in self.ground.processes)

    def _probe(self) -> Process:
        authority = self.ground.site(ASKED) / "keys" / "authority.crt"
        given: list[str | Path] = [
            "--port",
            str(self.ground.port),
            "--keys",
            self.ground.keys(ASKED),
            "--authority",
            authority,
        ]
        probe = self.ground.program("probe", *given)
        probe.says("seconds")
        return probe

    def _attacker(self, name: str, seconds: float) -> Process:
        attack = ATTACKS[name]
        keys: list[str | Path] = ["--keys", self.ground.keys(KEYS[attack.needs])] if attack.needs in KEYS else []
        given = ["--port", str(self.ground.port), "--seconds", f"{seconds:.1f}", "--source", ATTACKER]
        numbers = ["--seed", str(self.seed), "--numbers", str(self.ground.numbers)]
        return self.ground.program("attacker", name, *given, *keys, *numbers, niceness=NICENESS)

    def _turns(self, watch: Watch) -> None:
        if not self.brief:
            self._quiet()
            self._attack(watch, last=False)
        self._quiet()
        self._attack(watch, last=True)

    def _burden(self) -> None:
        """Take as much processor time as the attacker took."""
        given = ["--seconds", f"{self.phase_s:.1f}", "--share", f"{self.finding.attacker_busy:.3f}"]
        burden = self.ground.program("burden", *given, niceness=NICENESS)
        with self._phase("burden"):
            time.sleep(self.phase_s)
        burden.end()

    def _quiet(self) -> None:
        with self._phase("quiet"):
            ends_s = time.monotonic() + self.phase_s / 2
            self._command("status", "status without")
            time.sleep(max(0.0, ends_s - time.monotonic()))

    def _attack(self, watch: Watch, *, last: bool) -> None:
        """Attack for a phase; in the last one the operator acts, and the attacker goes on for a while."""
        beyond_s = 2 * COMMAND_S + AFTER_S if last else 0.0
        attacker = self._attacker(self.finding.name, self.phase_s + beyond_s)
        before = self._rounds()
        with self._phase("attack"):
            ends_s = time.monotonic() + self.phase_s
            time.sleep(self.phase_s / 2)
            self._command("status", "status")
            time.sleep(max(0.0, ends_s - time.monotonic()))
            self.finding.attacker_busy = max(self.finding.attacker_busy, cpu_s(attacker.pid) / self.phase_s)
        self.finding.rounds.append(self._rounds() - before)
        if last:
            self._revoke(watch)
        attacker.end()
        self._count(attacker)

    def _revoke(self, watch: Watch) -> None:
        """Revoke the culprit, who goes on trying; count what stays."""
        if self.finding.attack.needs == "nothing":
            return
        if self.finding.attack.needs == "certificate":
            self._command("revoke", "revoke", MALLORY)
        there, rounds, begun_s = watch.attackers(), self._rounds(), time.monotonic()
        while self._is_left(there, watch) and time.monotonic() < begun_s + LEFT_AFTER_S:
            time.sleep(LOOK_S)
        while self._rounds() == rounds and time.monotonic() < begun_s + AFTER_S:
            time.sleep(LOOK_S)
        self.finding.goes_on_after = self._rounds() > rounds

    def _is_left(self, there: set[int], watch: Watch) -> bool:
        """Count what is left of the attacker; say whether something is."""
        self.finding.left = None if self.finding.attack.anonymous else len(there & watch.attackers())
        self.finding.left_bytes = bytes_below(self.ground.home / "blobs" / "incoming" / MALLORY)
        return bool(self.finding.left or self.finding.left_bytes)

    def _command(self, command: str, name: str, *arguments: str) -> None:
        code, words, seconds = self.ground.command(command, *arguments, limit_s=COMMAND_S)
        slowest = self.finding.commands.get(name)
        if slowest is None or slowest.seconds < seconds or code != 0:
            self.finding.commands[name] = Command(code, seconds, words)

    def _rounds(self) -> int:
        return rounds_done(self.ground.diaries)

    def _count(self, attacker: Process) -> None:
        """Add what an attacker has counted: its last line."""
        text = attacker.text.strip()
        try:
            self.finding.counts.update(json.loads(text.rpartition("\n")[2]))
        except ValueError:
            self.finding.trouble = f"the attacker failed: {text[-300:]}"

    @contextlib.contextmanager
    def _phase(self, kind: str) -> Iterator[None]:
        begun_s, used_s = time.monotonic(), cpu_s(self.pid)
        try:
            yield
        finally:
            seconds = time.monotonic() - begun_s
            self.phases[kind].append((begun_s, begun_s + seconds))
            self.finding.seconds += seconds if kind == "attack" else 0.0
            self.finding.busy[kind] = max(self.finding.busy.get(kind, 0.0), (cpu_s(self.pid) - used_s) / seconds)

    def _read(self, probe: Process) -> None:
        lines = []
        for line in probe.text.splitlines():
            with contextlib.suppress(ValueError, KeyError):
                lines.append(json.loads(line))
        self.finding.quiet, self.finding.attacked, self.finding.burdened = (self._calls(lines, kind) for kind in KINDS)

    def _calls(self, lines: list[dict[str, object]], kind: str) -> Calls:
        found = [line for line in lines if any(a <= float(str(line["at_s"])) < b for a, b in self.phases[kind])]
        failures = Counter(f"{line['status']} {line['words']}" for line in found if line["status"] not in ANSWERED)
        return Calls(tuple(float(str(line["seconds"])) for line in found), failures)

    def _restart(self, coordinator: Process) -> None:
        """Stop it as an operator does, and start it again."""
        self._command("stop", "stop")
        begun_s = time.monotonic()
        try:
            coordinator.ended(timeout_s=COMMAND_S)
        except AssertionError:
            self.finding.commands["end"] = Command(-9, time.monotonic() - begun_s)
            coordinator.kill()
        begun_s = time.monotonic()
        try:
            self.ground.coordinate()
        except AssertionError as trouble:
            self.finding.commands["start"] = Command(1, time.monotonic() - begun_s, str(trouble))
        else:
            self.finding.commands["start"] = Command(0, time.monotonic() - begun_s)
