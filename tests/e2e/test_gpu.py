"""A federation whose sites train on a GPU, and what a site does with the model there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.loopback import Federation, call

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
"""the first use of a GPU loads and compiles much"""


@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_two_sites_train_on_a_gpu_and_use_the_model_there(
    federate: Callable[..., Federation], collections: dict[str, Path], mode: str
) -> None:
    federation = federate(hardware={"device": "cuda"})
    coordinator = federation.coordinate("--mode", mode)
    for site, collection in collections.items():
        federation.enrol(site, collection / "manifest.csv")
    federation.finish(coordinator, *[federation.agent(site) for site in collections])

    record = federation.record()
    assert record["outcome"] == "OK"
    assert federation.adopted("nhs") == federation.adopted("alts") == [record["model"]]
    home = federation.site("nhs").folder
    for command in (["finetune", "--profile", "demo"], ["evaluate"]):
        code, text = call("site-agent", "--home", home, *command, cwd=federation.folder)
        assert code == 0, text
    assert list(federation.site("nhs").folder.rglob("report.html"))
