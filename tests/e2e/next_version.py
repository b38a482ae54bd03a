"""The version that follows this one, made of it: a copy of the packages whose wire has more fields and a version more.

What a later version brings is not known. But whatever it adds to a message, an end of today reads past it; and whatever
it needs of the other side, it uses only where the agreed version has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fedcervix import __version__
from fedcervix.transport.versions import NUMERICS, WIRE_VERSIONS
from tests.e2e.loopback import BIN, Federation, Process

ROOT = Path(__file__).parents[2]
NEXT = WIRE_VERSIONS[-1] + 1
SOFTWARE = f"{__version__}.post1"

Edits = tuple[tuple[str, str, str], ...]
"""file below the packages, what stands there once, what stands there then"""
MORE_FIELDS: Edits = (
    ("federation.proto", "message Task {\n", "message Task {\n  string next_note = 1000;\n"),
    ("federation.proto", "message Welcome {\n", "message Welcome {\n  repeated double next_hints = 1000;\n"),
    ("federation.proto", "message Update {\n", "message Update {\n  map<string, double> next_figures = 1000;\n"),
    ("federation.proto", "message ReportReply {\n", "message ReportReply {\n  Task next_task = 1000;\n"),
    ("fedcervix/transport/codec.py", "wire.Task(run=task.run,", 'wire.Task(next_note="new", run=task.run,'),
    ("fedcervix/transport/codec.py", "wire.Welcome(\n", "wire.Welcome(\n        next_hints=[0.5, 1.5],\n"),
    ("fedcervix/transport/codec.py", "wire.Update(\n", 'wire.Update(\n        next_figures={"new": 0.5},\n'),
    ("fedcervix/transport/codec.py", "wire.ReportReply(answer=", "wire.ReportReply(next_task=wire.Task(), answer="),
    ("fedcervix/__init__.py", f'__version__ = "{__version__}"', f'__version__ = "{SOFTWARE}"'),
)


def speaks(*versions: int) -> Edits:
    """Return the edit after which the packages speak these versions of the wire."""
    return (("fedcervix/transport/versions.py", f"WIRE_VERSIONS = {WIRE_VERSIONS!r}", f"WIRE_VERSIONS = {versions!r}"),)


def computes(numerics: int) -> Edits:
    """Return the edit after which the packages compute otherwise."""
    return (("fedcervix/transport/versions.py", f"NUMERICS = {NUMERICS}\n", f"NUMERICS = {numerics}\n"),)


@dataclass(frozen=True, slots=True)
class Version:
    """Where a version's packages lie; None: those under test."""

    packages: Path | None = None

    def coordinate(self, federation: Federation, mode: str = "") -> Process:
        """Start a federation's coordinator in this version. It goes on with its run, or begins one in a mode."""
        options = ["--mode", mode] if mode else []
        return federation.coordinate(
            *options, program=[*self._python, "-m", "coordinator.cli"] if self._python else None
        )

    def light(self, federation: Federation, site: str, *options: str) -> Process:
        """Start a light site in this version."""
        program = [*(self._python or [BIN / "python"]), "-m", "tests.e2e.light_site"]
        return federation._start(site, [*program, federation.site(site).folder, *options])

    @property
    def _python(self) -> list[str | Path]:
        if self.packages is None:
            return []
        return ["env", f"PYTHONPATH={self.packages}{os.pathsep}{ROOT}", sys.executable]


TODAY = Version()


def changed(folder: Path, edits: Edits) -> Version:
    """Return a version that is this one but for some edits; its packages lie in a folder that is made."""
    for source, name in (
        ("shared/fedcervix", "fedcervix"),
        ("coordinator", "coordinator"),
        ("site_agent", "site_agent"),
    ):
        shutil.copytree(ROOT / source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "protos" / "federation.proto", folder)
    for file, old, new in edits:
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
        (folder / file).write_text(text.replace(old, new))
    made = ["--python_out=.", "federation.proto"]
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-Ifedcervix/wire={folder}",
        *made[:1],
        str(folder / made[1]),
    ]
    subprocess.run(command, check=True, cwd=folder, timeout=60)
    return Version(folder)
