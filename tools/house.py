"""Draw the import graphs of the packages from the code, and print their figures: `make house`."""

from __future__ import annotations

from dataclasses import astuple, fields
from pathlib import Path

import click

from fedcervix.runtime.printing import say
from tools import house_picture, import_graph, package_picture, update_picture, walks

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "house"


def pictures(root: Path) -> dict[str, str]:
    """Return every picture of the code below `root`: the name of its file -> its text."""
    graphs, _ = import_graph.read(root)
    packages = {f"{package}.svg": package_picture.draw(graph) for package, graph in graphs.items()}
    pages = {"update.svg": update_picture.draw(walks.read(root, walks.UPDATE))} if (root / walks.PAGE).exists() else {}
    return {"house.svg": house_picture.draw(graphs), **packages, **pages}


def figures(root: Path) -> str:
    """Return the figures of all packages below `root` as a table in Markdown."""
    names = [field.name.replace("_", " ") for field in fields(import_graph.Figures)]
    rows = [["package", *names], ["---"] * (len(names) + 1)]
    rows += [[package, *map(str, astuple(graph.figures()))] for package, graph in import_graph.read(root)[0].items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), default=ROOT, help="The code to draw.")
@click.option("--out", type=click.Path(path_type=Path), default=PICTURES, help="The folder to draw into.")
def main(root: Path, out: Path) -> None:
    """Draw the import graph of each package into a folder, and print its figures."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(root).items():
        (out / name).write_text(text, encoding="utf-8")
    say(figures(root))


if __name__ == "__main__":
    main()
