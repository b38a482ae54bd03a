"""The archived homes of a release, unpacked and made ready for today's machine: ports, paths and certificates."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedcervix.transport import identity
from tests.e2e.loopback import Federation
from tools.packages import FILTER

HERE = Path(__file__).parent
EXPECTED = "expected.json"
NOBODY = 9
"""a port at which nobody listens"""
LIGHT = ("--numbers", "50")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of run."""

    mode: str
    compression: str

    def __str__(self) -> str:
        return f"{self.mode}-{self.compression}"


KINDS = tuple(Kind(mode, compression) for mode in ("csfssl", "ppfssl") for compression in ("none", "bfloat16", "int8"))


@dataclass
class Archived(Federation):
    """A federation whose homes lie there already."""

    def __post_init__(self) -> None:
        self.expected = json.loads((self.folder / EXPECTED).read_text())

    def reach(self, site: str, manifest: Path | None = None) -> None:
        """Let a site find today's coordinator, and its images; give it a certificate, for the old one has expired."""
        home, now, key = self.site(site), datetime.now(UTC), identity.new_key()
        address = f"localhost:{self.port or NOBODY}"
        text = re.sub(r"(?m)^coordinator = .*$", f'coordinator = "{address}"', home.config_file.read_text())
        if manifest:
            text = re.sub(r"(?m)^manifest = .*$", f'manifest = "{manifest}"', text)
        home.config_file.write_text(text)
        home.key_file("site.crt").write_bytes(self.certify(site, key, now))
        home.key_file("site.key").write_bytes(key)


def unpack(version: str, name: str, folder: Path) -> None:
    """Unpack an archive of a release."""
    with tarfile.open(HERE / version / f"{name}.tar.xz") as packed:
        packed.extractall(folder, **FILTER)


@contextmanager
def archived(version: str, name: str, folder: Path, sites: tuple[str, ...] = ("nhs", "alts")) -> Iterator[Archived]:
    """Unpack the homes of a federation, and leave nothing of it running."""
    unpack(version, name, folder)
    federation = Archived(folder, sites=sites)
    try:
        yield federation
    finally:
        federation.close()
