"""What is decided of a machine: functions of facts (`fedcervix.doctor.machine`) and of what a program needs.

A fault stops the work sooner or later; a warning costs time, or misleads a reader.
"""

from __future__ import annotations

import shlex

from fedcervix.disk.descriptors import RAISE
from fedcervix.doctor.findings import CheckWarning, Finding
from fedcervix.doctor.machine import MachineFacts
from fedcervix.errors import StorageError, TrainingError

SERVICE_TASKS = "TasksMax in its unit, pids_limit in its container, or `ulimit -u`"
SERVICE_CPU = "CPUQuota in its unit, cpus in its container"
SERVICE_MEMORY = "MemoryMax in its unit, or mem_limit in its container"


def whose(facts: MachineFacts, role: str) -> str:
    """Say whose limits the following checks look at."""
    if facts.process != "this shell":
        return f"those of {facts.process}"
    return f"those of this shell: a service has its own, so look again while the {role} runs"


def open_files(facts: MachineFacts, needed: int, *, raises: bool) -> Finding:
    """Compare the limit of open files and connections; `raises`: the program raises its soft limit by itself."""
    limit = facts.files_hard if raises else facts.files
    if limit is None:
        return f"no limit for {facts.process}"
    if limit >= needed:
        return f"{limit:,} allowed for {facts.process}; {needed:,} needed"
    return StorageError(
        f"{facts.process} may open {limit:,} files and connections; {needed:,} are needed",
        cause="a low limit of the shell, the service or the container",
        next_step=RAISE,
    )


def file_size(facts: MachineFacts, needed_bytes: int) -> Finding:
    """Compare the largest file that may be written."""
    if facts.file_bytes is None:
        return "files may have any size"
    if facts.file_bytes >= needed_bytes:
        return f"files of up to {size(facts.file_bytes)} may be written; {size(needed_bytes)} are needed"
    return StorageError(
        f"{facts.process} may write files of at most {size(facts.file_bytes)}; {size(needed_bytes)} are needed",
        cause="a limit of the shell or the service (ulimit -f, LimitFSIZE)",
        next_step="start it again with LimitFSIZE=infinity in its unit, or after `ulimit -f unlimited`",
    )


def tasks(facts: MachineFacts, needed: int) -> Finding:
    """Compare the number of threads and processes."""
    if facts.processes is not None and facts.processes < needed:
        what = f"the user of {facts.process} may have {facts.processes:,} threads and processes"
    elif facts.groups.tasks_left is not None and facts.groups.tasks_left < needed:
        what = f"{facts.process} may make {facts.groups.tasks_left:,} more threads and processes"
    else:
        return f"enough threads and processes for {facts.process}"
    return StorageError(
        f"{what}; {needed:,} are needed",
        cause="a low limit of the shell, the service or the container, or other programs that use it up",
        next_step=f"raise it: {SERVICE_TASKS}",
    )


def processors(facts: MachineFacts, threads: int, setting: str) -> Finding:
    """Compare the threads that training is set to with what may run at once. `setting`: where the number stands."""
    quota = facts.groups.processors
    usable = min(facts.cores, quota) if quota is not None else facts.cores
    if threads <= max(1.0, usable):
        return f"{threads} thread{'' if threads == 1 else 's'} to train with, {usable:g} processors"
    limited = f"a limit of the service or the container ({quota:g} processors)" if quota is not None else ""
    return CheckWarning(
        f"{threads} threads train, but only {usable:g} processors may work at once: each step takes longer",
        cause=limited or f"this process may run on {facts.cores} cores",
        next_step=f"set {setting} to {max(1, int(usable))}, or raise the limit ({SERVICE_CPU})",
    )


def shared_memory(facts: MachineFacts, needed_bytes: int) -> Finding:
    """Compare /dev/shm with what several training processes on GPUs of one machine share; 0: they share nothing."""
    if not needed_bytes:
        return "not needed: one training process, or none on a GPU"
    there = facts.shared_memory_bytes
    if there is not None and there >= needed_bytes:
        return f"{size(there)} free in /dev/shm"
    grow = "shm_size in its container (docker run --shm-size), or as root: mount -o remount,size=2G /dev/shm"
    if there is None:
        return TrainingError(
            "this machine has no shared memory that can be written: training processes on GPUs exchange values there",
            cause="a container or a chroot without the folder for it (see `df -h /dev/shm`)",
            next_step=f"give it some: {grow}",
        )
    return CheckWarning(
        f"{size(there)} are free in /dev/shm; training processes on GPUs may need {size(needed_bytes)}",
        cause="containers get 64 MiB where nothing else is said",
        next_step=f"enlarge it: {grow}",
    )


def memory(facts: MachineFacts, needed_bytes: int, *, what: str) -> Finding:
    """Compare the limit of the group of processes with what the program needs."""
    limit = facts.groups.memory_bytes
    if limit is None:
        return f"{facts.process} is not limited"
    if limit >= needed_bytes:
        return f"{size(limit)} allowed for {facts.process}; {what} needs {size(needed_bytes)}"
    return TrainingError(
        f"{facts.process} may use {size(limit)} of memory; {what} needs {size(needed_bytes)}",
        cause="a limit of the service or the container: the system ends a program that takes more",
        next_step=f"raise it: {SERVICE_MEMORY}",
    )


def text_encoding(facts: MachineFacts) -> Finding:
    """Say what the locale does to names of files and columns: the programs read files as UTF-8 in any locale."""
    if facts.encoding in ("utf-8", "utf8"):
        return "UTF-8"
    return CheckWarning(
        f"the locale's characters are {facts.encoding}: what this terminal cannot show is replaced when it is printed",
        cause="LANG or LC_ALL names a locale without UTF-8; files are read as UTF-8 nevertheless",
        next_step="export LANG=C.UTF-8",
    )


def time_zone(facts: MachineFacts) -> Finding:
    """Say which time the lines of a program have: those for people have this machine's, journals and records UTC."""
    if not facts.zone_known:
        return CheckWarning(
            f"TZ names a time zone that is not installed here ({facts.zone}): times are shown in UTC without a word",
            cause="a misspelt name, or a container without time zones (the package tzdata)",
            next_step="install tzdata, or: unset TZ",
        )
    hours, minutes = divmod(abs(facts.utc_offset_s) // 60, 60)
    sign = "-" if facts.utc_offset_s < 0 else "+"
    return f"lines for people show UTC{sign}{hours:02}:{minutes:02}; logs in JSON, journals and records show UTC"


def time_service(facts: MachineFacts) -> Finding:
    """Say whether a time service keeps this machine's clock."""
    if facts.clock_synchronised is None:
        return "the kernel does not say whether a time service keeps the clock"
    if facts.clock_synchronised:
        return "a time service keeps the clock"
    return CheckWarning(
        "no time service keeps this machine's clock, says the kernel",
        cause="NTP is off; or the host of a virtual machine keeps it, which the kernel cannot know",
        next_step="timedatectl set-ntp true",
    )


def size(count_bytes: int) -> str:
    """Return a number of bytes for a person."""
    return f"{count_bytes / 2**30:.1f} GiB" if count_bytes >= 2**29 else f"{count_bytes / 2**20:.0f} MiB"


def named(path: object) -> str:
    """Return a path as it is typed."""
    return shlex.quote(str(path))
