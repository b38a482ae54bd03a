"""The version that follows this one, made of it: a copy of the packages whose wire has more fields and a version more.

What a later version brings is not known. But whatever it adds to a message, an end of today reads past it; and whatever
it needs of the other side, it uses only where the agreed version has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fedcervix import __version__
from fedcervix.transport.versions import WIRE_VERSIONS
from tests.e2e.loopback import BIN, Federation, Process
from tests.unit.next_version import KEYS, ROOT, Edit, build

NEXT = WIRE_VERSIONS[-1] + 1
SOFTWARE = f"{__version__}.post1"

PROTO, CODEC, VERSIONS = (
    "protos/federation.proto",
    *(f"shared/fedcervix/transport/{n}.py" for n in ("codec", "versions")),
)
MORE_FIELDS: tuple[Edit, ...] = (
    *(
        edit for edit in KEYS if edit[0] == "shared/fedcervix/runtime/record.py"
    ),  # a key of the record, which sites read, too
    (PROTO, "message Task {\n", "message Task {\n  string next_note = 1000;\n"),
    (PROTO, "message Welcome {\n", "message Welcome {\n  repeated double next_hints = 1000;\n"),
    (PROTO, "message Update {\n", "message Update {\n  map<string, double> next_figures = 1000;\n"),
    (PROTO, "message ReportReply {\n", "message ReportReply {\n  Task next_task = 1000;\n"),
    (CODEC, "wire.Task(\n        run=task.run,", 'wire.Task(\n        next_note="new",\n        run=task.run,'),
    (CODEC, "wire.Welcome(\n", "wire.Welcome(\n        next_hints=[0.5, 1.5],\n"),
    (CODEC, "wire.Update(\n", 'wire.Update(\n        next_figures={"new": 0.5},\n'),
    (CODEC, "wire.ReportReply(answer=", "wire.ReportReply(next_task=wire.Task(), answer="),
    # A report and an instruction of a new kind, where the version that was agreed has them.
    (PROTO, "    Ready ready = 2;\n", "    Ready ready = 2;\n    Ready next_ready = 1001;\n"),
    (PROTO, "    Stand stand = 3;", "    Stand next_stand = 1001;\n    Stand stand = 3;"),
    (
        CODEC,
        "SINCE: Mapping[str, int] = {\n",
        f"SINCE: Mapping[str, int] = {{\n    'FromSite.next_ready': {NEXT}, 'FromCoordinator.next_stand': {NEXT},\n",
    ),
    (
        CODEC,
        "    return spoken(_report(report, at), version)\n",
        f"""\
    message = _report(report, at)
    if version >= {NEXT} and isinstance(report, Ready):
        message = wire.FromSite(at=at, next_ready=message.ready)
    return spoken(message, version)
""",
    ),
    (
        CODEC,
        "    return spoken(_instruction(instruction), version)\n",
        f"""\
    message = _instruction(instruction)
    if version >= {NEXT} and isinstance(instruction, Idle):
        message = wire.FromCoordinator(next_stand=message.stand)
    return spoken(message, version)
""",
    ),
    (
        CODEC,
        '    "here": _read_here,\n',
        """\
    "here": _read_here,
    "next_ready": lambda said, site, at: _read_ready(wire.FromSite(ready=said.next_ready), site, at),
""",
    ),
    (
        CODEC,
        '        case "stand":\n',
        '        case "next_stand":\n            return Idle(message.next_stand.reason)\n        case "stand":\n',
    ),
    ("shared/fedcervix/__init__.py", f'__version__ = "{__version__}"', f'__version__ = "{SOFTWARE}"'),
)


def speaks(*versions: int) -> Edit:
    """Return the edit after which the packages speak these versions of the wire."""
    return (VERSIONS, f"WIRE_VERSIONS = {WIRE_VERSIONS!r}", f"WIRE_VERSIONS = {versions!r}")


@dataclass(frozen=True, slots=True)
class Version:
    """Where a version's packages lie; None: those under test."""

    packages: Path | None = None

    def coordinate(self, federation: Federation, mode: str = "", *, listening: bool = True) -> Process:
        """Start a federation's coordinator in this version. It goes on with its run, or begins one in a mode."""
        options = ["--mode", mode] if mode else []
        program = [*self._python, "-m", "coordinator.cli"] if self._python else None
        return federation.coordinate(*options, listening=listening, program=program)

    def light(self, federation: Federation, site: str, *options: str) -> Process:
        """Start a light site in this version."""
        program = [*(self._python or [BIN / "python"]), "-m", "tests.e2e.light_site"]
        return federation._start(site, [*program, federation.site(site).folder, *options])

    @property
    def _python(self) -> list[str | Path]:
        if self.packages is None:
            return []
        folders = (self.packages, self.packages / "shared", ROOT)
        return ["env", f"PYTHONPATH={os.pathsep.join(map(str, folders))}", sys.executable]


TODAY = Version()


def make(folder: Path, *edits: Edit) -> None:
    """Make the packages of a version that is this one but for some edits."""
    build(folder, *edits)
    proto = folder / "protos" / "federation.proto"
    command = ["-m", "grpc_tools.protoc", f"-Ifedcervix/wire={proto.parent}", f"--python_out={folder}/shared", proto]
    subprocess.run([sys.executable, *command], check=True, timeout=60)
