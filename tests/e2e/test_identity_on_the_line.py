"""Who may say what, on a real TLS port: certificates, roles, revocation, and what the port negotiates."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from coordinator.calls.local_sockets import reachable
from fedcervix.core.events import Task
from fedcervix.errors import FedcervixError, IdentityError, LinkError, NoSuchMethodError, RunError
from fedcervix.models.weights import write_tensors
from fedcervix.transport import codec, identity, invitations, rpc
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.link import GrpcLink
from tests.e2e.loopback import FEDERATION, Federation, call, federation, until

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

MODEL_BYTES = 80_000_000
ATTACH = wire.AttachRequest(wire_version=HERE.wire_max, instance="0" * 32)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Return a federation that waits for its sites; nothing here moves it on."""
    with federation(tmp_path_factory.mktemp("identity")) as made:
        made.coordinate("--mode", "csfssl")
        for site in made.sites:
            made.enrol(site)
        yield made


def ask(running: Federation, method: rpc.Method, request: Any, *, address: str = "", **keys: bytes) -> Any:
    """Make one call with these keys; return the reply (or a stream's first message), or raise an error of ours."""
    address = address or f"localhost:{running.port}"
    with rpc.channel(address, here=True, **keys) as channel:
        try:
            reply = rpc.stub(channel, method)(request, timeout=10)
            return next(iter(reply)) if method.shape == "unary_stream" else reply
        except grpc.RpcError as error:
            raise rpc.translate(error, address) from error


def _replies(reply: Any) -> Iterator[Any]:
    """A stream fails when it is read, a single call when it is made."""
    yield from reply


def keys_of(running: Federation, site: str) -> dict[str, bytes]:
    home = running.site(site)
    files = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}
    return {part: home.pem(file) for part, file in files.items()}


def certified(running: Federation, role: str, name: str, *, now: datetime, lifetime: timedelta) -> dict[str, bytes]:
    """Return keys with a certificate of the federation's own authority."""
    key, who = identity.new_key(), identity.Identity(FEDERATION, role, name)  # type: ignore[arg-type]
    authority = running.home.authority()
    certificate = identity.issue(authority, identity.public_key(key), who, now, lifetime)
    return {"authority_pem": authority.certificate_pem, "certificate_pem": certificate, "key_pem": key}


def test_a_site_s_own_certificate_opens_the_line(running: Federation) -> None:
    welcome = codec.read_from_coordinator(ask(running, rpc.ATTACH, ATTACH, **keys_of(running, "nhs")))
    assert isinstance(welcome, codec.Welcome)
    assert welcome.plan == running.plan("csfssl")


def test_without_a_certificate_no_call_comes_through(running: Federation) -> None:
    credentials = grpc.ssl_channel_credentials(running.home.pem("authority.crt"))
    for method, request in ((rpc.ATTACH, ATTACH), (rpc.OVERVIEW, wire.OverviewRequest())):
        with grpc.secure_channel(f"localhost:{running.port}", credentials) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                _ = [*_replies(rpc.stub(channel, method)(request, timeout=10))]
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # the handshake failed; nobody was asked


def test_a_certificate_of_another_authority_is_refused_in_the_handshake(running: Federation) -> None:
    key = identity.new_key()
    now = datetime.now(UTC)
    foreign = identity.Authority(identity.new_authority(FEDERATION, key, now), key)
    site_key, who = identity.new_key(), identity.Identity(FEDERATION, "site", "nhs")
    certificate = identity.issue(foreign, identity.public_key(site_key), who, now, timedelta(days=1))
    keys = {"authority_pem": running.home.pem("authority.crt"), "certificate_pem": certificate, "key_pem": site_key}
    with pytest.raises(LinkError):
        ask(running, rpc.ATTACH, ATTACH, **keys)


