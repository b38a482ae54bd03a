"""Who is who, and that TLS stacks (OpenSSL through `ssl`, BoringSSL through gRPC) agree with us about it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcervix.errors import FedcervixError, IdentityError, RemoteError
from fedcervix.transport import identity
from fedcervix.transport.identity import Authority, Identity
from fedcervix.transport.invitations import Invitation
from tests.unit.identities import AUTHORITY, INVITATION, NORTH, NOW, SECOND, SITE, Party, make_authority, make_party

# --- names


@pytest.mark.parametrize(
    ("who", "uri"),
    [
        (NORTH, "fedcervix://demo/site/north"),
        (Identity("demo", "enroll", "north"), "fedcervix://demo/enroll/north"),
        (Identity("demo", "operator"), "fedcervix://demo/operator"),
        (Identity("demo", "coordinator"), "fedcervix://demo/coordinator"),
        (Identity("demo", "authority"), "fedcervix://demo/authority"),
    ],
)
def test_a_name_is_a_uri_and_reads_back(who: Identity, uri: str) -> None:
    assert who.uri == uri
    assert Identity.parse(uri) == who


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://demo/site/north",
        "FEDCERVIX://demo/site/north",
        "fedcervix://demo/site",
        "fedcervix://demo/site/",
        "fedcervix://demo/site/north/",
        "fedcervix://demo/site/North",
        "fedcervix://demo/site/north\n",
        "fedcervix://demo/site/no%72th",
        "fedcervix://demo/operator/",
        "fedcervix://demo/operator/eve",
        "fedcervix://demo/root",
        "fedcervix:///operator",
    ],
)
def test_a_name_written_in_any_other_way_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError):
        Identity.parse(uri)


def test_a_bad_site_name_is_explained_to_the_operator() -> None:
    with pytest.raises(IdentityError) as caught:
        Identity("demo", "site", "St. Mary's")
    assert "inner hyphens" in caught.value.cause
    assert caught.value.next_step


# --- issuing


def test_a_certificate_says_who_and_from_when_to_when() -> None:
    read = identity.identify(SITE.certificate)
    assert read.identity == NORTH
    assert read.not_before == NOW - timedelta(minutes=5)
    assert read.not_after == NOW + identity.SITE_LIFETIME
    assert "O=demo" in x509.load_pem_x509_certificate(SITE.certificate).issuer.rfc4514_string()


def test_no_two_certificates_have_the_same_serial() -> None:
    serials = {identity.identify(make_party(AUTHORITY, NORTH).certificate).serial for _ in range(20)}
    assert len(serials) == 20


def test_the_longest_names_still_fit_into_a_certificate() -> None:
    key = identity.new_key()
    authority = Authority(identity.new_authority("f" * 63, key, NOW), key)
    who = Identity("f" * 63, "site", "s" * 63)
    assert identity.identify(make_party(authority, who).certificate).identity == who


@pytest.mark.parametrize(
    ("role", "usage"),
    [
        ("site", "clientAuth"),
        ("enroll", "clientAuth"),
        ("operator", "clientAuth"),
        ("coordinator", "serverAuth"),
    ],
)
def test_a_certificate_is_for_one_end_of_a_connection_only(role: identity.Role, usage: str) -> None:
    who = Identity("demo", role, "north" if role in ("site", "enroll") else "")
    certificate = x509.load_pem_x509_certificate(make_party(AUTHORITY, who).certificate)
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use._name for use in uses] == [usage]


def test_the_authority_signs_parties_but_no_further_authority() -> None:
    certificate = x509.load_pem_x509_certificate(AUTHORITY.certificate_pem)
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    with pytest.raises(ValueError, match="does not certify"):
        make_party(AUTHORITY, Identity("demo", "authority"))


def test_an_authority_certifies_its_own_federation_only() -> None:
    with pytest.raises(ValueError, match="does not certify"):
        make_party(AUTHORITY, Identity("other", "site", "north"))


def test_no_certificate_outlives_its_authority() -> None:
    late = NOW + identity.AUTHORITY_LIFETIME - timedelta(days=1)
    read = identity.identify(make_party(AUTHORITY, NORTH, now=late).certificate)
    assert read.not_after == NOW + identity.AUTHORITY_LIFETIME


def test_an_expired_authority_issues_nothing() -> None:
    with pytest.raises(IdentityError, match="authority has expired"):
        make_party(AUTHORITY, NORTH, now=NOW + identity.AUTHORITY_LIFETIME + SECOND)


def test_an_authority_needs_its_own_key() -> None:
    with pytest.raises(IdentityError, match="does not belong"):
        Authority(AUTHORITY.certificate_pem, identity.new_key())
    with pytest.raises(IdentityError, match="not the certificate of an authority"):
        Authority(SITE.certificate, SITE.key)


def test_the_coordinator_is_certified_for_host_names_and_addresses() -> None:
    key = identity.public_key(identity.new_key())
    hosts = ("federation.example.org", "192.0.2.7", "2001:db8::7")
    certificate = identity.issue(AUTHORITY, key, Identity("demo", "coordinator"), NOW, identity.SITE_LIFETIME, hosts)
    names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["federation.example.org"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::7"]


@pytest.mark.parametrize("host", ["", "https://example.org", "example.org:8443", "bücher.example", "*.example.org"])
def test_what_is_not_a_host_is_refused_before_it_is_certified(host: str) -> None:
    key = identity.public_key(identity.new_key())
    with pytest.raises(IdentityError, match="not a host name"):
        identity.issue(AUTHORITY, key, Identity("demo", "coordinator"), NOW, identity.SITE_LIFETIME, (host,))


def test_a_site_is_never_certified_for_a_host() -> None:
    key = identity.public_key(identity.new_key())
    with pytest.raises(ValueError, match="names its hosts"):
        identity.issue(AUTHORITY, key, NORTH, NOW, identity.SITE_LIFETIME, ("localhost",))


# --- keys and requests


def test_a_key_matches_its_own_certificate_only() -> None:
    assert identity.matches(SITE.key, SITE.certificate)
    assert not identity.matches(identity.new_key(), SITE.certificate)


def test_a_request_carries_the_public_key_and_proves_the_private_one() -> None:
    key = identity.check_request(identity.request(SITE.key, NORTH))
    assert identity.key_fingerprint(key) == identity.key_fingerprint(identity.public_key(SITE.key))
    assert identity.matches(SITE.key, identity.issue(AUTHORITY, key, NORTH, NOW, identity.SITE_LIFETIME)), (
        "a certificate issued for the request belongs to the key that made it"
    )


def test_two_requests_of_one_key_have_one_fingerprint_and_another_key_has_another() -> None:
    first, second, other = (
        identity.key_fingerprint(identity.check_request(identity.request(key, NORTH)))
        for key in (SITE.key, SITE.key, identity.new_key())
    )
    assert first == second != other


def test_an_altered_request_is_refused() -> None:
    csr = x509.load_pem_x509_csr(identity.request(SITE.key, NORTH))
    altered = csr.public_bytes(serialization.Encoding.DER).replace(b"site/north", b"site/south")
    pem = x509.load_der_x509_csr(altered).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RemoteError, match="not signed by its own key"):
        identity.check_request(pem)


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65_537, 2048), ec.generate_private_key(ec.SECP384R1())], ids=["rsa", "p-384"]
)
def test_a_request_for_another_kind_of_key_is_refused(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(RemoteError, match="P-256"):
        identity.check_request(csr.public_bytes(serialization.Encoding.PEM))


def test_an_oversized_request_is_refused_unread() -> None:
    padded = identity.request(SITE.key, NORTH) + b"\n" * identity.REQUEST_BYTES_MAX
    with pytest.raises(RemoteError, match="at most 8192"):
        identity.check_request(padded)


def test_an_unusable_private_key_is_explained() -> None:
    curve = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pw")
    )
    for key, words in ((curve, "not an ECDSA P-256"), (locked, "cannot be read"), (b"", "cannot be read")):
        with pytest.raises(IdentityError, match=words):
            identity.public_key(key)


# --- reading certificates


@pytest.mark.parametrize(
    "uris",
    [[], ["https://example.org"], ["fedcervix://demo/site/north", "fedcervix://demo/operator"], ["FedCervix://demo/x"]],
)
def test_a_certificate_that_does_not_name_exactly_one_party_is_refused(uris: list[str]) -> None:
    with pytest.raises(IdentityError):
        identity.identify(self_signed(uris))


def test_uris_of_other_systems_do_not_disturb() -> None:
    """A spiffe URI beside ours is somebody else's business."""
    read = identity.identify(self_signed(["spiffe://example.org/x", "fedcervix://demo/site/north"]))
    assert read.identity == NORTH


