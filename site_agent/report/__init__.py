"""The site's report: `SiteReport` says what, `render` draws the page, `write_results` writes page and numbers."""

from site_agent.report.content import (
    Augmented,
    CensusRow,
    Contribution,
    EmbeddingMap,
    Leak,
    Losses,
    Neighbours,
    Round,
    SetAside,
    SiteReport,
)
from site_agent.report.page import render, write_results
from site_agent.report.results import Results, parse

__all__ = [
    "Augmented",
    "CensusRow",
    "Contribution",
    "EmbeddingMap",
    "Leak",
    "Losses",
    "Neighbours",
    "Results",
    "Round",
    "SetAside",
    "SiteReport",
    "parse",
    "render",
    "write_results",
]
