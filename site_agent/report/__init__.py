"""The site's report: `SiteReport` says what, `render` draws the page, `write_report` writes page, numbers and rows."""

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
from site_agent.report.page import render
from site_agent.report.predictions import Predictions, Scored, ScoredImage
from site_agent.report.printed import printed
from site_agent.report.results import Results, parse, read
from site_agent.report.writing import write_report

__all__ = [
    "Augmented",
    "CensusRow",
    "Contribution",
    "EmbeddingMap",
    "Leak",
    "Losses",
    "Neighbours",
    "Predictions",
    "Results",
    "Round",
    "Scored",
    "ScoredImage",
    "SetAside",
    "SiteReport",
    "parse",
    "printed",
    "read",
    "render",
    "write_report",
]
