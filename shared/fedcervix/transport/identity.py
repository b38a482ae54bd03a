"""Identities: a small certificate authority, to be read from top to bottom.

A federation has one **authority**. It certifies four kinds of party, each named by one URI in its certificate:

    fedcervix://FEDERATION/coordinator     the server; its certificate also names the hosts it is reached at
    fedcervix://FEDERATION/operator        who may command the coordinator
    fedcervix://FEDERATION/site/NAME       a hospital
    fedcervix://FEDERATION/enroll/NAME     whoever holds the invitation of that hospital, for the call Enroll alone
    fedcervix://FEDERATION/authority       the authority itself

How a hospital gets in: the operator sends it an invitation (`fedcervix.transport.invitations`). The hospital makes its
own key, sends a `request` signed by it, and receives a certificate. The key never leaves the hospital.

Rules
1. Bytes to values. No files, no clock: `now` is an aware UTC time, passed in.
2. This module only *reads* names. The TLS handshake, which trusts only the federation's authority, proves that a
   certificate is genuine; `check_issuer` is for certificates that arrive outside a handshake.
3. A party's name is taken from its verified certificate (`identify`), never from a message.
4. One kind of key (ECDSA P-256), one hash (SHA-256): nothing is negotiated.
5. Bytes from outside give a value or a FedcervixError; their length is checked before they are read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fedcervix.core.plan import SITE_NAME
from fedcervix.errors import IdentityError, RemoteError
from fedcervix.transport.address import HOST_NAME
from fedcervix.trust.fingerprints import Fingerprint

AUTHORITY_LIFETIME = timedelta(days=3650)
SITE_LIFETIME = timedelta(days=90)
"""of the certificates that renew themselves, where coordinator.toml says nothing else: sites', server's, operator's"""

CLOCK_SKEW = timedelta(minutes=5)
"""certificates start this long before they are made, a short-lived one by a tenth of its life: a hospital's clock may
be a little slow"""

PEM_BYTES_MAX = 64 * 1024
REQUEST_BYTES_MAX = 8 * 1024

PublicKey = ec.EllipticCurvePublicKey
SCHEME = "fedcervix"
Role = Literal["site", "enroll", "operator", "coordinator", "authority"]

TITLE: dict[Role, str] = {
    "site": "site {name}",
    "enroll": "the invitation of site {name}",
    "operator": "the operator",
    "coordinator": "the coordinator",
    "authority": "the federation's authority",
}
ASK_AGAIN = "ask the coordinator's operator for a new invitation (`coordinator invite {name}`)"
RENEWAL: dict[Role, str] = {
    "site": "ask the coordinator's operator for a renewal (`coordinator renew {name}`), then `site-agent join FILE`",
    "enroll": ASK_AGAIN,
    "operator": "start the coordinator (`coordinator start`): it renews its own certificates",
    "coordinator": "start the coordinator (`coordinator start`): it renews its own certificates",
    "authority": "set up the federation again (`coordinator init HOME`) and invite every site again",
}
USAGE: dict[Role, ObjectIdentifier] = {
    "site": ExtendedKeyUsageOID.CLIENT_AUTH,
    "enroll": ExtendedKeyUsageOID.CLIENT_AUTH,
    "operator": ExtendedKeyUsageOID.CLIENT_AUTH,
    "coordinator": ExtendedKeyUsageOID.SERVER_AUTH,
}
"""The roles that the authority certifies, and for which end of a connection: no site can pretend to be the
coordinator."""

URI = re.compile(SCHEME + r"://([^/]*)/([^/]*)(?:/([^/]*))?")

# What reading a foreign certificate or request can raise (seam: nothing of it leaves this module).
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


# --- names ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """A party of a federation. `name` is the site's, and empty for the roles that exist once."""

    federation: str
    role: Role
    name: str = ""

    def __post_init__(self) -> None:
        if self.role not in TITLE:
            raise IdentityError(f"not a role: {self.role!r}", cause=f"the roles are {', '.join(TITLE)}")
        _check_name("federation", self.federation)
        if self.role in ("site", "enroll"):
            _check_name("site", self.name)
        elif self.name:
            raise IdentityError(f"the {self.role} of a federation has no name of its own; found {self.name!r}")

    @property
    def uri(self) -> str:
        """The name as it stands in a certificate."""
        return f"{SCHEME}://{self.federation}/{self.role}" + (f"/{self.name}" if self.name else "")

    @property
    def title(self) -> str:
        """The name as a person reads it: `site north`, `the coordinator`."""
        return TITLE[self.role].format(name=self.name)

    @property
    def renewal(self) -> str:
        """What a person does to get a new certificate of this kind."""
        return RENEWAL[self.role].format(name=self.name)

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """Return the identity that `uri` names. Raises IdentityError unless it is written exactly so."""
        if match := URI.fullmatch(uri):
            federation, role, name = match.groups(default="")
            identity = cls(federation, cast(Role, role), name)
            if identity.uri == uri:
                return identity
        raise _foreign(f"not the name of a party: {uri[:200]!r}")


