"""Which women and pictures a model was trained on, so that no woman of the present test part is among them.

Rules
1. Every model and classifier has a file women.json. It is written with the model and never extended afterwards. Within
   one run of a federation it grows: the run's model learns from the women of every round.
2. It holds keyed digests (HMAC-SHA256 under a secret of the site in keys/): the file alone does not reveal who they
   are.
3. Women are remembered by their identifiers, in whatever way these are written (`identifiers`), and by their
   pictures. So a woman who was renamed, or whose identifier a spreadsheet changed, is still known.
4. If the file cannot be read, or was written under another key, the model is refused, with the next step.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedcervix.core.grouped import grouped
from fedcervix.core.plan import canonical_json
from fedcervix.disk.descriptors import check_used_up
from fedcervix.disk.files import make_folder, write_new, write_secret
from fedcervix.disk.storage import damaged, read_file
from fedcervix.errors import ModelError
from fedcervix.json_text import parsed
from site_agent.manifest.identifiers import forms

if TYPE_CHECKING:
    from site_agent.data.collection import Image
    from site_agent.home import SiteHome

WOMEN = "women.json"
KEY = "women.key"
FORMAT = "fedcervix women 1"
KEY_BYTES = 32
DIGEST_HEX = 32
"""hexadecimal digits that are kept of a digest: 128 bits"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Who made a model: keyed digests."""

    women: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()
    images: str = ""
    """`digests.Data.learning` of the collection"""
    run: str = ""
    """digest of the plan whose rounds these are; empty for what the site made by itself"""
    whole: bool = True
    """False where an earlier file was damaged in the middle of a run"""

    def __or__(self, other: Seen) -> Seen:
        """Return both together; `other` is the later one."""
        return dataclasses.replace(
            other,
            women=self.women | other.women,
            pictures=self.pictures | other.pictures,
            whole=self.whole and other.whole,
        )


@dataclass(frozen=True, slots=True)
class SiteKey:
    """The site's secret for these digests."""

    secret: bytes

    def seen(self, images: Iterable[Image], *, digest: str = "", run: str = "") -> Seen:
        """Return the women and pictures of images. `digest` is that of the collection."""
        listed = tuple(images)
        return Seen(women=self._women(listed), pictures=self.pictures(i.digest for i in listed), images=digest, run=run)

    def pictures(self, digests: Iterable[str]) -> frozenset[str]:
        """Return the keyed digests of pictures: `digests` are SHA-256 of decoded pixels."""
        return frozenset(self._keyed("picture", digest) for digest in digests)

    def _women(self, images: Sequence[Image]) -> frozenset[str]:
        found = {digest for name in _names(images) for digest in (self._keyed("woman", name), *self._written(name))}
        return frozenset(found)

    def _written(self, name: str) -> Iterator[str]:
        """Yield what is kept of an identifier, so that it is known in another spelling."""
        parted, joined = forms(name)
        yield self._keyed("parted", parted)
        if joined != parted:
            yield self._keyed("joined", joined)

    def _known_by(self, name: str) -> set[str]:
        """Return the digests by which an identifier is found, one of which must have been kept."""
        parted, joined = forms(name)
        other = self._keyed("joined", parted) if joined == parted else self._keyed("parted", joined)
        return {self._keyed("woman", name), self._keyed("parted", parted), other}

    def known(self, images: Iterable[Image], seen: Seen) -> set[str]:
        """Return the women of these images who are among the seen, by an identifier or by a picture."""
        by_woman = grouped((image.woman, image) for image in images)
        return {woman for woman, hers in by_woman.items() if self._met(hers, seen)}

    def _met(self, hers: Sequence[Image], seen: Seen) -> bool:
        if not seen.pictures.isdisjoint(self.pictures(image.digest for image in hers)):
            return True
        return any(not seen.women.isdisjoint(self._known_by(name)) for name in _names(hers))

    @property
    def name(self) -> str:
        """What tells this key from another one, and nothing of it."""
        return self._keyed("key", "")

    def mark(self, content: Mapping[str, object]) -> str:
        """Return the code that changes with every change of a file's content."""
        return self._keyed("file", canonical_json(content))

    def _keyed(self, kind: str, text: str) -> str:
        return hmac.digest(self.secret, f"{kind}\x1f{text}".encode(), "sha256").hex()[:DIGEST_HEX]