def self_signed(uris: list[str]) -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + SECOND)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_is_valid_from_its_first_to_its_last_second() -> None:
    read = identity.identify(SITE.certificate)
    for now in (read.not_before, NOW, read.not_after):
        identity.check_validity(read, now)


def test_an_expired_certificate_names_the_clock_and_the_way_out() -> None:
    with pytest.raises(IdentityError, match="certificate of site north has expired") as caught:
        identity.check_validity(identity.identify(SITE.certificate), datetime(2031, 1, 1, 12, 0, 1, tzinfo=UTC))
    assert caught.value.cause == (
        "this machine's clock says 2031-01-01 12:00 UTC; "
        "the certificate is valid from 2030-01-01 11:55 UTC to 2030-04-01 12:00 UTC"
    )
    assert "timedatectl" in caught.value.next_step
    assert "`coordinator renew north`" in caught.value.next_step


def test_a_certificate_that_is_not_valid_yet_is_told_apart_from_an_expired_one() -> None:
    with pytest.raises(IdentityError, match="is not valid yet"):
        identity.check_validity(identity.identify(SITE.certificate), NOW - timedelta(minutes=5) - SECOND)


def test_the_issuer_is_told_by_signature_and_not_by_name() -> None:
    namesake = make_authority()
    identity.check_issuer(SITE.certificate, AUTHORITY.certificate_pem)
    with pytest.raises(IdentityError, match="another authority"):
        identity.check_issuer(SITE.certificate, namesake.certificate_pem)


