"""What a classifier can begin from: a start's name in commands and files, and its title, as the paper prints it."""

from __future__ import annotations

from fedcervix.core.modes import MODES, Mode, title_of
from fedcervix.core.plan import check

UNTRAINED = ("random", "imagenet")
"""starts without contrastive training: no folder below models/"""
RINGS = tuple(mode for mode, rules in MODES.items() if rules.in_turns)
FLOOR = "floor"
"""no start of a network: a logistic regression of colour and texture, which stands beside them"""
TITLES = {"random": "Random", "imagenet": "ImageNet", "ssl": "SSL", "cssl": "CSSL", FLOOR: "Colour and texture"} | {
    mode: title_of(mode, ()) for mode in MODES if mode not in RINGS
}
FROM = "-from-"
"""a ring's model is named by the mode and the site that begins: ppfssl-from-nhs"""


def mode_of(start: str) -> Mode | None:
    """Return the mode of the federation whose model a start is; None for the other starts."""
    name, ring, _ = start.partition(FROM)
    return next((mode for mode in MODES if mode == name and (mode in RINGS) == bool(ring)), None)


def first_site(start: str) -> str:
    """Return the site that begins a ring; empty for the other starts."""
    return start.partition(FROM)[2]


def title(start: str) -> str:
    """Return a start's title: Random, SSL, PPFSSL_NHS. Raises ValueError for a start that is not known."""
    mode = mode_of(start)
    check(start in TITLES or mode is not None, f"start {start!r} is not known")
    return title_of(mode, (first_site(start),)) if mode else TITLES[start]


def is_ring(start: str) -> bool:
    """Say whether a start is the model of a ring."""
    return mode_of(start) in RINGS


def is_federated(start: str) -> bool:
    """Say whether a start is the model of a federation."""
    return mode_of(start) is not None
