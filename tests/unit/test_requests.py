"""A request is small: what is longer is refused before it costs anything."""

from __future__ import annotations

import pytest

from fedcervix.errors import RemoteError
from fedcervix.transport import rpc
from fedcervix.wire import federation_pb2 as wire


def test_a_request_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    """A message may have 4 MiB for the sake of models; so many short texts, or numbers with names, cost seconds."""
    with pytest.raises(RemoteError, match="a request of 65,5"):
        rpc.parse(rpc.REPORT, wire.FromSite(failure=wire.Failure(hint="x" * (64 << 10))).SerializeToString())


def test_the_longest_report_and_a_part_of_a_model_are_let_in() -> None:
    words = "\U0001f4a5" * 600
    longest = wire.FromSite(failure=wire.Failure(stage=words, hint=words, incident=words))
    assert rpc.parse(rpc.REPORT, longest.SerializeToString()) == longest
    chunk = b"x" * rpc.CHUNK_BYTES_MAX
    assert rpc.parse(rpc.PUSH, chunk) == chunk
