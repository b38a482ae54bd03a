"""Two label criteria on the same underlying disease.

"Different criteria were used to label these two datasets as the study objectives differs" (section III-A). Here one
institution's reviewer mostly weighs how dense the white is, the other's how far it extends, with a lower threshold.
So one woman may be a case for one and a control for the other; both also err a little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from site_agent.phantom.anatomy import Disease


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A reviewer: case when the weighted sum of extent and density, as she perceives it, passes the threshold."""

    density_weight: float
    """0 to 1; extent has the rest"""
    threshold: float
    reviewer_deviation: float
    """standard deviation of what the reviewer perceives around what is there"""

    def __post_init__(self) -> None:
        if not 0 <= self.density_weight <= 1:
            raise ValueError(f"density_weight is 0 to 1; found {self.density_weight}")

    def is_case(self, disease: Disease, rng: np.random.Generator) -> bool:
        """Return the reviewer's call. `rng` is hers, for this woman alone."""
        weight = self.density_weight
        seen = weight * disease.density + (1 - weight) * disease.extent
        return bool(seen + rng.normal(0, self.reviewer_deviation) > self.threshold)


MOSTLY_DENSITY = Criterion(density_weight=0.8, threshold=0.50, reviewer_deviation=0.05)
MOSTLY_EXTENT = Criterion(density_weight=0.2, threshold=0.46, reviewer_deviation=0.05)
