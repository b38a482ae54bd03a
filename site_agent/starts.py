"""What a classifier can begin from: a start's name in commands and files, and its title, as the paper prints it."""

from __future__ import annotations

from collections.abc import Sequence

UNTRAINED = ("random", "imagenet")
"""starts without contrastive training: no folder below models/"""
TITLES = {"random": "Random", "imagenet": "ImageNet", "ssl": "SSL", "cssl": "CSSL", "csfssl": "CSFSSL"}
RING = "ppfssl-from-"
"""a ring is named by the site that begins it: ppfssl-from-nhs"""


def title(start: str) -> str:
    """Return a start's title: Random, SSL, PPFSSL_NHS."""
    return TITLES.get(start) or f"PPFSSL_{start.removeprefix(RING).upper()}"


def start_of(mode: str, sites: Sequence[str]) -> str:
    """Return which start the model of a federation is. `sites`: its roster, in the order of the ring."""
    return f"{RING}{sites[0]}" if mode == "ppfssl" and sites else "csfssl"


def is_ring(start: str) -> bool:
    """Say whether a start is the model of a ring."""
    return start.startswith(RING)


def is_federated(start: str) -> bool:
    """Say whether a start is the model of a federation."""
    return start == "csfssl" or is_ring(start)
