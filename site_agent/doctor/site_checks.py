"""What `site-agent doctor` looks at, one after the other: each check gives a finding, or an error that says what to do.

What needs torch is found out by a worker process, as before a run (`site_agent.worker.preflight`).
Nothing here loads torch, and what a check needs is loaded when its turn has come.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from fedcervix.core.plan import Plan
from fedcervix.disk.locks import holder, is_held
from fedcervix.doctor import home_checks, machine_checks
from fedcervix.doctor.findings import CheckWarning, DoctorCheck, Finding, Row, explained, found_by, look_through
from fedcervix.doctor.machine import MachineFacts, measure
from fedcervix.errors import IdentityError, PolicyError
from fedcervix.runtime.worker_protocol import WorkProgress
from fedcervix.transport import codec, identity, renewal
from fedcervix.transport.address import Address
from fedcervix.transport.versions import HERE
from site_agent.doctor.gpu_driver import driver, installed_driver
from site_agent.federation import hardware, proxies, shown
from site_agent.federation.connecting import welcome
from site_agent.federation.partners import known_keys, partners
from site_agent.federation.policy import missing_pins, objections, way_out
from site_agent.home import SiteHome
from site_agent.manifest.manifest_file import read_manifest
from site_agent.store.retired_models import objection
from site_agent.store.run_store import RunStore
from site_agent.store.sum_journal import SumJournal
from site_agent.worker.worker import Worker

OPEN_FILES = 128
"""of an agent or its worker: 17 were counted, and lost connections, a proxy or a cache may add some"""
TASKS = 128
"""threads and processes of an agent and its worker: 13 and 5 were counted on two cores; torch makes one for each"""
FREE_BYTES_MIN = 512 * 2**20
"""for models and logs, before anything is known of the plan; `disk` says what a plan needs"""
FILE_BYTES = 2**30
"""of the largest file that an agent writes; a model has 95 MB, the decoded images may have more"""
SHARED_MEMORY_BYTES = 2**30
"""for training processes on several GPUs: what NCCL's documentation gives a container"""
WORKER_BYTES = 2**30
"""of memory: torch alone needs as much"""
NEEDED_TO_TRAIN = {"configuration", "home folder", "manifest", "hardware"}
"""without these, nothing more can be said of training; a line that is down does not hinder it"""


@dataclass(slots=True)
class Heard:
    """What the coordinator has said, once it has."""

    welcome: codec.Welcome | None = None
    after: float = 0.0
    """Unix seconds by this machine's clock when it was heard"""

    @property
    def said(self) -> codec.Welcome:
        """The welcome: asked for only where the check before has heard it."""
        assert self.welcome is not None
        return self.welcome


@dataclass(frozen=True, slots=True)
class SiteDoctor:
    """The checks of one home at one moment."""

    home: SiteHome
    now: datetime
    facts: MachineFacts
    heard: Heard = field(default_factory=Heard)

    def examine(self, show: shown.Show) -> Iterator[Row]:
        """Yield what was found. The plan of the coordinator's run decides what training costs; else images alone."""
        faults: set[str] = set()
        yield from look_through((*self._of_home(), *self._of_line(), *self._of_machine()), faults)
        if not faults & NEEDED_TO_TRAIN:
            yield from _training(self.home, self.heard.welcome.plan if self.heard.welcome else None, self.facts, show)

    def _of_home(self) -> tuple[DoctorCheck, ...]:
        home = self.home
        return (
            DoctorCheck("configuration", lambda: _configuration(home)),
            DoctorCheck("home folder", lambda: _writable(home)),
            DoctorCheck("permissions", lambda: home_checks.permissions(self._folder())),
            DoctorCheck("file system", lambda: home_checks.place(self._folder())),
            DoctorCheck("free space", lambda: home_checks.room(self._folder(), FREE_BYTES_MIN, what="an agent")),
            DoctorCheck("manifest", lambda: _manifest(home)),
            DoctorCheck("keys", lambda: _keys(home)),
            DoctorCheck("certificate", lambda: _certificate(home, self.now), {"keys"}),
            DoctorCheck("authority", lambda: _authority(home, self.now), {"keys"}),
        )

    def _folder(self) -> home_checks.FolderFacts:
        return home_checks.measure_folder(self.home.folder)

    def _of_line(self) -> tuple[DoctorCheck, ...]:
        home, heard, line = self.home, self.heard, {"coordinator"}
        return (
            DoctorCheck("time service", lambda: machine_checks.time_service(self.facts)),
            DoctorCheck("proxy", lambda: proxy(home.config().link.coordinator, dict(os.environ)), {"configuration"}),
            DoctorCheck("connection", lambda: _line(home), {"keys", "certificate"}),
            DoctorCheck("coordinator", lambda: _coordinator(home, heard), {"connection"}),
            DoctorCheck("clock", lambda: clock(heard.said.at, heard.after), line),
            DoctorCheck("versions", lambda: versions(heard.said), line),
            DoctorCheck("partners", lambda: _partners(home, heard.said), line),
            DoctorCheck("secure sums", lambda: _secure_sums(home, heard.said), line),
        )

    def _of_machine(self) -> tuple[DoctorCheck, ...]:
        home, facts, config = self.home, self.facts, {"configuration"}
        return (
            DoctorCheck("limits", lambda: machine_checks.whose(facts, "agent")),
            DoctorCheck("open files", lambda: machine_checks.open_files(facts, OPEN_FILES, raises=False)),
            DoctorCheck("file size", lambda: machine_checks.file_size(facts, FILE_BYTES)),
            DoctorCheck("tasks", lambda: machine_checks.tasks(facts, TASKS)),
            DoctorCheck("text encoding", lambda: machine_checks.text_encoding(facts)),
            DoctorCheck("time zone", lambda: machine_checks.time_zone(facts)),
            DoctorCheck("processors", lambda: _processors(home, facts), config),
            DoctorCheck("shared memory", lambda: machine_checks.shared_memory(facts, _shared_bytes(home)), config),
            DoctorCheck("hardware", lambda: _hardware(home), config),
            DoctorCheck("driver", lambda: _driver(home), {"configuration", "hardware"}),
        )


