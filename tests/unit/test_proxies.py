"""Which proxy counts: gRPC's rules, for whoever dials beside it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from site_agent.federation.proxies import Proxy, proxy_for, remark

HOST = "federation.example.org"
URL = "http://proxy.hospital.example:3128"
PROXY = Proxy("proxy.hospital.example", 3128)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"https_proxy": URL}, PROXY),
        ({"http_proxy": URL}, PROXY),
        ({"http_proxy": "http://other:1", "https_proxy": URL}, PROXY),
        ({"http_proxy": "http://other:1", "https_proxy": "http://another:1", "grpc_proxy": URL}, PROXY),
        ({"https_proxy": "", "http_proxy": URL}, None),
        ({"https_proxy": "http://proxy.hospital.example"}, Proxy("proxy.hospital.example", 443)),
        ({"https_proxy": "http://[2001:db8::1]:3128"}, Proxy("2001:db8::1", 3128)),
        ({"https_proxy": "https://proxy.hospital.example:3128"}, None),
        ({"https_proxy": "proxy.hospital.example:3128"}, None),
        ({"https_proxy": "http://proxy.hospital.example:many"}, None),
        ({"HTTPS_PROXY": URL, "HTTP_PROXY": URL}, None),
    ],
)
def test_the_first_that_is_set_counts(environment: dict[str, str], found: Proxy | None) -> None:
    assert proxy_for(HOST, environment) == found


@pytest.mark.parametrize(
    ("host", "entries", "past"),
    [
        (HOST, HOST, True),
        (HOST, "example.org", True),
        (HOST, ".example.org", True),
        (HOST, "localhost, EXAMPLE.org", True),
        (HOST, "other.org,,", False),
        (HOST, "", False),
        (HOST, "federation", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "192.168.0.0/16,10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[2001:db8::7]", "2001:db8::/32", True),
        (HOST, "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/many", False),
    ],
)
def test_whom_to_dial_without_it(host: str, entries: str, past: bool) -> None:
    assert (proxy_for(host, {"https_proxy": URL, "no_proxy": entries}) is None) == past
    assert (proxy_for(host, {"https_proxy": URL, "no_grpc_proxy": entries}) is None) == past


def test_grpc_s_own_list_comes_first() -> None:
    environment = {"https_proxy": URL, "no_proxy": HOST, "no_grpc_proxy": "elsewhere"}
    assert proxy_for(HOST, environment) == PROXY


def test_a_password_is_sent_and_never_shown() -> None:
    proxy = proxy_for(HOST, {"https_proxy": "http://nhs:p%40ss@proxy:3128"})
    assert proxy is not None
    assert proxy._headers() == {"Proxy-Authorization": "Basic bmhzOnBAc3M="}
    assert "p@ss" not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ""),
        ({"https_proxy": URL, "HTTPS_PROXY": URL}, ""),
        ({"HTTPS_PROXY": URL}, "HTTPS_PROXY is set, but only https_proxy, in lower case, is used"),
        ({"http_proxy": "socks5://p:1"}, "http_proxy is set, but not to http://HOST:PORT: it is ignored"),
    ],
)
def test_what_does_not_work_is_remarked_on(environment: dict[str, str], words: str) -> None:
    assert remark(environment) == words


@contextmanager
def answering(answer: bytes) -> Iterator[Proxy]:
    """Stand in for a proxy that gives this answer to whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.recv(4096)
                line.sendall(answer)
                line.recv(4096)  # until the other side hangs up

        thread = threading.Thread(target=serve)
        thread.start()
        yield Proxy("127.0.0.1", server.getsockname()[1])
        thread.join(10)
        assert not thread.is_alive(), "the connection was left open"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n"])
def test_what_is_no_http_proxy_cannot_be_connected_through(answer: bytes) -> None:
    with answering(answer) as proxy, pytest.raises(OSError, match="the program that answers there does not speak HTTP"):
        proxy.connect(HOST, 443, 5.0)
