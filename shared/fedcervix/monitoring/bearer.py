"""The token by which Prometheus reads /metrics of a page: a program has no cookie."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from fedcervix.disk.files import write_new
from fedcervix.disk.storage import damaged, read_file

TOKEN = re.compile(rb"[A-Za-z0-9_-]{43}")
"""32 random bytes, as RFC 6750 lets them stand in a header"""


def bearer_token(file: Path) -> str:
    """Return the token in a file, which is made at the first time (0600). Raises StorageError."""
    write_new(file, f"{secrets.token_urlsafe(32)}\n".encode())
    content = read_file(file).strip()
    if not TOKEN.fullmatch(content):
        next_step = f"delete it: rm {file}; the next start makes another one, which Prometheus must be given"
        raise damaged(file, "it holds no token", next_step=next_step)
    return content.decode()
