"""What may leave a hospital: planted canaries never do."""

import math
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from site_agent.federation.privacy import (
    MESSAGE_CHARACTERS_MAX,
    OUTWARD_KEYS,
    SHORT_SECRET_CHARACTERS,
    incident_number,
    outward,
    scrub,
)


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


def test_only_listed_finite_numbers_leave():
    values = {
        "loss": 2.5,
        "images": 7,
        "round": np.int64(3),
        "alignment": np.float32(0.5),
        "uniformity": math.nan,
        "unit_std": math.inf,
        "zero_rows": True,
        "epoch": "3",
        "steps": None,
        "seconds": [1.0],
        "count": 10**400,
        "patient": 12,
        "path": 1.0,
    }
    found = outward(values)
    assert found == {"loss": 2.5, "images": 7, "round": 3, "alignment": 0.5}
    assert {type(value) for value in found.values()} == {int, float}


@given(st.dictionaries(st.sampled_from(sorted(OUTWARD_KEYS)) | st.text(), st.floats() | st.integers() | st.text()))
def test_outward_never_lets_anything_else_through(values):
    for key, value in outward(values).items():
        assert key in OUTWARD_KEYS
        assert math.isfinite(value)
