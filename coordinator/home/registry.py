"""Who may connect: every invitation and every site certificate that this coordinator issued, and its state.

One SQLite file, used by several processes at once: `coordinator invite` and `coordinator revoke` write it while the
coordinator runs. So every call opens the file, does one short transaction and closes it. The running coordinator looks
into a copy (`Roll`), which it makes anew when the file has changed (see `coordinator.home.standing`).

A credential (an invitation's certificate: role `enroll`; a site's own: role `site`) is in one of four states:

    valid ──redeemed──> used          an invitation that has become a certificate
      ├───succeeded───> replaced      a newer invitation was made, or the site joined anew
      └────revoked────> revoked       by the operator

Rules
1. At most one valid invitation and at most one valid certificate per site.
2. An invitation works once. The same key asking again gets the same certificate again (the first reply was lost);
   another key is refused.
3. A site that was revoked may be invited again: that is how it comes back.
4. On a full disk the reserve beside the file is given up (see `fedcervix.disk.reserve`). Where even that is used up,
   `shut_out` remembers a revocation until this process ends.
"""

from __future__ import annotations

import difflib
import functools
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from fedcervix.core.plan import SITE_NAME
from fedcervix.disk.databases import translated
from fedcervix.disk.formats import Schema, bring_up
from fedcervix.disk.reserve import Reserve
from fedcervix.disk.storage import disk
from fedcervix.errors import IdentityError

BUSY_TIMEOUT_S = 10.0
"""how long a call waits while another process writes; a write takes milliseconds"""

HEADER_BYTES = 100
"""of an SQLite file; its change counter, which every transaction raises, is among them"""

CREDENTIALS = """
CREATE TABLE credentials (
    serial          TEXT PRIMARY KEY,   -- of the certificate, hexadecimal
    site            TEXT NOT NULL,
    role            TEXT NOT NULL CHECK (role IN ('enroll', 'site')),
    state           TEXT NOT NULL CHECK (state IN ('valid', 'used', 'replaced', 'revoked')),
    since           TEXT NOT NULL,      -- when it got into this state; ISO 8601, UTC
    not_after       TEXT NOT NULL,      -- ISO 8601, UTC
    invitation      TEXT UNIQUE REFERENCES credentials (serial),  -- role site: the serial it was redeemed from
    key_fingerprint TEXT,               -- role site: SHA-256 of its public key
    certificate     BLOB                -- role site: PEM, to answer a repeated request
) WITHOUT ROWID
"""
ONE_VALID = "CREATE UNIQUE INDEX one_valid ON credentials (site, role) WHERE state = 'valid'"
SCHEMA = Schema(
    "the registry", (CREDENTIALS, ONE_VALID), go_back="  # then revoke again who was revoked since the upgrade"
)

Issued = tuple[bytes, str, datetime]
"""certificate (PEM), its serial (hexadecimal), its end (aware UTC)"""

SiteState = Literal["invited", "joined", "revoked"]

ASK_AGAIN = (
    "ask the coordinator's operator for a new invitation (`coordinator invite {site}`), then `site-agent join FILE`"
)

CLOSED_INVITATION = {
    "replaced": "a newer invitation was made for this site: use that one",
    "revoked": "the operator revoked this site",
}
CLOSED_CERTIFICATE = {
    "replaced": "the site has joined again and has a newer certificate: one site cannot run twice",
    "revoked": "the operator revoked this site",
}


@dataclass(frozen=True, slots=True)
class SiteEntry:
    """One line of `coordinator status`: a site, whether it may connect, since when and until when (aware UTC)."""

    site: str
    state: SiteState
    since: datetime
    not_after: datetime
    """of its certificate, or of its invitation while it has not joined"""


@dataclass(frozen=True, slots=True)
class Credential:
    """One certificate that this coordinator issued: whose, for what, what became of it, until when (aware UTC)."""

    site: str
    role: str
    state: str
    not_after: datetime
    invitation: str | None
    """the serial it was redeemed from"""


