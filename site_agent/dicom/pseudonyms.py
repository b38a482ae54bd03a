"""The names under which women, visits and pictures are known here: keyed digests (HMAC-SHA256, RFC 2104).

The key is random, lies in keys/ and never leaves the site. With it the same woman has the same name in every import;
without it nobody can try numbers until one fits.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from fedcervix.disk.files import make_folder, write_new
from fedcervix.disk.storage import damaged, read_file
from site_agent.home import SiteHome
from site_agent.manifest.identifiers import forms

KEY = "dicom.key"
KEY_BYTES = 32
NAME_DIGITS = 24
"""hexadecimal; of a million names, two are the same with a probability of 6e-18"""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """The names that one key gives."""

    secret: bytes

    def patient(self, issuer: str, number: str) -> str:
        """Return the name of a woman: the same number from two issuers is two women.

        A number that is written in two ways is one (`identifiers`): the names no longer tell.
        """
        return self._name("patient", issuer, forms(number)[0])

    def visit(self, study: str) -> str:
        """Return the name of a visit; "" where the header names no study."""
        return self._name("visit", study) if study else ""

    def picture(self, instance: str, woman: str) -> str:
        """Return the name of a file's pictures; `woman` is her name here. Two women's are never called alike."""
        return self._name("picture", instance, woman)

    @property
    def key_name(self) -> str:
        """What tells this key from another one, and nothing of it."""
        return self._name("key")

    def _name(self, *parts: str) -> str:
        text = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
        return hmac.digest(self.secret, b"fedcervix dicom 1" + text, "sha256").hex()[:NAME_DIGITS]


def site_pseudonyms(home: SiteHome) -> Pseudonyms:
    """Return the names of a site; its key is made at the first use. Raises StorageError."""
    file = home.key_file(KEY)
    make_folder(file.parent)
    secret = secrets.token_bytes(KEY_BYTES)
    if not write_new(file, secret):
        secret = read_file(file)
    if len(secret) != KEY_BYTES:
        next_step = f"restore it from a backup; or delete it (rm {file}), and import everything again into a new folder"
        raise damaged(file, f"it holds {len(secret)} bytes instead of {KEY_BYTES}", next_step=next_step)
    return Pseudonyms(secret)
