"""The phantom institutions: what a test or a demo may rely on, and what must not be easy about them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedcervix.errors import DataError, StorageError
from site_agent.cli import data_phantom as phantom
from site_agent.phantom import INSTITUTIONS, Protocol, write_institution
from site_agent.phantom.anatomy import Disease
from site_agent.phantom.collection import attendance, diagnose, woman_of
from site_agent.phantom.labels import MOSTLY_DENSITY, MOSTLY_EXTENT, Criterion
from site_agent.phantom.scene import LOOKS, X, Y, paint

NHS, ALTS = INSTITUTIONS["nhs"], INSTITUTIONS["alts"]


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def pixels(folder: Path, rows: list[dict[str, str]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / row["image"]).resize((32, 32))) for row in rows]).astype(float)


def shapes(images: np.ndarray) -> np.ndarray:
    """Return each image without what all share, without its own brightness and contrast: rows to correlate."""
    rows = (images - images.mean(axis=0)).reshape(len(images), -1)
    return (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each institution with 42 labelled women and 10 unlabelled visits."""
    folder = tmp_path_factory.mktemp("phantom")
    for name, institution in INSTITUTIONS.items():
        write_institution(folder / name, institution, women=42, seed=3, unlabelled_per_labelled=0.25)
    return {name: folder / name for name in INSTITUTIONS}