def _check_name(what: str, name: str) -> None:
    if SITE_NAME.fullmatch(name) is None:
        raise IdentityError(
            f"not a {what} name: {name[:100]!r}",
            cause="a name is 1 to 63 characters: a-z, 0-9 and inner hyphens",
            next_step=f"choose another {what} name, such as `north-hospital`",
        )


def _foreign(what: str) -> IdentityError:
    return IdentityError(
        what,
        cause="the certificate was made by another program or another version, or damaged in transit",
        next_step="join the federation again with a new invitation: `site-agent join FILE`",
    )


# --- keys ----------------------------------------------------------------------------------------------------


def new_key() -> bytes:
    """Return a new ECDSA P-256 private key (PKCS #8 PEM, not encrypted: store it with mode 0600)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key(key_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public half of a private key. Raises IdentityError if `key_pem` holds no P-256 key."""
    return _private_key(key_pem).public_key()


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key, hexadecimal: equal for requests that were made with the same key."""
    return Fingerprint.of(key).hex


def matches(key_pem: bytes, cert_pem: bytes) -> bool:
    """Tell whether a certificate was issued for this private key. Raises IdentityError if either is unreadable."""
    certified = _load_certificate(cert_pem)
    try:
        return certified.public_key() == public_key(key_pem)
    except UNREADABLE as error:
        raise _foreign(f"the certificate holds a key of an unknown kind ({error})") from error


def _private_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_bounded(key_pem), password=None)
    except UNREADABLE as error:
        raise _bad_key("the private key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key("the private key is not an ECDSA P-256 key")
    return key


def _bad_key(what: str) -> IdentityError:
    return IdentityError(
        what,
        cause="the key file is damaged, encrypted with a password, or was put there by another program",
        next_step="restore it from a backup, or join the federation again with a new invitation",
    )


def _bounded(pem: bytes) -> bytes:
    if len(pem) > PEM_BYTES_MAX:
        raise ValueError(f"{len(pem)} bytes; at most {PEM_BYTES_MAX} were expected")
    return pem


# --- issuing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authority:
    """The federation's authority: its certificate, which everybody holds, and its key, which stays secret."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if identify(self.certificate_pem).identity.role != "authority":
            raise _bad_authority("not the certificate of an authority")
        if not matches(self.key_pem, self.certificate_pem):
            raise _bad_authority("the authority's key does not belong to its certificate")

    @property
    def federation(self) -> str:
        """The name of the federation it speaks for."""
        return identify(self.certificate_pem).identity.federation


def _bad_authority(what: str) -> IdentityError:
    return IdentityError(
        what,
        cause="files of two federations were mixed in the coordinator's home folder",
        next_step="restore the home folder from a backup",
    )


def new_authority(federation: str, key_pem: bytes, now: datetime) -> bytes:
    """Return the self-signed certificate (PEM) of a new authority: it may sign parties, but no further authority.

    It carries no name constraint: TLS libraries disagree about constraints on URIs, and nothing but this
    federation's own processes ever trusts it.
    """
    identity = Identity(federation, "authority")
    key = _private_key(key_pem)
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(key_cert_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]), False),
    ]
    window = (now - CLOCK_SKEW, now + AUTHORITY_LIFETIME)
    return _sign(_subject(identity), key.public_key(), _subject(identity), key, window, extensions)


def issue(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    identity: Identity,
    now: datetime,
    lifetime: timedelta,
    hosts: Sequence[str] = (),
) -> bytes:
    """Return a certificate (PEM) that says: the holder of `key` is `identity`, from `now` for `lifetime`.

    `hosts` are the host names and IP addresses at which the coordinator is reached. The certificate never outlives
    its authority. Raises IdentityError if the authority is not valid now, or a host is not one; ValueError on
    a request that makes no sense.
    """
    if identity.federation != authority.federation or identity.role not in USAGE:
        raise ValueError(f"the authority of {authority.federation} does not certify {identity.uri}")
    if bool(hosts) != (identity.role == "coordinator"):
        raise ValueError("the coordinator's certificate names its hosts, and only the coordinator's")
    issuer = _load_certificate(authority.certificate_pem)
    check_validity(identify(authority.certificate_pem), now)
    names = [x509.UniformResourceIdentifier(identity.uri), *map(_host, hosts)]
    extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([USAGE[identity.role]]), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key(authority.key_pem)), False),
    ]
    window = (now - min(CLOCK_SKEW, lifetime / 10), min(now + lifetime, issuer.not_valid_after_utc))
    return _sign(_subject(identity), key, issuer.subject, _private_key(authority.key_pem), window, extensions)


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    window: tuple[datetime, datetime],
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(window[0])
        .not_valid_after(window[1])
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _subject(identity: Identity) -> x509.Name:
    """What `openssl x509 -text` shows first. Nothing reads it: the name that counts is the URI."""
    words = ((NameOID.ORGANIZATION_NAME, identity.federation), (NameOID.COMMON_NAME, identity.name or identity.role))
    return x509.Name([x509.NameAttribute(oid, word) for oid, word in words])


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # not an address, so a name
    if HOST_NAME.fullmatch(host) is None:
        raise IdentityError(
            f"not a host name or IP address: {host[:100]!r}",
            cause="a host name has no scheme and no port; it consists of a-z, 0-9, hyphens and dots",
            next_step="give the name by which the sites reach it, such as `federation.example.org` or `192.0.2.7`",
        )
    return x509.DNSName(host)


