"""How much room a run takes at a site: the files that lie there at once, and those that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from site_agent.worker.disk_need import FileBytes, disk_need
from tests.unit.agents import Site
from tests.unit.fake_link import OVER, RUN, TRAIN, digest, plan

pytestmark = pytest.mark.timeout(30)

MODEL, PACKED, RESIDUAL, VECTOR, OWN, CHECKPOINT = (10**n for n in (12, 10, 8, 6, 4, 2))
SITES = ("first", "second", "last")
SUMS: dict[str, Any] = {"secure_sum": True, "holders": ("first", "second")}


def planned(mode: str, terms: dict[str, Any]) -> Plan:
    return Plan(mode=mode, sites=SITES, profile="demo", terms=Terms(**terms), recipe=Recipe())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "terms", "site", "made", "want"),
    [
        ("csfssl", {}, "first", {}, (3 * MODEL, 2 * MODEL)),
        ("csfssl", {}, "first", {"own": OWN}, (3 * MODEL + 2 * OWN, 2 * MODEL + 2 * OWN)),
        ("csfssl", {"compression": "bfloat16"}, "first", {"packed": PACKED}, (3 * MODEL + 2 * PACKED, 2 * MODEL)),
        (
            "csfssl",
            {"compression": "int8"},
            "first",
            {"packed": PACKED, "residual": RESIDUAL},
            (3 * MODEL + 2 * PACKED + 2 * RESIDUAL, 2 * MODEL + 2 * RESIDUAL),
        ),
        ("csfssl", SUMS, "first", {"vector": VECTOR}, (5 * MODEL + VECTOR, 4 * MODEL)),
        ("csfssl", {**SUMS, "server_momentum": 0.5}, "last", {"vector": VECTOR}, (6 * MODEL + VECTOR, 5 * MODEL)),
        ("ppfssl", {}, "first", {}, (3 * MODEL, 2 * MODEL)),
        ("ppfssl", {}, "second", {}, (3 * MODEL, 2 * MODEL)),
        ("ppfssl", {"compression": "bfloat16"}, "second", {"packed": PACKED}, (4 * MODEL + 2 * PACKED, 2 * MODEL)),
        ("ppfssl", {"sealed": True}, "first", {}, (5 * MODEL, 2 * MODEL)),
        ("ppfssl", {"sealed": True}, "second", {}, (5 * MODEL, 2 * MODEL)),
    ],
)
def test_the_room_of_a_run_is_what_lies_there_at_once(
    mode: str, terms: dict[str, Any], site: str, made: dict[str, int], want: tuple[int, int]
) -> None:
    found = disk_need(planned(mode, terms), site, FileBytes(model=MODEL, **made), checkpoints=0)
    assert (found.most, found.left) == want


def test_checkpoints_are_there_while_a_model_is_made_and_go_with_the_score() -> None:
    size = FileBytes(model=MODEL, checkpoint=2 * MODEL)
    found = [disk_need(planned("csfssl", {}), "first", size, checkpoints=count) for count in (0, 1, 2, 50)]
    assert [one.most for one in found] == [3 * MODEL, 5 * MODEL, 5 * MODEL, 5 * MODEL]
    assert {one.left for one in found} == {2 * MODEL}


def test_an_agent_keeps_as_many_models_as_were_predicted(tmp_path: Path) -> None:
    """Before: five were counted, where three lie at once."""
    site = Site(tmp_path)
    average = b"the average of all"
    site.link.models[digest(average)] = average
    seen = list[int]()
    site.worker.meanwhile += [lambda: seen.append(files(site))] * 2
    score, adopt = (Task(RUN, kind, 1, digest(average)) for kind in (TaskKind.SCORE, TaskKind.ADOPT))
    site.attach(TRAIN)
    seen.append(files(site))
    site.says(score)
    site.says(adopt)
    site.says(OVER)
    need = disk_need(plan(), "nhs", FileBytes(model=1), checkpoints=0)
    assert seen == [1, 2, 3]
    assert (max(seen), files(site)) == (need.most, need.left)


def files(site: Site) -> int:
    return len([*site.home.folder.rglob("*.safetensors"), *site.home.blobs.rglob("*.part")])
