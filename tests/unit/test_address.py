"""HOST:PORT: names, IPv4, IPv6 in brackets, and what is refused with the right spelling."""

from __future__ import annotations

import pytest

from fedcervix.transport.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("federation.example.org:8443", "federation.example.org", 8443),
        ("localhost:1", "localhost", 1),
        ("192.0.2.7:65535", "192.0.2.7", 65_535),
        ("[2001:db8::7]:8443", "2001:db8::7", 8443),
        ("[::]:8443", "::", 8443),
        ("[::ffff:192.0.2.7]:8443", "::ffff:192.0.2.7", 8443),
    ],
)
def test_an_address_is_read_and_written_the_same(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


def test_an_ip_address_has_one_spelling_because_grpc_compares_it_as_text() -> None:
    assert str(Address.parse("[2001:0DB8:0:0:0:0:0:7]:8443")) == "[2001:db8::7]:8443"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("::1:18446", r"needs brackets: write \[::1\]:18446; found '::1:18446'"),
        ("2001:db8::7:8443", r"write \[2001:db8::7\]:8443"),
        ("https://federation.example.org:8443", "without https://"),
        ("[fe80::1%eth0]:8443", "without a zone"),
        ("federation.example.org", "must be HOST:PORT, and the port is missing: write it like"),
        ("federation.example.org:", "must be HOST:PORT, such as"),
        (":8443", "must be HOST:PORT, such as"),
        ("host:https", "must be HOST:PORT, such as"),
        ("host:８４４３", "must be HOST:PORT, such as"),
        ("host: 8443", "must be HOST:PORT, such as"),
        ("host:123456", "a port from 1 to 65535"),
        ("[localhost]:8443", "must be HOST:PORT, such as"),
        ("[::1:8443", "must be HOST:PORT"),
        ("[]:8443", "must be HOST:PORT, such as"),
        ("1.2.3:8443", "must be HOST:PORT, such as"),
        ("192.0.2.256:8443", "must be HOST:PORT, such as"),
        ("klinik köln:8443", "must be HOST:PORT, such as"),
        ("user@host:8443", "must be HOST:PORT, such as"),
        ("host:0", "a port from 1 to 65535"),
        ("host:65536", "a port from 1 to 65535"),
        ("", "must be HOST:PORT, such as"),
    ],
)
def test_what_is_no_address_is_refused_with_the_right_spelling(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Address.parse(text)


def test_the_system_may_choose_a_port_where_that_is_allowed() -> None:
    assert Address.parse("localhost:0", port_min=0).port == 0
