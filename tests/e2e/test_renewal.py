"""Certificates renew themselves, with real processes: nobody is locked out, and no digest changes."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from coordinator.home.registry import Registry
from fedcervix.core.events import Task
from fedcervix.errors import IdentityError, LinkError, RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import write_tensors
from fedcervix.transport import codec, identity, renewal
from site_agent.home import BEFORE, RENEWED, SiteHome
from tests.e2e.loopback import Federation, call, until

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

LIFE_DAYS = 8 / 86_400
"""eight seconds, renewed after four: a process of a busy machine has time to start, and to renew"""
RENEWALS = 5
AHEAD = ("--ahead-s", str(20 * 86_400))
"""a certificate of thirty days is then due at once, one of ninety is not"""
STEPS = ("issued", "written", "welcomed", "settled")
NHS = identity.Identity("cervix", "site", "nhs")


def certificates(made: Federation, site: str) -> list[tuple[str, str]]:
    """Return the states of all certificates of a site and the fingerprints of their keys, oldest first."""
    with closing(sqlite3.connect(f"file:{made.home.registry}?mode=ro", uri=True)) as registry:
        rows = registry.execute(
            "SELECT state, key_fingerprint FROM credentials WHERE site = ? AND role = 'site' ORDER BY not_after",
            (site,),
        )
        return rows.fetchall()


def states(made: Federation, site: str) -> list[str]:
    return [state for state, _ in certificates(made, site)]


def enrolled(federate: Federate, *, days: float, **options: object) -> Federation:
    """Return a federation whose sites have certificates of so many days; from now on they are issued for ninety."""
    made = federate(**options, certificates={"site_days": days})
    for site in made.sites:
        made.enrol(site)
    made.certificates = {}
    made.configure()
    made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.settle(site)
    return made


def settled(home: SiteHome) -> bool:
    """Say whether a certificate of ninety days has taken the place of the one of thirty."""
    found = identity.identify(home.pem("site.crt"))
    return (found.not_after - found.not_before).days >= 90 and not home.key_file(RENEWED).exists()


@pytest.mark.long
def test_certificates_that_end_five_times_within_a_run_change_nothing(
    federate: Federate, light_right: Callable[..., str]
) -> None:
    right = light_right("csfssl")
    made = federate(certificates={"site_days": LIFE_DAYS, "own_days": LIFE_DAYS})
    coordinator = made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.enrol(site)
    agents = [made.light(site, "--pace-s", "0.85") for site in made.sites]
    first = identity.identify(made.home.pem("operator.crt"))
    until("the operator's first certificate has ended", lambda: datetime.now(UTC) > first.not_after)
    assert made.overview()["outcome"] is None
    made.finish(coordinator, *agents)
    assert made.result() == right
    for agent, site in zip(agents, made.sites, strict=True):
        assert agent.text.count("was renewed") >= RENEWALS, agent.text
        found, keys = zip(*certificates(made, site), strict=True)
        assert len(set(keys)) == 1
        assert found.count("valid") == 1
        assert len(found) <= 4, "closed certificates of renewals are forgotten when they have ended"


def test_an_agent_that_is_killed_at_any_step_of_a_renewal_is_never_locked_out(federate: Federate) -> None:
    made = enrolled(federate, days=30, sites=STEPS)
    dying = [made.light(step, *AHEAD, "--dies-at", step) for step in STEPS]
    for agent in dying:
        assert agent.ended() == -signal.SIGKILL, agent.text
    found = {step: (states(made, step), made.site(step).key_file(RENEWED).exists()) for step in STEPS}
    assert found["issued"] == (["valid", "issued"], False)
    assert found["written"] == (["valid", "issued"], True)
    for step in ("welcomed", "settled"):  # the welcome of the line before may be heard last
        assert found[step][0] in (["valid", "issued"], ["replaced", "valid"])
    for step in STEPS:
        made.light(step, *AHEAD)
    made.until("all are back", lambda seen: {site["presence"] for site in seen["sites"]} == {"present"})
    for step in STEPS:
        until(f"{step} goes on with the new one", lambda step=step: settled(made.site(step)))  # type: ignore[misc]
        assert states(made, step) == ["replaced", "valid"]


def test_a_renewed_certificate_that_the_coordinator_does_not_know_is_given_up_for_the_one_before(
    federate: Federate,
) -> None:
    """Its registry was restored from a backup of before the renewal."""
    made = enrolled(federate, days=30)
    home, now = made.site("nhs"), datetime.now(UTC) + timedelta(seconds=5)  # the newest of two is used
    public = identity.public_key(home.pem("site.key"))
    lost = identity.issue(made.home.authority(), public, NHS, now, identity.SITE_LIFETIME)
    home.key_file(RENEWED).write_bytes(lost)
    old = home.pem("site.crt")
    agent = made.light("nhs")
    agent.says("going on with the one before it")
    made.until("nhs is present", lambda seen: seen["sites"][0]["presence"] == "present")
    until("the other one is gone", lambda: not home.key_file(RENEWED).exists())
    assert home.pem("site.crt") == old
    agent.kill()

    # The same where the renewal was finished when the backup was taken back.
    home.key_file("site.crt").replace(home.key_file(BEFORE))
    home.key_file("site.crt").write_bytes(lost)
    made.light("nhs").says("going on with the one before it")
    until("it is the site's certificate again", lambda: home.pem("site.crt") == old)


def test_a_site_gets_one_certificate_however_often_it_asks_and_for_its_own_key_only(federate: Federate) -> None:
    made = enrolled(federate, days=30)
    home = made.site("nhs")
    request = identity.request(home.pem("site.key"), NHS)
    with closing(made.link("nhs")) as link:
        answers = {link.renew(request) for _ in range(5)}
        assert states(made, "nhs") == ["valid", "issued"]
        with pytest.raises(RemoteError, match="for its own key"):
            link.renew(identity.request(identity.new_key(), NHS))
        assert isinstance(link.welcome(), codec.Welcome), "the old one is valid until the new one is used"
        [new] = answers
        link.use(new)
        assert isinstance(link.welcome(), codec.Welcome)
        assert link.renew(request) == new
    assert states(made, "nhs") == ["replaced", "valid"]
    with closing(made.link("nhs")) as link, pytest.raises(IdentityError, match="is replaced"):
        link.welcome()


def test_a_revocation_ends_both_certificates_of_a_renewal(federate: Federate) -> None:
    made = enrolled(federate, days=30)
    home = made.site("nhs")
    with closing(made.link("nhs")) as link:
        new = link.renew(identity.request(home.pem("site.key"), NHS))
        code, text = call("coordinator", "--home", made.home.folder, "revoke", "nhs", cwd=made.folder)
        assert (code, states(made, "nhs")) == (0, ["revoked", "revoked"]), text
    for _ in range(2):
        with closing(made.link("nhs")) as link, pytest.raises(IdentityError, match="is revoked"):
            link.welcome()
        home.key_file("site.crt").write_bytes(new)


def test_a_transfer_that_a_renewal_cuts_goes_on_where_it_was(federate: Federate) -> None:
    made = federate(run={"base": "first.safetensors"})
    write_tensors(made.home.folder / "first.safetensors", {"weight": np.zeros(10_000_000, np.float32)})
    made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.enrol(site)
    made.light("alts")
    blobs, pem, at = BlobStore(made.site("nhs").blobs), made.site("nhs").pem("site.crt"), []
    with closing(made.link("nhs")) as link:
        said = link.attach()
        welcome = next(said)
        assert isinstance(welcome, codec.Welcome)
        link.report(codec.Ready(welcome.run, welcome.plan.digest))
        task = next(news for news in said if isinstance(news, Task))

        def on_bytes(done: int, _of: int) -> None:
            at.append(done)
            if len(at) == 3:
                link.use(pem)

        with pytest.raises(LinkError):
            link.fetch(task.base, blobs, on_bytes)
        link.fetch(task.base, blobs, on_bytes)
    assert blobs.has(task.base)
    assert at == sorted(at), "no byte came twice"


def test_a_certificate_that_has_ended_is_renewed_at_the_operator_s_word(federate: Federate) -> None:
    made = enrolled(federate, days=1 / 86_400)
    home = made.site("nhs")
    key, ended = home.pem("site.key"), home.certificate()
    until("it has ended", lambda: datetime.now(UTC) > ended.not_after)
    agent = made.agent("nhs")
    assert agent.ended() == IdentityError.exit_code
    assert "coordinator renew nhs" in agent.text

    renew = ("coordinator", "--home", made.home.folder, "renew", "nhs", "--out", "again.toml")
    code, text = call(*renew, cwd=made.folder)
    assert code == 0, text
    code, text = call("site-agent", "--home", "elsewhere", "join", "again.toml", cwd=made.folder)
    assert code != 0
    assert "next:" in text
    code, text = call("site-agent", "--home", home.folder, "join", "again.toml", cwd=made.folder)
    assert code == 0, text
    assert "renewed the certificate of site nhs" in text
    assert home.pem("site.key") == key
    made.light("nhs")
    made.until("nhs is present", lambda seen: seen["sites"][0]["presence"] == "present")

    Registry(made.home.registry).revoke("nhs", datetime.now(UTC))
    code, text = call(*renew, cwd=made.folder)
    assert code == IdentityError.exit_code
    assert "invite nhs" in text


def test_both_ends_are_warned_of_a_clock_that_is_off(federate: Federate) -> None:
    made = enrolled(federate, days=90)
    behind = renewal.SKEW_S_MAX + 30
    made.light("nhs", "--ahead-s", str(-behind)).says("the clock of the coordinator is 9")
    made.until("the operator is warned", lambda seen: "the clock of site nhs is 9" in seen["trouble"])
