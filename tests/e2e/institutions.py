"""Two tiny institutions of twelve labelled women each, for sites that really train."""

from __future__ import annotations

from pathlib import Path

from site_agent.phantom import INSTITUTIONS, write_institution


def draw_collections(folder: Path) -> None:
    """Draw them: FOLDER/SITE/manifest.csv."""
    for name in ("nhs", "alts"):
        write_institution(folder / name, INSTITUTIONS[name], women=12, seed=1, unlabelled_per_labelled=0.5)
