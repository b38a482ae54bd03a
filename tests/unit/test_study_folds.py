"""Cross-validation by woman."""

from __future__ import annotations

from collections import Counter

import pytest

from cervix_study.data.folds import Patient, deal, deals, leave_out, split_in
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


def test_in_every_repeat_every_labelled_woman_is_tested_once_in_another_company() -> None:
    """The first repeat is the cross-validation that is not repeated."""
    strata, folds, repeats = women(), 3, 2
    found = dict(deals(strata, [], folds, repeats, seed=0))
    assert list(found) == list(range(folds * repeats))
    parts = deal(strata, [], folds, seed=0)
    assert found[1] == {who: split_in(parts[who], stratum, 1, folds) for who, stratum in strata.items()}
    for repeat in range(repeats):
        own = [found[fold] for fold in range(repeat * folds, (repeat + 1) * folds)]
        tested = Counter(who for splits in own for who, split in splits.items() if split == "test")
        assert tested == {who: 1 for who, stratum in strata.items() if stratum != "unlabelled"}
    company = [{who for who, split in found[fold].items() if split == "test"} for fold in found]
    assert len({frozenset(one) for one in company}) == folds * repeats


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


def test_no_woman_of_a_left_out_device_trains_or_validates() -> None:
    """Also none without a label: learning without labels would see the device."""
    strata = women()
    devices = {who: "ABC"[number % 3] for number, who in enumerate(sorted(strata))}
    for fold, splits in leave_out(devices, strata, [], ("A", "B"), seed=0):
        left_out = "AB"[fold]
        assert {who for who, split in splits.items() if split == "test"} == {
            who for who, device in devices.items() if device == left_out
        }
        kept = Counter((who[0], strata[who], splits[who]) for who in strata if devices[who] != left_out)
        for site in ("nhs", "alts"):
            for stratum in ("case", "control", "unlabelled"):
                assert kept[site, stratum, "valid"] == pytest.approx(kept[site, stratum, "train"] / 3, abs=1.5)
