"""Who may connect: every invitation and every site certificate that this coordinator issued, and its state.

One SQLite file, used by several processes at once: `coordinator invite` and `coordinator revoke` write it while the
coordinator runs. So every call opens the file, does one short transaction and closes it. The running coordinator looks
into a copy (`Roll`), which it makes anew when the file has changed (see `coordinator.home.standing`).

A credential (an invitation's certificate: role `enroll`; a site's own: role `site`) is in one of five states:

    issued ──first call──> valid      a renewed certificate; until then the one before it stays valid, too
    valid ───redeemed────> used       an invitation that has become a certificate
      ├──────succeeded───> replaced   there is a newer invitation, a renewed one was used, or the site joined anew
      └───────revoked────> revoked    by the operator; also from `issued`

Rules
1. At most one valid invitation, one valid and one issued certificate per site.
2. An invitation works once. The same key asking again gets the same certificate again (the first reply was lost);
   another key is refused.
3. A site that was revoked may be invited again: that is how it comes back.
4. A renewal keeps the key. To ask again gives the same certificate again; a closed one that was made by a renewal is
   forgotten when it has expired. So a site's rows do not grow.
5. An invitation that renews is bound to a key: no other one may redeem it.
6. On a full disk the reserve beside the file is given up (see `fedcervix.disk.reserve`). Where even that is used up,
   `shut_out` remembers a revocation until this process ends.
"""

from __future__ import annotations

import difflib
import functools
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from coordinator.home.home import Home
from fedcervix.core.plan import SITE_NAME
from fedcervix.disk.databases import translated
from fedcervix.disk.formats import Alone, Schema, bring_up
from fedcervix.disk.reserve import Reserve
from fedcervix.disk.storage import disk
from fedcervix.errors import IdentityError
from fedcervix.transport import renewal

BUSY_TIMEOUT_S = 10.0
"""how long a call waits while another process writes; a write takes milliseconds"""

HEADER_BYTES = 100
"""of an SQLite file; its change counter, which every transaction raises, is among them"""

CREDENTIALS = """
CREATE TABLE credentials (
    serial          TEXT PRIMARY KEY,   -- of the certificate, hexadecimal
    site            TEXT NOT NULL,
    role            TEXT NOT NULL CHECK (role IN ('enroll', 'site')),
    state           TEXT NOT NULL CHECK (state IN ('issued', 'valid', 'used', 'replaced', 'revoked')),
    since           TEXT NOT NULL,      -- when it got into this state; ISO 8601, UTC
    not_after       TEXT NOT NULL,      -- ISO 8601, UTC
    invitation      TEXT UNIQUE REFERENCES credentials (serial),  -- role site: what it was redeemed from; not a renewal
    key_fingerprint TEXT,               -- SHA-256 of the site's public key; role enroll: the only one that may redeem
    certificate     BLOB                -- role site: PEM, to answer a repeated request
) WITHOUT ROWID
"""
"""of format 2, which RENEWALS makes: a later format has a text of its own"""
ONE_VALID = "CREATE UNIQUE INDEX one_valid ON credentials (site, role) WHERE state = 'valid'"
ONE_ISSUED = "CREATE UNIQUE INDEX one_issued ON credentials (site) WHERE state = 'issued'"
RENEWALS = (
    "ALTER TABLE credentials RENAME TO credentials_1",  # SQLite changes no CHECK
    CREDENTIALS,
    "INSERT INTO credentials SELECT * FROM credentials_1",
    "DROP TABLE credentials_1",
    ONE_VALID,
    ONE_ISSUED,
)
SCHEMA = Schema(
    "the registry",
    (CREDENTIALS, ONE_VALID, ONE_ISSUED),
    (RENEWALS,),
    go_back="  # then repeat the revocations made since the upgrade, and invite the sites that renewed since",
)

Issued = tuple[bytes, str, datetime]
"""certificate (PEM), its serial (hexadecimal), its end (aware UTC)"""

