"""The manifest a hospital writes: what is accepted, and what every refusal says."""

import re
import shlex
import tomllib

import pytest

from fedcervix.errors import DataError
from site_agent.manifest.reading import ManifestRow, parse
from site_agent.manifest.spreadsheet import decode_text


def refusal(text: str) -> DataError:
    with pytest.raises(DataError) as caught:
        parse(text, "images.csv")
    return caught.value


def test_a_row_is_an_image_of_a_patient_with_an_optional_label_and_split() -> None:
    text = "image,patient,label,split\na/1.jpg,P1,1,train\na/2.jpg,P1,,train\na/3.jpg,P2,0,test\n"
    assert parse(text, "images.csv").rows == (
        ManifestRow("a/1.jpg", "P1", 1, "train", 2),
        ManifestRow("a/2.jpg", "P1", None, "train", 3),
        ManifestRow("a/3.jpg", "P2", 0, "test", 4),
    )


def test_label_and_split_columns_may_be_missing_and_others_are_ignored() -> None:
    assert parse("age,patient,image\n51,P1,1.jpg\n", "images.csv").rows == (ManifestRow("1.jpg", "P1", None, None, 2),)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_of_any_spreadsheet(delimiter: str, newline: str) -> None:
    lines = [["Image ", "PATIENT", "label"], ["1.jpg", " P1", "0"], ["", "", ""], ["2.jpg", "P1", ""]]
    text = "\ufeff" + newline.join(delimiter.join(line) for line in lines)
    assert parse(text, "images.csv").rows == (
        ManifestRow("1.jpg", "P1", 0, None, 2),
        ManifestRow("2.jpg", "P1", None, None, 4),
    )


def test_a_windows_path_is_read_as_a_path() -> None:
    assert parse("image,patient\n.\\a\\1.jpg,P1\n", "images.csv").rows[0].image == "a/1.jpg"


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
    assert error.next_step == "correct line 3 of images.csv"


def test_text_in_another_encoding_is_refused() -> None:
    with pytest.raises(DataError, match=r"images.csv is not UTF-8 text \(line 2, byte 15 is 0xfc\)"):
        decode_text("image,patient\nM\u00fcller.jpg,P1".encode("cp1252"), "images.csv")
    assert decode_text(b"\xef\xbb\xbfimage", "images.csv") == "image"


# --- how spreadsheets save a table ---------------------------------------------------------------------------------

PLAIN = "image,patient,label\n1.jpg,001,1\n2.jpg,002,\n"
ROWS = (ManifestRow("1.jpg", "001", 1, None, 2), ManifestRow("2.jpg", "002", None, None, 3))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(PLAIN.encode("utf-16"), id="Excel's Unicode text"),
        pytest.param(PLAIN.replace(",", "\t").encode("utf-16-le"), id="UTF-16 without a mark"),
        pytest.param(PLAIN.encode("utf-8-sig").replace(b"\n", b"\r\n"), id="CSV UTF-8"),
        pytest.param(b'"\xef\xbb\xbfimage","patient","label"\n"1.jpg","001","1"\n"2.jpg","002",""\n', id="quoted mark"),
        pytest.param(b"image,patient,label\n1.jpg,001,1\n2.jpg,002\n", id="last delimiters left out"),
        pytest.param(b"image,patient,label,note,note,\n1.jpg,001,1,a,b,\n2.jpg,002\n", id="further columns"),
        pytest.param("image,pat\u200bient,ＬＡＢＥＬ\n1.jpg,001,1\n2.jpg,002,\n".encode(), id="invisible characters"),
    ],
)
def test_what_a_spreadsheet_saves_is_read(raw: bytes) -> None:
    assert parse(decode_text(raw, "images.csv"), "images.csv").rows == ROWS


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;"])
def test_a_line_that_names_the_delimiter_is_obeyed_and_lines_are_counted_with_it(line: str) -> None:
    text = f"{line}\r\nimage;patient;label\r\n1,5.jpg;001;1\r\n"
    assert parse(text, "images.csv").rows == (ManifestRow("1,5.jpg", "001", 1, None, 3),)