def doctor_of(home: SiteHome, now: datetime) -> SiteDoctor:
    """Return the doctor of a home, with the facts of the agent that runs on it, or else of this process."""
    pid = holder(home.lock) if home.lock.exists() else None
    return SiteDoctor(home, now, measure(pid, "agent", os.environ))


def _configuration(home: SiteHome) -> str:
    home.config()
    return str(home.config_file)


def _writable(home: SiteHome) -> str:
    home_checks.check_home(home.folder)
    return f"{home.folder} can be written, and has locks"


def _keys(home: SiteHome) -> str | CheckWarning:
    """Find the key, the certificate and the authority, and say who else may read the key."""
    for name in ("authority.crt", *(file.name for file in home.own_files())):
        home.pem(name)
    if found_open := home_checks.open_secrets(home.key_file("")):
        return found_open
    return f"{home.key_file('')}, readable by their owner alone"


def _hardware(home: SiteHome) -> str | CheckWarning:
    wanted = home.config().hardware
    found = hardware.look(wanted)
    if wanted.device == "cuda" and hardware.no_gpu():
        return CheckWarning(found, next_step='run nvidia-smi; or set device = "auto" in site.toml')
    return found


def _manifest(home: SiteHome) -> str:
    data = home.config().data
    read_manifest(home.manifest(), data.ignore_columns, data.covariates, data.label_classes)
    return str(home.manifest())


def _certificate(home: SiteHome, now: datetime) -> str | CheckWarning:
    certificate = home.certificate()
    identity.check_validity(certificate, now)
    if words := renewal.warning("this site", certificate.not_before, certificate.not_after, now):
        return CheckWarning(
            words,
            cause="no agent was running, or it had no connection, since half of the certificate's time",
            next_step=f"a running agent renews it: {home.command()}",
        )
    return f"{certificate.identity.uri}, valid until {_until(certificate.not_after, now)}"


def _authority(home: SiteHome, now: datetime) -> Finding:
    authority = identity.identify(home.pem("authority.crt"))
    identity.check_validity(authority, now)
    if words := renewal.authority_warning(authority, now):
        return CheckWarning(words, "it cannot be renewed", "ask the coordinator's operator for their plan")
    return f"valid until {_until(authority.not_after, now)}"


def _until(end: datetime, now: datetime) -> str:
    return f"{end:%Y-%m-%d} ({(end - now).days} days)"


def proxy(address: str, environment: dict[str, str]) -> Finding:
    """Say through which proxy the coordinator is reached, and what was meant to be one and is not."""
    if words := proxies.remark(environment):
        return CheckWarning(
            words,
            cause="gRPC knows grpc_proxy, https_proxy and http_proxy, in lower case, as http://HOST:PORT",
            next_step="export https_proxy=http://HOST:PORT, or no_proxy=HOST for a connection without one",
        )
    host = Address.parse(address).host if address else ""
    through = proxies.proxy_for(host, environment)
    if through is not None:
        return f"the coordinator is reached through {through}"
    meant = [name for name in proxies.NAMES if environment.get(name)]
    return f"{meant[0]} is set, and no_proxy names the coordinator: none is used" if meant else "none is set"


def clock(coordinators: float, ours: float) -> Finding:
    """Compare the coordinator's clock with ours, both in Unix seconds; 0: it did not say."""
    if not coordinators:
        return "the coordinator's version does not say what its clock shows"
    if words := renewal.skew("the coordinator", coordinators - ours):
        return IdentityError(
            words.partition(":")[0],
            cause="a clock is wrong; certificates and deadlines are checked by the clock",
            next_step="compare both with a third one, and set the wrong one (`timedatectl set-ntp true`)",
        )
    return f"{abs(coordinators - ours):.0f} s from the coordinator's"


def versions(heard: codec.Welcome) -> str:
    """Say what the two ends speak: what does not fit was refused before."""
    return (
        f"fedcervix {HERE.software} here, with numerics {HERE.numerics}; protocol {heard.wire_version} is spoken, and "
        f"plans up to format {HERE.plan_format} are read"
    )


