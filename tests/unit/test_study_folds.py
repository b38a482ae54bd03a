"""Cross-validation by woman."""

from __future__ import annotations

from collections import Counter

import pytest

from cervix_study.data.folds import Patient, deal, split_in
from site_agent.manifest.splits import Stratum


def women(cases: int = 12, controls: int = 21, unlabelled: int = 9) -> dict[Patient, Stratum]:
    counts: dict[Stratum, int] = {"case": cases, "control": controls, "unlabelled": unlabelled}
    return {
        (site, f"{stratum}-{number}"): stratum
        for site in ("nhs", "alts")
        for stratum, count in counts.items()
        for number in range(count)
    }


@pytest.mark.parametrize("folds", [3, 5])
def test_every_labelled_woman_is_tested_once_and_no_other_ever(folds: int) -> None:
    strata = women()
    parts = deal(strata, [], folds, seed=0)
    for who, stratum in strata.items():
        did = Counter(split_in(parts[who], stratum, fold, folds) for fold in range(folds))
        assert did["test"] == (0 if stratum == "unlabelled" else 1)
        assert did["valid"] == 1


def test_every_part_has_its_share_of_every_site_s_strata() -> None:
    strata = women()
    parts = deal(strata, [], 5, seed=0)
    held = Counter((who[0], strata[who], part) for who, part in parts.items())
    for site in ("nhs", "alts"):
        for stratum in ("case", "control", "unlabelled"):
            counts = [held[site, stratum, part] for part in range(5)]
            assert max(counts) - min(counts) <= 1


def test_linked_patients_go_together_also_across_sites() -> None:
    links = [
        (("nhs", "case-0"), ("alts", "control-3")),
        (("alts", "control-3"), ("alts", "unlabelled-1")),
    ]
    for seed in range(5):
        parts = deal(women(), links, 5, seed)
        assert len({parts[who] for link in links for who in link}) == 1


def test_it_depends_on_the_seed_and_on_no_order() -> None:
    strata = women()
    backwards = dict(reversed(strata.items()))
    assert deal(strata, [], 4, 1) == deal(backwards, [], 4, 1)
    assert deal(strata, [], 4, 1) != deal(strata, [], 4, 2)
