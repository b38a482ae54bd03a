"""What a site lets a federation ask of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedcervix.core.modes import Mode
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import RemoteError
from fedcervix.transport.codec import Welcome
from site_agent.federation.policy import check_welcome, objections
from site_agent.home import Policy

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(rounds=20), recipe=Recipe())


def found(asked: Plan = PLAN, site: str = "ada", **policy: Any) -> list[str]:
    return objections(Policy(**policy), asked, site)


def test_the_policy_of_a_new_site_allows_the_profiles() -> None:
    assert found() == []
    assert found(replace(PLAN, mode="ppfssl")) == []
    for one in PROFILES.values():
        assert found(replace(PLAN, recipe=one.recipe, terms=one.terms)) == []


def test_a_plan_just_within_the_policy_is_allowed() -> None:
    assert found(modes=("csfssl",), sites=("bob",), rounds_max=20, epochs_max=20, plan=PLAN.digest) == []


@pytest.mark.parametrize(
    ("policy", "objection"),
    [
        ({"modes": ("ppfssl",)}, "the plan's mode is csfssl; [policy] modes allows ppfssl"),
        ({"modes": ()}, "the plan's mode is csfssl; [policy] modes allows none"),
        ({"sites": ("cleo", "dora")}, "the plan names bob; [policy] sites allows cleo, dora"),
        ({"rounds_max": 19}, "the plan asks up to 20 rounds; [policy] rounds_max is 19"),
        ({"architectures": ("resnet18",)}, "the plan's network is resnet50; [policy] architectures allows resnet18"),
        ({"image_px_max": 223}, "the plan's image_px is 224; [policy] image_px_max is 223"),
        ({"width_max": 63}, "the plan's width is 64; [policy] width_max is 63"),
        ({"batch_images_max": 7}, "the plan's batch_images is 8; [policy] batch_images_max is 7"),
        ({"epochs_max": 19}, "the plan asks up to 20 epochs; [policy] epochs_max is 19"),
        ({"plan": "5" * 64}, f"the plan's digest is {PLAN.digest}; [policy] plan allows only {'5' * 64}"),
    ],
)
def test_an_objection_says_what_is_asked_and_what_is_allowed(policy: dict[str, Any], objection: str) -> None:
    assert found(**policy) == [objection]


def test_a_site_can_ask_for_models_under_seal_and_for_pins_with_them() -> None:
    ring = replace(PLAN, mode="ppfssl")
    sealed = replace(ring, terms=Terms(rounds=20, sealed=True))
    unpinned = ["site bob is not pinned (site-agent pin bob FINGERPRINT)"]
    (open_,) = found(ring, sealed="required")
    assert open_ == "the coordinator would see what single sites have trained; [policy] sealed is required"
    assert found(sealed, sealed="required") == found(sealed) == unpinned
    assert found(sealed, pins="known") == []


def test_a_site_that_the_plan_does_not_name_objects() -> None:
    assert found(site="zoe") == ["the plan's sites are ada, bob; this site is zoe"]


def test_epochs_are_counted_over_all_rounds() -> None:
    plan = replace(PLAN, terms=Terms(rounds=20, epochs_per_round=2))
    assert found(plan, epochs_max=40) == []
    assert found(plan, epochs_max=39) == ["the plan asks up to 40 epochs; [policy] epochs_max is 39"]


def test_a_share_of_the_average_is_bounded_where_images_are_its_weights() -> None:
    by_images = replace(PLAN, terms=Terms(rounds=20, average="by-images", share_max=0.9))
    assert found(by_images) == found(by_images, share_max=0.9) == []
    assert found(by_images, share_max=0.5) == ["the plan's share_max is 0.9; [policy] share_max is 0.5"]
    assert found(PLAN, share_max=0.5) == [], "equal weights need no bound"


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_is_a_part_of_the_whole(share: float) -> None:
    with pytest.raises(ValueError, match="share_max must be above 0, at most 1"):
        Policy(share_max=share)


def test_the_site_itself_need_not_be_in_its_own_list_of_partners() -> None:
    assert found(sites=("bob",)) == []


def test_every_objection_is_told_at_once() -> None:
    assert len(found(modes=(), sites=("cleo",), rounds_max=1, epochs_max=1, plan="5" * 64, site="zoe")) == 6


@pytest.mark.parametrize("name", ["rounds_max", "width_max", "runs_per_month", "upload_gib_per_month"])
def test_a_limit_is_not_below_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 or more; found -1"):
        Policy(**{name: -1})


def test_a_welcome_is_of_this_federation_and_of_a_run_as_coordinators_name_them() -> None:
    run = "20300101-000000-ppfssl-0123abcd"
    check_welcome(Welcome("cervix", run, PLAN), "cervix")
    with pytest.raises(RemoteError, match="'other'"):
        check_welcome(Welcome("other", run, PLAN), "cervix")
    for wrong in ("ssl", f"{run}0", f"x{run}", run.upper()):
        with pytest.raises(RemoteError, match=wrong):
            check_welcome(Welcome("cervix", wrong, PLAN), "cervix")


def test_a_site_can_require_that_the_coordinator_sees_no_single_update() -> None:
    def plan(**terms: Any) -> Plan:
        mode: Mode = "ppfssl" if terms.get("sealed") else "csfssl"
        return replace(PLAN, mode=mode, sites=("ada", "bob", "cleo"), terms=Terms(rounds=20, **terms))

    pinned: dict[str, Any] = {"pins": "known"}
    sums, ring, plain = plan(secure_sum=True, holders=("ada",)), plan(sealed=True), plan()
    either: dict[str, Any] = {"secure_sum": "required", "sealed": "required"}
    seen = "the coordinator would see what single sites have trained; [policy] {} is required"
    assert found(sums, secure_sum="required", **pinned) == []
    for other in (plain, ring):
        assert found(other, secure_sum="required", **pinned) == [seen.format("secure_sum")]
    for other in (plain, sums):
        assert found(other, sealed="required", **pinned) == [seen.format("sealed")]
    assert found(sums, **either, **pinned) == found(ring, **either, **pinned) == []
    assert found(plain, **either, **pinned) == [seen.format("sealed or secure_sum")]
    with pytest.raises(ValueError, match="secure_sum"):
        Policy(secure_sum="always")  # type: ignore[arg-type]
