"""The site's report: the answer first, nothing fetched, nothing executed, numbers that can be read back."""

from __future__ import annotations

import base64
import dataclasses
import html
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from fedcervix.core.plan import Recipe
from fedcervix.errors import DataError, StorageError
from site_agent.data.duplicates import CrossPatientPicture
from site_agent.report import figures
from site_agent.report.answer import answer, signed
from site_agent.report.content import (
    Contribution,
    EmbeddingMap,
    Losses,
    Neighbours,
    RoundRow,
    SetAside,
)
from site_agent.report.figures import MARKS, STROKES, auc_intervals, strokes
from site_agent.report.figures import embedding_map as draw_map
from site_agent.report.page import recipe_rows, render
from site_agent.report.predictions import ClassifierScores, Predictions, ScoredImage
from site_agent.report.results import parse
from site_agent.report.writing import write_report
from site_agent.store.provenance import Start
from tests.unit.audit_sheets import sheet
from tests.unit.provenances import provenance
from tests.unit.site_reports import bare, comparison, embedding_map, evaluation, predictions, report

NOW = datetime(2026, 11, 29, 17, 27, 55, tzinfo=UTC)
TURNED = "\u202e\x1b[2J\x9b"
ATTACK = f'{TURNED}"><script src="http://evil.example/x.js"></script><img src=x onerror=alert(1)>'
SHARED = CrossPatientPicture("e" * 64, (ATTACK, "P2"), ("c.jpg",), identical=True, conflicting=False)


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


