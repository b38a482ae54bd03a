"""Whether the NVIDIA driver of this machine is new enough for the torch that is installed.

torch brings its own CUDA libraries; the driver is the machine's. A driver that is older than the first one of CUDA's
major version cannot run them (NVIDIA, "CUDA Compatibility", minor version compatibility).
"""

from __future__ import annotations

import re
from pathlib import Path

from fedcervix.doctor.findings import Finding
from fedcervix.errors import TrainingError

DRIVER_FILE = Path("/proc/driver/nvidia/version")
DRIVER_MIN = {11: 450, 12: 525, 13: 580}
"""major version of CUDA -> major version of the first driver for Linux that runs it"""
_DRIVER = re.compile(r"NVRM version:.*?\s(\d{3,4})\.(\d+)")


def installed_driver(file: Path = DRIVER_FILE) -> int | None:
    """Return the major version of the NVIDIA driver; None where there is none, or it does not say."""
    try:
        found = _DRIVER.search(file.read_text("ascii", errors="replace"))
    except OSError:
        return None
    return int(found[1]) if found else None


def driver(installed: int | None, cuda: str | None, *, wanted: bool) -> Finding:
    """Compare a driver with the CUDA of torch, such as 13.0 (None: built for the CPU). `wanted`: a GPU may be used."""
    if not wanted or cuda is None or installed is None:
        return "not needed: training uses no NVIDIA GPU here"
    needed = DRIVER_MIN.get(int(cuda.partition(".")[0]))
    if needed is None or installed >= needed:
        return f"NVIDIA driver {installed}, CUDA {cuda} of torch"
    return TrainingError(
        f"the NVIDIA driver here is version {installed}; torch has CUDA {cuda}, which needs {needed} or later",
        cause="torch was upgraded and the driver was not",
        next_step="ask IT for a newer NVIDIA driver (nvidia-smi shows the present one), or install a torch for an "
        'earlier CUDA; until then device = "cpu" in site.toml trains on the processor',
    )
