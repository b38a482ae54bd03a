"""The models of an institution as a table."""

from __future__ import annotations

from rich.table import Table

from fedcervix.lineage.decisions import SHORT
from fedcervix.lineage.shelf import Shelf, state


def model_table(shelf: Shelf) -> Table:
    """Return one row for each model. Digests are the first 12 digits."""
    drawn = Table()
    for heading in ("model", "digest", "start", "sites", "made (UTC)", "state"):
        drawn.add_column(heading, overflow="fold", no_wrap=heading == "digest")
    for one in shelf.models:
        made_at = one.made_at.removesuffix("+00:00").replace("T", " ")[:16]
        sites = ", ".join(site.site for site in one.contributors if site.rounds != 0)
        whose = sites or ("?" if one.run else "this site")
        drawn.add_row(one.name, one.digest[:SHORT], one.start, whose, made_at, state(shelf, one))
    return drawn
