"""What the tests of this folder share: two phantom collections, and the right results, each made once."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.plan import Plan
from tests.e2e.institutions import draw_collections
from tests.e2e.light_right import light_result
from tests.e2e.light_worker import NUMBERS
from tests.e2e.loopback import HERE, Federation, federation

Once = Callable[[str, Callable[[Path], None]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here runs real processes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Return a maker of folders that are made once, however many processes the tests are spread over."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "once"
    shared.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / f"{name}.made").exists():
                shutil.rmtree(shared / name, ignore_errors=True)  # of a maker that ran out of time
                (shared / name).mkdir()
                fill(shared / name)
                (shared / f"{name}.made").touch()
        return shared / name

    return make


@pytest.fixture(scope="session")
def collections(once: Once) -> dict[str, Path]:
    """Return two tiny institutions of twelve labelled women each: {site: folder with manifest.csv}."""
    folder = once("collections", draw_collections)
    return {name: folder / name for name in ("nhs", "alts")}


Reference = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def reference(once: Once, collections: dict[str, Path]) -> Reference:
    """Return the right results of a plan, computed by one process that federates nothing (see reference.py)."""

    def compute(plan: Plan, *, local: int = 0) -> dict[str, Any]:
        def fill(folder: Path) -> None:
            (folder / "plan.json").write_text(plan.canonical())
            manifests = [f"{site}={collections[site] / 'manifest.csv'}" for site in plan.sites]
            more = ["--local", str(local)] if local else []
            command = [sys.executable, HERE / "reference.py", folder, folder / "plan.json", *manifests, *more]
            done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode()
            (folder / "found.json").write_bytes(done.stdout)
            for model in folder.rglob("*.safetensors"):
                model.unlink()

        folder = once(f"reference-{plan.digest[:16]}-{local}", fill)
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
        return found

    return compute


@pytest.fixture
def federate(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Return a maker of federations whose processes end with the test."""
    with ExitStack() as stack:
        made = []

        def make(**options: Any) -> Federation:
            folder = tmp_path / f"federation-{len(made)}"
            made.append(stack.enter_context(federation(folder, **options)))
            return made[-1]

        yield make


@pytest.fixture
def light_right(federate: Callable[..., Federation], tmp_path: Path) -> Callable[..., str]:
    """Return the right result of a federation of light sites (see light_right.py)."""

    def right(
        mode: str, *, numbers: int = NUMBERS, attempt: int = 1, sites: tuple[str, ...] = ("nhs", "alts"), **terms: Any
    ) -> str:
        return light_result(federate(sites=sites, terms=terms).plan(mode), tmp_path / "one-table", numbers, attempt)

    return right