def _processors(home: SiteHome, facts: MachineFacts) -> Finding:
    wanted = home.config().hardware
    threads = (wanted.threads or facts.cores) * wanted.processes
    return machine_checks.processors(facts, threads, "[hardware] threads in site.toml")


def _shared_bytes(home: SiteHome) -> int:
    wanted = home.config().hardware
    return SHARED_MEMORY_BYTES if wanted.processes > 1 and wanted.device != "cpu" and not hardware.no_gpu() else 0


def _driver(home: SiteHome) -> Finding:
    wanted = home.config().hardware.device != "cpu" and not hardware.no_gpu()
    return driver(installed_driver(), hardware.torch_says("cuda") if wanted else None, wanted=wanted)


def _line(home: SiteHome) -> str:
    from site_agent.federation import tls

    address = home.config().link.coordinator
    home.certificate()
    return f"{address} answers, {tls.look(address, home.pem('authority.crt'), home.own_files())}"


def _coordinator(home: SiteHome, told: Heard) -> str:
    """Compare the plan with the policy."""
    heard = welcome(home)
    told.welcome, told.after = heard, time.time()
    asked = home.config().policy, heard.plan, home.certificate().identity.name, home.pins()
    if against := objections(*asked) + objection(home, heard.plan):
        cause, next_step = way_out(home, missing_pins(*asked), against)
        raise PolicyError(
            f"the plan of run {heard.run} is not allowed: {'; '.join(against)}",
            cause=cause,
            next_step=next_step,
        )
    return f"accepts this site; run {heard.run}, {heard.plan.mode}; the policy allows its plan"


def _partners(home: SiteHome, heard: codec.Welcome) -> str | CheckWarning:
    """Compare the keys of the run's sites with the pins, and with those of this run before."""
    pins, own = home.pins(), home.certificate().identity.name
    keys = known_keys(pins, RunStore(home.run_folder(heard.run)).keys(), heard.keys, own=own)
    found = partners(pins, heard.plan, own, keys)
    if found.awaited:
        name = found.awaited[0]
        return CheckWarning(
            f"the coordinator does not tell the key of {', '.join(found.awaited)}, pinned here: the agent will wait",
            cause="that site has not joined yet, or the coordinator's version is an earlier one",
            next_step=f"to go on without the check: {home.command(f'unpin {name}')}",
        )
    known = f"pinned: {', '.join(found.pinned)}; the keys are those that were compared" if found.pinned else "none"
    if not found.unpinned:
        return known
    hidden = "; then these sums do not hide the updates of this site" if heard.plan.hides_from_coordinator else ""
    return CheckWarning(
        f"not pinned: {', '.join(found.unpinned)}" + (f"; {known}" if found.pinned else ""),
        cause=f"nobody here has compared the keys: the coordinator could have invented these sites{hidden}",
        next_step=f"compare the keys by telephone: {home.command('pins')}; then pin each of them (docs/running.md)",
    )


def _secure_sums(home: SiteHome, heard: codec.Welcome) -> str | CheckWarning:
    """Say what the plan hides from the coordinator, and whether this home may take part."""
    terms = heard.plan.terms
    if not terms.secure_sum:
        return "the plan has none: the coordinator sees the update of each site"
    holders = f"the coordinator sees sums of updates only, as long as one of {', '.join(terms.holders)} is honest"
    if is_held(home.lock):
        return CheckWarning(f"{holders}; an agent is running, so this home's memory was not read")
    memory = SumJournal(home).memory
    if heard.run in memory.barred:
        raise PolicyError(
            f"this home was restored or copied during run {heard.run}, and takes no part in it any more",
            cause="a backup was restored, or the folder was copied: it may have forgotten what it has released",
            next_step="tell the coordinator's operator: the run goes on without this site, or ends",
        )
    if memory.restored:
        return CheckWarning(f"{holders}. {RESTORED.format(vouch=home.command('vouch DIGEST'))}")
    return holders


RESTORED = (
    "This home was restored or copied before: in a run that begins with a given model, ask the other sites first; only "
    "where no sum was made of it: {vouch}"
)


def _training(home: SiteHome, plan: Plan | None, facts: MachineFacts, show: shown.Show) -> Iterator[Row]:
    """Look at the images, and try a step of the plan, in a worker process that ends with this."""
    worker = Worker(home, "site")

    def on_progress(at: WorkProgress) -> None:
        show(shown.Advanced("doctor", at))

    if is_held(home.lock):
        yield "training", CheckWarning("no step was timed: an agent is running on this home and needs the memory")
        plan = None
    needed_bytes = WORKER_BYTES
    try:
        found = worker.examine(plan, on_progress, threading.Event(), waits=False)
        for subject, finding in found.lines():
            yield ("images", CheckWarning(finding)) if subject == "note" else (subject, finding)
        needed_bytes = found.cost.pace.memory_bytes if found.cost else needed_bytes
    except Exception as error:  # noqa: BLE001  (as every check: see fedcervix.doctor.findings)
        yield "training", explained(error)
    finally:
        worker.cancel()
    yield "memory limit", found_by(lambda: machine_checks.memory(facts, needed_bytes, what="training"))