def test_the_delimiter_is_the_one_that_makes_the_required_columns_appear() -> None:
    text = "image;patient;age, in years, at the visit, rounded\n1.jpg;001;51\n"
    assert parse(text, "images.csv").rows == (ManifestRow("1.jpg", "001", None, None, 2),)


def test_a_file_that_ends_within_a_line_is_refused_where_cells_are_missing() -> None:
    assert (
        "line 3: the file ends in this line (2 of 3 cells)"
        in refusal("image,patient,label\n1.jpg,001,1\n2.jpg,00").what
    )
    assert parse(PLAIN.rstrip("\n"), "images.csv").rows == ROWS


@pytest.mark.parametrize(
    ("raw", "what", "advice"),
    [
        (b"PK\x03\x04xl", r"a workbook \(.xlsx or .ods\)", "CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1", "a workbook", "CSV UTF-8"),
        (b"\x1f\x8b\x08", "a compressed file", "gunzip"),
        (b"%PDF-1.7", "a PDF file", "CSV"),
        (b"\x89PNG\r\n", "an image", "CSV"),
    ],
)
def test_a_file_that_is_no_text_is_called_what_it_is(raw: bytes, what: str, advice: str) -> None:
    with pytest.raises(DataError, match=f"images.csv is {what}") as caught:
        decode_text(raw, "images.csv")
    assert caught.value.cause
    assert advice in caught.value.next_step


def test_lines_that_were_exported_as_one_cell_are_recognised() -> None:
    assert "exported twice" in refusal('"image,patient,label"\n"1.jpg,001,1"\n').cause


# --- columns that were probably meant to be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "known"),
    [
        *(
            (name, "A B", "split")
            for name in ("splits", "split_", "_Split", "split 1", "spilt", "set", "dataset", "Fold")
        ),
        *((name, "A B", "split") for name in ("subset", "data_set", "partition", "phase", "Teil", "is_train")),
        *((name, "A B", "label") for name in ("labels", "label:", "Label_1", "lable", "class")),
        *(
            (name, "A B", "label")
            for name in ("target", "diagnosis", "ground_truth", "Diagnóstico", "true label", "case/control", "y")
        ),
        *(("x7", values, "split") for values in ("train test", "Training Validation", "val train", "TEST  dev")),
        *(("x7", values, "label") for values in ("0 1", "1.0 0.0", "case control", "Pos neg", "yes no")),
        ("", "0 1", "label"),
    ],
)
def test_a_column_that_was_probably_meant_to_be_read_stops_and_can_be_ignored(
    name: str, values: str, known: str
) -> None:
    rows = "".join(f"{k}.jpg,P{k},{value},\n" for k, value in enumerate([*values.split(" "), ""]))
    text = f"image,patient,{name},note\n{rows}"
    error = refusal(text)
    assert f"may be meant as {known!r}" in error.what
    assert repr(name) in error.what or not name
    assert "--ignore-column" in error.next_step
    assert "ignore_columns" in error.next_step
    if name:
        found = parse(text, "images.csv", [name.upper()])
        assert found.ignored == (repr(name), "'note'")
        assert {row.label for row in found.rows} == {row.split for row in found.rows} == {None}