def test_an_expired_certificate_is_refused_in_the_handshake(running: Federation) -> None:
    made = datetime.now(UTC) - timedelta(minutes=3)  # the authority itself is only minutes old
    with pytest.raises(LinkError):
        ask(
            running,
            rpc.ATTACH,
            ATTACH,
            **certified(running, "site", "nhs", now=made, lifetime=timedelta(minutes=1)),
        )


def test_a_certificate_that_the_registry_does_not_know_is_refused(running: Federation) -> None:
    """Signed by the right authority, for a declared site, but never handed out by this coordinator."""
    keys = certified(running, "site", "nhs", now=datetime.now(UTC), lifetime=timedelta(days=1))
    with pytest.raises(IdentityError, match="does not know this certificate of site nhs"):
        ask(running, rpc.ATTACH, ATTACH, **keys)


def test_an_invitation_s_certificate_is_good_for_joining_alone(running: Federation) -> None:
    keys = certified(running, "enroll", "nhs", now=datetime.now(UTC), lifetime=timedelta(days=1))
    for method, request in (
        (rpc.ATTACH, ATTACH),
        (rpc.REPORT, wire.FromSite(ready=wire.Ready())),
        (rpc.OFFER, wire.OfferRequest(digest="0" * 64, size_bytes=1)),
        (rpc.FETCH, wire.BlobRequest(digest="0" * 64)),
        (rpc.PUSH, iter([b"x"])),
    ):
        with pytest.raises(IdentityError, match="has no permission for this call"):
            ask(running, method, request, **keys)


OPERATOR_S = (
    (rpc.OVERVIEW, wire.OverviewRequest()),
    (rpc.WATCH, wire.OverviewRequest()),
    (rpc.COMMAND, wire.CommandRequest(abort="mine")),
)


def test_a_site_s_certificate_neither_commands_nor_joins(running: Federation) -> None:
    keys = keys_of(running, "nhs")
    with pytest.raises(IdentityError, match="has no permission for this call"):
        ask(running, rpc.ENROLL, wire.EnrollRequest(request_pem=b""), **keys)
    with reachable(running.home.operator_socket) as name:
        for method, request in OPERATOR_S:
            with pytest.raises(IdentityError, match="has no permission for this call"):
                ask(running, method, request, address=f"unix:{name}", **keys)
    assert running.overview()["outcome"] is None


def test_the_operator_s_methods_are_not_on_the_port_that_sites_reach(running: Federation) -> None:
    for keys in (keys_of(running, "nhs"), running.operator()):
        for method, request in OPERATOR_S:
            with pytest.raises(NoSuchMethodError):
                ask(running, method, request, **keys)
    assert running.home.folder.stat().st_mode & 0o077 == 0, "others on this machine reach no socket in there"


def test_the_operator_s_certificate_is_no_site(running: Federation) -> None:
    with pytest.raises(IdentityError, match="has no permission for this call"):
        ask(running, rpc.ATTACH, ATTACH, **running.operator())


def test_no_client_certificate_poses_as_the_coordinator(running: Federation) -> None:
    """A site that turns around and listens is not believed: its certificate is not for serving."""
    keys = keys_of(running, "alts")
    server = grpc.server(None)  # type: ignore[arg-type]
    credentials = rpc.server_credentials(**keys)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        link = GrpcLink(f"localhost:{port}", **keys_of(running, "nhs"))
        with pytest.raises(LinkError, match="its certificate is not of this federation"):
            next(iter(link.attach()))
        link.close()
    finally:
        server.stop(None)


def test_a_site_that_joined_but_is_not_in_the_roster_is_refused(running: Federation) -> None:
    """There is no name in any message: a site is who its certificate says, and this one was not declared."""
    running.enrol("later")
    with pytest.raises(IdentityError, match=r"site later is not in the roster of run") as caught:
        ask(running, rpc.ATTACH, ATTACH, **keys_of(running, "later"))
    assert caught.value.cause
    assert caught.value.next_step

    agent = running.light("later")
    assert agent.ended() == IdentityError.exit_code
    assert "site later is not in the roster" in agent.text
    assert "next: ask the coordinator's operator" in agent.text


