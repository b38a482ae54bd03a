"""A whole phantom institution, written to a folder: `images/*.jpg` and `manifest.csv` (image, patient, label).

Table I, per institution (women and images of the train, validation and test splits; "all" of train and validation):

            labelled women      cases  labelled images,     all images,
                                       train + valid        train + valid
    NHS     272 + 67 + 75 = 414   138  543 + 134 =  677     2029 + 520 = 2549
    ALTS    366 + 91 + 99 = 556   189  729 + 182 =  911     3145 + 791 = 3936

So NHS has 2549 - 677 = 1872 unlabelled images; at two a visit (section III-A) that is 936 visits, or 936 / 414 = 2.261
unlabelled visits per labelled woman. ALTS has 3025 images, 1512.5 visits, 2.720 per labelled woman. The paper does
not say whose visits they are. Here a quarter are further visits of labelled women, the others are visits of women
without any label, some of whom come twice.

Cases and controls are filled to Table I's numbers, as in a case-control study: women are examined in turn, and one
whose group is full already stays unlabelled.

A drawn collection can have more test women than Table I (`test_women`): 75 and 99 leave a difference of AUC uncertain
by a tenth, and drawing costs no training. They are further women, labelled and tested, with nothing trained on them;
the manifest then gives the splits, and four fifths of the others train, as in Table I.

What the paper does not have, a collection can have too (`Protocol`): pictures at several stages of the examination, and
two devices that differ in colour. The manifest then says the stage, visit and device of every picture.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedcervix.core.grouped import grouped
from fedcervix.core.plan import Stage
from fedcervix.core.seeds import derive
from fedcervix.errors import DataError, StorageError
from site_agent.manifest.reading import Split
from site_agent.manifest.splits import stratum
from site_agent.phantom.anatomy import Woman, draw_woman
from site_agent.phantom.camera import CERVIGRAPH, COLPOSCOPE, Camera, photograph, second
from site_agent.phantom.labels import MOSTLY_DENSITY, MOSTLY_EXTENT, Criterion
from site_agent.phantom.noise import generator
from site_agent.phantom.scene import LOOKS, paint

IMAGES_PER_VISIT = 2
"""section III-A: "in every visit, two images of the acetic acid applied cervix are captured" """
RETURNING_SHARE = 0.25
"""of the unlabelled visits: further visits of labelled women"""
SECOND_VISIT_CHANCE = 0.3
"""that an unlabelled woman comes twice"""
ONE_VALIDATES_OF = 5
"""women of a stratum, where the manifest gives the splits"""
WOMEN_TO_DIVIDE_MIN = 6
"""so that two are cases, of whom one validates"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Institution:
    """A device, a label criterion, and the counts that Table I prints (or follow from it, see above)."""

    name: str
    camera: Camera
    criterion: Criterion
    labelled_women: int
    case_women: int
    unlabelled_images: int

    @property
    def unlabelled_per_labelled(self) -> float:
        """Unlabelled visits per labelled woman."""
        return self.unlabelled_images / IMAGES_PER_VISIT / self.labelled_women

    def cases(self, women: int) -> int:
        """Return how many of `women` labelled women are cases: Table I's share, at least one of either group."""
        return min(max(round(women * self.case_women / self.labelled_women), 1), women - 1)


INSTITUTIONS: dict[str, Institution] = {
    "nhs": Institution(
        name="nhs",
        camera=CERVIGRAPH,
        criterion=MOSTLY_DENSITY,
        labelled_women=414,
        case_women=138,
        unlabelled_images=1872,
    ),
    "alts": Institution(
        name="alts",
        camera=COLPOSCOPE,
        criterion=MOSTLY_EXTENT,
        labelled_women=556,
        case_women=189,
        unlabelled_images=3025,
    ),
}


