"""Stage, visit, device, box and covariates: from the manifest to the images that train, and what is refused."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from fedcervix.errors import DataError
from site_agent.data import dataset
from site_agent.data.collection import Collection, IndexSettings, index
from site_agent.home import SiteHome, create
from site_agent.manifest.details import NO_DETAILS, ImageDetails, PixelBox
from site_agent.manifest.reading import parse
from tests.unit.test_dataset import RECIPE

HEADER = "image,patient,stage,visit,device,roi\n"


def of_row(row: str) -> ImageDetails:
    return parse(HEADER + row, "images.csv").rows[0].details


def refusal(text: str, *covariates: str) -> DataError:
    with pytest.raises(DataError) as caught:
        parse(text, "images.csv", covariates=covariates)
    return caught.value


def test_a_row_may_say_how_its_picture_was_taken() -> None:
    found = of_row('1.jpg,P1,Acetic,2024-03-01,pocket 2,"10,20,300,400"\n')
    assert found == ImageDetails("acetic", "2024-03-01", "pocket 2", PixelBox(10, 20, 300, 400))


@pytest.mark.parametrize("row", ["1.jpg,P1,,,,", "1.jpg,P1", "1.jpg,P1,NA,-,unknown,n/a"])
def test_what_is_empty_or_a_word_for_a_missing_value_is_unknown(row: str) -> None:
    assert of_row(row + "\n") == NO_DETAILS


@pytest.mark.parametrize("text", ["0 0 64 64", "0;0;64;64", "0, 0, 64, 64"])
def test_a_box_may_be_written_without_quotation_marks(text: str) -> None:
    cell = f'"{text}"' if "," in text else text
    assert of_row(f"1.jpg,P1,,,,{cell}\n").roi == PixelBox(0, 0, 64, 64)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1.jpg,P1,saline,,,", "line 2, column stage: found 'saline'; expected native, acetic, green, iodine, other"),
        ("1.jpg,P1,,,,10 20 30", "line 2, column roi: found '10 20 30'; expected x,y,w,h in whole pixels"),
        ("1.jpg,P1,,,,0 0 15 64", "line 2, column roi: found '0 0 15 64'"),
        ("1.jpg,P1,,,,-1 0 64 64", "line 2, column roi: found '-1 0 64 64'"),
        ("1.jpg,P1,,,,0.1 0 64 64", "line 2, column roi: found '0.1 0 64 64'"),
        ("1.jpg,P1,,a\x07b,,", "line 2, column visit: 'a\\x07b' holds characters that cannot be printed"),
        (f"1.jpg,P1,,,{'d' * 101},", "line 2, column device: 'ddd"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused_with_line_and_column(row: str, complaint: str) -> None:
    assert complaint in refusal(HEADER + row + "\n").what


def test_a_column_that_stands_twice_is_refused() -> None:
    assert "two columns named 'stage'" in refusal("image,patient,stage,Stage\n1.jpg,P1,green,acetic\n").what
    assert "two columns named 'age'" in refusal("image,patient,age,AGE\n1.jpg,P1,51,52\n", "age").what


def test_a_column_of_another_meaning_can_be_ignored() -> None:
    found = parse("image,patient,stage\n1.jpg,P1,IIb\n", "images.csv", ignore=["stage"])
    assert (found.rows[0].details, found.ignored) == (NO_DETAILS, ("'stage'",))


def test_covariates_are_kept_as_they_are_written() -> None:
    found = parse("image,patient,Age,HPV,note\n1.jpg,P1,51,absent,x\n", "images.csv", covariates=("age", "hpv"))
    assert found.rows[0].details.covariates == {"age": "51", "hpv": "absent"}
    assert found.ignored == ("'note'",)


def test_a_covariate_may_look_like_a_label() -> None:
    """HPV is 0 or 1 as well: whoever names it has said what it is."""
    assert parse("image,patient,hpv\n1.jpg,P1,1\n2.jpg,P2,0\n", "images.csv", covariates=("hpv",)).ignored == ()


@pytest.mark.parametrize(("name", "words"), [("bmi", "no column 'bmi'"), ("Device", "'device' cannot be a covariate")])
def test_a_covariate_that_is_not_there_or_is_read_anyway_is_refused(name: str, words: str) -> None:
    error = refusal("image,patient,device\n1.jpg,P1,x\n", name)
    assert words in error.what
    assert ("remove it from covariates" if name == "Device" else "correct covariates") in error.next_step


# --- on the way to the images that train ------------------------------------------------------------------------------

COLUMNS = ("image", "patient", "label", "split", "stage", "visit", "device", "roi", "age")


def collection_of(folder: Path, rows: list[dict[str, str]], side_px: int = 40) -> Path:
    """Write a manifest and a picture of its own for each of its images."""
    folder.mkdir(exist_ok=True)
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    for k, name in enumerate(sorted({row["image"] for row in rows})):
        noise = np.random.default_rng(k).integers(0, 256, (side_px, side_px + 20, 3), np.uint8)
        Pillow.fromarray(noise).save(folder / name)
    return folder / "manifest.csv"


def women(**details: str) -> list[dict[str, str]]:
    return [
        {"image": f"{k}.png", "patient": f"P{k}", "split": "train" if k < 4 else "valid", **details} for k in range(8)
    ]


def read(manifest: Path, **settings: object) -> Collection:
    return index(manifest, IndexSettings(**settings))  # type: ignore[arg-type]


def test_details_reach_the_images_that_train(tmp_path: Path) -> None:
    manifest = collection_of(
        tmp_path / "images", women(stage="acetic", visit="1", device="d", roi="4 4 30 30", age="51")
    )
    home = SiteHome(tmp_path / "home")
    create(home, manifest=manifest)
    home.config_file.write_text(home.config_file.read_text().replace("# covariates = []", 'covariates = ["age"]'))
    found = dataset.contrastive(home, dataset.open_collection(home), RECIPE, "train")
    assert found.details == (ImageDetails("acetic", "1", "d", PixelBox(4, 4, 30, 30), covariates={"age": "51"}),) * 4
    assert dataset.joined([found, found]).details == found.details * 2


def test_visits_of_linked_identifiers_are_not_taken_for_one(tmp_path: Path) -> None:
    """Before: visit 1 of one record and visit 1 of another one of the same woman made a pair."""
    rows = [{"image": f"{k}.png", "patient": f"P{k // 2}", "stage": "acetic", "visit": "1"} for k in range(4)]
    manifest = collection_of(tmp_path, rows)
    assert {image.visit for image in read(manifest).images} == {"1"}
    (tmp_path / "3.png").write_bytes((tmp_path / "0.png").read_bytes())  # the same picture in both records
    found = {image.path: image for image in read(manifest).images}
    assert len({image.woman for image in found.values()}) == 1
    assert found["0.png"].visit == found["1.png"].visit != found["2.png"].visit


def test_a_box_that_is_not_within_its_picture_is_refused(tmp_path: Path) -> None:
    manifest = collection_of(tmp_path, women(roi="31 0 30 40"))
    with pytest.raises(DataError, match=re.escape("line 2, column roi: the box 31,0,30,40 is not within '0.png'")):
        read(manifest)
    assert read(collection_of(tmp_path, women(roi="30 0 30 40"))).images[0].details.roi == PixelBox(30, 0, 30, 40)


def test_a_box_is_of_the_picture_as_it_is_seen(tmp_path: Path) -> None:
    manifest = collection_of(tmp_path, women(roi="0 20 40 40"))
    with pytest.raises(DataError, match="60 x 40 pixels as it is seen"):
        read(manifest)
    for picture in tmp_path.glob("*.png"):
        turned = Pillow.Exif()
        turned[0x0112] = 6
        with Pillow.open(picture) as image:
            image.save(picture, exif=turned)
    assert len(read(manifest).images) == 8


def test_what_copies_of_a_picture_contradict_each_other_about_is_unknown(tmp_path: Path) -> None:
    rows = [
        *women(),
        {"image": "z.png", "patient": "P0", "split": "train", "stage": "green", "visit": "1"},
        {"image": "zz.png", "patient": "P0", "split": "train", "stage": "acetic", "visit": "1", "device": "d"},
    ]
    manifest = collection_of(tmp_path, rows)
    (tmp_path / "zz.png").write_bytes((tmp_path / "z.png").read_bytes())
    found = {image.path: image.details for image in read(manifest).images}
    assert found["z.png"] == ImageDetails("", "1", "d")


def test_a_collection_without_these_columns_is_what_it_was(tmp_path: Path) -> None:
    """Empty columns say nothing; the digest of a collection without them is the one of earlier versions."""
    without = read(collection_of(tmp_path / "a", women()))
    empty = read(collection_of(tmp_path / "b", women(stage="", visit="", device="", roi="")))
    assert without.images == empty.images
    assert without.digest == empty.digest == GOLDEN_DIGEST
    staged = read(collection_of(tmp_path / "c", women(stage="acetic")))
    assert staged.digest != without.digest
    assert read(collection_of(tmp_path / "d", women(device="d"))).digest == without.digest


GOLDEN_DIGEST = "17267dcaa84e0f337202204685f17531e8187ba08c5e1585e2aa8ec12372c676"
"""as fedcervix computed it before there were such columns"""