# --- requests (the site makes the key, the coordinator sees only this) -------------------------------------------


def request(key_pem: bytes, identity: Identity, challenge: str = "") -> bytes:
    """Return a certificate signing request (PEM): the public key, signed by the private one.

    The name in it is for people to read. What the certificate will say is decided by the invitation. `challenge`: the
    serial of the invitation that renews a certificate (the attribute challengePassword of PKCS #9).
    """
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(identity)).add_extension(name, False)
    if challenge:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(_private_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def check_request(csr_pem: bytes, challenge: str = "") -> ec.EllipticCurvePublicKey:
    """Return the public key of a signing request whose sender holds the private one. Raises RemoteError otherwise.

    `challenge`: what the request has to answer, so that an old one does not count.
    """
    if len(csr_pem) > REQUEST_BYTES_MAX:
        raise RemoteError(f"a certificate request of {len(csr_pem)} bytes; at most {REQUEST_BYTES_MAX} are read")
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        # The kind of key first: checking a signature by an exotic key is work that a stranger could impose.
        usable = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        genuine = usable and csr.is_signature_valid
        answers = not challenge or _challenge(csr) == challenge
    except UNREADABLE as error:
        raise RemoteError("not a certificate request", cause="it was damaged in transit") from error
    if not usable:
        raise RemoteError("the certificate request is not for an ECDSA P-256 key")
    if not genuine:
        raise RemoteError("the certificate request is not signed by its own key", cause="it was altered in transit")
    if not answers:
        raise RemoteError(
            "the certificate request was not made for this invitation", cause="an old request was repeated"
        )
    return cast(ec.EllipticCurvePublicKey, key)


def _challenge(csr: x509.CertificateSigningRequest) -> str:
    try:
        return csr.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value.decode("ascii", "replace")
    except x509.AttributeNotFound:
        return ""


# --- reading certificates ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says: who, and from when to when (aware UTC)."""

    identity: Identity
    serial: str
    """hexadecimal"""
    not_before: datetime
    not_after: datetime
    key_fingerprint: str
    """SHA-256 of its public key, hexadecimal"""


def identify(cert_pem: bytes) -> Certificate:
    """Read a certificate. Raises IdentityError unless it names exactly one party of a federation.

    Does not check who issued it: the handshake or `check_issuer` does that.
    """
    certificate = _load_certificate(cert_pem)
    try:
        return Certificate(
            identity=_identity(certificate),
            serial=f"{certificate.serial_number:x}",
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            key_fingerprint=Fingerprint.of(certificate.public_key()).hex,
        )
    except UNREADABLE as error:
        raise _foreign("the certificate cannot be read") from error


def _identity(certificate: x509.Certificate) -> Identity:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise _foreign("the certificate names no party of a federation") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    ours = [uri for uri in uris if uri.partition(":")[0].lower() == SCHEME]
    if len(ours) != 1:
        raise _foreign(f"the certificate names {len(ours)} parties of a federation; exactly one was expected")
    return Identity.parse(ours[0])


def _load_certificate(cert_pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_bounded(cert_pem))
    except UNREADABLE as error:
        raise _foreign("not a certificate") from error


def check_validity(certificate: Certificate, now: datetime) -> None:
    """Raise IdentityError if the certificate has expired or is not valid yet; a wrong clock is a frequent cause."""
    if certificate.not_before <= now <= certificate.not_after:
        return
    state = "has expired" if now > certificate.not_after else "is not valid yet"
    raise IdentityError(
        f"the certificate of {certificate.identity.title} {state}",
        cause=f"this machine's clock says {moment(now)}; the certificate is valid from "
        f"{moment(certificate.not_before)} to {moment(certificate.not_after)}",
        next_step=f"if the clock is wrong, set it (`timedatectl`); otherwise {certificate.identity.renewal}",
    )


def check_issuer(cert_pem: bytes, authority_pem: bytes) -> None:
    """Raise IdentityError unless this authority signed this certificate."""
    certificate, authority = _load_certificate(cert_pem), _load_certificate(authority_pem)
    try:
        certificate.verify_directly_issued_by(authority)
    except (*UNREADABLE, InvalidSignature) as error:
        raise IdentityError(
            "the certificate was issued by another authority",
            cause="it belongs to another federation, or the federation has been set up again since then",
            next_step="join the federation again with a new invitation: `site-agent join FILE`",
        ) from error


def moment(when: datetime) -> str:
    """Return a time as a person reads it."""
    return f"{when:%Y-%m-%d %H:%M} UTC"
