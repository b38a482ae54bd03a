"""How a coordinator's home folder is made: all of it or nothing; and how its own certificates are renewed."""

from __future__ import annotations

import contextlib
import difflib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from coordinator.home.home import Home
from coordinator.home.template import coordinator_toml
from fedcervix.core.plan import SITE_NAME, SITES_MAX
from fedcervix.core.profiles import PROFILES
from fedcervix.disk.files import FOLDER_MODE, aside, make_folder, write_secret, write_whole
from fedcervix.disk.ownership import check_private
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, RunError
from fedcervix.transport import identity
from fedcervix.transport.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """What `coordinator init` is told. Raises ConfigError where a value cannot be used: before anything is written."""

    name: str
    advertise: str
    bind: str
    sites: tuple[str, ...]
    profile: str

    def __post_init__(self) -> None:
        for option, problem, mended in self._problems():
            raise ConfigError(
                f"--{option} {problem}",
                cause="the configuration does not accept this value; nothing was written",
                next_step=f"give the command again{f' with --{option} {mended}' if mended else ''}",
            )

    def _problems(self) -> Iterator[tuple[str, str, str]]:
        """Yield (option, what is wrong with it, a value that would do, or nothing)."""
        if not SITE_NAME.fullmatch(self.name):
            yield "name", f"is a federation's name, {NAMED}; found {self.name!r}", _spelt(self.name)
        yield from _wrong_address("advertise", self.advertise)
        yield from _wrong_address("bind", self.bind)
        wrong = [site for site in self.sites if not SITE_NAME.fullmatch(site)]
        if wrong:
            yield "sites", f"lists names of {NAMED}; found {wrong[0]!r}", ",".join(map(_spelt, self.sites))
        if not self.sites or len(set(self.sites)) < len(self.sites) or len(self.sites) > SITES_MAX:
            yield "sites", f"lists 1 to {SITES_MAX} sites, each once; found {', '.join(self.sites)!r}", ""
        if self.profile not in PROFILES:
            near = difflib.get_close_matches(self.profile, PROFILES, n=1)
            yield "profile", f"is one of {', '.join(PROFILES)}; found {self.profile!r}", "".join(near)


NAMED = "1 to 63 characters: a-z, 0-9 and inner hyphens"


def _spelt(name: str) -> str:
    """Return the allowed name that is nearest to the given one; empty if nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")


def _wrong_address(option: str, text: str) -> Iterator[tuple[str, str, str]]:
    try:
        Address.parse(text, port_min=0)
    except ValueError as error:
        yield option, str(error), ""


def create(home: Home, told: Founding, now: datetime) -> None:
    """Make a home folder with authority, certificates and a commented configuration; all of it or nothing.

    Raises RunError where the folder holds something, ConfigError, StorageError.
    """
    _check_free(home)
    with _filled(home.folder) as making:
        new = Home(making)
        authority_key = identity.new_key()
        certificate = identity.new_authority(told.name, authority_key, now)
        make_folder(new.key_file(""))
        write_secret(new.key_file("authority.key"), authority_key)
        write_whole(new.key_file("authority.crt"), certificate)
        write_whole(new.config_file, coordinator_toml(**asdict(told)).encode())
        certify_self(new, now)  # reads back what was written
        new.plan("csfssl")


def _check_free(home: Home) -> None:
    """Raise RunError unless a home can be made here: the folder is missing or empty."""
    if home.has(home.config_file):
        raise RunError(
            f"{home.folder} is already a coordinator's home",
            cause="`init` was run before",
            next_step=f"look at {home.config_file}; for another federation: coordinator --home ANOTHER-FOLDER init",
        )
    with disk(home.folder, "use"):
        check_private(home.folder, "or name another folder: coordinator --home ANOTHER-FOLDER init")
        there = sorted(path.name for path in home.folder.iterdir()) if home.folder.exists() else []
    if there:
        raise RunError(
            f"{home.folder} is not empty: {', '.join(there[:5])}{', ...' if len(there) > 5 else ''}",
            cause="it is a site's home, or contains other files; a home needs its own folder",
            next_step="name a folder that does not exist yet: coordinator --home ANOTHER-FOLDER init",
        )


@contextlib.contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill.

    It becomes `folder` when the block ends without an error; otherwise nothing remains. An existing empty folder may be
    a mount point, which cannot be replaced: it is filled in place. The configuration is written last, because it marks
    a folder as a home.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    making = aside(folder if new else folder / "home")
    try:
        make_folder(making.parent)
        with disk(making, "write"):
            making.mkdir(mode=FOLDER_MODE)  # it must not be there: another user may have made it
        yield making
        with disk(folder, "write"):
            if new:
                making.replace(folder)
            else:
                for child in sorted(making.iterdir(), key=lambda child: child.is_file()):
                    child.replace(folder / child.name)
                making.rmdir()
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        with contextlib.suppress(OSError):
            for place in new[1:]:  # folders above it that were made for it
                place.rmdir()
        raise


OWN: Mapping[str, identity.Role] = {"server": "coordinator", "operator": "operator"}
"""names of the files of the coordinator's own certificates"""


def certify_self(home: Home, now: datetime) -> None:
    """Make the server's and the operator's keys and certificates anew; done at init and at every start."""
    for name in OWN:
        write_secret(home.key_file(f"{name}.key"), identity.new_key())
    renew_self(home, now)


def renew_self(home: Home, now: datetime) -> None:
    """Make the server's and the operator's certificates anew, for the keys that are there.

    Whoever reads key and certificate meanwhile reads two that belong together.
    """
    authority, config = home.authority(), home.config()
    advertised, bound = (Address.parse(text, port_min=0) for text in (config.listen.advertise, config.listen.bind))
    hosts = {advertised.host, "localhost", "127.0.0.1", "::1", *([] if bound.is_everywhere else [bound.host])}
    for name, role in OWN.items():
        key, who = identity.public_key(home.pem(f"{name}.key")), identity.Identity(config.federation.name, role)
        named = sorted(hosts) if role == "coordinator" else ()
        certificate = identity.issue(authority, key, who, now, config.certificates.own, named)
        write_whole(home.key_file(f"{name}.crt"), certificate)
