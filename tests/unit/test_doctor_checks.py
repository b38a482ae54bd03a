"""`doctor`: each check fires on the fault it is for, and is quiet without it. Facts are given; little is measured."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.doctor import coordinator_checks
from coordinator.home.registry import SiteEntry
from coordinator.run.status_document import SiteStatus, StatusDocument
from fedcervix.doctor import home_checks, machine_checks
from fedcervix.doctor.findings import CheckWarning, DoctorCheck, Finding, exit_code, look_through, result, summary
from fedcervix.doctor.home_checks import FolderFacts, check_home, file_system, measure_folder
from fedcervix.doctor.machine import MachineFacts, measure, process_limits
from fedcervix.errors import (
    ConfigError,
    FedcervixError,
    FullDiskError,
    IdentityError,
    RunError,
    StorageError,
    TrainingError,
)
from fedcervix.runtime.cgroups import GroupLimits
from site_agent.doctor import site_checks
from site_agent.doctor.gpu_driver import driver, installed_driver

NOW = datetime(2030, 1, 2, tzinfo=UTC)
MIB = 2**20


def facts(**more: Any) -> MachineFacts:
    return MachineFacts(**{"process": "this shell", "cores": 4, "shared_memory_bytes": 8 * 2**30, **more})


def folder(**more: Any) -> FolderFacts:
    usual = {"folder": Path("/srv/home"), "mode": 0o700, "owner": 7, "me": 7, "file_system": "ext4"}
    return FolderFacts(**{**usual, "free_bytes": 2**40, "free_files": 10**6, **more})


def groups(**limits: Any) -> dict[str, Any]:
    return {"groups": GroupLimits(**limits)}


Case = tuple[Callable[..., Finding], Any, Any, type[FedcervixError] | type[CheckWarning], str]
CASES: dict[str, Case] = {
    "open files": (
        lambda given: machine_checks.open_files(given, 256, raises=False),
        facts(files=64, files_hard=64),
        facts(files=1024),
        StorageError,
        "ulimit -n 65536",
    ),
    "open files of a program that raises its limit": (
        lambda given: machine_checks.open_files(given, 256, raises=True),
        facts(files=1024, files_hard=64),
        facts(files=64, files_hard=1024),
        StorageError,
        "LimitNOFILE",
    ),
    "open files at the coordinator": (
        lambda given: coordinator_checks.open_files(given, 64),
        facts(files=64, files_hard=559),
        facts(files=64, files_hard=560),
        RunError,
        "LimitNOFILE",
    ),
    "file size": (
        lambda given: machine_checks.file_size(given, 2**30),
        facts(file_bytes=100 * MIB),
        facts(),
        StorageError,
        "ulimit -f unlimited",
    ),
    "processes": (
        lambda given: machine_checks.tasks(given, 128),
        facts(processes=20),
        facts(processes=4096),
        StorageError,
        "ulimit -u",
    ),
    "tasks of a group": (
        lambda given: machine_checks.tasks(given, 128),
        facts(**groups(tasks_left=127)),
        facts(**groups(tasks_left=128)),
        StorageError,
        "TasksMax",
    ),
    "processors": (
        lambda given: machine_checks.processors(given, 4, "[hardware] threads"),
        facts(**groups(processors=1.5)),
        facts(),
        CheckWarning,
        "[hardware] threads to 1",
    ),
    "cores": (
        lambda given: machine_checks.processors(given, 4, "[hardware] threads"),
        facts(cores=2),
        facts(cores=4),
        CheckWarning,
        "to 2",
    ),
    "shared memory is missing": (
        lambda given: machine_checks.shared_memory(given, 2**30),
        facts(shared_memory_bytes=None),
        facts(),
        TrainingError,
        "shm_size",
    ),
    "shared memory is small": (
        lambda given: machine_checks.shared_memory(given, 2**30),
        facts(shared_memory_bytes=64 * MIB),
        facts(),
        CheckWarning,
        "--shm-size",
    ),
    "memory": (
        lambda given: machine_checks.memory(given, 2**30, what="training"),
        facts(**groups(memory_bytes=2**29)),
        facts(**groups(memory_bytes=2**31)),
        TrainingError,
        "MemoryMax",
    ),
    "text encoding": (
        machine_checks.text_encoding,
        facts(encoding="iso8859-1"),
        facts(),
        CheckWarning,
        "LANG=C.UTF-8",
    ),
    "time zone": (
        machine_checks.time_zone,
        facts(zone="Europe/Nowhere", zone_known=False),
        facts(zone="Asia/Kolkata", utc_offset_s=19_800),
        CheckWarning,
        "tzdata",
    ),
    "time service": (
        machine_checks.time_service,
        facts(clock_synchronised=False),
        facts(clock_synchronised=True),
        CheckWarning,
        "timedatectl",
    ),
    "somebody else's home": (
        home_checks.permissions,
        folder(owner=4294967),
        folder(),
        CheckWarning,
        "sudo -H -u 4294967",
    ),
    "a home that others can replace": (
        home_checks.permissions,
        folder(replaceable=(Path("/srv"), "group staff")),
        folder(),
        CheckWarning,
        "chmod go-w /srv",
    ),
    "a home that others can read": (
        home_checks.permissions,
        folder(mode=0o755),
        folder(),
        CheckWarning,
        "chmod 700 /srv/home",
    ),
    "a network share": (home_checks.place, folder(file_system="nfs4"), folder(), CheckWarning, "local disk"),
    "a file system in memory": (home_checks.place, folder(file_system="tmpfs"), folder(), CheckWarning, "df -hT"),
    "a full disk": (
        lambda given: home_checks.room(given, 512 * MIB, what="an agent"),
        folder(free_bytes=511 * MIB),
        folder(free_bytes=512 * MIB),
        FullDiskError,
        "df -h /srv/home",
    ),
    "no more files": (
        lambda given: home_checks.room(given, 512 * MIB, what="an agent"),
        folder(free_files=12),
        folder(free_files=None),
        StorageError,
        "df -i /srv/home",
    ),
    "models of a run that lie there already": (
        lambda given: coordinator_checks.disk(given, 1000 * MIB, 400 * MIB),
        folder(free_bytes=599 * MIB),
        folder(free_bytes=600 * MIB),
        FullDiskError,
        "larger disk",
    ),
    "a clock that was set back": (
        lambda given: coordinator_checks.clock(NOW, given),
        NOW + timedelta(seconds=61),
        NOW + timedelta(seconds=59),
        IdentityError,
        "timedatectl",
    ),
    "a clock behind the coordinator's": (
        lambda given: site_checks.clock(given, NOW.timestamp()),
        NOW.timestamp() + 3600,
        NOW.timestamp() + 2,
        IdentityError,
        "timedatectl",
    ),
    "a proxy in upper case": (
        lambda given: site_checks.proxy("a.example:8443", given),
        {"HTTPS_PROXY": "http://proxy.example:3128"},
        {"https_proxy": "http://proxy.example:3128"},
        CheckWarning,
        "export https_proxy",
    ),
    "a proxy that is no URL": (
        lambda given: site_checks.proxy("a.example:8443", given),
        {"https_proxy": "proxy.example:3128"},
        {"https_proxy": "http://proxy.example:3128", "no_proxy": "a.example"},
        CheckWarning,
        "http://HOST:PORT",
    ),
    "an old driver": (
        lambda given: driver(given, "13.0", wanted=True),
        570,
        580,
        TrainingError,
        "newer NVIDIA driver",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_check_fires_on_its_fault_alone_and_says_what_to_do(name: str) -> None:
    check, bad, good, kind, next_step = CASES[name]
    try:
        found = check(bad)
    except FedcervixError as error:  # raised or returned: both are findings
        found = error
    assert type(found) is kind
    assert next_step in found.next_step
    assert found.cause
    assert isinstance(check(good), str), check(good)


def test_what_is_not_limited_or_not_known_is_no_fault() -> None:
    nothing = facts(shared_memory_bytes=None)
    for check in (
        machine_checks.open_files(nothing, 256, raises=True),
        machine_checks.file_size(nothing, 1),
        machine_checks.tasks(nothing, 1),
        machine_checks.shared_memory(nothing, 0),
        machine_checks.memory(nothing, 1, what="x"),
        machine_checks.time_service(nothing),
        coordinator_checks.clock(NOW, None),
        coordinator_checks.open_files(nothing, 2),
        site_checks.clock(0.0, 5.0),
        site_checks.proxy("", {}),
        driver(None, "13.0", wanted=True),
        driver(400, None, wanted=True),
        driver(400, "13.0", wanted=False),
        driver(400, "99.0", wanted=True),
    ):
        assert isinstance(check, str), check


def test_lines_say_whose_limits_and_which_time() -> None:
    assert machine_checks.whose(facts(), "agent").startswith("those of this shell")
    assert machine_checks.whose(facts(process="the running agent (process 7)"), "agent").endswith("agent (process 7)")
    assert "UTC+05:30" in str(machine_checks.time_zone(facts(utc_offset_s=19_800)))
    assert "UTC-03:30" in str(machine_checks.time_zone(facts(utc_offset_s=-12_600)))


# --- sites, as the coordinator sees them --------------------------------------------------------------------------


def entry(site: str, state: str, since_days: float, left_days: float) -> SiteEntry:
    day = timedelta(days=1)
    return SiteEntry(site, state, NOW - since_days * day, NOW + left_days * day)  # type: ignore[arg-type]


def test_certificates_of_sites_are_counted_in_days() -> None:
    known = [entry("a", "joined", 30, 60), entry("b", "invited", 1, 6), entry("d", "revoked", 30, 60)]
    words = coordinator_checks.sites(known, ("a", "b", "c", "d"), NOW)
    assert words == "a joined, 60 days left; b invited, 6 days left; c was not invited yet; d revoked"
    late = coordinator_checks.sites([entry("a", "joined", 80, 10)], ("a",), NOW)
    assert isinstance(late, CheckWarning)
    assert "`site-agent doctor` prints there" in late.next_step
    gone = coordinator_checks.sites([entry("a", "joined", 80, -1)], ("a",), NOW)
    assert isinstance(gone, CheckWarning)
    assert gone.next_step == "coordinator renew a"


def status(**site: Any) -> StatusDocument:
    blank = {"str": "", "bool": False, "int": 0, "float": 0.0}

    def filled(kind: type, given: dict[str, Any]) -> Any:
        fields = {
            one.name: blank.get(str(one.type), None if "None" in str(one.type) else ())
            for one in dataclasses.fields(kind)
        }
        return kind(**{**fields, **given})

    return filled(StatusDocument, {"sites": (filled(SiteStatus, site),)})  # type: ignore[no-any-return]


def test_a_site_that_waits_for_an_upgrade_is_named() -> None:
    fine = coordinator_checks.versions(status(site="a", connected=True, software="0.1.0"))
    assert str(fine).endswith("here; a 0.1.0")
    waits = coordinator_checks.versions(status(site="a", line="waits for an upgrade: protocol 1"))
    assert isinstance(waits, CheckWarning)
    assert "protocol 1" in waits.cause


# --- facts --------------------------------------------------------------------------------------------------------

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max file size             unlimited            unlimited            bytes
Max processes             127                  4096                 processes
Max open files            64                   524288               files
"""


