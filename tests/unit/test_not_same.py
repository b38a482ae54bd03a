"""The file of pairs that show two women, and the way on where pictures of different women look alike."""

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fedcervix.errors import DataError, StorageError
from site_agent.cli import cli
from site_agent.data import dataset
from site_agent.data.collection import IndexSettings, index
from site_agent.data.not_same import format_pairs, read_pairs
from site_agent.home import SiteHome, create
from tests.unit.scenes import compressed, scene


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve women with the same scene, saved twelve times: too many to be one woman."""
    rows = []
    for number in range(12):
        Image.fromarray(compressed(scene(0), 60 + 3 * number)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", f"P{number}", str(number % 2)))
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "patient", "label"), *rows])
    return tmp_path / "manifest.csv"


def check(manifest: Path, *options: str | Path) -> Result:
    return CliRunner().invoke(cli, ["data", "check", str(manifest), *map(str, options)])


def judge(pairs: Path) -> None:
    pairs.write_text(pairs.read_text().replace(".png,,", ".png,different,"))


def test_a_refused_collection_goes_on_with_what_the_error_says(manifest: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    with pytest.raises(DataError, match="listed under 12 patients") as refused:
        index(manifest)
    assert f"site-agent data check {manifest} --write-pairs pairs.csv" in refused.value.next_step
    assert isinstance(check(manifest, "--write-pairs", pairs).exception, DataError)
    assert len(pairs.read_text().splitlines()) == 1 + 12 * 11 // 2
    assert pairs.stat().st_mode & 0o777 == 0o600
    assert isinstance(check(manifest, "--not-same", pairs).exception, DataError)  # nothing is judged yet
    judge(pairs)
    done = check(manifest, "--not-same", pairs)
    assert done.exit_code == 0, done.output
    assert "66 pairs of images look alike and are declared to show two women" in done.stdout
    home = SiteHome(tmp_path / "home")
    create(home, manifest=manifest)
    home.config_file.write_text(f'[data]\nmanifest = "{manifest}"\nnot_same = "{pairs}"\n')
    collection = dataset.open_collection(home)
    assert len({image.woman for image in collection.images}) == 12
    assert collection.disputed == ()


@pytest.mark.parametrize(
    "options", [("--not-same", "none.csv"), ("--write-pairs", "none/pairs.csv")], ids=["a file to read", "one to write"]
)
def test_a_misspelt_path_is_named_before_any_image_is_looked_at(manifest: Path, options: tuple[str, str]) -> None:
    done = check(manifest, *options)
    assert isinstance(done.exception, DataError | StorageError)
    assert "none" in str(done.exception)
    assert "looking at images" not in done.output


def test_verdicts_are_not_overwritten_and_can_be_carried_over(manifest: Path, tmp_path: Path) -> None:
    pairs, again = tmp_path / "pairs.csv", tmp_path / "again.csv"
    check(manifest, "--write-pairs", pairs)
    judge(pairs)
    judged = pairs.read_text()
    assert check(manifest, "--write-pairs", pairs).exit_code != 0
    assert pairs.read_text() == judged
    check(manifest, "--not-same", pairs, "--write-pairs", again)
    assert again.read_text() == judged


def test_splits_that_the_manifest_gives_are_not_crossed_by_a_declared_pair(tmp_path: Path) -> None:
    for number, quality in enumerate((60, 90)):
        Image.fromarray(compressed(scene(0), quality)).save(tmp_path / f"{number}.png")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("image,patient,split\n0.png,A,train\n1.png,B,test\n")
    with pytest.raises(DataError, match="in two splits") as refused:
        index(manifest)
    assert "--write-pairs pairs.csv" in refused.value.next_step
    (tmp_path / "pairs.csv").write_text("image_a,image_b\n0.png,1.png\n")
    assert len(index(manifest, IndexSettings(not_same=tmp_path / "pairs.csv")).images) == 2


def test_a_pair_that_is_no_longer_there_is_said(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(scene(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "manifest.csv").write_text("image,patient\n0.png,A\n1.png,B\n")
    (tmp_path / "pairs.csv").write_text("image_a,image_b\n0.png,gone.png\n")
    done = check(tmp_path / "manifest.csv", "--not-same", tmp_path / "pairs.csv")
    assert "1 declared pairs have no effect" in done.stdout
    assert "0.png and gone.png: gone.png cannot be read, or the manifest does not name it" in done.stdout


def test_a_file_as_a_spreadsheet_writes_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(
        "\ufeffImage_A;Image_B;Verdict;why\na\\1.png;b/2.png;Different;x\nc.png;d.png;same;\ne.png;f.png;;\n"
    )
    assert read_pairs(file) == {frozenset({"a/1.png", "b/2.png"})}


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nimage_a;image_b;verdict\na.png;b.png;different\n",
        "image_a\timage_b\tverdict\na.png\tb.png\tdifferent\n",
        "why, and more; by whom;image_a;image_b;verdict\nx;y;a.png;b.png;Different\n",
        "image_a;image_b;verdict\n\na.png;b.png;different\nc.png;d.png\n",
        '"image_a\u200b",image_b\n a.png ,"b.png"\n',
    ],
)
def test_a_table_is_read_as_a_manifest_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(text)
    assert read_pairs(file) == {frozenset({"a.png", "b.png"})}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    listed = [
        (("a,1.png", "b.png"), ("A", "B"), True),
        (("c.png", "d.png"), ("C", "D"), False),
    ]
    file.write_text(format_pairs(listed))
    assert read_pairs(file) == {frozenset({"a,1.png", "b.png"})}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no column image_a"),
        ("image_a,image\na,b\n", "no column image_b"),
        ("image_a,image_b\na,\n", "line 2: an image is missing"),
        ("image_a,image_b\na,a\n", "line 2: an image with itself"),
        ("image_a,image_b,verdict\na,b,yes\n", "line 2: verdict 'yes' is not `different`, `same` or empty"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(text)
    with pytest.raises(DataError, match="cannot be used") as refused:
        read_pairs(file)
    assert complaint in refused.value.what


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_pairs(tmp_path / "absent.csv")