def test_an_invitation_works_once(running: Federation) -> None:
    folder = running.folder
    code, text = call("coordinator", "--home", running.home.folder, "invite", "alts", "--out", "i.toml", cwd=folder)
    assert code == 0, text
    earlier = keys_of(running, "alts")
    code, text = call("site-agent", "--home", "first", "join", "i.toml", cwd=folder)
    assert code == 0, text
    code, text = call("site-agent", "--home", "second", "join", "i.toml", cwd=folder)
    assert (code, text.count("next:")) == (IdentityError.exit_code, 1)
    assert "the invitation of site alts was already used" in text
    assert "coordinator revoke alts" in text  # the operator's answer to a stolen invitation

    # Joining again replaced the site's earlier certificate: only one agent can run for a site.
    with pytest.raises(IdentityError, match="the certificate of site alts is replaced"):
        ask(running, rpc.ATTACH, ATTACH, **earlier)

    # Asked again with the same key (as when the first answer was lost), the same certificate comes back.
    code, text = call("coordinator", "--home", running.home.folder, "invite", "alts", "--out", "j.toml", cwd=folder)
    assert code == 0, text
    invitation, key = invitations.Invitation.parse((folder / "j.toml").read_bytes()), identity.new_key()
    line = GrpcLink(
        invitation.address,
        authority_pem=invitation.authority_pem,
        certificate_pem=invitation.certificate_pem,
        key_pem=invitation.key_pem,
    )
    asked = identity.request(key, identity.Identity(FEDERATION, "site", "alts"))
    assert line.enroll(asked) == line.enroll(asked)
    line.close()


def test_a_revoked_site_is_cut_off_at_once_in_mid_stream(federate: Federate) -> None:
    made = federate()
    made.coordinate("--mode", "csfssl")
    made.enrol("nhs")
    agent = made.light("nhs")
    made.until("nhs is present", lambda seen: seen["sites"][0]["presence"] == "present")

    code, text = call("coordinator", "--home", made.home.folder, "revoke", "nhs", cwd=made.folder)
    assert code == 0, text
    assert "nhs is refused from now on; its connections are closed" in text
    assert agent.ended(timeout_s=10) == IdentityError.exit_code
    assert "the certificate of site nhs is revoked" in agent.text
    assert 'likely cause: the coordinator says "the operator revoked this site' in agent.text
    assert "next: ask the coordinator's operator" in agent.text

    code, text = call("coordinator", "--home", made.home.folder, "status", cwd=made.folder)
    assert code == 0
    assert "revoked" in text
    again = made.light("nhs")
    assert again.ended() == IdentityError.exit_code


def test_a_site_that_is_revoked_and_invited_again_waits_for_the_next_run(federate: Federate) -> None:
    made = federate()
    made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.enrol(site)
    other = made.light("alts", "--pace-s", "60")
    other.says("not pinned: nhs")
    for command in (("revoke", "nhs"), ("invite", "nhs")):
        code, text = call("coordinator", "--home", made.home.folder, *command, cwd=made.folder)
        assert code == 0, text
    assert "takes part from the next run on" in text
    home = made.site("nhs").folder
    code, text = call("site-agent", "--home", home, "join", "nhs.invitation.toml", cwd=made.folder)
    assert code == 0, text
    assert "this site has a new key: partners that pinned the earlier one must pin it" in text
    assert "cannot take part in run" in text
    assert "wait for the next run" in text
    link = made.link("nhs")
    with pytest.raises(RunError, match="cannot take part in run"):
        link.welcome()
    link.close()
    made.light("nhs").says("leave this program running")
    assert other.running(), "a new key that takes no part in this run is none of its business"


