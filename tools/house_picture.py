"""The picture of the whole house: the packages as they stand on each other, and the folders in each."""

from __future__ import annotations

from dataclasses import dataclass

from tools.drawing import BAND, HUES, QUIET, Drawing
from tools.import_graph import PACKAGES, PackageGraph

WIDTH = 900.0
MARGIN = 16.0
GAP = 44.0
"""between packages; arrows stand there"""
HEADER_HEIGHT = 58.0
TITLE_HEIGHT = 52.0
GUTTER = 14.0
"""between packages that stand beside each other"""
BOX_HEIGHT = 28.0
BOX_GAP = 10.0
ROW_HEIGHT = 36.0
FLOORS = (("fedcervix",), ("coordinator", "site_agent"), ("cervix_study",))
"""which packages stand beside each other, from bottom to top"""
SHARES = {"coordinator": 0.4, "site_agent": 0.6}
"""of the width, where a package does not stand alone"""
WHAT = {
    "fedcervix": "the library that both roles share",
    "coordinator": "the coordinator process",
    "site_agent": "the process at a hospital, and the trainer",
    "cervix_study": "the paper's study, over the programs below",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """Where a package stands in the picture, in pixels."""

    x: float
    y: float
    width: float
    height: float


def draw(graphs: dict[str, PackageGraph]) -> str:
    """Return the SVG picture of all packages, each with its folders in their layers."""
    panels = _panels(graphs)
    into = Drawing(WIDTH, max(panel.y + panel.height for panel in panels.values()) + MARGIN, "The packages")
    rule = "A package imports only from packages below it; a folder, only from folders in rows below its own."
    into.text(MARGIN, 28, "fedcervix: four packages and their folders", size=18, bold=True, anchor="start")
    into.text(MARGIN, 49, f"{rule} A number counts modules.", size=13, fill=QUIET, anchor="start")
    for package, panel in panels.items():
        _panel(into, graphs[package], panel)
    for upper, lower in zip(FLOORS[1:], FLOORS, strict=False):
        for by, of in ((by, of) for by in upper for of in lower):
            x = _middle(panels[by if len(upper) > 1 else of])
            into.curve((x, panels[by].y + panels[by].height), (x, panels[of].y), head=True)
    return into.svg()


def _panels(graphs: dict[str, PackageGraph]) -> dict[str, Panel]:
    assert {package for floor in FLOORS for package in floor} == PACKAGES.keys()
    found: dict[str, Panel] = {}
    y = HEADER_HEIGHT + 10
    for floor in reversed(FLOORS):
        free, x = WIDTH - 2 * MARGIN - GUTTER * (len(floor) - 1), MARGIN
        widths = {package: free * SHARES.get(package, 1.0) for package in floor}
        rows = max(len(_rows(graphs[package], width)) for package, width in widths.items())
        height = TITLE_HEIGHT + ROW_HEIGHT * rows + 8
        for package, width in widths.items():
            found[package] = Panel(x, y, width, height)
            x += width + GUTTER
        y += height + GAP
    return found


def _rows(graph: PackageGraph, width: float) -> list[list[str]]:
    """Return the boxes in rows, lowest first; a layer that is wider than `width` takes several rows."""
    rows: list[list[str]] = []
    for layer in range(1, graph.figures().layers + 1):
        rows.append([])
        for box in (box for box in graph.boxes if graph.layer[box] == layer):
            if rows[-1] and _row_width(graph, [*rows[-1], box]) > width - 16:
                rows.append([])
            rows[-1].append(box)
    return rows


def _panel(into: Drawing, graph: PackageGraph, panel: Panel) -> None:
    into.rectangle(panel.x, panel.y, panel.width, panel.height, fill=BAND)
    x, y, modules = panel.x + 16, panel.y + 24, graph.figures().modules
    into.text(x, y, graph.package, size=16, bold=True, anchor="start")
    into.text(x, y + 17, f"{WHAT[graph.package]}: {modules} modules", size=12, fill=QUIET, anchor="start")
    for number, row in enumerate(_rows(graph, panel.width), 1):
        _row(into, graph, row, _middle(panel), panel.y + panel.height - 4 - number * ROW_HEIGHT)


def _row(into: Drawing, graph: PackageGraph, row: list[str], middle: float, y: float) -> None:
    fill, edge = HUES[graph.package]
    x = middle - _row_width(graph, row) / 2
    for box in row:
        label, count, width = graph.label(box), _count(graph, box), _box_width(graph, box)
        into.rectangle(x, y, width, BOX_HEIGHT, fill=fill, stroke=edge)
        if count:
            into.text(x + 10, y + 19, label, size=13, anchor="start")
            into.text(x + width - 9, y + 19, count, size=12, fill=QUIET, anchor="end")
        else:
            into.text(x + width / 2, y + 19, label, size=13)
        x += width + BOX_GAP


def _row_width(graph: PackageGraph, row: list[str]) -> float:
    return sum(_box_width(graph, box) for box in row) + BOX_GAP * (len(row) - 1)


def _box_width(graph: PackageGraph, box: str) -> float:
    count = _count(graph, box)
    return 7.4 * len(graph.label(box)) + (8.0 * len(count) + 8 if count else 0) + 20


def _count(graph: PackageGraph, box: str) -> str:
    """Return the number of modules as it is shown: not at all for one."""
    return str(graph.size(box)) if graph.size(box) > 1 else ""


def _middle(panel: Panel) -> float:
    return panel.x + panel.width / 2
