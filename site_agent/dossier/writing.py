"""All files of a dossier, and how they come into a folder. The same home gives the same bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedcervix.disk.files import make_folder, write_secret
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError
from fedcervix.json_text import parsed
from fedcervix.lineage.model_bill import model_bill
from fedcervix.runtime.typed_json import to_text
from site_agent.dossier import law_papers, run_papers
from site_agent.dossier.boms import software_bill
from site_agent.dossier.controls import control_map
from site_agent.dossier.facts import Facts
from site_agent.dossier.flow import flow
from site_agent.dossier.papers import Paper, PaperCell, Section, page, table
from site_agent.home import SiteHome

INDEX = "index.html"
COPIED = ("plan.json", "ledger.jsonl", "ledger-signatures.jsonl")
"""of the folder of a run, as they are: another program can check them"""
FLOW, EGRESS, AUDIT = "data-flow.svg", "egress.json", "audit.json"
SOFTWARE, MODELS = "sbom.cdx.json", "mlbom.cdx.json"


def files(home: SiteHome, known: Facts) -> dict[str, bytes]:
    """Return the files of a dossier by name. Raises StorageError."""
    texts = {
        FLOW: flow(known),
        EGRESS: run_papers.egress_json(known),
        AUDIT: to_text([{"run": run, "sheet": sheet} for run, sheet in known.audits], indent=1) + "\n",
        SOFTWARE: software_bill(),
        MODELS: model_bill(known.models, known.standings, "models of this site"),
    }
    papers = _papers(known, texts[FLOW])
    pages = {paper.file: page(paper, papers, known.site) for paper in papers}
    written = {name: text.encode("utf-8", "backslashreplace") for name, text in (pages | texts).items()}
    return dict(sorted((written | dict(_copied(home, known))).items()))


def write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write the files of a dossier into a folder; those of an earlier dossier that are not among them go.

    Raises ConfigError where the folder holds something else, StorageError.
    """
    before = _before(folder)
    for name in sorted(before - content.keys()):
        with disk(folder / name, "write"):
            (folder / name).unlink(missing_ok=True)
    make_folder(folder)
    for name, text in content.items():
        make_folder((folder / name).parent)
        write_secret(folder / name, text)
    write_secret(folder / LISTED, json.dumps(sorted(content), indent=1, allow_nan=False).encode())


LISTED = "files.json"
"""the names of all files of a dossier: what the next one may replace"""


def _before(folder: Path) -> set[str]:
    """Return the names of the files of the dossier that lies in a folder."""
    with disk(folder, "read"):
        if not folder.exists() or not any(folder.iterdir()):
            return set()
        with contextlib.suppress(OSError, ValueError):
            found = parsed((folder / LISTED).read_bytes())
            return {name for name in found if (folder / name).resolve().is_relative_to(folder.resolve())}
    raise ConfigError(
        f"{folder} holds something else than a dossier",
        cause="wrong folder: its files would be replaced",
        next_step="give another folder: site-agent dossier --to FOLDER",
    )


def _papers(known: Facts, picture: str) -> list[Paper]:
    papers = [
        law_papers.impact_assessment(known),
        law_papers.record_of_processing(known),
        law_papers.register(known),
        run_papers.agreements(known),
        run_papers.egress(known),
        run_papers.audits(known),
        run_papers.identity(known),
    ]
    controls = Paper(
        "controls.html",
        "Control map",
        "Which file of this dossier is evidence for which control. A blank line: the software has none here.",
        (control_map(_evidence(known)),),
    )
    return [_index(known, [*papers, controls], picture), *papers, controls]


def _evidence(known: Facts) -> set[str]:
    """Return the files that hold more than that there is nothing."""
    there = {
        "agreements.html": bool(known.runs),
        "egress.html": bool(known.egress.departures),
        "audit.html": any(sheet.attacks for _, sheet in known.audits),
        "identity.html": bool(known.fingerprint),
        MODELS: bool(known.models),
    }
    return {"dpia.html", "register.html", FLOW, SOFTWARE} | {file for file, holds in there.items() if holds}


def _index(known: Facts, papers: list[Paper], picture: str) -> Paper:
    rows = [(PaperCell(paper.title, paper.file), paper.lead) for paper in papers]
    data = (
        (PaperCell("Data-flow diagram", FLOW), "the picture above, SVG"),
        (PaperCell("Egress manifest, all entries", EGRESS), "JSON"),
        (PaperCell("Audit sheets", AUDIT), "JSON"),
        (PaperCell("Software bill of materials", SOFTWARE), "CycloneDX 1.6"),
        (PaperCell("Bill of models", MODELS), "CycloneDX 1.6"),
    )
    words = (
        "These papers are made from the files of this site. No image and no identifier of a patient is in them.",
        "What only people can answer is blank. Fill it in on a copy: site-agent dossier writes these files again.",
        *(f"Could not be read, and is missing here: {one}." for one in known.unread),
    )
    sections = (
        table("Papers", ("paper", "what it is"), rows, *words),
        Section("Which data go where", picture=picture),
        table("Files", ("file", "form"), data),
    )
    return Paper(INDEX, "Dossier", f"For the data protection officer of {known.site}.", sections)


def _copied(home: SiteHome, known: Facts) -> Iterator[tuple[str, bytes]]:
    """Yield plan and signed ledger of each run."""
    for run in known.runs:
        for name in COPIED:
            file = home.run_folder(run.run) / name
            with disk(file, "read"):
                if file.exists():
                    yield f"runs/{run.run}/{name}", file.read_bytes()
