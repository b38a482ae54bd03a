"""Pauses between tries grow, are jittered, and add up to less than a returning coordinator may be kept waiting."""

from __future__ import annotations

import random

from fedcervix.transport import rpc
from fedcervix.transport.backoff import FIRST_S, MOST_S, Pauses

BACK_WITHIN_S = 5.0
"""the promise: "every agent works on within 5 s of its return\""""
DIALLING_JITTER = 1.2
"""gRPC's own back-off is jittered by a fifth"""
HANDSHAKES_S = 1.0
"""for 64 sites that come within a second to a machine with two cores"""


class Widest(random.Random):
    """Always the longest pause."""

    def uniform(self, _a: float, b: float) -> float:
        return b


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_success() -> None:
    pauses = Pauses(Widest())
    assert [pauses.next_s() for _ in range(6)] == [FIRST_S, 0.4, 0.8, 1.6, MOST_S, MOST_S]
    pauses.reset()
    assert pauses.next_s() == FIRST_S


def test_a_longer_bound_may_be_asked_for() -> None:
    pauses = Pauses(Widest(), most_s=30.0)
    assert max(pauses.next_s() for _ in range(12)) == 30.0


def test_sites_do_not_come_all_at_once() -> None:
    sites = [Pauses(random.Random(seed)) for seed in range(64)]
    for _ in range(10):
        due = sorted(pauses.next_s() for pauses in sites)
    assert due[0] >= MOST_S / 2
    assert due[-1] - due[0] > 0.8 * MOST_S / 2


def test_all_pauses_together_are_shorter_than_the_promise() -> None:
    options = dict(rpc.CLIENT_OPTIONS)
    dialling_s = DIALLING_JITTER * options["grpc.max_reconnect_backoff_ms"] / 1000
    assert dialling_s + MOST_S + HANDSHAKES_S < BACK_WITHIN_S


def test_a_slow_handshake_is_not_cut_off_by_the_short_back_off() -> None:
    """GRPC_ARG_MIN_RECONNECT_BACKOFF_MS is how long a connection may take to be made, whatever its name says."""
    assert dict(rpc.CLIENT_OPTIONS)["grpc.min_reconnect_backoff_ms"] >= 10_000
