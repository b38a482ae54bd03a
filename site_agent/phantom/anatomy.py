"""Who a phantom woman is: numbers that stay with her through all her visits, and her disease.

Lengths are in cervix radii: the cervix is about a disc of radius 1 around (0, 0), x to the right, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from site_agent.phantom.noise import Colour

PALE: Colour = (226, 168, 160)
DEEP: Colour = (186, 96, 100)
DUSKY: Colour = (190, 128, 142)
"""three squamous epithelia as the light finds them; a woman is a mixture"""


@dataclass(frozen=True, slots=True)
class Disease:
    """The underlying disease: what every criterion judges and no label shows completely. All values 0 to 1."""

    severity: float
    extent: float
    """how much of the transformation zone turns white with acetic acid"""
    density: float
    """how opaque, sharp-edged and coarsely patterned the white is"""

    def __post_init__(self) -> None:
        for value in (self.severity, self.extent, self.density):
            if not 0 <= value <= 1:
                raise ValueError(f"severity, extent and density are 0 to 1; found {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Woman:
    """One woman's cervix. `texture_seed` fixes the random fields that are hers."""

    texture_seed: int
    disease: Disease
    squamous: Colour
    radii: tuple[float, float]
    os_centre: tuple[float, float]
    os_radii: tuple[float, float]
    """half length and half height of the opening: a dimple before childbirth, a slit after"""
    os_tilt_rad: float
    ectropion: float
    """how far the columnar epithelium reaches out of the os; below 0 it is hidden inside"""
    lopsided: tuple[float, float]
    """the columnar area reaches further in this direction"""
    columnar_red: float
    """0 to 1"""
    metaplasia: float
    """faint diffuse white along the junction, 0 to 1: normal"""
    inflammation: float
    """redness and red spots, 0 to 1: not the disease that is asked for"""
    cysts: int
    """Nabothian follicles: small pale yellow domes"""


def draw_disease(rng: np.random.Generator) -> Disease:
    """Draw a severity from the population's prior; extent and density follow it, each in its own way."""
    severity = float(rng.beta(0.75, 1.3))
    extent, density = np.clip(severity + rng.normal(0, 0.17, 2), 0, 1)
    return Disease(severity, float(extent), float(density))


def draw_woman(rng: np.random.Generator) -> Woman:
    """Draw one woman. Her anatomy says nothing about her disease."""
    disease = draw_disease(rng)
    parous = rng.random() < 0.6
    return Woman(
        texture_seed=int(rng.integers(2**62)),
        disease=disease,
        squamous=_mixed(rng, PALE, DEEP, DUSKY),
        radii=(float(rng.uniform(0.88, 1.12)), float(rng.uniform(0.82, 1.08))),
        os_centre=(float(rng.normal(0, 0.10)), float(rng.normal(0.02, 0.12))),
        os_radii=_os_radii(rng, parous),
        os_tilt_rad=float(rng.normal(0, 0.25)),
        ectropion=float(rng.uniform(-0.05, 0.48)),
        lopsided=(float(rng.normal(0, 0.07)), float(rng.normal(0, 0.09))),
        columnar_red=float(rng.uniform(0.45, 1)),
        metaplasia=float(rng.beta(1.1, 1.6)),
        inflammation=float(rng.beta(0.6, 1.6)),
        cysts=int(rng.choice([0, 0, 0, 1, 2, 4])),
    )


def _os_radii(rng: np.random.Generator, parous: bool) -> tuple[float, float]:
    if parous:
        return float(rng.uniform(0.16, 0.38)), float(rng.uniform(0.025, 0.07))
    return float(rng.uniform(0.05, 0.10)), float(rng.uniform(0.045, 0.09))


def _mixed(rng: np.random.Generator, *colours: Colour) -> Colour:
    red, green, blue = rng.dirichlet([0.9] * len(colours)) @ np.array(colours)
    return float(red), float(green), float(blue)
