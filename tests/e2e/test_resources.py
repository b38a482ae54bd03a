"""What the coordinator needs, and what happens where it has too little."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedcervix.errors import StorageError
from tests.e2e.loopback import Federation, federation, until

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

DISK_BYTES = 100 << 20
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
from site_agent.model import build_encoder, save_weights, snapshot
from fedcervix.plan import Recipe
save_weights(__import__("pathlib").Path(sys.argv[1]), snapshot(build_encoder(Recipe(), 1)))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of its own that a test can fill."""
    folder = tmp_path / "small" / "coordinator"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode != 0:
        pytest.skip("this user may not mount a small disk (tmpfs)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave not one byte on a disk; return the file to delete."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_a_full_disk_at_the_coordinator_costs_time_and_nothing_else(
    small_disk: Path, light_right: Callable[..., str]
) -> None:
    with federation(small_disk.parent, terms=ROUNDS) as made:
        coordinator = made.coordinate("--mode", "csfssl")
        for site in made.sites:
            made.enrol(site)
        sites = [made.light(site, "--pace-s", "0.3") for site in made.sites]
        nhs = sites[0]

        nhs.says("asked to train in round 1")
        ballast = fill(small_disk)
        nhs.says("no room for a model")
        nhs.says("trying again by itself")
        assert "likely cause: the disk is (nearly) full" in nhs.text
        assert f"next: make room (df -h {made.home.blobs})" in nhs.text
        assert '"event": "storage"' in coordinator.text
        assert made.overview()["phase"] == "training"  # it still answers
        ballast.unlink()

        nhs.says("asked to score the model of round 1")
        ballast = fill(small_disk)
        nhs.says("journal.db cannot be used")
        # A coordinator that dies now cannot come back, and says why; what it had acknowledged is on the disk.
        coordinator.kill()
        refused = made.coordinate(listening=False)
        assert refused.ended() == StorageError.exit_code
        assert "likely cause: " in refused.text
        assert "next: " in refused.text
        ballast.unlink()

        made.finish(made.coordinate(), *sites)
        assert made.record()["outcome"] == "OK"
        assert made.result() == light_right("csfssl", **ROUNDS)


def test_a_coordinator_without_torch_averages_resnet_50_in_150_mb(federate: Federate) -> None:
    made = federate(terms=ROUNDS, run={"base": "first.safetensors"})
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
