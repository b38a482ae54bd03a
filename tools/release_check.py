"""Do what an institution without a network does with a release, and measure it: `make release-check`.

Each archive of wheels in the folder is unpacked and installed, as the runbook says, and its programs run. All of that
happens in a network namespace that has no device (`unshare --net`), where the system permits it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import click

from fedcervix.errors import ConfigError
from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.printing import say
from tools.constraints import PROFILES
from tools.packages import FILTER
from tools.programs import run
from tools.wheelhouse import INSTALL

OFFLINE = ("unshare", "--map-root-user", "--net")
COORDINATOR_BYTES_MAX = 200_000_000
TRIED = {
    "coordinator": ("coordinator --help", "coordinator --home home init --advertise localhost:8443"),
    "site": (
        "site-agent --help",
        "site-agent data phantom images --women 4 --institution nhs",
        "site-agent data check images/manifest.csv",
    ),
}
"""commands of each role, which run in the folder of the archive"""


def offline() -> tuple[str, ...]:
    """Return the words before a command that takes the network from it; none where the system refuses that."""
    if shutil.which(OFFLINE[0]) is None or subprocess.run([*OFFLINE, "true"], check=False).returncode:
        return ()
    return OFFLINE


def try_out(archive: Path, profile: str, work: Path) -> int:
    """Install an archive below the folder `work` and run its programs; return the size of the environment in bytes.

    Raises:
        ConfigError: a command failed; it has said why.

    """
    with tarfile.open(archive) as packed:
        packed.extractall(work, **FILTER)  # noqa: S202 (a release that we made)
    house, environment = work / archive.stem, work / "environment"
    commands = [f"{shlex.quote(sys.executable)} -m venv {environment}"]
    commands += [INSTALL.replace("/opt/fedcervix", str(environment)), f"{environment}/bin/python -m pip check"]
    commands += [f"{environment}/bin/{command}" for command in TRIED[profile.partition("-")[0]]]
    for command in commands:
        run([*offline(), *shlex.split(command)], house, silent=True)
    return sum(path.lstat().st_blocks * 512 for path in environment.rglob("*"))


def profile_of(archive: Path) -> str:
    """Return the profile that an archive of wheels is for, by its name."""
    return next(profile for profile in PROFILES if f"-{profile}-" in archive.name)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(folder: Path) -> None:
    """Check the hashes of a release in FOLDER; install and try its archives without a network."""
    run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], folder)
    say("without a network" if offline() else "The system permits no `unshare --net`: only pip is told to ask nobody.")
    for archive in sorted(folder.glob("*-cp3*.tar")):
        profile = profile_of(archive)
        with tempfile.TemporaryDirectory(prefix="fedcervix-check-") as work:
            size_bytes = try_out(archive.absolute(), profile, Path(work))
        say(f"{profile}: {size_bytes / 1e6:.0f} MB installed")
        if profile == "coordinator" and size_bytes > COORDINATOR_BYTES_MAX:
            raise ConfigError(
                f"the coordinator's environment has more than {COORDINATOR_BYTES_MAX / 1e6:.0f} MB",
                cause="a package was added, or a new version of one is larger",
                next_step="look which: du -h PACKAGES | sort -h",
            )


if __name__ == "__main__":
    exits(main)
