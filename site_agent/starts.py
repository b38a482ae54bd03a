"""What a classifier can begin from: a start's name in commands and files, and its title, as the paper prints it."""

from __future__ import annotations

from fedcervix.core.modes import title_of

UNTRAINED = ("random", "imagenet")
"""starts without contrastive training: no folder below models/"""
TITLES = {"random": "Random", "imagenet": "ImageNet", "ssl": "SSL", "cssl": "CSSL", "csfssl": "CSFSSL"}
RING = "ppfssl-from-"
"""a ring is named by the site that begins it: ppfssl-from-nhs"""


def title(start: str) -> str:
    """Return a start's title: Random, SSL, PPFSSL_NHS."""
    return TITLES.get(start) or title_of("ppfssl", (start.removeprefix(RING),))


def is_ring(start: str) -> bool:
    """Say whether a start is the model of a ring."""
    return start.startswith(RING)


def is_federated(start: str) -> bool:
    """Say whether a start is the model of a federation."""
    return start == "csfssl" or is_ring(start)
