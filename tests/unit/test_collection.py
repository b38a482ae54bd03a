"""A site's folder of images, clean and dirty, and what `site-agent data` says about it."""

import csv
import itertools
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as Pillow

from fedcervix.core.plan import Recipe
from fedcervix.errors import DataError, StorageError
from site_agent.cli import data
from site_agent.commands.display import Display
from site_agent.commands.open_images import open_images
from site_agent.data import collection as collections
from site_agent.data.collection import CensusRow, Collection, Image, IndexSettings, Quarantined, index, require
from site_agent.data.duplicates import Copy
from site_agent.data.pixel_cache import load
from site_agent.home import SiteHome, create
from site_agent.images.samples import Pixels
from site_agent.images.unreadable import FORMATS_TEXT
from site_agent.manifest.reading import SPLITS
from site_agent.manifest.splits import parse_splits
from tests.unit.coordinator_homes import let_in

Entry = tuple[str, str, str] | tuple[str, str, str, str]


def picture(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (16, 20, 3), np.uint8)


def photograph(folder: Path, name: str, seed: int) -> None:
    Pillow.fromarray(picture(seed)).save(folder / name)


def manifest(folder: Path, *entries: Entry) -> Path:
    """Write the manifest and, for every image that is not there yet, a picture of its own."""
    columns = ["image", "patient", "label", "split"][: len(entries[0])]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *entries])
    for number, entry in enumerate(entries):
        if not (folder / entry[0]).exists() and not (folder / entry[0]).is_symlink():
            photograph(folder, entry[0], 1000 + number)
    return folder / "manifest.csv"


def clinic(folder: Path, cases: int = 5, controls: int = 5, unlabelled: int = 5) -> Path:
    """Write a collection with two images a woman: one labelled, one not; or two unlabelled ones."""
    women = [("case", "1")] * cases + [("control", "0")] * controls + [("unlabelled", "")] * unlabelled
    rows = []
    for number, (name, label) in enumerate(women):
        rows += [
            (f"{number}a.png", f"{name}-{number}", label),
            (f"{number}b.png", f"{name}-{number}", ""),
        ]
    return manifest(folder, *rows)


