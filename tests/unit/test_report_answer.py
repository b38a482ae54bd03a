"""Did joining help? Every start is asked, and nothing positive is said while another one is ahead."""

from __future__ import annotations

import itertools

import pytest

from site_agent.classifier.evaluate import Comparison, Evaluation
from site_agent.classifier.intervals import TOO_FEW_WOMEN, Estimate
from site_agent.report.answer import answer, missed, share, shown, shown_difference
from site_agent.report.content import Contribution, RoundRow, SiteReport
from site_agent.report.results import to_json
from tests.unit.site_reports import evaluation, report

DECIDED = {"better": (0.02, 0.2), "worse": (-0.2, -0.02), "not shown": (-0.1, 0.1)}


def compared(versus: str, verdict: str) -> Comparison:
    low, high = DECIDED[verdict]
    return Comparison("CSFSSL", versus, Estimate((low + high) / 2, low, high), 0.9 if low <= 0 <= high else 0.01)


def judged(aucs: dict[str, float], verdicts: dict[str, str], **more: object) -> SiteReport:
    """A report in which the starts have these AUCs of images, and the federated one these verdicts beside others."""
    found: tuple[Evaluation, ...] = tuple(evaluation(name, auc) for name, auc in aucs.items())
    comparisons = tuple(compared(versus, verdict) for versus, verdict in verdicts.items())
    return report(**{"evaluations": found, "by_woman": (), "comparisons": comparisons, **more})


AHEAD = {"Random": 0.7, "ImageNet": 0.72, "SSL": 0.8, "CSFSSL": 0.9}
ALL_BETTER = {"Random": "better", "ImageNet": "better", "SSL": "better"}


def test_joining_helped_where_every_start_of_our_own_is_beaten() -> None:
    found = answer(judged(AHEAD, ALL_BETTER))
    assert (found.tone, found.headline) == ("helped", "Yes: on these test women, joining helped.")
    assert not found.guarded


@pytest.mark.parametrize("verdicts", list(itertools.product(["better", "not shown", "worse"], repeat=3)))
def test_yes_is_said_only_where_every_comparison_is_decided_for_the_federation(verdicts: tuple[str, ...]) -> None:
    found = answer(judged(AHEAD, dict(zip(ALL_BETTER, verdicts, strict=True))))
    expected = "harmed" if "worse" in verdicts else "helped" if set(verdicts) == {"better"} else "not shown"
    assert found.tone == expected
    assert found.headline.startswith("Yes") == (expected == "helped")


@pytest.mark.parametrize("winner", ["Random", "ImageNet", "SSL"])
def test_whichever_start_wins_stands_in_the_headline(winner: str) -> None:
    """Random had .835 and the federated start .747, and the box compared with SSL alone."""
    aucs = {**dict.fromkeys(("Random", "ImageNet", "SSL"), 0.7), "CSFSSL": 0.747, winner: 0.835}
    order = ("Random", "ImageNet", "SSL", "CSFSSL")
    found = answer(judged({name: aucs[name] for name in order}, dict.fromkeys(ALL_BETTER, "not shown")))
    assert f"{winner} has the highest AUC of the starts: 0.83; the federated start (CSFSSL) has 0.75." in found.headline
    assert found.tone == "not shown"
    assert found.standings[0].name == winner


def test_a_start_that_is_shown_to_be_better_is_named_in_the_no() -> None:
    found = answer(judged({**AHEAD, "Random": 0.95}, {**ALL_BETTER, "Random": "worse"}))
    assert found.headline.startswith("No: on these test women, the federated start did worse than Random.")


def test_a_pooled_start_that_is_ahead_is_named_and_forbids_no_yes() -> None:
    """CSSL takes images of other hospitals: no hospital has it alone."""
    found = answer(judged({**AHEAD, "CSSL": 0.95}, {**ALL_BETTER, "CSSL": "worse"}))
    assert found.tone == "helped"
    assert "CSSL has the highest AUC of the starts" in found.headline


def test_too_few_women_decide_nothing_and_the_headline_says_so() -> None:
    few = tuple(Comparison("CSFSSL", name, Estimate.alone(0.25, TOO_FEW_WOMEN)) for name in ("Random", "SSL"))
    found = answer(report(comparisons=few))
    assert (found.tone, found.headline) == ("not shown", "No conclusion: fewer than 20 test women of a class.")


def test_without_a_start_of_our_own_images_there_is_no_yes() -> None:
    """Better than random weights is not yet a reason to have joined."""
    found = answer(judged({"Random": 0.7, "CSFSSL": 0.9}, {"Random": "better"}))
    assert found.tone == "not shown"
    assert found.headline == "Not shown that joining helped: SSL was not compared."
    assert "site-agent pretrain" in " ".join(found.sentences)


def test_without_random_weights_there_is_no_yes() -> None:
    """Its classifier may be damaged, or was never made: it might do better."""
    found = answer(judged({"SSL": 0.7, "CSFSSL": 0.9}, {"SSL": "better"}))
    assert (found.tone, found.headline) == (
        "not shown",
        "Not shown that joining helped: Random was not compared.",
    )


