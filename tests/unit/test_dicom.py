"""`site-agent data import-dicom`: each file is imported or counted, with the right pixels and nothing of a patient."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import JPEG2000, MPEG4HP41, RLELossless

from fedcervix.errors import ConfigError, FedcervixError
from site_agent.cli import cli
from site_agent.dicom.chosen_frames import FrameChoice
from site_agent.dicom.frame_process import CRASHED, TOO_LONG, FrameProcess
from site_agent.dicom.frames import frame
from site_agent.dicom.headers import RefusedError, read_header
from site_agent.dicom.importing import CHOSEN, MANIFEST, Wanted, bring
from site_agent.dicom.pseudonyms import Pseudonyms
from site_agent.dicom.quiet import quiet
from site_agent.dicom.refusals import BURNED_IN, NO_PATIENT, PHOTOGRAPHS
from site_agent.dicom.stage_words import named_stage
from site_agent.manifest.manifest_file import read_manifest
from tests.unit.dicoms import SIDE, dataset, jpeg, jpeg_bytes, pattern, write

NAMES = Pseudonyms(b"k" * 32)
MODALITIES = ("CT", "MR", "OT", "RTDOSE", "SC", "US", "ES")


def wanted(folder: Path, to: Path, frames: str = "sharpest:1", **options: object) -> Wanted:
    known = {"modalities": frozenset(PHOTOGRAPHS), **options}
    return Wanted(folder=folder, to=to, frames=FrameChoice(frames), **known)  # type: ignore[arg-type]


def run(tmp_path: Path, *words: str) -> str:
    found = CliRunner().invoke(cli, ["--home", str(tmp_path / "home"), "data", "import-dicom", *words])
    assert found.exception is None or isinstance(found.exception, SystemExit | FedcervixError), found.output
    return found.output + str(found.exception or "")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- pixels -----------------------------------------------------------------------------------------------------------

RGB = pattern()
GREY = RGB[..., 0]
AS_GREY = np.repeat(GREY[..., None], 3, axis=2)


def ybr() -> Dataset:
    return dataset(convert_color_space(RGB, "RGB", "YBR_FULL").astype(np.uint8), PhotometricInterpretation="YBR_FULL")


def planes() -> Dataset:
    made = dataset(RGB, PlanarConfiguration=1)
    made.PixelData = RGB.transpose(2, 0, 1).tobytes()
    return made


def palette(bits: int) -> Dataset:
    made = dataset(GREY, PhotometricInterpretation="PALETTE COLOR")
    entries = np.arange(256).astype(np.uint16) << (bits - 8)
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(made, f"{colour}PaletteColorLookupTableData", entries.astype(f"<u{bits // 8}").tobytes())
    return made


def compressed(syntax: str) -> Dataset:
    made = dataset(RGB)
    made.compress(syntax)
    return made


KINDS: dict[str, tuple[Callable[[], Dataset], np.ndarray]] = {
    "rgb": (lambda: dataset(RGB), RGB),
    "planes": (planes, RGB),
    "ybr": (ybr, RGB),
    "jpeg": (lambda: jpeg(RGB), np.asarray(Image.open(io.BytesIO(jpeg_bytes(RGB))))),
    "rle": (lambda: compressed(RLELossless), RGB),
    "palette-8": (lambda: palette(8), AS_GREY),
    "palette-16": (lambda: palette(16), AS_GREY),
    "grey": (lambda: dataset(GREY), AS_GREY),
    "white-is-zero": (lambda: dataset(255 - GREY, PhotometricInterpretation="MONOCHROME1"), AS_GREY),
    "12-bit": (lambda: dataset(GREY.astype(np.uint16) << 4, BitsStored=12, HighBit=11), AS_GREY),
    "16-bit-colour": (lambda: dataset(RGB.astype(np.uint16) << 8), RGB),
    "signed": (
        lambda: dataset((GREY.astype(np.int16) - 128) << 8, PixelRepresentation=1, BitsStored=16, HighBit=15),
        AS_GREY,
    ),
    "window": (
        lambda: dataset(
            GREY.astype(np.uint16) + 1000,
            WindowCenter="128",
            WindowWidth="256",
            RescaleIntercept="-1000",
            RescaleSlope="1",
        ),
        AS_GREY,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_pattern_comes_back_within_two_levels(tmp_path: Path, kind: str) -> None:
    make, expected = KINDS[kind]
    found = frame(write(tmp_path, "a.dcm", make()), 0)
    assert (found.dtype, found.shape) == (np.uint8, (SIDE, SIDE, 3))
    assert np.abs(found.astype(int) - expected).max() <= 2


# --- every file is imported or counted --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pydicom brings."""
    folder = tmp_path_factory.mktemp("bundle")
    for number, file in enumerate(sorted(filter(os.path.isfile, get_testdata_files()))):
        (folder / f"{number:03d}-{Path(file).name}").write_bytes(Path(file).read_bytes())
    return folder


