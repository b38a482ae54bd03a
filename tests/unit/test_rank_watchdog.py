"""What a process of a team tells its leader when it breaks."""

from __future__ import annotations

from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import ErrorParts, Failure
from site_agent.training.ddp import TEXT_BYTES_MAX
from site_agent.training.rank_watchdog import to_text

BROKEN = Failure(kind="TrainingError", stage="training", trouble=ErrorParts("it", "", ""), exit_code=7, trace="b")


def test_of_a_very_long_trace_the_end_is_told() -> None:
    """Before: bytes were cut at 1 MiB, and the leader did not hear what had broken."""
    trace = "a line \N{GRINNING FACE}\n" * 2**20 + "ValueError: this is it"
    failure = Failure(
        kind="TrainingError", stage="training", trouble=ErrorParts("it", "", ""), exit_code=7, trace=trace
    )
    text = to_text(failure)
    assert len(text.encode()) <= TEXT_BYTES_MAX
    told = from_json(Failure, parsed(text))
    assert (told.kind, told.trouble) == (BROKEN.kind, BROKEN.trouble)
    assert told.trace.startswith("[...]\n")
    assert told.trace.endswith("ValueError: this is it")


def test_a_trace_of_usual_length_is_told_whole() -> None:
    assert from_json(Failure, parsed(to_text(BROKEN))) == BROKEN
