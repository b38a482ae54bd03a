"""Draw the import graphs of the packages from the code, and print their figures: `make house`."""

from __future__ import annotations

from dataclasses import astuple, fields
from pathlib import Path

import click

from fedcervix.runtime.printing import say
from tools import house_picture, import_graph, package_picture, update_picture, walks

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "house"


def pictures(root: Path, graphs: dict[str, import_graph.PackageGraph]) -> dict[str, str]:
    """Return every picture of the code below `root`: the name of its file -> its text."""
    found = {"house.svg": house_picture.draw(graphs)}
    found |= {f"{package}.svg": package_picture.draw(graph) for package, graph in graphs.items()}
    if steps := walks.read(root, walks.UPDATE):
        found["update.svg"] = update_picture.draw(steps)
    return found


def figures(graphs: dict[str, import_graph.PackageGraph]) -> str:
    """Return the figures of all packages as a table in Markdown."""
    names = [field.name.replace("_", " ") for field in fields(import_graph.Figures)]
    rows = [["package", *names], ["---"] * (len(names) + 1)]
    rows += [[package, *map(str, astuple(graph.figures()))] for package, graph in graphs.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), default=ROOT, help="The code to draw.")
@click.option("--out", type=click.Path(path_type=Path), default=PICTURES, help="The folder to draw into.")
def main(root: Path, out: Path) -> None:
    """Draw the import graph of each package into a folder, and print its figures."""
    out.mkdir(parents=True, exist_ok=True)
    graphs, _ = import_graph.read(root)
    for name, text in pictures(root, graphs).items():
        (out / name).write_text(text, encoding="utf-8")
    say(figures(graphs))


if __name__ == "__main__":
    main()
