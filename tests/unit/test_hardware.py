"""What a site will train on, as far as files say it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from site_agent.federation.hardware import look
from site_agent.home import HardwareSection


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a /dev as NVIDIA's driver makes it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    return tmp_path


def test_without_a_driver_training_is_on_the_cpu(tmp_path: Path) -> None:
    found = look(HardwareSection(threads=3), tmp_path)
    assert found == "trains on the CPU, 3 threads (no NVIDIA driver, or no GPU in this container)"
    assert look(HardwareSection(device="cpu", threads=3), tmp_path) == "trains on the CPU, 3 threads"


def test_a_gpu_that_is_asked_for_and_not_seen_is_for_the_worker_to_judge(tmp_path: Path) -> None:
    """Other drivers have other files: a guess from files must not refuse a machine that can train."""
    assert "probably there is no GPU: no NVIDIA driver" in look(HardwareSection(device="cuda"), tmp_path)


def test_a_gpu_is_used_unless_it_is_hidden(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = look(HardwareSection(threads=1), gpu)
    assert "trains on a GPU" in seen or "was built for the CPU" in seen  # as the torch that is installed here
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides every GPU" in look(HardwareSection(threads=1), gpu)


def test_looking_starts_no_torch() -> None:
    program = (
        "import sys; from site_agent import home; from site_agent.federation import hardware; "
        "hardware.look(home.HardwareSection())"
    )
    done = subprocess.run([sys.executable, "-c", f"{program}; print('torch' in sys.modules)"], capture_output=True)
    assert done.stdout.split() == [b"False"]
