"""The walks through the code in docs/architecture.md: tables of functions. Tests hold them against the code.

A walk is a table below a heading of the page. Each row names one function, says in a sentence what happens there, and
says in its last cell how the next row is reached:

    call            this function calls the next one
    return          this function returns to the next one, perhaps by way of others
    KIND `NAME`     what is handed over has this name on both sides: a pipe, an inbox, a method of the wire, a value
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/architecture.md"
UPDATE = "An update, from the worker to the average"
"""heading of the page"""


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
