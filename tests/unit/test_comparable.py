"""Numbers belong to weights, not to names: what a person does at a site, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from cervix_study.export.model_source import find
from fedcervix.errors import ModelError
from site_agent.classifier import classifier_store
from site_agent.classifier.comparable import comparable
from site_agent.data import dataset
from site_agent.store import model_store
from tests.unit.sites import Site, copied, plan_of, site

torch.set_num_threads(1)


@pytest.fixture
def clinic(tmp_path: Path) -> Site:
    return site(tmp_path)


@pytest.fixture(scope="module")
def made_federated(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = site(tmp_path_factory.mktemp("federated"))
    made.federate("run-one", 1)
    made.train("finetune")
    return made


@pytest.fixture
def federated(made_federated: Site, tmp_path: Path) -> Site:
    """Return a site with the model of run-one, and classifiers from it and from random weights."""
    return copied(made_federated, tmp_path)


def collection_of(clinic: Site):
    return dataset.open_collection(clinic.home)


def test_a_second_run_without_finetune_is_refused_and_its_next_step_works(federated: Site) -> None:
    """Case old-classifier-in-new-report."""
    told = comparable(federated.home, collection_of(federated))
    assert (told.run, told.differences) == ("run-one", ())
    assert told.federated
    assert told.federated.provenance.start.plan == plan_of(1).digest

    federated.federate("run-two", 2)
    with pytest.raises(ModelError) as refused:
        federated.run("evaluate")
    assert refused.value.what == (
        "the newest CSFSSL model is of run run-two, the classifier was fine-tuned from run run-one"
    )
    words = refused.value.next_step.split()
    assert words[:4] == ["site-agent", "--home", str(federated.home.folder), "finetune"]
    federated.train(*words[3:])
    told = comparable(federated.home, collection_of(federated))
    assert told.run == "run-two"


def test_on_request_the_report_is_about_the_older_run_and_says_so(federated: Site) -> None:
    federated.federate("run-two", 2)
    told = comparable(federated.home, collection_of(federated), run="run-one")
    assert told.run == "run-one"
    assert told.differences == ()
    assert told.reservations == (
        "This report is about run run-one. The model of run run-two is newer and is not in it.",
    )
    with pytest.raises(ModelError, match="no classifier here was fine-tuned from run run-two") as refused:
        comparable(federated.home, collection_of(federated), run="run-two")
    federated.train(*refused.value.next_step.split()[3:])
    assert comparable(federated.home, collection_of(federated), run="run-two").run == "run-two"


def test_the_export_of_a_model_claims_no_scores_of_another_ones_classifiers(federated: Site) -> None:
    federated.run("evaluate")
    federated.federate("run-two", 2)
    first, second = (find(federated.home.models / name) for name in ("run-one", "run-two"))
    assert [test.evaluation.name for test in first.judged] == ["CSFSSL"]
    assert second.judged == ()
    assert (first.sites, second.origin["run"]) == (("nhs", "alts"), "run-two")


def test_a_card_shows_scores_of_these_very_weights(clinic: Site) -> None:
    clinic.train("finetune", "--start", "random")
    clinic.run("evaluate")
    folder = clinic.home.folder / "classifiers" / "random"
    assert [test.evaluation.name for test in find(folder).judged] == ["Random"]
    clinic.train("finetune", "--start", "random", "--seed", "5")
    assert find(folder).judged == (), "made anew, and not evaluated"
    [earlier] = (clinic.home.folder / "history" / "classifiers").iterdir()
    assert [test.evaluation.name for test in find(earlier).judged] == ["Random"], "its scores stay with it"


def test_starts_tuned_by_two_recipes_are_refused_and_the_next_step_works(clinic: Site) -> None:
    """Case classifiers-of-two-recipes."""
    clinic.federate("run-one", 1)
    clinic.train("finetune", "--start", "random", classifier={"epochs_max": 1, "lr": 1e-6})
    clinic.train("finetune", "--start", "run-one", classifier={"epochs_max": 2, "lr": 0.01})
    with pytest.raises(ModelError) as refused:
        clinic.run("evaluate")
    assert refused.value.what == (
        "Random and CSFSSL were not fine-tuned alike: classifier.lr 1e-06 and 0.01, classifier.epochs_max 1 and 2"
    )
    clinic.train(*refused.value.next_step.split()[3:])
    assert comparable(clinic.home, collection_of(clinic)).differences == ()


def test_another_seed_is_refused(clinic: Site) -> None:
    clinic.train("finetune", "--start", "random", "--seed", "1")
    clinic.train("pretrain")
    clinic.train("finetune", "--start", "ssl")
    with pytest.raises(ModelError, match="not fine-tuned alike: seed 1 and 0"):
        comparable(clinic.home, collection_of(clinic))


def test_ssl_of_another_recipe_than_the_federations_is_said(alone: Site) -> None:
    alone.federate("run-one", 0, batch_images=5)
    alone.train("finetune")
    assert comparable(alone.home, collection_of(alone)).differences == (
        "SSL and CSFSSL were pretrained with different recipes: batch_images 4 and 5.",
    )


def test_pretraining_again_is_noticed_and_loses_nothing(alone: Site) -> None:
    before = model_store.read(alone.home.models / "ssl").digest
    alone.train("pretrain", "--seed", "3")
    assert model_store.read(alone.home.models / "ssl").digest != before
    [earlier] = (alone.home.folder / "history" / "models").iterdir()
    assert model_store.read(earlier).digest == before
    with pytest.raises(ModelError, match="the newest SSL model is of model ssl, the classifier was fine-tuned from an"):
        comparable(alone.home, collection_of(alone))


def test_named_models_and_sets_stand_beside_the_others(clinic: Site) -> None:
    clinic.train("pretrain")
    clinic.train("pretrain", "--name", "trial", "--seed", "3")
    assert sorted(m.folder.name for m in model_store.found(clinic.home)[0]) == ["ssl", "trial"]
    clinic.train("finetune", "--start", "ssl")
    clinic.train("finetune", "--start", "trial", "--name", "second")
    assert classifier_store.names(clinic.home) == ["", "second"]
    assert [c.provenance.start.name for c in classifier_store.found(clinic.home, "second")[0]] == ["trial"]
    with pytest.raises(ModelError, match="ssl and trial are both SSL") as refused:
        clinic.train("finetune", "--start", "ssl", "--start", "trial")
    clinic.train(*refused.value.next_step.split()[3:])


def test_a_run_that_only_has_the_name_of_a_local_model_is_not_in_its_way(clinic: Site) -> None:
    """A coordinator that called its run `ssl` once kept the site from pretraining."""
    clinic.take_part("ssl", plan_of(1))
    clinic.train("pretrain")
    assert [m.folder.name for m in model_store.found(clinic.home)[0]] == ["ssl"]


def test_a_local_model_is_not_named_like_a_run(clinic: Site) -> None:
    with pytest.raises(AssertionError, match="named like a run"):
        clinic.train("pretrain", "--name", "20300101-000000-csfssl-00000000")


def test_a_run_takes_no_name_of_what_the_site_makes(clinic: Site) -> None:
    clinic.federate("ssl", 1)
    with pytest.raises(ModelError, match="holds the model of run ssl") as refused:
        clinic.train("pretrain")
    clinic.run(*refused.value.next_step.split()[3:])
    assert sorted(m.folder.name for m in model_store.found(clinic.home)[0]) == ["ssl", "ssl-local"]


@pytest.mark.parametrize("part", ["classifiers/random/classifier.safetensors", "models/ssl/cervix-model.safetensors"])
def test_weights_that_were_changed_are_noticed(alone: Site, part: str) -> None:
    file = alone.home.folder / part
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="is not the file that its record names") as refused:
        alone.run("evaluate") if "classifiers" in part else alone.train("finetune")
    words = refused.value.next_step.rpartition("site-agent ")[2].split()
    alone.train(*words[2:])
    alone.train("finetune")


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"start": 1}', "edited"])
def test_a_damaged_record_costs_one_entry_and_says_how_to_mend_it(alone: Site, damage: str) -> None:
    file = alone.home.folder / "classifiers" / "ssl" / "record.json"
    text = file.read_text()
    file.write_text(text.replace('"seed": 0', '"seed": 8') if damage == "edited" else damage)
    found, unread = classifier_store.found(alone.home)
    broken = unread["ssl"]
    assert [c.start for c in found] == ["Random"]
    assert str(file) in broken.what
    told = comparable(alone.home, collection_of(alone))
    assert "Not compared: the classifier ssl, which cannot be used (why: site-agent history)." in told.reservations
    assert not any(str(alone.home.folder) in line for line in told.reservations), "results.json may be sent"
    alone.train(*broken.next_step.split()[3:])
    assert [c.start for c in classifier_store.found(alone.home)[0]] == ["Random", "SSL"]


def test_a_copy_of_a_classifiers_folder_is_no_second_classifier(alone: Site) -> None:
    own = alone.home.folder / "classifiers"
    shutil.copytree(own / "ssl", own / "ssl-old")
    told = comparable(alone.home, collection_of(alone))
    assert [c.start for c in told.stored] == ["Random", "SSL"]
    [said] = told.reservations
    assert said == "Not compared: the classifier ssl-old, which cannot be used (why: site-agent history)."


def test_a_damaged_model_costs_one_entry(clinic: Site) -> None:
    clinic.federate("run-one", 1)
    clinic.federate("run-two", 2)
    (clinic.home.models / "run-two" / "record.json").write_text("{}")
    [found], broken = model_store.found(clinic.home)
    assert (found.folder.name, "run-two/record.json" in broken["run-two"].what) == ("run-one", True)
    assert "left out" in clinic.train("finetune").output
    clinic.run("evaluate")
    [file] = clinic.home.reports.rglob("results.json")
    assert (
        "Not compared: the model run-two, which cannot be used (why: site-agent history)."
        in json.loads(file.read_text())["reservations"]
    )
    assert str(clinic.home.folder) not in file.read_text(), "it may be sent"


def test_results_name_the_digests_of_what_they_belong_to(federated: Site) -> None:
    federated.run("evaluate")
    [file] = federated.home.reports.rglob("results.json")
    told = json.loads(file.read_text())["provenance"]
    stored = classifier_store.found(federated.home)[0]
    assert [one["weights"] for one in told] == [c.provenance.weights for c in stored]
    assert told[1]["start"]["run"] == "run-one"
    assert told[1]["start"]["weights"] == model_store.read(federated.home.models / "run-one").digest
    assert told[0]["data"] == told[1]["data"]


def test_a_result_adopted_twice_stands_once(clinic: Site) -> None:
    clinic.federate("run-one", 1)
    before = (clinic.home.models / "run-one" / "record.json").read_bytes()
    clinic.federate("run-one", 1)
    assert (clinic.home.models / "run-one" / "record.json").read_bytes() == before
    clinic.federate("run-one", 2)
    assert len(list((clinic.home.folder / "history" / "models").iterdir())) == 1, "another model of the same name"