# --- bytes from anywhere: a value or a FedcervixError

PEMS = st.sampled_from([SITE.certificate, SITE.key, identity.request(SITE.key, NORTH), INVITATION.to_toml().encode()])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Something real with some bytes replaced: it gets deeper into a parser than noise does."""
    content = draw(PEMS)
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.binary(max_size=8)) + content[at + draw(st.integers(0, 8)) :]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=300), damaged()))
def test_any_bytes_give_a_value_or_our_own_error(content: bytes) -> None:
    for read in (
        identity.check_request,
        identity.identify,
        identity.public_key,
        Invitation.parse,
        lambda content: identity.matches(SITE.key, content),
        lambda content: identity.check_issuer(content, AUTHORITY.certificate_pem),
    ):
        with contextlib.suppress(FedcervixError):
            read(content)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 700), st.integers(0, 255))
def test_a_certificate_with_a_damaged_byte_is_read_or_refused(at: int, byte: int) -> None:
    der = bytearray(x509.load_pem_x509_certificate(SITE.certificate).public_bytes(serialization.Encoding.DER))
    der[at % len(der)] = byte
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
    for read in (identity.identify, lambda pem: identity.matches(SITE.key, pem)):
        with contextlib.suppress(IdentityError):
            read(pem)


# --- the handshake: Python's ssl (OpenSSL). Here certificates meet the real clock.


@pytest.fixture(scope="module")
def today() -> datetime:
    return datetime.now(UTC)


def ssl_context(side: ssl._SSLMethod, trusted: Authority, party: Party, folder: Path) -> ssl.SSLContext:
    """TLS as strict as Python can make it; `ssl` reads certificates only from files."""
    context = ssl.SSLContext(side)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=trusted.certificate_pem.decode())
    file = folder / f"{identity.identify(party.certificate).serial}.pem"
    file.write_bytes(party.key + party.certificate)
    context.load_cert_chain(file)
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Shake hands in memory; return the party's URI that the server has verified. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # a TLS 1.3 handshake takes two turns of each end
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    names = dict(ends[1].getpeercert() or {})["subjectAltName"]
    return names[0][1]


def shake(tmp_path: Path, server: tuple[Authority, Party], client: tuple[Authority, Party], host: str) -> str:
    """`server` and `client` are (the authority it trusts, its own certificate)."""
    return handshake(
        ssl_context(ssl.PROTOCOL_TLS_SERVER, *server, tmp_path),
        ssl_context(ssl.PROTOCOL_TLS_CLIENT, *client, tmp_path),
        host,
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_admits_a_site_of_the_federation(tmp_path: Path, today: datetime, host: str) -> None:
    authority = make_authority(today)
    coordinator = make_party(authority, Identity("demo", "coordinator"), today)
    site = make_party(authority, NORTH, today)
    assert shake(tmp_path, (authority, coordinator), (authority, site), host) == NORTH.uri


def test_tls_refuses_a_site_of_another_authority_of_the_same_name(tmp_path: Path, today: datetime) -> None:
    authority, namesake = make_authority(today), make_authority(today)
    coordinator = make_party(authority, Identity("demo", "coordinator"), today)
    stranger = make_party(namesake, NORTH, today)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, (authority, coordinator), (authority, stranger), "localhost")


def test_tls_refuses_a_coordinator_of_another_authority(tmp_path: Path, today: datetime) -> None:
    authority, namesake = make_authority(today), make_authority(today)
    impostor = make_party(namesake, Identity("demo", "coordinator"), today)
    site = make_party(authority, NORTH, today)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, (authority, impostor), (authority, site), "localhost")


def test_tls_refuses_a_coordinator_at_another_host(tmp_path: Path, today: datetime) -> None:
    authority = make_authority(today)
    coordinator = make_party(authority, Identity("demo", "coordinator"), today)
    site = make_party(authority, NORTH, today)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(tmp_path, (authority, coordinator), (authority, site), "example.org")


def test_tls_refuses_a_site_that_poses_as_the_coordinator(tmp_path: Path, today: datetime) -> None:
    authority = make_authority(today)
    site = make_party(authority, NORTH, today)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(tmp_path, (authority, site), (authority, site), "localhost")


@pytest.mark.parametrize("offset", [timedelta(days=-400), timedelta(days=2)], ids=["expired", "not yet valid"])
def test_tls_refuses_a_site_out_of_its_time(tmp_path: Path, today: datetime, offset: timedelta) -> None:
    authority = make_authority(today - timedelta(days=500))
    coordinator = make_party(authority, Identity("demo", "coordinator"), today)
    site = make_party(authority, NORTH, today + offset)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, (authority, coordinator), (authority, site), "localhost")


def test_tls_refuses_who_shows_no_certificate(tmp_path: Path, today: datetime) -> None:
    authority = make_authority(today)
    coordinator = make_party(authority, Identity("demo", "coordinator"), today)
    server = ssl_context(ssl.PROTOCOL_TLS_SERVER, authority, coordinator, tmp_path)
    client = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server, client, "localhost")


# --- the same through gRPC (BoringSSL), the stack that the federation uses


def who_am_i(_: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer with the URI in the caller's verified certificate."""
    return identity.identify(context.auth_context()["x509_pem_cert"][0]).identity.uri.encode()


