"""`make gpu`: every part has a limit, together nine minutes; what was not run is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.gpu import WHOLE_S, Part, parts, run, run_all
from tools.programs import ROOT

PYTHON = sys.executable


def test_all_parts_together_end_in_nine_minutes() -> None:
    assert sum(part.limit_s for part in parts(None)) < WHOLE_S


def test_the_parts_are_programs_that_are_there(tmp_path: Path) -> None:
    for part in parts(tmp_path):
        [file] = [word for word in part.command if word.endswith(".py")] or ["tools/gpu.py"]
        assert (ROOT / file).exists()
    assert [part.command[-1] for part in parts(tmp_path)][1:] == ["efficientnet_lite0/128/32", "efficientnet_lite0/128"]


def test_how_each_part_ended_is_printed_and_one_failure_fails_all(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Part("good", (PYTHON, "-c", ""), 60), Part("bad", (PYTHON, "-c", "raise SystemExit(3)"), 60)
    assert run_all([good])
    assert not run_all([bad, good])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["bad", "good"]
    assert run(bad) == "failed: exit code 3"


def test_a_part_that_takes_too_long_is_stopped_and_what_it_did_not_reach_is_said() -> None:
    endless = Part("endless", (PYTHON, "-c", "import signal; signal.pause()"), 0)
    assert "stopped after 0 s: what follows its last line above was not run" in run(endless)


def test_without_a_gpu_nothing_passes() -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([PYTHON, "-m", "tools.gpu"], cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert done.returncode != 0
    assert "torch sees no GPU" in done.stderr
