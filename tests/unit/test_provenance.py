"""What classifiers may be compared, and what is said of them: values in, sentences out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fedcervix.core.plan import ClassifierRecipe, Recipe
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import ModelError
from site_agent.store.provenance import Again, KeptModel, Provenance, Start, check, differences, headline, reservations
from tests.unit.provenances import DATA, SMALL, provenance

AGAIN = Again("site-agent")
OTHER = dataclasses.replace(SMALL, batch_images=16)


def start(name: str, run: str = "", recipe: Recipe = SMALL, **more: Any) -> Start:
    return Start(name=name, weights=name, recipe=recipe, seed=0, run=run, **more)


def kept(label: str, name: str, run: str = "") -> KeptModel:
    return KeptModel(label=label, name=name, digest=name, run=run)


RANDOM = provenance("Random", Start(name="random"))
SSL = provenance("SSL", start("ssl"))
ONE = provenance("CSFSSL", start("one", "one"))
RING = provenance("PPFSSL_NHS", start("ring", "ring"))
MODELS = [kept("SSL", "ssl"), kept("CSFSSL", "one", "one")]


def refused(*tuned: Provenance, models: list[KeptModel] | None = None, data: Any = DATA, run: str = "") -> ModelError:
    with pytest.raises(ModelError) as found:
        check(tuned, models or [], data, again=AGAIN, run=run)
    return found.value


def test_what_fits_is_not_refused_and_needs_no_word() -> None:
    check([RANDOM, SSL, ONE], MODELS, DATA, again=AGAIN)
    assert differences([RANDOM, SSL, ONE], MODELS) == ()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DATA)])
def test_other_images_labels_splits_or_test_images_are_refused(name: str) -> None:
    error = refused(RANDOM, SSL, models=MODELS[:1], data=dataclasses.replace(DATA, **{name: "0" * 64}))
    assert error.what == "the images have changed since Random, SSL was fine-tuned"
    assert error.next_step == "site-agent finetune --start random --start ssl"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (dataclasses.replace(SMALL, image_px=64), "image_px 32 and 64"),
        (dataclasses.replace(SMALL, fit="crop"), "fit squash and crop"),
        (dataclasses.replace(SMALL, architecture="resnet50"), "architecture resnet18 and resnet50"),
        (dataclasses.replace(SMALL, classifier=ClassifierRecipe(lr=0.5)), "classifier.lr 0.001 and 0.5"),
        (dataclasses.replace(SMALL, classifier=ClassifierRecipe(augment="light")), "classifier.augment none and light"),
    ],
)
def test_every_part_of_fine_tuning_must_be_equal(recipe: Recipe, said: str) -> None:
    error = refused(RANDOM, provenance("SSL", start("ssl"), recipe=recipe))
    assert error.what == f"Random and SSL were not fine-tuned alike: {said}"


def test_a_seed_must_be_equal() -> None:
    assert "seed 0 and 7" in refused(RANDOM, provenance("SSL", start("ssl"), seed=7)).what


def test_a_third_one_that_differs_is_found() -> None:
    assert "SSL and CSFSSL" in refused(RANDOM, SSL, provenance("CSFSSL", start("one", "one"), seed=7)).what


def test_keys_of_contrastive_learning_alone_do_not_matter_when_fine_tuning() -> None:
    check([RANDOM, provenance("SSL", start("ssl"), recipe=OTHER)], [], DATA, again=AGAIN)


def test_a_newer_model_of_the_same_kind_is_refused() -> None:
    error = refused(RANDOM, ONE, models=[*MODELS, kept("CSFSSL", "two", "two")])
    assert error.what == "the newest CSFSSL model is of run two, the classifier was fine-tuned from run one"


def test_a_newer_run_of_another_mode_is_refused_as_well() -> None:
    """Run 1 a server's, run 2 a ring's: the classifier of run 1 answers nothing about run 2."""
    error = refused(RANDOM, ONE, models=[*MODELS, kept("PPFSSL_NHS", "ring", "ring")])
    assert error.what == "the newest model is of run ring, and no classifier was fine-tuned from it"


def test_a_set_of_its_own_may_be_without_a_federated_classifier() -> None:
    """`finetune --start trial --name second`, `evaluate --set second`: compared among themselves."""
    check([RANDOM, SSL], MODELS, DATA, again=dataclasses.replace(AGAIN, name="second"))
    refused(RANDOM, SSL, models=MODELS)
    newer = [*MODELS, kept("PPFSSL_NHS", "ring", "ring")]
    with pytest.raises(ModelError, match="no classifier was fine-tuned from it"):
        check([RANDOM, ONE], newer, DATA, again=dataclasses.replace(AGAIN, name="second"))


def test_the_headline_is_of_the_newest_run_and_not_of_the_last_in_the_table() -> None:
    """Run 1 a ring's, run 2 a server's: PPFSSL stands last in the paper's order, and is the older one."""
    models = [kept("PPFSSL_NHS", "ring", "ring"), kept("CSFSSL", "one", "one")]
    assert headline([RANDOM, ONE, RING], models) is ONE
    assert headline([RANDOM, ONE, RING], list(reversed(models))) is RING
    assert headline([RANDOM, ONE, RING], models, run="ring") is RING
    assert headline([RANDOM, SSL], []) is None


