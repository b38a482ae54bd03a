"""An archive for support: what helps to find a fault, and names nobody.

Rules
1. It is a list of what may be inside. Numbers, versions, times, digests, words from lists in the source (see
   `fedcervix.doctor.plain_values`), and texts in this program's own words (`fedcervix.doctor.own_words`). There is no
   other way in: `BundleFile` takes nothing else, and its name stands in the source.
2. A person may let single words pass, such as the name of a site or the address of the coordinator: `allowed`.
3. MANIFEST.txt lists each file, what it is for, and what it cannot hold. It is printed before anything is written.
4. The archive is a ZIP file, as every desktop opens it, with mode 0600. It is sent to nobody.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import re
import zipfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedcervix import __version__
from fedcervix.core.modes import MODES
from fedcervix.core.numerics import NUMERICS
from fedcervix.core.plan_formats import FORMAT
from fedcervix.disk.files import write_new
from fedcervix.doctor.findings import CheckResult
from fedcervix.doctor.home_checks import FolderFacts
from fedcervix.doctor.machine import MachineFacts
from fedcervix.doctor.own_words import own_event, own_trace, own_words
from fedcervix.doctor.plain_values import Plain, plain
from fedcervix.errors import RunError
from fedcervix.json_text import parsed

MANIFEST = "MANIFEST.txt"
BUNDLE_FORMAT = 1
LOG_LINES_MAX = 500
"""the last ones"""
LINE_CHARS_MAX = 2000
PACKAGES = (
    "click", "cryptography", "grpcio", "numpy", "pillow", "protobuf", "pydantic", "rich", "safetensors", "scikit-learn",
    "scipy", "structlog", "torch", "torchvision", "pydicom",
)  # fmt: skip
"""whose versions are told"""
VERSION = re.compile(r"\d+(?:\.\d+)*(?:\.?(?:a|b|rc|post|dev)\d+)*(?:\+(?:cpu|cu\d+|rocm[\d.]+))?")
NUMBERS = re.compile(r"\d+(?:\.\d+){0,3}")
TIME = re.compile(r"\d\d:\d\d:\d\d")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?")
LEVELS = ("debug", "info", "warning", "error", "critical")
RUN = re.compile(rf"\d{{8}}-\d{{6}}-(?:{'|'.join(MODES)})-[0-9a-f]{{8}}")
"""as a coordinator names its runs: moment, mode, digest of the plan"""
FILE_SYSTEMS = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "nfs", "nfs4", "cifs", "smb3",
    "9p", "fuse.sshfs",
)  # fmt: skip
"""that are called by their name"""
INCIDENT = re.compile(r"INC(?:-[0-9A-F]{4}){2}")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of the archive."""

    name: str
    purpose: str
    """why it is in the archive"""
    content: Plain

    def text(self) -> str:
        """Return what stands in the file."""
        return json.dumps(self.content, indent=1, allow_nan=False, ensure_ascii=True) + "\n"


def checks_file(results: Sequence[CheckResult], allowed: Collection[str]) -> BundleFile:
    """Return what the checks have found. Their names stand in the source; their texts pass in our own words."""
    content: list[Plain] = [
        {
            "check": one.check,
            "state": one.state,
            "exit_code": one.exit_code,
            "what": own_words(one.what, allowed),
            "cause": own_words(one.cause, allowed),
            "next_step": own_words(one.next_step, allowed),
        }
        for one in results
    ]
    return BundleFile("checks.json", "what each check has found; values are left out of the texts", content)


