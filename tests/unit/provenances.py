"""Provenances for tests: of one site's images, by a small recipe."""

from __future__ import annotations

from datetime import UTC, datetime

from fedcervix.core.plan import Recipe
from site_agent.data.digests import Data
from site_agent.store.provenance import Provenance, Start

NOW = datetime(2026, 11, 29, 17, 30, tzinfo=UTC)
SMALL = Recipe(architecture="resnet18", image_px=32, width=8)
DATA = Data(collection="c" * 64, learning="1" * 64, splits="5" * 64, test_images="7" * 64)


def provenance(
    label: str, start: Start, *, recipe: Recipe = SMALL, seed: int = 0, data: Data = DATA, weights: str = "w" * 64
) -> Provenance:
    """Return what a classifier's numbers belong to."""
    return Provenance(
        label=label, weights=weights, start=start, recipe=recipe, seed=seed, data=data, made_at=NOW.isoformat()
    )
