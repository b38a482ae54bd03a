"""The picture of the whole house: the packages as they stand on each other, and the folders in each."""

from __future__ import annotations

from dataclasses import dataclass

from tools.drawing import BAND, HUES, INK, QUIET, Drawing
from tools.import_graph import PACKAGES, PackageGraph

WIDTH = 900.0
MARGIN = 16.0
GAP = 44.0
"""between packages; arrows stand there"""
HEADER_HEIGHT = 58.0
TITLE_HEIGHT = 52.0
BOX_HEIGHT = 28.0
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
    """Return the SVG picture of all packages, each with its folders in their layers. Raises ValueError."""
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
            into.curve((x, panels[by].y + panels[by].height), (x, panels[of].y), stroke=INK, head=True)
    return into.svg()


def _panels(graphs: dict[str, PackageGraph]) -> dict[str, Panel]:
    assert {package for floor in FLOORS for package in floor} == PACKAGES.keys()
    found: dict[str, Panel] = {}
    y = HEADER_HEIGHT + 10
    for floor in reversed(FLOORS):
        height = TITLE_HEIGHT + ROW_HEIGHT * max(graphs[package].figures().layers for package in floor) + 8
        free, x = WIDTH - 2 * MARGIN - 14 * (len(floor) - 1), MARGIN
        for package in floor:
            width = free * SHARES.get(package, 1.0)
            found[package] = Panel(x, y, width, height)
            x += width + 14
        y += height + GAP
    return found


def _panel(into: Drawing, graph: PackageGraph, panel: Panel) -> None:
    into.rectangle(panel.x, panel.y, panel.width, panel.height, fill=BAND)
    x, y = panel.x + 16, panel.y + 24
    into.text(x, y, graph.package, size=16, bold=True, anchor="start")
    into.text(
        x, y + 17, f"{WHAT[graph.package]}: {graph.figures().modules} modules", size=12, fill=QUIET, anchor="start"
    )
    for layer in range(1, graph.figures().layers + 1):
        _row(into, graph, layer, _middle(panel), panel.y + panel.height - 4 - layer * ROW_HEIGHT)


def _row(into: Drawing, graph: PackageGraph, layer: int, middle: float, y: float) -> None:
    fill, edge = HUES[graph.package]
    boxes = [box for box in graph.boxes if graph.layer[box] == layer]
    texts = [(graph.label(box), f"{graph.size(box)}" if graph.size(box) > 1 else "") for box in boxes]
    widths = [7.4 * len(label) + (8.0 * len(count) + 8 if count else 0) + 20 for label, count in texts]
    x = middle - (sum(widths) + 10 * (len(widths) - 1)) / 2
    for (label, count), width in zip(texts, widths, strict=True):
        into.rectangle(x, y, width, BOX_HEIGHT, fill=fill, stroke=edge)
        if count:
            into.text(x + 10, y + 19, label, size=13, anchor="start")
            into.text(x + width - 9, y + 19, count, size=12, fill=QUIET, anchor="end")
        else:
            into.text(x + width / 2, y + 19, label, size=13)
        x += width + 10


def _middle(panel: Panel) -> float:
    return panel.x + panel.width / 2