def _names(images: Iterable[Image]) -> set[str]:
    return {name for image in images for name in (image.patient, image.woman)}


def site_key(home: SiteHome) -> SiteKey:
    """Return the site's key for women and pictures; made at its first use. Raises StorageError."""
    file = home.key_file(KEY)
    make_folder(file.parent)
    secret = secrets.token_bytes(KEY_BYTES)
    return SiteKey(secret) if write_new(file, secret) else _read_key(file)


def _read_key(file: Path) -> SiteKey:
    secret = read_file(file)
    if len(secret) != KEY_BYTES:
        next_step = f"restore it from a backup, or delete it (rm {file}) and make the models again"
        raise damaged(file, f"it holds {len(secret)} bytes instead of {KEY_BYTES}", next_step=next_step)
    return SiteKey(secret)


def write(folder: Path, key: SiteKey, seen: Seen) -> None:
    """Write who made the model in a folder, in place of what was there (0600). Raises StorageError."""
    content = {
        "format": FORMAT,
        "key": key.name,
        **dataclasses.asdict(seen),
        "women": sorted(seen.women),
        "pictures": sorted(seen.pictures),
    }
    write_secret(folder / WOMEN, json.dumps({**content, "mark": key.mark(content)}, allow_nan=False).encode())


def read(folder: Path, key: SiteKey, *, next_step: str) -> Seen:
    """Return who made the model in a folder. Raises ModelError, with `next_step`, where the file does not say it.

    Raises StorageError where no more files can be opened.
    """
    file = folder / WOMEN
    try:
        raw = parsed(file.read_text("utf-8"))
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise _refused(file, "was written by another version", next_step)
        if raw["key"] != key.name:
            raise _refused(file, f"was written under another {KEY} of this site", next_step)
        mark = raw.pop("mark")
        if not hmac.compare_digest(mark, key.mark(raw)):
            raise _refused(file, "was changed after it was written", next_step)
        seen = Seen(
            women=frozenset(raw["women"]),
            pictures=frozenset(raw["pictures"]),
            images=raw["images"],
            run=raw["run"],
            whole=raw["whole"],
        )
    except FileNotFoundError:
        raise _refused(file, "is missing", next_step) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError):
            check_used_up(f"{file} cannot be read", error)
        raise _refused(file, "is damaged", next_step) from error
    if not seen.whole:
        raise _refused(file, "lost the women of some rounds: it was damaged during the run", next_step)
    return seen


def _refused(file: Path, why: str, next_step: str) -> ModelError:
    return ModelError(
        f"{file} {why}: the list of training women is not usable",
        cause="without this list, nobody can check that no test woman was used in training",
        next_step=next_step,
    )


def remember(folder: Path, key: SiteKey, seen: Seen) -> None:
    """Add what a round of a run uses to what its earlier rounds used. Raises StorageError.

    A file of another run's plan is replaced. A damaged one as well; then the file says that it is not whole.
    """
    if not (folder / WOMEN).exists():
        write(folder, key, seen)
        return
    try:
        before = read(folder, key, next_step="")
    except ModelError:
        write(folder, key, dataclasses.replace(seen, whole=False))
        return
    together = before | seen if before.run == seen.run else seen
    if together != before:
        write(folder, key, together)


def check_unseen(seen: Seen, key: SiteKey, test: Iterable[Image], *, what: str, next_step: str) -> None:
    """Raise ModelError where a woman of the test images was used to train `what`."""
    found = key.known(test, seen)
    if found:
        count = f"{len(found)} women of the test part were" if len(found) > 1 else "1 woman of the test part was"
        raise ModelError(
            f"{count} used to train {what}",
            cause="the splits or the identifiers have changed since: splits.csv was lost, women were renamed, or a new "
            "picture linked them with test women",
            next_step=next_step,
        )
