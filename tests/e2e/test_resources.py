"""What the coordinator needs."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcervix.core.plan import Recipe
from tests.e2e.loopback import Federation, until

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

ROUNDS = {"rounds": 2, "epochs_per_round": 1}

WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "PIL", "sklearn", "matplotlib", "jinja2"):
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
from coordinator.cli import main
main()
"""

RESNET50 = """
import sys
from site_agent.network.encoder import build_encoder, save_weights, snapshot
from fedcervix.core.plan import Recipe
save_weights(__import__("pathlib").Path(sys.argv[1]), snapshot(build_encoder(Recipe(), 1)))
"""


@pytest.mark.long
def test_a_coordinator_without_torch_averages_resnet_50_in_150_mb(federate: Federate) -> None:
    paper = {"architecture": "resnet50", "width": Recipe().width}
    made = federate(terms=ROUNDS, run={"base": "first.safetensors"}, recipe=paper)
    first = made.home.folder / "first.safetensors"
    subprocess.run([sys.executable, "-c", RESNET50, str(first)], check=True)
    assert first.stat().st_size > 90_000_000
    coordinator = made.coordinate("--mode", "csfssl", program=[sys.executable, "-c", WITHOUT_TORCH])
    for site in made.sites:
        made.enrol(site)
    sites = [made.light(site) for site in made.sites]

    peaks_kb = [0]

    def ended() -> bool:
        with contextlib.suppress(OSError):
            peaks_kb.extend(
                int(kb) for kb in re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{coordinator.pid}/status").read_text())
            )
        return not coordinator.running()

    until("the coordinator ends", ended, seen=made.texts)
    made.finish(coordinator, *sites)
    assert made.record()["outcome"] == "OK"
    assert made.result() != ""
    assert 20_000 < max(peaks_kb) < 150_000
