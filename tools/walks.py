"""The walks through the code in docs/architecture.md: tables of functions, read and held against the code.

A walk is a table below a heading of the page. Each row names one function, says in a sentence what happens there, and
says in its last cell how the next row is reached:

    call            this function calls the next one
    return          this function returns to the next one, perhaps by way of others
    KIND `NAME`     what is handed over has this name on both sides: a pipe, an inbox, a method of the wire, a value
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from tools import import_graph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "docs/architecture.md"
UPDATE = "An update, from the worker to the average"
WALKS = (
    "An image, from the manifest to a batch",
    UPDATE,
    "An event, from the wire to the journal",
    "A lease runs out, from the silence to the next instruction",
)
"""headings of the page"""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a walk."""

    where: str
    """the process; empty where the whole walk is in one"""
    symbol: str
    """a function or a method by its whole name: site_agent.worker.tasks.do"""
    sentence: str
    onward: str
    """how the next row is reached; empty in the last one"""

    @property
    def name(self) -> str:
        """The last part of the symbol: `do`."""
        return self.symbol.rpartition(".")[2]

    @property
    def short(self) -> str:
        """The function, with its class if it has one: `Worker.do`."""
        *others, last = self.symbol.split(".")
        return f"{others[-1]}.{last}" if others[-1][0].isupper() else last

    @property
    def file(self) -> str:
        """The file below its package: `worker/tasks.py`."""
        module = self.symbol.removesuffix(f".{self.short}")
        return "/".join(module.split(".")[1:]) + ".py"


def read(root: Path, heading: str) -> list[Step]:
    """Return the rows of the walk below a heading of the page; none where there is no such page or heading."""
    text = (root / PAGE).read_text(encoding="utf-8") if (root / PAGE).exists() else ""
    _, _, rest = text.partition(f"\n### {heading}\n")
    table = [line for line in rest.partition("\n#")[0].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [_step(row) for row in rows[1:]]


def _step(row: list[str]) -> Step:
    *first, symbol, sentence, onward = row
    return Step(first[1] if len(first) > 1 else "", symbol.strip("`"), sentence, onward)


class Code:
    """The functions and classes of the project, by their whole names. Modules are parsed when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.texts: dict[str, str] = {}
        """module -> its source"""
        for package, folder in import_graph.PACKAGES.items():
            for path in sorted((root / folder).rglob("*.py")):
                module = ".".join((package, *path.relative_to(root / folder).with_suffix("").parts))
                self.texts[module] = path.read_text(encoding="utf-8")
        self._trees: dict[str, ast.Module] = {}
        self._imports = import_graph.modules(root)

    def tree(self, module: str) -> ast.Module:
        """Return a module, parsed."""
        if module not in self._trees:
            self._trees[module] = ast.parse(self.texts[module])
        return self._trees[module]

    def module_of(self, symbol: str) -> str:
        """Return the module that a symbol's name begins with; empty where there is none."""
        parts = symbol.split(".")
        return next((m for n in range(len(parts), 0, -1) if (m := ".".join(parts[:n])) in self.texts), "")

    def symbol(self, name: str) -> ast.AST | None:
        """Return the function or class of a whole name; None where there is none."""
        module = self.module_of(name)
        return dict(_defined(module, self.tree(module))).get(name) if module else None

    def has(self, short: str) -> bool:
        """Say whether a short name means a function or class: codec.read_report."""
        file, _, name = short.partition(".")
        return any(self.symbol(f"{module}.{name}") for module in self.texts if module.endswith(f".{file}"))

    def objection(self, step: Step, then: Step) -> str:
        """Return why the code does not go from one step to the next as the walk says; empty where it does."""
        kind, _, handed = step.onward.partition(" ")
        here, there = self.module_of(step.symbol), self.module_of(then.symbol)
        if kind == "call":
            body = self.symbol(step.symbol)
            ok = body is not None and then.name in _mentioned(body)
        elif kind == "return":
            ok = nx.has_path(self._imports, there, here)
        else:
            word = re.compile(rf"\b{re.escape(handed.strip('`'))}\b")
            ok = bool(handed) and all(word.search(self.texts[module]) for module in (here, there))
        return "" if ok else f"{step.symbol} does not reach {then.symbol} by {step.onward!r}"


def climbs(steps: list[Step]) -> int:
    """Count how often a walk goes back to a function that it has shown before."""
    return len(steps) - len({step.symbol for step in steps})


def _defined(prefix: str, tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _defined(f"{prefix}.{node.name}", node)


def _mentioned(tree: ast.AST) -> set[str]:
    """Return the names that stand in a piece of code, also the parts of `a.b`."""
    nodes = [*ast.walk(tree)]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
