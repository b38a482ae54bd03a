"""The audit before an update leaves: what the policy holds back does not, and the site is told what to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fedcervix.core.events import Task, TaskKind, UpdateStored
from fedcervix.errors import PolicyError, RunError
from fedcervix.json_text import parsed
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.typed_json import from_json
from fedcervix.transport import codec
from site_agent.data.audited_women import IMAGES_MAX, WOMEN_MAX, chosen_for_audit
from site_agent.data.collection import Collection, Image
from site_agent.manifest.reading import Split
from site_agent.network.encoder import build_encoder, save_weights, snapshot
from site_agent.store.audit_sheets import AuditSheet
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import TrainResult
from site_agent.worker.messages import result_from_json, result_to_json
from site_agent.worker.tasks import TaskContext, do
from tests.unit.agents import Site
from tests.unit.audit_sheets import sheet
from tests.unit.fake_link import RUN, TRAIN, kinds, update
from tests.unit.sites import Site as Clinic
from tests.unit.sites import plan_of
from tests.unit.sites import site as clinic


def with_policy(folder: Path, auc_max: float) -> Site:
    site = Site(folder)
    site.home.config_file.write_text(f"[policy]\naudit_max_auc = {auc_max}\n")
    return site


def test_an_update_that_tells_too_much_does_not_leave(tmp_path: Path) -> None:
    site = with_policy(tmp_path / "site", 0.6)
    site.worker.audit = sheet(0.71)
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, PolicyError)
    assert error.exit_code == 6
    assert error.what.startswith("the update of round 1 stays here")
    assert "an AUC of at least 0.71" in error.what
    assert "audit_max_auc is 0.6" in error.what
    assert f"{site.home.command('audit')} shows" in error.next_step
    assert "push" not in kinds(site.link.reports)
    assert not any(isinstance(told, UpdateStored) for told in site.link.told)
    [refusal] = [told for told in site.link.told if isinstance(told, codec.Refusal)]
    assert refusal.reason == "the site's policy holds its update back"
    assert site.run_store().kept().result is None  # the next process does not send it either
    assert site.run_store().history().train[1].audit == sheet(0.71)


@pytest.mark.parametrize("found", [sheet(0.59), sheet(0.9, women=99), None])
def test_an_update_that_tells_little_or_of_which_nobody_can_tell_leaves(
    tmp_path: Path, found: AuditSheet | None
) -> None:
    site = with_policy(tmp_path / "site", 0.6)
    site.worker.audit = found
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))


def test_a_sheet_comes_through_the_workers_pipe() -> None:
    made = TrainResult(digest="", images=1, steps=1, loss=1.0, seconds=1.0, audit=sheet(0.7))
    assert result_from_json(parsed(json.dumps(result_to_json(made)))) == made


def test_nothing_of_an_audit_leaves(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.worker.audit = dataclasses.replace(sheet(0.7), training_women=4711)
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    assert "4711" not in repr(site.link.told)


# --- who is audited ------------------------------------------------------------------------------------------------


def collection(women: dict[Split, int], each: int = 1, unlabelled: int = 0) -> Collection:
    images = [
        Image(f"{split}-{woman}-{k}.png", f"{split}-{woman}", f"{split}-{woman}", woman % 2, split, "")
        for split, count in women.items()
        for woman in range(count)
        for k in range(each)
    ]
    images += [Image(f"u{k}.png", f"u{k}", f"u{k}", None, "train", "") for k in range(unlabelled)]
    return Collection(
        folder=Path(),
        manifest="",
        images=tuple(images),
        quarantined=(),
        copies=(),
        shared_pictures=(),
        disputed=(),
        moved=(),
        splits_given=True,
    )


def test_training_women_stand_against_test_women_who_chose_nothing() -> None:
    members, others = chosen_for_audit(collection({"train": 9, "valid": 5, "test": 4}, each=2, unlabelled=7), 0)
    assert {image.split for image in members} == {"train"}
    assert {image.split for image in others} == {"test"}
    assert all(image.label is not None for image in members)
    assert (len(members), len(others)) == (18, 8)


def test_a_site_without_test_women_or_without_labels_has_nobody_to_compare() -> None:
    members, others = chosen_for_audit(collection({"train": 9}), 0)
    assert (len(members), others) == (9, ())
    assert chosen_for_audit(collection({}, unlabelled=7), 0) == ((), ())


def test_an_audit_has_an_end_whatever_a_site_has() -> None:
    members, others = chosen_for_audit(collection({"train": 3000, "test": 800}, each=3), 0)
    assert len({image.woman for image in members}) == len({image.woman for image in others}) == WOMEN_MAX
    assert len(members) + len(others) == IMAGES_MAX


def test_women_with_many_images_do_not_take_the_place_of_others() -> None:
    members, others = chosen_for_audit(collection({"train": 150, "test": 100}, each=50), 0)
    assert (len(members), len(others)) == (300, 200)
    assert len({image.woman for image in others}) == 100


# --- the command ---------------------------------------------------------------------------------------------------


def trained(made: Clinic) -> tuple[RunStore, TrainResult]:
    store = RunStore(made.home.run_folder(RUN))
    plan = plan_of(3)
    store.open(plan)
    blobs = BlobStore(made.home.blobs)
    digests = []
    for seed in (1, 2):
        making = blobs.scratch(f"model-{seed}")
        digests.append(save_weights(making, snapshot(build_encoder(plan.recipe, seed))))
        blobs.adopt(making, digests[-1])
    result = TrainResult(digest=digests[1], images=1, steps=1, loss=1.0, seconds=1.0, base=digests[0])
    store.note(1, result)
    return store, result


def test_the_command_writes_the_sheet_down(tmp_path: Path) -> None:
    made = clinic(tmp_path)
    store, result = trained(made)
    said = made.run("audit")
    assert "cannot tell: 10 training women and 4 test women" in said.stdout
    noted = store.history().train[1].audit
    assert noted == AuditSheet(
        round=1, base=result.base, update=result.digest, training_women=10, other_women=4, images=28
    )


@pytest.mark.parametrize("auc_max", [0.6, 1.0])
def test_the_worker_audits_where_the_policy_asks(tmp_path: Path, auc_max: float) -> None:
    made = clinic(tmp_path)
    store, result = trained(made)
    text = made.home.config_file.read_text()
    made.home.config_file.write_text(text.replace("# audit_max_auc = 1.0", f"audit_max_auc = {auc_max}"))
    stages: list[str] = []
    bench = TaskContext(made.home, "nhs", torch.device("cpu"), lambda at: stages.append(at.stage))
    done = do(bench, Task(RUN, TaskKind.TRAIN, 1, result.base), store.plan())
    assert isinstance(done, TrainResult)
    assert done.base == result.base
    if auc_max == 1:
        assert done.audit is None
        return
    assert done.audit is not None
    assert (done.audit.update, done.audit.base, done.audit.round) == (done.digest, result.base, 1)
    assert (done.audit.training_women, done.audit.other_women) == (10, 4)
    assert "cannot tell" in done.said[-1]


def test_an_update_that_is_gone_cannot_be_audited(tmp_path: Path) -> None:
    made = clinic(tmp_path)
    made.take_part(RUN, plan_of(3))
    with pytest.raises(RunError, match="is not on this machine any more") as refused:
        made.run("audit")
    assert "audit_max_auc" in refused.value.next_step


def test_a_note_of_an_earlier_version_has_no_audit() -> None:
    plain = TrainResult(digest="", images=1, steps=1, loss=1.0, seconds=1.0)
    raw = {key: value for key, value in dataclasses.asdict(plain).items() if key not in ("base", "audit")}
    assert from_json(TrainResult, raw, extra="ignore") == plain
