"""Site reports for tests: whole, with whatever a test changes."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedcervix.core.plan import Recipe
from site_agent.classifier.evaluate import AtThreshold, Comparison, Evaluation
from site_agent.classifier.intervals import Estimate
from site_agent.data.duplicates import CrossPatientPicture
from site_agent.metrics import Confusion
from site_agent.report.content import (
    Augmented,
    Contribution,
    EmbeddingMap,
    Losses,
    Neighbours,
    RoundRow,
    SetAside,
    SiteReport,
    TableOneRow,
)
from site_agent.report.predictions import ClassifierScores, Predictions, ScoredImage


def evaluation(name: str, auc: float) -> Evaluation:
    level = Estimate(0.75, 0.6, 0.9)
    at = AtThreshold(0.5, Confusion(tp=3, fn=1, fp=1, tn=3), *[level] * 6)
    return Evaluation(
        name=name,
        images=8,
        women=4,
        case_women=2,
        cases=4,
        auc=Estimate(auc, auc - 0.1, min(1.0, auc + 0.1)),
        fixed=at,
        chosen=dataclasses.replace(at, threshold=0.42),
        roc=((0.0, 0.0), (0.25, 0.75), (1.0, 1.0)),
    )


def comparison(versus: str, low: float, high: float) -> Comparison:
    """Return a comparison whose verdict is that of its interval."""
    corrected = 0.9 if low <= 0 <= high else 0.01
    return Comparison("CSFSSL", versus, Estimate((low + high) / 2, low, high), corrected)


def embedding_map(model: str) -> EmbeddingMap:
    return EmbeddingMap(model, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), (1, 0, None, None), images=4)


def predictions() -> Predictions:
    """A case of two images that is missed at .5, a case that is found, two controls."""
    images = (
        ScoredImage("c1/a.jpg", "P1", "P1", 1),
        ScoredImage("c1/b.jpg", "P1", "P1", 1),
        ScoredImage("c2/a.jpg", "P2", "P2", 1),
        ScoredImage("d1/a.jpg", "P3", "P3", 0),
        ScoredImage("d2/a.jpg", "P4", "P4", 0),
    )
    scores = np.array([0.2, 0.45, 0.9, 0.3, 0.6])
    return Predictions(
        images, tuple(ClassifierScores(name, "cd" * 32, 0.42, scores) for name in ("Random", "SSL", "CSFSSL"))
    )


def report(**changes: object) -> SiteReport:
    grey = np.full((8, 8, 3), 128, np.uint8)
    full = {
        "site": "nhs",
        "federation": "cervix",
        "run": "r1",
        "mode": "csfssl",
        "plan_digest": "ab" * 32,
        "recipe": Recipe(),
        "when": "1 June 2025",
        "versions": {"fedcervix": "0.1.0"},
        "final_state": "OK",
        "federated": "CSFSSL",
        "census": (TableOneRow("train", "case", 91, 182, 190), TableOneRow("train", "control", 181, 361, 380)),
        "set_aside": SetAside(
            (("a/b.jpg", "an empty file"),),
            2,
            (CrossPatientPicture("e" * 64, ("P1", "P2"), ("c.jpg", "d.jpg"), identical=False, conflicting=True),),
        ),
        "evaluations": (evaluation("Random", 0.7), evaluation("SSL", 0.8), evaluation("CSFSSL", 0.875)),
        "by_woman": (evaluation("Random", 0.7), evaluation("SSL", 0.8), evaluation("CSFSSL", 0.9)),
        "comparisons": (comparison("SSL", 0.02, 0.13), comparison("Random", 0.05, 0.3)),
        "predictions": predictions(),
        "provenance": (),
        "contrastive_history": (Losses("SSL", (2.7, 1.5), (2.6, 1.6)),),
        "collapse_line": 2.7080502011,
        "neighbour_history": (Neighbours("SSL", (None, 0.6, 0.7), 3),),
        "classifier_history": (Losses("SSL", (0.7, 0.5), (0.6, 0.55)),),
        "rounds": (RoundRow(1, 2.1, (Contribution("nhs", 190, 23), Contribution("alts", 300, 37))),),
        "contact_sheet": (Augmented(grey, (grey, grey)),),
        "maps": (embedding_map("random weights"), embedding_map("the federated model (CSFSSL)")),
    }
    return SiteReport(**{**full, **changes})


def bare(**changes: object) -> SiteReport:
    """A report of nothing but a plan."""
    parts = ("census", "evaluations", "by_woman", "comparisons", "provenance", "rounds", "contact_sheet", "maps")
    histories = ("contrastive_history", "neighbour_history", "classifier_history")
    nothing = {**dict.fromkeys((*parts, *histories), ()), "federated": "", "set_aside": SetAside(), "predictions": None}
    return report(**{**nothing, "collapse_line": None, **changes})
