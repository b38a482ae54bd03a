"""Before a study: the women that a difference needs, in closed form and through the test that reports use."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import norm

from benchmarks.coverage import start
from cervix_study.cli import cli
from cervix_study.planning.power import Design
from site_agent.classifier.by_woman import Measured, Roster, Stratum, area
from site_agent.classifier.intervals import LEVEL, POWER

NEEDED = {0.03: (2271, 1364, 458), 0.05: (797, 480, 164), 0.10: (187, 115, 42), 0.15: (78, 50, 22)}
"""difference -> women at correlation .5, .7, .9, from an AUC of .70: known figures of this design"""


@pytest.mark.parametrize("difference", NEEDED)
def test_how_many_women_a_difference_needs(difference: float) -> None:
    assert tuple(Design(correlation=r).women(difference) for r in (0.5, 0.7, 0.9)) == NEEDED[difference]


@pytest.mark.parametrize("correlation", [0.5, 0.7, 0.9])
def test_what_women_show_is_what_needs_them(correlation: float) -> None:
    """The reverse: as many women as .10 needs show .100, and one woman fewer does not."""
    design = Design(correlation=correlation, case_share=0.3, comparisons=4)
    women = design.women(0.10)
    assert women is not None
    shown, fewer = design.detectable(women), design.detectable(women - 1)
    assert shown == pytest.approx(0.1, abs=1e-9)
    assert fewer is not None
    assert fewer > shown
    assert design.power(0.10, women) == pytest.approx(POWER, abs=0.005)


def test_what_cannot_be_reached_needs_no_women() -> None:
    assert Design(auc=0.9).women(0.1) is None
    assert Design(auc=0.95).detectable(10) is None
    assert Design(case_share=0.1).women_min == 200


def test_a_study_of_that_size_finds_the_difference_in_four_of_five() -> None:
    """Binormal scores, half of a start's variance shared with the other's, through the test that reports use."""
    auc, difference, shared, sims = 0.70, 0.12, 0.6, 1500
    rng = np.random.default_rng(3)
    women = Design(auc=auc, correlation=_correlation(rng, auc, difference, shared)).women(difference)
    assert women is not None
    found = _gains(rng, auc, difference, shared, women, sims)
    shown = np.mean([(value > 0) & (p < 1 - LEVEL) for value, p in found])
    assert shown == pytest.approx(POWER, abs=0.05), women


def _correlation(rng: np.random.Generator, auc: float, difference: float, shared: float) -> float:
    values = _areas(rng, auc, difference, shared, 100, 2000).values[..., 0]
    return float(np.corrcoef(values[:, 0], values[:, 1])[0, 1])


def _areas(rng: np.random.Generator, auc: float, difference: float, shared: float, women: int, sims: int) -> Measured:
    """Return the AUCs of both starts (sims, 2, 1), one score of each woman."""
    labels = np.arange(women) % 2 == 0
    gaps = math.sqrt(2) * norm.ppf([[auc + difference], [auc]])
    common, own = rng.standard_normal((sims, 1, women)), rng.standard_normal((sims, 2, women))
    return area(labels, gaps * labels + math.sqrt(shared) * common + math.sqrt(1 - shared) * own, np.eye(women))


def _gains(
    rng: np.random.Generator, auc: float, difference: float, shared: float, women: int, sims: int
) -> list[tuple[float, float]]:
    """Return (difference, p) of every simulated study."""
    found = _areas(rng, auc, difference, shared, women, sims)
    gain = start(found, 0) - start(found, 1)
    places = np.arange(women)
    strata = (Stratum(True, tuple(places[::2].tolist())), Stratum(False, tuple(places[1::2].tolist())))
    p = gain.scatter(Roster(tuple(map(str, places)), strata, (0,))).p(gain.values[:, 0])
    return list(zip(gain.values[:, 0].tolist(), p.tolist(), strict=True))


def test_the_command_says_both() -> None:
    said = CliRunner().invoke(cli, ["power", "--women", "94", "--case-share", "0.63"]).output
    assert "0.03" in said
    assert "2,243" in said
    assert "What 94 women can show" in said
    assert "55 women at least" in said


@pytest.mark.parametrize("words", [["--auc", "0.3"], ["--difference", "0"], ["--correlation", "1"]])
def test_a_study_that_cannot_be_planned_is_an_error(words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["power", *words])
    assert done.exit_code != 0
