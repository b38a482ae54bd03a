"""A slice of `make hostile`: the most telling attacks, for seconds, and what the program itself decides.

What is measured there is asserted here as far as a busy machine allows: nothing fails, everything answers, the round
goes on, and nothing of the attacker stays.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.hostile.field.attacks import ATTACKS
from tests.e2e.hostile.field.battle import Calls, Command, Finding, fight
from tests.e2e.hostile.field.frames import Flag, Kind, block, frame
from tests.e2e.hostile.field.ground import Ground, Programs
from tests.e2e.hostile.field.verdict import HEAD, broken, row

SECONDS = 2.0


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    ground = Ground(tmp_path_factory.mktemp("field") / "enrolled", Programs())
    ground.enrol()
    return ground


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", [pytest.param("no-body", marks=pytest.mark.long), "rapid-reset"])
def test_no_certificate_holds_up_the_others(enrolled: Ground, tmp_path: Path, name: str) -> None:
    finding = fight(enrolled, tmp_path / name, name, seconds=SECONDS, seed=0, brief=True)
    assert finding.trouble == ""
    assert finding.counts["connections"] >= 1
    assert finding.attacked.seconds, "no honest call was made"
    assert finding.attacked.failures.total() == 0, finding.attacked.failures
    assert {name: command.words for name, command in finding.commands.items() if command.code != 0} == {}
    assert not finding.left
    assert sum(finding.rounds) >= 1
    assert finding.goes_on_after


# --- what the program decides -------------------------------------------------------------------------------------


DONE = Counter({"calls": 40})


def calls(*ms: float, failures: int = 0) -> Calls:
    return Calls(tuple(each / 1000 for each in ms), Counter({"UNAVAILABLE": failures} if failures else {}))


def test_a_finding_without_fault_holds() -> None:
    finding = Finding("no-body", ATTACKS["no-body"], calls(10, 12), calls(12, 20), rounds=[2, 3], counts=DONE)
    assert [*broken(finding)] == []
    assert row(finding)[-1] == "holds"
    assert len(row(finding)) == len(HEAD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacked": calls(10, 25)}, "honest p95 went from 12.0 to 25.0 ms"),
        ({"attacked": calls(10, 12, failures=1)}, "1 of 2 honest calls failed"),
        ({"commands": {"revoke": Command(7, 10.0)}}, "revoke ended with 7"),
        ({"commands": {"status": Command(0, 2.5)}}, "status took 2.5 s"),
        ({"left": 1}, "1 connections of the attacker were left"),
        ({"left_bytes": 5}, "5 bytes of the attacker's models were left"),
        ({"rounds": [2, 0]}, "no round was begun"),
        ({"trouble": "the coordinator ended"}, "the coordinator ended"),
        ({"counts": Counter()}, "the attacker did nothing"),
    ],
)
def test_a_bound_that_does_not_hold_is_named(changes: dict[str, object], words: str) -> None:
    told = {"quiet": calls(10, 12), "attacked": calls(10, 12), "rounds": [1, 1], "counts": DONE, **changes}
    [found] = broken(Finding("no-body", ATTACKS["no-body"], **told))  # type: ignore[arg-type]
    assert words in found


def test_poison_that_is_taken_is_named() -> None:
    attack = ATTACKS["poison"]
    told = {"quiet": calls(1), "attacked": calls(1), "rounds": [1], "counts": Counter({"accepted NaN": 2})}
    assert [*broken(Finding("poison", attack, **told))] == ["accepted NaN: 2"]  # type: ignore[arg-type]


def test_every_attack_says_what_it_tries() -> None:
    for attack in ATTACKS.values():
        assert attack.words.endswith(".")


def test_frames_and_headers_are_those_of_the_standard() -> None:
    assert frame(Kind.PING, Flag.ACK, 0, b"12345678") == b"\0\0\x08\x06\x01\0\0\0\0" + b"12345678"
    assert block([("te", "trailers")]) == b"\0\x02te\x08trailers"
    assert block([("x", "y" * 300)]) == b"\0\x01x\x7f\xad\x01" + b"y" * 300  # RFC 7541, 5.1: 127 + 45 + 128
