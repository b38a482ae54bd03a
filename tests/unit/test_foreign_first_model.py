"""A first model that is not the plan's network: whoever made it, the site that is to use it says so and goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fedcervix.core.events import Task, TaskKind
from fedcervix.errors import ModelError
from fedcervix.models.blobs import BlobStore
from site_agent.network.encoder import save_weights
from site_agent.store.task_results import UnusableResult
from site_agent.worker.tasks import do
from tests.paper.test_federation import SMALL, bench_of, plan_of

torch.set_num_threads(1)


def test_a_plan_that_starts_from_imagenet_s_weights_makes_no_site_download_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    plan = plan_of("csfssl", "nhs", "alts", recipe=dataclasses.replace(SMALL, start="imagenet"))
    with pytest.raises(ModelError, match="are not on this machine"):
        do(bench_of("nhs", tmp_path, plan), Task("run", TaskKind.SEED, 0, ""), plan)


@pytest.mark.parametrize("kind", [TaskKind.TRAIN, TaskKind.SCORE])
def test_a_model_of_another_network_is_unusable_and_no_failure_of_this_site(tmp_path: Path, kind: TaskKind) -> None:
    plan = plan_of("csfssl", "nhs", "alts")
    bench = bench_of("nhs", tmp_path, plan)
    blobs = BlobStore(bench.home.blobs)
    making = blobs.scratch("foreign")
    digest = save_weights(making, {"aaa": torch.zeros(1)})
    blobs.adopt(making, digest)
    found = do(bench, Task("run", kind, 1, digest), plan)
    assert isinstance(found, UnusableResult)
    assert found.steps == 0
    assert "does not fit this model" in found.said[0]
