"""Which precision a site trains in: asked for by name, or measured once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fedcervix.core.plan import Recipe
from site_agent.network import precision
from site_agent.network.devices import autocast
from site_agent.network.precision import faster, resolve_precision

torch.set_num_threads(1)
CPU = torch.device("cpu")


def clock(float32_s: float, bfloat16_s: float) -> Callable[[], float]:
    """A clock by which every float32 pass takes the one time and every bfloat16 pass the other."""

    def readings() -> Iterator[float]:
        now = 0.0
        for taken in (float32_s, bfloat16_s):
            for _ in range(precision._REPEATS):
                yield now
                now += taken
                yield now

    given = readings()
    return lambda: next(given)


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "expected"),
    [(3.0, 1.0, "bfloat16"), (1.0, 1.0, "float32"), (1.05, 1.0, "float32"), (1.0, 4.0, "float32")],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(float32_s: float, bfloat16_s: float, expected: str) -> None:
    assert faster(CPU, clock(float32_s, bfloat16_s)) == expected


def test_a_named_precision_is_not_measured() -> None:
    recipe = Recipe(precision="bfloat16")
    assert resolve_precision(recipe, CPU) is recipe


def test_what_was_measured_is_kept_so_that_an_interrupted_run_goes_on_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "faster", lambda _device: "bfloat16")
    assert resolve_precision(Recipe(precision="auto"), CPU, tmp_path / "cache").precision == "bfloat16"
    monkeypatch.setattr(precision, "faster", lambda _device: "float32")
    assert resolve_precision(Recipe(precision="auto"), CPU, tmp_path / "cache").precision == "bfloat16"
    (tmp_path / "cache" / "precision.json").write_text("damaged")
    assert resolve_precision(Recipe(precision="auto"), CPU, tmp_path / "cache").precision == "float32"


def test_what_was_measured_with_another_number_of_threads_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's processes and `pretrain` by hand may have different numbers of threads, turn about."""
    for threads, expected in ((1, "bfloat16"), (2, "float32"), (1, "bfloat16")):
        monkeypatch.setattr(precision, "faster", lambda _device, found=("bfloat16", "float32")[threads - 1]: found)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert resolve_precision(Recipe(precision="auto"), CPU, tmp_path).precision == expected
    monkeypatch.setattr(precision, "faster", lambda _device: pytest.fail("measured again"))
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        resolve_precision(Recipe(precision="auto"), CPU, tmp_path)


def test_auto_is_settled_before_training() -> None:
    with pytest.raises(ValueError, match="settled"):
        autocast(CPU, "auto")