def test_the_limits_of_a_process_are_read_from_the_system(tmp_path: Path) -> None:
    assert process_limits(LIMITS) == ({"processes": 127, "files": 64}, {"processes": 4096, "files": 524_288})
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/limits").write_text(LIMITS)
    found = measure(7, "agent", {"TZ": "Europe/Nowhere"}, tmp_path)
    assert (found.process, found.files, found.files_hard) == ("the running agent (process 7)", 64, 524_288)
    assert found.shared_memory_bytes is None
    assert not found.zone_known
    for zone in ("", "UTC", "Europe/Berlin", ":Europe/Berlin", "CET-1CEST"):
        assert measure(7, "agent", {"TZ": zone}, tmp_path).zone_known, zone


def test_a_low_limit_of_this_process_is_seen() -> None:
    """A real one, in a process of its own."""
    script = (
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from fedcervix.doctor.machine import measure\n"
        "from fedcervix.doctor.machine_checks import open_files\n"
        "print(type(open_files(measure(None, 'agent', os.environ), 256, raises=False)).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "StorageError\n"


MOUNTS = r"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /srv/share\040of\040all rw shared:1 - nfs4 server:/x rw
31 22 0:41 / /srv/share rw - tmpfs tmpfs rw
"""


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount() -> None:
    assert file_system(Path("/srv/share of all/home"), MOUNTS) == "nfs4"
    assert file_system(Path("/srv/share/home"), MOUNTS) == "tmpfs"
    assert file_system(Path("/srv/shares"), MOUNTS) == "ext4"
    assert file_system(Path("/srv"), "") == ""


def test_a_folder_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    found = measure_folder(tmp_path)
    assert (found.mode, found.owner, found.me) == (0o750, os.geteuid(), os.geteuid())
    assert found.free_bytes > 0
    check_home(tmp_path)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(StorageError):
        check_home(tmp_path / "absent")


def test_the_driver_says_its_version(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert installed_driver(file) is None
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5 2024\nGCC version: 12.2.0\n")
    assert installed_driver(file) == 550
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n")
    assert installed_driver(file) == 580
    file.write_text("nonsense\n")
    assert installed_driver(file) is None


# --- the table ----------------------------------------------------------------------------------------------------


def test_checks_go_on_behind_a_fault_and_skip_what_depends_on_it() -> None:
    def broken() -> Finding:
        raise KeyError("x")

    def wrong() -> Finding:
        raise ConfigError("wrong", cause="typed", next_step="site-agent doctor")

    faults: set[str] = set()
    table = (
        DoctorCheck("a", broken),
        DoctorCheck("b", wrong),
        DoctorCheck("c", lambda: "c", {"b"}),
        DoctorCheck("d", lambda: "d", {"c"}),
    )
    rows = [*look_through((*table, DoctorCheck("e", lambda: "all is well")), faults)]
    results = [result(name, found) for name, found in rows]
    assert [one.state for one in results] == ["fault", "fault", "skipped", "skipped", "ok"]
    assert faults == {"a", "b", "c", "d"}
    assert results[2].what == "the b must be right first"
    assert [one.exit_code for one in results] == [1, 3, 0, 0, 0]
    assert exit_code(results) == 1
    assert exit_code(results[2:]) == 0, "warnings alone are no reason to stop"
    assert summary(results) == "2 faults and 0 warnings in 5 checks"
    assert results[1].explain() == "FAULT   b: wrong\n  likely cause: typed\n  next: site-agent doctor"


def test_a_fault_prints_no_control_character() -> None:
    shown = result("a", StorageError("cannot read \x1b[2J", cause="\x07", next_step="rm \x1b")).explain()
    assert "\x1b" not in shown
    assert "\x07" not in shown