ACETIC: tuple[Stage, ...] = ("acetic",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a visit is photographed, at institutions that write it down."""

    stages: tuple[Stage, ...] = ACETIC
    """of the examination, in this order; two photographs of each"""
    devices: int = 1
    """1 or 2; a visit is photographed with one of them"""

    def __post_init__(self) -> None:
        drawn = all(stage in LOOKS for stage in self.stages) and len(set(self.stages)) == len(self.stages)
        if not (self.stages and drawn):
            raise ValueError(f"stages are some of {', '.join(LOOKS)}, each once; found {self.stages}")
        if self.devices not in (1, 2):
            raise ValueError(f"devices is 1 or 2; found {self.devices}")

    @classmethod
    def of(cls, stages: tuple[Stage, ...], devices: int) -> Protocol | None:
        """Return the protocol that was asked for; None where nothing was: no stage, and one device."""
        return cls(stages=stages or ACETIC, devices=devices) if stages or devices > 1 else None


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of one woman: two photographs of each stage. Women and their visits count from 1."""

    woman: int
    visit: int
    label: bool | None
    """True case, False control, None unlabelled"""
    split: Split | None = None
    """None: not given"""


def woman_of(institution: Institution, number: int, seed: int) -> Woman:
    """Return woman `number` of the institution: the same one however large the collection is."""
    return draw_woman(generator(derive(seed, "phantom-woman", institution.name, number)))


def diagnose(institution: Institution, criterion: Criterion, number: int, seed: int) -> bool:
    """Return whether woman `number` is a case under `criterion` (either institution's reviewer may be asked)."""
    reviewer = generator(derive(seed, "phantom-review", institution.name, number))
    return criterion.is_case(woman_of(institution, number, seed).disease, reviewer)


def attendance(
    institution: Institution,
    *,
    women: int,
    seed: int,
    unlabelled_per_labelled: float | None = None,
    test_women: int = 0,
) -> list[Visit]:
    """Return every visit, by woman and date: `women` labelled ones and the unlabelled visits on top.

    With `test_women` there are so many labelled women more, and every visit has a split. Raises ValueError for fewer
    than two women (there must be a case and a control), a negative proportion, or too few to divide.
    """
    ratio = institution.unlabelled_per_labelled if unlabelled_per_labelled is None else unlabelled_per_labelled
    if women < 2 or ratio < 0:
        raise ValueError(f"at least 2 women and a proportion of 0 or more; found {women} and {ratio}")
    if test_women and (test_women < 2 or women < WOMEN_TO_DIVIDE_MIN):
        least = f"at least 2 to test, and {WOMEN_TO_DIVIDE_MIN} to train and validate"
        raise ValueError(f"{least}; found {test_women} and {women}")
    labels, passed_over = _labelled(institution, women, seed)
    visits = [Visit(number, 1, label) for number, label in labels.items()]
    unlabelled = round(women * ratio)
    returning = round(RETURNING_SHARE * unlabelled)
    visits += _returning(institution, list(labels), returning, seed)
    examined = max(labels)
    others = itertools.chain(passed_over, itertools.count(examined + 1))
    visits += itertools.islice(_unlabelled(institution, others, seed), unlabelled - returning)
    if test_women:
        tested, _ = _labelled(institution, test_women, seed, first=max(visit.woman for visit in visits) + 1)
        visits = [*_divided(visits), *(Visit(number, 1, label, "test") for number, label in tested.items())]
    return sorted(visits, key=lambda visit: (visit.woman, visit.visit))


def _divided(visits: list[Visit]) -> list[Visit]:
    """Let every fifth woman of a stratum validate and the others train."""
    labels = grouped((visit.woman, visit.label) for visit in visits)
    strata = grouped((stratum(labels[woman]), woman) for woman in sorted(labels))
    valid = {woman for women in strata.values() for woman in women[1::ONE_VALIDATES_OF]}
    return [dataclasses.replace(visit, split="valid" if visit.woman in valid else "train") for visit in visits]


def _labelled(institution: Institution, women: int, seed: int, first: int = 1) -> tuple[dict[int, bool], list[int]]:
    """Examine women in turn until both groups are full; return the labels and the women passed over."""
    cases = institution.cases(women)
    wanted = {True: cases, False: women - cases}
    labels: dict[int, bool] = {}
    passed_over: list[int] = []
    for number in itertools.count(first):
        if not any(wanted.values()):
            break
        label = diagnose(institution, institution.criterion, number, seed)
        if wanted[label]:
            wanted[label] -= 1
            labels[number] = label
        else:
            passed_over.append(number)
    return labels, passed_over


def _returning(institution: Institution, labelled: list[int], visits: int, seed: int) -> list[Visit]:
    rng = generator(derive(seed, "phantom-returning", institution.name))
    seen = dict.fromkeys(labelled, 1)
    found = []
    for place in rng.integers(len(labelled), size=visits):
        seen[labelled[place]] += 1
        found.append(Visit(labelled[place], seen[labelled[place]], None))
    return found


def _unlabelled(institution: Institution, numbers: Iterator[int], seed: int) -> Iterator[Visit]:
    for number in numbers:
        rng = generator(derive(seed, "phantom-second-visit", institution.name, number))
        for visit in range(1, 3 if rng.random() < SECOND_VISIT_CHANCE else 2):
            yield Visit(number, visit, None)


def write_institution(
    folder: Path,
    institution: Institution,
    *,
    women: int,
    seed: int,
    unlabelled_per_labelled: float | None = None,
    test_women: int = 0,
    protocol: Protocol | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw and photograph every visit and write the collection; the manifest is written last.

    `women` is the number of labelled women; `unlabelled_per_labelled` the number of unlabelled visits for each
    (default: Table I's); `test_women` that of labelled women on top, with whom the manifest gives every woman's split.
    With `protocol` it also gives the stage, visit and device of every picture; without, as in the paper, all are after
    acetic acid and of one device, and nothing says so. A label is of the visit, so of its pictures at all stages.
    `on_progress` receives (images written, images in all). Equal arguments, equal bytes.
    Raises DataError where the folder holds anything already, StorageError where it cannot be written, and
    ValueError as `attendance` does.
    """
    visits = attendance(
        institution,
        women=women,
        seed=seed,
        unlabelled_per_labelled=unlabelled_per_labelled,
        test_women=test_women,
    )
    try:
        _refuse_occupied(folder)
        studio = _Studio(folder, institution, seed, protocol)
        _write(studio, visits, on_progress or (lambda _done, _all: None))
    except OSError as error:
        raise StorageError(
            f"cannot write the phantom images to {folder}: {error.strerror or error}",
            cause="the disk is full, or the folder belongs to another user",
            next_step=f"delete {folder}, or name another folder, and try again",
        ) from error


def _refuse_occupied(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and is not an empty folder",
            cause="phantom images are never mixed with anything else",
            next_step="name a new folder",
        )


@dataclass(frozen=True, slots=True)
class _Studio:
    """Where visits are photographed, and how."""

    folder: Path
    institution: Institution
    seed: int
    protocol: Protocol | None

    @property
    def asked(self) -> Protocol:
        """How a visit is photographed."""
        return self.protocol or Protocol()

    def names(self, visit: Visit) -> tuple[str | int, ...]:
        """Return what a visit's random numbers are named by."""
        return self.institution.name, visit.woman, visit.visit

    def device(self, visit: Visit) -> int:
        """Return with which device a visit is photographed, from 1; the woman has no part in it."""
        return 1 + int(generator(derive(self.seed, "phantom-device", *self.names(visit))).integers(self.asked.devices))


def _write(studio: _Studio, visits: list[Visit], on_progress: Callable[[int, int], None]) -> None:
    (studio.folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for visit in visits:
        rows += _photograph_visit(studio, visit)
        on_progress(len(rows), len(visits) * IMAGES_PER_VISIT * len(studio.asked.stages))
    with (studio.folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _photograph_visit(studio: _Studio, visit: Visit) -> Iterator[dict[str, str]]:
    """Write the visit's images; yield their rows of the manifest."""
    institution, device = studio.institution, studio.device(visit)
    camera = second(institution.camera) if device > 1 else institution.camera
    woman, scene_seed = woman_of(institution, visit.woman, studio.seed), _seed(studio, "phantom-visit", visit)
    for stage in studio.asked.stages:
        scene, staged = paint(woman, scene_seed, stage), () if stage == "acetic" else (stage,)
        for shot in range(1, IMAGES_PER_VISIT + 1):
            image = photograph(scene, camera, _seed(studio, "phantom-photograph", visit, *staged, shot))
            named = f"{visit.woman:04}-{visit.visit}-{f'{stage}-' if studio.protocol else ''}{shot}"
            file = f"images/{institution.name}-{named}.jpg"
            image.save(studio.folder / file, quality=camera.jpeg_quality)
            yield _row(studio, visit, file, {"stage": stage, "visit": str(visit.visit), "device": str(device)})


def _seed(studio: _Studio, purpose: str, visit: Visit, *further: str | int) -> int:
    return derive(studio.seed, purpose, *studio.names(visit), *further)


def _row(studio: _Studio, visit: Visit, file: str, truth: dict[str, str]) -> dict[str, str]:
    return {
        "image": file,
        "patient": f"{studio.institution.name}-{visit.woman:04}",
        "label": "" if visit.label is None else str(int(visit.label)),
        **(truth if studio.protocol else {}),
        **({"split": visit.split} if visit.split else {}),
    }