SiteState = Literal["invited", "joined", "revoked"]

ASK_AGAIN = (
    "ask the coordinator's operator for a new invitation (`coordinator invite {site}`), then `site-agent join FILE`"
)

RENEW = "ask the coordinator's operator for a renewal (`coordinator renew {site}`), then `site-agent join FILE`"
UNRENEWED = (
    "its agent does not run or cannot connect (`site-agent doctor` there); once expired: `coordinator renew {site}`"
)
IN_FORCE = ("issued", "valid")
"""states of a certificate with which a site may connect"""

CLOSED_INVITATION = {
    "replaced": "a newer invitation was made for this site: use that one",
    "revoked": "the operator revoked this site",
}
CLOSED_CERTIFICATE = {
    "replaced": "the site has a newer certificate: it was renewed, or the site joined again. "
    "Only one agent can run for a site. If neither was done at the site, somebody else has its key: revoke it",
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
    key_fingerprint: str = ""
    """SHA-256 of the public key of its certificate, hexadecimal; empty while it has none"""


@dataclass(frozen=True, slots=True)
class Credential:
    """One certificate that this coordinator issued: whose, for what, what became of it, until when (aware UTC)."""

    site: str
    role: str
    state: str
    since: datetime
    """when it got into this state"""
    not_after: datetime
    invitation: str | None
    """the serial it was redeemed from"""
    key_fingerprint: str | None
    """SHA-256 of the site's key; of an invitation only where it is bound to one"""


@dataclass(frozen=True, slots=True)
class Roll:
    """All credentials at a moment, by serial."""

    credentials: Mapping[str, Credential]
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    """PEM, with which a site may connect now, by the site's name"""

    def __contains__(self, serial: str) -> bool:
        return serial in self.credentials

    def admit(self, serial: str, site: str) -> None:
        """Return if the certificate `serial` is the one with which `site` may connect; else raise IdentityError."""
        found = self.credentials.get(serial)
        if found is None or (found.site, found.role) != (site, "site"):
            raise IdentityError(
                f"the coordinator does not know this certificate of site {site}",
                cause="the coordinator was set up again, or restored from a backup that is older than the certificate",
                next_step=(RENEW if self.certificate(site) else ASK_AGAIN).format(site=site),
            )
        if found.state not in IN_FORCE:
            raise _closed(site, found.state)

    def is_new(self, serial: str) -> bool:
        """Say whether a certificate was issued and never used."""
        return serial in self.credentials and self.credentials[serial].state == "issued"

    def certificate(self, site: str) -> Credential | None:
        """Return the certificate of a site that is in force, also one that has expired; None where it has none."""
        return next(
            (c for c in self.credentials.values() if (c.site, c.role, c.state) == (site, "site", "valid")), None
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
        if certificate.state not in IN_FORCE:
            raise _used_up(found.site, certificate.state)
        return made

    def warnings(self, sites: Sequence[str], now: datetime) -> list[str]:
        """Return the words for those of these sites whose certificates should have been renewed."""
        valid = {c.site: c for c in self.credentials.values() if (c.role, c.state) == ("site", "valid")}
        known = [(site, valid[site]) for site in sites if site in valid]
        found = [(site, renewal.warning(f"site {site}", c.since, c.not_after, now)) for site, c in known]
        return [f"{words}: {UNRENEWED.format(site=site)}" for site, words in found if words]

    def closed(self, site: str) -> list[str]:
        """Return the serials of a site with which nobody may connect."""
        return [
            serial for serial, found in self.credentials.items() if found.site == site and found.state not in IN_FORCE
        ]


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

    def __init__(self, path: Path, alone: Alone | None = None) -> None:
        """Open the file. `alone`: see `bring_up`. None: it holds the home, which the process does not hold yet."""
        self._path = path
        self._alone = alone or Home(path.parent).held_to_upgrade
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
            bring_up(connection, self._path, SCHEMA, self._alone)

    @_with_room
    def invite(
        self, site: str, serial: str, expires: datetime, now: datetime, key_fingerprint: str | None = None
    ) -> None:
        """Record an invitation: its certificate's serial and end. It replaces an earlier one that is still open.

        `key_fingerprint`: of the only key that may redeem it; left out, any key may.
        """
        with self._transaction() as connection:
            _close(connection, "replaced", now, site=site, role="enroll")
            connection.execute(
                "INSERT INTO credentials (serial, site, role, state, since, not_after, key_fingerprint)"
                " VALUES (?, ?, 'enroll', 'valid', ?, ?, ?)",
                (serial, site, _text(now), _text(expires), key_fingerprint),
            )

    @_with_room
    def redeem(self, serial: str, key_fingerprint: str, issue: Callable[[], Issued], now: datetime) -> bytes:
        """Turn the invitation `serial` into a site certificate (PEM), made by `issue` for that key; once.

        The site's earlier certificate stops working. Raises IdentityError if the invitation is unknown, expired,
        revoked, replaced, or used already by another key; and whatever `issue` raises: then nothing has changed.
        """
        with self._transaction() as connection:
            site, state, not_after, bound_to = _invitation(connection, serial)
            if state == "used":
                return _answer_again(connection, serial, key_fingerprint, site)
            _check_open(site, state, not_after, now)
            if bound_to not in (None, key_fingerprint):
                raise _another_key(site)
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

    def challenge(self, serial: str) -> str:
        """Return what a request has to answer with this invitation: its serial where it renews; empty otherwise."""
        with self._connection() as connection:
            *_, bound_to = _invitation(connection, serial)
        return serial if bound_to else ""

    @_with_room
    def renew(
        self, serial: str, until: datetime, lifetime: timedelta, issue: Callable[[], Issued], now: datetime
    ) -> bytes:
        """Return the newest certificate (PEM) of the site that calls with the certificate `serial`, for the same key.

        A new one, which would end at `until`, is made by `issue` only where that is worth it (see
        `fedcervix.transport.renewal`). The present one stays valid. Raises IdentityError where it is not in force.
        """
        with self._transaction() as connection:
            site, written, key_fingerprint = _certificate(connection, serial)
            if (state := self._state(serial, written)) not in IN_FORCE:
                raise _closed(site, state)
            newest = connection.execute(
                "SELECT not_after, certificate FROM credentials WHERE site = ? AND state IN ('issued', 'valid')"
                " AND role = 'site' ORDER BY state LIMIT 1",  # issued before valid
                (site,),
            ).fetchone()
            if not renewal.gains(until, _time(newest[0]), lifetime):
                return bytes(newest[1])
            certificate, certificate_serial, certificate_end = issue()
            connection.execute(
                "DELETE FROM credentials WHERE site = ? AND role = 'site' AND invitation IS NULL"
                " AND (state = 'issued' OR state = 'replaced' AND not_after < ?)",
                (site, _text(now)),
            )
            connection.execute(
                "INSERT INTO credentials VALUES (?, ?, 'site', 'issued', ?, ?, NULL, ?, ?)",
                (certificate_serial, site, _text(now), _text(certificate_end), key_fingerprint, certificate),
            )
            return certificate

    @_with_room
    def put_in_force(self, serial: str, now: datetime) -> None:
        """A renewed certificate was used: from now on it is the only one of its site."""
        with self._transaction() as connection:
            site, state, _ = _certificate(connection, serial)
            if state == "issued":
                _close(connection, "replaced", now, site=site, role="site")
                connection.execute(
                    "UPDATE credentials SET state = 'valid', since = ? WHERE serial = ?", (_text(now), serial)
                )

    def roll(self) -> Roll:
        """Return every credential as it stands."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT serial, site, role, state, since, not_after, invitation, key_fingerprint, certificate"
                " FROM credentials"
            ).fetchall()
        credentials = {
            serial: Credential(site, role, self._state(serial, state), _time(since), _time(not_after), *more)
            for serial, site, role, state, since, not_after, *more, _ in rows
        }
        return Roll(
            credentials,
            {
                site: bytes(certificate)
                for serial, site, role, *_, certificate in rows
                if role == "site" and credentials[serial].state in IN_FORCE
            },
        )

    def _state(self, serial: str, written: str) -> str:
        return "revoked" if written in IN_FORCE and serial in self._shut_out else written

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
        """Revoke all certificates in force and the open invitation of `site`; return how many there were (0 to 3).

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
                "SELECT site, role, state, since, not_after, key_fingerprint FROM credentials"
                " WHERE state IN ('valid', 'revoked') ORDER BY site, since"
            ).fetchall()
        entries: dict[str, SiteEntry] = {}
        for site, role, state, since, not_after, key in rows:
            entry = SiteEntry(site, _site_state(role, state), _time(since), _time(not_after), key or "")
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
    """Move the credentials of a site and role that are in force into `state`; return how many there were."""
    return connection.execute(
        "UPDATE credentials SET state = ?, since = ? WHERE site = ? AND role = ? AND state IN ('issued', 'valid')",
        (state, _text(now), site, role),
    ).rowcount


def _invitation(connection: sqlite3.Connection, serial: str) -> tuple[str, str, datetime, str | None]:
    """Return (site, state, end, the key that it is bound to) of an invitation."""
    row = connection.execute(
        "SELECT site, state, not_after, key_fingerprint FROM credentials WHERE serial = ? AND role = 'enroll'",
        (serial,),
    ).fetchone()
    if row is None:
        raise _unknown_invitation()
    return row[0], row[1], _time(row[2]), row[3]


def _certificate(connection: sqlite3.Connection, serial: str) -> tuple[str, str, str]:
    """Return (site, state, fingerprint of its key) of a site's certificate."""
    row: tuple[str, str, str] | None = connection.execute(
        "SELECT site, state, key_fingerprint FROM credentials WHERE serial = ? AND role = 'site'", (serial,)
    ).fetchone()
    if row is None:
        raise IdentityError(
            "the coordinator does not know this certificate",
            cause="its home folder was restored from a backup while the site was connected",
            next_step=RENEW.format(site="SITE"),
        )
    return row


def _closed(site: str, state: str) -> IdentityError:
    return IdentityError(
        f"the certificate of site {site} is {state}",
        cause=CLOSED_CERTIFICATE[state],
        next_step=(ASK_AGAIN if state == "revoked" else RENEW).format(site=site),
    )


def _another_key(site: str) -> IdentityError:
    return IdentityError(
        f"this invitation renews the certificate of site {site} for another key than the one that asks",
        cause="it is used in another home folder than the site's own, or the site's key was made anew",
        next_step=f"use it in the site's home folder; where its key is lost: `coordinator invite {site}`",
    )


def _unknown_invitation() -> IdentityError:
    return IdentityError(
        "the coordinator does not know this invitation",
        cause="the coordinator was set up again, or restored from a backup that is older than the invitation",
        next_step=ASK_AGAIN.format(site="SITE"),
    )


def _used_up(site: str, state: str) -> IdentityError:
    return IdentityError(
        f"the invitation of site {site} was already used, and the site's certificate is {state}",
        cause=CLOSED_CERTIFICATE[state],
        next_step=ASK_AGAIN.format(site=site),
    )


def used_by_another(site: str) -> IdentityError:
    """Return the error for an invitation that its site has already used."""
    return IdentityError(
        f"the invitation of site {site} was already used",
        cause="the site has joined already; if nobody at the site did this, another person has used the file:"
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
    if state not in IN_FORCE:
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
    "state": ("issued", "valid", "used", "replaced", "revoked").__contains__,
    "since": _is_time,
    "not_after": _is_time,
    "invitation": bool,
    "key_fingerprint": bool,
}
"""column of `credentials` -> whether it may hold a text; NULL stands where SQLite allows it"""
