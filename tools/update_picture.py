"""The picture of the way of an update: the steps of its walk, in the process in which each happens."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from tools.drawing import BAND, HUES, QUIET, Drawing

if TYPE_CHECKING:
    from tools.walks import Step

WIDTH = 900.0
MARGIN = 16.0
GUTTER = 12.0
"""between two lanes"""
HEADER_HEIGHT = 68.0
LANE_HEADER_HEIGHT = 46.0
LINE_HEIGHT = 21.0
PADDING = 8.0
GAP = 40.0
"""between two boxes; the arrow stands there"""
LANES = {"worker": "worker process of the site", "agent": "agent of the site", "coordinator": "coordinator"}
COLOURS = {"worker": HUES["cervix_study"], "agent": HUES["site_agent"], "coordinator": HUES["coordinator"]}

Numbered = tuple[int, "Step"]


def draw(steps: list[Step]) -> str:
    """Return the SVG picture of a walk whose steps name their processes: a box for the steps that one process does."""
    boxes = [list(some) for _, some in groupby(enumerate(steps, 1), key=lambda numbered: numbered[1].where)]
    tops = [HEADER_HEIGHT + LANE_HEADER_HEIGHT]
    for box in boxes:
        tops.append(tops[-1] + _height(box) + GAP)
    into = Drawing(WIDTH, tops[-1] - GAP + 2 * MARGIN, "The way of an update")
    into.text(MARGIN, 28, "The way of an update, and back", size=18, bold=True, anchor="start")
    rule = "Each line is a function; the numbers are those of the walk. An arrow names what is handed over."
    into.text(MARGIN, 50, rule, size=13, fill=QUIET, anchor="start")
    for lane, title in LANES.items():
        height = into.height - HEADER_HEIGHT - MARGIN
        into.rectangle(_middle(lane) - _lane_width() / 2, HEADER_HEIGHT, _lane_width(), height, fill=BAND)
        into.text(_middle(lane), HEADER_HEIGHT + 26, title, bold=True)
    for (box, top), (then, below) in pairwise(zip(boxes, tops, strict=False)):
        _arrow(into, box[-1][1], then[0][1], top + _height(box), below)
    for box, top in zip(boxes, tops, strict=False):
        _box(into, box, top)
    return into.svg()


def _lane_width() -> float:
    return (WIDTH - 2 * MARGIN - GUTTER * (len(LANES) - 1)) / len(LANES)


def _middle(lane: str) -> float:
    return MARGIN + _lane_width() / 2 + [*LANES].index(lane) * (_lane_width() + GUTTER)


def _height(box: list[Numbered]) -> float:
    return len(box) * LINE_HEIGHT + 2 * PADDING


def _arrow(into: Drawing, step: Step, then: Step, from_y: float, to_y: float) -> None:
    start, end = (_middle(step.where), from_y), (_middle(then.where), to_y)
    into.curve(start, end, head=True)
    word = step.onward.replace("`", "")
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    into.rectangle(middle[0] - 3.4 * len(word) - 6, middle[1] - 9, 6.8 * len(word) + 12, 18, fill=BAND)
    into.text(middle[0], middle[1] + 4, word, size=12)


def _box(into: Drawing, box: list[Numbered], top: float) -> None:
    lane = box[0][1].where
    fill, edge = COLOURS[lane]
    left, width = _middle(lane) - _lane_width() / 2 + 8, _lane_width() - 16
    into.rectangle(left, top, width, _height(box), fill=fill, stroke=edge)
    for line, (number, step) in enumerate(box):
        y = top + PADDING + line * LINE_HEIGHT + 15
        into.text(left + 24, y, f"{number}", size=12, fill=QUIET, anchor="end")
        into.text(left + 32, y, step.short, size=13, anchor="start")
        free = width - 48 - 7.3 * len(step.short)
        file = step.file if 5.8 * len(step.file) < free else step.file.rpartition("/")[2]
        into.text(left + width - 8, y, file, size=11, fill=QUIET, anchor="end")
