"""Federations one after the other, each under the schedule of its number, until enough was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.chaos.schedule import SEALED, Kind, Schedule, Setting, draw
from tests.e2e.chaos.storm import Ground, Story, undisturbed, weather
from tests.e2e.chaos.verdict import Right
from tests.e2e.institutions import draw_collections

SECURE = "secure"
"""csfssl with secure sums"""

MODES: dict[str, tuple[Kind, ...]] = {
    "csfssl": ("csfssl",),
    "ppfssl": ("ppfssl",),
    "both": ("csfssl", "ppfssl"),
    SECURE: ("csfssl",),
    SEALED: (SEALED,),
}


@dataclass
class Campaign:
    """What is done, in which folder, from which seed; `told` are the federations that ended as they must."""

    folder: Path
    seed: int
    secure: bool = False
    """with secure sums"""
    show: Callable[[Schedule], None] | None = None
    """is told each schedule before it begins"""
    rights: dict[Setting, Right] = field(default_factory=dict)
    told: list[Story] = field(default_factory=list)
    kept: bool = False

    def stories_of(self, mode: Kind, kills: int) -> Iterator[Story]:
        """Yield federations until so many processes were killed. Raises ViolationError at the first one gone wrong."""
        number = 0
        while kills > 0:
            yield (story := self.story(mode, number))
            kills, number = kills - story.kills, number + 1

    def story(self, mode: Kind, number: int) -> Story:
        """Let one federation happen. Raises ViolationError, which says how to see it again and where its logs are."""
        schedule = draw(self.seed, number, mode, secure=self.secure)
        if self.show is not None:
            self.show(schedule)
        right, name = self._right(schedule.setting), f"{mode}-{number}"
        try:
            story = weather(schedule, right, self._ground(name))
        except AssertionError as violation:  # a ViolationError, or a wait that was too long
            what = f"--mode {SECURE if self.secure else mode} --seed {self.seed} --only {number}"
            again = f"python -m tests.e2e.chaos {what} --show"
            violation.add_note(f"{schedule}\nlogs: {self.folder / name / 'logs'}\nagain: {again}")
            raise
        self.told.append(story)
        return story

    def _right(self, setting: Setting) -> Right:
        if setting not in self.rights:
            name = f"undisturbed {setting}".replace(" ", "-")
            self.rights[setting] = undisturbed(setting, self._ground(name))
        return self.rights[setting]

    def _ground(self, name: str) -> Ground:
        collections = self.folder / "collections"
        if not collections.exists():
            draw_collections(collections)
        return Ground(self.folder / name, {site.name: site for site in collections.iterdir()})
