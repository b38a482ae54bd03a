"""Every attack: its name, what it tries, what it needs, and what must not come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Literal

from tests.e2e.hostile.field import flooding, holding, models
from tests.e2e.hostile.field.attacker import NUMBERS, Attacker

Needs = Literal["certificate", "revoked", "invitation", "nothing"]
"""a site's certificate; one that was revoked; the certificate of an invitation that is used up; no certificate"""
FEW_DESCRIPTORS = "1024:"
"""the soft limit that services begin with; the hard one is higher"""


@dataclass(frozen=True, slots=True)
class Attack:
    """One thing that somebody tries."""

    attack: Callable[[Attacker], None]
    needs: Needs = "certificate"
    takes_part: bool = False
    """it makes the first model, and the rounds wait for it"""
    anonymous: bool = False
    """none of its calls is let in: so its connections are nobody's, and end when their time for a first call is up"""
    descriptors: str = ""
    """the coordinator's limits, SOFT:HARD"""
    disk_bytes: int = 0
    """the coordinator's home is a disk of this size; 0: an ordinary folder"""
    numbers: int = NUMBERS
    """of the model"""
    forbidden: tuple[str, ...] = ()
    """what the attacker must not count"""

    @property
    def words(self) -> str:
        """What it tries."""
        return (self.attack.__doc__ or "").strip()


def together(me: Attacker) -> None:
    """Do several of these at once, with one certificate."""
    parts = (
        holding.calls_without_a_body,
        holding.many_connections,
        flooding.failures,
        flooding.rapid_reset,
        flooding.long_texts,
        flooding.attach_again,
    )
    for number, part in enumerate(parts):
        attacker = Attacker(me.door, me.left_s, me.seed + number, me.numbers, me.counts)
        Thread(target=part, args=(attacker,), daemon=True).start()
    while me.goes_on():
        me.wait(0.2)


REFUSED = (
    *("negative variance", "step of 1e30", "one number of 3e38", "NaN", "the base itself", "an earlier model"),
    *("2^31 images", "2^63 images", "loss of -1e308", "loss of 1e308", "steps of 2^63", "seconds of -1"),
)

ATTACKS: dict[str, Attack] = {
    "honest": Attack(models.takes_part_honestly, takes_part=True),
    "no-body": Attack(holding.calls_without_a_body),
    "no-body-revoked": Attack(holding.calls_without_a_body, "revoked"),
    "no-body-invitation": Attack(holding.calls_without_a_body, "invitation"),
    "unread": Attack(holding.streams_that_are_not_read),
    "unread-revoked": Attack(holding.streams_that_are_not_read, "revoked"),
    "half-messages": Attack(holding.every_method_without_a_body),
    "half-messages-invitation": Attack(holding.every_method_without_a_body, "invitation"),
    "many-streams": Attack(holding.more_streams_than_are_allowed),
    "many-connections": Attack(holding.many_connections, descriptors=FEW_DESCRIPTORS),
    "idle": Attack(holding.idle_connections, "nothing", descriptors=FEW_DESCRIPTORS),
    "idle-1024": Attack(holding.idle_connections, "nothing", descriptors="1024:1024"),
    "hello": Attack(holding.hello_and_stop, "nothing", descriptors=FEW_DESCRIPTORS),
    "slow-hello": Attack(holding.half_a_hello, "nothing", descriptors=FEW_DESCRIPTORS),
    "reconnect": Attack(holding.reconnect, "nothing"),
    "reconnect-certificate": Attack(holding.reconnect),
    "no-preface": Attack(holding.no_preface, anonymous=True, descriptors=FEW_DESCRIPTORS),
    "slow-reading": Attack(holding.slow_fetch),
    "slow-headers": Attack(holding.slow_headers),
    "failures": Attack(flooding.failures),
    "failures-disk": Attack(flooding.failures, disk_bytes=128 << 20),
    "progress": Attack(flooding.progress),
    "here": Attack(flooding.signs_of_life),
    "flips": Attack(flooding.flips),
    "offers": Attack(flooding.offers),
    "refused-calls": Attack(flooding.refused_calls),
    "refused-calls-revoked": Attack(flooding.refused_calls, "revoked"),
    "refused-calls-invitation": Attack(flooding.refused_calls, "invitation"),
    "enrolments": Attack(flooding.enrolments, "invitation"),
    "tiny-deadlines": Attack(flooding.tiny_deadlines),
    "other-processes": Attack(flooding.other_processes),
    "attach": Attack(flooding.attach_again),
    "long-texts": Attack(flooding.long_texts),
    "gzip-bombs": Attack(flooding.gzip_bombs),
    "rapid-reset": Attack(flooding.rapid_reset),
    "rapid-reset-on-many": Attack(flooding.rapid_reset_on_many),
    "rapid-reset-revoked": Attack(flooding.rapid_reset, "revoked"),
    "made-you-reset": Attack(flooding.made_you_reset),
    "pings": Attack(flooding.pings, anonymous=True),
    "pings-after-a-call": Attack(flooding.pings_after_a_call),
    "settings-after-a-call": Attack(flooding.settings_after_a_call),
    "settings": Attack(flooding.settings, anonymous=True),
    "priorities": Attack(flooding.priorities, anonymous=True),
    "window-updates": Attack(flooding.window_updates, anonymous=True),
    "garbage": Attack(flooding.garbage, anonymous=True),
    "header-bombs": Attack(flooding.header_bombs, anonymous=True),
    "empty-frames": Attack(flooding.empty_frames),
    "endless-headers": Attack(flooding.endless_headers, anonymous=True),
    "blobs": Attack(models.blobs_never_reported, takes_part=True, disk_bytes=160 << 20, numbers=1_000_000),
    "long-headers": Attack(models.long_headers, takes_part=True, numbers=2_000_000),
    "cut-pushes": Attack(models.cut_pushes, takes_part=True),
    "unread-fetches": Attack(models.fetches_that_are_not_read, takes_part=True),
    "slow-pushes": Attack(models.slow_pushes, takes_part=True),
    "together": Attack(together, descriptors=FEW_DESCRIPTORS),
    "poison": Attack(models.poison, takes_part=True, forbidden=tuple(f"accepted {name}" for name in REFUSED)),
    "scores": Attack(
        models.bad_scores, takes_part=True, forbidden=tuple(f"accepted {name}" for name in models.BAD_SCORES)
    ),
}
