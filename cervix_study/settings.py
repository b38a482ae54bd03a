"""STUDY.toml: the settings of a study. Errors name file, key, what was found, and the nearest known key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cervix_study.records import Axes, ProfileUsed, StudyRecord
from fedcervix.core.bounds import Within, check_values
from fedcervix.core.plan import SITE_NAME, check
from fedcervix.errors import ConfigError
from fedcervix.runtime.config import apply_profile, build, read_toml
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

    def __post_init__(self) -> None:
        named = SITE_NAME.fullmatch(self.name) is not None and self.name != POOLED
        check(named, f"name is 1 to 63 characters: a-z, 0-9 and inner hyphens, and not `{POOLED}`; found {self.name!r}")
        check(bool(self.manifest) != bool(self.phantom), f"site {self.name} has a manifest or a phantom, not both")
        check(not self.phantom or self.women >= 6, f"women is 6 or more for a phantom; found {self.women}")
        check(
            self.test_women == 0 or bool(self.phantom), f"test_women is for a phantom; site {self.name} has a manifest"
        )
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
    shared_identifiers: bool = False
    """a patient's identifier at two sites is one woman (a common registry); else every site has its own numbering"""

    def __post_init__(self) -> None:
        check_values(self)


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
        divided = not self.axes.folds or not any(site.test_women for site in self.sites)
        check(divided, "with folds every labelled woman is tested: set test_women to 0")
        several = len(self.sites) > 1
        check(several or not self.axes.federated, "csfssl and ppfssl need at least two [[sites]] tables")
        check(several or "cssl" not in self.axes.starts, "cssl needs at least two [[sites]] tables")
        known = (*TITLES, *RINGS, *(one for ring in RINGS for one in self._each(ring)))
        for start in self.axes.starts:
            check(start in known, f"axes.starts are {', '.join(known)}; found {start!r}")
        weights = "imagenet" not in self.axes.starts or bool(self.machine.imagenet_weights)
        check(weights, "start imagenet needs machine.imagenet_weights, the path of a weights file")

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
    return StudyConfig(settings=settings, profiles=profiles, file=file.resolve(), text=file.read_text(encoding="utf-8"))


def _check_varied(settings: Settings, file: Path) -> None:
    """Refuse settings that are given twice: a seed or an E in [terms] and in the axes."""
    for key, axis in (("seed", "axes.seeds"), ("epochs_per_round", "axes.epochs_per_round")):
        if key in settings.terms:
            raise ConfigError(
                f"{file}: terms.{key} and {axis} set the same value",
                cause=f"a study varies this value: set it in {axis} only",
                next_step=f"edit {file}: move the value to {axis}",
            )