@dataclass(frozen=True, slots=True)
class Roll:
    """All credentials at a moment, by serial."""

    credentials: Mapping[str, Credential]

    def __contains__(self, serial: str) -> bool:
        return serial in self.credentials

    def admit(self, serial: str, site: str) -> None:
        """Return if the certificate `serial` is the one with which `site` may connect; else raise IdentityError."""
        found = self.credentials.get(serial)
        if found is None or (found.site, found.role) != (site, "site"):
            raise IdentityError(
                f"the coordinator does not know this certificate of site {site}",
                cause="its home folder was set up again, or restored from a backup older than the certificate",
                next_step=ASK_AGAIN.format(site=site),
            )
        if found.state != "valid":
            raise IdentityError(
                f"the certificate of site {site} is {found.state}",
                cause=CLOSED_CERTIFICATE[found.state],
                next_step=ASK_AGAIN.format(site=site),
            )

    def admit_invitation(self, serial: str, now: datetime) -> str:
        """Return the serial of the certificate that the invitation `serial` has become already; "" if none yet.

        Raises IdentityError where the invitation cannot become one, nor be answered once more.
        """
        found = self.credentials.get(serial)
        if found is None or found.role != "enroll":
            raise _unknown_invitation()
        if found.state != "used":
            _check_open(found.site, found.state, found.not_after, now)
            return ""
        made, certificate = next((s, c) for s, c in self.credentials.items() if c.invitation == serial)
        if certificate.state != "valid":
            raise _used_up(found.site, certificate.state)
        return made

    def closed(self, site: str) -> list[str]:
        """Return the serials of a site with which nobody may connect."""
        return [serial for serial, found in self.credentials.items() if found.site == site and found.state != "valid"]


P = ParamSpec("P")
R = TypeVar("R")