def test_on_request_an_older_run_is_evaluated_and_the_newer_one_named() -> None:
    models = [*MODELS, kept("CSFSSL", "two", "two")]
    check([RANDOM, ONE], models, DATA, again=AGAIN, run="one")
    assert differences([RANDOM, ONE, SSL], models, run="one") == ()
    assert reservations([RANDOM, ONE, SSL], models, run="one") == (
        "This report is about run one. The model of run two is newer and is not in it.",
    )
    assert refused(RANDOM, ONE, models=models, run="two").next_step == "site-agent finetune --start two"
    assert refused(RANDOM, ONE, models=models, run="three").next_step == "site-agent history"


def test_starts_of_different_recipes_and_images_are_said() -> None:
    other = Start(name="one", weights="one", recipe=OTHER, seed=5, run="one", images="b")
    compared = [provenance("SSL", start("ssl", images="a")), provenance("CSFSSL", other)]
    assert differences(compared, MODELS) == (
        "SSL and CSFSSL were pretrained with different recipes: batch_images 8 and 16.",
        "SSL and CSFSSL were pretrained on different images or splits of this site.",
    )
    assert reservations(compared, MODELS) == ("SSL and CSFSSL were pretrained with different seeds: 0 and 5.",)


@pytest.mark.parametrize("settled", ["float32", "bfloat16"])
def test_a_precision_that_the_site_settled_is_no_other_recipe(settled: Any) -> None:
    """The profile `recommended` says auto. `pretrain` keeps what it settled, a federation's model the plan's word."""
    planned = PROFILES["recommended"].recipe
    assert planned.precision == "auto"
    ours = provenance("SSL", start("ssl", recipe=dataclasses.replace(planned, precision=settled)))
    assert differences([ours, provenance("CSFSSL", start("one", "one", planned))], MODELS) == ()


def test_two_settled_precisions_are_two_recipes() -> None:
    ours = provenance("SSL", start("ssl", recipe=dataclasses.replace(SMALL, precision="bfloat16")))
    assert differences([ours, ONE], MODELS) == (
        "SSL and CSFSSL were pretrained with different recipes: precision bfloat16 and float32.",
    )


def test_a_federation_that_pulls_towards_its_model_is_no_other_recipe() -> None:
    federated = provenance("CSFSSL", start("one", "one", dataclasses.replace(SMALL, proximal=0.1)))
    assert differences([SSL, federated], MODELS) == ()


def test_another_input_or_arithmetic_than_in_pretraining_is_said() -> None:
    tuned = dataclasses.replace(SMALL, image_px=64, precision="bfloat16")
    compared = [RANDOM, provenance("SSL", start("ssl"), recipe=tuned)]
    assert differences(compared) == (
        "The classifiers were fine-tuned in different arithmetic: Random float32, SSL bfloat16.",
    )
    assert reservations(compared) == (
        "SSL was pretrained on images of 32 px (squash) and fine-tuned on 64 px (squash).",
    )


def test_a_model_without_a_classifier_is_named() -> None:
    assert reservations([RANDOM], [kept("SSL", "ssl")]) == ("The model ssl (SSL) of this site is not compared here.",)


def test_what_the_site_made_is_stale_where_its_name_holds_another_model() -> None:
    """A model of another name beside it is another trial: it is named, and refuses nothing."""
    check([SSL], [kept("SSL", "ssl"), kept("SSL", "trial")], DATA, again=AGAIN)
    remade = KeptModel(label="SSL", name="ssl", digest="another")
    error = refused(SSL, models=[remade])
    assert (
        error.what
        == "the newest SSL model is of model ssl, the classifier was fine-tuned from an earlier one of that name"
    )
    check([SSL], [], DATA, again=AGAIN)


def test_a_rings_first_site_is_told_from_another_whose_name_begins_alike() -> None:
    check([provenance("PPFSSL_A", start("a", "a"))], [kept("PPFSSL_A", "a", "a")], DATA, again=AGAIN)
    models = [kept("PPFSSL_AB", "ab", "ab"), kept("PPFSSL_A", "a", "a")]
    check([provenance("PPFSSL_A", start("a", "a"))], models, DATA, again=AGAIN)


@pytest.mark.parametrize(
    ("tuned", "models", "run", "command"),
    [
        ([RANDOM, ONE], MODELS, "", "finetune --name set --start random --start one"),
        ([RANDOM, ONE], [*MODELS, kept("CSFSSL", "two", "two")], "", "finetune --name set --start random --start two"),
        (
            [RANDOM, ONE],
            [*MODELS, kept("CSFSSL", "two", "two")],
            "one",
            "finetune --name set --start random --start one",
        ),
        ([RANDOM], MODELS, "", "finetune --name set --start random --start one"),
        ([SSL], [kept("SSL", "ssl"), kept("SSL", "trial")], "", "finetune --name set --start ssl"),
        ([RANDOM, SSL], [], "", "finetune --name set-anew --start random"),
    ],
)
def test_what_makes_a_set_again(tuned: list[Provenance], models: list[KeptModel], run: str, command: str) -> None:
    """One whose model is not kept any more cannot be made again: the others are compared in a set of their own."""
    assert Again("site-agent", "set").all(tuned, models, run) == f"site-agent {command}"


@pytest.mark.parametrize("one", [RANDOM, ONE, provenance("CSFSSL", start("one", "one", sites=("nhs", "alts")))])
def test_it_is_written_and_read_back(one: Provenance) -> None:
    assert Provenance.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    "change",
    [{"recipe_sha256": "0"}, {"start_recipe_sha256": "0"}, {"recipe": {}}, {"start": {}}, {"more": 1}, {"data": 7}],
)
def test_what_was_changed_by_hand_is_no_provenance(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Provenance.from_json({**json.loads(json.dumps(ONE.to_json())), **change})
