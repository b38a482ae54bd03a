"""The readable names of cells, and which of them match a pattern."""

from __future__ import annotations

from fnmatch import fnmatchcase

from cervix_study.records import Cell
from site_agent.starts import title


def named(cell: Cell) -> str:
    """Return a cell's name: `classifier SSL nhs N8 w64 seed0`. Without spaces it is what `--cells` patterns match."""
    parts = [cell.kind, title(cell.start)]
    if cell.kind != "encoder" or len(cell.sites) == 1:
        parts.append("+".join(cell.sites))
    settings = {"N": cell.batch_images, "w": cell.width, "E": cell.epochs_per_round}
    parts += [f"{letter}{value}" for letter, value in settings.items() if value is not None]
    parts += [f"seed{cell.seed}" + (f".{cell.classifier_seed}" if cell.classifier_seed else "")]
    parts += [f"fold{cell.fold}"] if cell.fold is not None else []
    parts += [cell.profile] if cell.profile != "paper" else []
    parts += [f"labels{cell.label_fraction:g}"] if cell.label_fraction != 1 else []
    parts += [cell.control] if cell.control != "none" else []
    return " ".join(parts)


def matches(cell: Cell, pattern: str) -> bool:
    """Return whether a pattern of `--cells` means this cell: the beginning of its key, or its name with `*`."""
    name = named(cell).replace(" ", "/").casefold()
    return cell.key.startswith(pattern) or fnmatchcase(name, pattern.replace(" ", "/").casefold())
