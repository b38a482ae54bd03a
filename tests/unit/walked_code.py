"""The code that the walks of docs/architecture.md lead through: what a row names is there, and reaches the next row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

from tools import import_graph
from tools.walks import Step


class Code:
    """The functions and classes of the project, by their whole names. Modules are parsed when they are asked for."""

    def __init__(self, root: Path) -> None:
        sources = import_graph.sources(root)
        self.texts = {module: path.read_text(encoding="utf-8") for module, path in sources.items()}
        """module -> its source"""
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
