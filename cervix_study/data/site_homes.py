"""The sites' home folders, like those of hospitals; phantom institutions are drawn for the sites that ask for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cervix_study.settings import SiteSection, StudyConfig
from cervix_study.study_paths import Places
from fedcervix.core.formats import contents
from fedcervix.core.plan import EPOCHS_MAX, ROUNDS_MAX
from fedcervix.core.seeds import derive
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import disk, read_back
from fedcervix.errors import ConfigError
from fedcervix.json_text import parsed
from site_agent.home import SiteHome
from site_agent.phantom import INSTITUTIONS, Protocol, write_institution

OnProgress = Callable[[str, int, int], None]
"""called as on_progress(what, done, of)"""
DRAWN = "drawn.json"
"""beside a phantom manifest: what it was drawn from"""
UNSAID: dict[str, object] = {"test_women": 0, "stages": [], "devices": 1}
"""what older ones do not say"""


def manifest_of(asked: StudyConfig, places: Places, site: SiteSection, on_progress: OnProgress) -> Path:
    """Return the site's manifest; draw its phantoms where there are none yet. Raises ConfigError, StorageError."""
    if site.manifest:
        return asked.path(site.manifest)
    folder, wanted = places.phantom(site.name), _wanted(asked, site)
    if not folder.exists():
        _draw(folder, site, wanted, on_progress)
    elif _drawn(folder / DRAWN) != wanted:
        raise ConfigError(
            f"{folder} holds other phantoms than {asked.file} asks for",
            cause="the number of women or test women, the seed or the institution was changed since",
            next_step=f"give the study another folder (--out FOLDER), or delete {folder}",
        )
    return folder / "manifest.csv"


def _drawn(file: Path) -> dict[str, object]:
    """Return what phantoms were drawn from. Raises StorageError."""
    next_step = f"delete {file.parent}: the phantoms are then drawn again"
    return read_back(file, lambda content: UNSAID | contents("the drawing", parsed(content)), next_step=next_step)


def _wanted(asked: StudyConfig, site: SiteSection) -> dict[str, object]:
    if site.phantom not in INSTITUTIONS:
        known = ", ".join(sorted(INSTITUTIONS))
        raise ConfigError(
            f"{asked.file}: phantom of site {site.name} is one of {known}; found {site.phantom!r}",
            next_step=f"edit {asked.file}",
        )
    return {
        "institution": site.phantom,
        "women": site.women,
        "test_women": site.test_women,
        "seed": site.phantom_seed,
        "unlabelled_per_labelled": site.unlabelled_per_labelled,
        "stages": list(site.phantom_stages),
        "devices": site.phantom_devices,
    }


def _draw(folder: Path, site: SiteSection, wanted: dict[str, object], on_progress: OnProgress) -> None:
    """Draw an institution, whole or not at all."""
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)  # what a killed study left behind
    write_institution(
        making,
        INSTITUTIONS[site.phantom],
        women=site.women,
        seed=derive(site.phantom_seed, "study-phantom", site.name),
        unlabelled_per_labelled=site.unlabelled_per_labelled,
        test_women=site.test_women,
        protocol=Protocol.of(site.phantom_stages, site.phantom_devices),
        on_progress=lambda done, of: on_progress(f"drawing the images of {site.name}", done, of),
    )
    with disk(folder, "write"):
        write_whole(making / DRAWN, json.dumps(wanted, allow_nan=False).encode())
        making.rename(folder)


def make_home(asked: StudyConfig, site: str, home: SiteHome, manifest: Path, cache: Path) -> None:
    """Make a home folder, or bring its configuration up to date. All of them keep decoded images in one cache.

    A site's colours are made again when they are needed: women who trained in an earlier division may test in this one.
    """
    with disk(home.folder, "write"):
        home.folder.mkdir(parents=True, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        if not home.cache.is_symlink():
            home.cache.symlink_to(cache.resolve())
        home.colours.unlink(missing_ok=True)
        write_whole(home.config_file, site_toml(asked, site, manifest).encode())


def site_toml(asked: StudyConfig, site: str, manifest: Path) -> str:
    """Return the configuration of a site of the study."""
    machine, data = asked.settings.machine, asked.settings.data
    pairs = next(section.not_same for section in asked.settings.sites if section.name == site)
    weights = {key: getattr(machine, key) for key in ("imagenet_weights", "start_weights")}
    return toml(
        {
            "data": {
                "manifest": str(manifest),
                "unreadable_max": data.unreadable_max,
                "split_seed": data.split_seed,
                "not_same": str(asked.path(pairs)) if pairs else "",
                "ignore_columns": list(data.ignore_columns),
                "covariates": list(data.covariates),
                "classes": list(data.classes),
                "case_from": data.case_from,
            },
            "hardware": {
                "device": machine.device,
                "threads": machine.threads,
                "images_in_memory_gib": machine.images_in_memory_gib,
                **{key: str(asked.path(named)) if named else "" for key, named in weights.items()},
            },
            "policy": {"rounds_max": ROUNDS_MAX, "epochs_max": EPOCHS_MAX},
        }
    )


def toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Return TOML text; its scalars and arrays of scalars are written as in JSON."""
    return "\n".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value, allow_nan=False)}\n" for key, value in keys.items())
        for table, keys in tables.items()
    )