def versions_file(role: str, at: datetime) -> BundleFile:
    """Return which software runs on which kind of machine."""
    uname = platform.uname()
    content: dict[str, Plain] = {
        "bundle_format": BUNDLE_FORMAT,
        "role": role,
        "made_at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "fedcervix": __version__,
        "numerics": NUMERICS,
        "plan_format": FORMAT,
        "python": platform.python_version(),
        "system": uname.system if uname.system in ("Linux", "Darwin") else "another",
        "kernel": _begin(NUMBERS, uname.release),
        "machine": uname.machine if uname.machine in ("x86_64", "aarch64", "arm64") else "another",
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    return BundleFile("versions.json", "versions of this software, of Python, of packages and of the kernel", content)


def limits_file(facts: MachineFacts, folder: FolderFacts | None) -> BundleFile:
    """Return what the process may use, and what its home folder is like."""
    content = plain(facts)
    content["process"] = "running" if facts.process.startswith("the running ") else "shell"
    content["encoding"] = (
        facts.encoding if facts.encoding in ("utf-8", "utf8", "iso8859-1", "ascii", "ansi_x3.4-1968") else "another"
    )
    if folder is not None:
        content["home"] = {
            "mode": f"{folder.mode:04o}",
            "is_mine": folder.owner == folder.me,
            "replaceable_by_others": folder.replaceable is not None,
            "file_system": folder.file_system if folder.file_system in FILE_SYSTEMS else "another",
            "free_bytes": folder.free_bytes,
            "free_files": folder.free_files,
        }
    return BundleFile("limits.json", "limits of the process, and of the disk of the home folder, in numbers", content)


def run_name(name: str) -> str:
    """Return a run's name where it has the form that a coordinator gives it; else it stays out."""
    return _whole(RUN, name) or "(another form)"


def incident_number(text: str) -> str:
    """Return an incident's number where it has the form of one; else it stays out."""
    return _whole(INCIDENT, text)


def version_of(text: str) -> str:
    """Return a version where it has the form of one; else it stays out."""
    return _whole(VERSION, text)


def one_of(words: Collection[str], word: str) -> str:
    """Return a word that is in a list of the source; else it stays out."""
    return word if word in words else "(another)"


def certificate_entry(since: datetime, until: datetime) -> dict[str, Plain]:
    """Return when a certificate begins and ends: nothing else of it."""
    return {"from": f"{since:%Y-%m-%dT%H:%M:%SZ}", "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}


def log_file(text: str, allowed: Collection[str]) -> BundleFile:
    """Return the last lines of a log: of each its time, its level and what it says in our own words."""
    lines = [line[:LINE_CHARS_MAX] for line in text.splitlines() if line.strip()][-LOG_LINES_MAX:]
    content: list[Plain] = [_log_line(line, allowed) for line in lines]
    return BundleFile(
        "log.json", f"the last {LOG_LINES_MAX} lines of the log that was named, without their values", content
    )


def _log_line(line: str, allowed: Collection[str]) -> dict[str, Plain]:
    """Return a line of JSON, of the terminal, or of a trace."""
    try:
        found = parsed(line) if line.startswith("{") else None
    except ValueError:
        found = None
    if isinstance(found, dict):
        said = {key: found[key] for key in ("timestamp", "level", "event", "what") if isinstance(found.get(key), str)}
        return {
            "at": _whole(MOMENT, said.get("timestamp", "")),
            "level": said.get("level", "") if said.get("level") in LEVELS else "",
            "says": own_event(said.get("event", ""), allowed),
            "what": own_words(said.get("what", ""), allowed),
        }
    time, _, words = line.strip().partition("  ")
    at = _whole(TIME, time)
    says = own_words(words if at else line, allowed)
    frames = own_trace(line)
    return {"at": at, "level": "", "says": frames[0] if frames else says, "what": ""}


def incidents_file(folder: Path, allowed: Collection[str]) -> BundleFile:
    """Return the incidents of a folder: their numbers, errors in our own words, and the frames in our own files."""
    content: list[Plain] = []
    for file in sorted(folder.glob("INC-*.txt")):
        if INCIDENT.fullmatch(file.stem):
            text = file.read_text("utf-8", errors="replace")
            said: list[Plain] = [own_words(line, allowed) for line in text.partition("\n\n")[0].splitlines()[:12]]
            trace: list[Plain] = list(own_trace(text))
            at = datetime.fromtimestamp(file.stat().st_mtime).astimezone().isoformat(timespec="seconds")
            content.append({"incident": file.stem, "at": at, "says": said, "trace": trace})
    return BundleFile("incidents.json", "failures here: number, error without values, places in this software", content)


def manifest(files: Iterable[BundleFile], allowed: Collection[str]) -> str:
    """Return the list of files with their purposes, for a data protection officer."""
    rows = [f"  {file.name:<18} {file.purpose}" for file in files]
    let_pass = ", ".join(sorted(allowed)) or "none"
    return "\n".join(
        (
            "Support archive of fedcervix. It is on this machine only: nothing is sent. Files:",
            f"  {MANIFEST:<18} this list",
            *rows,
            "It holds numbers, versions, times, digests, and sentences that stand in the software itself.",
            "Each value in a sentence is replaced by <...>. It holds no image, no label, no identifier of a patient,",
            "no name of a file, folder, user, computer or site, no address, no key, no certificate, no invitation,",
            "no token.",
            f"Words that were let pass with --allow: {let_pass}",
        )
    )


def write_bundle(file: Path, files: Sequence[BundleFile], listed: str, at: datetime) -> int:
    """Write the archive; return its size in bytes. `listed`: the manifest. Raises RunError, StorageError."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in ((MANIFEST, f"{listed}\n"), *((one.name, one.text()) for one in files)):
            entry = zipfile.ZipInfo(name, (at.year, at.month, at.day, at.hour, at.minute, at.second))
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    if not write_new(file, packed.getvalue()):
        raise is_there(file)
    return len(packed.getvalue())


def is_there(file: Path) -> RunError:
    """Return the error for an archive that is there already."""
    return RunError(
        f"{file} exists already: nothing was written",
        cause="an archive was made before",
        next_step="name another file with --bundle, or delete this one",
    )


def _version(package: str) -> str:
    try:
        return _whole(VERSION, importlib.metadata.version(package)) or "another form"
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _whole(form: re.Pattern[str], text: str) -> str:
    return text if form.fullmatch(text) else ""


def _begin(form: re.Pattern[str], text: str) -> str:
    found = form.match(text)
    return found[0] if found else ""
