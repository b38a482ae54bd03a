"""The site's report: the answer first, nothing fetched, nothing executed, numbers that can be read back."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fedcervix.errors import DataError, StorageError
from fedcervix.metrics import Confusion
from fedcervix.plan import Recipe
from site_agent.evaluate import AtThreshold, Comparison, Evaluation
from site_agent.intervals import Estimate
from site_agent.report import (
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
    parse,
    render,
    write_results,
)
from site_agent.report.answer import answer, signed
from site_agent.report.figures import MARKS, STROKES, strokes
from site_agent.report.figures import embedding_map as draw_map
from site_agent.report.page import recipe_rows

ATTACK = '"><script src="http://evil.example/x.js"></script><img src=x onerror=alert(1)>'


def evaluation(name: str, auc: float) -> Evaluation:
    level = Estimate(0.75, 0.6, 0.9)
    at = AtThreshold(0.5, Confusion(tp=3, fn=1, fp=1, tn=3), level, level, level, level)
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
    return Comparison("CSFSSL", versus, Estimate((low + high) / 2, low, high))


def embedding_map(model: str) -> EmbeddingMap:
    return EmbeddingMap(model, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), (1, 0, None, None), images=4)


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
        "census": (CensusRow("train", "case", 91, 182, 190), CensusRow("train", "control", 181, 361, 380)),
        "set_aside": SetAside((("a/b.jpg", "an empty file"),), 2, (Leak(("P1", "P2"), ("c.jpg", "d.jpg"), True),)),
        "evaluations": (evaluation("Random", 0.7), evaluation("SSL", 0.8), evaluation("CSFSSL", 0.875)),
        "comparisons": (comparison("SSL", 0.02, 0.13), comparison("Random", 0.05, 0.3)),
        "contrastive_history": (Losses("SSL", (2.7, 1.5), (2.6, 1.6)),),
        "collapse_line": 2.7080502011,
        "neighbour_history": (Neighbours("SSL", (None, 0.6, 0.7), 3),),
        "classifier_history": (Losses("SSL", (0.7,), (0.6,)),),
        "rounds": (Round(1, 2.1, (Contribution("nhs", 190, 23), Contribution("alts", 300, 37))),),
        "contact_sheet": (Augmented(grey, (grey, grey)),),
        "maps": (embedding_map("random weights"), embedding_map("the federated model (CSFSSL)")),
    }
    return SiteReport(**{**full, **changes})


def bare(**changes: object) -> SiteReport:
    """A report of nothing but a plan."""
    parts = ("census", "evaluations", "comparisons", "rounds", "contact_sheet", "maps")
    histories = ("contrastive_history", "neighbour_history", "classifier_history")
    nothing = {**dict.fromkeys((*parts, *histories), ()), "federated": "", "set_aside": SetAside()}
    return report(**{**nothing, "collapse_line": None, **changes})


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def visible(page: str) -> str:
    """The page's words, without markup and line breaks."""
    body = page[page.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def page() -> str:
    return render(report())


def test_the_page_fetches_nothing(page):
    for tag, attributes in Elements(page).found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
        assert all(not name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert attributes["src"].startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
    assert "@import" not in page
    assert "url(" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_pictures_themselves_fetch_nothing(page):
    """An SVG could load things too: its only addresses are names of formats."""
    pictures = [base64.b64decode(found) for found in re.findall(r"svg\+xml;base64,([A-Za-z0-9+/=]+)", page)]
    assert len(pictures) == 9
    for picture in pictures:
        text = picture.decode()
        assert "<script" not in text
        assert "<image" not in text
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))