@pytest.fixture(scope="module")
def grpc_server(today: datetime) -> Iterator[tuple[Authority, int]]:
    authority = make_authority(today)
    coordinator = make_party(authority, Identity("demo", "coordinator"), today)
    credentials = grpc.ssl_server_credentials(
        [(coordinator.key, coordinator.certificate)], authority.certificate_pem, require_client_auth=True
    )
    handler = grpc.method_handlers_generic_handler("test", {"WhoAmI": grpc.unary_unary_rpc_method_handler(who_am_i)})
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield authority, port
    server.stop(None).wait()


def call(host: str, port: int, trusted: Authority, party: Party) -> bytes:
    credentials = grpc.ssl_channel_credentials(trusted.certificate_pem, party.key, party.certificate)
    with grpc.secure_channel(f"{host}:{port}", credentials) as channel:
        answer: bytes = channel.unary_unary("/test/WhoAmI")(b"", timeout=10)
        return answer


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_grpc_tells_the_server_who_calls(grpc_server: tuple[Authority, int], today: datetime, host: str) -> None:
    authority, port = grpc_server
    assert call(host, port, authority, make_party(authority, NORTH, today)) == NORTH.uri.encode()


def test_grpc_refuses_a_site_of_another_authority(grpc_server: tuple[Authority, int], today: datetime) -> None:
    authority, port = grpc_server
    with pytest.raises(grpc.RpcError) as caught:
        call("127.0.0.1", port, authority, make_party(make_authority(today), NORTH, today))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
