"""The command `export`: a model as safetensors and ONNX, with its card."""

from __future__ import annotations

from pathlib import Path

from cervix_study.export.model_source import find
from fedcervix.runtime.printing import say


def export(model: Path, folder: Path) -> None:
    """Write a model as safetensors and ONNX with a model card.

    CELL is STUDY/cells/KEY (KEY may be shortened); MODEL is HOME/models/NAME, HOME/classifiers/NAME, or what
    `coordinator export` wrote.
    """
    found = find(model)
    from cervix_study.export import writing as files  # torch is loaded when there is a model to export
    from site_agent.classifier.onnx_export import TOLERANCE

    written, parity = files.export(found, folder)
    for name, difference in parity.differences.items():
        say(f"parity with {parity.evaluator}: {name} differs by {difference:.2e} at most ({TOLERANCE:g} allowed)")
    say(f"wrote {', '.join(map(str, written))}")
