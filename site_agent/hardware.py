"""What this machine can train on, as far as that is known without starting torch.

torch takes seconds and a gigabyte to load. Whether there is a GPU, and whether the installed torch was built for one,
stands in files. Only `start` asks torch itself, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from fedcervix.errors import TrainingError
from fedcervix.extras import missing
from site_agent.home import HardwareSection

GPU_FILES = ("nvidia[0-9]*", "dxg")
"""below /dev: NVIDIA's driver, and Windows' under WSL"""
START_S = 300.0
"""how long torch may take to start, on a machine that is busy"""
_START = "from site_agent import devices; print(devices.name_of(devices.choose(sys.argv[1])))"


def look(hardware: HardwareSection, dev: Path = Path("/dev")) -> str:
    """Say what this site will train on. Raises TrainingError if the GPU that it asks for is not there, ConfigError."""
    if hardware.device == "cpu":
        return _cpu(hardware)
    missing = _no_gpu(dev)
    if not missing:
        return f"trains on a GPU, with torch {_torch_version('__version__')}; check --hardware starts it"
    if hardware.device == "cuda":
        raise TrainingError(
            "device = cuda was asked for, but there is no GPU to train on",
            cause=missing,
            next_step='run nvidia-smi; or set device = "auto" to train on the CPU',
        )
    return f"{_cpu(hardware)}: {missing}"


def _cpu(hardware: HardwareSection) -> str:
    _torch_file()
    threads = hardware.threads or len(os.sched_getaffinity(0))
    return f"trains on the CPU with {threads} threads"


def _no_gpu(dev: Path) -> str:
    """Say why training cannot use a GPU; empty where it can, for all that is known."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if not any(any(dev.glob(name)) for name in GPU_FILES):
        return "no NVIDIA driver, or no GPU in this container"
    if _torch_version("cuda") is None:
        return "the torch that is installed was built for the CPU"
    return ""


def _torch_version(name: str) -> str | None:
    """Return what torch's file of versions says of `name`: '13.0' of `cuda`."""
    found = re.search(rf"(?m)^{name}\b[^=]*= '(.*)'", _torch_file().read_text(encoding="utf-8"))
    return found[1] if found else None


def _torch_file() -> Path:
    try:
        found = importlib.util.find_spec("torch")
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise missing("torch")
    return Path(found.origin).with_name("version.py")


def start(hardware: HardwareSection) -> str:
    """Start torch in a process of its own, and say what it trains on. Raises TrainingError."""
    look(hardware)
    asked = [sys.executable, "-c", f"import sys; {_START}", hardware.device]
    try:
        said = subprocess.run(
            asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=True
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no word"])[-1]
        raise TrainingError(
            f"torch does not start: {last}",
            cause="torch, or the driver of the GPU, is broken or does not fit the other",
            next_step='run nvidia-smi; or set device = "cpu" to train on the CPU',
        ) from error
    except subprocess.TimeoutExpired as error:
        raise TrainingError(
            f"torch did not start within {START_S:.0f} s",
            cause="the machine is busy, or the driver of the GPU hangs",
            next_step="run nvidia-smi; then check again",
        ) from error
    return f"trains on {said.stdout.strip()}"
