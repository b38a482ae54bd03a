"""Training at one site, as its engineer does it: a process that is stopped, killed and started again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from site_agent.home import SiteHome
from tests.e2e.loopback import BIN, TINY_RECIPE, Process, start, toml

pytestmark = pytest.mark.timeout(180)

Train = Callable[[SiteHome], Process]


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Train]:
    """Return a maker of `site-agent pretrain` processes, which end with the test."""
    keys = {**TINY_RECIPE, "epochs_max": 5}
    (tmp_path / "recipe.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
    with ExitStack() as stack:

        def begin(home: SiteHome) -> Process:
            command = [BIN / "site-agent", "--home", home.folder, "pretrain", "--recipe", tmp_path / "recipe.toml"]
            process = start(home.folder.name, command, tmp_path / "logs")
            stack.callback(process.end)
            return process

        yield begin


@pytest.fixture
def homes(tmp_path: Path, collections: dict[str, Path]) -> Callable[[str], SiteHome]:
    """Return a maker of home folders as an engineer writes them who has joined no federation."""

    def make(name: str) -> SiteHome:
        home = SiteHome(tmp_path / name)
        home.folder.mkdir()
        data = {"manifest": str(collections["nhs"] / "manifest.csv"), "unreadable_max": 0.2}
        home.config_file.write_text(toml({"data": data, "hardware": {"device": "cpu", "threads": 1}}))
        return home

    return make


def digest(home: SiteHome) -> str:
    found: str = json.loads((home.models / "ssl" / "record.json").read_text())["digest"]
    return found


def checkpoints(home: SiteHome) -> list[Path]:
    return list((home.folder / "checkpoints").glob("*.safetensors"))


@pytest.mark.long
def test_stopped_and_killed_a_training_ends_with_the_weights_of_an_undisturbed_one(
    train: Train, homes: Callable[[str], SiteHome]
) -> None:
    calm, stormy = homes("calm"), homes("stormy")
    undisturbed = train(calm)

    first = train(stormy)
    first.says("epoch 1 of 5:")
    os.kill(first.pid, signal.SIGINT)
    assert first.ended() == 130, first.text
    assert "stopping at the end of this step; a checkpoint is saved" in first.text
    assert f"stopped; continue with: site-agent --home {stormy.folder} pretrain --recipe " in first.text
    [kept] = checkpoints(stormy)

    second = train(stormy)
    second.says("continues from its checkpoint: epoch ")
    second.kill()
    assert checkpoints(stormy) == [kept], "kill -9 asks nobody"

    third = train(stormy)
    assert third.ended() == 0, third.text
    assert "continues from its checkpoint: epoch " in third.text
    assert "epoch 1 of 5:" not in third.text, "what was trained is not trained again"
    assert undisturbed.ended() == 0, undisturbed.text
    assert digest(stormy) == digest(calm)
    assert checkpoints(stormy) == checkpoints(calm) == []
