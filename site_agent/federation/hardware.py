"""What this machine can train on, as far as that is known without starting torch.

torch takes seconds and a gigabyte to load. Whether there is a GPU, and whether the installed torch was built for one,
stands in files. What training costs, a worker process finds out (`site_agent.worker.preflight`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fedcervix.extras import require
from site_agent.home import HardwareSection

GPU_FILES = ("nvidia[0-9]*", "dxg")
"""below /dev: NVIDIA's driver, and Windows' under WSL"""


def look(hardware: HardwareSection, dev: Path = Path("/dev")) -> str:
    """Say what this site will train on, as far as files tell; the worker knows. Raises ConfigError without torch."""
    if hardware.device == "cpu":
        return _cpu(hardware)
    why = no_gpu(dev)
    if not why:
        return f"trains on a GPU, with torch {torch_says('__version__')}"
    if hardware.device == "cuda":
        return f"device = cuda is set, but probably there is no GPU: {why}"
    return f"{_cpu(hardware)} ({why})"


def _cpu(hardware: HardwareSection) -> str:
    _torch_file()
    threads = hardware.threads or len(os.sched_getaffinity(0))
    return f"trains on the CPU, {threads} thread{'' if threads == 1 else 's'}"


def no_gpu(dev: Path = Path("/dev")) -> str:
    """Say why training cannot use a GPU; empty where it can, for all that is known."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if not any(any(dev.glob(name)) for name in GPU_FILES):
        return "no NVIDIA driver, or no GPU in this container"
    if torch_says("cuda") is None:
        return "the torch that is installed was built for the CPU"
    return ""


def torch_says(name: str) -> str | None:
    """Return what torch's file of versions says of `name`: '13.0' of `cuda`. Raises ConfigError without torch."""
    found = re.search(rf"(?m)^{name}\b[^=]*= '(.*)'", _torch_file().read_text(encoding="utf-8"))
    return found[1] if found else None


def _torch_file() -> Path:
    found = require("torch")
    assert found.origin is not None
    return Path(found.origin).with_name("version.py")