class TestAttendance:
    @pytest.mark.parametrize(
        ("name", "cases", "controls", "unlabelled_images"), [("nhs", 138, 276, 1872), ("alts", 189, 367, 3024)]
    )
    def test_at_the_papers_size_the_counts_are_those_of_table_1(self, name, cases, controls, unlabelled_images):
        visits = attendance(INSTITUTIONS[name], women=cases + controls, seed=0)

        labels = Counter(visit.label for visit in visits)
        # ALTS has 3025 unlabelled images: an odd number, one more than whole visits give
        assert labels == {True: cases, False: controls, None: unlabelled_images // 2}

    def test_at_any_size_the_shares_are_kept_and_a_labelled_woman_has_one_labelled_visit(self):
        visits = attendance(NHS, women=30, seed=5)

        labels = Counter(visit.label for visit in visits)
        assert labels == {True: 10, False: 20, None: 68}  # 30 x 936 / 414 = 67.8
        labelled = [visit.woman for visit in visits if visit.label is not None]
        assert len(set(labelled)) == len(labelled)
        assert len({(visit.woman, visit.visit) for visit in visits}) == len(visits)

    def test_unlabelled_visits_are_of_labelled_women_and_of_others(self):
        visits = attendance(NHS, women=40, seed=1)

        labelled = {visit.woman for visit in visits if visit.label is not None}
        unlabelled = [visit.woman for visit in visits if visit.label is None]
        returning = sum(woman in labelled for woman in unlabelled)
        assert returning == round(0.25 * len(unlabelled))
        assert max(Counter(woman for woman in unlabelled if woman not in labelled).values()) == 2

    def test_every_label_is_what_the_institutions_reviewer_says(self):
        for visit in attendance(ALTS, women=40, seed=2):
            if visit.label is not None:
                assert visit.label == diagnose(ALTS, ALTS.criterion, visit.woman, seed=2)

    def test_two_women_are_a_case_and_a_control(self):
        visits = attendance(NHS, women=2, seed=0, unlabelled_per_labelled=0)
        assert sorted(visit.label for visit in visits) == [False, True]

    def test_test_women_come_on_top_and_nothing_of_theirs_trains(self):
        before = attendance(NHS, women=30, seed=5)
        visits = attendance(NHS, women=30, seed=5, test_women=60)

        assert [dataclasses.replace(v, split=None) for v in visits if v.split != "test"] == before
        tested = [visit for visit in visits if visit.split == "test"]
        assert Counter(visit.label for visit in tested) == {True: 20, False: 40}
        assert not {visit.woman for visit in tested} & {visit.woman for visit in before}
        by_woman = {visit.woman: visit.split for visit in visits}
        assert all(by_woman[visit.woman] == visit.split for visit in visits)
        labelled = {visit.woman: visit.label for visit in before if visit.label is not None}
        cases = Counter(by_woman[woman] for woman, label in labelled.items() if label)
        assert cases == {"train": 8, "valid": 2}
        assert Counter(by_woman[woman] for woman in labelled) == {"train": 24, "valid": 6}

    def test_a_test_woman_alone_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 to test, and 6 to train and validate; found 1 and 10"):
            attendance(NHS, women=10, seed=0, test_women=1)

    @pytest.mark.parametrize(("women", "ratio"), [(1, 0.0), (10, -0.1)])
    def test_impossible_sizes_are_refused(self, women, ratio):
        with pytest.raises(ValueError, match="at least 2 women"):
            attendance(NHS, women=women, seed=0, unlabelled_per_labelled=ratio)


def test_a_manifest_with_test_women_gives_every_split(tmp_path):
    write_institution(tmp_path, ALTS, women=6, seed=1, unlabelled_per_labelled=1.5, test_women=4)
    rows = read(tmp_path)
    assert Counter(row["split"] for row in rows if row["label"]) == {"train": 8, "valid": 4, "test": 8}
    assert {row["split"] for row in rows if not row["label"]} == {"train", "valid"}


class TestCriteria:
    def test_density_and_extent_are_weighed_differently(self):
        small_but_dense = Disease(0.5, extent=0.2, density=0.9)
        wide_but_faint = Disease(0.5, extent=0.9, density=0.2)
        rng = np.random.default_rng(0)
        sure = {name: Criterion(density_weight=w, threshold=0.5, reviewer_deviation=0) for name, w in
                (("density", 0.8), ("extent", 0.2))}  # fmt: skip
        # .8 x .9 + .2 x .2 = .76 and .8 x .2 + .2 x .9 = .34
        assert sure["density"].is_case(small_but_dense, rng)
        assert not sure["density"].is_case(wide_but_faint, rng)
        assert not sure["extent"].is_case(small_but_dense, rng)
        assert sure["extent"].is_case(wide_but_faint, rng)

    def test_on_the_same_women_they_agree_mostly_but_not_always(self):
        ours, theirs = (
            np.array([diagnose(NHS, criterion, number, seed=0) for number in range(1, 801)])
            for criterion in (MOSTLY_DENSITY, MOSTLY_EXTENT)
        )
        assert 0.03 < np.mean(ours != theirs) < 0.20
        assert np.corrcoef(ours, theirs)[0, 1] > 0.6

    @pytest.mark.parametrize("institution", [NHS, ALTS], ids=lambda one: one.name)
    def test_severity_explains_the_label_well_but_not_wholly(self, institution):
        severity = [woman_of(institution, number, seed=0).disease.severity for number in range(1, 801)]
        label = [diagnose(institution, institution.criterion, number, seed=0) for number in range(1, 801)]
        assert 0.88 < roc_auc_score(label, severity) < 0.99
        assert 0.25 < np.mean(label) < 0.42  # so that few women are passed over to fill Table I's third

    def test_values_out_of_range_cannot_be_built(self):
        with pytest.raises(ValueError, match="0 to 1"):
            Disease(0.5, extent=1.1, density=0.2)
        with pytest.raises(ValueError, match="density_weight"):
            Criterion(density_weight=1.5, threshold=0.5, reviewer_deviation=0)


class TestFolder:
    def test_equal_arguments_give_equal_bytes_and_another_seed_others(self, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            write_institution(tmp_path / name, NHS, women=4, seed=seed, unlabelled_per_labelled=0.5)
        assert digest(tmp_path / "a") == digest(tmp_path / "b")
        assert digest(tmp_path / "a") != digest(tmp_path / "c")

    def test_a_woman_looks_the_same_however_large_the_collection_is(self, tmp_path):
        write_institution(tmp_path / "small", ALTS, women=3, seed=1, unlabelled_per_labelled=0)
        write_institution(tmp_path / "large", ALTS, women=9, seed=1, unlabelled_per_labelled=0)
        small = {path.name: path.read_bytes() for path in (tmp_path / "small" / "images").iterdir()}
        large = {path.name: path.read_bytes() for path in (tmp_path / "large" / "images").iterdir()}
        shared = small.keys() & large.keys()
        assert shared
        assert all(small[name] == large[name] for name in shared)

    def test_the_manifest_lists_every_image_two_per_visit_with_partial_labels(self, sites):
        for name, folder in sites.items():
            rows = read(folder)
            assert {row["image"] for row in rows} == {f"images/{path.name}" for path in (folder / "images").iterdir()}
            assert Counter(row["label"] for row in rows) == {"1": 28, "0": 56, "": 20}
            visits = Counter(row["image"].rsplit("-", 1)[0] for row in rows)
            assert set(visits.values()) == {2}
            assert all(row["patient"].startswith(f"{name}-") for row in rows)

    def test_the_file_name_says_nothing_about_the_label(self, sites):
        rows = [row for row in read(sites["nhs"]) if row["label"]]
        number = [int(row["patient"].split("-")[1]) for row in rows]
        assert abs(roc_auc_score([row["label"] == "1" for row in rows], number) - 0.5) < 0.15

    def test_two_images_of_a_visit_are_alike_but_never_equal(self, sites):
        rows = read(sites["nhs"])
        images = pixels(sites["nhs"], rows)
        first, second = (shapes(images[start::2]) for start in (0, 1))
        of_one_visit = (first * second).mean(axis=1)
        of_two_women = (first * np.roll(second, 7, axis=0)).mean(axis=1)
        assert of_one_visit.max() < 0.999
        assert of_one_visit.mean() > of_two_women.mean() + 0.2

    def test_progress_counts_up_to_all_images(self, tmp_path):
        seen: list[tuple[int, int]] = []
        write_institution(
            tmp_path / "site", NHS, women=2, seed=0, unlabelled_per_labelled=0.5,
            on_progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
        assert seen == [(2, 6), (4, 6), (6, 6)]

    def test_a_folder_that_holds_anything_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("ten years of work")
        with pytest.raises(DataError, match="not an empty folder"):
            write_institution(tmp_path, NHS, women=2, seed=0)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_folder_that_cannot_be_made_is_a_storage_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            write_institution(tmp_path / "file" / "site", NHS, women=2, seed=0)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, and two devices."""
    folder = tmp_path_factory.mktemp("staged") / "site"
    protocol = Protocol(stages=tuple(LOOKS), devices=2)
    write_institution(folder, NHS, women=3, seed=6, unlabelled_per_labelled=0.7, protocol=protocol)
    return folder


class TestProtocol:
    """Stages, visits and devices: a truth that is drawn where it is asked for, and that no picture shows else."""

    def test_every_row_says_stage_visit_and_device_and_every_visit_has_all_stages_and_one_device(self, staged):
        rows = read(staged)
        assert list(rows[0]) == ["image", "patient", "label", "stage", "visit", "device"]
        visits: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in rows:
            visits.setdefault((row["patient"], row["visit"]), []).append(row)
        assert len(visits) == 5
        assert len({row["patient"] for row in rows}) == 4  # one comes twice
        for hers in visits.values():
            assert Counter(row["stage"] for row in hers) == dict.fromkeys(LOOKS, 2)
            assert len({row["device"] for row in hers}) == len({row["label"] for row in hers}) == 1
        assert {row["device"] for row in rows} == {"1", "2"}
        assert {f"images/{path.name}" for path in (staged / "images").iterdir()} == {row["image"] for row in rows}

    def test_a_picture_after_acetic_acid_of_the_first_device_is_the_one_that_is_drawn_without_a_protocol(
        self, staged, tmp_path
    ):
        write_institution(tmp_path / "plain", NHS, women=3, seed=6, unlabelled_per_labelled=0.7)
        assert list(read(tmp_path / "plain")[0]) == ["image", "patient", "label"]
        first = [row for row in read(staged) if row["device"] == "1" and row["stage"] == "acetic"]
        assert first
        for row in first:
            plain = tmp_path / "plain" / row["image"].replace("acetic-", "")
            assert plain.read_bytes() == (staged / row["image"]).read_bytes()

    def test_the_devices_differ_in_colour_and_not_in_whom_they_see(self, staged):
        rows = [row for row in read(staged) if row["stage"] == "native"]
        colour = pixels(staged, rows).mean(axis=(1, 2))
        warmth = colour[:, 0] / colour[:, 2]
        device = np.array([row["device"] == "2" for row in rows])
        assert roc_auc_score(device, -warmth) > 0.9

    def test_acetic_acid_whitens_the_diseased_and_leaves_the_healthy(self):
        women = [woman_of(NHS, number, seed=0) for number in range(1, 60)]
        sick = max(women, key=lambda woman: woman.disease.extent + woman.disease.density)
        healthy = dataclasses.replace(sick, disease=Disease(0, 0, 0), metaplasia=0.0)

        def whitened(woman):
            before, after = (
                paint(woman, 1, stage)[1] for stage in ("native", "acetic")
            )  # green: what red tissue lacks
            return float((after - before > 20).mean())

        assert whitened(sick) > 0.02
        assert whitened(healthy) == 0

    def test_iodine_stains_what_is_healthy_and_spares_the_lesion_and_green_light_has_no_colour(self):
        women = [woman_of(NHS, number, seed=0) for number in range(1, 60)]
        sick = max(women, key=lambda woman: woman.disease.extent + woman.disease.density)
        native, acetic, iodine, green = (paint(sick, 1, stage) for stage in ("native", "acetic", "iodine", "green"))
        lesion = acetic[1] - native[1] > 40
        assert np.median(native[1][lesion] - iodine[1][lesion]) < 10
        healthy = (acetic[1] - native[1] < 2) & (np.hypot(X, Y) < 0.8)
        assert (native - iodine).mean(axis=0)[healthy].mean() > 15
        assert np.allclose(green[0] / green[1], green[0, 0, 0] / green[1, 0, 0], atol=1e-5)

    def test_what_cannot_be_drawn_is_refused(self):
        for wrong in ({"stages": ()}, {"stages": ("other",)}, {"stages": ("native", "native")}, {"devices": 3}):
            with pytest.raises(ValueError, match=r"stages are some of native, acetic|devices is 1 or 2"):
                Protocol(**wrong)


class TestPictures:
    def test_the_institutions_differ_in_size_and_colour(self, sites):
        size = {name: Image.open(next((folder / "images").iterdir())).size for name, folder in sites.items()}
        assert size == {"nhs": (384, 288), "alts": (320, 320)}
        colour = {name: pixels(folder, read(folder)).mean(axis=(1, 2)) for name, folder in sites.items()}
        warmth = {name: rows[:, 0] / rows[:, 2] for name, rows in colour.items()}  # red over blue, per image
        told_apart = roc_auc_score(
            [1] * len(warmth["nhs"]) + [0] * len(warmth["alts"]), [*warmth["nhs"], *warmth["alts"]]
        )
        assert told_apart > 0.8  # a warm film camera, a cool digital one

    @pytest.mark.parametrize("name", ["nhs", "alts"])
    def test_mean_colour_does_not_give_the_label_away(self, sites, name):
        rows = [row for row in read(sites[name]) if row["label"]]
        colour = pixels(sites[name], rows).mean(axis=(1, 2))
        label = np.array([row["label"] == "1" for row in rows])
        women = [row["patient"] for row in rows]
        model = make_pipeline(StandardScaler(), LogisticRegression())
        score = cross_val_predict(model, colour, label, groups=women, cv=GroupKFold(5), method="predict_proba")
        assert roc_auc_score(label, score[:, 1]) < 0.75


class TestCommand:
    def test_it_says_in_one_line_what_was_written_and_what_is_next(self, tmp_path):
        folder = tmp_path / "site"
        asked = [str(folder), "--institution", "nhs", "--women", "2", "--seed", "1", "--unlabelled-per-labelled", "0"]
        result = CliRunner().invoke(phantom, asked)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [
            f"wrote 4 images and {folder}/manifest.csv: phantom nhs, 2 labelled women, seed 1",
            f"  next: site-agent data check {folder}/manifest.csv",
        ]
        assert result.stderr.splitlines()[-1] == "drawing images: 4 of 4"

    def test_an_occupied_folder_is_refused(self, tmp_path):
        (tmp_path / "something").write_text("")
        result = CliRunner().invoke(phantom, [str(tmp_path), "--institution", "alts", "--women", "2"])
        assert isinstance(result.exception, DataError)

    def test_a_stage_or_a_second_device_brings_the_columns_that_say_so(self, tmp_path):
        asked = ["--institution", "alts", "--women", "2", "--unlabelled-per-labelled", "0", "--stage"]
        result = CliRunner().invoke(phantom, [str(tmp_path / "site"), *asked, "iodine", "--stage", "native"])
        assert result.stdout.startswith("wrote 8 images")
        assert Counter(row["stage"] for row in read(tmp_path / "site")) == {"iodine": 4, "native": 4}
        assert CliRunner().invoke(phantom, [str(tmp_path / "other"), *asked, "other"]).exit_code == 2

    def test_test_women_are_counted_apart_and_one_alone_is_refused(self, tmp_path):
        asked = ["--institution", "nhs", "--women", "6", "--unlabelled-per-labelled", "0", "--test-women"]
        result = CliRunner().invoke(phantom, [str(tmp_path / "site"), *asked, "2"])
        assert "6 labelled women and 2 to test, seed 0" in result.stdout
        result = CliRunner().invoke(phantom, [str(tmp_path / "other"), *asked, "1"])
        assert result.exit_code == 2
        assert "too few women: at least 2 to test, and 6 to train and validate; found 1 and 6" in result.stderr
        assert not (tmp_path / "other").exists()