def test_the_words_that_ignore_a_column_can_be_typed() -> None:
    error = refusal('image,patient,"true ""label"""\n1.jpg,P1,A\n')
    typed = re.search(r"--ignore-column (.*) \(data check", error.next_step)
    written = re.search(r"ignore_columns = .*?]", error.next_step)
    assert typed
    assert written
    assert shlex.split(typed[1]) == tomllib.loads(written[0])["ignore_columns"] == ['true "label"']


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        (("Y", "N"), "label"),
        (("ja", "nein"), "label"),
        (("oui", "non"), "label"),
        (("+", "-"), "label"),
        (("1", "0", "NA"), "label"),
        (("1", "0", "-1"), "label"),
        (("Fall", "Kontrolle"), "label"),
        (("Training", "Validierung", "Test"), "split"),
        (("entrenamiento", "validaci\u00f3n", "prueba"), "split"),
        (("tr", "va", "te"), "split"),
        (("train set", "test set"), "split"),
        (("train", "test", "excluded"), "split"),
        (("train", "test", "NA"), "split"),
        (("s\u00ed", "no"), "label"),
        (("si", "no", "s/d"), "label"),
        (("Sim", "N\u00e3o"), "label"),
        (("positivo", "negativo"), "label"),
        (("Positif", "N\u00e9gatif"), "label"),
        (("maligna", "benigna"), "label"),
        (("malata", "sana"), "label"),
        (("entrenamiento", "prueba", "excluida"), "split"),
        (("treino", "valida\u00e7\u00e3o", "teste"), "split"),
        (("addestramento", "convalida", "prova"), "split"),
        (("Train", "test1", "test2"), "split"),
    ],
)
def test_values_of_a_known_column_in_other_words_stop(values: tuple[str, ...], meant: str) -> None:
    lines = [f"images/{k}.png,P{k},{values[k % len(values)]}" for k in range(6)]
    with pytest.raises(DataError, match=f"'group' may be meant as '{meant}'"):
        parse("\n".join(["image,patient,group", *lines, ""]), "m.csv")


def test_one_letter_in_all_rows_is_no_class() -> None:
    found = parse("image,patient,sex\n1.jpg,P1,F\n2.jpg,P2,F\n3.jpg,P3,\n", "m.csv")
    assert found.ignored == ("'sex'",)


def test_where_the_known_column_is_empty_another_one_is_suspected() -> None:
    assert "'set' may be meant as 'split'" in refusal("image,patient,split,set\n1.jpg,P1,,train\n").what


@pytest.mark.parametrize("name", ["age", "hpv", "camera", "episode", "notes", "centre", "slide", "date", "image_width"])
def test_other_columns_are_ignored_and_listed(name: str) -> None:
    assert parse(f"image,patient,{name}\n1.jpg,P1,51\n", "images.csv").ignored == (repr(name),)


def test_beside_a_filled_known_column_others_may_hold_what_they_like() -> None:
    text = "image,patient,label,split,hpv,set\n1.jpg,P1,0,train,1,train\n2.jpg,P2,1,test,0,test\n"
    assert parse(text, "images.csv").ignored == ("'hpv'", "'set'")


def test_a_column_with_a_near_name_and_nothing_in_it_is_ignored() -> None:
    assert parse("image,patient,labels\n1.jpg,P1,\n", "images.csv").ignored == ("'labels'",)


def test_a_known_column_may_be_ignored_but_for_the_required_ones() -> None:
    assert parse("image,patient,label,hpv\n1.jpg,P1,1,0\n", "images.csv", ["label"]).rows[0].label is None
    with pytest.raises(DataError, match="column 'patient' cannot be ignored"):
        parse("image,patient\n1.jpg,P1\n", "images.csv", ["Patient"])


# --- identifiers -------------------------------------------------------------------------------------------------


MISSING = "NA|#N/A|n/a|#REF!|#DIV/0!|#WERT!|###|NaN|null|None|unknown|Unbekannt|n.a.|-|--|?|.|1.2E+14|1,2e+14|missing"


@pytest.mark.parametrize("word", MISSING.split("|"))
def test_a_word_for_a_missing_identifier_is_refused_like_an_empty_cell(word: str) -> None:
    error = refusal(f"image;patient\n1.jpg;P1\n2.jpg;{word}\n")
    assert f"line 3, column patient: {word!r}" in error.what
    assert "women who are not known" in error.next_step
