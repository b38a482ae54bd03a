"""What can be known before round 1: whether the images suffice, and what a round costs in time, memory and disk.

`site-agent check` prints it, and the agent asks for it before it tells the coordinator that it is ready: a site that
cannot train ends at once, and is seen to have failed, instead of letting the others wait. The worker process finds it
out (`site_agent.worker.examining`); here are the values, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedcervix.core.pace import SitePace, Span
from fedcervix.disk.reserve import FREE_BYTES_MIN
from fedcervix.errors import StorageError
from fedcervix.runtime.quantities import durations, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run's plan costs at this site."""

    device: str
    epochs_per_round: int
    rounds_max: int
    pace: SitePace
    """what was measured; the line to the coordinator is not in it"""

    def check(self, folder: object) -> None:
        """Raise StorageError where the disk has no room for a run: a transfer would wait for it without end."""
        needed, free = self.pace.disk_bytes, self.pace.disk_free_bytes
        if needed + FREE_BYTES_MIN > free:
            raise StorageError(
                f"a run needs {size(needed)} at {folder}, and {size(FREE_BYTES_MIN)} that stay free; "
                f"{size(free)} are free",
                cause="models, checkpoints and decoded images are in the home folder",
                next_step=f"free some space (df -h {folder}), or move the home folder to a larger disk",
            )

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return what is worth telling a person: (subject, finding)."""
        pace = self.pace
        return (
            ("time", self._time()),
            ("memory", f"{size(pace.memory_bytes)} for training; {size(pace.memory_free_bytes)} were available"),
            ("disk", f"{disk_words(pace)}; {size(pace.disk_free_bytes)} are free"),
        )

    def _time(self) -> str:
        pace, steps = self.pace, self.pace.steps * self.epochs_per_round
        decoding = f"; before round 1, decoding takes {durations(pace.decode)}" if pace.decode_high_s >= 1 else ""
        if not pace.step_high_s:
            return f"{steps} steps a round on {self.device}; not timed{decoding}"
        round_s = pace.step.times(steps) + Span(pace.task_s, pace.task_s) + pace.score
        all_rounds = f"; all {self.rounds_max} rounds: {durations(round_s.times(self.rounds_max))}"
        each = f"{steps} step{'' if steps == 1 else 's'} of {durations(pace.step)}"
        return (
            f"a round takes {durations(round_s)} on {self.device} ({each}, scoring {durations(pace.score)})"
            f"{all_rounds if self.rounds_max > 1 else ''}{decoding}"
        )


def disk_words(pace: SitePace) -> str:
    """Return how much room a run needs."""
    return f"{size(pace.disk_bytes)} at once, {size(pace.disk_left_bytes)} stay after the run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look at the site's images has found, and the cost of a plan where one was given."""

    images: int
    training_images: int
    """of them, those that a round trains with"""
    women: int
    unreadable: int
    shared_pictures: int
    remarks: tuple[str, ...]
    """what the site should know of its manifest, a line each"""
    cost: Cost | None
    details: str
    """the command that says more"""
    unreadable_for: Mapping[str, int] = field(default_factory=dict)
    """why images cannot be read, in words that name none -> how many"""
    aside_for: Mapping[str, int] = field(default_factory=dict)
    """finding for which images are set aside, as the site's policy says -> how many"""

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return what is worth telling a person: (subject, finding)."""
        unread = f", {self.unreadable} unreadable" if self.unreadable else ""
        shared_pictures = f", {self.shared_pictures} pictures under several patients" if self.shared_pictures else ""
        images = f"{self.images} images of {self.women} women{unread}{shared_pictures} (details: {self.details})"
        notes = (("note", remark) for remark in self.remarks)
        return (("images", images), *notes, *(self.cost.lines() if self.cost else ()))
