"""Kill, cut, corrupt and fill real federations until so many kills are done; each must end as an undisturbed one.

python -m tests.e2e.chaos --kills 200 --mode both --seed 0
python -m tests.e2e.chaos --mode ppfssl --seed 0 --only 7 --show     one federation again
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click

from fedcervix.plan import Mode
from tests.e2e.chaos.schedule import KILLS, MEANING, Fault, Setting, draw
from tests.e2e.chaos.storm import Ground, Story, undisturbed, weather
from tests.e2e.chaos.verdict import Right
from tests.e2e.collections import draw_collections

MODES: dict[str, tuple[Mode, ...]] = {"csfssl": ("csfssl",), "ppfssl": ("ppfssl",), "both": ("csfssl", "ppfssl")}


@dataclass
class Chaos:
    """Federations one after the other, and what became of them."""

    folder: Path
    seed: int
    rights: dict[Setting, Right] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)

    def go(self, mode: Mode, number: int, *, show: bool) -> Story:
        """Let one federation happen. Raises ViolationError."""
        schedule = draw(self.seed, number, mode)
        if show:
            click.echo(schedule)
        right = self._right(schedule.setting)
        try:
            story = weather(schedule, right, self._ground(f"{mode}-{number}"))
        except AssertionError as violation:  # of the storm, or of a wait that was too long
            violation.add_note(f"{schedule}\nlogs: {self.folder / f'{mode}-{number}' / 'logs'}")
            violation.add_note(
                f"again: python -m tests.e2e.chaos --mode {mode} --seed {self.seed} --only {number} --show"
            )
            raise
        self.stories.append(story)
        return story

    def _ground(self, name: str) -> Ground:
        collections = self.folder / "collections"
        if not collections.exists():
            draw_collections(collections)
        return Ground(self.folder / name, {site.name: site for site in collections.iterdir()})

    def _right(self, setting: Setting) -> Right:
        if setting not in self.rights:
            self.rights[setting] = undisturbed(setting, self._ground(f"right {setting}".replace(" ", "-")))
        return self.rights[setting]


def line(story: Story) -> str:
    """Return what became of one federation, on one line."""
    by_fault: Counter[Fault] = Counter()
    for (fault, _), count in story.struck.items():
        by_fault[fault] += count
    blows = ", ".join(f"{fault} {by_fault[fault]}" for fault in Fault if by_fault[fault])
    setting = story.schedule.setting
    return (
        f"{setting!s:17} no. {story.schedule.number:<3} {story.seconds:5.1f} s  kills {story.kills:2}  ok  "
        f"longest wait {story.still_s:4.1f} s  {blows}"
        + (f"; {story.resumed} trainings went on from a checkpoint" if story.resumed else "")
        + "".join(f"\n    {note}" for note in story.notes)
    )


def table(stories: list[Story]) -> str:
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
@click.option("--seed", default=0, show_default=True, help="Of the schedules.")
@click.option("--only", type=int, help="This one federation, by its number.")
@click.option("--show", is_flag=True, help="Print each schedule.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; kept. Default: a temporary folder.")
def main(
    kills: int, mode: Literal["csfssl", "ppfssl", "both"], seed: int, only: int | None, show: bool, folder: Path | None
) -> None:
    """Federations under faults; the first violation ends the program with exit code 1, and its logs are kept."""
    made = Path(tempfile.mkdtemp(prefix="chaos-")) if folder is None else folder
    chaos, begun_s = Chaos(made.absolute(), seed), time.monotonic()
    try:
        for each in MODES[mode]:
            _federate(chaos, each, kills, only, show=show)
    except AssertionError as violation:
        click.echo("\n".join(["VIOLATION", str(violation), *getattr(violation, "__notes__", [])]))
        sys.exit(1)
    finally:
        click.echo(table(chaos.stories))
        click.echo(f"{len(chaos.stories)} federations, {time.monotonic() - begun_s:.0f} s")


def _federate(chaos: Chaos, mode: Mode, kills: int, only: int | None, *, show: bool) -> None:
    done = number = 0
    while done < kills:
        story = chaos.go(mode, number if only is None else only, show=show)
        click.echo(line(story))
        done, number = done + story.kills, number + 1
        if only is not None:
            return


if __name__ == "__main__":
    main()