def header_of_a_png(width: int, height: int) -> bytes:
    """The few bytes that announce a picture; no pixel follows."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 0) + b"IDAT"


def by_path(collection: Collection) -> dict[str, Image]:
    return {image.path: image for image in collection.images}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def test_a_clean_collection_is_divided_by_woman(tmp_path: Path) -> None:
    collection = index(clinic(tmp_path))
    assert (collection.rows, len(collection.images)) == (30, 30)
    assert (collection.quarantined, collection.copies) == ((), ())
    assert (collection.shared_pictures, collection.disputed) == ((), ())
    for _, images in itertools.groupby(collection.images, key=lambda image: image.patient):
        assert len({image.split for image in images}) == 1
    assert collection.census() == (
        CensusRow("train", "case", 3, 3, 6),
        CensusRow("train", "control", 3, 3, 6),
        CensusRow("train", "unlabelled", 4, 0, 8),
        CensusRow("valid", "case", 1, 1, 2),
        CensusRow("valid", "control", 1, 1, 2),
        CensusRow("valid", "unlabelled", 1, 0, 2),
        CensusRow("test", "case", 1, 1, 2),
        CensusRow("test", "control", 1, 1, 2),
    )


def test_what_each_split_is_used_for(tmp_path: Path) -> None:
    collection = index(clinic(tmp_path))
    assert len(collection.contrastive("train")) == 20
    assert len(collection.contrastive("valid")) == 6
    with pytest.raises(ValueError, match="take no part in contrastive learning"):
        collection.contrastive("test")  # type: ignore[arg-type]
    assert sorted(image.label for image in collection.labelled("test")) == [0, 1]
    trained = {image.woman for image in collection.contrastive("train")}
    kept_out = {image.woman for split in SPLITS[1:] for image in collection.images if image.split == split}
    assert trained.isdisjoint(kept_out)


def test_images_stand_in_the_order_of_the_manifest_and_the_digest_names_them(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    collection = index(path)
    assert [image.path for image in collection.images[:3]] == ["0a.png", "0b.png", "1a.png"]
    assert collection.digest == index(path).digest
    path.write_text(path.read_text().replace("case-0,1", "case-0,0"))
    assert collection.digest != index(path).digest


def test_unreadable_images_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    (tmp_path / "0a.png").unlink()
    (tmp_path / "1a.png").write_bytes((tmp_path / "1a.png").read_bytes()[:200])
    collection = index(path, IndexSettings(unreadable_max=0.1))
    assert collection.quarantined == (
        Quarantined("0a.png", "no such file"),
        Quarantined("1a.png", "damaged or cut short"),
    )
    assert (collection.rows, len(collection.images)) == (30, 28)


def test_one_bad_image_of_each_kind_is_set_aside_before_a_pixel_of_it_is_decoded(tmp_path: Path) -> None:
    path = clinic(tmp_path, 20, 20, 20)
    Pillow.new("RGB", (1, 1)).save(tmp_path / "0a.png")
    (tmp_path / "1a.png").write_bytes(header_of_a_png(30_000, 30_000))
    (tmp_path / "2a.png").write_bytes((tmp_path / "2a.png").read_bytes()[:300])
    (tmp_path / "3a.png").unlink()
    collection = index(path)
    assert collection.quarantined == (
        Quarantined("0a.png", "a side of less than 16 pixels"),
        Quarantined("1a.png", "larger than 100,000,000 pixels"),
        Quarantined("2a.png", "damaged or cut short"),
        Quarantined("3a.png", "no such file"),
    )
    train = load(tmp_path, collection.contrastive("train"), 16, "crop", tmp_path / "cache")  # and work goes on
    assert len(train) == len(collection.contrastive("train"))


def test_too_many_unreadable_images_refuse_the_collection(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    for name in ("0a.png", "1a.png"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"2 of 30 images cannot be read \(6.7%; 5.0% is allowed\)") as caught:
        index(path)
    assert "0a.png: no such file" in caught.value.what
    assert "--unreadable-max" in caught.value.next_step
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    for name in tmp_path.glob("*.png"):
        name.unlink()
    with pytest.raises(DataError, match="30 of 30 images cannot be read"):
        index(path, IndexSettings(unreadable_max=1.0))


def test_one_picture_under_two_patients_keeps_them_in_one_split_and_is_used_once(tmp_path: Path) -> None:
    path = clinic(tmp_path, 20, 20, 20)
    for number in range(0, 20, 2):
        shutil.copy(tmp_path / f"{number}a.png", tmp_path / f"{number + 40}a.png")  # a case, seen again unlabelled
    collection = index(path)
    assert len(collection.copies) == len(collection.shared_pictures) == 10
    images = by_path(collection)
    for number in range(0, 20, 2):
        first, again = images[f"{number}a.png"], images[f"{number + 40}b.png"]
        assert first.label == 1
        assert f"{number + 40}a.png" not in images
        assert (first.split, first.woman) == (again.split, again.woman)
        assert first.patient != again.patient
    assert Copy("40a.png", "0a.png") in collection.copies


def test_contradicting_labels_of_one_picture_are_dropped(tmp_path: Path) -> None:
    photograph(tmp_path, "1.png", 1)
    photograph(tmp_path, "2.png", 1)
    collection = index(manifest(tmp_path, ("1.png", "A", "0"), ("2.png", "B", "1"), ("3.png", "B", "1")))
    assert [(image.path, image.label) for image in collection.images] == [("1.png", None), ("3.png", 1)]
    assert collection.disputed == ("1.png", "2.png")
    assert collection.shared_pictures[0].conflicting


def test_splits_of_the_manifest_are_used_as_they_are(tmp_path: Path) -> None:
    path = manifest(tmp_path, ("1.png", "A", "0", "test"), ("2.png", "B", "1", "train"), ("3.png", "B", "", "train"))
    collection = index(path, IndexSettings(splits_file=tmp_path / "splits.csv"))
    assert [image.split for image in collection.images] == ["test", "train", "train"]
    assert collection.splits_given
    assert not (tmp_path / "splits.csv").exists()


def test_a_picture_that_crosses_the_manifests_splits_is_refused(tmp_path: Path) -> None:
    photograph(tmp_path, "1.png", 1)
    photograph(tmp_path, "2.png", 1)
    with pytest.raises(DataError, match=r"A \(test\) and B \(train\)"):
        index(manifest(tmp_path, ("1.png", "A", "0", "test"), ("2.png", "B", "1", "train")))


def test_drawn_splits_are_kept_and_do_not_change_when_patients_come(tmp_path: Path) -> None:
    splits = tmp_path / "state" / "splits.csv"
    first = index(clinic(tmp_path, 8, 8, 8), IndexSettings(splits_file=splits))
    assert splits.stat().st_mode & 0o077 == 0  # it lists patients
    before = {image.patient: image.split for image in first.images}
    rows = [line.split(",") for line in (tmp_path / "manifest.csv").read_text().splitlines()[1:]]
    more = [(f"new{k}.png", f"new-{k}", "1") for k in range(20)]
    second = index(manifest(tmp_path, *(tuple(row) for row in rows), *more), IndexSettings(splits_file=splits, seed=99))
    assert before.items() <= {image.patient: image.split for image in second.images}.items()
    assert second.moved == ()


def test_a_link_found_later_moves_a_patient_out_of_training_and_is_reported(tmp_path: Path) -> None:
    splits = tmp_path / "splits.csv"
    splits.write_text("patient,split\nA,train\nB,test\nC,train\n")
    photograph(tmp_path, "1.png", 1)
    photograph(tmp_path, "2.png", 1)
    path = manifest(tmp_path, ("1.png", "A", "0"), ("2.png", "B", "0"), ("3.png", "A", ""))
    collection = index(path, IndexSettings(splits_file=splits))
    assert {image.split for image in collection.images} == {"test"}
    assert collection.moved == ("A",)
    kept = parse_splits(splits.read_text(), "splits.csv")
    assert {patient: one.split for patient, one in kept.items()} == {"A": "test", "B": "test", "C": "train"}


def test_a_damaged_splits_file_stops_before_an_image_is_opened(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("patient,split\nA,somewhere\n")
    with pytest.raises(DataError, match=r"splits.csv, line 2"):
        index(
            clinic(tmp_path),
            IndexSettings(splits_file=tmp_path / "splits.csv"),
            on_progress=lambda *_: pytest.fail("opened"),
        )


def test_splits_that_cannot_be_kept_stop_the_process(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        index(clinic(tmp_path), IndexSettings(splits_file=tmp_path / "0a.png" / "splits.csv"))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    photograph(tmp_path, "secret.png", 1)
    (tmp_path / "site" / "1.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "site" / "2.png").symlink_to("1.png")
    with pytest.raises(DataError, match=r"images outside its folder: line 2 \(1.png\), line 3 \(2.png\)"):
        index(manifest(tmp_path / "site", ("1.png", "A", "0"), ("2.png", "B", "1"), ("3.png", "C", "1")))


def test_links_within_the_folder_and_a_linked_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    photograph(tmp_path / "site", "1.png", 1)
    (tmp_path / "site" / "2.png").symlink_to("1.png")
    manifest(tmp_path / "site", ("1.png", "A", "0"), ("2.png", "A", "0"))
    (tmp_path / "door").symlink_to("site")
    assert len(index(tmp_path / "door" / "manifest.csv").copies) == 1


def test_a_circle_of_links_is_one_unreadable_image(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    (tmp_path / "0a.png").unlink()
    (tmp_path / "0a.png").symlink_to("0a.png")
    assert [one.image for one in index(path).quarantined] == ["0a.png"]


def test_a_placeholder_under_many_patients_is_refused(tmp_path: Path) -> None:
    for number in range(11):
        photograph(tmp_path, f"{number}.png", 1)
    with pytest.raises(DataError, match=r"the same pictures are listed under 11 patients: 0.png"):
        index(manifest(tmp_path, *((f"{number}.png", f"P{number}", "") for number in range(11))))


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv cannot be read: No such file") as caught:
        index(tmp_path / "none.csv")
    assert caught.value.next_step


def test_a_second_look_opens_only_what_changed(tmp_path: Path) -> None:
    path, cache = clinic(tmp_path), tmp_path / "cache"
    first = index(path, IndexSettings(cache_folder=cache))
    for name in ("0a.png", "1a.png"):  # the same size and time, so nobody looks at the content
        stat = (tmp_path / name).stat()
        (tmp_path / name).write_bytes(b"x" * stat.st_size)
        os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert index(path, IndexSettings(cache_folder=cache)) == first
    os.utime(tmp_path / "1a.png")
    assert [one.image for one in index(path, IndexSettings(cache_folder=cache)).quarantined] == ["1a.png"]
    assert [one.image for one in index(path, IndexSettings(unreadable_max=0.1)).quarantined] == ["0a.png", "1a.png"]


def test_a_process_that_is_killed_while_it_looks_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = clinic(tmp_path), tmp_path / "cache"
    monkeypatch.setattr(collections, "LOOKS_KEPT_EVERY", 8)

    def die_at_20(done: int, total: int) -> None:
        assert total == 30
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(path, IndexSettings(cache_folder=cache), on_progress=die_at_20)
    for name in ("0a.png", "7b.png", "8a.png"):  # images 0, 15 and 16; the same size and time
        stat = (tmp_path / name).stat()
        (tmp_path / name).write_bytes(b"x" * stat.st_size)
        os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [one.image for one in index(path, IndexSettings(cache_folder=cache)).quarantined] == ["8a.png"]


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    path, cache = clinic(tmp_path), tmp_path / "cache"
    first = index(path, IndexSettings(cache_folder=cache))
    next(cache.glob("index-*.looks")).write_text("{")
    assert index(path, IndexSettings(cache_folder=cache)) == first
    assert index(path, IndexSettings(cache_folder=cache, pixels_max=16 * 20)) == first
    with pytest.raises(DataError, match="larger than 10 pixels"):
        index(path, IndexSettings(cache_folder=cache, pixels_max=10))


def test_what_a_purpose_needs_is_there_or_named(tmp_path: Path) -> None:
    collection = index(clinic(tmp_path))
    for purpose in ("pretrain", "finetune", "evaluate"):
        require(collection, purpose)


def test_an_unlabelled_collection_can_pretrain_but_not_finetune(tmp_path: Path) -> None:
    collection = index(clinic(tmp_path, 0, 0, 10))
    require(collection, "pretrain")
    with pytest.raises(
        DataError, match="no case in train, no control in train, no case in valid, no control"
    ) as caught:
        require(collection, "finetune")
    assert caught.value.cause == "10 women, 0 of them labelled, 0 of these cases"
    assert "at least 3 cases and 3 controls" in caught.value.next_step


def test_too_few_women_leave_validation_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used to pretrain: no image in valid"):
        require(index(clinic(tmp_path, 1, 0, 0)), "pretrain")


def test_check_prints_the_census_and_every_finding(tmp_path: Path) -> None:
    path = clinic(tmp_path, 20, 20, 20)
    shutil.copy(tmp_path / "0a.png", tmp_path / "40a.png")
    shutil.copy(tmp_path / "1a.png", tmp_path / "25a.png")
    shutil.copy(tmp_path / "2a.png", tmp_path / "2b.png")
    (tmp_path / "59b.png").write_text("no image")
    result = run("check", path, "--splits", tmp_path / "splits.csv")
    assert result.exit_code == 0, result.output
    assert "120 rows, 116 pictures used, 60 patients, probably 58 women" in result.stdout
    assert f"saved in {tmp_path / 'splits.csv'}" in result.stdout
    assert f"1 unreadable, left out (1: not a {FORMATS_TEXT} image" in result.stdout
    assert "case-0 = unlabelled-40: 1 picture: 1 identical" in result.stdout
    assert "case-1 = control-25: 1 picture: 1 identical, 1 with contradicting labels" in result.stdout
    assert "2b.png repeats 2a.png" in result.stdout
    assert "finetune: ready" in result.stdout
    assert "site-agent data sheet" in result.stdout
    assert "looking at images: 120 of 120" in result.stderr


def test_check_says_what_the_collection_cannot_be_used_for(tmp_path: Path) -> None:
    result = run("check", clinic(tmp_path, 0, 0, 10))
    assert "pretrain: ready" in result.stdout
    assert "finetune: not possible" in result.stdout
    assert "no case in train" in result.stdout


def test_check_lists_ten_of_a_kind_or_all(tmp_path: Path) -> None:
    path = clinic(tmp_path, 6, 6, 6)
    for number in range(12):
        shutil.copy(tmp_path / f"{number}a.png", tmp_path / f"{number}b.png")
    assert "and 2 more" in run("check", path).stdout
    assert "11b.png repeats 11a.png" in run("check", path, "--full").stdout


def test_check_raises_what_the_command_line_explains(tmp_path: Path) -> None:
    assert isinstance(run("check", tmp_path / "none.csv").exception, DataError)
    assert run("check", clinic(tmp_path), "--unreadable-max", "1.5").exit_code == 2


def test_sheet_draws_images_of_every_split(tmp_path: Path) -> None:
    result = run("sheet", clinic(tmp_path), tmp_path / "sheet.png", "--images", "4")
    assert result.exit_code == 0, result.output
    with Pillow.open(tmp_path / "sheet.png") as drawn:
        assert drawn.width == 4 * 136
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 20)}
    assert {(214, 60, 60), (60, 150, 90), (130, 130, 130)} <= colours


def test_a_sheet_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    result = run("sheet", clinic(tmp_path), tmp_path / "no" / "sheet.png")
    assert isinstance(result.exception, StorageError)


# --- identifiers, columns, names: what misled in the field ----------------------------------------------------------


def respelt(folder: Path, spell: Callable[[str], str], *, women: int = 18, shots: int = 2, alter: int = 1) -> Path:
    """Write a collection whose identifiers are spelled otherwise from picture number `alter` of a woman on."""
    rows: list[Entry] = []
    for number in range(women):
        name, label = f"p{number:03}", ("1", "0", "")[number % 3]
        rows += [(f"{number}-{k}.png", spell(name) if k >= alter else name, label) for k in range(shots)]
    return manifest(folder, *rows)


def without_zeros(name: str) -> str:
    return f"P{int(name[1:])}"


def test_one_identifier_written_in_two_ways_is_one_woman_and_is_named(tmp_path: Path) -> None:
    collection = index(respelt(tmp_path, without_zeros))
    assert collection.spellings[1] == ("P1", "p001")
    assert len(collection.spellings) == len({image.woman for image in collection.images}) == 18
    for number in range(18):
        assert len({image.split for image in collection.images if image.path.startswith(f"{number}-")}) == 1
    assert collection.shared_pictures == ()
    output = run("check", tmp_path / "manifest.csv").stdout
    assert "36 patients, probably 18 women" in output
    assert "18 identifiers written in several ways" in output
    assert "P1 = p001" in output


def test_a_womans_own_pictures_are_not_taken_for_a_leak_because_her_identifier_is_written_in_two_ways(
    tmp_path: Path,
) -> None:
    """The same scene twice, once healthy and once not: her own photographs may be alike."""
    for name, seed in (("1.png", 1), ("2.png", 1)):
        photograph(tmp_path, name, seed)
    pixels = np.asarray(Pillow.open(tmp_path / "2.png")).copy()
    pixels[0, 0] ^= 1
    Pillow.fromarray(pixels).save(tmp_path / "2.png")
    collection = index(manifest(tmp_path, ("1.png", "p1", "0"), ("2.png", "P01", "1"), ("3.png", "B", "1")))
    assert collection.shared_pictures == collection.disputed == ()
    assert [(doubt.patient, doubt.why) for doubt in collection.doubts] == [
        ("P01", "has pictures labelled case and pictures labelled control")
    ]


def test_given_splits_that_cut_a_woman_who_is_written_in_two_ways_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"001 \(test\) and 1 \(train\)"):
        index(manifest(tmp_path, ("1.png", "001", "0", "test"), ("2.png", "1", "1", "train")))


def test_an_identifier_with_a_large_share_is_named(tmp_path: Path) -> None:
    rows = [(f"{k}.png", f"W{k}" if k % 2 else "rest", "") for k in range(24)]
    assert "rest holds 12 of 24 pictures" in run("check", manifest(tmp_path, *rows)).stdout


@pytest.mark.parametrize("rename", [without_zeros, lambda name: f"new-{name[::-1]}"], ids=["zeros", "pseudonyms"])
def test_women_who_were_all_renamed_keep_their_splits(tmp_path: Path, rename: Callable[[str], str]) -> None:
    splits = tmp_path / "splits.csv"
    path = respelt(tmp_path, rename, alter=2)
    before = {image.path: image.split for image in index(path, IndexSettings(splits_file=splits)).images}
    respelt(tmp_path, rename, alter=0)
    output = run("check", path, "--splits", splits).stdout
    assert (
        "18 of 18 patients of splits.csv are not in the manifest; 18 patients of the manifest were recognised" in output
    )
    assert f"{rename('p001')} was p001" in output
    again = index(path, IndexSettings(splits_file=splits))
    assert {image.path: image.split for image in again.images} == before
    assert len(again.recognised.renamed) == 18  # it is said again, whoever asked first
    assert splits.stat().st_mode & 0o077 == 0


def test_renamed_women_of_whom_no_pictures_were_kept_are_refused(tmp_path: Path) -> None:
    splits = tmp_path / "splits.csv"
    path = respelt(tmp_path, str, alter=2)
    index(path, IndexSettings(splits_file=splits))
    old = "".join(f"{patient},{one.split}\n" for patient, one in parse_splits(splits.read_text(), "splits.csv").items())
    splits.write_text(f"patient,split\n{old}")
    respelt(tmp_path, lambda name: f"new-{name[::-1]}", alter=0)
    with pytest.raises(DataError, match=r"18 of 18 patients of splits.csv are not in the manifest"):
        index(path, IndexSettings(splits_file=splits))
    assert splits.read_text() == f"patient,split\n{old}"


def test_a_training_says_first_what_should_be_known_of_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    respelt(tmp_path, without_zeros, alter=2)
    home = SiteHome(tmp_path / "home")
    create(home, manifest=tmp_path / "manifest.csv")
    open_images(home, Display(), Recipe())
    assert "splits.csv" not in capsys.readouterr().err
    respelt(tmp_path, without_zeros, alter=0)
    open_images(home, Display(), Recipe())
    assert "note: 18 of 18 patients of splits.csv are not in the manifest" in capsys.readouterr().err


def test_ignored_columns_are_listed_and_a_misnamed_one_stops(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    rows = [[*cells, extra, ""] for cells, extra in zip(lines, ["age", *["51"] * (len(lines) - 1)], strict=True)]
    path.write_text("\n".join(",".join(cells) for cells in rows) + "\n")
    output = run("check", path).stdout
    assert "1 column of the manifest not read\n  'age'" in output
    path.write_text(path.read_text().replace("image,patient,label", "image,patient,labels"))
    error = run("check", path).exception
    assert isinstance(error, DataError)
    assert "column 'labels' may be meant as 'label'" in error.what
    ignored = run("check", path, "--ignore-column", "labels")
    assert "2 columns of the manifest not read" in ignored.stdout
    assert "finetune: not possible" in ignored.stdout


def test_a_name_in_the_other_unicode_form_is_found_and_two_rows_of_one_file_are_refused(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    (tmp_path / "0a.png").rename(tmp_path / "\u00e4.png")
    text = path.read_text()
    path.write_text(text.replace("0a.png", "a\u0308.png", 1))
    collection = index(path)
    assert collection.images[0].path == "\u00e4.png"
    assert collection.quarantined == ()
    assert len(load(tmp_path, collection.images[:2], 16, "crop", tmp_path / "cache")) == 2
    path.write_text(text.replace("0a.png", "a\u0308.png", 1) + "\u00e4.png,case-0,\n")
    with pytest.raises(DataError, match=r"line 32: image 'ä.png' is already in line 2"):
        index(path)


def test_a_file_that_may_be_meant_by_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = clinic(tmp_path)
    (tmp_path / "0a.png").rename(tmp_path / "0A.PNG")
    with pytest.raises(DataError, match=r"0a.png: no such file; there is 0A.PNG"):
        index(path, IndexSettings(unreadable_max=0))
    assert "0a.png: no such file; there is 0A.PNG" in run("check", path).stdout


def test_one_validation_image_is_not_enough_to_pretrain(tmp_path: Path) -> None:
    rows = [(f"{k}.png", f"W{k}", "") for k in range(3)]
    collection = index(manifest(tmp_path, *rows))
    with pytest.raises(DataError, match=r"cannot be used to pretrain: only 1 image in valid \(2 needed\)"):
        require(collection, "pretrain")
    assert "pretrain: not possible" in run("check", tmp_path / "manifest.csv").stdout
    require(
        index(
            manifest(
                tmp_path,
                *rows,
                ("3.png", "W3", ""),
                ("4.png", "W4", ""),
                *[(f"{k}.png", f"W{k}", "") for k in range(5, 10)],
            )
        ),
        "pretrain",
    )


def test_a_sheet_replaces_no_file_unasked(tmp_path: Path) -> None:
    """A slip of the hand names the manifest, or a picture of a woman, as the file to write."""
    manifest = clinic(tmp_path)
    before = manifest.read_bytes()
    refused = run("sheet", manifest, manifest)
    assert isinstance(refused.exception, StorageError)
    assert manifest.read_bytes() == before
    (tmp_path / "sheet.png").touch()
    assert run("sheet", manifest, tmp_path / "sheet.png", "--force").exit_code == 0
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_a_folder_in_place_of_the_manifest_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read") as refused:
        index(tmp_path)
    assert refused.value.cause == "the path names a folder; the manifest is a file in it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_an_image_that_this_user_may_not_read_is_not_called_missing(tmp_path: Path) -> None:
    let_in(tmp_path)
    manifest = clinic(tmp_path)
    closed = next(path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg"))
    closed.chmod(0)
    (tmp_path / "closed.csv").touch(mode=0)
    os.seteuid(65_534)
    try:
        found = index(manifest, IndexSettings(unreadable_max=1))
        with pytest.raises(DataError) as refused:
            index(manifest, IndexSettings(unreadable_max=0))
        with pytest.raises(DataError) as unread:
            index(tmp_path / "closed.csv")
    finally:
        os.seteuid(0)
    assert [one.reason for one in found.quarantined] == ["this user has no permission to read it"]
    assert refused.value.next_step.startswith("let its owner make the files readable for user nobody")
    assert str(closed) in refused.value.next_step
    assert unread.value.next_step.startswith("let its owner make the files readable for user nobody")
