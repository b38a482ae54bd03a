"""Any bytes in: rows or a DataError with a next step, nothing else."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedcervix.errors import DataError
from site_agent.manifest.reading import SPLITS, parse
from site_agent.manifest.splits import Kept, format_splits, parse_splits
from site_agent.manifest.spreadsheet import decode_text

CELLS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "yes",
        "train",
        "P1",
        "a.jpg",
        "b.jpg",
        "../a",
        "/a",
        "C:a",
        '"',
        "'",
        "\\",
        "\x00",
        "\x1b",
        "é",
        ".",
    ]
)
PATIENTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1)
LINES = st.lists(st.lists(CELLS, max_size=5), max_size=6)
HEADERS = st.sampled_from(["image,patient,label,split\n", "image;patient\n", "\ufeffImage\tPatient\n", ""])


def refused(error: DataError) -> None:
    assert error.next_step
    assert error.explain()


def check(text: str) -> None:
    try:
        rows = parse(text, "images.csv").rows
    except DataError as error:
        refused(error)
        return
    assert rows
    assert len({row.image for row in rows}) == len(rows)
    for row in rows:
        assert not row.image.startswith("/")
        assert ".." not in row.image.split("/")
        assert row.patient
        assert row.label in (None, 0, 1)
        assert row.split in (*SPLITS, None)
        assert row.image.isprintable()
        assert row.patient.isprintable()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xfei\x00m\x00")
def test_any_bytes(raw: bytes) -> None:
    try:
        text = decode_text(raw, "images.csv")
    except DataError:
        return
    check(text)


@settings(max_examples=300, deadline=None)
@given(HEADERS, LINES, st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_cells(header: str, lines: list[list[str]], delimiter: str, newline: str) -> None:
    check(header + newline.join(delimiter.join(line) for line in lines))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100))
@example("patient,split\nP1,train\nP1,test\n")
@example("patient,split\nP1\n")
def test_any_splits_file(text: str) -> None:
    try:
        assigned = parse_splits(text, "splits.csv")
    except DataError as error:
        refused(error)
        return
    assert {kept.split for kept in assigned.values()} <= set(SPLITS)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), st.sampled_from(SPLITS)
    )
)
def test_a_splits_file_reads_back_what_was_written(assigned: dict) -> None:
    women = {patient: Kept(split, frozenset({format(len(patient), "x")})) for patient, split in assigned.items()}
    assert parse_splits(format_splits(women), "splits.csv") == women
