"""Since when a study's hypotheses stand: whether a test part was open when they, or the study, were last changed.

Rules
1. Hypotheses stand from the first `cervix-study run` with this design on. The design is everything that decides a
   result: STUDY.toml without [machine] and [slurm], what its profiles mean, and the sites' images, women and labels.
2. Before any test part is open the design may be changed, and stands anew. Afterwards a change is kept as what it is:
   `after_opening`, whatever becomes of the results afterwards. Nothing that it shows is then confirmed.
3. A folder cannot prove a date. The SHA-256 of STUDY.toml, and the commit that holds it, can, where a commit was
   published before the run.

Pure: values in, values out.
"""

from __future__ import annotations

import dataclasses
import hashlib

from cervix_study.records import Registered
from cervix_study.settings import StudyConfig
from fedcervix.core.plan import canonical_json

DECIDE_NOTHING = ("machine", "slurm")


def registered(
    asked: StudyConfig, earlier: Registered | None, *, opened: bool, same: bool, commit: str, at: str
) -> Registered | None:
    """Return since when the hypotheses of a study stand; None where it has none, and had none when it was opened.

    `opened`: whether any test part of the study's folder is open. `same`: whether profiles and images are those of
    the run before.
    """
    settings = asked.settings
    design = design_of(asked)
    if earlier and earlier.design == design and same:
        return earlier
    if not settings.hypotheses and not (earlier and opened):
        return None
    return Registered(
        hypotheses=settings.hypotheses,
        second_look=settings.second_look,
        design=design,
        file=hashlib.sha256(asked.text.encode()).hexdigest(),
        commit=commit,
        at=at,
        after_opening=opened or bool(earlier and earlier.after_opening),
    )


def design_of(asked: StudyConfig) -> str:
    """Return the SHA-256 of all of STUDY.toml that decides results (rule 1)."""
    said = {key: value for key, value in dataclasses.asdict(asked.settings).items() if key not in DECIDE_NOTHING}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()
