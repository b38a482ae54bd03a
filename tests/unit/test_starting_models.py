"""Training that starts from another cervix model, which a recipe or a command names by its digest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe
from fedcervix.core.plan_formats import needed_format
from fedcervix.errors import ModelError
from fedcervix.models.blobs import BlobStore
from site_agent.classifier import classifier_store
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.classifier.comparable import from_outside
from site_agent.data import dataset
from site_agent.network.encoder import build_encoder, load_weights, save_weights
from site_agent.network.first_weights import start_encoder
from site_agent.store import archive, leak_guard, model_store
from site_agent.store.archive import utc_now
from site_agent.store.leak_guard import Seen
from site_agent.store.model_store import CervixModel
from site_agent.store.provenance import Start
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import TrainResult
from site_agent.worker.tasks import TaskContext, do, first_seed
from tests.unit.provenances import provenance
from tests.unit.sites import Site, copied, plan_of
from tests.unit.sites import site as clinic

torch.set_num_threads(1)

ABSENT = "ab" * 32


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that has the model of a run."""
    made = clinic(tmp_path_factory.mktemp("starting"))
    made.federate("run-one", 1)
    return made


def model_of(made: Site, name: str = "run-one") -> CervixModel:
    return model_store.read(made.home.models / name)


def backbone_of(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_weights(path).items() if name.startswith("backbone.")}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() <= other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_plan_names_a_model_by_its_digest_and_says_so_in_a_later_format() -> None:
    plan = dataclasses.replace(plan_of(1), recipe=Recipe(start=ABSENT))
    assert (plan.recipe.start_model, Recipe().start_model, Recipe(start="imagenet").start_model) == (ABSENT, "", "")
    assert (needed_format(plan), needed_format(plan_of(1))) == (3, 1)
    assert Plan.parse(plan.canonical()) == plan


@pytest.mark.parametrize("start", ["ImageNet", ABSENT[:-1], ABSENT.upper(), ABSENT + "\n", ""])
def test_what_is_neither_a_word_nor_a_digest_is_refused(start: str) -> None:
    with pytest.raises(ValueError, match="start must be random, imagenet or the SHA-256 of a model; found"):
        Recipe(start=start)


def test_the_backbone_is_the_models_and_the_head_is_random(federated: Site) -> None:
    model = model_of(federated)
    recipe = dataclasses.replace(model.recipe, start=model.digest, width=5)
    encoder = start_encoder(recipe, 3, model_store.start_weights(federated.home, recipe))
    assert equal(backbone_of(model.weights), encoder.state_dict())
    assert torch.equal(encoder.head[0].weight, build_encoder(recipe, 3).head[0].weight)


def test_a_model_of_another_network_is_refused(federated: Site) -> None:
    model = model_of(federated)
    recipe = dataclasses.replace(model.recipe, start=model.digest, architecture="efficientnet_lite0")
    with pytest.raises(ModelError, match="has the architecture resnet18, the recipe wants efficientnet_lite0"):
        model_store.start_weights(federated.home, recipe)
    with pytest.raises(ModelError, match=f"model {model.digest[:12]} does not fit this model"):
        start_encoder(recipe, 3, model.weights)


def test_a_digest_that_no_model_has_is_said_with_where_it_was_looked_for(federated: Site) -> None:
    with pytest.raises(ModelError, match=f"{ABSENT}, which is not here") as caught:
        model_store.start_weights(federated.home, Recipe(start=ABSENT))
    assert str(federated.home.models) in caught.value.cause
    assert "start_weights under [hardware]" in caught.value.next_step


def test_a_file_that_site_toml_names_is_taken_if_it_is_the_model(federated: Site, tmp_path: Path) -> None:
    model, made = model_of(federated), clinic(tmp_path)
    settings = made.home.config_file
    settings.write_text(settings.read_text().replace("[hardware]", f'[hardware]\nstart_weights = "{model.weights}"'))
    assert model_store.start_weights(made.home, Recipe(start=model.digest)) == model.weights
    with pytest.raises(ModelError, match="which is not here"):
        model_store.start_weights(made.home, Recipe(start=ABSENT))