def test_what_is_not_compared_is_said_and_takes_the_green_away() -> None:
    found = answer(judged(AHEAD, ALL_BETTER, reservations=("The model CSSL of this site is not compared.",)))
    assert (found.tone, found.guarded) == ("helped", True)


@pytest.mark.parametrize("verdict", ["better", "worse"])
def test_models_that_were_trained_differently_give_neither_yes_nor_no(verdict: str) -> None:
    """Nor does the table, nor results.json: whatever the intervals are."""
    line = "SSL and CSFSSL were pretrained with different recipes."
    content = judged(AHEAD, dict.fromkeys(ALL_BETTER, verdict), differences=(line,))
    found = answer(content)
    assert found.tone == "not shown"
    assert "Not shown whether joining helped: the compared models were trained differently" in found.headline
    assert line in found.caveats
    assert {one.says for one in found.standings if not one.joined} == {
        "not shown: the compared models were trained differently"
    }
    written = to_json(content)
    assert written["answer"] == "not shown"
    assert {(one["verdict"], one["why"]) for one in written["comparisons"]} == {
        ("not shown", "the compared models were trained differently")
    }


def test_a_start_that_is_ahead_by_woman_gives_no_yes() -> None:
    by_woman = tuple(evaluation(name, auc) for name, auc in {**AHEAD, "Random": 0.95}.items())
    found = answer(judged(AHEAD, ALL_BETTER, by_woman=by_woman))
    assert found.tone == "not shown"
    assert "by woman, Random has a higher AUC" in found.headline
    assert "By woman, Random has a higher AUC (0.95) than the federated start." in found.caveats


@pytest.mark.parametrize(
    "more", [{"alarms": ("90% of the representations are all zero.",)}, {"final_state": "DEGRADED"}], ids=str
)
def test_a_yes_beside_an_alarm_is_not_green(more: dict[str, object]) -> None:
    found = answer(judged(AHEAD, ALL_BETTER, **more))
    assert (found.tone, found.guarded) == ("helped", True)


def test_the_run_says_who_was_missing() -> None:
    turns = (RoundRow(1, 2.0, (Contribution("nhs", 190, 23), Contribution("alts", why_not="silent"))),)
    found = answer(report(final_state="DEGRADED", rounds=turns))
    assert "Outcome of the run: DEGRADED. Missing from at least one round: alts." in found.caveats


def test_without_a_comparison_nothing_is_claimed() -> None:
    found = answer(report(comparisons=(), federated=""))
    assert found.tone == "unknown"
    assert found.headline.startswith("Not measured: there is nothing to compare yet.")
    assert "No classifier here starts from the model of a federation" in " ".join(found.sentences)


@pytest.mark.parametrize(("floor", "said"), [(0.9, True), (0.91, True), (0.89, False)])
def test_a_floor_as_high_as_the_federated_start_qualifies_a_yes(floor: float, said: bool) -> None:
    """ImageNet "had the highest AUC", above a row of colour and texture with a higher one."""
    both = (evaluation("Colour and texture", floor), evaluation("Colour and texture", floor))
    found = answer(judged(AHEAD, ALL_BETTER, floor=both))
    assert any("colour and texture alone" in line for line in found.caveats) == said
    assert (found.tone, found.guarded) == ("helped", said)


def test_what_is_missed_is_said_in_counts_of_images_and_of_women() -> None:
    """`evaluation` has 3 of 4 cases found and 1 of 4 controls called case."""
    lines = missed(evaluation("CSFSSL", 0.9), evaluation("CSFSSL", 0.9))
    calls = "It raises a false alarm for 1 of 4 control images and 1 of 4 control women."
    assert lines == (
        "At .5, the published threshold, CSFSSL misses 1 of 4 case images and 1 of 4 case women. " + calls,
        "At 0.420, chosen on validation images, CSFSSL misses 1 of 4 case images and 1 of 4 case women. " + calls,
    )


def test_what_the_winner_misses_is_said_too() -> None:
    found = answer(judged({**AHEAD, "Random": 0.95}, ALL_BETTER))
    assert [line.split(", ")[2].split()[0] for line in found.missed] == ["CSFSSL", "CSFSSL", "Random", "Random"]


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(9, 11, "9 of 11"), (76, 99, "76 of 99"), (84, 120, "84 of 120 (70 %)")]
)
def test_a_percentage_needs_a_hundred(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


@pytest.mark.parametrize(("women", "text"), [(11, "0.77 (0.50 to 0.95)"), (150, "0.768 (0.500 to 0.950)")])
def test_a_third_digit_needs_a_hundred_women(women: int, text: str) -> None:
    assert str(shown(Estimate(0.768, 0.5, 0.95), women)) == text


def test_a_difference_without_an_interval_has_none_printed() -> None:
    assert str(shown_difference(Estimate.alone(-0.25, TOO_FEW_WOMEN), 2)) == "−0.25"
