"""What a test sets for its whole process is put back after it: tests share processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import structlog

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script; every program that a test starts would be deaf to Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start hundreds of programs: none of them has to compile the code again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="renew the golden files of tests/contracts; write those of new formats"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where torch sees none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU that torch sees")


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()  # a command that ran in this process logs to a stream that is closed by now
    if "torch" in sys.modules:  # preparing a process for training makes tiny floats zero, and refuses some operations
        torch = sys.modules["torch"]
        torch.set_flush_denormal(False)
        torch.use_deterministic_algorithms(False)
