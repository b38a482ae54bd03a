"""A federated encoder: a coordinator and its sites as real processes on this machine, over mutual TLS.

This does the same as the operators: `coordinator init`, `start` and `invite`, `site-agent join`, then the agent. The
study only writes the configuration files, waits, and takes the result.

Rules
1. Everything that is started ends with the cell, and with the study however that ends (`parent_death`).
2. An interrupted federation continues from its own journal and checkpoints: the same folder, another port.
3. A site's connection passes a relay that counts its bytes; the relay sees only TLS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cervix_study.data.site_homes import toml
from cervix_study.execution.resource_usage import UsageMeter, descendants
from cervix_study.execution.traffic_counter import Relay
from cervix_study.records import Cell, CurvePoint, EncoderResults
from coordinator.home.home import Home
from coordinator.run import results
from coordinator.run.results import MODEL_FILE, RECORD_FILE
from fedcervix.core.modes import MODES, Mode
from fedcervix.core.rounds.state import Outcome
from fedcervix.disk.files import copy_file, write_whole
from fedcervix.disk.storage import disk
from fedcervix.errors import EXIT_CODES, DataError, FedcervixError, StorageError, TrainingError
from fedcervix.runtime.parent_death import leashed
from fedcervix.runtime.record import ContributionLine, LedgerLine, RecordedRun, ScoreLine
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from site_agent.home import SiteHome
from site_agent.starts import mode_of
from site_agent.store.run_store import RunStore

LOOK_S = 0.2
"""how often the processes are looked at"""
LISTENS_WITHIN_S = 120.0
ENDS_WITHIN_S = 20.0
LAST_LINES = 12
DONE = (0, 20)
"""exit codes of a run with a result: OK, DEGRADED"""
NOT_OF_ONE_CELL: tuple[type[FedcervixError], ...] = (StorageError, DataError)
"""what stops the study, other than a recipe that cannot be trained"""


@dataclass(slots=True)
class StartedProgram:
    """One process, and the file with what it prints."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def end(self) -> None:
        """Leave nothing behind."""
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(ENDS_WITHIN_S)
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def broke(self) -> FedcervixError:
        """Return what to tell of a process that ended in another way than it should have."""
        code = int(self.popen.returncode)
        meaning = EXIT_CODES.get(code, "killed by a signal")
        kind = next((kind for kind in NOT_OF_ONE_CELL if kind.exit_code == code), TrainingError)
        return kind(
            f"{self.name} ended with exit code {code} ({meaning}):\n{_tail(self.log)}",
            cause="its last lines are above",
            next_step=f"read {self.log}; run the study again to continue",
        )


