"""Who sees what: the tables of docs/security.md are what a program found that played each actor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.who_sees import KINDS, play, table

pytestmark = pytest.mark.timeout(120)
PAGE = Path(__file__).parents[2] / "docs" / "security.md"


KIND_MARKS = {"csfssl": pytest.mark.long, "ppfssl": pytest.mark.long}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=KIND_MARKS.get(kind, ())) for kind in KINDS])
def test_the_page_says_what_each_actor_could_read(kind: str, tmp_path: Path) -> None:
    seen, assets = play(tmp_path, KINDS[kind])
    found = table(seen, assets)
    assert found in PAGE.read_text(), f"docs/security.md, Who sees what, {kind}: the program found\n{found}"
