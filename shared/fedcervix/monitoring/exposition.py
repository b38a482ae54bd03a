"""Measured values as Prometheus reads them, and the file from which node_exporter reads them (its textfile collector).

prometheus-client is an optional package (extra `page`): it is loaded here alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedcervix.disk.files import in_place_of, private
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError
from fedcervix.extras import require
from fedcervix.monitoring.declared import Declared, Sample

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAMILIES_KNOWN = 256
"""texts of metrics that are kept: more than there are metrics, so those that stay the same stay here"""
TEXTFILE_MODE = 0o644
"""node_exporter runs as a user of its own"""


Samples = tuple[tuple[tuple[str, ...], float], ...]
"""of one metric: the values of its labels, and the value"""


@dataclass(frozen=True, slots=True)
class _Alone:
    """What prometheus-client makes a text of: one family, which is known already."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.family,)


def text(measured: Iterable[Sample], fixed: Mapping[str, str]) -> bytes:
    """Return measured values in Prometheus's text format 0.0.4, those of one metric together.

    A metric without a known value is left out. A value that is no finite number counts as not known. `fixed`: labels
    that all samples have. Raises ConfigError where the extra is missing.
    """
    require("prometheus_client")
    found: dict[Declared, list[tuple[tuple[str, ...], float]]] = {}
    for one in measured:
        if one.value is not None and math.isfinite(one.value):
            found.setdefault(one.metric, []).append((one.labels, one.value))
    always = tuple(fixed.items())
    return b"".join(_text_of(metric, tuple(samples), always) for metric, samples in found.items())


@lru_cache(FAMILIES_KNOWN)
def _text_of(metric: Declared, samples: Samples, fixed: tuple[tuple[str, str], ...]) -> bytes:
    """Return the lines of one metric. From one scrape to the next most metrics stay the same."""
    from prometheus_client import Metric, generate_latest

    counts = metric.kind == "counter"
    family = Metric(metric.full_name.removesuffix("_total") if counts else metric.full_name, metric.help, metric.kind)
    for labels, value in samples:
        family.add_sample(metric.full_name, dict((*fixed, *zip(metric.labels, labels, strict=True))), value)
    return generate_latest(_Alone(family))


def forget() -> None:
    """Keep no text of a metric: the next one is the first one again."""
    _text_of.cache_clear()


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless the folder for textfiles is there: it is node_exporter's, and is not made here."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder",
            cause="node_exporter's folder for textfiles has another path, or was not made yet",
            next_step="give the folder from which node_exporter's textfile collector reads, or make it",
        )


def write_textfile(file: Path, content: bytes) -> None:
    """Replace a textfile: node_exporter reads the old one or the new one, never a part. Raises StorageError.

    Everybody on the machine may read it: node_exporter is another user. It is not waited for until the disk has it, for
    the next one follows soon.
    """
    with disk(file, "write"), in_place_of(file) as new, open(new, "xb", opener=private) as out:
        out.write(content)
        os.fchmod(out.fileno(), TEXTFILE_MODE)