@pytest.fixture(autouse=True, scope="module")
def each_figure_is_drawn_once() -> Iterator[None]:
    """Most pages of these tests differ in words alone, and drawing is nearly all of a page's time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in inspect.getmembers(figures, inspect.isfunction):
            if inspect.signature(draw).return_annotation == "str" and name != "svg":
                patch.setattr(figures, name, once_each(draw))
        yield


def once_each(draw: Callable[..., str]) -> Callable[..., str]:
    made: dict[str, str] = {}

    def drawn(*args: object, **options: object) -> str:
        with np.printoptions(threshold=sys.maxsize):
            key = repr((args, options))
        if key not in made:
            made[key] = draw(*args, **options)
        return made[key]

    return drawn


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
    "where",
    [
        "patient",
        "image",
        "reason",
        "site of a round",
        "state",
        "version",
        "evaluation",
        "map",
        "difference",
        "unread",
        "start",
        "missed woman",
    ],
)
def test_names_from_outside_cannot_become_markup(where):
    changes: dict[str, object] = {
        "patient": {"set_aside": SetAside(shared_pictures=(SHARED,))},
        "image": {"set_aside": SetAside(quarantined=((ATTACK, "an empty file"),))},
        "reason": {"set_aside": SetAside(quarantined=(("a.jpg", ATTACK),))},
        "remark": {"set_aside": SetAside(remarks=((ATTACK, (ATTACK,)),))},
        "alarm": {"rounds": (RoundRow(1, 2.0, (Contribution("nhs"),), ((ATTACK, ATTACK),)),)},
        "site of a round": {"rounds": (RoundRow(1, 2.0, (Contribution(ATTACK, why_not=ATTACK),)),)},
        "state": {"final_state": ATTACK},
        "version": {"versions": {ATTACK: ATTACK}},
        "evaluation": {"evaluations": (evaluation(ATTACK, 0.7),), "comparisons": (), "federated": ATTACK},
        "map": {"maps": (embedding_map(ATTACK),)},
        "difference": {"differences": (ATTACK,)},
        "unread": {"unread": (ATTACK,)},
        "start": {"provenance": (provenance(ATTACK, Start(name=ATTACK)),)},
        "missed woman": {
            "evaluations": (evaluation("SSL", 0.7),),
            "predictions": Predictions(
                (ScoredImage(ATTACK, ATTACK, ATTACK, 1),), (ClassifierScores("SSL", "ab", 0.4, np.array([0.1])),)
            ),
            "comparisons": (),
        },
    }[where]
    written = render(bare(**changes))
    assert "evil.example" in written, "the name is shown"
    assert not {*TURNED} - {*"[2J"} & {*written}, "and turns nothing"
    assert "<script" not in written
    assert "onerror" not in {name for _, attributes in Elements(written).found for name in attributes}


@pytest.mark.parametrize(
    ("low", "high", "tone", "headline"),
    [
        (0.02, 0.13, "helped", "Yes: on these test women, joining helped."),
        (-0.02, 0.13, "not-shown", "Not shown: these test results do not decide whether joining helped."),
        (-0.13, -0.02, "harmed", "No: on these test women, the federated start did worse than SSL."),
    ],
)
def test_the_first_thing_said_is_whether_joining_helped(low, high, tone, headline):
    written = report(comparisons=(comparison("SSL", low, high), comparison("Random", 0.05, 0.3)))
    drawn = render(written)
    words = visible(drawn)
    assert f'class="answer {tone}"' in drawn
    assert words.index(headline) < words.index("How well each start does")
    assert f"{signed(low, 2)} to {signed(high, 2)}" in words


def test_a_degraded_run_says_who_was_missing_beside_the_answer():
    turns = (RoundRow(1, 2.0, (Contribution("nhs", 190, 23), Contribution("alts", why_not="silent for 60 s"))),)
    written = report(final_state="DEGRADED", rounds=turns)
    assert "Outcome of the run: DEGRADED. Missing from at least one round: alts." in answer(written).caveats
    words = visible(render(written))
    assert "Missing contributions: 1." in words
    assert "silent for 60 s" in words


def test_alarms_and_the_length_of_a_step_stand_in_the_report():
    turns = (
        RoundRow(1, 2.0, (Contribution("nhs", 190, 23, norm=4.25),), (("nhs", "the length of its step is 4.25"),)),
    )
    words = visible(render(report(rounds=turns)))
    assert "Alarms of the coordinator: 1." in words
    assert "the length of its step is 4.25" in words
    assert "190, 23, 4.25" in words
    assert "Alarms" not in visible(render(report()))


def test_the_audit_of_each_update_stands_in_the_report():
    found = visible(render(bare(audits=(sheet(0.61), sheet(0.5, women=99)))))
    assert "What our updates tell about who was trained on" in found
    assert "0.61 to 0.95" in found
    assert "training women can be told from others" in found
    assert "cannot tell: 300 training women and 99 test women" in found
    assert "What our updates tell" not in visible(render(bare()))


def test_a_report_of_nothing_but_a_plan_can_be_drawn():
    assert "Not measured" in render(bare())


def test_the_maps_stand_behind_the_augmentation_sheet_with_what_one_may_read(page):
    words = visible(page)
    places = [
        words.index(said)
        for said in (
            "What the model was shown",
            "How the model arranges our images",
            "with random weights , which have learned nothing, and with the federated model (CSFSSL)",
            "What the maps show",
            "What they do not show: the distance between groups, their size, place and direction mean little",
            "and show no test women",
            "Words on this page",
        )
    ]
    assert places == sorted(places)


def test_a_map_of_a_sample_says_so(page):
    assert "images, drawn at random from" not in visible(page)
    sample = dataclasses.replace(embedding_map("random weights"), images=5174)
    assert "The map shows 4 images, drawn at random from 5174." in visible(render(bare(maps=(sample, sample))))


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
    folder = write_report(written, tmp_path / "out", "csfssl", NOW)
    assert (folder / "report.html").read_text("utf-8") == render(written)
    text = (folder / "results.json").read_text("utf-8")
    found, raw = parse(text), json.loads(text)
    assert found.evaluations == written.evaluations
    assert found.by_woman == written.by_woman
    assert found.comparisons == written.comparisons
    assert found.answer == raw["answer"] == "helped"
    assert [one["verdict"] for one in raw["comparisons"]] == ["better", "better"], "for readers: it is not read back"
    assert raw["rounds"][0]["contributions"][1] == {
        "site": "alts",
        "images": 300,
        "steps": 37,
        "norm": None,
        "cosine": None,
        "distance": None,
        "why_not": "",
    }
    assert raw["recipe"]["classifier"]["momentum"] == 0.09
    assert raw["neighbour_history"] == [{"name": "SSL", "aucs": [None, 0.6, 0.7], "kept_epoch": 3}]


def test_a_key_that_a_later_version_adds_to_the_numbers_is_passed_over(tmp_path):
    text = (write_report(report(), tmp_path, "csfssl", NOW) / "results.json").read_text("utf-8")
    raw = json.loads(text)
    for one in (raw, *raw["evaluations"], raw["evaluations"][0]["auc"], *raw["by_woman"], *raw["comparisons"]):
        one["weather"] = "fine"
    assert parse(json.dumps(raw)) == parse(text)


def test_the_numbers_name_no_file_and_no_patient(tmp_path):
    """They may be laid beside those of other hospitals."""
    folder = write_report(report(), tmp_path, "csfssl", NOW)
    raw = json.loads((folder / "results.json").read_text("utf-8"))
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
        write_report(report(), tmp_path / "file", "csfssl", NOW)
    assert raised.value.next_step


@pytest.mark.parametrize(
    "changes",
    [
        {"federated": "PPFSSL"},
        {"evaluations": (evaluation("SSL", 0.7), evaluation("SSL", 0.8)), "federated": "SSL", "comparisons": ()},
        {"by_woman": (evaluation("ImageNet", 0.7),)},
        {"comparisons": (comparison("ImageNet", 0.1, 0.2),)},
    ],
    ids=["federated start not evaluated", "a start twice", "by woman only", "compared with what was not evaluated"],
)
def test_a_report_that_contradicts_itself_cannot_be_built(changes):
    with pytest.raises(DataError):
        report(**changes)


# --- what a reader must not overlook -------------------------------------------------------------------------------


def test_every_table_says_in_each_cell_what_it_is(page):
    """On a small screen the heads are not beside the numbers: each cell names its column, and none is cut."""
    for table in re.findall(r'<table class="[^"]*stack.*?</table>', page, re.DOTALL):
        cells = re.findall(r"<td[^>]*>", table)
        assert all("data-label" in cell or cell == "<td>" for cell in cells), table[:200]


def test_the_one_table_that_may_be_wider_than_the_screen_says_so():
    turns = (RoundRow(1, 2.0, tuple(Contribution(f"site-{k}", 10, 2) for k in range(9))),)
    written = render(report(rounds=turns))
    assert written.count('<div class="scroll">') == 1
    assert "The table has a column for each of 9 sites. On a narrow screen, scroll it sideways" in visible(written)


def test_not_a_medical_device_is_said_in_the_answer_and_at_every_table_of_scores(page):
    start = page.index('<section class="answer')
    assert "Not a medical device." in page[start : page.index("</section>", start)]
    assert page.count("<caption>For research only. Not a medical device.</caption>") == 2


def test_the_page_names_who_was_missed_at_each_threshold(page):
    """P1 has .2 and .45: missed at .5, found at .42, the threshold of the validation images."""
    words = visible(page)
    assert "At threshold 0.500: misses 1 of 2 case women" in words
    assert "P1 0.450 c1/a.jpg, c1/b.jpg" in words
    assert "At threshold 0.420: misses 0 of 2 case women" in words


def test_probabilities_are_said_not_to_be_calibrated(page):
    assert page.count("The probabilities are not calibrated") == 2


def test_few_are_counted_and_not_given_in_percent(page):
    words = visible(page)
    scores = words[words.index("Classified as a case from") : words.index("What was used")]
    assert "3 of 4" in scores
    assert not re.search(r"\d %", scores.replace("95 %", ""))


def test_without_a_federation_the_page_names_no_mode_and_no_plan():
    written = bare(run="", mode="", plan_digest="", final_state="no federation yet", federation="")
    words = visible(render(written))
    assert "csfssl" not in words.split("Words on this page")[0]
    assert "none: no federation yet" in words
    assert "run ," not in words


def test_what_could_not_be_read_is_said_on_the_page():
    assert "The ledger is missing." in visible(render(report(unread=("The ledger is missing.",))))


def test_a_number_that_is_none_is_null_and_not_nan(tmp_path):
    history = (Losses("SSL", (float("nan"), 1.5), (float("inf"), 1.6)),)
    folder = write_report(report(contrastive_history=history), tmp_path, "csfssl", NOW)
    raw = json.loads((folder / "results.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert raw["contrastive_history"][0]["train"] == [None, 1.5]


def test_a_name_that_is_no_unicode_does_not_cost_the_report(tmp_path):
    """A file name in Latin-1, as Python reads it under UTF-8."""
    found = predictions()
    images = (dataclasses.replace(found.images[0], path="M\udcfcller.jpg"), *found.images[1:])
    folder = write_report(report(predictions=dataclasses.replace(found, images=images)), tmp_path, "csfssl", NOW)
    assert "M\\xfcller.jpg" in (folder / "predictions.csv").read_text("utf-8")


def test_the_page_names_by_digest_what_its_numbers_are_of():
    found = (provenance("Random", Start(name="random")), provenance("SSL", Start(name="ssl", weights="5e" * 32)))
    written = report(provenance=found)
    words = visible(render(written))
    table = words[words.index("What these numbers are based on") : words.index("Plan and software")]
    for digest in ("w" * 64, "5e" * 32, "c" * 64, "5" * 64, "7" * 64):
        assert digest in table
    assert table.count("7" * 64) == 1, "what is the same for all stands once"


def test_the_numbers_are_read_back_with_what_they_are_of(tmp_path):
    found = (provenance("SSL", Start(name="ssl", weights="5e" * 32)),)
    folder = write_report(report(provenance=found), tmp_path, "csfssl", NOW)
    assert parse((folder / "results.json").read_text("utf-8")).provenance == found


def test_a_site_that_was_stopped_by_its_engineer_is_named_with_these_words():
    turns = (RoundRow(1, 2.0, (Contribution("alts", why_not="silent: stopped by its engineer"),)),)
    assert "1 alts silent: stopped by its engineer" in visible(render(report(rounds=turns, final_state="DEGRADED")))


def test_a_run_that_has_not_ended_is_not_said_to_have_ended():
    words = visible(render(report(final_state="no end is known here")))
    assert "outcome no end is known here" in words
    assert "Outcome of the run: no end is known here." in words


def test_what_should_be_known_of_the_manifest_is_on_the_page() -> None:
    remarks = (("2 identifiers written in several ways", ("001 = 1", "002 = 2")),)
    drawn = visible(render(report(set_aside=SetAside(remarks=remarks))))
    assert "2 identifiers written in several ways" in drawn
    assert "001 = 1, 002 = 2" in drawn


def test_a_run_of_many_rounds_and_sites_makes_no_page_of_many_megabytes() -> None:
    """1,000 rounds of 1,000 names once made a page of 13 MB."""
    gave = tuple(Contribution(f"site-{number}", 10, 5) for number in range(255))
    turns = tuple(RoundRow(number, 0.5, (*gave, Contribution("away", why_not="silent"))) for number in range(1, 1001))
    small, page = render(report(rounds=turns[:1])), render(report(rounds=turns))
    assert len(page) - len(small) < 1_000_000
    words = visible(page)
    for sentence in ("and 800 earlier rounds", "and 224 more sites", "Missing contributions: 1000.", "and 800 more"):
        assert sentence in words


def test_without_a_federated_start_no_column_speaks_of_one():
    """All of its cells were dashes."""
    alone = render(report(federated="", comparisons=()))
    assert "federated minus this start" not in alone
    assert "federated minus this start" in render(report())


def test_a_finding_without_items_opens_nothing():
    told = render(report(set_aside=SetAside(remarks=(("pictures by stage: acetic 2", ()), ("blurred", ("a.jpg",))))))
    assert "<p>pictures by stage: acetic 2</p>" in told
    assert "<summary>blurred</summary>" in told


def test_a_site_that_trained_no_cervix_model_is_shown_no_augmented_images():
    """A probe sees no versions of an image, and one epoch is no curve."""
    probe = render(bare(contact_sheet=report().contact_sheet, classifier_history=(Losses("SSL", (0.7,), (0.6,)),)))
    assert "What the model was shown" not in probe
    assert "Learning from labels" not in probe
    assert "Loss of fine-tuning by epoch" not in probe


def test_a_small_difference_of_aucs_looks_small():
    drawn = base64.b64decode(auc_intervals(report().evaluations).split(",")[1]).decode()
    assert {"0.4", "1.0"} <= set(re.findall(r"<!-- ([\d.]+) -->", drawn))
