"""How much a private head tells of one woman: epsilon and delta, and the noise that they ask for.

The unit is one woman with all her images. Two data sets are neighbours if one woman's images are there or not; the
number of women is known to everyone ("zero-out", Kairouz et al., Practical and private (deep) learning without
sampling or shuffling, ICML 2021, definition 1.1): so the sampling rate depends on nothing secret.

Each step takes every woman with the same probability, independently (Poisson), and adds Gaussian noise to the sum of
their clipped gradients. The composition of all steps is accounted by their privacy loss distribution (dp-accounting,
Google; Koskela et al., AISTATS 2020).
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcervix.core.plan import check

if TYPE_CHECKING:
    from dp_accounting.pld import PLDAccountant

LOT_WOMEN = 64
"""expected women of a step. Public: the sum is divided by it and not by the women who were drawn"""
EPOCHS = 20
"""how often each woman is drawn, in expectation"""
WOMEN_MIN = 1000
"""below which the noise leaves little to learn"""
DELTA = 1e-5
CLIP = 1.0
"""largest length of one woman's gradient. Public"""
NOISE_RANGE = (0.3, 300.0)
"""noise multipliers among which one is looked for"""
COARSE, FINE = 1e-3, 1e-4
"""steps of the grid of losses: while looking, and for what is told"""
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class PrivateSteps:
    """How often women are drawn. All of it is public."""

    women: int
    """of the training part, with a label"""
    lot_women: int = LOT_WOMEN

    def __post_init__(self) -> None:
        check(self.women >= 1 and self.lot_women >= 1, "a private head needs women, and a lot")

    @property
    def rate(self) -> float:
        """The probability with which a step takes a woman."""
        return min(1.0, self.lot_women / self.women)

    @property
    def count(self) -> int:
        """Steps."""
        return math.ceil(EPOCHS / self.rate)

    @property
    def delta(self) -> float:
        """The probability that the bound fails: at most a tenth of a woman."""
        return min(DELTA, 0.1 / self.women)


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What is promised of a head, and how it was come by."""

    epsilon: float
    delta: float
    noise: float
    """deviation of the noise over `clip`"""
    clip: float
    women: int
    lot_women: int
    rate: float
    steps: int
    accountant: str


@dataclass(frozen=True, slots=True)
class PrivateHead:
    """What is kept of a head beside its classifier."""

    privacy: Privacy
    leaves: str
    """the text of the one file that may leave the site"""


def promised(steps: PrivateSteps, epsilon_max: float) -> Privacy:
    """Return what a head promises with as little noise as keeps epsilon at or below `epsilon_max`.

    Raises ValueError where no noise of NOISE_RANGE does.
    """
    noise = _noise(steps, epsilon_max)
    return Privacy(
        epsilon=epsilon(steps, noise),
        delta=steps.delta,
        noise=noise,
        clip=CLIP,
        women=steps.women,
        lot_women=steps.lot_women,
        rate=steps.rate,
        steps=steps.count,
        accountant=f"dp-accounting {importlib.metadata.version('dp-accounting')}, privacy loss distribution",
    )


def epsilon(steps: PrivateSteps, noise: float, grid: float = FINE) -> float:
    """Return the epsilon of all steps at their delta."""
    accountant = _accountant(grid)
    accountant.compose(_event(steps, noise))
    found: float = accountant.get_epsilon(steps.delta)
    return found


def _noise(steps: PrivateSteps, epsilon_max: float) -> float:
    """Return a noise multiplier, rounded up to three digits behind the point."""
    import dp_accounting

    found = dp_accounting.calibrate_dp_mechanism(
        functools.partial(_accountant, COARSE),
        functools.partial(_event, steps),
        epsilon_max,
        steps.delta,
        dp_accounting.ExplicitBracketInterval(*NOISE_RANGE),
        tol=TOLERANCE,
    )
    return math.ceil(1000 * float(found)) / 1000


def _accountant(grid: float) -> PLDAccountant:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    return PLDAccountant(NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=grid)


def _event(steps: PrivateSteps, noise: float) -> object:
    import dp_accounting

    one = dp_accounting.PoissonSampledDpEvent(steps.rate, dp_accounting.GaussianDpEvent(noise))
    return dp_accounting.SelfComposedDpEvent(one, steps.count)
