"""An honest site's calls, each timed: a program that writes one line for each, until it is ended.

    python -m tests.e2e.hostile.field.probe --port PORT --keys FOLDER --authority FILE

A call is begun every PAUSE_S whatever became of the one before it; its time counts from when it was to begin. So an
attack that stops the coordinator shows in every call, not in one. A line is JSON: when (monotonic), which, seconds,
status, and the words of a failure.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from fedcervix.wire import federation_pb2 as wire
from tests.e2e.hostile.field.attacker import ATTACH, OFFER, REPORT, WIRE_VERSION

PAUSE_S = 0.05
CALL_S = 10.0
THREADS = 256
LINES = 2
"""connections: on a busy machine more calls are under way than may be on one"""
INSTANCE = secrets.token_hex(16)
ONE_WRITES = threading.Lock()
ANSWERED = ("OK", "FAILED_PRECONDITION")
"""that no model is wanted just now is an answer, too"""


class Probe:
    """The calls, and their lines."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._report = channel.unary_unary(REPORT, wire.FromSite.SerializeToString, wire.ReportReply.FromString)
        self._offer = channel.unary_unary(OFFER, wire.OfferRequest.SerializeToString, wire.OfferReply.FromString)
        self._attach: grpc.UnaryStreamMultiCallable[wire.AttachRequest, bytes] = channel.unary_stream(
            ATTACH, wire.AttachRequest.SerializeToString
        )
        self._who = (("fedcervix-instance", INSTANCE),)
        self.calls = {"here": self.here, "offer": self.offer, "look": self.look}

    def here(self) -> None:
        message = wire.FromSite(at=time.time(), here=wire.Here())
        self._report(message, timeout=CALL_S, metadata=self._who)

    def offer(self) -> None:
        self._offer(wire.OfferRequest(digest="a" * 64, size_bytes=1000), timeout=CALL_S, metadata=self._who)

    def look(self) -> None:
        list(self._attach(wire.AttachRequest(wire_version=WIRE_VERSION, look=True), timeout=CALL_S))

    def time_one(self, name: str, call: Callable[[], None], due_s: float) -> None:
        """Make a call and write its line."""
        status, words = "OK", ""
        try:
            call()
        except grpc.RpcError as error:
            status, words = error.code().name, error.details() or ""
        took_s = time.monotonic() - due_s
        line = {"at_s": due_s, "call": name, "seconds": took_s, "status": status, "words": words}
        with ONE_WRITES:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Call until ended."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--keys", type=Path, required=True)
    options.add_argument("--authority", type=Path, required=True)
    given = options.parse_args()
    credentials = grpc.ssl_channel_credentials(
        given.authority.read_bytes(), (given.keys / "party.key").read_bytes(), (given.keys / "party.crt").read_bytes()
    )
    settings = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.enable_http_proxy", 0)]
    settings.append(("grpc.use_local_subchannel_pool", 1))  # a connection for each channel
    channels = [grpc.secure_channel(f"localhost:{given.port}", credentials, options=settings) for _ in range(LINES)]
    probes = itertools.cycle([Probe(channel) for channel in channels])
    order = itertools.cycle(["here", "here", "offer", "here", "here", "look"])
    with ThreadPoolExecutor(THREADS) as threads:
        for number in itertools.count():
            due_s = (begun_s := time.monotonic()) if number == 0 else begun_s + number * PAUSE_S
            time.sleep(max(0.0, due_s - time.monotonic()))
            name, probe = next(order), next(probes)
            threads.submit(probe.time_one, name, probe.calls[name], due_s)


if __name__ == "__main__":
    main()
