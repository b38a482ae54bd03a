"""What is in front of the camera at one visit: the woman's cervix, the speculum, and what happens to be there.

The painter works outside in: vaginal walls, cervix, columnar area, junction, lesions, os, fluids, walls that bulge in
front of the cervix, speculum. Each layer is one function that paints in place. Reflected light is not painted here:
it belongs to the photograph.

One visit has several stages of the examination: the same cervix, speculum and fluids, other colours of the tissue.
Acetic acid turns lesions white, iodine stains healthy squamous epithelium brown, a green filter takes colours away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcervix.core.plan import Stage
from site_agent.phantom.anatomy import Woman
from site_agent.phantom.noise import Painting, Plane, field, generator, lay, shade, step

SIDE_PX = 320
"""of the square canvas"""
REACH = 1.66
"""the canvas shows [-REACH, REACH] in both directions, in cervix radii"""

_AXIS = ((np.arange(SIDE_PX, dtype=np.float32) + 0.5) * (2 * REACH / SIDE_PX) - REACH).astype(np.float32)
X: Plane = np.broadcast_to(_AXIS, (SIDE_PX, SIDE_PX))
Y: Plane = np.broadcast_to(_AXIS[:, None], (SIDE_PX, SIDE_PX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a stage of the examination does to the tissue. All values 0 to 1."""

    whitening: float = 0.12
    """how much of the white of lesions and of metaplasia shows; without acetic acid a trace"""
    iodine: float = 0.0
    """how dark iodine stains healthy squamous epithelium"""
    filtered: bool = False
    """by a green filter"""


LOOKS: Final[Mapping[Stage, Look]] = {
    "native": Look(),
    "acetic": Look(whitening=1.0),
    "green": Look(filtered=True),
    "iodine": Look(iodine=0.85),
}
MAHOGANY, MUSTARD = (88, 40, 22), (204, 166, 84)
"""what iodine makes of healthy squamous epithelium, and of a lesion"""
GREEN_FILTER = (0.16, 0.92, 0.30)
"""what of the green light arrives in the red, the green and the blue channel"""


@dataclass(frozen=True, slots=True)
class Junction:
    """Where columnar meets squamous epithelium, and the fine texture of the woman's tissue."""

    os: Plane
    """distance from the os in its own half axes: 1 on its rim"""
    beyond: Plane
    """signed distance from the junction, cervix radii; negative on the columnar side"""
    cos: Plane
    sin: Plane
    """direction from the os"""
    coarse: Plane
    middle: Plane
    fine: Plane
    relief: Plane
    """brightness of gentle bumps that a lamp above lights from one side"""


def paint(woman: Woman, visit_seed: int, stage: Stage = "acetic") -> Painting:
    """Paint one visit at a stage; shape (3, SIDE_PX, SIDE_PX), values about 0 to 255. Raises KeyError for `other`."""
    look = LOOKS[stage]
    hers, today = generator(woman.texture_seed), generator(visit_seed)
    junction = _junction(woman, hers)
    painting = np.empty((3, SIDE_PX, SIDE_PX), dtype=np.float32)
    outline = _cervix_outline(woman, junction)
    _walls(painting, woman, outline, hers)
    _squamous(painting, woman, outline, junction)
    _columnar(painting, woman, junction)
    _metaplasia(painting, woman, junction, look)
    lesions = _lesions(painting, woman, junction, look, hers)
    _iodine(painting, junction, lesions, look)
    _inflammation(painting, woman, outline, junction)
    _cysts(painting, woman, hers)
    _os(painting, junction)
    _fluids(painting, woman, junction, today)
    _bulging_walls(painting, woman, junction, today)
    _speculum(painting, junction, today)
    if look.filtered:
        painting[:] = painting[1] * np.array(GREEN_FILTER, dtype=np.float32)[:, None, None]
    return painting


def _field(rng: np.random.Generator, cells: int, cells_down: int | None = None) -> Plane:
    return field(rng, (SIDE_PX, SIDE_PX), cells, cells_down)