@dataclass(slots=True)
class Federation:
    """The processes of one federated cell, below one folder."""

    folder: Path
    cell: Cell
    homes: Mapping[str, SiteHome]
    """site -> the study's home folder of it: its configuration, splits and cache"""
    programs: list[StartedProgram] = field(default_factory=list)
    relays: dict[str, Relay] = field(default_factory=dict)

    @property
    def coordinator(self) -> Home:
        """The coordinator's home folder."""
        return Home(self.folder / "coordinator")

    def site(self, name: str) -> SiteHome:
        """Return the home folder of a site in this federation."""
        return SiteHome(self.folder / f"site-{name}")

    @property
    def mode(self) -> Mode:
        """How it federates."""
        mode = mode_of(self.cell.start)
        assert mode is not None, f"{self.cell.start} is no federation"
        return mode

    # --- the operators' commands ---

    def found(self) -> None:
        """`coordinator init`, and the plan of the cell in its configuration."""
        home = self.coordinator
        if not home.config_file.exists():
            roster = ",".join(self.cell.sites)
            addresses = ("--advertise", "localhost:0", "--bind", "127.0.0.1:0")
            self._call("coordinator.cli", "init", str(home.folder), "--sites", roster, *addresses)
        assert self.cell.terms is not None
        tables: dict[str, dict[str, object]] = {
            "federation": {"name": "cervix"},
            "listen": {"bind": "127.0.0.1:0", "advertise": "localhost:0"},
            "run": {"sites": list(self.cell.sites), "profile": self.cell.profile},
            "run.terms": _given(self.cell.terms),
            "run.recipe": _scalars(self.cell.recipe),
            "run.recipe.augment": dataclasses.asdict(self.cell.recipe.augment),
            "run.recipe.classifier": dataclasses.asdict(self.cell.recipe.classifier),
        }
        write_whole(home.config_file, toml(tables).encode())

    def listen(self) -> int:
        """`coordinator start`; return its port. Raises TrainingError."""
        home = self.coordinator
        program = self._start(
            "coordinator", "coordinator.cli", "--home", str(home.folder), "start", "--mode", self.mode
        )
        for _ in range(int(LISTENS_WITHIN_S / LOOK_S)):
            running = home.read_running()
            if running and running.pid == program.popen.pid:
                return running.port
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.popen.wait(LOOK_S)
                raise program.broke()
        raise TrainingError(
            f"the coordinator did not listen within {LISTENS_WITHIN_S:.0f} s",
            cause="this machine is overloaded",
            next_step=f"read {program.log}; run the study again, with fewer workers",
        )

    def enrol(self, name: str, port: int) -> None:
        """`coordinator invite` and `site-agent join`, once; the address anew at every start."""
        study_home, home = self.homes[name], self.site(name)
        with disk(home.folder, "write"):
            home.folder.mkdir(parents=True, exist_ok=True)
            if not home.cache.is_symlink():
                home.cache.symlink_to(study_home.cache.resolve())
            if study_home.splits.exists():
                shutil.copyfile(study_home.splits, home.splits)
        link = toml({"link": {"coordinator": f"localhost:{port}"}})
        write_whole(home.config_file, f"{link}\n{study_home.config_file.read_text()}".encode())
        if not home.key_file("site.crt").exists():
            invitation = self.folder / f"{name}.invitation.toml"
            self._call(
                "coordinator.cli", "--home", str(self.coordinator.folder), "invite", name, "--out", str(invitation)
            )
            self._call("site_agent.cli", "--home", str(home.folder), "join", str(invitation))
            invitation.unlink()

    def attach(self, name: str) -> None:
        """Start the agent."""
        self._start(name, "site_agent.cli", "--home", str(self.site(name).folder))

    def wait(self, meter: UsageMeter, on_progress: OnProgress) -> None:
        """Wait until all have ended. Raises FedcervixError where one ends without a result."""
        waiting = list(self.programs)
        while waiting:
            with contextlib.suppress(subprocess.TimeoutExpired):
                waiting[0].popen.wait(LOOK_S)
            for program in waiting:
                if program.popen.poll() not in (None, *DONE):
                    raise program.broke()
            waiting = [program for program in waiting if program.popen.poll() is None]
            meter.look_at(pid for program in waiting for pid in descendants(program.popen.pid))
            meter.count_wire({name: relay.passed_bytes for name, relay in self.relays.items()})
            on_progress(self._progress())

    def _progress(self) -> WorkProgress:
        rounds = self._rounds_scored()
        assert self.cell.terms is not None
        of = self.cell.terms.rounds_max(self.cell.recipe)
        return WorkProgress(f"round {rounds + 1}", rounds, of, "rounds")

    def _rounds_scored(self) -> int:
        """Return how many rounds the first site has scored so far."""
        runs = sorted((self.site(self.cell.sites[0]).folder / "runs").glob("*"))
        return len(RunStore(runs[-1]).history().score) if runs else 0

    # --- processes ---

    def _call(self, module: str, *arguments: str) -> None:
        """Run one of our commands to its end. Raises TrainingError where it fails."""
        command = leashed([sys.executable, "-m", module, *arguments])
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TrainingError(
                f"`{module.partition('.')[0]} {' '.join(arguments)}` failed:\n{done.stderr.strip()}",
                cause="its messages are above",
                next_step="correct the problem, then run the study again to continue",
            )

    def _start(self, name: str, module: str, *arguments: str) -> StartedProgram:
        log = self.folder / "logs" / f"{name}.log"
        with disk(log, "write"):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as sink:
                popen = subprocess.Popen(
                    leashed([sys.executable, "-m", module, *arguments]),
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                )
        program = StartedProgram(name, popen, log)
        self.programs.append(program)
        return program

    def close(self) -> None:
        """End every process and cut every line."""
        for program in reversed(self.programs):
            program.end()
        for relay in self.relays.values():
            relay.close()


@contextlib.contextmanager
def opened(folder: Path, cell: Cell, homes: Mapping[str, SiteHome]) -> Iterator[Federation]:
    """Yield a federation that is founded and listening, its sites at work; leave nothing of it running."""
    federation = Federation(folder, cell, homes)
    try:
        federation.found()
        port = federation.listen()
        for name in cell.sites:
            federation.relays[name] = Relay(port)
            federation.enrol(name, federation.relays[name].port)
        for name in cell.sites:
            federation.attach(name)
        yield federation
    finally:
        federation.close()


