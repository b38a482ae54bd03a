"""STUDY.toml: the settings of a study. Errors name file, key, what was found, and the nearest known key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cervix_study.records import Axes, Hypothesis, ProfileUsed, StudyRecord
from fedcervix.core.bounds import Within, check_values
from fedcervix.core.plan import SITE_NAME, Stage, check
from fedcervix.errors import ConfigError
from fedcervix.runtime.config import apply_profile, build, read_toml
from site_agent.manifest.classes import classes_of
from site_agent.network.imagenet_package import PACKAGED
from site_agent.starts import FROM, RINGS, TITLES

PAGE = "docs/study.md"
POOLED = "pooled"
"""how the pooled collections are called where a site's name is expected"""

Executor = Literal["here", "slurm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSection(StudyRecord):
    """One of the tables [[sites]]: a manifest, or a phantom institution that is drawn."""

    name: str
    manifest: str = ""
    not_same: str = ""
    """file of pairs of images that look alike and show two women"""
    phantom: str = ""
    women: int = 0
    test_women: int = 0
    unlabelled_per_labelled: float | None = None
    phantom_seed: int = 0
    phantom_stages: tuple[Stage, ...] = ()
    """of the examination; none: all pictures are after acetic acid, and the manifest does not say so"""
    phantom_devices: Annotated[int, Within(1, 2)] = 1
    """that differ in colour"""

    def __post_init__(self) -> None:
        check_values(self)
        named = SITE_NAME.fullmatch(self.name) is not None and self.name != POOLED
        check(named, f"name is 1 to 63 characters: a-z, 0-9 and inner hyphens, and not `{POOLED}`; found {self.name!r}")
        check(bool(self.manifest) != bool(self.phantom), f"site {self.name} has a manifest or a phantom, not both")
        check(not self.phantom or self.women >= 6, f"women is 6 or more for a phantom; found {self.women}")
        check(
            self.test_women == 0 or bool(self.phantom), f"test_women is for a phantom; site {self.name} has a manifest"
        )
        drawn = self.phantom_stages
        words = f"phantom_stages are some of native, acetic, green and iodine, each once; found {', '.join(drawn)}"
        check("other" not in drawn and len(set(drawn)) == len(drawn), words)
        check(self.test_women == 0 or self.test_women >= 2, f"test_women is 0, or 2 or more; found {self.test_women}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSection(StudyRecord):
    """Table [named]: a combination named in advance, whose test part is opened whatever validation chooses."""

    batch_images: int
    width: int
    epochs_per_round: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDataSection(StudyRecord):
    """Table [data]."""

    split_seed: Annotated[int, Within(0)] = 0
    unreadable_max: Annotated[float, Within(0, below=1)] = 0.05
    ignore_columns: tuple[str, ...] = ()
    """columns of the manifests that are meant to be ignored, although they look like known ones"""
    covariates: tuple[str, ...] = ()
    """further columns of all manifests, for tables by group"""
    classes: tuple[str, ...] = ()
    """of labels in an order, the mildest first, as in site.toml"""
    case_from: str = ""
    shared_identifiers: bool = False
    """a patient's identifier at two sites is one woman (a common registry); else every site has its own numbering"""

    def __post_init__(self) -> None:
        check_values(self)
        classes_of(self.classes, self.case_from)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSection(StudyRecord):
    """Table [machine]: where and how wide. Nothing here changes what is computed."""

    executor: Executor = "here"
    workers: Annotated[int, Within(1, 10_000)] = 1
    """processes that train at the same time, each with `threads` threads; a federation counts one for each site"""
    threads: Annotated[int, Within(1, 1024)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    images_in_memory_gib: float = 4.0
    imagenet_weights: str = ""
    start_weights: str = ""
    """of the cervix model that recipe.start names by its digest"""
    keep_weights: bool = True
    """of classifiers whose test part was opened; without them they cannot be exported"""

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(StudyRecord):
    """The file STUDY.toml."""

    name: str
    sites: tuple[SiteSection, ...]
    axes: Axes = field(default_factory=Axes)
    hypotheses: tuple[Hypothesis, ...] = ()
    """in the order in which they are tested; the first is the study's primary hypothesis"""
    second_look: str = ""
    """where these women were tested before"""
    named: NamedSection | None = None
    data: StudyDataSection = field(default_factory=StudyDataSection)
    machine: MachineSection = field(default_factory=MachineSection)
    slurm: dict[str, object] = field(default_factory=dict)
    """passed to submitit unchanged: slurm_partition, timeout_min, mem_gb, ..."""
    recipe: dict[str, object] = field(default_factory=dict)
    terms: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(
            SITE_NAME.fullmatch(self.name) is not None,
            f"name is 1 to 63 characters: a-z, 0-9 and inner hyphens: {self.name!r}",
        )
        check(bool(self.sites), "a study needs at least one [[sites]] table")
        check(len(set(self.site_names)) == len(self.sites), "two [[sites]] tables have the same name")
        divided = not self.axes.divided or not any(site.test_women for site in self.sites)
        check(divided, "with folds, or devices left out, the study chooses whom it tests: set test_women to 0")
        several = len(self.sites) > 1
        check(several or not self.axes.federated, "csfssl and ppfssl need at least two [[sites]] tables")
        check(several or "cssl" not in self.axes.starts, "cssl needs at least two [[sites]] tables")
        known = (*TITLES, *RINGS, *(one for ring in RINGS for one in self._each(ring)))
        for start in self.axes.starts:
            check(start in known, f"axes.starts are {', '.join(known)}; found {start!r}")
        names = [hypothesis.name for hypothesis in self.hypotheses]
        check(len(set(names)) == len(names), "two [[hypotheses]] tables have the same name")
        for hypothesis in self.hypotheses:
            self._check(hypothesis)

    def _check(self, hypothesis: Hypothesis) -> None:
        """Raise ValueError where the study trains nothing that a hypothesis could be tested with."""
        known = {
            "site": self.site_names,
            "first": self.starts,
            "second": self.starts,
            "profile": ("", *self.axes.profiles),
            "label_fraction": (1.0, *self.axes.label_fractions),
        }
        for key, values in known.items():
            found = getattr(hypothesis, key)
            listed = ", ".join(str(value) for value in values if value != "")
            check(found in values, f"{key} of hypothesis {hypothesis.name!r} is one of {listed}; found {found!r}")

    @property
    def site_names(self) -> tuple[str, ...]:
        """The roster."""
        return tuple(site.name for site in self.sites)

    @property
    def starts(self) -> tuple[str, ...]:
        """The initialisations; the name of a ring's mode stands for a ring from each site in turn."""
        found = [one for start in self.axes.starts for one in (self._each(start) if start in RINGS else (start,))]
        return tuple(dict.fromkeys(found))

    def _each(self, ring: str) -> tuple[str, ...]:
        return tuple(ring + FROM + site for site in self.site_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """A STUDY.toml that was read and checked, with its profiles resolved."""

    settings: Settings
    profiles: Mapping[str, ProfileUsed]
    file: Path
    text: str

    @property
    def from_imagenet(self) -> bool:
        """Whether a classifier or an encoder begins from ImageNet's weights."""
        contrastive = any(used.recipe.start == "imagenet" for used in self.profiles.values())
        return "imagenet" in self.settings.axes.starts or contrastive

    @property
    def start_models(self) -> set[str]:
        """The digests of the cervix models that encoders begin from."""
        return {used.recipe.start_model for used in self.profiles.values()} - {""}

    def path(self, named: str) -> Path:
        """Return a path that the file names; a relative one begins at the file's folder."""
        return (self.file.parent / Path(named).expanduser()).resolve()


def read(file: Path) -> StudyConfig:
    """Return what a STUDY.toml asks for. Raises ConfigError."""
    raw = read_toml(
        file, missing="a misspelt path", hint="cervix-study run STUDY.toml; docs/study.md contains an example"
    )
    settings = build(Settings, raw, source=file, page=PAGE)
    profiles = {}
    for name in settings.axes.profiles:
        found = apply_profile(name, settings.recipe, settings.terms, source=file)
        profiles[name] = ProfileUsed(recipe=found.recipe, terms=found.terms)
    _check_varied(settings, file)
    asked = StudyConfig(
        settings=settings, profiles=profiles, file=file.resolve(), text=file.read_text(encoding="utf-8")
    )
    _check_imagenet(asked)
    _check_start_model(asked)
    return asked


def _check_imagenet(asked: StudyConfig) -> None:
    """Refuse a start from ImageNet's weights where they are not named: cells depend on the digest of their file."""
    others = {used.recipe.architecture for used in asked.profiles.values()} - {PACKAGED}
    if asked.from_imagenet and others and not asked.settings.machine.imagenet_weights:
        raise ConfigError(
            f"{asked.file}: start imagenet needs machine.imagenet_weights, the path of a weights file",
            cause=f"the extra `imagenet` has the weights of {PACKAGED}, and not of {', '.join(sorted(others))}",
            next_step=f'edit {asked.file}: name the file, or set architecture = "{PACKAGED}" in [recipe]',
        )


def _check_start_model(asked: StudyConfig) -> None:
    if asked.start_models and not asked.settings.machine.start_weights:
        raise ConfigError(
            f"{asked.file}: recipe.start is the digest of a cervix model, and machine.start_weights names no file",
            cause="encoders of all arms begin with this file",
            next_step=f"edit {asked.file}: write its path as start_weights in [machine]",
        )


def _check_varied(settings: Settings, file: Path) -> None:
    """Refuse settings that are given twice: a seed or an E in [terms] and in the axes."""
    for key, axis in (("seed", "axes.seeds"), ("epochs_per_round", "axes.epochs_per_round")):
        if key in settings.terms:
            raise ConfigError(
                f"{file}: terms.{key} and {axis} set the same value",
                cause=f"a study varies this value: set it in {axis} only",
                next_step=f"edit {file}: move the value to {axis}",
            )
