"""A study of two sites as values: what planning and selection need, without an image."""

from __future__ import annotations

from pathlib import Path

from cervix_study.data.preparation import DatasetDigest, Ground
from cervix_study.records import Cell, CellProvenance, CellRecord, ClassifierResults, Costs, StudyData
from cervix_study.settings import StudyConfig, read

SITES = """\
[[sites]]
name = "nhs"
phantom = "nhs"
women = 12
[[sites]]
name = "alts"
manifest = "alts/manifest.csv"
"""

RECIPE = """\
[recipe]
architecture = "resnet18"
image_px = 32
epochs_max = 4
"""


def asked(folder: Path, axes: str = "", more: str = "") -> StudyConfig:
    """Return a study with these lines below [axes]."""
    file = folder / "study.toml"
    file.write_text(f'name = "case"\n{SITES}\n[axes]\n{axes}\n{RECIPE}\n{more}')
    return read(file)


def ground(folds: int = 0, *, nhs: str = "a") -> Ground:
    """Return what two sites bring; `nhs` stands for what that site's images are."""
    lots = {
        (site, fold): DatasetDigest(f"{images}-{fold}", f"{images}-{fold}-whole", 40, 10, 20, 8)
        for fold in (range(folds) if folds else [None])
        for site, images in (("nhs", nhs), ("alts", "b"))
    }
    empty = StudyData(rows=(), quarantine=(), shared=(), near_duplicates=())
    return Ground(lots=lots, data=empty, manifests={"nhs": Path("n.csv"), "alts": Path("a.csv")})


def judged(cell: Cell, validation_loss: float, validation_auc: float = 0.5) -> CellRecord:
    """Return the record of a classifier with this validation loss."""
    results = ClassifierResults(
        validation_loss=validation_loss,
        validation_auc=validation_auc,
        best=1,
        stopped="epochs",
        threshold=0.5,
        updates=4,
        train_women=10,
        train_images=20,
        train_cases=8,
        precision="float32",
        loaded="none: random weights",
        curve=(),
        model="0" * 64,
    )
    made = CellProvenance(begun_at="", ended_at="", host="here", machine="m", threads=1, versions={})
    return CellRecord(key=cell.key, cell=cell, classifier=results, costs=Costs(seconds=2.0, cpu_s=2.0), provenance=made)
