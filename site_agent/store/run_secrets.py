"""The secrets of this site in a run with secure sums, and what it was told before the first round.

They are in a folder of their own, which no backup should hold: the runbook leaves it out, and programs that know
CACHEDIR.TAG (bford.info/cachedir) do so by themselves. A home that was restored cannot make a stream of the run then.
They go when the run ends: nobody can open an upload of a run afterwards with what is on this disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from fedcervix.core.formats import contents
from fedcervix.disk.files import UNFINISHED, make_folder, write_secret
from fedcervix.disk.storage import disk, read_kept
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json, to_text
from fedcervix.trust.boxes import KEY_BYTES, NamedKey, OwnKey
from fedcervix.trust.sum_roster import RHO_BYTES, Opening
from site_agent.home import SiteHome

NONCES_BYTES = 32
TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# Secrets of runs with secure sums. They belong into no backup: a home that is restored must not have them.\n"
)


@dataclass(frozen=True, slots=True)
class HeldOpening:
    """An opening as JSON can hold it; keys and signatures in hexadecimal."""

    site: str
    key: str
    images: int
    rho: str
    signature: str

    @classmethod
    def of(cls, opening: Opening) -> Self:
        """Return the form of an opening."""
        key, signature = opening.key.key.hex(), opening.signature.hex()
        return cls(opening.site, key, opening.images, opening.rho, signature)

    def opening(self) -> Opening:
        """Undo `of`. Raises ValueError, RemoteError."""
        return Opening(
            site=self.site,
            key=NamedKey(self.site, bytes.fromhex(self.key)),
            images=self.images,
            rho=self.rho,
            signature=bytes.fromhex(self.signature),
        )


@dataclass(frozen=True, slots=True)
class RunSecrets:
    """What a site draws for a run, in hexadecimal; and what it was told before the first round."""

    images: int
    """n: constant for the run"""
    key: str = field(repr=False)
    """of X25519"""
    rho: str = field(repr=False)
    nonces: str = field(repr=False)
    """what the nonces of commitments derive from"""
    openings: tuple[HeldOpening, ...] = ()
    """of all sites; empty until they have come"""
    rhos: dict[str, str] = field(default_factory=dict, repr=False)
    """of the other sites, as far as their boxes have come"""

    @classmethod
    def drawn(cls, images: int) -> Self:
        """Return new secrets."""
        drawn = secrets.token_hex
        return cls(images, drawn(KEY_BYTES), drawn(RHO_BYTES), drawn(NONCES_BYTES))

    def own_key(self, site: str) -> OwnKey:
        """Return this site's key pair of the run."""
        return OwnKey(site, bytes.fromhex(self.key))

    def told(self, openings: Sequence[Opening]) -> RunSecrets:
        """Return the same with the openings of all sites."""
        return replace(self, openings=tuple(map(HeldOpening.of, openings)))

    def boxed(self, rhos: Mapping[str, bytes]) -> RunSecrets:
        """Return the same with secret bytes of other sites."""
        return replace(self, rhos={**self.rhos, **{site: rho.hex() for site, rho in rhos.items()}})

    def all_rhos(self, site: str) -> dict[str, bytes]:
        """Return the secret bytes of this site and of the others whose boxes have come."""
        return {name: bytes.fromhex(rho) for name, rho in {**self.rhos, site: self.rho}.items()}


@dataclass(frozen=True, slots=True)
class SecretsFile:
    """The file of one run. Every method raises StorageError."""

    home: SiteHome
    run: str

    @property
    def _file(self) -> Path:
        return self.home.secrets / f"{self.run}.json"

    def read(self) -> RunSecrets | None:
        """Return the secrets of the run; None: this home has none."""
        next_step = f"end the run at the coordinator; only then: rm {self._file}"
        return read_kept(self._file, _secrets, missing=None, next_step=next_step)

    def write(self, found: RunSecrets) -> None:
        """Keep the secrets of the run."""
        make_folder(self.home.secrets)
        if not (tag := self.home.secrets / TAG).exists():
            write_secret(tag, TAG_TEXT)
        write_secret(self._file, to_text(found).encode())

    def forget(self) -> None:
        """The run has ended."""
        with disk(self._file, "write"):
            self._file.unlink(missing_ok=True)


def runs_with_secrets(home: SiteHome) -> tuple[str, ...]:
    """Return the runs of which this home has secrets. Raises StorageError."""
    with disk(home.secrets, "read"):
        return tuple(sorted(file.stem for file in home.secrets.glob("*.json")))


def forget_left(home: SiteHome, ended: Callable[[str], bool]) -> None:
    """Delete what a killed process has left: secrets of runs that have ended, and files that are half made.

    By the process that holds the home's lock, before it writes any. Raises StorageError.
    """
    for run in filter(ended, runs_with_secrets(home)):
        SecretsFile(home, run).forget()
    with disk(home.secrets, "write"):
        for half_made in home.secrets.glob(f".*{UNFINISHED}"):
            half_made.unlink(missing_ok=True)


def _secrets(content: bytes) -> RunSecrets | None:
    return from_json(RunSecrets, contents("the secrets", parsed(content)))
