"""One transfer of a kind for each site."""

from __future__ import annotations

from contextlib import ExitStack

from coordinator.transfers import Transfers


class Call:
    """What is needed of a call's context."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self, _why: str) -> None:
        self.cancelled += 1


def test_a_newer_transfer_ends_the_older_one_of_its_site_and_kind_and_no_other() -> None:
    transfers, calls = Transfers(), [Call() for _ in range(4)]
    keys = [("ada", "push"), ("ada", "fetch"), ("bob", "push"), ("ada", "push")]
    with ExitStack() as stack:
        for (site, kind), call in zip(keys, calls, strict=True):
            stack.enter_context(transfers.newest(site, kind, call))
        assert [call.cancelled for call in calls] == [1, 0, 0, 0]


def test_in_whatever_order_they_end_the_newest_stays_known() -> None:
    transfers, (older, newer, newest) = Transfers(), [Call() for _ in range(3)]
    outlived = transfers.newest("ada", "push", older)
    outlived.__enter__()
    with transfers.newest("ada", "push", newer):
        pass
    with transfers.newest("ada", "push", newest):
        outlived.__exit__(None, None, None)
        with transfers.newest("ada", "push", Call()):
            assert newest.cancelled == 1
    assert (older.cancelled, newer.cancelled) == (1, 0)
