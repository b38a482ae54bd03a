"""Make everything that a release consists of, from the last commit: `make release` (docs/releasing.md).

fedcervix-VERSION.tar.gz, -py3-none-any.whl    sdist and wheel
fedcervix-VERSION-PROFILE.cdx.json             what a profile consists of (SBOM, CycloneDX)
fedcervix-VERSION-PROFILE-KIND.tar             all wheels of a profile, for machines without a network
fedcervix-VERSION-share.tar                    man pages and shell completion
PROFILE.txt                                    the constraint file of a profile
SHA256SUMS                                     the hashes of all these
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from hashlib import file_digest
from pathlib import Path

import click

from fedcervix import __version__
from fedcervix.errors import ConfigError
from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.printing import say
from tools import packages, shell_files, wheelhouse
from tools.constraints import FOLDER, PROFILES
from tools.programs import ROOT, run

OURS = f"fedcervix-{__version__}"


def write_sbom(python: Path, to: Path) -> None:
    """Write what an environment consists of, as CycloneDX's JSON, without a time and a random number."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python), "--output-reproducible"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(to)]
    run(command)


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder into its SHA256SUMS, for `sha256sum --check`."""
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), "utf-8")


def make(to: Path, profiles: tuple[str, ...]) -> None:
    """Make a release in the folder `to`, which may not exist yet.

    Raises:
        ConfigError: the folder exists; files differ from the commit; torch's CPU builds cannot be reached; a program
            failed, and has said why.

    """
    if to.exists():
        raise ConfigError(
            f"{to} exists", cause="it holds a release, or one that was not finished", next_step=f"rm -r {to}"
        )
    epoch_s = packages.moment_s()
    with tempfile.TemporaryDirectory(prefix="fedcervix-release-") as name:
        work = Path(name)
        packages.export(work / OURS)
        wheel = packages.build(work / OURS, to, epoch_s)
        shell_files.write(work / "share", epoch_s)
        packages.pack(work / "share", to / f"{OURS}-share.tar", epoch_s)
        for profile in sorted(profiles):  # the smallest first: what cannot be reached is known early
            house = work / f"{OURS}-{profile}-{wheelhouse.kind()}"
            say(f"{profile}: fetching its packages")
            wheelhouse.fetch(profile, house, wheel)
            packages.pack(house, to / f"{house.name}.tar", epoch_s)
            write_sbom(wheelhouse.install(house, work / profile), to / f"{OURS}-{profile}.cdx.json")
            shutil.copyfile(FOLDER / f"{profile}.txt", to / f"{profile}.txt")
            for folder in (house, work / profile):
                shutil.rmtree(folder)  # a site's are several GB
    write_sums(to)
    for path in sorted(to.iterdir()):
        path.chmod(0o644)  # to be read by everyone, unlike what our programs write
        say(f"{path.stat().st_size / 1e6:10.1f} MB  {path.name}")


@click.command()
@click.option("--to", type=click.Path(path_type=Path), default=Path("dist"), help="A folder that does not exist yet.")
@click.option("--profile", "profiles", multiple=True, type=click.Choice(list(PROFILES)), help="Default: all of them.")
def main(to: Path, profiles: tuple[str, ...]) -> None:
    """Make a release of the last commit."""
    make(to.absolute(), profiles or tuple(PROFILES))


if __name__ == "__main__":
    exits(main)
