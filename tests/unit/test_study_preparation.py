"""What a study stands on: no woman crosses a split, at one site or at two; what looks alike is listed."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image as Pillow

from cervix_study.data.preparation import Ground, prepare
from cervix_study.execution.executors import Executor
from cervix_study.execution.progress_display import Screen
from cervix_study.execution.scheduler import Running
from cervix_study.records import CELLS_FOLDER, PREDICTIONS_FILE, STUDY_FILE, Prediction, predictions_text, write
from cervix_study.settings import read
from cervix_study.study_paths import Places
from fedcervix.errors import ConfigError, DataError, RunError
from site_agent.data.collection import Collection, IndexSettings, index

SITES = ("nhs", "alts")
STUDY = """\
name = "small"
[[sites]]
name = "nhs"
manifest = "nhs/manifest.csv"
[[sites]]
name = "alts"
manifest = "alts/manifest.csv"
[axes]
folds = {folds}
[data]
shared_identifiers = {shared}
"""
HYPOTHESIS = """[[hypotheses]]
name = "E1"
site = "nhs"
first = "ssl"
second = "random"
"""
NO_EXECUTOR, NO_SCREEN = cast(Executor, None), cast(Screen, None)
WOMEN = 12
SILENT = lambda _what, _done, _of: None  # noqa: E731


def picture(name: str, spoilt: float = 0.0) -> Pillow.Image:
    """Return a picture that `name` alone decides, and that is spoilt with noise."""
    rng = np.random.default_rng(list(name.encode()))
    coarse = rng.integers(0, 256, (16, 16, 3))
    noise = np.random.default_rng(1).normal(0, spoilt, (64, 64, 3)) if spoilt else 0
    pixels = np.clip(np.kron(coarse, np.ones((4, 4, 1))) + noise, 0, 255)
    return Pillow.fromarray(pixels.astype(np.uint8))


def collect(folder: Path, *, splits: dict[str, str] | None = None, names: str = "{site}-{number:02}") -> Path:
    """Write a site's collection of WOMEN women, two images each, a third of them cases, the last two unlabelled."""
    (folder / "images").mkdir(parents=True)
    rows = [["image", "patient", "label", "split"]]
    for number in range(WOMEN):
        patient = names.format(site=folder.name, number=number)
        label = "" if number >= WOMEN - 2 else str(int(number % 3 == 0))
        for shot in range(2):
            file = f"images/{patient}-{shot}.png"
            picture(f"{folder.name} {number} {shot}").save(folder / file)
            rows.append([file, patient, label, (splits or {}).get(patient, "train") if splits else ""])
    with (folder / "manifest.csv").open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return folder


def replace(folder: Path, image: str, by: Pillow.Image) -> None:
    by.save(folder / "images" / image)


@pytest.fixture
def ground(tmp_path: Path) -> Callable[..., Ground]:
    def make(folds: int = 0, *, shared: bool = False) -> Ground:
        file = tmp_path / "study.toml"
        file.write_text(STUDY.format(folds=folds, shared=str(shared).lower()))
        return prepare(read(file), Places(tmp_path / "out"), SILENT)

    return make


def found(tmp_path: Path, site: str, fold: int | None = None) -> Collection:
    home = Places(tmp_path / "out").home(site, fold)
    return index(home.manifest(), IndexSettings(splits_file=home.splits, cache_folder=home.cache))


