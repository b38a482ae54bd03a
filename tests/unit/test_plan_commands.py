"""The commands `plan` of both programs, without a federation: what they print, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from coordinator.commands import planning
from coordinator.home.home import Home
from coordinator.run.paces import Paces
from fedcervix.core.pace import SitePace, pace_key
from fedcervix.errors import ConfigError, FedcervixError, RunError
from fedcervix.runtime.pace_lines import PaceLine, pace_text
from site_agent.commands import planning as site_planning
from site_agent.home import SiteHome
from site_agent.home import create as create_site
from site_agent.worker.preflight import Cost
from tests.unit.coordinator_homes import made

pytestmark = pytest.mark.timeout(60)

PACE = SitePace(
    steps=10,
    step_low_s=1.0,
    step_high_s=1.5,
    score_low_s=2.0,
    score_high_s=3.0,
    down_low=1e6,
    down_high=2e6,
    up_low=1e6,
    up_high=2e6,
    model_bytes=10_000_000,
    memory_bytes=2**30,
    memory_free_bytes=2**33,
    disk_bytes=2**28,
    disk_free_bytes=2**36,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


def handed_over(home: Home, folder: Path, site: str, pace: SitePace = PACE, **other: str) -> Path:
    values = {"site": site, "pace_key": pace_key(home.plan("csfssl").recipe), **other}
    file = folder / f"{site}.json"
    file.write_text(pace_text(PaceLine(at=1e9, pace=pace, **values)))
    return file


def test_files_of_all_sites_give_a_range_and_who_is_waited_for(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = dataclasses.replace(PACE, steps=100)
    files = [handed_over(home, tmp_path, "nhs"), handed_over(home, tmp_path, "alts", slow)]
    planning.plan(home, "csfssl", files, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "a round takes 1" in said
    assert "10,000,000 bytes" in said
    assert re.search(r"note: alts takes \d times as long in a round as the other sites\. It has more images: 100", said)
    assert "batch_images" in said
    planning.plan(home, "ppfssl", files, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["prediction"]["sites"][1]["straggler"]
    assert [line["pace"]["steps"] for line in found["measured"]] == [10, 100]
    assert found["remarks"]


def test_what_a_run_has_measured_is_used_and_a_file_counts_before_it(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedcervix.core.rounds.state import begin

    planned = home.plan("csfssl")
    run = begin("20300101-000000-csfssl-00000000", planned, base="5" * 64, at=0.0)
    Paces(run.run, home.paces).note(run, "nhs", PACE, 2e9)
    planning.plan(home, "csfssl", [], as_json=True)
    assert json.loads(capsys.readouterr().out)["prediction"]["unmeasured"] == ["alts"]
    newer = handed_over(home, tmp_path, "nhs", dataclasses.replace(PACE, steps=77))
    planning.plan(home, "csfssl", [newer], as_json=True)
    assert json.loads(capsys.readouterr().out)["measured"][0]["pace"]["steps"] == 77


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not what a site has measured"),
        ("[1]", "not what a site has measured"),
        ('{"site": "nhs"}', "not what a site has measured"),
    ],
    ids=["empty", "list", "half"],
)
def test_a_file_that_is_none_is_refused_in_words(home: Home, tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=words) as refused:
        planning.plan(home, "csfssl", [file], as_json=False)
    assert "site-agent plan" in refused.value.next_step


def test_a_site_that_is_not_in_the_roster_or_measured_something_else_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="roster"):
        planning.plan(home, "csfssl", [handed_over(home, tmp_path, "mallory")], as_json=False)
    with pytest.raises(ConfigError, match="another recipe"):
        planning.plan(home, "csfssl", [handed_over(home, tmp_path, "nhs", pace_key="0" * 64)], as_json=False)


def test_without_measures_or_a_mode_it_says_what_to_do(home: Home) -> None:
    with pytest.raises(RunError, match="no site has measured") as nothing:
        planning.plan(home, "csfssl", [], as_json=False)
    assert "site-agent plan --json" in nothing.value.next_step
    with pytest.raises(RunError, match="mode"):
        planning.plan(home, None, [], as_json=False)


def test_too_little_memory_or_disk_is_a_remark(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poor = dataclasses.replace(PACE, memory_free_bytes=2**20, disk_free_bytes=2**20, down_high=0.0, down_low=0.0)
    planning.plan(home, "csfssl", [handed_over(home, tmp_path, "nhs", poor)], as_json=True)
    remarks = " ".join(json.loads(capsys.readouterr().out)["remarks"])
    for words in ("too little memory", "too little room", "the line was not measured at nhs"):
        assert words in remarks


# --- at a site ----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> SiteHome:
    home = SiteHome(tmp_path / "site")
    create_site(home)
    home.config_file.write_text('[data]\nmanifest = "none.csv"\n')
    return home


def test_beside_a_running_agent_nothing_is_measured(site: SiteHome) -> None:
    with site.locked(), pytest.raises(RunError, match="an agent is running"):
        site_planning.plan(site, "paper", None, None, as_json=False)


def test_a_home_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(FedcervixError):
        site_planning.plan(SiteHome(tmp_path / "none"), None, None, None, as_json=False)


def test_the_findings_name_ranges() -> None:
    cost = Cost(device="cpu", epochs_per_round=2, rounds_max=5, pace=dataclasses.replace(PACE, decode_high_s=9.0))
    [time, memory, disk] = [words for _, words in cost.lines()]
    assert time.startswith("a round takes 22 to 33 s on cpu (20 steps of 1.0 to 1.5 s, scoring 2.0 to 3.0 s)")
    assert "all 5 rounds: 110 to 165 s" in time or "all 5 rounds: 1.8 to 2.8 min" in time
    assert "decoding takes 0 to 9.0 s" in time
    assert "1.0 GiB" in memory
    assert "256 MiB" in disk
    untimed = dataclasses.replace(PACE, step_low_s=0.0, step_high_s=0.0)
    assert "not timed" in Cost(device="cpu", epochs_per_round=1, rounds_max=1, pace=untimed).lines()[0][1]
