"""Kill, cut, corrupt and fill real federations until so many kills are done; each must end as an undisturbed one.

python -m tests.e2e.chaos --kills 200 --mode both --seed 0
python -m tests.e2e.chaos --kills 400 --mode sealed                  rings whose models travel under seal
python -m tests.e2e.chaos --kills 400 --mode secure --seed 0         csfssl with secure sums
python -m tests.e2e.chaos --mode ppfssl --seed 0 --only 7 --show     one federation again
python -m tests.e2e.chaos --scenario cut --seconds 360               a network cut for six minutes, with bytes
python -m tests.e2e.chaos --scenario recovery                        how long it takes to be back
python -m tests.e2e.chaos --scenario slow                            a line of 60 KB/s
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from tests.e2e.chaos import cuts, recovery, slow
from tests.e2e.chaos.campaign import MODES, SECURE, Campaign
from tests.e2e.chaos.schedule import KILLS, MEANING, Fault
from tests.e2e.chaos.storm import Story

CUT_LEASE_S = 60.0
"""the default: within six minutes the site is given up as silent, and comes back"""
CUT_NUMBERS = 25_000_000
"""a model of 100 MB"""
SLOW_BYTES_A_S, SLOW_NUMBERS = 60e3, 1_250_000
"""a model of 5 MB: 83 s"""


def line(story: Story) -> str:
    """Return what became of one federation, on one line."""
    by_fault: Counter[Fault] = Counter()
    for (fault, _), count in story.struck.items():
        by_fault[fault] += count
    blows = ", ".join(f"{fault} {by_fault[fault]}" for fault in Fault if by_fault[fault])
    return (
        f"{story.schedule.setting!s:17} no. {story.schedule.number:<3} {story.seconds:5.1f} s  "
        f"kills {story.kills:2}  ok  longest wait {story.still_s:4.1f} s  {blows}"
        + (f"; {story.resumed} trainings went on from a checkpoint" if story.resumed else "")
        + "".join(f"\n    {note}" for note in story.notes)
    )


def table(stories: Iterable[Story]) -> str:
    """Return how often what was done to whom."""
    struck: Counter[tuple[Fault, str]] = Counter()
    for story in stories:
        struck.update(story.struck)
    rows = [f"{'fault':10} {'coordinator':>11} {'sites':>6}"]
    rows += [f"{f:10} {struck[f, 'coordinator']:11} {struck[f, 'site']:6}   {MEANING[f]}" for f in Fault]
    killed = [sum(struck[f, role] for f in KILLS) for role in ("coordinator", "site")]
    return "\n".join([*rows, f"{'kills':10} {killed[0]:11} {killed[1]:6}"])


@click.command()
@click.option("--kills", default=200, show_default=True, help="How many, in each mode.")
@click.option("--mode", type=click.Choice(list(MODES)), default="both", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the schedules.")
@click.option("--only", type=int, help="This one federation, by its number.")
@click.option("--show", is_flag=True, help="Print each schedule.")
@click.option("--scenario", type=click.Choice(["chaos", "cut", "recovery", "slow"]), default="chaos", show_default=True)
@click.option("--seconds", default=360.0, show_default=True, help="How long the network is cut.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder to work in. Default: a temporary folder, kept.")
def main(
    kills: int,
    mode: str,
    seed: int,
    only: int | None,
    show: bool,
    scenario: str,
    seconds: float,
    folder: Path | None,
) -> None:
    """Federations under faults; the first thing that must not be ends the program with exit code 1."""
    here, begun_s = (folder or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute(), time.monotonic()
    if scenario == "cut":
        kept = _cut(here, seconds)
    elif scenario == "recovery":
        kept = _recover(here)
    elif scenario == "slow":
        found = slow.passage(here, bytes_a_s=SLOW_BYTES_A_S, numbers=SLOW_NUMBERS)
        click.echo(found)
        kept = found.kept
    else:
        kept = _storm(Campaign(here, seed, mode == SECURE, click.echo if show else None), mode, kills, only)
    click.echo(f"{time.monotonic() - begun_s:.0f} s in all")
    sys.exit(0 if kept else 1)


def _storm(campaign: Campaign, mode: str, kills: int, only: int | None) -> bool:
    try:
        for each in MODES[mode]:
            for story in campaign.stories_of(each, kills) if only is None else [campaign.story(each, only)]:
                click.echo(line(story))
    except AssertionError as violation:
        click.echo("\n".join(["VIOLATION", str(violation), *getattr(violation, "__notes__", [])]))
    else:
        campaign.kept = True
    click.echo(table(campaign.told))
    rounds = sum(story.rounds for story in campaign.told)
    click.echo(
        f"{len(campaign.told)} federations, {rounds} rounds, each with every site and the undisturbed run's digest"
    )
    return campaign.kept


def _cut(folder: Path, seconds: float) -> bool:
    kept = True
    for cut in cuts.cut_all(folder, seconds, numbers=CUT_NUMBERS, lease_s=CUT_LEASE_S):
        click.echo(cut)
        for complaint in cuts.complaints(cut):
            click.echo(f"  VIOLATION: {complaint}")
            kept = False
    return kept


def _recover(folder: Path) -> bool:
    kept = True
    for finding in recovery.measure(folder):
        click.echo(finding)
        kept = kept and finding.kept
    return kept


if __name__ == "__main__":
    main()
