"""Silence around pydicom: its warnings and its logger print values of headers, names among them."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

LOGGER = "pydicom"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Print nothing of what pydicom says within."""
    logger = logging.getLogger(LOGGER)
    before = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = before


def close_outputs() -> None:
    """Send what this process prints, and its libraries in C, to nowhere: for a process that answers by a pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
