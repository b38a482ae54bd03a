"""What can be known before round 1: whether the images suffice, and what a round costs in time, memory and disk.

`site-agent check` prints it, and the agent asks for it before it tells the coordinator that it is ready: a site that
cannot train ends at once, and is seen to have failed, instead of letting the others wait. The worker process finds it
out (`site_agent.worker.examining`); here are the values, without torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.errors import StorageError

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run's plan costs at this site."""

    device: str
    step_s: float | None
    """one step of N images; None where it was not timed (several training processes)"""
    steps_per_round: int
    rounds_max: int
    decode_s: float
    """for the images that are not decoded yet"""
    memory_bytes: int
    """the largest that this process has been"""
    memory_free_bytes: int
    """what was available before"""
    disk_bytes: int
    disk_free_bytes: int

    def check(self, folder: object) -> None:
        """Raise StorageError where the disk has no room for a round."""
        if self.disk_bytes > self.disk_free_bytes:
            raise StorageError(
                f"a round needs {_size(self.disk_bytes)} at {folder}; {_size(self.disk_free_bytes)} are free",
                cause="models, checkpoints and decoded images are in the home folder",
                next_step=f"free some space (df -h {folder}), or move the home folder to a larger disk",
            )

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return what is worth telling a person: (subject, finding)."""
        return (
            ("time", self._time()),
            ("memory", f"{_size(self.memory_bytes)} for training; {_size(self.memory_free_bytes)} were available"),
            ("disk", f"{_size(self.disk_bytes)} for a round; {_size(self.disk_free_bytes)} are free"),
        )

    def _time(self) -> str:
        decoding = f"; before round 1, decoding takes about {_span(self.decode_s)}" if self.decode_s >= 1 else ""
        if self.step_s is None:
            return f"{self.steps_per_round} steps a round on {self.device}; not timed{decoding}"
        round_s = self.step_s * self.steps_per_round
        all_rounds = (
            f"; all {self.rounds_max} rounds: {_span(round_s * self.rounds_max)}" if self.rounds_max > 1 else ""
        )
        steps = f"{self.steps_per_round} step{'' if self.steps_per_round == 1 else 's'} of {_span(self.step_s)}"
        return f"a round is about {_span(round_s)} on {self.device} ({steps}){all_rounds}{decoding}"


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

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return what is worth telling a person: (subject, finding)."""
        unread = f", {self.unreadable} unreadable" if self.unreadable else ""
        shared_pictures = f", {self.shared_pictures} pictures under several patients" if self.shared_pictures else ""
        images = f"{self.images} images of {self.women} women{unread}{shared_pictures} (details: {self.details})"
        notes = (("note", remark) for remark in self.remarks)
        return (("images", images), *notes, *(self.cost.lines() if self.cost else ()))


def _size(count_bytes: int) -> str:
    return f"{count_bytes / 2**30:.1f} GiB" if count_bytes >= 2**29 else f"{count_bytes / 2**20:.0f} MiB"


def _span(seconds: float) -> str:
    """Return a duration in a unit that a person reads at a glance."""
    for unit_s, unit in ((DAY_S, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"
