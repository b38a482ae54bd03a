"""The manifest a hospital writes: what is accepted, and what every refusal says."""

import pytest

from fedcervix.errors import DataError
from fedcervix.manifest import Row, decode_text, parse


def refusal(text: str) -> DataError:
    with pytest.raises(DataError) as caught:
        parse(text, "images.csv")
    return caught.value


def test_a_row_is_an_image_of_a_patient_with_an_optional_label_and_split() -> None:
    text = "image,patient,label,split\na/1.jpg,P1,1,train\na/2.jpg,P1,,train\na/3.jpg,P2,0,test\n"
    assert parse(text, "images.csv") == (
        Row("a/1.jpg", "P1", 1, "train", 2),
        Row("a/2.jpg", "P1", None, "train", 3),
        Row("a/3.jpg", "P2", 0, "test", 4),
    )


def test_label_and_split_columns_may_be_missing_and_others_are_ignored() -> None:
    assert parse("age,patient,image\n51,P1,1.jpg\n", "images.csv") == (Row("1.jpg", "P1", None, None, 2),)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_of_any_spreadsheet(delimiter: str, newline: str) -> None:
    lines = [["Image ", "PATIENT", "label"], ["1.jpg", " P1", "0"], ["", "", ""], ["2.jpg", "P1", ""]]
    text = "\ufeff" + newline.join(delimiter.join(line) for line in lines)
    assert parse(text, "images.csv") == (Row("1.jpg", "P1", 0, None, 2), Row("2.jpg", "P1", None, None, 4))


def test_a_windows_path_is_read_as_a_path() -> None:
    assert parse("image,patient\n.\\a\\1.jpg,P1\n", "images.csv")[0].image == "a/1.jpg"


def test_a_quoted_cell_may_hold_the_delimiter_and_lines_are_counted_through_it() -> None:
    error = refusal('image,patient,note\n"a,1.jpg",P1,"two\nlines"\n2.jpg,P1,\n2.jpg,P1,\n')
    assert "line 5: image '2.jpg' is already in line 4" in error.what


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1.jpg,P1,yes,", "line 2, column label: found 'yes'; expected 0 = control, 1 = case, empty = unlabelled"),
        ("1.jpg,P1,1.0,", "line 2, column label: found '1.0'"),
        ("1.jpg,P1,,val", "line 2, column split: found 'val'; expected train, valid, test, or empty"),
        ("1.jpg,,1,", "line 2, column patient: empty"),
        (",P1,1,", "line 2, column image: empty"),
        (".,P1,1,", "line 2, column image: '.' is the manifest's folder"),
        ("/etc/passwd,P1,1,", "line 2, column image: '/etc/passwd' is an absolute path"),
        ("C:\\a.jpg,P1,1,", "line 2, column image: 'C:\\\\a.jpg' is an absolute path"),
        ("\\\\nas\\a.jpg,P1,1,", "is an absolute path"),
        ("a/../../b.jpg,P1,1,", "line 2, column image: 'a/../../b.jpg' leaves the manifest's folder"),
        ("a\x00.jpg,P1,1,", "line 2, column image: 'a\\x00.jpg' holds characters that cannot be printed"),
        ("1.jpg,P\x1b[2J,1,", "line 2, column patient: 'P\\x1b[2J' holds characters that cannot be printed"),
        ("1.jpg,P1", "line 2: 2 cells, but the header names 4 columns"),
        ("1.jpg,P1,1,train,more", "line 2: 5 cells, but the header names 4 columns"),
    ],
)
def test_a_cell_that_is_not_allowed_is_named_by_line_and_column(row: str, complaint: str) -> None:
    error = refusal(f"image,patient,label,split\n{row}\n")
    assert "images.csv" in error.what
    assert complaint in error.what
    assert error.cause
    assert "images.csv" in error.next_step


def test_an_image_stands_in_one_row() -> None:
    assert "line 3: image '1.jpg' is already in line 2" in refusal("image,patient\n1.jpg,P1\n./1.jpg,P2\n").what


def test_five_offences_are_shown_and_the_others_counted() -> None:
    error = refusal("image,patient,label\n" + "".join(f"{k}.jpg,P,x\n" for k in range(7)))
    assert error.what.count("column label") == 5
    assert "line 6," in error.what
    assert "line 7," not in error.what
    assert "and 2 more" in error.what


def test_a_missing_column_is_named_with_the_columns_found_and_the_nearest_one() -> None:
    error = refusal("image;patient_id;label\n1.jpg;P1;0\n")
    assert error.what == "images.csv has no column 'patient'; columns found: 'image', 'patient_id', 'label'"
    assert error.cause == "column 'patient_id' was probably meant to be 'patient'"


def test_a_missing_header_is_recognised() -> None:
    error = refusal("1.jpg,P1,0\n")
    assert "no column 'image' and no column 'patient'" in error.what
    assert "header line is missing" in error.cause


def test_a_column_that_stands_twice_is_refused() -> None:
    assert "two columns named 'label'" in refusal("image,patient,label,Label\n1.jpg,P1,0,1\n").what


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(text: str) -> None:
    assert "none: the file is empty" in refusal(text).what


def test_a_header_alone_is_refused() -> None:
    assert refusal("image,patient\n").what == "images.csv lists no image"


def test_a_quotation_mark_that_is_never_closed_is_named() -> None:
    error = refusal('image,patient\n1.jpg,P1\n"2.jpg,P1\n3.jpg,P1\n')
    assert "not a CSV file" in error.what
    assert error.next_step == "mend line 3 of images.csv"


def test_text_in_another_encoding_is_refused() -> None:
    with pytest.raises(DataError, match=r"images.csv is not UTF-8 text \(byte 15 is 0xfc\)"):
        decode_text("image,patient\nM\u00fcller.jpg,P1".encode("cp1252"), "images.csv")
    assert decode_text(b"\xef\xbb\xbfimage", "images.csv") == "image"