def _with_room(
    write: Callable[Concatenate[Registry, P], R],
) -> Callable[Concatenate[Registry, P], R]:
    """On a full disk, give up some of the reserve and write again: a transaction that failed has changed nothing."""

    @functools.wraps(write)
    def spending(registry: Registry, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return registry.reserve.spend(lambda: write(registry, *args, **kwargs))

    return spending


class Registry:
    """The file at `path`, made if it is missing. Every method may be called from any thread.

    Every method raises StorageError if the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reserve = Reserve.beside(path)
        self.writes = 0
        """transactions of this process: a copy in memory is old if this number has changed"""
        self._shut_out: set[str] = set()
        """serials of certificates"""
        self._looked_at: tuple[tuple[int, int], int] | None = None
        """which file `mark` looks at (device, inode), and its descriptor"""
        self.reserve.spend(self._prepare)

    def _prepare(self) -> None:
        with disk(self._path, "write"):
            self._path.touch(mode=0o600)  # SQLite's side files take the same mode
        with self._connection() as connection:
            # A reader of a write-ahead log needs room on the disk; of a file with a rollback journal it needs none,
            # so a full disk does not lock the sites out.
            if connection.execute("PRAGMA journal_mode").fetchone() != ("delete",):
                connection.execute("PRAGMA journal_mode = DELETE")
            bring_up(connection, self._path, SCHEMA)

    @_with_room
    def invite(self, site: str, serial: str, expires: datetime, now: datetime) -> None:
        """Record an invitation: its certificate's serial and end. It replaces an earlier one that is still open."""
        with self._transaction() as connection:
            _close(connection, "replaced", now, site=site, role="enroll")
            connection.execute(
                "INSERT INTO credentials (serial, site, role, state, since, not_after)"
                " VALUES (?, ?, 'enroll', 'valid', ?, ?)",
                (serial, site, _text(now), _text(expires)),
            )

    @_with_room
    def redeem(self, serial: str, key_fingerprint: str, issue: Callable[[], Issued], now: datetime) -> bytes:
        """Turn the invitation `serial` into a site certificate (PEM), made by `issue` for that key; once.

        The site's earlier certificate stops working. Raises IdentityError if the invitation is unknown, expired,
        revoked, replaced, or used already by another key; and whatever `issue` raises: then nothing has changed.
        """
        with self._transaction() as connection:
            site, state, not_after = _invitation(connection, serial)
            if state == "used":
                return _answer_again(connection, serial, key_fingerprint, site)
            _check_open(site, state, not_after, now)
            certificate, certificate_serial, certificate_end = issue()
            _close(connection, "replaced", now, site=site, role="site")
            connection.execute(
                "UPDATE credentials SET state = 'used', since = ? WHERE serial = ?", (_text(now), serial)
            )
            connection.execute(
                "INSERT INTO credentials VALUES (?, ?, 'site', 'valid', ?, ?, ?, ?, ?)",
                (certificate_serial, site, _text(now), _text(certificate_end), serial, key_fingerprint, certificate),
            )
            return certificate

    def roll(self) -> Roll:
        """Return every credential as it stands."""
        with self._connection() as connection:
            rows = connection.execute("SELECT serial, site, role, state, not_after, invitation FROM credentials")
            return Roll(
                {
                    serial: Credential(site, role, self._state(serial, state), _time(not_after), invitation)
                    for serial, site, role, state, not_after, invitation in rows
                }
            )

    def _state(self, serial: str, written: str) -> str:
        return "revoked" if written == "valid" and serial in self._shut_out else written

    def mark(self) -> object:
        """Return a value that changes with every change of the file; cheap.

        The file stays open: when a process closes a file, the system drops all locks that it has on the file, also
        those of SQLite (sqlite.org/howtocorrupt.html, 2.2). Two processes would then write at once.
        """
        with disk(self._path, "read"):
            found = self._path.stat()
            if self._looked_at is None or self._looked_at[0] != (found.st_dev, found.st_ino):
                opened = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                found = os.fstat(opened)
                self._looked_at = (found.st_dev, found.st_ino), opened
            file, opened = self._looked_at
            return file, os.pread(opened, HEADER_BYTES, 0), frozenset(self._shut_out)

    @_with_room
    def revoke(self, site: str, now: datetime) -> int:
        """Revoke the certificate and the open invitation of `site`; return how many there were (0 to 2).

        Raises IdentityError if no site of that name was ever invited.
        """
        with self._transaction() as connection:
            known = [name for (name,) in connection.execute("SELECT DISTINCT site FROM credentials ORDER BY site")]
            if site not in known:
                raise _unknown_site(site, known)
            return _close(connection, "revoked", now, site=site, role="enroll") + _close(
                connection, "revoked", now, site=site, role="site"
            )

    def shut_out(self, site: str) -> None:
        """Refuse the site's present certificate from now on, until this process ends. Nothing is written."""
        with self._connection() as connection:
            rows = connection.execute("SELECT serial FROM credentials WHERE site = ? AND role = 'site'", (site,))
            self._shut_out.update(serial for (serial,) in rows)

    def certificates(self) -> dict[str, str]:
        """Return the valid certificate (PEM) of each site that has one, by site."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT site, certificate FROM credentials WHERE role = 'site' AND state = 'valid'"
            )
            return {site: bytes(certificate).decode() for site, certificate in rows}

    def sites(self) -> list[SiteEntry]:
        """Return every site that was ever invited, by name."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT site, role, state, since, not_after FROM credentials"
                " WHERE state IN ('valid', 'revoked') ORDER BY site, since"
            ).fetchall()
        entries: dict[str, SiteEntry] = {}
        for site, role, state, since, not_after in rows:
            entry = SiteEntry(site, _site_state(role, state), _time(since), _time(not_after))
            entries[site] = _weightier(entries.get(site, entry), entry)
        return list(entries.values())

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # mode=rw: a file that vanished under a running coordinator is an error, not an empty registry.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        with translated(self._path, "the registry"):
            opened = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            with closing(opened) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.row_factory = _checked_row
                yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end, roll back on any exception."""
        with self._connection() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
        self.writes += 1


def _checked_row(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of which every value is one that its column may hold. Raises sqlite3.DatabaseError."""
    for (column, *_), value in zip(cursor.description, row, strict=True):
        if column in COLUMNS and value is not None and not (isinstance(value, str) and COLUMNS[column](value)):
            raise sqlite3.DatabaseError(f"a value in the column {column} is not one that fedcervix writes")
    return row


