"""The page of a real coordinator: it tells of a killed agent, outlives the coordinator, and ends at once."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest

from fedcervix.errors import INTERRUPTED
from tests.e2e.loopback import BIN, Federation, start, until
from tests.e2e.page_streams import Stream, enter


def part(stream: Stream, name: str) -> str:
    """Return a part as it is shown now."""
    assert isinstance(stream.view, dict)
    return json.dumps(stream.view.get(name, {}))


@pytest.mark.timeout(180)
def test_a_killed_agent_a_coordinator_that_is_away_and_the_end(federate: Callable[..., Federation]) -> None:
    made = federate(terms={"rounds": 1, "lease_s": 60.0})
    coordinator = made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.enrol(site)
    agents = {site: made.light(site, "--pace-s", "600") for site in made.sites}
    page = start("page", [BIN / "coordinator", "--home", made.home.folder, "page"], made.folder / "logs")
    made.processes.append(page)
    stream = Stream(*enter(page))
    until(
        "both sites are there",
        lambda: (
            '"ready"' in part(stream, "sites") and "first model" in part(stream, "headline") + part(stream, "sites")
        ),
        seen=lambda: part(stream, "sites"),
    )
    agents["alts"].kill()
    until(
        "the page names the cut",
        lambda: "alts: its connection is cut" in part(stream, "attention"),
        timeout_s=20,
        seen=lambda: f"{stream.view}"[:6000] + made.texts(),
    )
    coordinator.kill()
    until("the page says who is away", lambda: "away" in part(stream, "source"))
    assert "The coordinator is away" in part(stream, "headline")
    made.coordinate()
    until(
        "the page has the coordinator back",
        lambda: "All is well" in part(stream, "headline") or "look" in part(stream, "headline"),
    )
    began_s = time.monotonic()
    page.signal(signal.SIGTERM)
    assert page.ended(timeout_s=10) == INTERRUPTED, page.text
    assert time.monotonic() - began_s < 10
    assert "Traceback" not in page.text