def test_table_one_is_told_of_every_site(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    for site in SITES:
        collect(tmp_path / site)
    data = ground().data
    women = {site: sum(row.women for row in data.rows if row.site == site) for site in SITES}
    assert women == {"nhs": WOMEN, "alts": WOMEN}
    assert not [row for row in data.rows if row.split == "test" and row.stratum == "unlabelled"]
    assert data.shared == data.near_duplicates == ()


def test_nothing_changes_when_it_is_prepared_again(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    for site in SITES:
        collect(tmp_path / site)
    assert ground().lots == ground().lots


def test_colours_that_an_earlier_division_has_made_are_not_used(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    """A woman who trained then may be tested now."""
    for site in SITES:
        collect(tmp_path / site)
    ground(folds=3)
    colours = [Places(tmp_path / "out").home(site, fold).colours for site in SITES for fold in (0, 1, 2)]
    for file in colours:
        file.write_text("{}")
    ground(folds=3)
    assert not any(file.exists() for file in colours)


def test_a_woman_who_is_left_out_after_test_images_were_opened_is_told(tmp_path: Path) -> None:
    """The study's file says nothing of it: the digests of the sites' images do."""
    for site in SITES:
        collect(tmp_path / site)
    (file := tmp_path / "study.toml").write_text(STUDY.format(folds=0, shared="false") + HYPOTHESIS)
    places, late = Places(tmp_path / "out"), []
    (cell := places.folder / CELLS_FOLDER / "some").mkdir(parents=True)
    (cell / PREDICTIONS_FILE).write_bytes(predictions_text([Prediction("valid", "a", "p", 1, 0.5)]))
    for change in (lambda: None, lambda: None, lambda: leave_out(tmp_path / "nhs" / "manifest.csv")):
        change()
        asked = read(file)
        running = Running(asked, places, prepare(asked, places, SILENT), NO_EXECUTOR, NO_SCREEN)
        late.append((found := running._begun()).registered.after_opening)
        write(places.folder / STUDY_FILE, found)
        (cell / PREDICTIONS_FILE).write_bytes(predictions_text([Prediction("test", "a", "p", 1, 0.5)]))
    assert late == [False, False, True]


def leave_out(manifest: Path) -> None:
    """Drop the last labelled woman."""
    kept = [line for line in manifest.read_text().splitlines() if f"-{WOMEN - 3:02}" not in line]
    manifest.write_text("\n".join(kept) + "\n")


def test_one_picture_at_two_sites_keeps_its_women_together(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    """Whoever she is, the encoder that both sites share must not have seen her where she is tested."""
    for site in SITES:
        collect(tmp_path / site)
    for number in range(WOMEN - 2):
        replace(tmp_path / "alts", f"alts-{number:02}-0.png", picture(f"nhs {(number + 1) % 10} 0"))
    ground()
    splits = {site: {image.patient: image.split for image in found(tmp_path, site).images} for site in SITES}
    for number in range(WOMEN - 2):
        assert splits["alts"][f"alts-{number:02}"] == splits["nhs"][f"nhs-{(number + 1) % 10:02}"]


def given(site: str, order: str) -> dict[str, str]:
    """Return splits, one letter a woman."""
    names = {"t": "train", "v": "valid", "x": "test"}
    return {f"{site}-{number:02}": names[letter] for number, letter in enumerate(order)}


def test_given_splits_that_cut_one_woman_in_two_are_refused(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    collect(tmp_path / "nhs", splits=given("nhs", "ttttvvvxxxtt"))
    collect(tmp_path / "alts", splits=given("alts", "ttttvvvxxxtt"))
    ground()
    replace(tmp_path / "alts", "alts-08-1.png", picture("nhs 1 0"))
    with pytest.raises(DataError, match="women in two splits") as refused:
        ground()
    assert "nhs-01 of nhs (train)" in refused.value.what
    assert "alts-08 of alts (test)" in refused.value.what


def test_a_picture_saved_anew_at_the_other_site_counts_as_the_same(
    tmp_path: Path, ground: Callable[..., Ground]
) -> None:
    collect(tmp_path / "nhs", splits=given("nhs", "ttttvvvxxxtt"))
    collect(tmp_path / "alts", splits=given("alts", "ttttvvvxxxtt"))
    replace(tmp_path / "alts", "alts-08-1.png", picture("nhs 1 0", spoilt=20.0))
    with pytest.raises(DataError, match="women in two splits"):
        ground()


def test_what_is_only_alike_is_listed_for_a_person(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    for site in SITES:
        collect(tmp_path / site)
    replace(tmp_path / "alts", "alts-08-1.png", picture("nhs 1 0", spoilt=160.0))
    [pair] = ground().data.near_duplicates
    assert {pair.patients, pair.sites} == {("nhs-01", "alts-08"), ("nhs", "alts")}
    assert 0.85 <= pair.likeness < 0.96


def test_identifiers_are_each_site_s_own_unless_they_are_shared(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    collect(tmp_path / "nhs", names="P{number:02}")
    collect(tmp_path / "alts", names="P{number:02}")
    ground()
    before = {site: {i.patient: i.split for i in found(tmp_path, site).images} for site in SITES}
    ground(shared=True)
    after = {site: {i.patient: i.split for i in found(tmp_path, site).images} for site in SITES}
    assert after["nhs"] == after["alts"]
    assert {name for name, split in after["nhs"].items() if split == "test"} == {
        name for name in after["nhs"] if "test" in (before["nhs"][name], before["alts"][name])
    }


def test_women_whom_a_registry_names_may_be_written_in_two_ways(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    collect(tmp_path / "nhs", names="P{number:02}")
    collect(tmp_path / "alts", names="p-{number}")
    ground(shared=True)
    nhs, alts = ({i.patient: i.split for i in found(tmp_path, site).images} for site in SITES)
    assert list(nhs.values()) == list(alts.values())


def test_a_womans_two_identifiers_at_one_site_keep_those_of_another_together(
    tmp_path: Path, ground: Callable[..., Ground]
) -> None:
    """A of nhs is B of alts; B is written in another way as well, and that is C of nhs: all of them are one woman."""
    for site in SITES:
        collect(tmp_path / site)
    for number in range(0, WOMEN - 4, 2):
        replace(tmp_path / "alts", f"alts-{number:02}-0.png", picture(f"nhs {number} 0"))
        replace(tmp_path / "alts", f"alts-{number:02}-1.png", picture(f"nhs {number + 1} 0"))
    manifest = tmp_path / "alts" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    respelt = [line.replace(",alts-0", ",ALTS ") if "-1.png" in line else line for line in lines]
    manifest.write_text("\n".join(respelt) + "\n")
    [note] = [remark for remark in ground().remarks if "identifiers" in remark]
    assert note.startswith("alts: 10 identifiers written in several ways")
    assert "ALTS 0 = alts-00" in note
    nhs = {i.patient: i.split for i in found(tmp_path, "nhs").images}
    assert all(nhs[f"nhs-{number:02}"] == nhs[f"nhs-{number + 1:02}"] for number in range(0, WOMEN - 4, 2))


def test_folds_test_every_labelled_woman_once(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    for site in SITES:
        collect(tmp_path / site)
    made = ground(3)
    assert made.folds == (0, 1, 2)
    tested = [i.patient for fold in made.folds for i in found(tmp_path, "nhs", fold).images if i.split == "test"]
    assert sorted(tested) == sorted(2 * [f"nhs-{number:02}" for number in range(WOMEN - 2)])


def test_folds_do_not_divide_what_a_manifest_has_divided(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    for site in SITES:
        collect(tmp_path / site, splits=given(site, "ttttvvvxxxtt"))
    with pytest.raises(ConfigError, match="divides the women again"):
        ground(3)


def test_a_site_with_too_few_women_is_named(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    collect(tmp_path / "nhs")
    collect(tmp_path / "alts", splits=given("alts", "tttttttttttv"))
    with pytest.raises(DataError, match=r"site alts: .* cannot be used to finetune"):
        ground()


def test_one_run_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    places = Places(tmp_path)
    with places.locked(), pytest.raises(RunError, match="already running"), places.locked():
        pass


def test_a_site_of_a_study_declares_pairs_of_two_women(tmp_path: Path, ground: Callable[..., Ground]) -> None:
    replace(collect(tmp_path / "nhs"), "nhs-03-0.png", picture("nhs 5 1", spoilt=8))
    collect(tmp_path / "alts")
    assert [shared.patients for shared in ground().data.shared] == [("nhs-03", "nhs-05")]
    (tmp_path / "pairs.csv").write_text("image_a,image_b\nimages/nhs-03-0.png,images/nhs-05-1.png\n")
    file = tmp_path / "declared.toml"
    text = STUDY.format(folds=0, shared="false")
    file.write_text(text.replace('"nhs/manifest.csv"', '"nhs/manifest.csv"\nnot_same = "pairs.csv"'))
    assert prepare(read(file), Places(tmp_path / "declared"), SILENT).data.shared == ()


def with_devices(folder: Path, device_of: Callable[[int, int], str]) -> None:
    """Give a collection's pictures devices: of the woman's number, and which of her two pictures it is."""
    rows = list(csv.reader((folder / "manifest.csv").open(newline="")))
    told = [[*row, device_of(number // 2, number % 2)] for number, row in enumerate(rows[1:])]
    with (folder / "manifest.csv").open("w", newline="") as out:
        csv.writer(out).writerows([[*rows[0], "device"], *told])


def leaving_out(tmp_path: Path) -> Ground:
    file = tmp_path / "study.toml"
    text = STUDY.format(folds=0, shared="false")
    file.write_text(text.replace("folds = 0", 'folds = 0\nleave_out_devices = ["eva", "dslr"]'))
    return prepare(read(file), Places(tmp_path / "out"), SILENT)


def test_a_device_is_left_out_with_all_its_women(tmp_path: Path) -> None:
    for site in SITES:
        with_devices(collect(tmp_path / site), lambda woman, _: "eva" if woman < 6 else "dslr")
    assert leaving_out(tmp_path).folds == (0, 1)
    for site, (fold, device) in itertools.product(SITES, enumerate(("eva", "dslr"))):
        images = found(tmp_path, site, fold).images
        assert {image.device for image in images if image.split == "test"} == {device}
        assert device not in {image.device for image in images if image.split != "test"}


def test_a_woman_of_two_devices_cannot_be_left_out(tmp_path: Path) -> None:
    for site in SITES:
        with_devices(collect(tmp_path / site), lambda woman, shot: "eva" if woman < 6 and shot == 0 else "dslr")
    with pytest.raises(DataError, match="pictures of a left-out device and of others: alts-00 of alts"):
        leaving_out(tmp_path)


def test_a_woman_of_an_unknown_device_may_be_of_one_that_is_left_out(tmp_path: Path) -> None:
    for site in SITES:
        with_devices(collect(tmp_path / site), lambda woman, _: ["", "eva"][woman > 0] if woman < 6 else "dslr")
    with pytest.raises(DataError, match="pictures without a device: alts-00 of alts"):
        leaving_out(tmp_path)