def _close(
    connection: sqlite3.Connection, state: str, now: datetime, *, site: str, role: Literal["enroll", "site"]
) -> int:
    """Move the valid credentials of a site and role into `state`; return how many there were."""
    return connection.execute(
        "UPDATE credentials SET state = ?, since = ? WHERE site = ? AND role = ? AND state = 'valid'",
        (state, _text(now), site, role),
    ).rowcount


def _invitation(connection: sqlite3.Connection, serial: str) -> tuple[str, str, datetime]:
    """Return (site, state, end) of an invitation."""
    row = connection.execute(
        "SELECT site, state, not_after FROM credentials WHERE serial = ? AND role = 'enroll'", (serial,)
    ).fetchone()
    if row is None:
        raise _unknown_invitation()
    return row[0], row[1], _time(row[2])


def _unknown_invitation() -> IdentityError:
    return IdentityError(
        "the coordinator does not know this invitation",
        cause="its home folder was set up again, or restored from a backup older than the invitation",
        next_step=ASK_AGAIN.format(site="SITE"),
    )


def _used_up(site: str, state: str) -> IdentityError:
    return IdentityError(
        f"the invitation of site {site} was already used, and its certificate is {state}",
        cause=CLOSED_CERTIFICATE[state],
        next_step=ASK_AGAIN.format(site=site),
    )


def used_by_another(site: str) -> IdentityError:
    """Return the error for an invitation that its site has already used."""
    return IdentityError(
        f"the invitation of site {site} was already used",
        cause="the site has joined already; if nobody at the site did, somebody else has the file:"
        f" `coordinator revoke {site}`",
        next_step=ASK_AGAIN.format(site=site),
    )


def _check_open(site: str, state: str, not_after: datetime, now: datetime) -> None:
    if state == "valid" and now <= not_after:
        return
    word = state if state in CLOSED_INVITATION else "expired"
    raise IdentityError(
        f"the invitation of site {site} is {word}",
        cause=CLOSED_INVITATION.get(state, f"it was valid until {not_after:%Y-%m-%d %H:%M} UTC"),
        next_step=ASK_AGAIN.format(site=site),
    )


def _answer_again(connection: sqlite3.Connection, serial: str, key_fingerprint: str, site: str) -> bytes:
    """Return the certificate of a used invitation to the key that used it, while it is still valid."""
    state, fingerprint, certificate = connection.execute(
        "SELECT state, key_fingerprint, certificate FROM credentials WHERE invitation = ?", (serial,)
    ).fetchone()
    if fingerprint != key_fingerprint:
        raise used_by_another(site)
    if state != "valid":
        raise _used_up(site, state)
    return bytes(certificate)


def _unknown_site(site: str, known: list[str]) -> IdentityError:
    near = difflib.get_close_matches(site, known, n=1)
    return IdentityError(
        f"no site is named {site!r}",
        cause=f"the invited sites are {', '.join(known)}" if known else "no site has been invited yet",
        next_step=f"did you mean `{near[0]}`?" if near else "give the name of a site that was invited",
    )


def _site_state(role: str, state: str) -> SiteState:
    if state == "revoked":
        return "revoked"
    return "joined" if role == "site" else "invited"


def _weightier(one: SiteEntry, other: SiteEntry) -> SiteEntry:
    """Of two credentials of a site, return the one that says how the site stands; the later of equals."""
    weight: dict[SiteState, int] = {"revoked": 0, "invited": 1, "joined": 2}
    return one if weight[one.state] > weight[other.state] else other


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _is_time(text: str) -> bool:
    with suppress(ValueError):
        return _time(text).tzinfo is not None
    return False


COLUMNS: Mapping[str, Callable[[str], object]] = {
    "serial": bool,
    "site": SITE_NAME.fullmatch,
    "role": ("enroll", "site").__contains__,
    "state": ("valid", "used", "replaced", "revoked").__contains__,
    "since": _is_time,
    "not_after": _is_time,
    "invitation": bool,
    "key_fingerprint": bool,
}
"""column of `credentials` -> whether it may hold a text; NULL stands where SQLite allows it"""
