"""Which folder of a package imports from which: read from the code, without running it.

1. A folder directly below a package is one box. A module directly below it is a box of its own.
2. An arrow leads from the importer to what it imports. Imports inside functions count.
3. The layer of a box is one more than the highest layer that it imports from. The lowest layer is 1.
4. `__init__.py` and `__main__.py` are no modules here. What a folder's `__init__.py` imports, the folder imports.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

PACKAGES = {
    "fedcervix": "shared/fedcervix",
    "coordinator": "coordinator",
    "site_agent": "site_agent",
    "cervix_study": "cervix_study",
}
"""package -> its folder below the root of the repository"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What can be counted in the import graph of a package."""

    modules: int
    module_arrows: int
    boxes: int
    arrows: int
    layers: int
    circles: int
    arrows_upwards: int


@dataclass(frozen=True, slots=True)
class PackageGraph:
    """The modules of one package and its boxes, each with the arrows between them."""

    package: str
    modules: nx.DiGraph
    boxes: nx.DiGraph
    layer: dict[str, int]
    """box -> its layer"""

    def size(self, box: str) -> int:
        """Return the number of modules in a box."""
        return sum(box_of(name) == box for name in self.modules if counted(name))

    def label(self, box: str) -> str:
        """Return the name of a box as it is on the disk: `data/` or `home.py`."""
        return f"{box}.py" if f"{self.package}.{box}" in self.modules else f"{box}/"

    def figures(self) -> Figures:
        """Count the graph."""
        return Figures(
            modules=sum(map(counted, self.modules)),
            module_arrows=self.modules.number_of_edges(),
            boxes=len(self.boxes),
            arrows=self.boxes.number_of_edges(),
            layers=max(self.layer.values()),
            circles=sum(len(circle) > 1 for circle in nx.strongly_connected_components(self.boxes)),
            arrows_upwards=sum(self.layer[by] <= self.layer[of] for by, of in self.boxes.edges),
        )


def read(root: Path) -> tuple[dict[str, PackageGraph], nx.DiGraph]:
    """Return the graph of each package below `root`, and the graph of the packages themselves."""
    imports = modules(root)
    graphs = {package: _graph(package, imports) for package in PACKAGES}
    between = {(top_of(by), top_of(of)) for by, of in imports.edges}
    return graphs, _directed(PACKAGES, ((by, of) for by, of in between if by != of))


@cache
def modules(root: Path) -> nx.DiGraph:
    """Return all modules of the packages below `root`, with arrows to the modules that each imports. Read once."""
    found = sources(root)
    return _directed(found, ((by, of) for by, path in found.items() for of in _imported(path, found) if by != of))


def sources(root: Path) -> dict[str, Path]:
    """Return the files of the packages below `root` by the names of their modules."""
    return {name: path for package, folder in PACKAGES.items() for name, path in _files(package, root / folder)}


def counted(name: str) -> bool:
    """Say whether a file counts as a module."""
    return not name.endswith((".__init__", ".__main__"))


def top_of(name: str) -> str:
    """Return the package of a module: site_agent of site_agent.data.batches."""
    return name.partition(".")[0]


def box_of(name: str) -> str:
    """Return the box of a module: data of site_agent.data.batches, home of site_agent.home."""
    return name.split(".")[1]


def _files(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        yield ".".join((package, *path.relative_to(folder).with_suffix("").parts)), path


def _imported(path: Path, known: Collection[str]) -> Iterator[str]:
    """Yield the modules of the project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from filter(None, (_module(name, known) for name in names))


def _module(name: str, known: Collection[str]) -> str | None:
    """Return the module that an imported name lies in: fedcervix.errors of fedcervix.errors.DataError."""
    parts = name.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((found for p in prefixes for found in (p, f"{p}.__init__") if found in known), None)


def _graph(package: str, imports: nx.DiGraph) -> PackageGraph:
    own = {f"{package}.__init__", f"{package}.__main__"}
    names = [name for name in imports if top_of(name) == package and name not in own]
    modules = _directed(names, imports.subgraph(names).edges)
    between = {(box_of(by), box_of(of)) for by, of in modules.edges}
    boxes = _directed(sorted({*map(box_of, names)}), ((by, of) for by, of in between if by != of))
    return PackageGraph(package, modules, boxes, _layers(boxes))


def _directed(nodes: Iterable[str], arrows: Iterable[tuple[str, str]]) -> nx.DiGraph:
    """Return a graph whose order depends on the names alone: a drawing must not change from run to run."""
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(sorted(arrows))
    return graph


def _layers(boxes: nx.DiGraph) -> dict[str, int]:
    """Return the layer of each box. The boxes of a circle share one layer."""
    circles = nx.condensation(boxes)
    generations = nx.topological_generations(circles.reverse())
    return {box: n for n, some in enumerate(generations, 1) for c in some for box in circles.nodes[c]["members"]}
