"""A port that a program of a test will listen on, where it cannot choose one itself."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST = 20_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a free port below those that the system gives to connections: between now and then none may take it."""
    end = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768
    for port in random.SystemRandom().sample(range(FIRST, max(end, FIRST + 1_000)), 100):
        try:
            with socket.socket() as found:
                found.bind(("127.0.0.1", port))
                return port
        except OSError:
            continue
    raise AssertionError("no port is free")
