"""Attack real federations on this machine, one attack after the other, and say what came of each.

python -m tests.e2e.hostile.field --seconds 6 --seed 0
python -m tests.e2e.hostile.field --attacks no-body,idle
python -m tests.e2e.hostile.field --programs FOLDER     the programs of another checkout's environment (its bin)
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import click

from tests.e2e.disks import MayNotMountError
from tests.e2e.hostile.field.attacks import ATTACKS
from tests.e2e.hostile.field.battle import Finding, fight
from tests.e2e.hostile.field.ground import Ground, Programs
from tests.e2e.hostile.field.verdict import HEAD, broken, row, table
from tests.e2e.loopback import BIN


@click.command()
@click.option("--attacks", default="", help="Names, separated by commas. Default: all.")
@click.option("--seconds", default=6.0, show_default=True, help="Of each of the two phases of attack.")
@click.option("--seed", default=0, show_default=True, help="Of what attackers draw.")
@click.option("--programs", type=click.Path(path_type=Path, exists=True), default=BIN, help="Folder of the programs.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder to work in. Default: a temporary folder, kept.")
@click.option("--json", "to", type=click.Path(path_type=Path), help="File for everything that was found.")
@click.option("--list", "only_list", is_flag=True, help="Print the attacks and end.")
def main(
    attacks: str, seconds: float, seed: int, programs: Path, folder: Path | None, to: Path | None, only_list: bool
) -> None:
    """Attack; exit code 1 where a bound was broken."""
    if only_list:
        for name, attack in ATTACKS.items():
            click.echo(f"{name:26} {attack.needs:12} {attack.words}")
        return
    names = [name for name in attacks.split(",") if name] or [*ATTACKS]
    unknown = sorted(set(names) - set(ATTACKS))
    if unknown:
        raise click.UsageError(f"no such attack: {', '.join(unknown)}; --list prints them")
    here = (folder or Path(tempfile.mkdtemp(prefix="hostile-"))).absolute()
    template = Ground(here / "enrolled", Programs(programs.absolute()))
    template.enrol()
    findings: list[Finding] = []
    for name in names:
        findings.append(_fought(template, here / name, name, seconds, seed))
        if to is not None:  # also where a later one is interrupted
            to.write_text(json.dumps([_plain(finding) for finding in findings], indent=1))
    click.echo(table([row(finding) for finding in findings]))
    sys.exit(1 if any(any(broken(finding)) for finding in findings) else 0)


def _fought(template: Ground, folder: Path, name: str, seconds: float, seed: int) -> Finding:
    try:
        finding = fight(template, folder, name, seconds=seconds, seed=seed)
    except MayNotMountError as error:
        finding = Finding(name, ATTACKS[name], skipped=str(error))
    except AssertionError as error:  # a process did not begin
        finding = Finding(name, ATTACKS[name], trouble=str(error))
    click.echo(" ".join(row(finding)), err=True)
    return finding


def _plain(finding: Finding) -> dict[str, object]:
    """Return a finding as JSON has it."""
    return {
        "attack": finding.name,
        "tries": finding.attack.words,
        "row": dict(zip(HEAD, row(finding), strict=True)),
        "failures": {"without": finding.quiet.failures, "with": finding.attacked.failures},
        "commands": {name: dataclasses.asdict(command) for name, command in finding.commands.items()},
        "counts": finding.counts,
        "broken": [*broken(finding)],
    }


if __name__ == "__main__":
    main()
