"""Devices that were left out: a start's AUC on each of them, told by the device's name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cervix_study.analysis.analysis import judge
from cervix_study.analysis.result_rows import Finished
from cervix_study.report.devices import section
from cervix_study.report.markdown import blocks_text
from tests.unit.synthetic_study import Synthetic, write


def test_each_left_out_device_has_the_auc_of_its_own_women(tmp_path: Path) -> None:
    drawn = Synthetic(sites=("nhs",), starts=("random",), folds=3, seeds=(1,), case_women=25, control_women=30)
    finished = Finished.read(write(tmp_path, drawn))
    axes = dataclasses.replace(finished.study.axes, folds=0, leave_out_devices=("eva", "dslr", "phone"))
    by_device = judge(dataclasses.replace(finished, study=dataclasses.replace(finished.study, axes=axes)))
    [site] = by_device.sites
    assert [(one.device, one.women, one.case_women) for one in site.left_out] == [
        ("eva", 55, 25),
        ("dslr", 55, 25),
        ("phone", 55, 25),
    ]
    [score] = site.scores
    mean = sum(one.auc.value for one in site.left_out) / 3
    assert mean == pytest.approx(score.measures["auc"].value)
    assert "| start | eva | dslr | phone |" in blocks_text(tuple(section(by_device)))
    assert list(section(judge(finished))) == []
