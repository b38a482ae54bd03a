"""Where the boxes of a layered graph stand: few crossing arrows, short ways, no arrow through a box (after Sugiyama).

1. An arrow that passes a layer has a place of its own there, like a box without width. Arrows to one box share it.
2. The order within a layer is the best of some sweeps up and down; each box goes to the middle of its neighbours.
3. Then each box moves as near to its neighbours as order and gaps allow. Only + - * / are used: the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SWEEPS = 12
TURNS = 4
"""orders to begin with: the names, turned by so many places, and these backwards"""
SETTLINGS = 40
GAP = 28.0
PASS_WIDTH = 6.0

Arrow = tuple[str, str]
Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes and passing arrows in rows, lowest first; `x` is the middle of each, in pixels."""

    rows: Rows
    x: dict[str, float]
    segments: list[Arrow]
    """arrows cut at each layer: (upper, lower), each a box or a pass"""
    width: float


def place(layer: dict[str, int], arrows: Iterable[Arrow], widths: dict[str, float]) -> Layout:
    """Lay out boxes in their layers. `widths` are in pixels; every arrow leads to a lower layer."""
    segments = sorted({segment for arrow in sorted(arrows) for segment in pairwise(_way(arrow, layer))})
    known = {**dict.fromkeys(sorted(layer)), **dict.fromkeys(name for pair in segments for name in pair)}
    rows: Rows = [[] for _ in range(max(layer.values()))]
    for name in known:
        rows[_row(name, layer)].append(name)
    rows = _ordered(rows, segments)
    x = _settled(rows, segments, {name: widths.get(name, PASS_WIDTH) for name in known})
    left = min(x[name] - widths.get(name, PASS_WIDTH) / 2 for name in known)
    right = max(x[name] + widths.get(name, PASS_WIDTH) / 2 for name in known)
    return Layout(rows, {name: at - left for name, at in x.items()}, segments, right - left)


def is_pass(name: str) -> bool:
    """Say whether a name is an arrow's place in a layer that it passes."""
    return "@" in name


def _way(arrow: Arrow, layer: dict[str, int]) -> list[str]:
    by, of = arrow
    return [by, *(f"{of}@{n}" for n in range(layer[by] - 1, layer[of], -1)), of]


def _row(name: str, layer: dict[str, int]) -> int:
    return int(name.partition("@")[2]) - 1 if is_pass(name) else layer[name] - 1


def _neighbours(segments: list[Arrow]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for upper, lower in segments:
        below.setdefault(upper, []).append(lower)
        above.setdefault(lower, []).append(upper)
    return above, below


def crossings(rows: Rows, segments: list[Arrow]) -> int:
    """Count the pairs of arrows that cross between two rows."""
    at = {name: place for row in rows for place, name in enumerate(row)}
    _, below = _neighbours(segments)
    pairs = [[(at[upper], at[lower]) for upper in row for lower in below.get(upper, [])] for row in rows]
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for some in pairs for n, a in enumerate(some) for b in some[:n])


def _ordered(rows: Rows, segments: list[Arrow]) -> Rows:
    """Return the order with the fewest crossings that sweeps from several beginnings find."""
    turned = [[[*row[turn:], *row[:turn]] for row in rows] for turn in range(TURNS)]
    beginnings = [*turned, *([row[::-1] for row in some] for some in turned)]
    found = [best for beginning in beginnings for up in (True, False) for best in _swept(beginning, segments, up)]
    return min(found, key=lambda some: crossings(some, segments))


def _swept(rows: Rows, segments: list[Arrow], up: bool) -> Iterator[Rows]:
    """Yield the orders of sweeps that go up and down in turn."""
    above, below = _neighbours(segments)
    for _ in range(SWEEPS):
        rows = [list(row) for row in rows]
        for n in range(1, len(rows)) if up else range(len(rows) - 2, -1, -1):
            beside = {name: place for place, name in enumerate(rows[n - 1] if up else rows[n + 1])}
            rows[n] = _by_middle(rows[n], below if up else above, beside)
        up = not up
        yield rows


def _by_middle(row: list[str], toward: dict[str, list[str]], beside: dict[str, int]) -> list[str]:
    places = {name: place for place, name in enumerate(row)}
    middle = {name: _mean([beside[o] for o in toward.get(name, [])], places[name]) for name in row}
    return sorted(row, key=lambda name: (middle[name], places[name]))


def _settled(rows: Rows, segments: list[Arrow], widths: dict[str, float]) -> dict[str, float]:
    above, below = _neighbours(segments)
    x: dict[str, float] = {}
    for row in rows:
        x |= zip(row, _apart([0.0] * len(row), row, widths), strict=True)
    for settling in range(SETTLINGS):
        toward = (above, below)[settling % 2]
        for row in rows if settling % 2 else reversed(rows):
            both = settling > SETTLINGS // 2
            near = {name: [*toward.get(name, []), *(below.get(name, []) if both else [])] for name in row}
            wanted = [_mean([x[o] for o in near[name]], x[name]) for name in row]
            x |= zip(row, _apart(wanted, row, widths), strict=True)
    return x


def _mean(values: list[int] | list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(wanted: list[float], row: list[str], widths: dict[str, float]) -> list[float]:
    """Return the places nearest to the wanted ones that keep order and gaps: isotonic regression of the slack."""
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (widths[left] + widths[right]) / 2 + GAP)
    blocks: list[tuple[float, int]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        blocks.append((value - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks.pop(-2), blocks.pop()
            blocks.append(((a * m + b * n) / (m + n), m + n))
    slack = [value for value, times in blocks for _ in range(times)]
    return [s + offset for s, offset in zip(slack, offsets, strict=True)]
