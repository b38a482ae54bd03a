"""A hospital whose only way out is an HTTP proxy: agent, `check` and joining all go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fedcervix.errors import IdentityError, LinkError
from fedcervix.transport import codec
from site_agent.federation import tls
from tests.e2e.loopback import Federation, call
from tests.e2e.relays import ConnectProxy

Federate = Callable[..., Federation]
Behind = Callable[..., ConnectProxy]

pytestmark = pytest.mark.timeout(120)

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    """Return a starter of proxies; what is started or dials from then on is behind the last one."""
    proxies = []
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def start(**options: object) -> ConnectProxy:
        proxies.append(ConnectProxy(**options))  # type: ignore[arg-type]
        monkeypatch.setenv("https_proxy", proxies[-1].url)
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


def look(federation: Federation, site: str) -> str:
    home = federation.site(site)
    return tls.look(f"localhost:{federation.port}", home.pem("authority.crt"), home.own_files())


def test_a_whole_run_goes_through_a_proxy(
    federate: Federate, light_right: Callable[..., str], behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = light_right("csfssl", rounds=1)
    federation = federate(terms={"rounds": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    proxy = behind()
    nhs = federation.light("nhs")
    monkeypatch.delenv("https_proxy")
    alts = federation.light("alts")
    federation.finish(coordinator, nhs, alts)
    assert federation.result() == right
    assert set(proxy.asked) == {f"localhost:{federation.port}"}
    model_bytes = (federation.home.results / federation.record()["run"] / "cervix-model.safetensors").stat().st_size
    assert proxy.passed_bytes > 3 * model_bytes  # the first model and an update up, a round's model down


def test_joining_and_checking_behind_a_proxy(federate: Federate, behind: Behind) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl")
    folder = federation.folder
    code, text = call("coordinator", "--home", federation.home.folder, "invite", "nhs", "--out", "i.toml", cwd=folder)
    assert code == 0, text
    proxy = behind(allows=federation.port)
    code, text = call("site-agent", "--home", "site", "join", "i.toml", cwd=folder)
    assert (code, len(proxy.asked)) == (0, 2), text  # with the invitation, and with the certificate
    code, text = call("site-agent", "--home", "site", "check", cwd=folder)
    answers = f"localhost:{federation.port} answers, TLSv1.3 through the proxy 127.0.0.1:{proxy.port}"
    assert f"ok      connection: {answers}" in text
    assert "ok      coordinator: accepts this site" in text
    assert set(proxy.asked) == {f"localhost:{federation.port}"}


def test_what_is_wrong_with_a_proxy_is_said(
    federate: Federate, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs")

    wants_password = behind(credentials="nhs:secret")
    assert look(federation, "nhs") == f"TLSv1.3 through the proxy 127.0.0.1:{wants_password.port}"
    with_link(federation, lambda link: link.welcome())
    monkeypatch.setenv("https_proxy", wants_password.url.replace("secret", "guess"))
    assert_refused(federation, "407 Proxy Authentication Required")

    forbids = behind(allows=1)
    assert_refused(federation, "403 Forbidden")
    forbids.close()
    assert_refused(federation, "Connection refused")
    monkeypatch.setenv("no_proxy", "localhost")
    assert look(federation, "nhs") == "TLSv1.3"
    with_link(federation, lambda link: link.welcome())


def assert_refused(federation: Federation, words: str) -> None:
    """The look says why; the line itself does not get through either."""
    with pytest.raises(LinkError, match=f"through the proxy 127.0.0.1:.*{words}") as caught:
        look(federation, "nhs")
    assert f"CONNECT to localhost:{federation.port}" in caught.value.next_step
    assert "guess" not in caught.value.explain()
    with pytest.raises(LinkError, match="cannot be reached"):
        with_link(federation, lambda link: link.welcome())


def with_link(federation: Federation, use: Callable[..., object]) -> None:
    link = federation.link("nhs")
    try:
        assert isinstance(use(link), codec.Welcome)
    finally:
        link.close()


def test_whoever_opens_the_line_behind_a_proxy_is_named(federate: Federate, behind: Behind) -> None:
    ours, theirs = federate(), federate()
    ours.coordinate("--mode", "csfssl")
    theirs.coordinate("--mode", "csfssl")
    ours.enrol("nhs")
    ours.port = theirs.port
    behind()
    with pytest.raises(IdentityError, match="is not this federation's coordinator") as caught:
        look(ours, "nhs")
    assert "was issued by CN=" in caught.value.cause
