"""A manifest's names and the disk's: other Unicode forms are found, similar names are told and not taken."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from site_agent.data.filenames import FileNames

NFC, NFD = (unicodedata.normalize(form, "Übersicht/Fällä.png") for form in ("NFC", "NFD"))


def written(folder: Path, *names: str) -> FileNames:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return FileNames(folder)


@pytest.mark.parametrize(("disk", "named"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_the_other_unicode_form_is_found_in_every_part_of_a_path(tmp_path: Path, disk: str, named: str) -> None:
    assert written(tmp_path, disk).found(named) == disk


def test_the_form_that_is_asked_for_goes_first(tmp_path: Path) -> None:
    names = written(tmp_path, NFC, NFD)
    assert (names.found(NFC), names.found(NFD)) == (NFC, NFD)


def test_a_name_that_is_not_there_in_any_form_is_returned_as_it_is(tmp_path: Path) -> None:
    names = written(tmp_path, "a/1.png")
    for name in (NFC, "a/2.png", "b/1.png", "a/1.png/2.png"):
        assert names.found(name) == name
        assert names.similar(name) == ""


@pytest.mark.parametrize(
    ("disk", "named"), [("IMG_1.JPG", "img_1.jpg"), ("IMG_1.jpeg", "IMG_1.jpg"), ("Ä.PNG", "a\u0308.png")]
)
def test_a_similar_name_is_told_and_not_taken(tmp_path: Path, disk: str, named: str) -> None:
    names = written(tmp_path, f"images/{disk}")
    assert names.found(f"images/{named}") == f"images/{named}"
    assert names.similar(f"images/{named}") == disk


def test_a_file_in_a_folder_of_another_case_is_told_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "Images" / "A").mkdir(parents=True)
    (tmp_path / "Images" / "A" / "1.png").touch()
    assert FileNames(tmp_path).similar("images/a/1.PNG") == "Images/A/1.png"
    assert FileNames(tmp_path).similar("images/b/1.png") == ""


def test_a_link_that_leads_nowhere_is_not_told_as_similar_to_itself(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("1.png")
    assert FileNames(tmp_path).similar("1.png") == ""


def test_a_name_whose_bytes_are_of_an_older_alphabet_is_told_so_that_it_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"M\xfcller.png")).write_bytes(b"")
    names = FileNames(tmp_path)
    assert names.found("Müller.png") == "Müller.png"
    assert names.similar("Müller.png") == "M\\xfcller.png"


PROBE = """
import sys
from pathlib import Path
from site_agent.data.filenames import FileNames
name = "\\u00e4.png"
found = FileNames(Path(sys.argv[1])).found(name)
assert sys.getfilesystemencoding() != "utf-8", sys.getfilesystemencoding()
print((Path(sys.argv[1]) / found).exists(), FileNames(Path(sys.argv[1])).found("\\u65e5.png") == "\\u65e5.png")
"""


def test_names_are_found_where_the_locale_is_not_utf_8(tmp_path: Path) -> None:
    written(tmp_path, "ä.png")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    asked = subprocess.run(
        [sys.executable, "-c", PROBE, tmp_path], env=plain, capture_output=True, text=True, timeout=60
    )
    assert asked.stdout.split() == ["True", "True"], asked.stderr