def test_the_browser_is_told_to_load_nothing(page):
    policies = [a["content"] for tag, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_picture_has_a_description(page):
    assert all(a.get("alt") for tag, a in Elements(page).found if tag == "img")


@pytest.mark.parametrize(
    "where", ["patient", "image", "reason", "site of a round", "state", "version", "evaluation", "map"]
)
def test_names_from_outside_cannot_become_markup(where):
    changes: dict[str, object] = {
        "patient": {"set_aside": SetAside(leaks=(Leak((ATTACK, "P2"), ("c.jpg",), False),))},
        "image": {"set_aside": SetAside(quarantined=((ATTACK, "an empty file"),))},
        "reason": {"set_aside": SetAside(quarantined=(("a.jpg", ATTACK),))},
        "site of a round": {"rounds": (Round(1, 2.0, (Contribution(ATTACK, why_not=ATTACK),)),)},
        "state": {"final_state": ATTACK},
        "version": {"versions": {ATTACK: ATTACK}},
        "evaluation": {"evaluations": (evaluation(ATTACK, 0.7),), "comparisons": (), "federated": ATTACK},
        "map": {"maps": (embedding_map(ATTACK),)},
    }[where]
    written = render(bare(**changes))
    assert "evil.example" in written, "the name is shown"
    assert "<script" not in written
    assert "onerror" not in {name for _, attributes in Elements(written).found for name in attributes}


@pytest.mark.parametrize(
    ("low", "high", "tone", "headline"),
    [
        (0.02, 0.13, "helped", "Yes: on these test women, joining helped."),
        (-0.02, 0.13, "not shown", "Not shown: these test women cannot tell whether joining helped."),
        (-0.13, -0.02, "harmed", "No: on these test women, the federated model did worse."),
    ],
)
def test_the_first_thing_said_is_whether_joining_helped(low, high, tone, headline):
    written = report(comparisons=(comparison("SSL", low, high), comparison("Random", 0.05, 0.3)))
    assert answer(written).tone == tone
    words = visible(render(written))
    assert words.index(headline) < words.index("How well each start does")
    assert f"95 % interval {signed(low)} to {signed(high)}" in words


def test_the_sentence_says_both_scores_in_plain_words():
    assert answer(report()).sentence == (
        "On 8 test images of 4 women, the classifier that starts from the federated model (CSFSSL) ranks a case above "
        "a control 87.5 % of the time; the one that starts from our own images alone (SSL) does so 80.0 % of the "
        "time. The difference in AUC is +0.075 (95 % interval +0.020 to +0.130). The whole interval lies above zero."
    )


def test_working_alone_is_the_comparison_that_counts():
    """Better than random weights is not yet a reason to have joined."""
    found = answer(report(comparisons=(comparison("Random", 0.05, 0.3), comparison("SSL", -0.1, 0.1))))
    assert found.tone == "not shown"
    assert "is better than random weights" in found.caveats[0]


def test_without_a_model_of_its_own_the_site_is_told_what_stood_in():
    found = answer(report(comparisons=(comparison("Random", 0.05, 0.3),)))
    assert found.tone == "helped"
    assert "no model was trained on our own images alone" in found.sentence


def test_without_a_comparison_nothing_is_claimed():
    found = answer(report(comparisons=()))
    assert (found.tone, found.headline) == ("unknown", "Not measured: there is nothing to compare yet.")


def test_a_degraded_run_says_who_was_missing_beside_the_answer():
    turns = (Round(1, 2.0, (Contribution("nhs", 190, 23), Contribution("alts", why_not="silent for 60 s"))),)
    written = report(final_state="DEGRADED", rounds=turns)
    assert "The run ended DEGRADED, not OK. Missing from at least one round: alts." in answer(written).caveats
    words = visible(render(written))
    assert "Missing contributions: 1." in words
    assert "silent for 60 s" in words


def test_an_alarm_of_the_trainer_stands_beside_the_answer():
    assert "all zero" in answer(report(alarms=("90% of the representations are all zero.",))).caveats[-1]


def test_a_report_of_nothing_but_a_plan_can_be_drawn():
    assert "Not measured" in render(bare())


def test_the_maps_stand_behind_the_augmentation_sheet_with_what_one_may_read(page):
    words = visible(page)
    places = [
        words.index(said)
        for said in (
            "What the model was shown",
            "How the model arranges our images",
            "under random weights , which have learned nothing, and under the federated model (CSFSSL)",
            "What one may read from it",
            "What one may not: the space between groups, their size, their place and their direction mean little",
            "test women are on none",
            "Words on this page",
        )
    ]
    assert places == sorted(places)


def test_a_map_of_a_sample_says_so(page):
    assert "images, drawn at random from" not in visible(page)
    sample = dataclasses.replace(embedding_map("random weights"), images=5174)
    assert "Shown are 4 images, drawn at random from 5174." in visible(render(bare(maps=(sample, sample))))


def test_where_there_is_no_map_the_page_says_why():
    why = "There is no map: it takes at least 10 images, and there are 9."
    assert why in visible(render(bare(no_map=why)))


def test_the_three_kinds_of_mark_differ_without_colour():
    assert len({style["marker"] for _, _, style in MARKS}) == len(MARKS) == 3


def test_a_map_without_cases_can_be_drawn():
    one_place = EmbeddingMap("a collapsed model", ((0.0, 0.0),) * 3, (None, None, 0), images=3)
    assert draw_map(one_place) != draw_map(embedding_map("a collapsed model"))


def test_the_neighbour_probe_is_drawn_only_where_it_was_measured(page):
    assert "most similar labelled training images" in visible(page)
    assert "most similar labelled training images" not in visible(render(bare()))


def test_an_epoch_that_never_was_cannot_have_been_kept():
    with pytest.raises(ValueError, match="epoch 3 was kept, of 2"):
        Neighbours("SSL", (0.5, 0.6), 3)


def test_a_map_has_a_label_for_every_point():
    with pytest.raises(ValueError, match="1 points, 2 labels"):
        EmbeddingMap("SSL", ((0.0, 0.0),), (0, 1), images=2)


def test_a_federations_curve_is_drawn_like_its_start():
    """Its losses are called `CSFSSL (this site's images)`."""
    assert strokes(["CSFSSL (this site's images)"]) == {"CSFSSL (this site's images)": STROKES["CSFSSL"]}


def test_counts_are_shown_with_their_totals(page):
    words = visible(page)
    assert "all 272 543 570" in words
    assert "1 image could not be used" in words
    assert "2 copies of another image" in words
    assert "P1, P2" in words


def test_the_page_says_that_it_stays(page):
    assert "This page stays at nhs." in visible(page)


def test_a_setting_that_differs_from_the_published_one_is_marked():
    rows = {key: (value, published) for key, value, published in recipe_rows(Recipe(width=128))}
    assert rows["width"] == ("128", "64")
    assert rows["classifier.momentum"] == ("0.09", "")


def test_the_same_report_is_the_same_bytes(page):
    assert render(report()) == page


def test_no_two_starts_are_drawn_alike():
    names = ["Random", "ImageNet", "SSL", "CSSL", "CSFSSL", "PPFSSL_NHS", "PPFSSL_ALTS", "mine"]
    drawn = strokes(names)
    assert len({(stroke.colour, stroke.dash) for stroke in drawn.values()}) == len(names)


@pytest.mark.parametrize(
    ("number", "text"), [(0.07, "+0.070"), (-0.07, "−0.070"), (0.0, "0.000"), (-0.0004, "0.000"), (0.0004, "0.000")]
)
def test_differences_carry_a_sign_unless_they_are_nothing(number, text):
    assert signed(number) == text


def test_numbers_are_written_and_read_back(tmp_path):
    written = report()
    page_path, numbers_path = write_results(written, tmp_path / "out")
    assert page_path.read_text("utf-8") == render(written)
    found = parse(numbers_path.read_text("utf-8"))
    assert found.evaluations == written.evaluations
    assert found.comparisons == written.comparisons
    assert found.everything["answer"] == "helped"
    assert found.everything["rounds"][0]["contributions"][1] == {
        "site": "alts",
        "images": 300,
        "steps": 37,
        "why_not": "",
    }
    assert found.everything["recipe"]["classifier"]["momentum"] == 0.09
    assert found.everything["neighbour_history"] == [{"name": "SSL", "aucs": [None, 0.6, 0.7], "kept_epoch": 3}]


def test_the_numbers_name_no_file_and_no_patient(tmp_path):
    """They may be laid beside those of other hospitals."""
    _, numbers_path = write_results(report(), tmp_path)
    raw = json.loads(numbers_path.read_text("utf-8"))
    assert raw["set_aside"] == {
        "quarantined_images": 1,
        "duplicate_images": 2,
        "shared_pictures": 1,
        "conflicting_pictures": 1,
    }
    assert not re.search(r"\.jpg|P1", json.dumps(raw))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "something else"}', '{"format": "fedcervix site results 1"}']
)
def test_a_file_that_is_no_results_file_is_refused(text):
    with pytest.raises(DataError, match="not a results file"):
        parse(text)


def test_a_folder_that_cannot_be_written_is_an_error_with_a_next_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as raised:
        write_results(report(), tmp_path / "file")
    assert raised.value.next_step


@pytest.mark.parametrize(
    "changes",
    [
        {"federated": "PPFSSL"},
        {"evaluations": (evaluation("SSL", 0.7), evaluation("SSL", 0.8)), "federated": "SSL", "comparisons": ()},
        {"comparisons": (comparison("ImageNet", 0.1, 0.2),)},
    ],
    ids=["federated start not evaluated", "a start twice", "compared with what was not evaluated"],
)
def test_a_report_that_contradicts_itself_cannot_be_built(changes):
    with pytest.raises(DataError):
        report(**changes)
