"""The picture of one package: a box for each folder, in layers from bottom to top, and arrows to what is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from tools import layout
from tools.drawing import BAND, HUES, QUIET, Drawing

if TYPE_CHECKING:
    from tools.import_graph import PackageGraph

BOX_HEIGHT = 46.0
LAYER_HEIGHT = 96.0
HEADER_HEIGHT = 76.0
MARGIN = 20.0
NUMBERS_WIDTH = 66.0
WIDTH_MIN = 900.0
PORT_GAP = 16.0


def draw(graph: PackageGraph) -> str:
    """Return the SVG picture of a package. An arrow that others imply is not drawn: the picture says how many."""
    arrows = list(nx.transitive_reduction(graph.boxes).edges)
    widths = {box: max(96.0, 8.4 * len(graph.label(box)) + 24) for box in graph.boxes}
    plan = layout.place(graph.layer, arrows, widths)
    width = max(NUMBERS_WIDTH + plan.width + 2 * MARGIN, WIDTH_MIN)
    into = Drawing(width, _top(plan, -1), f"The folders of {graph.package}")
    _header(into, graph, len(arrows))
    _layers(into, plan)
    left = NUMBERS_WIDTH + (width - NUMBERS_WIDTH - plan.width) / 2
    _arrows(into, plan, widths, left)
    for row, names in enumerate(plan.rows):
        for name in filter(lambda name: not layout.is_pass(name), names):
            _box(into, graph, name, left + plan.x[name], _top(plan, row), widths[name])
    return into.svg()


def _top(plan: layout.Layout, row: int) -> float:
    """Return the upper edge of the boxes in a row."""
    return HEADER_HEIGHT + (len(plan.rows) - 1 - row) * LAYER_HEIGHT + (LAYER_HEIGHT - BOX_HEIGHT) / 2


def _header(into: Drawing, graph: PackageGraph, drawn: int) -> None:
    f = graph.figures()
    facts = f"{f.modules} modules, {f.layers} layers, {f.arrows} arrows, "
    facts += f"{f.arrows_upwards or 'none'} upwards, {f.circles or 'no'} circle"
    into.text(MARGIN, 30, graph.package, size=18, bold=True, anchor="start")
    into.text(MARGIN + 11 * len(graph.package) + 16, 30, facts, size=13, fill=QUIET, anchor="start")
    rule = f"An arrow leads to what is imported. {f.arrows - drawn} arrows that others imply are not drawn."
    into.text(MARGIN, 54, rule, size=13, fill=QUIET, anchor="start")


def _layers(into: Drawing, plan: layout.Layout) -> None:
    for row in range(len(plan.rows)):
        y = _top(plan, row)
        if row % 2 == 0:
            into.rectangle(8, y - (LAYER_HEIGHT - BOX_HEIGHT) / 2, into.width - 16, LAYER_HEIGHT, fill=BAND)
        into.text(MARGIN, y + BOX_HEIGHT / 2 + 4, f"layer {row + 1}", size=12, fill=QUIET, anchor="start")


def _arrows(into: Drawing, plan: layout.Layout, widths: dict[str, float], left: float) -> None:
    top = {name: _top(plan, row) for row, names in enumerate(plan.rows) for name in names}
    starts, ends = _ports(plan, widths, 0), _ports(plan, widths, 1)
    for segment in plan.segments:
        upper, lower = segment
        start = (left + starts[segment], top[upper] + BOX_HEIGHT)
        into.curve(start, (left + ends[segment], top[lower]), head=not layout.is_pass(lower))
    for name in filter(layout.is_pass, top):
        x = left + plan.x[name]
        into.curve((x, top[name]), (x, top[name] + BOX_HEIGHT), head=False)


def _ports(plan: layout.Layout, widths: dict[str, float], end: int) -> dict[layout.Arrow, float]:
    """Return where segments leave their upper ends (0) or reach their lower ends (1): beside each other, in order."""
    places: dict[layout.Arrow, float] = {}
    for name, at in plan.x.items():
        some = sorted((s for s in plan.segments if s[end] == name), key=lambda s: plan.x[s[1 - end]])
        free = max(widths.get(name, 0.0) - 20, 0.0)
        gap = min(PORT_GAP, free / max(len(some), 1))
        places |= {segment: at + (n - (len(some) - 1) / 2) * gap for n, segment in enumerate(some)}
    return places


def _box(into: Drawing, graph: PackageGraph, name: str, x: float, y: float, width: float) -> None:
    fill, edge = HUES[graph.package]
    size = graph.size(name)
    into.rectangle(x - width / 2, y, width, BOX_HEIGHT, fill=fill, stroke=edge)
    into.text(x, y + 20, graph.label(name), bold=True)
    into.text(x, y + 37, "one module" if size == 1 else f"{size} modules", size=12, fill=QUIET)
