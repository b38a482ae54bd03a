"""What is said wherever a probability or a score is read: on pages, in printed tables, in the heads of CSV files."""

from __future__ import annotations

RESEARCH_ONLY = "For research only. Not a medical device."

NOT_CALIBRATED = (
    "The probabilities are not calibrated: .8 does not mean that 8 of 10 such images are cases. They only rank "
    "images. In training both classes have the same weight, so the probabilities are too high where cases are rarer "
    "than controls."
)

CSV_NOTE = "research only, not a medical device; probabilities are not calibrated"
"""a column of every CSV file that holds probabilities"""
