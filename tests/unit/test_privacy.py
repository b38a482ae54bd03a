"""What may leave a hospital: planted canaries never do."""

import dataclasses
import math
import re
import unicodedata
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fedcervix.core.events import (
    BoxesStored,
    CloseSigned,
    Masked,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteFailed,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.transport import codec
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.sealed_models import Header
from fedcervix.trust.sum_roster import Opening
from site_agent.federation.link import _message
from site_agent.federation.privacy import (
    GAUGES,
    LEAVES,
    MESSAGE_CHARACTERS_MAX,
    SHORT_SECRET_CHARACTERS,
    gauges,
    incident_number,
    number,
    outgoing,
    scrub,
)
from tests.unit.fake_link import ADOPT, RUN, SCORE, TRAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /data/Anna Maria Svensson: permission denied", "cannot open ***: permission denied"),
        ("[Errno 2] No such file or directory: '/data/Anna Maria/x'", "[Errno 2] No such file or directory: ***"),
        ("C:\\Users\\Jane Doe\\left.tif is missing", "***"),
        ("\\\\pacs\\share\\x", "***"),
        ("read data/Doe, Jane", "read ***"),
        ("cannot decode Jane Doe 2.PNG", "cannot decode ***"),
        ("bad row in labels.csv.", "bad row in ***."),
        ("KeyError: 'Jane'", "KeyError: ***"),
        ("KeyError: b'Jane'", "KeyError: ***"),
        ('no column "O\'Brien, Mary" here', "no column *** here"),
        ("never closed: 'Jane Doe", "never closed: ***"),
        ("\u201eJane\u201c, \u00abJane\u00bb, `Jane`", "***, ***, ***"),
        ("can't read the patient's image", "can't read the patient's image"),
        ("write to jane.doe@hospital.example, please", "write to ***, please"),
        ("record 19850102 of 1985-01-02", "record *** of ***"),
        ("call 070-123 45 67", "call *** 45 67"),
        (
            "10.0.0.1 and fe80::1 and pacs.hospital.example and srv-ct-03 and localhost:50051",
            "*** and *** and *** and *** and ***",
        ),
        ("study 1.2.840.113619.2.55", "study ***"),
        ("https://host.example:80/x?y=z failed", "***"),
    ],
)
def test_what_might_name_someone_is_replaced(text, expected):
    assert scrub(text, []) == expected


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "epoch 3: loss 2.71 is not finite",
        "shape (3, 224, 224) expected, found (224, 224)",
        "[Errno 28] No space left on device",
    ],
)
def test_what_helps_to_find_the_fault_stays(text):
    assert scrub(text, []) == text


@pytest.mark.parametrize(
    ("text", "secret", "expected"),
    [
        ("bad image of Svensson twice: SVENSSON", "Svensson", "bad image of *** twice: ***"),
        ("image of P17_left", "P17", "image of ***_left"),
        ("patient 7 at step 17 of 77", "7", "patient *** at step 17 of 77"),
        ("folder Jane \n Doe", "Jane Doe", "folder ***"),
        ("Jose\u0301 and Jos\u00e9", "Jos\u00e9", "*** and ***"),
        ("Ja\u200bne", "Jane", "***"),
        ("(a+)", "a+", "(***)"),
        ("all - is - well", "-", "all - is - well"),
        ("all is well", "", "all is well"),
    ],
)
def test_secrets_are_replaced_in_every_spelling(text, secret, expected):
    assert scrub(text, [secret]) == expected


def test_the_longer_of_two_secrets_is_replaced_first():
    assert scrub("see Jane Doe and Jane", ["Jane", "Jane Doe"]) == "see *** and ***"


def test_a_message_is_one_printable_line_of_at_most_300_characters():
    message = scrub("line\r\n\x1b[31mred\x00 " * 100, [])
    assert len(message) == MESSAGE_CHARACTERS_MAX
    assert message.isprintable()
    assert message.endswith("...")


WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789 '\"`./\\:,;()-_@*\n\t", max_size=60)
CANARY = "xqzcanary"
PLANTED = st.sampled_from(
    [
        f"/data/{CANARY}",
        f"/data/{CANARY} {CANARY}/x",
        f"data/{CANARY}",
        f"../{CANARY}",
        f"~/{CANARY}",
        f"C:\\{CANARY}\\x",
        f"\\\\{CANARY}\\x",
        f"{CANARY}.png",
        f"{CANARY}.JPEG",
        f"{CANARY}.nii.gz",
        f"{CANARY}.csv",
        f"'{CANARY}'",
        f'"a {CANARY} b"',
        f"`{CANARY}`",
        f"{CANARY}@hospital.org",
        f"jane@{CANARY}.org",
        f"{CANARY}.hospital.org",
        f"{CANARY}:8080",
        f"{CANARY}-07",
        f"https://{CANARY}",
        f"{CANARY}12345",
    ]
)


@settings(max_examples=400, deadline=None)
@given(before=WORDS, planted=PLANTED, after=WORDS)
def test_no_canary_survives_in_any_text(before, planted, after):
    # A quotation or path before it may end inside a planted quotation: those are planted alone, the rest anywhere.
    if planted[0] in "'\"`":
        before = re.sub(r"['\"`]", "", before)
    assert CANARY not in scrub(f"{before} {planted} {after}", []).lower()


@settings(max_examples=400, deadline=None)
@given(secret=st.text(min_size=1, max_size=12), before=st.text(max_size=80), after=st.text(max_size=80))
@example(secret="ΑΣ", before="", after="")
@example(secret="ﬁg", before="", after="")
@example(secret="İx", before="", after="")
def test_no_secret_survives_whatever_its_letters(secret, before, after):
    assume(any(map(str.isalnum, secret)) and "*" not in secret)
    around = f"{before} . {after}"
    if len(secret) <= SHORT_SECRET_CHARACTERS:  # may stay inside other words, however those are written: 0² is 02
        around = unicodedata.normalize("NFKC", around)
    assume(secret not in around)
    assert secret not in scrub(f"{before} {secret} {after}", [secret])


@given(text=st.text(max_size=500), secrets=st.lists(st.text(max_size=5), max_size=3))
def test_any_text_becomes_a_printable_line(text, secrets):
    message = scrub(text, secrets)
    assert message.isprintable()
    assert len(message) <= MESSAGE_CHARACTERS_MAX


def test_a_long_text_is_cut_at_a_space_not_inside_an_address():
    quotation = '"' + "w" * 3988 + '"'
    text = f"{quotation} mail jane@hospital"
    assert text[:4000].endswith("mail jane")
    assert scrub(text, []) == "*** mail"


def test_an_incident_number_is_short_and_says_when_a_fault_comes_back():
    first, again = incident_number("trace", 1000.0), incident_number("trace", 2000.0)
    assert re.fullmatch(r"INC-[0-9A-F]{4}-[0-9A-F]{4}", first)
    assert incident_number("trace", 1000.0) == first
    assert first[:8] == again[:8]
    assert first != again
    assert incident_number("other \udcff trace", 1000.0)[:8] != first[:8]


def test_only_listed_finite_gauges_leave():
    measured = {
        "alignment": np.float32(0.5),
        "effective_rank": 7,
        "uniformity": math.nan,
        "unit_std": math.inf,
        "zero_rows": True,
        "dead_units": 10**400,
        "patient": 12,
        "loss": 1.0,
    }
    assert gauges(measured) == (("alignment", 0.5), ("effective_rank", 7.0))
    assert {type(value) for _, value in gauges(measured)} == {float}


# --- every report -------------------------------------------------------------------------------------------------

