"""The plan: what a run is, checked when built, and named by the hash of its one text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcervix.core.modes import MODES, Mode
from fedcervix.core.plan import (
    SITES_MAX,
    Augment,
    ClassifierRecipe,
    Plan,
    Recipe,
    Terms,
    canonical_json,
    differences,
)
from fedcervix.core.plan_formats import unsaid
from fedcervix.core.profiles import PROFILES, Profile

LEGACY_TERMS = unsaid("terms")
PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_a_plan_is_read_back_from_its_canonical_form(profile: str, mode: Any) -> None:
    given = PROFILES[profile]
    plan = Plan(mode=mode, sites=("ada", "bob"), profile=profile, terms=given.terms, recipe=given.recipe)
    assert Plan.parse(plan.canonical()) == plan


def test_the_contract_is_the_hash_of_the_canonical_form() -> None:
    assert PLAN.digest == hashlib.sha256(PLAN.canonical().encode()).hexdigest()


def test_the_canonical_form_is_sorted_and_without_spaces() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def five(sites: int = 5, mode: Mode = "csfssl", **terms: Any) -> Plan:
    return replace(PLAN, sites=("ada", "bob", "cyd", "dan", "eva")[:sites], mode=mode, terms=Terms(**terms))


def test_the_options_against_single_updates_fit_together() -> None:
    assert five(aggregation="trimmed-mean", clip=3.0, quorum=3, server_momentum=0.5).terms.trim == 0.2
    assert five(3, clip=3.0, average="by-images").terms.clip == 3


def test_the_paper_s_contract_changes_only_on_purpose() -> None:
    """Two sites whose software gives different digests for the same plan could not train together."""
    assert PLAN.digest == "45ae434c2a17b1667a56acc151adb85926c66f79801b4acdeb28f6b86d78850d"


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, mode="ppfssl"),
        replace(PLAN, sites=("bob", "ada")),
        replace(PLAN, terms=replace(PLAN.terms, seed=1)),
        replace(PLAN, terms=replace(PLAN.terms, server_momentum=0.5)),
        replace(PLAN, recipe=replace(PLAN.recipe, lr=0.02)),
        replace(PLAN, recipe=replace(PLAN.recipe, schedule="cosine")),
        replace(PLAN, recipe=replace(PLAN.recipe, warmup_epochs=1.5)),
        replace(PLAN, recipe=replace(PLAN.recipe, proximal=0.01)),
        replace(PLAN, recipe=replace(PLAN.recipe, precision="auto")),
        replace(PLAN, recipe=replace(PLAN.recipe, augment=Augment(shift=0.2))),
    ],
)
def test_every_change_gives_another_contract(other: Plan) -> None:
    assert other.digest != PLAN.digest


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "5", "{}", '{"sites": 3}', "[" * 10_000, '{"sites":["a"],"terms":{},"recipe":{}}', "\ud800"],
    ids=repr,
)
def test_what_is_not_a_plan_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Plan.parse(text)


@pytest.mark.parametrize(
    "change",
    [lambda text: " " + text, lambda text: text.replace(":0.01,", ":1e-2,"), lambda text: text[:-1] + ',"x":1}'],
)
def test_a_plan_has_one_text_and_no_other(change: Any) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        Plan.parse(change(PLAN.canonical()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_plan_with_any_value_exchanged_is_a_plan_or_a_value_error(data: st.DataObject) -> None:
    raw = json.loads(PLAN.canonical())
    table = data.draw(st.sampled_from([raw, raw["terms"], raw["recipe"], raw["recipe"]["augment"]]))
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(JSON)
    try:
        plan = Plan.parse(canonical_json(raw))
    except ValueError:
        return
    assert Plan.parse(plan.canonical()) == plan


# --- checks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: replace(PLAN, mode="swarm"), f"mode must be one of {', '.join(MODES)}; found 'swarm'"),
        (lambda: replace(PLAN, sites=()), "at least one site"),
        (lambda: replace(PLAN, sites=("ada", "ada")), "names each site once"),
        (lambda: replace(PLAN, sites=tuple(f"s{n}" for n in range(SITES_MAX + 1))), "at most 256 sites; found 257"),
        (lambda: replace(PLAN, terms=Terms(quorum=3)), "quorum 3 exceeds the 2 sites"),
        (lambda: Terms(quorum=0), "quorum must be 1 or more; found 0"),
        (lambda: Terms(rounds=0), "rounds must be 1 to 100000; found 0"),
        (lambda: Terms(epochs_per_round=1001), "epochs_per_round must be 1 to 1000; found 1001"),
        (lambda: Terms(patience_rounds=0), "patience_rounds must be 1 or more"),
        (lambda: Terms(lease_s=0.99), "lease_s must be 1 or more"),
        (lambda: Terms(grace_s=-1.0), "grace_s must be 0 or more"),
        (lambda: Terms(give_up_s=0.0), "give_up_s must be above 0"),
        (lambda: Terms(seed=2**63), "seed must be 0 to 2"),
        (lambda: Terms(average="median"), "average must be one of equal, by-images; found 'median'"),
        (lambda: Terms(batch_norm="none"), "batch_norm must be one of mean, pooled-variance, local-statistics, local"),
        (lambda: Terms(optimiser_state="maybe"), "optimiser_state must be one of reset, keep"),
        (lambda: Terms(ring_result="first"), "ring_result must be one of last, cycle-average"),
        (lambda: Terms(compression="gzip"), "compression must be one of none, bfloat16, int8; found 'gzip'"),
        (lambda: Terms(server_momentum=-0.1), "server_momentum must be 0 to below 1; found -0.1"),
        (lambda: Terms(server_momentum=1.0), "server_momentum must be 0 to below 1; found 1.0"),
        (lambda: Terms(server_momentum=float("nan")), "server_momentum must be 0 to below 1; found nan"),
        (
            lambda: replace(PLAN, mode="ppfssl", terms=Terms(server_momentum=0.5)),
            "server_momentum is for csfssl: a ring has no average",
        ),
        (lambda: Terms(aggregation="median"), "aggregation must be one of mean, trimmed-mean; found 'median'"),
        (lambda: Terms(trim=0.5), "trim must be above 0 and below 0.5; found 0.5"),
        (lambda: Terms(trim=float("nan")), "trim must be above 0 and below 0.5; found nan"),
        (lambda: Terms(clip=0.5), "clip must be 0 or 1 to 1000; found 0.5"),
        (lambda: Terms(clip=float("nan")), "clip must be 0 or 1 to 1000; found nan"),
        (lambda: Terms(aggregation="trimmed-mean", average="by-images"), 'needs average = "equal"'),
        (lambda: five(mode="ppfssl", aggregation="trimmed-mean"), "trimmed-mean and clip are for csfssl alone"),
        (lambda: five(mode="ppfssl", clip=3.0), "trimmed-mean and clip are for csfssl alone"),
        (lambda: five(4, aggregation="trimmed-mean"), "trimmed-mean needs at least 5 sites; found 4"),
        (lambda: five(2, clip=3.0), "clip needs at least 3 sites; found 2"),
        (lambda: five(aggregation="trimmed-mean", quorum=2), "trimmed-mean needs a quorum of at least 3"),
        (lambda: Recipe(precision="float16"), "precision must be one of float32, bfloat16, auto; found 'float16'"),
        (lambda: Recipe(schedule="linear"), "schedule must be one of constant, cosine; found 'linear'"),
        (lambda: Recipe(warmup_epochs=-1.0), "warmup_epochs must be 0 to 1000; found -1.0"),
        (lambda: Recipe(warmup_epochs=1000.5), "warmup_epochs must be 0 to 1000; found 1000.5"),
        (lambda: Recipe(proximal=-0.01), "proximal must be 0 to 1000; found -0.01"),
        (lambda: Recipe(proximal=float("nan")), "proximal must be 0 to 1000; found nan"),
        (lambda: Recipe(architecture="resnet34"), "architecture must be one of resnet18, resnet50"),
        (lambda: Recipe(temperature=float("nan")), "temperature must be 0.001 to 10; found nan"),
        (lambda: Recipe(lr=0.0), "lr must be above 0"),
        (lambda: Recipe(momentum=1.0), "momentum must be 0 to below 1"),
        (lambda: Recipe(image_px=16), "image_px must be 32 to 1024; found 16"),
        (lambda: Recipe(batch_images=0), "batch_images must be 1 to 65536"),
        (lambda: Augment(flip_vertical=1.1), "flip_vertical must be 0 to 1; found 1.1"),
        (lambda: Augment(zoom_min=1.2), "zoom_min is at most zoom_max; found 1.2"),
        (lambda: Augment(gamma_max=0.1), "gamma_min is at most gamma_max; found 0.8"),
        (lambda: Augment(brightness=1.0), "brightness must be 0 to below 1"),
        (lambda: ClassifierRecipe(epochs_max=0), "epochs_max must be 1 to 10000"),
        (lambda: ClassifierRecipe(augment="heavy"), "augment must be one of none, light"),
    ],
)
def test_an_impossible_plan_cannot_be_built(build: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build()


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(precision="auto"),
        Recipe(schedule="cosine", warmup_epochs=0.5),
        Recipe(warmup_epochs=1000.0, epochs_max=1),
        Recipe(proximal=1000.0),
    ],
)
def test_the_edges_of_what_is_allowed_are_allowed(recipe: Recipe) -> None:
    plan = replace(PLAN, recipe=recipe, terms=Terms(server_momentum=0.999))
    assert Plan.parse(plan.canonical()) == plan


def test_the_paper_has_no_schedule_no_proximal_term_and_no_server_momentum() -> None:
    recipe, terms = PROFILES["paper"].recipe, PROFILES["paper"].terms
    assert (recipe.schedule, recipe.warmup_epochs, recipe.proximal, recipe.precision) == ("constant", 0, 0, "float32")
    assert terms.server_momentum == 0


@pytest.mark.parametrize("name", ["a", "0", "north-1", "a" * 63])
def test_a_site_is_named_like_a_label_of_a_host_name(name: str) -> None:
    assert replace(PLAN, sites=(name,)).sites == (name,)


@pytest.mark.parametrize("name", ["", "North", "-a", "a-", "a" * 64, "a.b", "a b", "../a", "a\n", "é", "a_b"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a site name"):
        replace(PLAN, sites=(name,))


@pytest.mark.parametrize(
    ("rounds", "epochs_max", "epochs_per_round", "most"),
    [(50, 50, 1, 50), (50, 50, 4, 12), (5, 50, 4, 5), (9, 3, 5, 1)],
)
def test_rounds_never_ask_more_epochs_than_the_recipe_allows(
    rounds: int, epochs_max: int, epochs_per_round: int, most: int
) -> None:
    terms = Terms(rounds=rounds, epochs_per_round=epochs_per_round)
    assert replace(PLAN, terms=terms, recipe=Recipe(epochs_max=epochs_max)).rounds_max == most


# --- differences --------------------------------------------------------------------------------------------------


def test_equal_plans_have_no_differences() -> None:
    assert differences(PLAN, Plan.parse(PLAN.canonical())) == []


def test_differences_are_said_in_words_one_line_each() -> None:
    other = replace(
        PLAN, sites=("ada",), recipe=replace(PLAN.recipe, lr=0.1, augment=Augment(shift=0.2)), terms=Terms(quorum=1)
    )
    assert differences(PLAN, other) == [
        "sites: ('ada', 'bob') here, ('ada',) there",
        "terms.quorum: None here, 1 there",
        "recipe.lr: 0.01 here, 0.1 there",
        "recipe.augment.shift: 0.1 here, 0.2 there",
    ]


# --- profiles -----------------------------------------------------------------------------------------------------


def test_the_profile_paper_is_the_default_of_every_value() -> None:
    assert PROFILES["paper"] == Profile(Recipe(), Terms())


def test_the_profiles_by_name() -> None:
    assert list(PROFILES) == ["paper", "recommended", "demo"]


def test_a_plan_that_was_written_before_a_term_existed_is_read_and_keeps_its_digest() -> None:
    raw = json.loads(PLAN.canonical())
    for key in LEGACY_TERMS:
        raw["terms"].pop(key, None)
    old = canonical_json(raw)
    plan = Plan.parse(old)
    assert (plan.canonical(), plan.digest) == (old, hashlib.sha256(old.encode()).hexdigest())
    assert {key: getattr(plan.terms, key) for key in LEGACY_TERMS} == dict(LEGACY_TERMS)
    assert plan.terms.share_max == 1, "nothing was limited then"
    assert plan.digest == "3dd4535e1b6d4fe59e954513cf609cd87f6ebd2014931d603ca91efbfb1c7797", "as it was then"


def test_what_older_plans_do_not_say_are_terms_within_their_bounds() -> None:
    assert Plan.parse(replace(PLAN, terms=Terms(**LEGACY_TERMS)).canonical()).terms == Terms(**LEGACY_TERMS)
    said = PLAN.canonical().replace('"share_max":0.9', '"share_max":1.0')
    assert Plan.parse(said).digest == hashlib.sha256(said.encode()).hexdigest(), "a text is kept as it was written"


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_is_above_0_and_at_most_the_whole(share: float) -> None:
    with pytest.raises(ValueError, match="share_max must be above 0, at most 1"):
        Terms(share_max=share)


@pytest.mark.parametrize(
    ("path", "found", "words"),
    [
        ("terms.rounds", 3.5, "rounds must be a whole number; found 3.5"),
        ("terms.quorum", 1.5, "quorum must be a whole number; found 1.5"),
        ("terms.lease_s", 10**400, "lease_s must be a number; found 1000"),
        ("recipe.width", True, "width must be a whole number; found True"),
        ("recipe.normalise", "yes", "normalise must be true or false; found 'yes'"),
        ("recipe.lr", "x", "lr must be a number; found 'x'"),
        ("recipe.classifier.batch_images", 2.5, "batch_images must be a whole number; found 2.5"),
        ("profile", 5, "profile must be a text; found 5"),
        ("sites", ["a", 5], "not a plan"),
    ],
)
def test_a_plan_whose_values_are_of_another_type_is_none(path: str, found: object, words: str) -> None:
    """The coordinator writes it: a site that took 2.5 images for a number ended with a traceback, at each command."""
    raw = json.loads(Plan(mode="csfssl", sites=("a", "b"), profile="demo", terms=Terms(), recipe=Recipe()).canonical())
    *folders, key = path.split(".")
    place = raw
    for folder in folders:
        place = place[folder]
    place[key] = found
    with pytest.raises(ValueError, match=words):
        Plan.parse(canonical_json(raw))