def test_weights_that_this_site_has_no_record_of_are_told(federated: Site, tmp_path: Path) -> None:
    """Also where a model of this site was made from them. A model that was moved into the history has a record."""
    home = copied(federated, tmp_path).home
    first = model_store.read(home.models / "run-one")
    made_from = model_store.Trained("SSL", dataclasses.replace(first.recipe, start=first.digest), 0, {})
    other = tmp_path / "other.safetensors"
    save_weights(other, {name: tensor + 1 for name, tensor in load_weights(first.weights).items()})
    model = model_store.keep(home, "ssl", other, made_from, Seen(), utc_now())
    starts = {"Random": Start(name="random"), "SSL": Start(name="ssl", recipe=Recipe(start=model.digest))}
    stored = [StoredClassifier(tmp_path, 0.5, provenance(label, start), (), "") for label, start in starts.items()]
    assert not [*from_outside(home, stored)]
    earlier = home.folder / archive.HISTORY / "models" / "earlier"
    earlier.parent.mkdir(parents=True, exist_ok=True)
    first.folder.rename(earlier)
    assert not [*from_outside(home, stored)]
    earlier.rename(home.folder / "elsewhere")
    [told] = from_outside(home, stored)
    assert told.startswith("The classifier SSL goes back to weights that this site has no record of.")


def test_weights_that_were_changed_are_refused(federated: Site, tmp_path: Path) -> None:
    made = copied(federated, tmp_path)
    model = model_of(made)
    model.weights.write_bytes(model.weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="is not the file that its record names"):
        model_store.start_weights(made.home, Recipe(start=model.digest))


def test_a_classifier_starts_from_a_model_named_by_its_digest(federated: Site, tmp_path: Path) -> None:
    made = copied(federated, tmp_path)
    made.train("finetune", "--start", model_of(made).digest)
    [stored], _ = classifier_store.found(made.home)
    assert (stored.provenance.start.name, stored.provenance.label) == ("run-one", "CSFSSL")
    with pytest.raises(ModelError, match=f"there is no start {ABSENT}"):
        made.train("finetune", "--start", ABSENT)


@pytest.fixture
def pretrained(federated: Site, tmp_path: Path) -> tuple[Site, CervixModel]:
    """A site that has trained on from the run's model, after its women were divided otherwise."""
    made = copied(federated, tmp_path)
    kept = [row for row in made.rows() if row[1] != "woman-00"]
    made.write_manifest(kept)
    made.train("pretrain", start=model_of(made).digest)
    return made, model_of(made, "ssl")


def test_ssl_that_starts_from_a_model_remembers_its_women(pretrained: tuple[Site, CervixModel]) -> None:
    """woman-00 has left the collection; back in the test part, she is known from the first training."""
    made, model = pretrained
    assert model.recipe.start == model_of(made).digest
    gone = ("00a.png", "woman-00", "0", "test")
    made.write_manifest([*made.rows(), gone])
    test = [image for image in dataset.open_collection(made.home).images if image.split == "test"]
    with pytest.raises(ModelError, match="ssl"):
        model_store.check_unseen_by_model(made.home, model, test)


def test_ssl_does_not_start_from_a_model_that_a_test_woman_has_made(federated: Site, tmp_path: Path) -> None:
    made = copied(federated, tmp_path)
    made.write_manifest([(*row[:3], "test" if row[1] == "woman-00" else row[3]) for row in made.rows()])
    with pytest.raises(ModelError, match="run-one"):
        made.train("pretrain", start=model_of(made).digest)
    assert not (made.home.models / "ssl").exists()


def test_a_federations_first_model_starts_from_a_model_of_the_site(federated: Site, tmp_path: Path) -> None:
    made = copied(federated, tmp_path)
    model = model_of(made)
    plan = plan_of(5, start=model.digest)
    RunStore(made.home.run_folder("run")).open(plan)
    bench = TaskContext(made.home, "nhs", torch.device("cpu"), lambda _: None)
    result = do(bench, Task("run", TaskKind.SEED, 0, ""), plan)
    assert isinstance(result, TrainResult)
    first = load_weights(BlobStore(made.home.blobs).path(result.digest))
    assert equal(backbone_of(model.weights), first)
    assert torch.equal(first["head.0.weight"], build_encoder(plan.recipe, first_seed(5)).state_dict()["head.0.weight"])


def test_what_a_federation_makes_from_a_model_knows_the_women_of_that_model(federated: Site, tmp_path: Path) -> None:
    made = copied(federated, tmp_path)
    before = leak_guard.read(made.home.models / "run-one", leak_guard.site_key(made.home), next_step="")
    made.write_manifest([row for row in made.rows() if row[1] != "woman-00"])
    plan = plan_of(5, start=model_of(made).digest)
    made.adopt("run-two", plan)  # a site that took part in no round of it
    after = leak_guard.read(made.home.models / "run-two", leak_guard.site_key(made.home), next_step="")
    assert before.women
    assert before.women <= after.women
    assert json.loads((made.home.models / "run-two" / "record.json").read_text())["plan_digest"] == plan.digest
