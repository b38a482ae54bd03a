"""What a study stands on: no woman crosses a split, at one site or at two; what looks alike is listed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from cervix_study.data.preparation import Ground, prepare
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
    [note] = ground().remarks
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
    with pytest.raises(ConfigError, match="folds divides the women again"):
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
