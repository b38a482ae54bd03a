"""The control map: what two standards ask, and where in this dossier the evidence is. No evidence, no entry.

ISO/IEC 27001:2022, Annex A; IEC 81001-5-1:2021. It lists the controls to which the software contributes. The titles are
shortened; whether a control is fulfilled is for the site to judge.
"""

from __future__ import annotations

from collections.abc import Set

from site_agent.dossier.papers import BLANK, PaperCell, Section, table

ISO = "ISO/IEC 27001"
IEC = "IEC 81001-5-1"

CONTROLS: tuple[tuple[str, str, str, str], ...] = (
    (ISO, "A.5.9", "Inventory of information and assets", "register.html"),
    (ISO, "A.5.14", "Transfer of information", "egress.html"),
    (ISO, "A.5.15", "Access control", "agreements.html"),
    (ISO, "A.5.16", "Identity management", "identity.html"),
    (ISO, "A.5.23", "Use of cloud services", ""),
    (ISO, "A.5.24", "Planning for incidents", ""),
    (ISO, "A.5.28", "Collection of evidence", "agreements.html"),
    (ISO, "A.5.34", "Privacy and protection of personal data", "dpia.html"),
    (ISO, "A.6.3", "Awareness and training", ""),
    (ISO, "A.7.2", "Physical entry", ""),
    (ISO, "A.8.5", "Secure authentication", "identity.html"),
    (ISO, "A.8.8", "Technical vulnerabilities", "sbom.cdx.json"),
    (ISO, "A.8.10", "Deletion of information", "register.html"),
    (ISO, "A.8.12", "Prevention of data leakage", "audit.html"),
    (ISO, "A.8.13", "Backup", ""),
    (ISO, "A.8.15", "Logging", "egress.html"),
    (ISO, "A.8.20", "Security of networks", "data-flow.svg"),
    (ISO, "A.8.24", "Cryptography", "identity.html"),
    (ISO, "A.8.32", "Management of changes", "agreements.html"),
    (IEC, "4.1", "Quality management", ""),
    (IEC, "4.2", "Security risk management", "dpia.html"),
    (IEC, "5.3", "Architecture: which data cross which border", "data-flow.svg"),
    (IEC, "5.7", "Tests of the system's security", "audit.html"),
    (IEC, "5.8", "Release: what the software consists of", "sbom.cdx.json"),
    (IEC, "6", "Maintenance: updates of security", ""),
    (IEC, "7", "Management of security risks", "dpia.html"),
    (IEC, "8", "Configuration: which versions and models", "mlbom.cdx.json"),
    (IEC, "9", "Resolution of problems", ""),
)
"""(standard, number, title, the file that is evidence; empty: the software has none)"""


WHEN_FILLED_IN = {"dpia.html": ", once people have filled it in"}
"""what is said beside a file that is no evidence by itself"""


def control_map(evidence: Set[str]) -> Section:
    """Return the map. `evidence`: the files of the dossier that hold something; other links stay blank."""
    rows = [
        (number, standard, title, PaperCell(file + WHEN_FILLED_IN.get(file, ""), file) if file in evidence else BLANK)
        for standard, number, title, file in CONTROLS
    ]
    return table("Controls", ("number", "standard", "control", "evidence in this dossier"), rows)
