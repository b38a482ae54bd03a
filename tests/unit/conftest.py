"""What several tests of this folder share: a site that was trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sites import Site, copied, site


@pytest.fixture(scope="session")
def made_alone(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Train a site without a federation. Tests work on a copy of it."""
    made = site(tmp_path_factory.mktemp("alone"))
    made.train("pretrain")
    made.train("finetune")
    return made


@pytest.fixture
def alone(made_alone: Site, tmp_path: Path) -> Site:
    """Return a site with a model of its own, and classifiers from it and from random weights."""
    return copied(made_alone, tmp_path)
