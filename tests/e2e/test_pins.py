"""A site takes part with the partners that its people know, and with no others: real processes on a real line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fedcervix.transport import identity
from fedcervix.trust.fingerprints import Fingerprint
from tests.e2e.loopback import Federation, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)


def identity_of(made: Federation, site: str) -> dict[str, object]:
    code, said = call("site-agent", "--home", made.site(site).folder, "identity", "--json", cwd=made.folder)
    assert code == 0, said
    found: dict[str, object] = json.loads(said)
    return found


def groups(who: dict[str, object]) -> str:
    return Fingerprint(bytes.fromhex(str(who["fingerprint"]))).groups


def pin(made: Federation, site: str, partner: str, *fingerprint: str) -> str:
    code, said = call("site-agent", "--home", made.site(site).folder, "pin", partner, *fingerprint, cwd=made.folder)
    assert code == 0, said
    return said


def replaced(federate: Federate, **options: object) -> tuple[Federation, dict[str, object], dict[str, object]]:
    """Return a federation whose operator has put a machine of its own in the place of alts; and both identities."""
    made = federate(**options)
    for site in made.sites:
        made.enrol(site)
    real = identity_of(made, "alts")
    code, said = call("coordinator", "--home", made.home.folder, "revoke", "alts", cwd=made.folder)
    assert code == 0, said
    made.site("alts").config_file.unlink()  # of the real one
    made.enrol("alts")
    made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.settle(site)
    return made, real, identity_of(made, "alts")


def presence(made: Federation, site: str) -> str:
    """Return how the coordinator sees a site: a site that is ready, or has refused, has told something."""
    [found] = [one for one in made.overview()["sites"] if one["site"] == site]
    return str(found["presence"])


def test_an_invented_partner_is_refused_before_a_byte_where_the_real_one_is_pinned(federate: Federate) -> None:
    made, real, invented = replaced(federate)
    pin(made, "nhs", "alts", *map(str.lower, real["words"]))  # type: ignore[call-overload]
    made.light("alts")
    made.until("the invention is ready", lambda _: presence(made, "alts") == "present")

    agent = made.light("nhs")
    made.finish(agent, code=5)
    assert "site alts has another key than the one pinned; this site sends nothing" in agent.text
    assert groups(real) in agent.text
    assert groups(invented) in agent.text
    assert f"pin alts {invented['fingerprint']}" in agent.text
    assert presence(made, "nhs") == "absent", "nothing was told, not even a refusal"
    assert not list(made.site("nhs").folder.glob("runs/*"))


def test_without_a_pin_the_run_goes_on_and_the_log_says_so(federate: Federate) -> None:
    made, _, invented = replaced(federate, terms={"rounds": 1})
    agents = [made.light(site) for site in made.sites]
    made.finish(*agents)
    assert "not pinned: alts; nobody here has compared the keys" in agents[0].text
    code, said = call("site-agent", "--home", made.site("nhs").folder, "pins", cwd=made.folder)
    assert code == 0
    assert f"alts: not pinned; in run {made.record()['run']}: {groups(invented)}" in said


def test_a_site_waits_for_a_pinned_partner_that_has_not_joined_yet(federate: Federate) -> None:
    made = federate(terms={"rounds": 1})
    made.coordinate("--mode", "csfssl")
    made.enrol("nhs")
    key = identity.new_key()
    fingerprint = identity.key_fingerprint(identity.public_key(key))
    pin(made, "nhs", "alts", fingerprint)
    first = made.light("nhs")
    first.says("waits, and sends nothing: the coordinator does not tell the key of alts, pinned here")
    assert presence(made, "nhs") == "absent"
    made.enrol("alts", key=key)
    second = made.light("alts")
    first.says("pinned: alts")
    made.finish(first, second)