def values(folder: Path) -> set[str]:
    """Return what could tell who the patients of these files are."""
    found = set()
    for file in folder.iterdir():
        with quiet():
            try:
                header = dcmread(file, stop_before_pixels=True, force=True)
                found |= {str(header.get(name, "")) for name in ("PatientName", "PatientID", "AccessionNumber")}
            except Exception:  # noqa: BLE001  (some of these files are broken on purpose)
                continue
    return {value for value in found if len(re.findall(r"\w", value)) > 3}


def test_each_file_of_pydicom_is_imported_or_counted_and_nothing_of_its_header_is_seen(
    tmp_path: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    modalities = [word for one in MODALITIES for word in ("--modality", one)]
    output = run(tmp_path, str(bundle), "--out", str(tmp_path / "out"), *modalities)
    counted = sum(int(found.replace(",", "")) for found in re.findall(r"not imported: ([\d,]+) files", output))
    rows = list(csv.DictReader((tmp_path / "out" / MANIFEST).open()))
    assert len(rows) > 30
    assert counted + len(rows) == len(list(bundle.iterdir()))
    everything = output + str(contents(tmp_path / "out")) + "".join(capfd.readouterr())
    assert not [value for value in values(bundle) if value in everything]
    assert {row.image for row in read_manifest(tmp_path / "out" / MANIFEST).rows} == {row["image"] for row in rows}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PatientID": None}, NO_PATIENT),
        ({"PatientID": "Anonymous"}, NO_PATIENT),
        ({"BurnedInAnnotation": "YES"}, BURNED_IN),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing, or is none that is read"),
        ({"Modality": "MR"}, "not a photograph, by its Modality"),
        ({"Rows": 0}, "no picture: no rows, or no columns"),
        ({"SOPInstanceUID": ""}, "no SOPInstanceUID"),
        ({"PixelData": b"\0\0"}, "damaged pixels, or compressed in a way that is not read"),
        ({"PixelData": None}, "no pixels, or no description of them"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_imported_is_counted_with_its_reason(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    made = dataset(RGB, **change)
    write(tmp_path / "in", "a.dcm", made)
    found = bring(wanted(tmp_path / "in", tmp_path / "out"), NAMES)
    assert (found.rows, found.refused) == ((), {reason: (1,)})


def test_films_deflated_files_lists_and_other_files_are_counted(tmp_path: Path) -> None:
    made = dataset(RGB)
    for syntax in (MPEG4HP41, "1.2.840.10008.1.2.1.99", JPEG2000):
        made.file_meta.TransferSyntaxUID = syntax
        raw = write(tmp_path / "in", f"{syntax}.dcm", dataset(RGB))
        raw.write_bytes(raw.read_bytes().replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0")[:20]))
    (tmp_path / "in" / "notes.txt").write_text("Ms Jane Roe")
    (tmp_path / "in" / "link.dcm").symlink_to(tmp_path / "in" / "notes.txt")
    found = bring(wanted(tmp_path / "in", tmp_path / "out"), NAMES)
    assert found.files == 4
    assert not found.rows
    assert sum(map(len, found.refused.values())) == 4


def test_of_a_refused_file_no_picture_stays_for_another_one_with_its_number(tmp_path: Path) -> None:
    """The first frame of the one and the second frame of the other would be one woman's."""
    cut = dataset(np.stack([pattern(5), pattern(6)]))
    cut.PixelData = cut.PixelData[: cut.Rows * cut.Columns * 3 + 2]
    with quiet():
        write(tmp_path / "in", "a.dcm", cut)
    write(tmp_path / "in", "b.dcm", dataset(np.stack([RGB, RGB]), PatientID="P-2"))
    for _ in ("made", "again"):
        found = bring(wanted(tmp_path / "in", tmp_path / "out", frames="all"), NAMES)
        assert list(found.refused.values()) == [(1,)]
        pictures = [np.asarray(Image.open(tmp_path / "out" / row.image)) for row in found.rows]
        assert [np.array_equal(picture, RGB) for picture in pictures] == [True, True]


def test_a_devices_name_is_never_calculated_by_a_spreadsheet(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.dcm", dataset(RGB, ManufacturerModelName='=HYPERLINK("http://x")'))
    [row] = bring(wanted(tmp_path / "in", tmp_path / "out"), NAMES).rows
    assert row.device == 'HYPERLINK("http://x")'


def test_a_number_of_frames_that_is_no_number_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.dcm", dataset(np.stack([RGB, RGB]), NumberOfFrames=22))
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x0022", b"IS\x02\x00xx"))
    assert read_header(path).frames is None
    assert "NumberOfFrames is no number of frames" in bring(wanted(tmp_path / "in", tmp_path / "out"), NAMES).refused


# --- nothing of a patient ---------------------------------------------------------------------------------------------

CANARY = "CANARY7731"


def test_a_name_in_any_place_appears_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    of_hers = {"PatientID": CANARY, "PatientName": f"{CANARY}^Jane", "AccessionNumber": CANARY, "StudyDate": CANARY}
    of_hers |= {"StudyID": CANARY, "InstitutionName": CANARY, "OtherPatientIDs": CANARY, "ContentTime": CANARY}
    with quiet():
        write(folder / CANARY, f"{CANARY}.dcm", dataset(RGB, instance="1.2.1", StudyDescription=CANARY, **of_hers))
        write(folder, f"{CANARY}-2.dcm", dataset(RGB, instance="1.2.2", BurnedInAnnotation="YES", **of_hers))
        write(folder, f"{CANARY}-3.dcm", dataset(RGB, instance="1.2.3", **{**of_hers, "PatientID": None}))
        write(folder, f"{CANARY}-4.dcm", dataset(RGB, instance="1.2.4", PixelData=b"\0\0", **of_hers))
    labels = tmp_path / "labels.csv"
    labels.write_text(f"AccessionNumber,label\n{CANARY},1\n")
    output = run(tmp_path, str(folder), "--out", str(tmp_path / "out"), "--labels", str(labels))
    assert "1 pictures of 1 women in 1 visits" in output
    everything = output + str(contents(tmp_path / "out")) + "".join(capfd.readouterr())
    assert CANARY not in everything.replace(str(tmp_path), "")
    [row] = csv.DictReader((tmp_path / "out" / MANIFEST).open())
    assert row["label"] == "1"


def test_a_woman_has_one_name_in_every_import_and_another_one_at_another_site(tmp_path: Path) -> None:
    for at, patient in enumerate(("P-1", "p01 ", "P-2")):
        write(tmp_path / "in", f"{at}.dcm", dataset(RGB, instance=f"1.2.{at + 1}", PatientID=patient))
    write(tmp_path / "in", "3.dcm", dataset(RGB, instance="1.2.9", IssuerOfPatientID="elsewhere"))
    here = [bring(wanted(tmp_path / "in", tmp_path / name), NAMES).rows for name in ("a", "b")]
    there = bring(wanted(tmp_path / "in", tmp_path / "c"), Pseudonyms(b"o" * 32)).rows
    assert here[0] == here[1]
    assert len({row.patient for row in here[0]}) == 3
    assert not {row.patient for row in here[0]} & {row.patient for row in there}
    assert len({row.visit for row in here[0]}) == 1


def test_a_number_with_an_issuer_in_some_files_alone_is_told(tmp_path: Path) -> None:
    """She would be two women, one of them perhaps in training and the other in the test."""
    for at, issuer in enumerate(("", "here", "")):
        made = dataset(RGB, instance=f"1.2.{at + 1}", PatientID="P-1" if at < 2 else "P-2", IssuerOfPatientID=issuer)
        write(tmp_path / "in", f"{at}.dcm", made)
    assert "1 PatientIDs have several issuers" in run(tmp_path, str(tmp_path / "in"), "--out", str(tmp_path / "out"))


# --- again ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cines(tmp_path: Path) -> Path:
    for at in range(4):
        frames = np.stack([pattern(seed) for seed in range(at + 1)])
        frames[at // 2][::2] //= 2  # this frame is the sharpest
        write(tmp_path / "in", f"{at}.dcm", dataset(frames, instance=f"1.2.{at + 1}"))
    return tmp_path / "in"


class Killed(BaseException):
    """In place of `kill -9`."""


@pytest.mark.parametrize("after", [1, 2, 4])
def test_killed_at_any_file_and_begun_again_it_ends_with_the_same_files(
    cines: Path, tmp_path: Path, after: int
) -> None:
    bring(wanted(cines, tmp_path / "whole"), NAMES)

    def kill(done: int, _: int) -> None:
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        bring(wanted(cines, tmp_path / "killed"), NAMES, kill)
    with (tmp_path / "killed" / CHOSEN).open("a") as chosen:
        chosen.write('{"picture": "cut o')
    cut = contents(tmp_path / "killed")
    bring(wanted(cines, tmp_path / "killed"), NAMES)
    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert {name: data for name, data in again.items() if name != CHOSEN} == {
        name: data for name, data in whole.items() if name != CHOSEN
    }
    assert all(again[name].startswith(data) for name, data in cut.items() if name == CHOSEN)


def test_a_folder_of_another_import_is_left_alone(cines: Path, tmp_path: Path) -> None:
    bring(wanted(cines, tmp_path / "out"), NAMES)
    before = contents(tmp_path / "out")
    for other in (wanted(cines, tmp_path / "out", "all"), wanted(cines, tmp_path / "out", side_max_px=20)):
        with pytest.raises(ConfigError, match="an import with another"):
            bring(other, NAMES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / MANIFEST).write_text("mine")
    with pytest.raises(ConfigError, match="no import has made"):
        bring(wanted(cines, tmp_path / "mine"), NAMES)
    assert contents(tmp_path / "out") == before
    assert (tmp_path / "mine" / MANIFEST).read_text() == "mine"


# --- choices ----------------------------------------------------------------------------------------------------------


def test_the_sharpest_frame_is_chosen_and_pictures_are_made_smaller(cines: Path, tmp_path: Path) -> None:
    found = bring(wanted(cines, tmp_path / "out", side_max_px=20), NAMES)
    assert sorted(int(row.image[-9:-4]) for row in found.rows) == [0, 0, 1, 1]
    assert {Image.open(tmp_path / "out" / row.image).size for row in found.rows} == {(20, 20)}


@pytest.mark.parametrize(
    ("text", "frames", "chosen"),
    [
        ("all", 3, (0, 1, 2)),
        ("every:2", 5, (0, 2, 4)),
        ("sharpest:1", 3, (1,)),
        ("sharpest:2", 4, (1, 3)),
        ("sharpest:9", 2, (0, 1)),
    ],
    ids=["all", "every-2", "sharpest-1", "sharpest-2", "sharpest-9"],
)
def test_frames_are_chosen(text: str, frames: int, chosen: tuple[int, ...]) -> None:
    assert FrameChoice(text).of(frames, lambda index: index % 2) == chosen


@pytest.mark.parametrize("text", ["", "sharpest", "every:0", "all:1", "first:1"])
def test_another_choice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "in").mkdir()
    assert "a choice of frames is all, every:N or sharpest:N" in run(
        tmp_path, str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--frames", text
    )


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("Cervix after 5% acetic acid", "acetic"),
        ("Essigsäure 5 %", "acetic"),
        ("Lugol / Schiller", "iodine"),
        ("filtro verde", "green"),
        ("saline", "native"),
        ("green filter after acetic acid", ""),
        ("cervix", ""),
        ("cervical visit 1", ""),
        ("before acetic acid", ""),
        ("vor Essigsäure", ""),
        ("sin ácido acético", ""),
        ("pre-acetic", ""),
        ("no acetic acid", ""),
        ("pre-AA", "native"),
        ("acetic acid no 3", "acetic"),
    ],
    ids=range(15),
)
def test_texts_that_name_one_stage_give_it(text: str, stage: str) -> None:
    assert named_stage([text]) == stage


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("AccessionNumber;label\nA1;1\nA1;0\n", "line 3: an earlier line gives the same AccessionNumber another label"),
        ("PatientID,label\nA1,1\n", "has no column 'AccessionNumber'"),
    ],
    ids=["two-labels", "other-key"],
)
def test_a_table_of_labels_that_cannot_be_right_is_refused(tmp_path: Path, table: str, words: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "labels.csv").write_text(table)
    output = run(
        tmp_path, str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--labels", str(tmp_path / "labels.csv")
    )
    assert words in output
    assert "A1" not in output


# --- hostile files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[FrameProcess]:
    with FrameProcess(frame_s=60) as made:
        yield made


def test_a_crash_costs_one_frame(tmp_path: Path, process: FrameProcess) -> None:
    path = write(tmp_path, "a.dcm", dataset(RGB))
    sharp = process.sharpness(path, 0)
    assert process._child is not None
    assert 0 < process.peak_bytes() < 500 << 20
    os.kill(process._child.pid, signal.SIGKILL)
    process._child.wait()
    with pytest.raises(RefusedError, match=CRASHED):
        process.sharpness(path, 0)
    assert process.sharpness(path, 0) == sharp


def test_a_frame_that_never_ends_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    with FrameProcess(frame_s=0.1) as process, pytest.raises(RefusedError, match=TOO_LONG):
        process.sharpness(tmp_path / "never", 0)
