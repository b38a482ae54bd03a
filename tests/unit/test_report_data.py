"""What the report takes from a site's home folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from fedcervix.core.plan import Recipe
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.classifier.comparable import Comparable
from site_agent.data import dataset
from site_agent.data.collection import Collection
from site_agent.home import SiteHome, create
from site_agent.network.encoder import build_encoder, save_weights, snapshot
from site_agent.report.report_data import contact_sheet, embedding_maps, mapped_model, neighbours
from site_agent.store import model_store
from site_agent.store.leak_guard import Seen
from site_agent.store.model_store import CervixModel
from site_agent.store.provenance import Start
from tests.unit.provenances import NOW, provenance

torch.set_num_threads(1)

CPU = torch.device("cpu")
SMALL = Recipe(architecture="resnet18", image_px=32, width=8)
SPLITS = ["train"] * 8 + ["valid"] * 4 + ["test"] * 3
LABELS = ["1", "0", ""] * 5


def site(folder: Path, images: int = len(SPLITS)) -> tuple[SiteHome, Collection]:
    """A home with one image for each of so many women: case, control, unlabelled in turn."""
    data, home = folder / "data", SiteHome(folder / "home")
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(images):
        Pillow.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(data / f"{number}.png")
    rows = [(f"{k}.png", f"woman-{k}", LABELS[k], SPLITS[k]) for k in range(images)]
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "patient", "label", "split"), *rows])
    create(home, manifest=data / "manifest.csv")
    return home, dataset.open_collection(home)


def keep(home: SiteHome, start: str, **record: Any) -> CervixModel:
    """Put a model into the home, its weights drawn by another seed than its record names."""
    weights = home.folder / "weights.safetensors"
    save_weights(weights, snapshot(build_encoder(SMALL, seed=99 + len(start))))
    return model_store.keep(home, start.lower(), weights, model_store.Trained(start, SMALL, 0, record), Seen(), NOW)


def classifier(label: str, digest: str) -> StoredClassifier:
    return StoredClassifier(Path("absent"), 0.5, provenance(label, Start(name=label.lower(), weights=digest)), (), "")


def compared(federated: StoredClassifier | None, *starts: CervixModel) -> Comparable:
    return Comparable(stored=(), federated=federated, starts=starts, differences=())


def history(*aucs: float | None) -> list[dict[str, Any]]:
    return [{"epoch": k, "train_loss": 1.0, "valid_loss": 1.0, "knn_auc": auc} for k, auc in enumerate(aucs, 1)]


def test_the_maps_show_random_weights_beside_the_model(tmp_path: Path) -> None:
    home, collection = site(tmp_path)
    (before, after), why = embedding_maps(home, collection, keep(home, "CSFSSL"), CPU)
    assert why == ""
    assert (before.model, after.model) == ("random weights", "the federated model (CSFSSL)")
    assert before.labels == after.labels
    assert before.points != after.points


def test_test_women_are_on_no_map(tmp_path: Path) -> None:
    """12 of the 15 images are of training and validation women; they keep their order."""
    home, collection = site(tmp_path)
    (found, _), _ = embedding_maps(home, collection, keep(home, "SSL"), CPU)
    assert (len(found.points), found.images) == (12, 12)
    assert found.labels == (1, 0, None) * 4


def test_the_same_home_gives_the_same_maps(tmp_path: Path) -> None:
    home, collection = site(tmp_path)
    model = keep(home, "SSL")
    assert embedding_maps(home, collection, model, CPU) == embedding_maps(home, collection, model, CPU)


def test_too_few_images_are_said_instead_of_drawn(tmp_path: Path) -> None:
    home, collection = site(tmp_path, images=9)
    assert embedding_maps(home, collection, keep(home, "SSL"), CPU) == (
        (),
        "There is no map: it takes at least 10 images, and there are 9.",
    )


def test_a_site_without_a_model_is_told_so(tmp_path: Path) -> None:
    home, collection = site(tmp_path)
    assert embedding_maps(home, collection, None, CPU) == (
        (),
        "There is no map: this site keeps no cervix model yet.",
    )


def test_the_contact_sheet_shows_training_images_only(tmp_path: Path) -> None:
    home, collection = site(tmp_path)
    sheet = contact_sheet(home, collection, SMALL, seed=0)
    train = dataset.contrastive(home, collection, SMALL, "train").pixels[np.arange(8)]
    assert [row.original.tobytes() for row in sheet] == [picture.tobytes() for picture in train[:5]]
    assert all(len(row.versions) == 5 for row in sheet)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CervixModel]:
    home, _ = site(tmp_path_factory.mktemp("site"))
    return {
        "ssl": keep(home, "SSL"),
        "ring": keep(home, "PPFSSL_NHS"),
    }


def test_the_federated_model_that_was_fine_tuned_is_mapped(kept: dict[str, CervixModel]) -> None:
    ring = classifier("PPFSSL_NHS", kept["ring"].digest)
    assert mapped_model(compared(ring, kept["ssl"], kept["ring"])) is kept["ring"]
    assert mapped_model(compared(ring, kept["ring"], kept["ssl"])) is kept["ring"]


def test_without_a_federation_the_sites_own_model_is_mapped(kept: dict[str, CervixModel]) -> None:
    assert mapped_model(compared(None, kept["ssl"])) is kept["ssl"]
    assert mapped_model(compared(None)) is None


def test_the_probe_of_a_local_training_is_its_curve(tmp_path: Path) -> None:
    home, _ = site(tmp_path)
    [curve] = neighbours([keep(home, "SSL", history=history(0.5, None, 0.7), best_epoch=3)])
    assert (curve.name, curve.aucs, curve.kept_epoch) == ("SSL", (0.5, None, 0.7), 3)


def test_records_without_a_probe_have_no_curve(tmp_path: Path) -> None:
    """A federated model has no history here; older records lack the key; a site may have no labels."""
    home, _ = site(tmp_path)
    older = [{"epoch": 1, "train_loss": 1.0, "valid_loss": 1.0}]
    kept = [
        keep(home, "CSFSSL"),
        keep(home, "SSL", history=older, best_epoch=1),
        keep(home, "CSSL", history=history(None)),
    ]
    assert neighbours(kept) == ()