@dataclass(frozen=True, slots=True)
class Federated:
    """What a federation gave."""

    results: EncoderResults
    details: dict[str, object]
    """of its record"""


def train(
    folder: Path, cell: Cell, homes: Mapping[str, SiteHome], weights: Path, meter: UsageMeter, on_progress: OnProgress
) -> Federated:
    """Federate the encoder of a cell in `folder` and write its weights. Raises TrainingError, StorageError."""
    if _outcome(folder) is Outcome.ABORTED:
        shutil.rmtree(folder)  # nothing in it would go on
    with disk(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    if not _record_file(folder):
        with opened(folder, cell, homes) as federation:
            federation.wait(meter, on_progress)
    else:
        federation = Federation(folder, cell, homes)  # it had ended, and was killed before the cell was written
    return _taken(federation, weights)


def _record_file(folder: Path) -> Path | None:
    return next(iter(Home(folder / "coordinator").results.glob(f"*/{RECORD_FILE}")), None)


def _outcome(folder: Path) -> Outcome | None:
    file = _record_file(folder)
    return results.read(file.parent.parent, file.parent.name).outcome if file else None


def _taken(federation: Federation, weights: Path) -> Federated:
    """Return the results of an ended run, and copy its model."""
    file = _record_file(federation.folder)
    record = results.read(file.parent.parent, file.parent.name) if file else None
    if file is None or record is None or not record.best_round:
        raise TrainingError(
            f"the federation ended without a model: {record.reason if record else 'no record was written'}",
            cause="see the logs of its processes",
            next_step=f"read {federation.folder / 'logs'}; run the study again to continue",
        )
    digest = copy_file(file.with_name(MODEL_FILE), weights)
    details = {key: getattr(record, key) for key in ("run", "plan_digest", "reason", "best_round", "adopted")}
    return Federated(_results(federation, record, digest), details)


def _results(federation: Federation, record: RecordedRun, digest: str) -> EncoderResults:
    ledger, best = record.ledger, record.best_round
    curve = tuple(_turn(line) for line in ledger if line.loss is not None)
    steps = [_updates(line, federation.mode) for line in ledger]
    return EncoderResults(
        validation_loss=next(turn.valid_loss for turn in curve if turn.number == best),
        best=best,
        updates=sum(steps),
        updates_best=sum(steps[:best]),
        images={given.site: given.images for given in ledger[best - 1].contributions},
        precision={name: _precision(federation.site(name), record.run) for name in federation.cell.sites},
        outcome=record.outcome or "",
        curve=curve,
        model=digest,
    )


def _updates(line: LedgerLine, mode: Mode) -> int:
    steps = [given.steps for given in line.contributions]
    return sum(steps) if MODES[mode].in_turns else max(steps, default=0)


def _turn(line: LedgerLine) -> CurvePoint:
    scores = {score.site: score for score in line.scores}
    given = {one.site: one for one in line.contributions}
    by_site = {site: _told(given.get(site), scores.get(site)) for site in sorted(given.keys() | scores.keys())}
    shares = [(one.weight, one.loss) for one in line.contributions]
    total = sum(weight for weight, _ in shares)
    return CurvePoint(
        number=line.round,
        train_loss=sum(weight * loss for weight, loss in shares) / total if total else None,
        valid_loss=line.loss,
        seconds=(line.ended_at or line.begun_at) - line.begun_at,
        by_site=by_site,
    )


def _told(given: ContributionLine | None, score: ScoreLine | None) -> dict[str, float]:
    """Return what a site reported of a round; what it did not report is not there."""
    found = {key: float(getattr(given, key)) for key in ("images", "steps", "seconds")} if given else {}
    found |= {"train_loss": given.loss} if given else {}
    return found | ({"valid_loss": score.loss} if score else {})


def _precision(home: SiteHome, run: str) -> str:
    rounds = RunStore(home.run_folder(run)).history().train.values()
    return next((result.precision for result in rounds), "unknown")


def _given(terms: Any) -> dict[str, object]:
    return {key: value for key, value in dataclasses.asdict(terms).items() if value is not None}


def _scalars(recipe: Any) -> dict[str, object]:
    return {key: value for key, value in dataclasses.asdict(recipe).items() if not isinstance(value, dict)}


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return os.linesep.join(f"    {line}" for line in lines)