def test_a_site_that_is_revoked_in_mid_transfer_is_sent_no_more(federate: Federate) -> None:
    """Also one whose program does not care that its stream was cut."""
    made = federate(run={"base": "first.safetensors"})
    write_tensors(made.home.folder / "first.safetensors", {"weight": np.zeros(MODEL_BYTES // 4, np.float32)})
    made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.enrol(site)
    made.light("alts")
    address, claim = f"localhost:{made.port}", codec.InstanceClaim("1" * 32)
    link = GrpcLink(address, claim=claim, **keys_of(made, "nhs"))
    said = link.attach()
    welcome = next(said)
    assert isinstance(welcome, codec.Welcome)
    link.report(codec.Ready(welcome.run, welcome.plan.digest))
    task = next(news for news in said if isinstance(news, Task))
    with rpc.channel(address, **keys_of(made, "nhs")) as channel:
        stream = rpc.stub(channel, rpc.FETCH)(
            wire.BlobRequest(digest=task.base), metadata=((rpc.INSTANCE_KEY, claim.instance),)
        )
        arrived = [len(next(stream))]
        code, text = call("coordinator", "--home", made.home.folder, "revoke", "nhs", cwd=made.folder)
        assert code == 0, text
        with pytest.raises((IdentityError, LinkError)):  # why, or the end of the connection: whichever comes first
            arrived.extend(map(len, rpc.calls(stream, address)))
    assert sum(arrived) < MODEL_BYTES / 2  # what was under way
    link.close()


def test_a_site_that_was_revoked_while_no_coordinator_ran_is_not_waited_for(federate: Federate) -> None:
    made = federate()
    coordinator = made.coordinate("--mode", "csfssl")
    made.enrol("nhs")
    coordinator.kill()
    code, text = call("coordinator", "--home", made.home.folder, "revoke", "nhs", cwd=made.folder)
    assert code == 0, text
    coordinator = made.coordinate()
    seen = made.overview()
    assert [site["presence"] for site in seen["sites"]] == ["revoked", "absent"]
    assert [wait["site"] for wait in seen["waits"] if wait["until"] > seen["now"]] == ["alts"]

    made.enrol("alts")
    made.finish(coordinator, made.light("alts"), code=20)
    assert made.record()["outcome"] == "DEGRADED"
    reason = "revoked: revoked by the operator"
    assert [line["missing"] for line in made.record()["ledger"]] == [[{"site": "nhs", "reason": reason}]] * 2


def test_a_site_that_comes_back_again_and_again_holds_one_stream(federate: Federate) -> None:
    """A line that flaps leaves streams behind that nobody has noticed are dead; each would hold a thread."""
    made = federate()
    made.coordinate("--mode", "csfssl")
    made.enrol("nhs")
    agent = codec.InstanceClaim("a" * 32)
    lines = [made.link("nhs", claim=agent) for _ in range(3)]
    streams = [line.attach() for line in lines]
    assert isinstance(next(streams[0]), codec.Welcome)
    lines[0].report(codec.Ready(made.overview()["run"], made.plan("csfssl").digest))
    assert str(next(streams[0])) == "coordinator says: waiting for alts to attach"
    for older, newer in itertools.pairwise(streams):
        assert [type(next(newer)).__name__ for _ in range(2)] == ["Welcome", "Idle"]
        assert list(older) == []
    made.enrol("alts")
    made.light("alts")
    again = next(streams[-1])
    assert isinstance(again, codec.Welcome)
    assert again.keys.keys() == {"nhs", "alts"}, "the key of a site that has joined comes before what follows from it"
    assert str(next(streams[-1])) == "make the first model"
    for line in lines:
        line.close()


def test_a_site_that_opens_many_transfers_and_sends_nothing_keeps_nobody_waiting(federate: Federate) -> None:
    made = federate()
    made.coordinate("--mode", "csfssl")
    made.enrol("nhs")
    made.enrol("alts")
    claim = codec.InstanceClaim("b" * 32)
    link = made.link("nhs", claim=claim)
    said = link.attach()
    welcome = next(said)
    assert isinstance(welcome, codec.Welcome)
    link.report(codec.Ready(welcome.run, welcome.plan.digest))
    made.light("alts")
    next(news for news in said if isinstance(news, Task))  # to make the first model: it may be sent
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait()
        yield b""

    keys = keys_of(made, "nhs")
    headers = {rpc.INSTANCE_KEY: claim.instance, rpc.DIGEST_KEY: "c" * 64, rpc.OFFSET_KEY: "0", rpc.SIZE_KEY: "100"}
    with rpc.channel(f"localhost:{made.port}", **keys) as channel:
        push = rpc.stub(channel, rpc.PUSH)
        calls = [push.future(nothing(), metadata=tuple(headers.items())) for _ in range(60)]
        assert made.overview()["sites"][1]["presence"] == "present"
        until("all but the newest are ended", lambda: sum(one.done() for one in calls) == len(calls) - 1)
        ended = {one.code() for one in calls if one.done()}
        assert ended <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}, "superseded, or too many at once"
        code, text = call("coordinator", "--home", made.home.folder, "revoke", "nhs", cwd=made.folder)
        assert code == 0, text
        never.set()
        for one in calls:
            one.cancel()
    link.close()


# --- what the port negotiates ------------------------------------------------------------------------------------


def handshake(running: Federation, **limits: Any) -> tuple[str, str]:
    """Open a TLS connection as site nhs; return (version, cipher suite)."""
    home = running.site("nhs")
    context = ssl.create_default_context(cadata=home.pem("authority.crt").decode())
    context.load_cert_chain(home.key_file("site.crt"), home.key_file("site.key"))
    context.set_alpn_protocols(["h2"])
    for name, value in limits.items():
        context.set_ciphers(value) if name == "ciphers" else setattr(context, name, value)
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.recv(1)  # in TLS 1.3 the server's verdict on a client comes after the client's handshake
        cipher = line.cipher()
        return str(line.version()), cipher[0] if cipher else ""


def test_tls_1_3_is_spoken(running: Federation) -> None:
    assert handshake(running, minimum_version=ssl.TLSVersion.TLSv1_3)[0] == "TLSv1.3"


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_tls_1_2_is_spoken_with_forward_secret_aead_suites(running: Federation, suite: str) -> None:
    limits = {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": suite}
    assert handshake(running, **limits) == ("TLSv1.2", suite)


@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "AES128-GCM-SHA256", "AES128-SHA", "AES256-SHA"]
)
def test_tls_1_2_with_cbc_or_without_forward_secrecy_is_refused(running: Federation, suite: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(running, maximum_version=ssl.TLSVersion.TLSv1_2, ciphers=f"{suite}:@SECLEVEL=0")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_1_1_is_refused(running: Federation) -> None:
    limits = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(running, **limits, ciphers="ALL:@SECLEVEL=0")


def test_plain_text_gets_no_answer(running: Federation) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        try:
            answer = line.recv(1024)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer[:1] == b"\x15"  # closed, or a TLS alert


def test_a_private_key_is_readable_by_its_owner_alone(running: Federation) -> None:
    for file in [*running.home.key_file("").glob("*.key"), running.home.registry]:
        assert Path(file).stat().st_mode & 0o077 == 0, file


def test_errors_of_the_coordinator_say_what_happened_why_and_what_next(running: Federation) -> None:
    with pytest.raises(FedcervixError) as caught:
        ask(running, rpc.ATTACH, wire.AttachRequest(wire_version=99), **keys_of(running, "nhs"))
    assert "speaks version 99 of the protocol" in caught.value.what
    advises = 'the coordinator advises "install a fedcervix at the coordinator that speaks version 99 of the protocol"'
    assert caught.value.cause.endswith(advises)
    assert caught.value.next_step.startswith("ask the coordinator's operator which fedcervix")