OUTWARD_KEYS = GAUGES.union(*({name for name, rule in row.items() if rule is number} for row in LEAVES.values()))
"""the only numbers that a site reports, by name; beside them the round in a task, and the time of the report"""
HEADER = Header("demo", RUN, "a" * 64, 1, 1, "nhs", "b" * 64, "c" * 64, "c" * 64, 100)
SEAL = Seal(HEADER.text, "c" * 64, (("alts", "b0" * 48),), "5e")
OPENING = Opening(site="nhs", key=OwnKey("nhs", b"k" * 32).public, images=40, rho="a" * 64, signature=b"s")
HONEST = (
    codec.Ping(),
    codec.Stopped(),
    codec.Ready(RUN, "a" * 64, OPENING),
    codec.Refusal(RUN, "the plan asks up to 10000 rounds; [policy] rounds_max is 30; this site has answered 'train'"),
    codec.Progress(TRAIN, "waiting for room on the disk", 5, 7, "steps", 2.5, 31.0),
    UpdateStored("nhs", TRAIN, "b" * 64, 40, 10, 2.5, 31.0, 1.0, "c" * 64, masked=Masked("d" * 64, 0.5, "", "3045")),
    BoxesStored("nhs", Task(RUN, TaskKind.BOX, 0, ""), "e" * 64, (("alts", "ab" * 48),), 1.0),
    ReleaseStored("nhs", Task(RUN, TaskKind.RELEASE, 1, "a" * 64), "e" * 64, "f" * 64, "3045", 1.0),
    CloseSigned("nhs", Task(RUN, TaskKind.CLOSE, 1, "a" * 64), ("nhs",), "3045", 1.0),
    ScoreReported("nhs", SCORE, 12.5, 5, 40, (("alignment", 0.5), ("unit_std", 1.0)), 1.0),
    ModelUnusable("nhs", TRAIN, 3, 1.0),
    ModelAdopted("nhs", ADOPT, 1.0),
    Rewrapped("nhs", Task(RUN, TaskKind.REWRAP, 1, "b" * 64, readers=("alts",)), SEAL, 1.0),
    SiteFailed("nhs", "training", "the GPU has no memory left", "INC-7F3A-0002", 1.0, "TrainingError", True),
)
BY_TYPE = {type(report): report for report in HONEST}


def sent(report):
    """Return the bytes of a report as the site's line writes them; none where what is left is no report any more."""
    try:
        message = _message(report)
    except (TypeError, ValueError):
        return b""
    message.at = 0.0
    return message.SerializeToString()


def forged(report, name, value):
    """Return a report with a value in it that its own checks might refuse."""
    copy = dataclasses.replace(report)
    object.__setattr__(copy, name, value)
    return copy


@pytest.mark.parametrize("report", HONEST, ids=lambda report: type(report).__name__)
def test_an_honest_report_leaves_as_it_is(report):
    assert outgoing(report) == report


def test_every_kind_of_report_has_a_row_and_every_field_of_its_message_a_rule():
    assert set(LEAVES) == set(BY_TYPE) == set(get_args(codec.Report))
    for kind, row in LEAVES.items():
        message = codec.write_report(BY_TYPE[kind], 0.0)
        fields = getattr(message, message.WhichOneof("what")).DESCRIPTOR.fields
        assert {field.name for field in fields} == set(row), kind


FIELDS = [(kind, name, rule) for kind, row in LEAVES.items() for name, rule in row.items() if name != "task"]


@pytest.mark.parametrize(("kind", "name", "rule"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in FIELDS])
def test_what_is_not_allowed_does_not_reach_the_wire(kind, name, rule):
    honest = BY_TYPE[kind]
    if name == "gauges":
        report = forged(honest, name, ((CANARY, 1.0), ("alignment", math.nan)))
        assert dict(_message(report).score.gauges) == {}
    elif rule is number:
        for value in (math.nan, math.inf, True, CANARY, 2**60, None):
            assert sent(forged(honest, name, value)) in (b"", sent(forged(honest, name, 0)))
    elif name == "goes_on":
        assert outgoing(forged(honest, name, CANARY)).goes_on is False
    else:
        assert CANARY.encode() not in sent(forged(honest, name, f"/data/{CANARY}/x"))


def test_a_header_says_nothing_that_headers_do_not_say():
    chatty = dataclasses.replace(SEAL, header=HEADER.text.replace('{"base"', f'{{"a":"{CANARY}","base"'))
    assert sent(dataclasses.replace(BY_TYPE[Rewrapped], seal=chatty)) == b""


@pytest.mark.parametrize("report", HONEST, ids=lambda report: type(report).__name__)
def test_a_field_without_a_rule_does_not_reach_the_wire(report):
    for field in dataclasses.fields(report):
        if field.name not in LEAVES[type(report)]:
            assert CANARY.encode() not in sent(forged(report, field.name, CANARY))


def test_a_report_has_no_other_way_out():
    files = (Path(__file__).parents[2] / "site_agent").rglob("*.py")
    calls = [file.name for file in files for _ in range(file.read_text().count("codec.write_report("))]
    assert calls == ["link.py"]