def _junction(woman: Woman, rng: np.random.Generator) -> Junction:
    coarse, middle, fine = _field(rng, 5), _field(rng, 22), _field(rng, 130)
    bend = _field(rng, 4)
    dx, dy = X - woman.os_centre[0], Y - woman.os_centre[1] + 0.03 * bend
    cos_tilt, sin_tilt = math.cos(woman.os_tilt_rad), math.sin(woman.os_tilt_rad)
    along, across = cos_tilt * dx + sin_tilt * dy, cos_tilt * dy - sin_tilt * dx
    half_length, half_height = woman.os_radii
    os = np.sqrt((along / half_length) ** 2 + (across / half_height) ** 2)
    # distance from the slit itself, so that a wide os has a wide columnar area
    outside = np.abs(along) - half_length
    distance = np.sqrt(np.maximum(outside, 0) ** 2 + across**2)
    radius = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    cos, sin = dx / radius, dy / radius
    reach = woman.ectropion + woman.lopsided[0] * cos + woman.lopsided[1] * sin
    beyond = distance - reach + 0.07 * coarse + 0.025 * middle
    relief = _lit(coarse, 8) + 0.35 * _lit(middle, 3)
    return Junction(os, beyond, cos, sin, coarse, middle, fine, relief)


def _lit(height: Plane, offset_px: int) -> Plane:
    before: Plane = np.roll(height, (offset_px, offset_px // 2), axis=(0, 1))
    bumps: Plane = height - before
    return bumps


def _cervix_outline(woman: Woman, junction: Junction) -> Plane:
    """Return the distance from the cervix's centre in its own half axes: 1 on its edge."""
    x, y = X / woman.radii[0], Y / woman.radii[1]
    outline: Plane = np.sqrt(x * x + y * y) + 0.03 * junction.coarse
    return outline


def _walls(painting: Painting, woman: Woman, outline: Plane, rng: np.random.Generator) -> None:
    folds = _field(rng, 26, 5)
    for plane, value in zip(painting, woman.squamous, strict=True):
        plane[:] = value
    painting *= np.array([0.80, 0.66, 0.68], dtype=np.float32)[:, None, None]
    # the fornix around the cervix lies in shadow; the walls come forward into the light again
    shade(painting, (0.46 + 0.62 * step(1.0, 1.3, outline)) * (1 + 0.13 * folds))


def _squamous(painting: Painting, woman: Woman, outline: Plane, junction: Junction) -> None:
    lay(painting, woman.squamous, step(1.04, 0.98, outline))
    squared = np.minimum(outline * outline, 1.2)
    dome = 1.10 - 0.34 * squared * squared
    grain = 1 + 0.04 * junction.coarse + 0.02 * junction.middle + 0.015 * junction.fine + 0.16 * junction.relief
    shade(painting, np.where(outline < 1.04, dome, 1) * grain)
    # small vessels: thin lines where a field changes its sign
    vessels = step(0.10, 0.0, np.abs(junction.middle + 0.3 * junction.fine)) * step(1.0, 0.8, outline)
    lay(painting, (168, 52, 58), 0.16 * vessels)


def _columnar(painting: Painting, woman: Woman, junction: Junction) -> None:
    cover = step(0.03, -0.03, junction.beyond + 0.012 * junction.fine)
    red = woman.columnar_red
    lay(
        painting,
        (205 - 20 * red, 92 - 42 * red, 84 - 38 * red),
        (0.5 + 0.35 * red) * cover * (1 + 0.12 * junction.coarse),
    )
    # villi: grape-like grains, light on top and dark between
    shade(painting, 1 + cover * (0.07 * junction.fine + 0.04 * junction.middle + 0.10 * junction.relief))


def _metaplasia(painting: Painting, woman: Woman, junction: Junction, look: Look) -> None:
    band = np.exp(-(((junction.beyond - 0.06) / 0.16) ** 2))
    patchy = step(-1.0, 1.2, junction.coarse + 0.7 * junction.middle)
    lay(painting, (236, 206, 202), 0.42 * woman.metaplasia * look.whitening * band * patchy)


def _lesions(painting: Painting, woman: Woman, junction: Junction, look: Look, rng: np.random.Generator) -> Plane:
    """Paint geographic acetowhite plaques that hug the junction from outside; return where they are, 0 to 1."""
    disease = woman.disease
    ragged = 0.42 * junction.middle + 0.28 * _field(rng, 10) + 0.10 * junction.fine
    height = np.full_like(ragged, -9)
    for _ in range(int(rng.integers(1, 4))):
        height = np.maximum(height, _plaque(disease.extent, junction, rng))
    edge = 0.75 - 0.55 * disease.density
    cover = step(0, edge, height + ragged) * step(-0.10, 0.03, junction.beyond)
    there = min(1.0, 4 * disease.extent)
    opacity = (0.30 + 0.52 * disease.density) * there * look.whitening
    lay(painting, (240, 222, 220), opacity * cover * (1 + 0.10 * junction.middle))
    # dense white shows its capillaries as a red mosaic
    tiles = step(0.22, 0.05, np.abs(_field(rng, 64))) * max(0.0, disease.density - 0.35) * look.whitening
    lay(painting, (176, 60, 66), 0.6 * tiles * cover)
    plaques: Plane = there * cover
    return plaques


def _iodine(painting: Painting, junction: Junction, lesions: Plane, look: Look) -> None:
    """Stain squamous epithelium that has glycogen. Columnar epithelium takes no stain, a lesion a pale yellow one."""
    if not look.iodine:
        return
    squamous = step(-0.02, 0.05, junction.beyond)  # the walls as well
    stained: Plane = look.iodine * squamous * (1 - lesions)
    pale: Plane = 0.7 * look.iodine * squamous * lesions
    lay(painting, MAHOGANY, stained)
    lay(painting, MUSTARD, pale)


def _plaque(extent: float, junction: Junction, rng: np.random.Generator) -> Plane:
    """Return one plaque's height above the tissue: positive inside."""
    direction = rng.uniform(0, 2 * np.pi)
    half_angle = rng.uniform(0.15, 0.35) + extent * rng.uniform(0.6, 1.5)
    thickness = rng.uniform(0.04, 0.07) + extent * rng.uniform(0.14, 0.32)
    cos, sin = math.cos(direction), math.sin(direction)
    away = (2 - 2 * (junction.cos * cos + junction.sin * sin)) / half_angle**2
    return 1 - away - ((junction.beyond - 0.7 * thickness) / thickness) ** 2


def _inflammation(painting: Painting, woman: Woman, outline: Plane, junction: Junction) -> None:
    inside = step(1.05, 0.9, outline)
    flush = woman.inflammation * step(-1.5, 1.5, junction.coarse) * inside
    lay(painting, (196, 52, 58), 0.38 * flush)
    spots = step(1.6, 2.2, junction.middle + 0.7 * junction.fine) * inside * max(0.0, woman.inflammation - 0.4)
    lay(painting, (170, 24, 34), 0.9 * spots)


def _cysts(painting: Painting, woman: Woman, rng: np.random.Generator) -> None:
    for _ in range(woman.cysts):
        angle, distance, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.85), rng.uniform(0.03, 0.07)
        x, y = (X - distance * math.cos(angle)) / radius, (Y - distance * math.sin(angle)) / radius
        lay(painting, (236, 206, 168), 0.6 * step(1.2, 0.2, x * x + y * y))


def _os(painting: Painting, junction: Junction) -> None:
    rim = junction.os + 0.18 * junction.middle
    lay(painting, (120, 30, 36), 0.55 * step(2.1, 1.0, rim))
    lay(painting, (38, 6, 10), 0.92 * step(1.15, 0.6, rim))


def _fluids(painting: Painting, woman: Woman, junction: Junction, rng: np.random.Generator) -> None:
    """Paint what the visit happens to find: mucus, discharge, blood. None of it is disease."""
    if rng.random() < 0.40:
        _mucus(painting, woman, junction, rng)
    if rng.random() < 0.2:
        clots = step(1.2, 2.3, _field(rng, 9) + 0.5 * _field(rng, 30))
        lay(painting, (238, 228, 208), rng.uniform(0.35, 0.85) * clots)
    if rng.random() < 0.28:
        _blood(painting, woman, junction, rng)


def _mucus(painting: Painting, woman: Woman, junction: Junction, rng: np.random.Generator) -> None:
    """Paint a whitish strand that hangs out of the os."""
    length, width = rng.uniform(0.1, 0.55), rng.uniform(0.04, 0.13)
    below = Y - woman.os_centre[1]
    sway = woman.os_centre[0] + rng.normal(0, 0.35) * below + 0.05 * junction.coarse
    strand = 1 - ((X - sway) / width) ** 2 - (np.maximum(below - length, 0) + np.maximum(-below, 0)) * 12
    strand = strand + 0.3 * junction.middle
    lay(painting, (236, 226, 214), rng.uniform(0.4, 0.85) * step(0, 0.9, strand))


def _blood(painting: Painting, woman: Woman, junction: Junction, rng: np.random.Generator) -> None:
    below = Y - woman.os_centre[1] - rng.uniform(0.0, 0.25)
    side = X - woman.os_centre[0] - rng.normal(0, 0.1)
    spread = rng.uniform(0.12, 0.4)
    pool = 1.1 - (side / spread) ** 2 - (below / (1.4 * spread)) ** 2 + 1.1 * _field(rng, 14) + 0.2 * junction.fine
    cover = step(0.7, 1.2, pool)
    lay(painting, (148, 12, 18), 0.88 * cover)
    shade(painting, 1 - 0.25 * cover * step(0.0, 1.0, junction.middle))


def _bulging_walls(painting: Painting, woman: Woman, junction: Junction, rng: np.random.Generator) -> None:
    """Paint the side walls that fall in between the blades, in front of the cervix."""
    red, green, blue = woman.squamous
    for side in (-1, 1):
        if rng.random() < 0.45:
            continue
        inner = rng.uniform(0.78, 1.1) + 0.28 * (Y - rng.normal(0, 0.3)) ** 2 + 0.05 * junction.coarse
        depth = side * X - inner
        shade(painting, 1 - 0.5 * step(-0.16, 0.0, depth))
        lay(painting, (red * 0.98, green * 0.86, blue * 0.86), step(0.0, 0.035, depth))
        roundness = 0.62 + 0.5 * step(0, 0.2, depth) + 0.08 * junction.middle
        shade(painting, np.where(depth > 0, roundness, 1))


def _speculum(painting: Painting, junction: Junction, rng: np.random.Generator) -> None:
    """Paint a tube's metal ring, or the upper and lower blade."""
    steel = _steel(rng)
    tone = rng.uniform(0.65, 1.0)
    metal = (222 * tone, 214 * tone, 196 * tone)
    if rng.random() < 0.45:
        x, y = X - rng.normal(0, 0.08), Y - rng.normal(0, 0.08)
        depth = np.sqrt(x * x + y * y) - rng.uniform(1.16, 1.4)
        beyond = (118, 88, 66) if rng.random() < 0.6 else (24, 18, 18)
        rim_width = rng.uniform(0.06, 0.16)
    else:
        top, bottom = rng.uniform(0.86, 1.2), rng.uniform(0.86, 1.2)
        arch = 0.22 * X * X
        depth = np.maximum(-Y - top + arch, Y - bottom + arch)
        beyond, rim_width = (58, 48, 46), rng.uniform(0.15, 0.5)
    shade(painting, 1 - 0.55 * step(-0.2, 0.0, depth))
    lay(painting, beyond, step(rim_width, rim_width + 0.05, depth) * 0.95)
    rim = step(0.0, 0.025, depth) * step(rim_width + 0.05, rim_width, depth)
    lay(painting, metal, rim)
    shade(painting, 1 + rim * (steel - 1 + 0.05 * junction.coarse))


def _steel(rng: np.random.Generator) -> Plane:
    """Return the brightness of polished metal: broad bands that follow the direction from the centre."""
    radius = np.sqrt(X * X + Y * Y) + np.float32(1e-3)
    cos, sin = X / radius, Y / radius
    turn = rng.uniform(0, 2 * np.pi)
    along = cos * math.cos(turn) + sin * math.sin(turn)
    bands: Plane = np.sin(9 * along + 14 * radius)
    bright: Plane = along * along
    steel: Plane = 0.62 + 0.5 * bright * bright + 0.18 * bands
    return steel
